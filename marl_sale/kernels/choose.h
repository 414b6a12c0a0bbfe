/* The best available action of every row under a head that reads state-action embeddings, and g's last features.

Pairs of a row and an available action are evaluated a block at a time: what is between what a row's actions share
and their values never leaves the cache. The equations are those of nn/sale.py and nn/utility.py. */

typedef struct {
    int64_t actions, features, hidden;  /* A; units of g; units of the head (0: bilinear head) */
    const REAL *g_of_action;            /* [A, features] */
    const REAL *g_weight, *g_bias;      /* [features, features] as nn.Linear has it, [features] */
    /* mlp head: W [h, a] by its actions' shares, the first layer of that and of g's features, and what follows */
    const REAL *inner_of_action, *through_of_action;  /* [A, hidden] */
    const REAL *first_of_features;                    /* [features, hidden] */
    const REAL *rest_weight, *rest_bias;              /* [hidden, hidden] as nn.Linear has it, [hidden] */
    const REAL *out, *out_bias;                       /* [hidden], [1] */
} NAME(Head);

/* What all actions of a row share; rows are so many reals apart. */
typedef struct {
    const REAL *of_g;  /* in the sum that enters g, [features] */
    const REAL *of_z;  /* z_s in the head: [first] for the mlp head, [u | v] for the bilinear one */
    const REAL *of_h;  /* h in the head: [inner | through], or [u | v] */
    int64_t g_step, z_step, h_step;
} NAME(Shares);

/* Where shares come from, if they are not given: affine maps of z_s = f(h) to [of_g | of_z], and of h, or of
AvgL1Norm(h), to of_h. */
typedef struct {
    const NAME(Mlp) *f;
    const REAL *h;                     /* [rows, first size of f] */
    const REAL *z_weight, *z_bias;     /* [last size of f, z_size], [z_size] */
    const REAL *h_weight, *h_bias;     /* [first size of f, h_size], [h_size] */
    int64_t z_size, h_size, normalise;
} NAME(Source);

typedef struct {
    REAL *g, *first, *rest;        /* packed matrices */
    REAL *in, *features, *sums;    /* [BLOCK_ROWS, padded(…)] */
    REAL q[BLOCK_ROWS];
    int64_t row[BLOCK_ROWS], action[BLOCK_ROWS], count;
} NAME(Block);

INLINE void NAME(evaluate_features)(
    const NAME(Head) *restrict head, const NAME(Shares) *restrict shares, NAME(Block) *restrict block) {
    const int64_t size = head->features, wide = NAME(padded)(size);
    for (int64_t i = 0; i < block->count; i++) {
        const REAL *restrict of_row = shares->of_g + block->row[i] * shares->g_step;
        const REAL *restrict of_action = head->g_of_action + block->action[i] * size;
        REAL *restrict in = block->in + i * size;
#pragma omp simd
        for (int64_t j = 0; j < size; j++)
            in[j] = NAME(elu)(of_row[j] + of_action[j]);
    }
    NAME(product)(block->count, size, size, block->in, size, block->g, block->features, wide, 1);
}

INLINE void NAME(evaluate_mlp)(
    const NAME(Head) *restrict head, const NAME(Shares) *restrict shares, NAME(Block) *restrict block) {
    const int64_t size = head->hidden, wide = NAME(padded)(size);
    NAME(product)(
        block->count, size, head->features, block->features, NAME(padded)(head->features), block->first, block->sums,
        wide, 0);
    for (int64_t i = 0; i < block->count; i++) {
        const REAL *restrict first = shares->of_z + block->row[i] * shares->z_step;
        const REAL *restrict inner_of_row = shares->of_h + block->row[i] * shares->h_step;
        const REAL *restrict through_of_row = inner_of_row + size;
        const REAL *restrict inner_of_action = head->inner_of_action + block->action[i] * size;
        const REAL *restrict through_of_action = head->through_of_action + block->action[i] * size;
        const REAL *restrict sum = block->sums + i * wide;
        REAL *restrict in = block->in + i * size;
        REAL total = 0;
#pragma omp simd reduction(+ : total)
        for (int64_t j = 0; j < size; j++) {
            REAL x = inner_of_row[j] + inner_of_action[j];
            total += x < 0 ? -x : x;
        }
        REAL mean = total / (REAL)size, scale = 1 / (mean < AVG_L1_EPS ? (REAL)AVG_L1_EPS : mean);
#pragma omp simd
        for (int64_t j = 0; j < size; j++)
            in[j] = NAME(elu)(first[j] + (through_of_row[j] + through_of_action[j]) * scale + sum[j]);
    }
    NAME(product)(block->count, size, size, block->in, size, block->rest, block->sums, wide, 1);
    for (int64_t i = 0; i < block->count; i++) {
        const REAL *restrict sum = block->sums + i * wide, *restrict out = head->out;
        REAL q = 0;
#pragma omp simd reduction(+ : q)
        for (int64_t j = 0; j < size; j++)
            q += out[j] * sum[j];
        block->q[i] = q + head->out_bias[0];
    }
}

