/* ELU and its gradient, entry by entry. Of `parts` threads, each takes so many entries in a row. */

int NAME(elu_forward)(int64_t part, int64_t parts, int64_t entries, const REAL *restrict x, REAL *restrict y) {
    const int64_t first = entries * part / parts, last = entries * (part + 1) / parts;
#pragma omp simd
    for (int64_t i = first; i < last; i++)
        y[i] = NAME(elu)(x[i]);
    return 1;
}

/* The slope is exp(x) = y + 1 below zero, 1 above. */
int NAME(elu_backward)(
    int64_t part, int64_t parts, int64_t entries, const REAL *restrict y, const REAL *restrict grad_y,
    REAL *restrict grad_x) {
    const int64_t first = entries * part / parts, last = entries * (part + 1) / parts;
#pragma omp simd
    for (int64_t i = first; i < last; i++)
        grad_x[i] = grad_y[i] + grad_y[i] * (y[i] > 0 ? 0 : y[i]);
    return 1;
}
