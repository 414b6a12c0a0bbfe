/* exp, σ, tanh and ELU without branches or calls, so that the compiler makes vectors of them. NaN stays NaN. */

/* Adding 1.5 · 2^mantissa leaves the nearest integer in the lowest bits. */
#define ROUNDING ((REAL)(1.5 * (double)(1LL << MANTISSA_BITS)))
#define LOG2_E ((REAL)1.44269504088896340736)
#define LN2_HIGH ((REAL)0.693145751953125)
#define LN2_LOW ((REAL)1.42860682030941723212e-6)

static const REAL NAME(inverse_factorial)[] = {
    1.0, 1.0, 0.5, 1.0 / 6, 1.0 / 24, 1.0 / 120, 1.0 / 720, 1.0 / 5040, 1.0 / 40320, 1.0 / 362880,
    1.0 / 3628800, 1.0 / 39916800, 1.0 / 479001600, 1.0 / 6227020800.0};

/* exp(x) = 2^n · exp(x − n ln 2), |x − n ln 2| ≤ ln 2 / 2, by its series. Beyond ± EXP_RANGE, as at the bound. */
INLINE REAL NAME(exp)(REAL x) {
    x = x < -EXP_RANGE ? -EXP_RANGE : x;
    x = x > EXP_RANGE ? EXP_RANGE : x;
    REAL shifted = x * LOG2_E + ROUNDING;
    REAL n = shifted - ROUNDING;
    REAL rest = (x - n * LN2_HIGH) - n * LN2_LOW;

    REAL sum = NAME(inverse_factorial)[EXP_DEGREE];
    for (int degree = EXP_DEGREE - 1; degree >= 0; degree--)
        sum = sum * rest + NAME(inverse_factorial)[degree];

    BITS exponent;
    memcpy(&exponent, &shifted, sizeof exponent);
    exponent = (BITS)((uint64_t)exponent + EXPONENT_BIAS) << MANTISSA_BITS; /* the rest is shifted out */
    REAL power;
    memcpy(&power, &exponent, sizeof power);
    return sum * power;
}

INLINE REAL NAME(sigmoid)(REAL x) { return 1 / (1 + NAME(exp)(-x)); }

INLINE REAL NAME(tanh)(REAL x) { return 2 * NAME(sigmoid)(2 * x) - 1; }

INLINE REAL NAME(elu)(REAL x) {
    REAL below = NAME(exp)(x) - 1;
    return x > 0 ? x : below;
}

/* ELU of several vectors at once, in step: one alone would wait for every operation's result. */
typedef REAL NAME(vector) __attribute__((vector_size(VECTOR_BYTES)));
typedef REAL NAME(unaligned) __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(REAL))));
typedef BITS NAME(bits) __attribute__((vector_size(VECTOR_BYTES)));
enum { NAME(LANES) = VECTOR_BYTES / sizeof(REAL), NAME(VECTORS) = 4 };

INLINE NAME(vector) NAME(where)(NAME(bits) condition, NAME(vector) yes, NAME(vector) no) {
    return (NAME(vector))((condition & (NAME(bits))yes) | (~condition & (NAME(bits))no));
}

#define EACH_VECTOR for (int i = 0; i < NAME(VECTORS); i++)

INLINE void NAME(elu_vectors)(NAME(vector) *x) {
    const NAME(vector) zero = {0}, lowest = zero - EXP_RANGE;
    NAME(vector) below[NAME(VECTORS)], shifted[NAME(VECTORS)], rest[NAME(VECTORS)], sum[NAME(VECTORS)];
    EACH_VECTOR below[i] = NAME(where)(x[i] > 0, zero, x[i]);
    EACH_VECTOR below[i] = NAME(where)(below[i] < lowest, lowest, below[i]);
    EACH_VECTOR shifted[i] = below[i] * LOG2_E + ROUNDING;
    EACH_VECTOR rest[i] = below[i] - (shifted[i] - ROUNDING) * LN2_HIGH;
    EACH_VECTOR rest[i] = rest[i] - (shifted[i] - ROUNDING) * LN2_LOW;
    EACH_VECTOR sum[i] = zero + NAME(inverse_factorial)[EXP_DEGREE];
    for (int degree = EXP_DEGREE - 1; degree >= 0; degree--)
        EACH_VECTOR sum[i] = sum[i] * rest[i] + NAME(inverse_factorial)[degree];
    EACH_VECTOR sum[i] *= (NAME(vector))(((NAME(bits))shifted[i] + EXPONENT_BIAS) << MANTISSA_BITS);
    EACH_VECTOR x[i] = NAME(where)(x[i] > 0, x[i], sum[i] - 1);
}
