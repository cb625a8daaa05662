// Floor division, remainder and power, where integers and special values need care. Law: results are eager PyTorch's.
#include <llvm/ADT/APFloat.h>
#include <llvm/IR/Intrinsics.h>
#include <llvm/IR/PatternMatch.h>

#include <cmath>

#include "codegen/llvm/math.h"

namespace heddle::math {

namespace {

struct Division { Lv quotient, remainder; };

// Shift and mask if b is a constant power of two (a floor for negative a, too).
bool power_of_two(Lv b, const llvm::APInt*& c) { return llvm::PatternMatch::match(b, llvm::PatternMatch::m_APInt(c)) && c->isStrictlyPositive() && c->isPowerOf2(); }

// In vectors the quotient is that of doubles: a / b differs from an integer by at least 1 / |b|, more than its rounding error
// for |a| < 2^52, so its floor is exact. Other 64-bit integers take what is left over once more, and are then off by one at most;
// indices (ir.nonneg) are never that large.
Division vector_division(Ir& ir, Lv a, Lv b) {
    auto& x = ir.b;
    llvm::Type *d = Ir::with_lanes_of(x.getDoubleTy(), a), *t = a->getType()->getScalarType();
    Lv divisor = x.CreateSIToFP(b, d);
    auto quotient = [&](Lv v) { return ir.to_int(ir.unary(llvm::Intrinsic::floor, x.CreateFDiv(x.CreateSIToFP(v, d), divisor)), t); };
    Lv q = quotient(a), r = x.CreateSub(a, x.CreateMul(q, b));
    if (ir.nonneg || t->getIntegerBitWidth() < 64) return {q, r};
    Lv more = quotient(r), zero = ir.integer(a, 0), one = ir.integer(a, 1);
    q = x.CreateAdd(q, more), r = x.CreateSub(r, x.CreateMul(more, b));
    Lv below = x.CreateAnd(x.CreateICmpNE(r, zero), x.CreateICmpSLT(x.CreateXor(r, b), zero));
    q = x.CreateSelect(below, x.CreateSub(q, one), q), r = x.CreateSelect(below, x.CreateAdd(r, b), r);
    Lv above = x.CreateSelect(x.CreateICmpSGT(b, zero), x.CreateICmpSGE(r, b), x.CreateICmpSLE(r, b));
    return {x.CreateSelect(above, x.CreateAdd(q, one), q), x.CreateSelect(above, x.CreateSub(r, b), r)};
}
Division scalar_division(Ir& ir, Lv a, Lv b) {
    auto& x = ir.b;
    Lv zero = ir.integer(a, 0);
    Lv divisor = x.CreateSelect(x.CreateICmpEQ(b, zero), ir.integer(b, 1), b);  // no trap
    if (ir.nonneg) return {x.CreateUDiv(a, divisor), x.CreateURem(a, divisor)};
    divisor = x.CreateSelect(x.CreateICmpEQ(b, ir.integer(b, -1)), ir.integer(b, 1), divisor);  // the lowest / -1 traps
    Lv negate = x.CreateICmpEQ(b, ir.integer(b, -1));
    Lv q = x.CreateSDiv(a, divisor), r = x.CreateSub(a, x.CreateMul(q, divisor));
    Lv below = x.CreateAnd(x.CreateICmpNE(r, zero), x.CreateICmpSLT(x.CreateXor(r, divisor), zero));
    q = x.CreateSub(q, x.CreateZExt(below, q->getType()));
    r = x.CreateSelect(below, x.CreateAdd(r, divisor), r);
    return {x.CreateSelect(negate, x.CreateNeg(q), q), r};
}
Division division(Ir& ir, Lv a, Lv b) { return Ir::width(a) > 1 ? vector_division(ir, a, b) : scalar_division(ir, a, b); }

bool is_constant(Lv v, double& c) {
    const llvm::APFloat* f = nullptr;
    if (!llvm::PatternMatch::match(v, llvm::PatternMatch::m_APFloat(f))) return false;
    c = v->getType()->getScalarType()->isFloatTy() ? static_cast<double>(f->convertToFloat()) : f->convertToDouble();
    return true;
}

// a - q b with q = floor(a / b), corrected where the quotient was rounded across an integer.
Division float_division(Ir& ir, Lv a, Lv b) {
    auto& x = ir.b;
    Lv zero = ir.num(a, 0), ratio = x.CreateFDiv(a, b);
    Lv q = ir.unary(llvm::Intrinsic::floor, ratio);
    Lv r = ir.fma(x.CreateFNeg(q), b, a);
    Lv over = x.CreateFCmpOLT(x.CreateSelect(x.CreateFCmpOLT(b, zero), x.CreateFNeg(r), r), zero);  // r is on the far side of 0
    q = x.CreateSelect(over, x.CreateFSub(q, ir.num(a, 1)), q);
    r = x.CreateSelect(over, x.CreateFAdd(r, b), r);
    return {q, x.CreateSelect(x.CreateFCmpOEQ(r, zero), ir.copysign(zero, a), r)};
}

}  // namespace

Lv floordiv(Ir& ir, Lv a, Lv b) {
    if (Ir::is_bool(a)) return a;
    if (Ir::is_float(a)) {  // of an infinite a NaN, as fmod is; by an infinite b -1 where the signs differ
        auto& x = ir.b;
        Lv q = float_division(ir, a, b).quotient, zero = ir.num(a, 0), infinity = ir.num(a, INFINITY);
        Lv below = x.CreateAnd(x.CreateFCmpONE(a, zero), x.CreateXor(x.CreateFCmpOLT(a, zero), x.CreateFCmpOLT(b, zero)));
        q = x.CreateSelect(x.CreateAnd(x.CreateFCmpOEQ(ir.fabs(b), infinity), below), ir.num(a, -1), q);
        return x.CreateSelect(x.CreateAnd(x.CreateFCmpOEQ(ir.fabs(a), infinity), x.CreateFCmpUNE(b, zero)), ir.num(a, NAN), q);
    }
    const llvm::APInt* c = nullptr;
    if (power_of_two(b, c)) return ir.b.CreateAShr(a, ir.integer(a, c->logBase2()));
    return division(ir, a, b).quotient;
}

Lv div(Ir& ir, Lv a, Lv b) {
    auto& x = ir.b;
    if (Ir::is_float(a)) return x.CreateFDiv(a, b);
    if (Ir::is_bool(a)) return a;
    Lv q = floordiv(ir, a, b), zero = ir.integer(a, 0);
    Lv rounded = x.CreateAnd(x.CreateICmpSLT(q, zero), x.CreateICmpNE(x.CreateMul(q, b), a));
    return x.CreateAdd(q, x.CreateZExt(rounded, q->getType()));
}

Lv mod(Ir& ir, Lv a, Lv b) {
    if (Ir::is_bool(a)) return ir.num(a, 0);  // by true, which alone divides
    auto& x = ir.b;
    const llvm::APInt* c = nullptr;
    if (!Ir::is_float(a)) {
        if (power_of_two(b, c)) return x.CreateAnd(a, llvm::ConstantInt::get(a->getType(), *c - 1));
        return division(ir, a, b).remainder;
    }
    // Zero results and large or infinite quotients take fmod, then the sign of b.
    Lv fast = float_division(ir, a, b).remainder, zero = ir.num(a, 0);
    Lv ratio = ir.fabs(x.CreateFDiv(a, b)), infinity = ir.num(a, INFINITY);
    Lv rare = x.CreateOr(x.CreateFCmpUGT(ratio, ir.num(a, Ir::is_f64(a) ? 0x1p51 : 0x1p22)), x.CreateFCmpOEQ(ir.fabs(b), infinity));
    return ir.unless(rare, fast, [&] {
        Lv r = ir.libm("fmod", a, b);
        Lv opposite = x.CreateXor(x.CreateFCmpOLT(b, zero), x.CreateFCmpOLT(r, zero));
        return x.CreateSelect(x.CreateAnd(x.CreateFCmpUNE(r, zero), opposite), x.CreateFAdd(r, b), r);
    });
}

// The exponents that PyTorch computes by products and roots are computed so here.
Lv pow(Ir& ir, Lv a, Lv b) {
    auto& x = ir.b;
    double c = 0;
    if (is_constant(b, c)) {
        Lv one = ir.num(a, 1);
        if (c == 1) return a;
        if (c == 2) return x.CreateFMul(a, a);
        if (c == 3) return x.CreateFMul(x.CreateFMul(a, a), a);
        if (c == -1) return x.CreateFDiv(one, a);
        if (c == -2) return x.CreateFDiv(one, x.CreateFMul(a, a));
        if (c == 0.5) return ir.unary(llvm::Intrinsic::sqrt, a);
        if (c == -0.5) return x.CreateFDiv(one, ir.unary(llvm::Intrinsic::sqrt, a));
    }
    return ir.libm("pow", a, b);
}

}  // namespace heddle::math
