/* Products of a few rows, which stay in the cache, with a matrix packed for them.

A matrix [k, n] and its bias are packed as panels of COLUMNS columns: [panel][1 + k][COLUMNS], the bias first, the last
panel filled up with zeros. A tile of TILE_ROWS × COLUMNS sums stays in registers while one panel passes. */

#ifndef TILE_ROWS
#define TILE_ROWS 6
#define BLOCK_ROWS (4 * TILE_ROWS) /* rows that share one pass over a matrix */
#endif

enum { NAME(COLUMNS) = 2 * NAME(LANES) };

INLINE int64_t NAME(padded)(int64_t columns) {
    return (columns + NAME(COLUMNS) - 1) / NAME(COLUMNS) * NAME(COLUMNS);
}

INLINE int64_t NAME(packed)(int64_t k, int64_t n) { return (1 + k) * NAME(padded)(n); }

/* Entry (p, j) of the matrix is at p · step_k + j · step_n. */
static void NAME(pack)(
    const REAL *matrix, const REAL *bias, int64_t k, int64_t n, int64_t step_k, int64_t step_n, REAL *panels) {
    for (int64_t panel = 0; panel < n; panel += NAME(COLUMNS)) {
        for (int64_t j = 0; j < NAME(COLUMNS); j++)
            *panels++ = bias != NULL && panel + j < n ? bias[panel + j] : 0;
        for (int64_t p = 0; p < k; p++)
            for (int64_t j = 0; j < NAME(COLUMNS); j++)
                *panels++ = panel + j < n ? matrix[p * step_k + (panel + j) * step_n] : 0;
    }
}

/* out[rows, n] = a[rows, k] · matrix + bias, or elu of it; both are read and written in whole tiles of rows and
panels of columns. */
INLINE void NAME(product)(
    int64_t rows, int64_t n, int64_t k, const REAL *restrict a, int64_t a_step, const REAL *restrict panels,
    REAL *restrict out, int64_t out_step, int with_elu) {
    for (int64_t column = 0; column < n; column += NAME(COLUMNS), panels += (1 + k) * NAME(COLUMNS))
        for (int64_t row = 0; row < rows; row += TILE_ROWS) {
            NAME(vector) sums[2 * TILE_ROWS]; /* two of each row */
            const REAL *from = a + row * a_step, *restrict matrix = panels + NAME(COLUMNS);
            for (int i = 0; i < TILE_ROWS; i++) {
                sums[2 * i] = *(const NAME(unaligned) *)panels;
                sums[2 * i + 1] = *(const NAME(unaligned) *)(panels + NAME(LANES));
            }
            for (int64_t p = 0; p < k; p++) {
                NAME(vector) left = *(const NAME(unaligned) *)(matrix + p * NAME(COLUMNS));
                NAME(vector) right = *(const NAME(unaligned) *)(matrix + p * NAME(COLUMNS) + NAME(LANES));
                for (int i = 0; i < TILE_ROWS; i++) {
                    sums[2 * i] += from[i * a_step + p] * left;
                    sums[2 * i + 1] += from[i * a_step + p] * right;
                }
            }
            for (int i = 0; with_elu && i < 2 * TILE_ROWS; i += NAME(VECTORS))
                NAME(elu_vectors)(sums + i);
            for (int i = 0; i < TILE_ROWS; i++) {
                REAL *to = out + (row + i) * out_step + column;
                *(NAME(unaligned) *)to = sums[2 * i];
                *(NAME(unaligned) *)(to + NAME(LANES)) = sums[2 * i + 1];
            }
        }
}

/* sums[k, n] += aᵀ · b of a[rows, k], b[rows, n]; k is rounded up to whole tiles and n to panels. */
INLINE void NAME(accumulate)(
    int64_t rows, int64_t k, int64_t n, const REAL *restrict a, int64_t a_step, const REAL *restrict b, int64_t b_step,
    REAL *restrict sums, int64_t sums_step) {
    for (int64_t column = 0; column < n; column += NAME(COLUMNS))
        for (int64_t p = 0; p < k; p += TILE_ROWS) {
            NAME(vector) tile[TILE_ROWS][2];
            REAL *to = sums + p * sums_step + column;
            for (int i = 0; i < TILE_ROWS; i++) {
                tile[i][0] = *(const NAME(unaligned) *)(to + i * sums_step);
                tile[i][1] = *(const NAME(unaligned) *)(to + i * sums_step + NAME(LANES));
            }
            for (int64_t row = 0; row < rows; row++) {
                NAME(vector) left = *(const NAME(unaligned) *)(b + row * b_step + column);
                NAME(vector) right = *(const NAME(unaligned) *)(b + row * b_step + column + NAME(LANES));
                for (int i = 0; i < TILE_ROWS; i++) {
                    tile[i][0] += a[row * a_step + p + i] * left;
                    tile[i][1] += a[row * a_step + p + i] * right;
                }
            }
            for (int i = 0; i < TILE_ROWS; i++) {
                *(NAME(unaligned) *)(to + i * sums_step) = tile[i][0];
                *(NAME(unaligned) *)(to + i * sums_step + NAME(LANES)) = tile[i][1];
            }
        }
}