INLINE void NAME(evaluate_bilinear)(
    const NAME(Head) *restrict head, const NAME(Shares) *restrict shares, NAME(Block) *restrict block) {
    for (int64_t i = 0; i < block->count; i++) {
        const REAL *restrict of_z = shares->of_z + block->row[i] * shares->z_step;
        const REAL *restrict of_h = shares->of_h + block->row[i] * shares->h_step;
        const REAL *restrict features = block->features + i * NAME(padded)(head->features);
        REAL q = 0;
#pragma omp simd reduction(+ : q)
        for (int64_t j = 0; j < head->features; j++)
            q += (of_z[head->actions + j] + of_h[head->actions + j]) * features[j];
        block->q[i] = q + of_z[block->action[i]] + of_h[block->action[i]];
    }
}

/* Rows 0 … rows − 1 of shares, avail [rows, A], and the results. */
INLINE void NAME(choose_rows)(
    int64_t rows, const NAME(Head) *head, const NAME(Shares) *shares, NAME(Block) *block, const uint8_t *avail,
    int64_t *actions, REAL *q, REAL *features) {
    int64_t best_row = -1;
    block->count = 0;
    for (int64_t row = 0; row < rows; row++) {
        const uint8_t *of_row = avail + row * head->actions;
        const int none = memchr(of_row, 1, (size_t)head->actions) == NULL;
        for (int64_t action = 0; action < head->actions; action++) {
            if (of_row[action] || (none && action == 0)) {
                block->row[block->count] = row;
                block->action[block->count++] = action;
            }
            int at_end = row == rows - 1 && action == head->actions - 1;
            if (block->count < BLOCK_ROWS && !at_end)
                continue;
            NAME(evaluate_features)(head, shares, block);
            if (head->hidden)
                NAME(evaluate_mlp)(head, shares, block);
            else
                NAME(evaluate_bilinear)(head, shares, block);
            for (int64_t i = 0; i < block->count; i++)
                /* What is not a number is the greatest, as for torch: it must be noticed. */
                if (block->row[i] != best_row || (q[best_row] == q[best_row] && !(block->q[i] <= q[best_row]))) {
                    best_row = block->row[i];
                    q[best_row] = block->q[i];
                    actions[best_row] = block->action[i];
                    memcpy(
                        features + best_row * head->features, block->features + i * NAME(padded)(head->features),
                        sizeof(REAL) * (size_t)head->features);
                }
            block->count = 0;
        }
    }
}

/* Shares of a block of rows, padded(their size) apart; `room` for two blocks of the widest layer. */
INLINE void NAME(share)(
    const NAME(Source) *source, const REAL *f, const REAL *of_z_map, const REAL *of_h_map, int64_t at, int64_t count,
    REAL *restrict of_z, REAL *restrict of_h, REAL *restrict room, int64_t widest) {
    const int64_t h_in = source->f->sizes[0], z_in = source->f->sizes[source->f->layers];
    const REAL *z = NAME(mlp_rows)(source->f, f, at, count, source->h, room, widest);
    NAME(product)(
        count, source->z_size, z_in, z, NAME(padded)(z_in), of_z_map, of_z, NAME(padded)(source->z_size), 0);
    memcpy(room, source->h + at * h_in, sizeof(REAL) * (size_t)(count * h_in));
    if (source->normalise)
        for (int64_t i = 0; i < count; i++)
            NAME(finish)(END_AVG_L1, h_in, room + i * h_in);
    NAME(product)(count, source->h_size, h_in, room, h_in, of_h_map, of_h, NAME(padded)(source->h_size), 0);
}

