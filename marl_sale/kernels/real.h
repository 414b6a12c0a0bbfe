/* exp, σ, tanh and ELU without branches or calls, so that the compiler makes vectors of them. NaN stays NaN. */

/* exp(x) = 2^n · exp(x − n ln 2), |x − n ln 2| ≤ ln 2 / 2, by its series. Beyond ± EXP_RANGE, as at the bound. */
INLINE REAL NAME(exp)(REAL x) {
    x = x < -EXP_RANGE ? -EXP_RANGE : x;
    x = x > EXP_RANGE ? EXP_RANGE : x;
    /* Adding 1.5 · 2^mantissa leaves the nearest integer in the lowest bits. */
    const REAL shift = (REAL)(1.5 * (double)(1LL << MANTISSA_BITS));
    const REAL ln2_high = (REAL)0.693145751953125, ln2_low = (REAL)1.42860682030941723212e-6;
    REAL shifted = x * (REAL)1.44269504088896340736 + shift;
    REAL n = shifted - shift;
    REAL rest = (x - n * ln2_high) - n * ln2_low;

    static const REAL inverse_factorial[] = {
        1.0, 1.0, 0.5, 1.0 / 6, 1.0 / 24, 1.0 / 120, 1.0 / 720, 1.0 / 5040, 1.0 / 40320, 1.0 / 362880,
        1.0 / 3628800, 1.0 / 39916800, 1.0 / 479001600, 1.0 / 6227020800.0};
    REAL sum = inverse_factorial[EXP_DEGREE];
    for (int degree = EXP_DEGREE - 1; degree >= 0; degree--)
        sum = sum * rest + inverse_factorial[degree];

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
