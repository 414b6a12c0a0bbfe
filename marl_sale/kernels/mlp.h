/* A perceptron, forward and backward: y ← elu(y W + b) layer after layer, a block of rows at a time, so that what is
between its layers never leaves the cache. Equations as in nn/mlp.py. */

typedef struct {
    int64_t layers, starts_with_elu, end;
    const int64_t *sizes;        /* [layers + 1] */
    const REAL *const *weights;  /* of each layer, [out, in] as nn.Linear has it */
    const REAL *const *biases;
    REAL *const *outputs;        /* of each layer, [rows, out]; NULL: not kept */
    REAL *scales;                /* [rows], what END_AVG_L1 divided by; NULL: not kept */
} NAME(Mlp);

INLINE int64_t NAME(widest)(const NAME(Mlp) *mlp) {
    int64_t widest = 0;
    for (int64_t layer = 0; layer <= mlp->layers; layer++)
        widest = mlp->sizes[layer] > widest ? mlp->sizes[layer] : widest;
    return NAME(padded)(widest);
}

INLINE void NAME(elu_rows)(int64_t entries, REAL *restrict x) {
#pragma omp simd
    for (int64_t i = 0; i < entries; i++)
        x[i] = NAME(elu)(x[i]);
}

/* What remains to be done of one row of the last layer; what it was divided by (1: not at all). */
INLINE REAL NAME(finish)(int64_t end, int64_t size, REAL *restrict y) {
    REAL total = 0, scale = 1;
    if (end == END_TANH) {
#pragma omp simd
        for (int64_t j = 0; j < size; j++)
            y[j] = NAME(tanh)(y[j]);
    } else if (end == END_AVG_L1) {
#pragma omp simd reduction(+ : total)
        for (int64_t j = 0; j < size; j++)
            total += y[j] < 0 ? -y[j] : y[j];
        scale = total / (REAL)size;
        scale = scale < AVG_L1_EPS ? (REAL)AVG_L1_EPS : scale;
#pragma omp simd
        for (int64_t j = 0; j < size; j++)
            y[j] /= scale;
    }
    return scale;
}

INLINE int64_t NAME(packed_layers)(const NAME(Mlp) *mlp) {
    int64_t size = 0;
    for (int64_t layer = 0; layer < mlp->layers; layer++)
        size += NAME(packed)(mlp->sizes[layer], mlp->sizes[layer + 1]);
    return size;
}

static void NAME(pack_layers)(const NAME(Mlp) *mlp, REAL *panels) {
    for (int64_t layer = 0; layer < mlp->layers; layer++) {
        const int64_t k = mlp->sizes[layer], n = mlp->sizes[layer + 1];
        NAME(pack)(mlp->weights[layer], mlp->biases[layer], k, n, 1, k, panels);
        panels += NAME(packed)(k, n);
    }
}

/* Rows `at` … `at` + count − 1, with `room` for two blocks of the widest layer. Keeps what is to be kept of the
layers. Returns their outputs, padded(last size) apart. */
INLINE const REAL *NAME(mlp_rows)(
    const NAME(Mlp) *mlp, const REAL *panels, int64_t at, int64_t count, const REAL *x, REAL *room, int64_t widest) {
    const int64_t *sizes = mlp->sizes, layers = mlp->layers;
    REAL *in = room, *out = room + BLOCK_ROWS * widest;
    int64_t step = sizes[0];
    memcpy(in, x + at * step, sizeof(REAL) * (size_t)(count * step)); /* tiles read beyond the last row */
    if (mlp->starts_with_elu)
        NAME(elu_rows)(count * step, in);
    for (int64_t layer = 0; layer < layers; layer++) {
        const int64_t k = sizes[layer], n = sizes[layer + 1], wide = NAME(padded)(n);
        const int at_end = layer == layers - 1;
        if (!at_end || mlp->end == END_ELU)
            NAME(product)(count, n, k, in, step, panels, out, wide, 1);
        else
            NAME(product)(count, n, k, in, step, panels, out, wide, 0);
        panels += NAME(packed)(k, n);
        for (int64_t i = 0; i < count; i++) {
            if (at_end) {
                REAL scale = NAME(finish)(mlp->end, n, out + i * wide);
                if (mlp->scales != NULL)
                    mlp->scales[at + i] = scale;
            }
            if (mlp->outputs[layer] != NULL)
                memcpy(mlp->outputs[layer] + (at + i) * n, out + i * wide, sizeof(REAL) * (size_t)n);
        }
        REAL *spare = in;
        in = out;
        out = spare;
        step = wide;
    }
    return in;
}

/* Out: outputs of the layers. 0 where there is no memory. */
int NAME(mlp_forward)(int64_t part, int64_t parts, int64_t rows, const NAME(Mlp) *mlp, const REAL *x) {
    const int64_t first = rows * part / parts, last = rows * (part + 1) / parts;
    const int64_t packed = NAME(packed_layers)(mlp), widest = NAME(widest)(mlp);
    REAL *panels = calloc((size_t)(packed + 2 * BLOCK_ROWS * widest), sizeof(REAL));
    if (panels == NULL)
        return 0;
    NAME(pack_layers)(mlp, panels);
    for (int64_t at = first; at < last; at += BLOCK_ROWS) {
        const int64_t count = last - at < BLOCK_ROWS ? last - at : BLOCK_ROWS;
        NAME(mlp_rows)(mlp, panels, at, count, x, panels + packed, widest);
    }
    free(panels);
    return 1;
}