/* In: what rows share, or, where that is NULL, its source; avail [rows, A]. Out: actions [rows], their values
q [rows], features [rows, head->features]; those of action 0 where none is available. Each of `parts` threads takes a
range of rows. 0 where there is no memory. */
int NAME(choose)(
    int64_t part, int64_t parts, int64_t rows, const NAME(Head) *head, const NAME(Shares) *shares,
    const NAME(Source) *source, const uint8_t *avail, int64_t *actions, REAL *q, REAL *features) {
    const int64_t first = rows * part / parts, last = rows * (part + 1) / parts, size = head->features;
    const int64_t g_packed = NAME(packed)(size, size), rest_packed = NAME(packed)(head->hidden, head->hidden);
    const int64_t packed = g_packed + NAME(packed)(size, head->hidden) + rest_packed;
    const int64_t widest = NAME(padded)(size > head->hidden ? size : head->hidden);
    int64_t f_packed = 0, z_packed = 0, h_packed = 0, f_widest = 0, z_wide = 0, h_wide = 0;
    if (source != NULL) {
        const NAME(Mlp) *f = source->f;
        z_wide = NAME(padded)(source->z_size), h_wide = NAME(padded)(source->h_size), f_widest = NAME(widest)(f);
        f_packed = NAME(packed_layers)(f);
        z_packed = NAME(packed)(f->sizes[f->layers], source->z_size);
        h_packed = NAME(packed)(f->sizes[0], source->h_size);
    }
    const int64_t of_block = BLOCK_ROWS * (3 * widest + 2 * f_widest + z_wide + h_wide);
    REAL *memory = calloc((size_t)(packed + f_packed + z_packed + h_packed + of_block), sizeof(REAL));
    if (memory == NULL)
        return 0;
    NAME(Block) block;
    block.g = memory;
    block.rest = block.g + g_packed;
    block.first = block.rest + rest_packed;
    block.in = memory + packed;
    block.features = block.in + BLOCK_ROWS * widest;
    block.sums = block.features + BLOCK_ROWS * widest;
    NAME(pack)(head->g_weight, head->g_bias, size, size, 1, size, block.g);
    if (head->hidden) {
        NAME(pack)(head->first_of_features, NULL, size, head->hidden, head->hidden, 1, block.first);
        NAME(pack)(head->rest_weight, head->rest_bias, head->hidden, head->hidden, 1, head->hidden, block.rest);
    }
    if (shares != NULL) {
        NAME(Shares) here = *shares;
        here.of_g += first * here.g_step;
        here.of_z += first * here.z_step;
        here.of_h += first * here.h_step;
        NAME(choose_rows)(
            last - first, head, &here, &block, avail + first * head->actions, actions + first, q + first,
            features + first * size);
    } else {
        REAL *f = block.sums + BLOCK_ROWS * widest, *of_z_map = f + f_packed, *of_h_map = of_z_map + z_packed;
        REAL *room = of_h_map + h_packed, *of_z = room + 2 * BLOCK_ROWS * f_widest, *of_h = of_z + BLOCK_ROWS * z_wide;
        const NAME(Shares) here = {of_z, of_z + size, of_h, z_wide, z_wide, h_wide};
        const int64_t h_in = source->f->sizes[0], z_in = source->f->sizes[source->f->layers];
        NAME(pack_layers)(source->f, f);
        NAME(pack)(source->z_weight, source->z_bias, z_in, source->z_size, source->z_size, 1, of_z_map);
        NAME(pack)(source->h_weight, source->h_bias, h_in, source->h_size, source->h_size, 1, of_h_map);
        for (int64_t at = first; at < last; at += BLOCK_ROWS) {
            const int64_t count = last - at < BLOCK_ROWS ? last - at : BLOCK_ROWS;
            NAME(share)(source, f, of_z_map, of_h_map, at, count, of_z, of_h, room, f_widest);
            NAME(choose_rows)(
                count, head, &here, &block, avail + at * head->actions, actions + at, q + at, features + at * size);
        }
    }
    free(memory);
    return 1;
}
