/* Everything below is written once for a type of real numbers, and compiled for two. */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* What follows the last layer of a perceptron (mlp.h), by the order of kernels.ENDS. */
enum { END_LINEAR, END_ELU, END_TANH, END_AVG_L1 };
#define AVG_L1_EPS 1e-8 /* E1 */

#ifndef VECTOR_BYTES
#define VECTOR_BYTES 16
#endif

/* Of all sources; see setup.py. */
const char sources[] = SOURCES;

#define INLINE static inline __attribute__((always_inline))

#define REAL float
#define BITS int32_t
#define NAME(name) name##_f32
#define MANTISSA_BITS 23
#define EXPONENT_BIAS 127
#define EXP_RANGE 87.0f
#define EXP_DEGREE 7
#include "real.h"
#include "product.h"
#include "gru.h"
#include "mlp.h"
#include "choose.h"
#undef REAL
#undef BITS
#undef NAME
#undef MANTISSA_BITS
#undef EXPONENT_BIAS
#undef EXP_RANGE
#undef EXP_DEGREE

#define REAL double
#define BITS int64_t
#define NAME(name) name##_f64
#define MANTISSA_BITS 52
#define EXPONENT_BIAS 1023
#define EXP_RANGE 708.0
#define EXP_DEGREE 13
#include "real.h"
#include "product.h"
#include "gru.h"
#include "mlp.h"
#include "choose.h"
