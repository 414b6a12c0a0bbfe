/* A GRU along packed sequences: rows are ordered by time, sizes[t] of them at time t, longest sequences first.

Sequences are independent, so a block of them goes through all times while its states stay in the cache. Equations
and the order of gates as in nn/gru.py. Thread `part` of `parts` takes block `part` and every `parts`th after it, as
the first blocks are the longest. */

/* One step of one row: of_x and of_h are its shares in the sums of r, u, n, in torch's order; before becomes h. */
INLINE void NAME(gru_step)(
    int64_t hidden, const REAL *restrict of_x, const REAL *restrict of_h, REAL *restrict before, REAL *restrict h,
    REAL *restrict gate, int keep) {
    const int64_t u_at = hidden, n_at = 2 * hidden;
    REAL *restrict gate_r = gate + hidden, *restrict gate_u = gate + 2 * hidden, *restrict gate_h = gate + 3 * hidden;
#pragma omp simd
    for (int64_t j = 0; j < hidden; j++) {
        REAL r = NAME(sigmoid)(of_x[j] + of_h[j]);
        REAL u = NAME(sigmoid)(of_x[u_at + j] + of_h[u_at + j]);
        REAL from_h = of_h[n_at + j];
        REAL n = NAME(tanh)(of_x[n_at + j] + r * from_h);
        REAL now = n + u * (before[j] - n);
        before[j] = now;
        h[j] = now;
        if (keep) {
            gate[j] = n;
            gate_r[j] = r;
            gate_u[j] = u;
            gate_h[j] = from_h;
        }
    }
}

/* In: x [rows, inputs] and torch.nn.GRU's weights. Out: h [rows, hidden] and, where `keep` is not 0, for the
backward pass gates [rows, 4 · hidden] = [n | r | u | W_hn h + b_hn]. 0 where there is no memory. */
int NAME(gru_forward)(
    int64_t part, int64_t parts, int64_t sequences, const int64_t *sizes, int64_t times, int64_t inputs,
    int64_t hidden, const REAL *x, const REAL *w_ih, const REAL *w_hh, const REAL *b_ih, const REAL *b_hh, REAL *gates,
    REAL *h, int64_t keep) {
    const int64_t wide = NAME(padded)(3 * hidden);
    const int64_t packed_ih = NAME(packed)(inputs, 3 * hidden), packed_hh = NAME(packed)(hidden, 3 * hidden);
    const int64_t of_block = BLOCK_ROWS * (inputs + hidden + 2 * wide);
    REAL *panels_ih = calloc((size_t)(packed_ih + packed_hh + of_block), sizeof(REAL));
    if (panels_ih == NULL)
        return 0;
    REAL *panels_hh = panels_ih + packed_ih, *in = panels_hh + packed_hh;
    REAL *state = in + BLOCK_ROWS * inputs, *of_x = state + BLOCK_ROWS * hidden, *of_h = of_x + BLOCK_ROWS * wide;
    NAME(pack)(w_ih, b_ih, inputs, 3 * hidden, 1, inputs, panels_ih);
    NAME(pack)(w_hh, b_hh, hidden, 3 * hidden, 1, hidden, panels_hh);

    for (int64_t block = part * BLOCK_ROWS; block < sequences; block += parts * BLOCK_ROWS) {
        int64_t end = block + BLOCK_ROWS, offset = block;
        memset(state, 0, sizeof(REAL) * (size_t)(BLOCK_ROWS * hidden));
        for (int64_t t = 0; t < times && sizes[t] > block; offset += sizes[t++]) {
            int64_t rows = (sizes[t] < end ? sizes[t] : end) - block;
            /* Tiles read beyond the last row. */
            memcpy(in, x + offset * inputs, sizeof(REAL) * (size_t)(rows * inputs));
            NAME(product)(rows, 3 * hidden, inputs, in, inputs, panels_ih, of_x, wide, 0);
            if (t > 0)
                NAME(product)(rows, 3 * hidden, hidden, state, hidden, panels_hh, of_h, wide, 0);
            else /* all states are zero */
                for (int64_t i = 0; i < rows; i++)
                    memcpy(of_h + i * wide, b_hh, sizeof(REAL) * (size_t)(3 * hidden));
            for (int64_t i = 0; i < rows; i++) {
                const int64_t row = offset + i;
                REAL *now = h + row * hidden, *gate = keep ? gates + row * 4 * hidden : gates;
                if (keep)
                    NAME(gru_step)(
                        hidden, of_x + i * wide, of_h + i * wide, state + i * hidden, now, gate, 1);
                else
                    NAME(gru_step)(
                        hidden, of_x + i * wide, of_h + i * wide, state + i * hidden, now, gate, 0);
            }
        }
    }
    free(panels_ih);
    return 1;
}

/* In: gates and h of the forward pass, grad_h. Out: gates = gradients of the sums within tanh, σ of r, σ of u, and of
W_hn h + b_hn. 0 where there is no memory. */
int NAME(gru_backward)(
    int64_t part, int64_t parts, int64_t sequences, const int64_t *sizes, int64_t times, int64_t hidden,
    const REAL *w_hh, REAL *gates, const REAL *h, const REAL *grad_h) {
    const int64_t step = 4 * hidden, wide = NAME(padded)(hidden);
    const int64_t packed = NAME(packed)(3 * hidden, hidden);
    REAL *panels = calloc((size_t)(packed + BLOCK_ROWS * (wide + 4 * hidden)), sizeof(REAL));
    if (panels == NULL)
        return 0;
    REAL *sums = panels + packed, *grads = sums + BLOCK_ROWS * wide;
    REAL *carry = grads + BLOCK_ROWS * 3 * hidden;
    NAME(pack)(w_hh, NULL, 3 * hidden, hidden, hidden, 1, panels);
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
            NAME(product)(rows, hidden, 3 * hidden, grads, 3 * hidden, panels, sums, wide, 0);
            for (int64_t i = 0; i < rows; i++)
                for (int64_t j = 0; j < hidden; j++)
                    carry[i * hidden + j] += sums[i * wide + j];
        }
    }
    free(panels);
    return 1;
}