/* The gradient before the end, from that after it and from what is after it. */
INLINE void NAME(finish_backward)(
    int64_t end, int64_t size, const REAL *restrict y, REAL scale, REAL *restrict grad) {
    REAL along = 0;
    if (end == END_ELU) {
#pragma omp simd
        for (int64_t j = 0; j < size; j++)
            grad[j] += grad[j] * (y[j] > 0 ? 0 : y[j]);
    } else if (end == END_TANH) {
#pragma omp simd
        for (int64_t j = 0; j < size; j++)
            grad[j] *= 1 - y[j] * y[j];
    } else if (end == END_AVG_L1) {
        if (scale > AVG_L1_EPS) { /* below, it is a constant */
#pragma omp simd reduction(+ : along)
            for (int64_t j = 0; j < size; j++)
                along += grad[j] * y[j];
        }
        along /= (REAL)size;
#pragma omp simd
        for (int64_t j = 0; j < size; j++) {
            REAL sign = y[j] > 0 ? 1 : y[j] < 0 ? -1 : 0;
            grad[j] = (grad[j] - sign * along) / scale;
        }
    }
}

/* Out: grad_x [rows, first size] (NULL: not wanted), and in `grads`, for each part, the gradients of its rows: of
each layer's weight as [in, out], then of its bias. Outputs are those that the forward pass kept, the last one y. 0
where there is no memory. */
int NAME(mlp_backward)(
    int64_t part, int64_t parts, int64_t rows, const NAME(Mlp) *mlp, const REAL *x, const REAL *grad_y, REAL *grad_x,
    REAL *grads) {
    const int64_t first = rows * part / parts, last = rows * (part + 1) / parts, widest = NAME(widest)(mlp);
    const int64_t *sizes = mlp->sizes, layers = mlp->layers;
    int64_t packed = 0, summed = 0, all = 0;
    for (int64_t layer = 0; layer < layers; layer++) {
        packed += NAME(packed)(sizes[layer + 1], sizes[layer]);
        summed += (sizes[layer] + TILE_ROWS) * NAME(padded)(sizes[layer + 1]);
        all += (sizes[layer] + 1) * sizes[layer + 1];
    }
    const int64_t of_block = BLOCK_ROWS * widest;
    REAL *panels = calloc((size_t)(packed + summed + 3 * of_block + TILE_ROWS), sizeof(REAL));
    if (panels == NULL)
        return 0;
    /* Tiles read some columns beyond the last row of `in`. */
    REAL *totals = panels + packed, *grad = totals + summed, *sums = grad + of_block, *in = sums + of_block;
    grads += part * all;
    memset(grads, 0, sizeof(REAL) * (size_t)all);
    for (int64_t layer = 0, at = 0; layer < layers; at += NAME(packed)(sizes[layer + 1], sizes[layer]), layer++)
        NAME(pack)(mlp->weights[layer], NULL, sizes[layer + 1], sizes[layer], sizes[layer], 1, panels + at);

    for (int64_t block = first; block < last; block += BLOCK_ROWS) {
        const int64_t count = last - block < BLOCK_ROWS ? last - block : BLOCK_ROWS;
        const REAL *of_layer = panels + packed;
        REAL *to_weight = totals + summed, *to_bias = grads + all;
        for (int64_t layer = layers - 1; layer >= 0; layer--) {
            const int64_t k = sizes[layer], n = sizes[layer + 1], wide = NAME(padded)(n), k_wide = NAME(padded)(k);
            of_layer -= NAME(packed)(n, k);
            to_weight -= (k + TILE_ROWS) * wide;
            to_bias -= (k + 1) * n;
            if (layer == layers - 1)
                for (int64_t i = 0; i < count; i++) {
                    REAL *row = grad + i * wide, scale = mlp->scales == NULL ? 1 : mlp->scales[block + i];
                    memset(row, 0, sizeof(REAL) * (size_t)wide);
                    memcpy(row, grad_y + (block + i) * n, sizeof(REAL) * (size_t)n);
                    NAME(finish_backward)(mlp->end, n, mlp->outputs[layer] + (block + i) * n, scale, row);
                }
            memcpy(in, (layer ? mlp->outputs[layer - 1] : x) + block * k, sizeof(REAL) * (size_t)(count * k));
            if (layer == 0 && mlp->starts_with_elu)
                NAME(elu_rows)(count * k, in);
            NAME(accumulate)(count, k, n, in, k, grad, wide, to_weight, wide);
            for (int64_t i = 0; i < count; i++)
                for (int64_t j = 0; j < n; j++)
                    to_bias[k * n + j] += grad[i * wide + j];
            if (layer == 0 && grad_x == NULL)
                break;
            NAME(product)(count, k, n, grad, wide, of_layer, sums, k_wide, 0);
            const int after_elu = layer > 0 || mlp->starts_with_elu;
            for (int64_t i = 0; i < count; i++) {
                REAL *restrict to = layer ? grad + i * k_wide : grad_x + (block + i) * k;
                const REAL *restrict sum = sums + i * k_wide, *restrict y = in + i * k;
                if (after_elu) {
#pragma omp simd
                    for (int64_t j = 0; j < k; j++)
                        to[j] = sum[j] + sum[j] * (y[j] > 0 ? 0 : y[j]);
                } else
                    memcpy(to, sum, sizeof(REAL) * (size_t)k);
                for (int64_t j = layer ? k : k_wide; j < k_wide; j++)
                    to[j] = 0;
            }
        }
    }
    const REAL *from = totals;
    for (int64_t layer = 0; layer < layers; layer++) {
        const int64_t k = sizes[layer], n = sizes[layer + 1], wide = NAME(padded)(n);
        for (int64_t p = 0; p < k; p++)
            memcpy(grads + p * n, from + p * wide, sizeof(REAL) * (size_t)n);
        from += (k + TILE_ROWS) * wide;
        grads += (k + 1) * n;
    }
    free(panels);
    return 1;
}
