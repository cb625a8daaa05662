// Reads ops.def over LLVM values, and converts between element types. Law: the vocabulary of C(...) is closed; see ir/op.cpp.
#include "codegen/llvm/scalar.h"

#include <llvm/IR/Intrinsics.h>

#include "codegen/llvm/math.h"
#include "ir/mutant.h"

namespace heddle {

namespace {

struct L {
    Ir* ir;
    Lv v;
};
using Pred = llvm::CmpInst::Predicate;

L lift(L like, double x) { return {like.ir, Ir::num(like.v, x)}; }
L operator-(L a) { return {a.ir, Ir::is_float(a.v) ? a.ir->b.CreateFNeg(a.v) : a.ir->b.CreateNeg(a.v)}; }
L operator!(L a) { return {a.ir, a.ir->b.CreateNot(a.v)}; }
L operator+(L a, L b) {
    auto& x = a.ir->b;
    return {a.ir, Ir::is_float(a.v) ? x.CreateFAdd(a.v, b.v) : Ir::is_bool(a.v) ? x.CreateOr(a.v, b.v) : x.CreateAdd(a.v, b.v)};
}
L operator-(L a, L b) {
    auto& x = a.ir->b;
    return {a.ir, Ir::is_float(a.v) ? x.CreateFSub(a.v, b.v) : Ir::is_bool(a.v) ? x.CreateXor(a.v, b.v) : x.CreateSub(a.v, b.v)};
}
L operator*(L a, L b) {
    auto& x = a.ir->b;
    return {a.ir, Ir::is_float(a.v) ? x.CreateFMul(a.v, b.v) : Ir::is_bool(a.v) ? x.CreateAnd(a.v, b.v) : x.CreateMul(a.v, b.v)};
}
L operator/(L a, L b) { return {a.ir, math::div(*a.ir, a.v, b.v)}; }
L operator+(double a, L b) { return lift(b, a) + b; }
L operator/(double a, L b) { return lift(b, a) / b; }
L operator*(double a, L b) { return lift(b, a) * b; }
L operator+(L a, double b) { return a + lift(a, b); }
L operator-(double a, L b) { return lift(b, a) - b; }
L operator-(L a, double b) { return a - lift(a, b); }
L operator/(L a, double b) { return a / lift(a, b); }
L operator&&(L a, L b) { return {a.ir, a.ir->b.CreateAnd(a.v, b.v)}; }
L operator||(L a, L b) { return {a.ir, a.ir->b.CreateOr(a.v, b.v)}; }

L compare(L a, L b, Pred on_float, Pred on_int, Pred on_bool) {
    return {a.ir, a.ir->b.CreateCmp(Ir::is_float(a.v) ? on_float : Ir::is_bool(a.v) ? on_bool : on_int, a.v, b.v)};
}
L operator<(L a, L b) { return compare(a, b, Pred::FCMP_OLT, Pred::ICMP_SLT, Pred::ICMP_ULT); }
L operator<=(L a, L b) { return compare(a, b, Pred::FCMP_OLE, Pred::ICMP_SLE, Pred::ICMP_ULE); }
L operator>(L a, L b) { return compare(a, b, Pred::FCMP_OGT, Pred::ICMP_SGT, Pred::ICMP_UGT); }
L operator>(L a, double b) { return a > lift(a, b); }
L operator>=(L a, L b) { return compare(a, b, Pred::FCMP_OGE, Pred::ICMP_SGE, Pred::ICMP_UGE); }
L operator==(L a, L b) { return compare(a, b, Pred::FCMP_OEQ, Pred::ICMP_EQ, Pred::ICMP_EQ); }
L operator==(L a, double b) { return a == lift(a, b); }
L operator!=(L a, L b) { return compare(a, b, Pred::FCMP_UNE, Pred::ICMP_NE, Pred::ICMP_NE); }
L select(L c, L a, L b) { return {c.ir, c.ir->b.CreateSelect(c.v, a.v, b.v)}; }
L select(L c, double a, L b) { return select(c, lift(b, a), b); }

#define BY_POLYNOMIAL(f) L f(L a) { return {a.ir, math::f(*a.ir, a.v)}; }
#define BY_LIBM(f) L f(L a) { return {a.ir, a.ir->libm(#f, a.v)}; }
#define BY_INSTRUCTION(f) L f(L a) { return {a.ir, a.ir->unary(llvm::Intrinsic::f, a.v)}; }
BY_POLYNOMIAL(exp) BY_POLYNOMIAL(expm1) BY_POLYNOMIAL(log) BY_POLYNOMIAL(log1p) BY_POLYNOMIAL(sin) BY_POLYNOMIAL(cos) BY_POLYNOMIAL(tanh) BY_POLYNOMIAL(erf)
BY_LIBM(tan) BY_LIBM(asin) BY_LIBM(acos) BY_LIBM(atan) BY_LIBM(sinh) BY_LIBM(cosh) BY_LIBM(erfc)
BY_INSTRUCTION(sqrt) BY_INSTRUCTION(floor) BY_INSTRUCTION(ceil) BY_INSTRUCTION(rint) BY_INSTRUCTION(trunc)
L atan2(L a, L b) { return {a.ir, a.ir->libm("atan2", a.v, b.v)}; }
L pow(L a, L b) { return {a.ir, math::pow(*a.ir, a.v, b.v)}; }
L floordiv_(L a, L b) { return {a.ir, math::floordiv(*a.ir, a.v, b.v)}; }
L mod_(L a, L b) { return {a.ir, math::mod(*a.ir, a.v, b.v)}; }
L fabs(L a) {
    if (Ir::is_float(a.v)) return {a.ir, a.ir->fabs(a.v)};
    return Ir::is_bool(a.v) ? a : L{a.ir, a.ir->b.CreateBinaryIntrinsic(llvm::Intrinsic::abs, a.v, a.ir->b.getFalse())};
}
L sign_(L a) {
    if (Ir::is_bool(a.v)) return a;
    return select(a > lift(a, 0), lift(a, 1), select(a < lift(a, 0), lift(a, -1), lift(a, 0)));
}

// ---- the table. What this reader has no use for is read and dropped.
struct Range { double lo, hi; };
struct Row {
    L (*scalar)(L a, L b, L c) = nullptr;
    int vjp = 0;
    const char* aten = "";
    Range range = {};
    bool commutes = false;
    double init = 0;
};
#define C(...) [](L a, L b, L c) -> L { (void)a, (void)b, (void)c; return __VA_ARGS__; }
#define VJP(...) 0
[[maybe_unused]] constexpr int concat_vjp = 0, prod_vjp = 0, extremum_vjp = 0, scan_vjp = 0, gather_vjp = 0, scatter_add_vjp = 0, scatter_vjp = 0, dot_vjp = 0;

const Row kRows[] = {
#define OP(name, FORM, ...) {__VA_ARGS__},
#include "ir/ops.def"
#undef OP
};

}  // namespace

Lv scalar(Ir& ir, Op op, Lv a, Lv b, Lv c) {
    const Row& row = kRows[static_cast<int>(op)];
    HEDDLE_CHECK(row.scalar, "no scalar for " + std::string(def(op).name));
    static thread_local bool within = false;  // a wrong expression, in which all rows are right
    if (mutant::expression && mutant::expression->op == op && !within) {
        within = true;
        auto value = [](mutant::Value v) { return static_cast<Lv>(v); };
        Lv v = value(mutant::expression->build(a, b, c, [&](Op o, mutant::Value x, mutant::Value y, mutant::Value z) -> mutant::Value { return scalar(ir, o, value(x), value(y), value(z)); },
                                  [&](double x) -> mutant::Value { return Ir::num(c ? c : a, x); }));
        within = false;
        return v;
    }
    return row.scalar({&ir, a}, {&ir, b}, {&ir, c}).v;
}

Lv cast(Ir& ir, Lv v, DType to) {
    auto& b = ir.b;
    llvm::Type* t = Ir::with_lanes_of(ir.reg(to), v);
    Lv out = v;
    if (to == DType::b1) {
        if (Ir::is_bool(v)) return v;
        out = Ir::is_float(v) ? b.CreateFCmpUNE(v, ir.num(v, 0)) : b.CreateICmpNE(v, ir.integer(v, 0));
    } else if (Ir::is_bool(v)) {
        out = is_float(to) ? b.CreateUIToFP(v, t) : b.CreateZExt(v, t);
    } else if (Ir::is_float(v)) {
        out = is_float(to) ? b.CreateFPCast(v, t) : ir.to_int(v, ir.reg(to));
    } else {
        out = is_float(to) ? b.CreateSIToFP(v, t) : b.CreateSExtOrTrunc(v, t);
    }
    return to == DType::f16 || to == DType::bf16 ? from_memory(ir, to_memory(ir, out, to), to) : out;
}

Lv from_memory(Ir& ir, Lv v, DType t) {
    auto& b = ir.b;
    auto like = [&](llvm::Type* e) { return Ir::with_lanes_of(e, v); };
    switch (t) {
        case DType::b1: return b.CreateICmpNE(v, ir.integer(v, 0));
        case DType::f16: return b.CreateFPExt(b.CreateBitCast(v, like(b.getHalfTy())), like(b.getFloatTy()));
        case DType::bf16: {
            Lv high = b.CreateZExt(v, like(b.getInt32Ty()));
            return b.CreateBitCast(b.CreateShl(high, ir.integer(high, 16)), like(b.getFloatTy()));
        }
        default: return v;
    }
}
Lv to_memory(Ir& ir, Lv v, DType t) {
    auto& b = ir.b;
    auto like = [&](llvm::Type* e) { return Ir::with_lanes_of(e, v); };
    switch (t) {
        case DType::b1: return b.CreateZExt(v, like(b.getInt8Ty()));
        case DType::f16: return b.CreateBitCast(b.CreateFPTrunc(v, like(b.getHalfTy())), like(b.getInt16Ty()));
        case DType::bf16: {  // by hand, as the machine's conversion flushes denormals
            Lv bits = ir.bits(v);
            Lv odd = b.CreateAnd(b.CreateLShr(bits, ir.integer(bits, 16)), ir.integer(bits, 1));
            Lv rounded = b.CreateAdd(bits, b.CreateAdd(odd, ir.integer(bits, 0x7fff)));
            rounded = b.CreateSelect(b.CreateFCmpUNO(v, v), ir.integer(bits, 0x7fc00000), rounded);
            return b.CreateTrunc(b.CreateLShr(rounded, ir.integer(bits, 16)), like(b.getInt16Ty()));
        }
        default: return v;
    }
}

}  // namespace heddle
