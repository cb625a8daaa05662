// Transcendental functions as straight-line IR, for float and double, scalar or any number of lanes.
// Law: at most 2 ulp over the whole range, and the same result in every lane and at every width; NaN, infinities, zeros and
// denormals as in libm. tests/core/llvm_math_test.cpp measures it.
#pragma once
#include "codegen/llvm/ir.h"

namespace heddle::math {

Lv exp(Ir&, Lv x);
Lv expm1(Ir&, Lv x);
Lv log(Ir&, Lv x);
Lv log1p(Ir&, Lv x);
Lv sin(Ir&, Lv x);
Lv cos(Ir&, Lv x);
Lv tanh(Ir&, Lv x);
Lv erf(Ir&, Lv x);  // double: libm, lane by lane

// Integers, and floats as PyTorch's floor_divide and remainder. Division by zero gives some value for integers, and does not trap.
Lv floordiv(Ir&, Lv a, Lv b);
Lv div(Ir&, Lv a, Lv b);  // of integers rounded towards 0, as in C
Lv mod(Ir&, Lv a, Lv b);
Lv pow(Ir&, Lv a, Lv b);

}  // namespace heddle::math
