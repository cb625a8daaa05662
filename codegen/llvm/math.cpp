// exp, log, sin and their kin. Law: reduce the argument so that the reduced one carries no error that counts, then a polynomial.
// Coefficients: float from Cephes 2.8 (expf, logf, sinf, cosf, tanhf; tanh), double from fdlibm 5.3 (log, sin, cos);
// double exp is its Taylor series.
#include "codegen/llvm/math.h"

#include <llvm/IR/Intrinsics.h>
#include <llvm/IR/IntrinsicsX86.h>

#include <cmath>

namespace heddle::math {

namespace {

// The larger (smaller) of x and a bound; NaN stays.
Lv at_least(Ir& ir, Lv x, double lo) { return ir.b.CreateSelect(ir.b.CreateFCmpOLT(x, ir.num(x, lo)), ir.num(x, lo), x); }
Lv at_most(Ir& ir, Lv x, double hi) { return ir.b.CreateSelect(ir.b.CreateFCmpOGT(x, ir.num(x, hi)), ir.num(x, hi), x); }
Lv select(Ir& ir, Lv c, Lv a, Lv b) { return ir.b.CreateSelect(c, a, b); }
Lv rint(Ir& ir, Lv x) { return ir.unary(llvm::Intrinsic::rint, x); }

int mantissa_bits(Lv x) { return Ir::is_f64(x) ? 52 : 23; }

// 2^n for an integer n within the normal exponents.
Lv power_of_two(Ir& ir, Lv n, Lv like) {
    int bits = mantissa_bits(like);
    Lv biased = ir.b.CreateAdd(n, ir.integer(n, Ir::is_f64(like) ? 1023 : 127));
    return ir.float_of(ir.b.CreateShl(biased, ir.integer(n, bits)), like);
}
// p * 2^n, n integral and of p's type: one instruction, or two factors so that denormal results are rounded once.
Lv scale(Ir& ir, Lv p, Lv n) {
    int width = Ir::width(p), bits = width * (Ir::is_f64(p) ? 64 : 32);
    if (ir.target.scalef_bits > 0 && bits > ir.target.scalef_bits) {
        auto [p0, p1] = ir.halves(p);
        auto [n0, n1] = ir.halves(n);
        return ir.joined(scale(ir, p0, n0), scale(ir, p1, n1));
    }
    if (width > 1 && bits <= ir.target.scalef_bits && (bits == 512 || bits == 256 || bits == 128)) {
        using namespace llvm::Intrinsic;
        auto id = Ir::is_f64(p) ? (bits == 512 ? x86_avx512_mask_scalef_pd_512 : bits == 256 ? x86_avx512_mask_scalef_pd_256 : x86_avx512_mask_scalef_pd_128)
                                : (bits == 512 ? x86_avx512_mask_scalef_ps_512 : bits == 256 ? x86_avx512_mask_scalef_ps_256 : x86_avx512_mask_scalef_ps_128);
        // The mask has one bit per lane, but never fewer than 8.
        std::vector<Lv> args{p, n, p, ir.integer(ir.b.getIntNTy(static_cast<unsigned>(std::max(width, 8))), -1)};
        if (bits == 512) args.push_back(ir.b.getInt32(4));  // rounding: as the control register says
        return ir.b.CreateIntrinsic(id, {}, args);
    }
    Lv k = ir.to_int(n, ir.b.getIntNTy(p->getType()->getScalarSizeInBits()));
    Lv half = ir.b.CreateAShr(k, ir.integer(k, 1));
    Lv first = ir.b.CreateFMul(p, power_of_two(ir, half, p));
    return ir.b.CreateFMul(first, power_of_two(ir, ir.b.CreateSub(k, half), p));
}

// x = n ln2 + r, |r| <= ln2 / 2; returns {n, r, q} with e^r = 1 + r + r^2 q.
struct Reduced { Lv n, r, q; };
Reduced reduce_exp(Ir& ir, Lv x) {
    Lv n = rint(ir, ir.b.CreateFMul(x, ir.num(x, 1.4426950408889634)));
    if (Ir::is_f64(x)) {
        Lv r = ir.fma(n, ir.num(x, -6.93147180369123816490e-01), x);
        r = ir.fma(n, ir.num(x, -1.90821492927058770002e-10), r);
        double c[12], factorial = 1;
        for (int k = 0; k < 12; ++k) c[11 - k] = 1 / (factorial *= k + 2);
        Lv q = ir.num(x, c[0]);
        for (int k = 1; k < 12; ++k) q = ir.fma(q, r, ir.num(x, c[k]));
        return {n, r, q};
    }
    Lv r = ir.fma(n, ir.num(x, -0.693359375), x);
    r = ir.fma(n, ir.num(x, 2.12194440e-4), r);
    Lv q = ir.horner(r, {1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1});
    return {n, r, q};
}

// x = m * 2^e with m in [sqrt(1/2), sqrt(2)), for a normal positive x.
struct Split { Lv m, e; };  // e is an integer
Split split(Ir& ir, Lv x) {
    Lv bits = ir.bits(x);
    int shift = mantissa_bits(x);
    std::int64_t root = Ir::is_f64(x) ? 0x3fe6a09e667f3bcdLL : 0x3f3504f3;
    Lv from_root = ir.b.CreateSub(bits, ir.integer(bits, root));
    Lv e = ir.b.CreateAShr(from_root, ir.integer(bits, shift));
    Lv low = ir.b.CreateAnd(from_root, ir.integer(bits, (std::int64_t{1} << shift) - 1));
    return {ir.float_of(ir.b.CreateAdd(low, ir.integer(bits, root)), x), e};
}
// log(1 + f) + e ln2 for f in [sqrt(1/2) - 1, sqrt(2) - 1].
Lv log_of(Ir& ir, Lv f, Lv e) {
    auto& b = ir.b;
    if (Ir::is_f64(f)) {
        Lv s = b.CreateFDiv(f, b.CreateFAdd(f, ir.num(f, 2))), z = b.CreateFMul(s, s);
        Lv r = ir.horner(z, {1.479819860511658591e-01, 1.531383769920937332e-01, 1.818357216161805012e-01, 2.222219843214978396e-01,
                             2.857142874366239149e-01, 3.999999999940941908e-01, 6.666666666666735130e-01});
        r = b.CreateFMul(r, z);
        Lv half = b.CreateFMul(b.CreateFMul(f, f), ir.num(f, 0.5));
        Lv low = ir.fma(s, b.CreateFAdd(half, r), b.CreateFMul(e, ir.num(f, 1.90821492927058770002e-10)));
        return ir.fma(e, ir.num(f, 6.93147180369123816490e-01), b.CreateFSub(f, b.CreateFSub(half, low)));
    }
    Lv z = b.CreateFMul(f, f);
    Lv p = ir.horner(f, {7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1, -1.6668057665e-1,
                         2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1});
    Lv y = b.CreateFMul(b.CreateFMul(p, z), f);
    y = ir.fma(e, ir.num(f, -2.12194440e-4), y);
    y = ir.fma(z, ir.num(f, -0.5), y);
    return ir.fma(e, ir.num(f, 0.693359375), b.CreateFAdd(f, y));
}

// Both quarter-wave polynomials of |x| reduced by multiples of pi/2, in three parts: valid below kReach.
constexpr double kReachF32 = 1e5, kReachF64 = 1e9;
struct Wave { Lv s, c, quarter; };
Wave wave(Ir& ir, Lv x) {
    auto& b = ir.b;
    Lv n = rint(ir, b.CreateFMul(x, ir.num(x, 0.63661977236758134)));
    Lv quarter = ir.to_int(n, b.getIntNTy(x->getType()->getScalarSizeInBits()));
    if (Ir::is_f64(x)) {
        Lv r = x;
        for (double part : {1.5707963267948966, 6.123233995736766e-17, -1.4973849048591833e-33}) r = ir.fma(n, ir.num(x, -part), r);
        Lv z = b.CreateFMul(r, r), half = b.CreateFMul(z, ir.num(x, 0.5));
        Lv ps = ir.horner(z, {1.58969099521155010221e-10, -2.50507602534068634195e-08, 2.75573137070700676789e-06,
                              -1.98412698298579493134e-04, 8.33333333332248946124e-03, -1.66666666666666324348e-01});
        Lv pc = ir.horner(z, {-1.13596475577881948265e-11, 2.08757232129817482790e-09, -2.75573143513906633035e-07,
                              2.48015872894767294178e-05, -1.38888888888741095749e-03, 4.16666666666666019037e-02});
        Lv one = ir.num(x, 1), w = b.CreateFSub(one, half);
        Lv low = b.CreateFSub(b.CreateFSub(one, w), half);
        return {ir.fma(b.CreateFMul(r, z), ps, r), b.CreateFAdd(w, ir.fma(b.CreateFMul(z, z), pc, low)), quarter};
    }
    Lv r = x;
    for (double part : {1.57079637050628662109375, -4.37113900018624283e-8, -1.7151245100058819e-15}) r = ir.fma(n, ir.num(x, -part), r);
    Lv z = b.CreateFMul(r, r);
    Lv ps = ir.horner(z, {-1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1});
    Lv pc = ir.horner(z, {2.443315711809948e-5, -1.388731625493765e-3, 4.166664568298827e-2});
    Lv one = ir.num(x, 1), w = ir.fma(z, ir.num(x, -0.5), one);
    Lv low = ir.fma(z, ir.num(x, -0.5), b.CreateFSub(one, w));
    return {ir.fma(b.CreateFMul(r, z), ps, r), b.CreateFAdd(w, ir.fma(b.CreateFMul(z, z), pc, low)), quarter};
}
// sin (shift 0) or cos (shift 1) of a: quarter + shift selects polynomial and sign.
Lv circular(Ir& ir, Lv x, int shift) {
    auto& b = ir.b;
    Lv a = ir.fabs(x);
    Wave w = wave(ir, a);
    Lv q = b.CreateAdd(w.quarter, ir.integer(w.quarter, shift));
    Lv odd = b.CreateICmpNE(b.CreateAnd(q, ir.integer(q, 1)), ir.integer(q, 0));
    Lv y = ir.bits(select(ir, odd, w.c, w.s));
    int top = Ir::is_f64(x) ? 63 : 31;
    Lv sign = b.CreateShl(b.CreateAnd(q, ir.integer(q, 2)), ir.integer(q, top - 1));
    if (shift == 0) sign = b.CreateXor(sign, b.CreateXor(ir.bits(x), ir.bits(a)));
    Lv fast = ir.float_of(b.CreateXor(y, sign), x);
    Lv far = b.CreateFCmpOGT(a, ir.num(x, Ir::is_f64(x) ? kReachF64 : kReachF32));
    return ir.unless(far, fast, [&] { return ir.libm(shift ? "cos" : "sin", x); });
}

}  // namespace

Lv exp(Ir& ir, Lv x) {
    x = at_most(ir, at_least(ir, x, Ir::is_f64(x) ? -746 : -104), Ir::is_f64(x) ? 710 : 89);
    Reduced e = reduce_exp(ir, x);
    Lv p = ir.fma(ir.b.CreateFMul(e.r, e.r), e.q, e.r);
    return scale(ir, ir.b.CreateFAdd(p, ir.num(x, 1)), e.n);
}

// 2^n (1 + p) - 1 with p = e^r - 1; half of it is summed, so that 2^128 does not overflow.
Lv expm1(Ir& ir, Lv x) {
    auto& b = ir.b;
    bool f64 = Ir::is_f64(x);
    Lv y = at_most(ir, at_least(ir, x, f64 ? -40 : -20), f64 ? 710 : 89);
    Reduced e = reduce_exp(ir, y);
    Lv p = ir.fma(b.CreateFMul(e.r, e.r), e.q, e.r);
    Lv k = ir.to_int(e.n, b.getIntNTy(x->getType()->getScalarSizeInBits()));
    Lv s = power_of_two(ir, b.CreateSub(k, ir.integer(k, 1)), x);
    Lv half = ir.fma(s, p, b.CreateFSub(s, ir.num(x, 0.5)));
    Lv tiny = b.CreateFCmpOLT(ir.fabs(x), ir.num(x, f64 ? 0x1p-54 : 0x1p-25));
    return select(ir, tiny, x, b.CreateFAdd(half, half));
}

Lv log(Ir& ir, Lv x) {
    auto& b = ir.b;
    bool f64 = Ir::is_f64(x);
    int up = f64 ? 54 : 25;
    Lv small = b.CreateFCmpOLT(x, ir.num(x, f64 ? 0x1p-1022 : 0x1p-126));
    Split s = split(ir, select(ir, small, b.CreateFMul(x, ir.num(x, std::ldexp(1.0, up))), x));
    Lv e = b.CreateSIToFP(s.e, x->getType());
    e = select(ir, small, b.CreateFSub(e, ir.num(x, up)), e);
    Lv y = log_of(ir, b.CreateFSub(s.m, ir.num(x, 1)), e);
    // NaN and +inf stay, below zero is NaN, zero is -inf.
    Lv finite = b.CreateFCmpOLT(x, ir.num(x, INFINITY));
    y = select(ir, finite, y, x);
    y = select(ir, b.CreateFCmpOLT(x, ir.num(x, 0)), ir.num(x, NAN), y);
    return select(ir, b.CreateFCmpOEQ(x, ir.num(x, 0)), ir.num(x, -INFINITY), y);
}

// What 1 + x rounds away is added to the reduced argument.
Lv log1p(Ir& ir, Lv x) {
    auto& b = ir.b;
    bool f64 = Ir::is_f64(x);
    Lv one = ir.num(x, 1), u = b.CreateFAdd(x, one);
    Lv lost = b.CreateFSub(x, b.CreateFSub(u, one));
    Split s = split(ir, u);
    int shift = mantissa_bits(x);
    Lv down = ir.float_of(b.CreateSub(ir.bits(one), b.CreateShl(s.e, ir.integer(s.e, shift))), x);  // 2^-e
    Lv large = b.CreateFCmpOGT(x, ir.num(x, f64 ? 0x1p54 : 0x1p25));
    lost = select(ir, large, ir.num(x, 0), b.CreateFMul(lost, down));
    Lv y = log_of(ir, b.CreateFAdd(b.CreateFSub(s.m, one), lost), b.CreateSIToFP(s.e, x->getType()));
    y = select(ir, b.CreateFCmpOLT(x, ir.num(x, INFINITY)), ir.copysign(y, x), x);  // NaN, +inf and both zeros stay
    Lv end = select(ir, b.CreateFCmpOEQ(x, ir.num(x, -1)), ir.num(x, -INFINITY), ir.num(x, NAN));
    return select(ir, b.CreateFCmpOLE(x, ir.num(x, -1)), end, y);
}

Lv sin(Ir& ir, Lv x) { return circular(ir, x, 0); }
Lv cos(Ir& ir, Lv x) { return circular(ir, x, 1); }

Lv tanh(Ir& ir, Lv x) {
    auto& b = ir.b;
    Lv a = ir.fabs(x), z = b.CreateFMul(a, a), p;
    if (Ir::is_f64(x)) {
        Lv top = ir.horner(z, {-9.64399179425052238628e-1, -9.92877231001918586564e1, -1.61468768441708447952e3});
        Lv bottom = ir.horner(z, {1, 1.12811678491632931402e2, 2.23548839060100448583e3, 4.84406305325125486048e3});
        p = b.CreateFDiv(top, bottom);
    } else {
        p = ir.horner(z, {-5.70498872745e-3, 2.06390887954e-2, -5.37397155531e-2, 1.33314422036e-1, -3.33332819422e-1});
    }
    Lv near = ir.fma(b.CreateFMul(p, z), a, a);
    Lv e = exp(ir, b.CreateFAdd(a, a));
    Lv far = b.CreateFSub(ir.num(x, 1), b.CreateFDiv(ir.num(x, 2), b.CreateFAdd(e, ir.num(x, 1))));
    return ir.copysign(select(ir, b.CreateFCmpOLT(a, ir.num(x, 0.625)), near, far), x);
}

// Far from 0 erf is 1 - e^q(|x|), near it x + x p(x^2). Source of q and p: N. Juffa, "Vectorizable implementation of erff", 2018.
Lv erf(Ir& ir, Lv x) {
    if (Ir::is_f64(x)) return ir.libm("erf", x);
    auto& b = ir.b;
    Lv a = ir.fabs(x), z = b.CreateFMul(a, a);
    Lv q = ir.horner(a, {-1.72853470e-5, 3.83197126e-4, -3.88396438e-3, 2.42546219e-2, -1.06777877e-1, -6.34846687e-1, -1.28717512e-1});
    Lv far = b.CreateFSub(ir.num(x, 1), exp(ir, at_least(ir, ir.fma(q, a, b.CreateFNeg(a)), -80)));
    far = select(ir, b.CreateFCmpOGT(a, ir.num(x, 4)), ir.num(x, 1), far);
    Lv p = ir.horner(z, {-5.96761703e-4, 4.99119423e-3, -2.67681349e-2, 1.12819925e-1, -3.76125336e-1, 1.28379166e-1});
    return ir.copysign(select(ir, b.CreateFCmpOGT(a, ir.num(x, 0.921875)), far, ir.fma(p, a, a)), x);
}

}  // namespace heddle::math
