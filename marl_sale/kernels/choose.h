/* The best available action of every row under a head that reads state-action embeddings, and g's last features.

Pairs of a row and an available action are evaluated a block at a time: what is between their sums of shares and
their values never leaves the cache. The equations are those of nn/sale.py and nn/utility.py. */

typedef struct {
    int64_t actions, features, hidden;   /* A; units of g; units of the head (0: bilinear head) */
    const uint8_t *avail;                /* [rows, A] */
    const REAL *g_of_row, *g_of_action;  /* [rows, features], [A, features]: their sum enters g */
    const REAL *g_weight, *g_bias;       /* [features, features] as nn.Linear has it, [features] */
    /* mlp head: W [h, a] by its shares, the first layer's shares of it and of z_s, and what follows */
    const REAL *inner_of_row, *inner_of_action;      /* [rows, hidden], [A, hidden] */
    const REAL *through_of_row, *through_of_action;  /* the same, times the first layer */
    const REAL *first_of_row;                        /* [rows, hidden] */
    const REAL *first_of_features;                   /* [features, hidden] */
    const REAL *rest_weight, *rest_bias, *out;       /* [hidden, hidden] as nn.Linear has it, [hidden], [hidden] */
    /* bilinear head */
    const REAL *u, *v;                               /* [rows, A], [rows, features] */
} NAME(Head);

typedef struct {
    REAL *g, *first, *rest;        /* packed matrices */
    REAL *in, *features, *sums;    /* [BLOCK_ROWS, …] */
    REAL q[BLOCK_ROWS];
    int64_t row[BLOCK_ROWS], action[BLOCK_ROWS], count;
} NAME(Block);

INLINE void NAME(evaluate_features)(const NAME(Head) *restrict head, NAME(Block) *restrict block) {
    const int64_t size = head->features, wide = NAME(padded)(size);
    for (int64_t i = 0; i < block->count; i++) {
        const REAL *restrict of_row = head->g_of_row + block->row[i] * size;
        const REAL *restrict of_action = head->g_of_action + block->action[i] * size;
        REAL *restrict in = block->in + i * size;
#pragma omp simd
        for (int64_t j = 0; j < size; j++)
            in[j] = NAME(elu)(of_row[j] + of_action[j]);
    }
    NAME(product)(block->count, size, size, block->in, size, block->g, block->sums, wide);
    for (int64_t i = 0; i < block->count; i++) {
        const REAL *restrict sum = block->sums + i * wide, *restrict bias = head->g_bias;
        REAL *restrict features = block->features + i * size;
#pragma omp simd
        for (int64_t j = 0; j < size; j++)
            features[j] = NAME(elu)(sum[j] + bias[j]);
    }
}

INLINE void NAME(evaluate_mlp)(const NAME(Head) *restrict head, NAME(Block) *restrict block) {
    const int64_t size = head->hidden, wide = NAME(padded)(size);
    NAME(product)(
        block->count, size, head->features, block->features, head->features, block->first, block->sums, wide);
    for (int64_t i = 0; i < block->count; i++) {
        const int64_t row = block->row[i] * size, action = block->action[i] * size;
        const REAL *restrict inner_of_row = head->inner_of_row + row;
        const REAL *restrict inner_of_action = head->inner_of_action + action;
        const REAL *restrict through_of_row = head->through_of_row + row;
        const REAL *restrict through_of_action = head->through_of_action + action;
        const REAL *restrict first = head->first_of_row + row, *restrict sum = block->sums + i * wide;
        REAL *restrict in = block->in + i * size;
        REAL total = 0;
#pragma omp simd reduction(+ : total)
        for (int64_t j = 0; j < size; j++) {
            REAL x = inner_of_row[j] + inner_of_action[j];
            total += x < 0 ? -x : x;
        }
        REAL mean = total / (REAL)size, scale = 1 / (mean < (REAL)1e-8 ? (REAL)1e-8 : mean); /* E1 */
#pragma omp simd
        for (int64_t j = 0; j < size; j++)
            in[j] = NAME(elu)(first[j] + (through_of_row[j] + through_of_action[j]) * scale + sum[j]);
    }
    NAME(product)(block->count, size, size, block->in, size, block->rest, block->sums, wide);
    for (int64_t i = 0; i < block->count; i++) {
        const REAL *restrict sum = block->sums + i * wide;
        const REAL *restrict bias = head->rest_bias, *restrict out = head->out;
        REAL q = 0;
#pragma omp simd reduction(+ : q)
        for (int64_t j = 0; j < size; j++)
            q += out[j] * NAME(elu)(sum[j] + bias[j]);
        block->q[i] = q;
    }
}

