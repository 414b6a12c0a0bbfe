/* A GRU along packed sequences: rows are ordered by time, sizes[t] of them at time t, longest sequences first.

Sequences are independent, so a block of them goes through all times while its states stay in the cache. Equations
and the order of gates as in nn/gru.py. Thread `part` of `parts` takes block `part` and every `parts`th after it, as
the first blocks are the longest. */

/* In: gates = [W_in x + b_in | W_ir x + b_r | W_iu x + b_u | …], `step` reals a row. Out: h; where `keep` is not 0,
gates = [n | r | u | W_hn h + b_hn] for the backward pass (step = 4 · hidden). 0 where there is no memory. */
int NAME(gru_forward)(
    int64_t part, int64_t parts, int64_t sequences, const int64_t *sizes, int64_t times, int64_t hidden,
    const REAL *w_hh, const REAL *b_hn, REAL *gates, int64_t step, REAL *h, int64_t keep) {
    const int64_t wide = NAME(padded)(3 * hidden);
    REAL *panels = malloc(sizeof(REAL) * (size_t)(wide * hidden + BLOCK_ROWS * (wide + hidden)));
    if (panels == NULL)
        return 0;
    REAL *sums = panels + wide * hidden, *state = sums + BLOCK_ROWS * wide;
    NAME(pack)(w_hh, hidden, 3 * hidden, 1, hidden, panels);

    for (int64_t block = part * BLOCK_ROWS; block < sequences; block += parts * BLOCK_ROWS) {
        int64_t end = block + BLOCK_ROWS, offset = 0;
        memset(state, 0, sizeof(REAL) * (size_t)(BLOCK_ROWS * hidden));
        for (int64_t t = 0; t < times && sizes[t] > block; offset += sizes[t++]) {
            int64_t rows = (sizes[t] < end ? sizes[t] : end) - block;
            NAME(product)(rows, 3 * hidden, hidden, state, hidden, panels, sums, wide);
            for (int64_t i = 0; i < rows; i++) {
                REAL *restrict gate = gates + (offset + block + i) * step;
                REAL *restrict out = h + (offset + block + i) * hidden;
                REAL *restrict before = state + i * hidden;
                const REAL *restrict sum = sums + i * wide;
#pragma omp simd
                for (int64_t j = 0; j < hidden; j++) {
                    REAL r = NAME(sigmoid)(gate[hidden + j] + sum[j]);
                    REAL u = NAME(sigmoid)(gate[2 * hidden + j] + sum[hidden + j]);
                    REAL from_h = b_hn[j] + sum[2 * hidden + j];
                    REAL n = NAME(tanh)(gate[j] + r * from_h);
                    REAL now = n + u * (before[j] - n);
                    before[j] = out[j] = now;
                    if (keep) {
                        gate[j] = n;
                        gate[hidden + j] = r;
                        gate[2 * hidden + j] = u;
                        gate[3 * hidden + j] = from_h;
                    }
                }
            }
        }
    }
    free(panels);
    return 1;
}

/* In: gates and h of the forward pass, grad_h. Out: gates = gradients of the sums within tanh, σ of r, σ of u, and of
W_hn h + b_hn. 0 where there is no memory. */
int NAME(gru_backward)(
    int64_t part, int64_t parts, int64_t sequences, const int64_t *sizes, int64_t times, int64_t hidden,
    const REAL *w_hh, REAL *gates, const REAL *h, const REAL *grad_h) {
    const int64_t step = 4 * hidden, wide = NAME(padded)(hidden);
    REAL *panels = malloc(sizeof(REAL) * (size_t)(wide * 3 * hidden + BLOCK_ROWS * (wide + 4 * hidden)));
    if (panels == NULL)
        return 0;
    REAL *sums = panels + wide * 3 * hidden, *grads = sums + BLOCK_ROWS * wide;
    REAL *carry = grads + BLOCK_ROWS * 3 * hidden;
    NAME(pack)(w_hh, 3 * hidden, hidden, hidden, 1, panels);
    int64_t total = 0;
    for (int64_t t = 0; t < times; t++)
        total += sizes[t];

    for (int64_t block = part * BLOCK_ROWS; block < sequences; block += parts * BLOCK_ROWS) {
        int64_t end = block + BLOCK_ROWS, offset = total;
        memset(carry, 0, sizeof(REAL) * (size_t)(BLOCK_ROWS * hidden)); /* no gradient from beyond the end */
        for (int64_t t = times - 1; t >= 0; t--) {
            offset -= sizes[t];
            int64_t rows = (sizes[t] < end ? sizes[t] : end) - block;
            if (rows <= 0)
                continue;
            for (int64_t i = 0; i < rows; i++) {
                const int64_t row = offset + block + i;
                REAL *restrict gate = gates + row * step;
                REAL *restrict grad = grads + i * 3 * hidden;
                REAL *restrict later = carry + i * hidden;
                const REAL *restrict of_h = grad_h + row * hidden;
                const REAL *restrict now = h + row * hidden;
#pragma omp simd
                for (int64_t j = 0; j < hidden; j++) {
                    REAL n = gate[j], r = gate[hidden + j], u = gate[2 * hidden + j], from_h = gate[3 * hidden + j];
                    REAL dh = of_h[j] + later[j];
                    REAL kept = dh * (1 - u);
                    REAL to_n = kept * (1 - n * n);
                    gate[j] = to_n;
                    gate[hidden + j] = grad[j] = to_n * from_h * r * (1 - r);
                    /* h − n = u (h_{t−1} − n) */
                    gate[2 * hidden + j] = grad[hidden + j] = kept * (now[j] - n);
                    gate[3 * hidden + j] = grad[2 * hidden + j] = to_n * r;
                    later[j] = dh * u;
                }
            }
            if (t == 0)
                break;
            NAME(product)(rows, hidden, 3 * hidden, grads, 3 * hidden, panels, sums, wide);
            for (int64_t i = 0; i < rows; i++)
                for (int64_t j = 0; j < hidden; j++)
                    carry[i * hidden + j] += sums[i * wide + j];
        }
    }
    free(panels);
    return 1;
}