INLINE void NAME(evaluate_bilinear)(const NAME(Head) *restrict head, NAME(Block) *restrict block) {
    for (int64_t i = 0; i < block->count; i++) {
        const REAL *restrict v = head->v + block->row[i] * head->features;
        const REAL *restrict features = block->features + i * head->features;
        REAL q = 0;
#pragma omp simd reduction(+ : q)
        for (int64_t j = 0; j < head->features; j++)
            q += v[j] * features[j];
        block->q[i] = q + head->u[block->row[i] * head->actions + block->action[i]];
    }
}

/* Out: actions [rows], features [rows, head->features]; a row without an available action is left as it is. Each of
`parts` threads takes a range of rows. 0 where there is no memory. */
int NAME(choose)(
    int64_t part, int64_t parts, int64_t rows, const NAME(Head) *head, int64_t *actions, REAL *features) {
    const int64_t first = rows * part / parts, last = rows * (part + 1) / parts;
    const int64_t g_wide = NAME(padded)(head->features), wide = NAME(padded)(head->hidden);
    const int64_t widest = g_wide > wide ? g_wide : wide;
    const int64_t packed = g_wide * head->features + wide * (head->features + head->hidden);
    REAL *memory = malloc(sizeof(REAL) * (size_t)(packed + 3 * BLOCK_ROWS * widest));
    if (memory == NULL)
        return 0;
    NAME(Block) block;
    block.g = memory;
    block.first = block.g + g_wide * head->features;
    block.rest = block.first + wide * head->features;
    block.in = memory + packed;
    block.features = block.in + BLOCK_ROWS * widest;
    block.sums = block.features + BLOCK_ROWS * widest;
    block.count = 0;
    /* Tiles read beyond the last pair. */
    memset(block.in, 0, sizeof(REAL) * (size_t)(3 * BLOCK_ROWS * widest));
    NAME(pack)(head->g_weight, head->features, head->features, 1, head->features, block.g);
    if (head->hidden) {
        NAME(pack)(head->first_of_features, head->features, head->hidden, head->hidden, 1, block.first);
        NAME(pack)(head->rest_weight, head->hidden, head->hidden, 1, head->hidden, block.rest);
    }

    int64_t best_row = -1;
    REAL best = 0;
    for (int64_t row = first; row < last; row++)
        for (int64_t action = 0; action < head->actions; action++) {
            if (head->avail[row * head->actions + action]) {
                block.row[block.count] = row;
                block.action[block.count++] = action;
            }
            int at_end = row == last - 1 && action == head->actions - 1;
            if (block.count < BLOCK_ROWS && !at_end)
                continue;
            NAME(evaluate_features)(head, &block);
            if (head->hidden)
                NAME(evaluate_mlp)(head, &block);
            else
                NAME(evaluate_bilinear)(head, &block);
            for (int64_t i = 0; i < block.count; i++)
                if (block.row[i] != best_row || block.q[i] > best) {
                    best_row = block.row[i];
                    best = block.q[i];
                    actions[best_row] = block.action[i];
                    memcpy(
                        features + best_row * head->features, block.features + i * head->features,
                        sizeof(REAL) * (size_t)head->features);
                }
            block.count = 0;
        }
    free(memory);
    return 1;
}
