// Arithmetic, comparisons, logic. Law: operands are cast to the result's type first, as PyTorch's promotion does.
#include <torch/headeronly/version.h>

#include <cmath>

#include "frontends/aten_rules.h"

namespace heddle::aten {

namespace {
V self(const Call& c) { return as(c.tensor("self"), c.type()); }
V other(const Call& c) { return c.operand("other", c.type()); }
// alpha * other, for add, sub and rsub.
V scaled(const Call& c) {
    V b = other(c);
    if (!c.given("alpha") || c.number("alpha", 1) == 1) return b;
    return b * c.scalar("alpha", c.type());
}
Results add_(const Call& c) {
    if (c.type().dtype == DType::b1) return {or_(self(c), scaled(c))};
    return {self(c) + scaled(c)};
}
Results sub_(const Call& c) { return {self(c) - scaled(c)}; }
Results rsub_(const Call& c) {
    V a = c.given("alpha") && c.number("alpha", 1) != 1 ? self(c) * c.scalar("alpha", c.type()) : self(c);
    return {other(c) - a};
}
Results mul_(const Call& c) { return {c.type().dtype == DType::b1 ? and_(self(c), other(c)) : self(c) * other(c)}; }
V trunc_div(V a, V b) {
    if (is_float(a.type().dtype)) return surrogate(trunc(a / b), floordiv(a, b));  // gradients are 0, also where a / b has none
    return a / b;
}
// What integers are divided by: eager raises an error for a zero.
V divisor(const Call& c) {
    V b = other(c);
    bool known = b.node().is(Op::constant) && b.node().number("value") != 0;
    if (is_int(c.type().dtype) && !known) c.check(eq(b, zeros_like(b)));
    return b;
}
Results div_(const Call& c) {
    std::string mode = c.text("rounding_mode");
    if (mode == "floor") return {floordiv(self(c), divisor(c))};
    if (mode == "trunc") return {trunc_div(self(c), divisor(c))};
    return {self(c) / other(c)};
}
Results floor_divide_(const Call& c) { return {floordiv(self(c), divisor(c))}; }
Results remainder_(const Call& c) { return {mod(self(c), divisor(c))}; }
Results fmod_(const Call& c) {
    V a = self(c), b = divisor(c);
    if (!is_float(c.type().dtype)) return {a - trunc_div(a, b) * b};
    V r = mod(abs(a), abs(b)), zero = zeros_like(a), signed_r = select(eq(r, zero), a * 0, select(lt(a, zero), -r, r));
    return {surrogate(signed_r, a - b * stop_grad(trunc(a / b)))};
}
V int_power(V x, int n) {
    V y = x;
    for (int k = 1; k + 1 < n; ++k) y = y * x;
    return is_float(x.type().dtype) ? sloped(y * x, x, y * n) : y * x;
}
Results pow_scalar(const Call& c) {
    V x = self(c);
    if (!std::holds_alternative<Dim>(*c.n.find("exponent")) || c.dim("exponent").is_const()) {
        double e = c.number("exponent");
        if (e == 1) return {x};
        if (e == 2 || e == 3 || e == 4) return {int_power(x, static_cast<int>(e))};
        if (is_float(c.type().dtype)) {
            if (e == 0.5) return {sqrt(x)};
            if (e == -0.5) {
                V y = rsqrt(x);
                return {sloped(y, x, select(eq(x, like(x, -kInf)), zeros_like(x), y * y * abs(y) * -0.5))};
            }
            if (e == -1) return {sloped(1 / x, x, -1 / (x * x))};
            if (e == -2) return {sloped(1 / (x * x), x, -2 / (x * x * x))};
        }
    }
    if (!is_float(c.type().dtype)) return {};
    return {pow(x, c.scalar("exponent", c.type()))};
}
Results pow_tensor(const Call& c) {
    if (!is_float(c.type().dtype)) return {};
    return {pow(c.operand("self", c.type()), c.operand("exponent", c.type()))};
}

// Both operands in the type in which PyTorch compares them.
template <V (*op)(V, V)>
Results compare(const Call& c) {
    V a = c.tensor("self"), b = none();
    Type t = a.type();
    if (std::holds_alternative<Ref>(*c.n.find("other"))) {
        t.dtype = promoted(t, c.tensor("other").type());
    } else if (DType s = c.scalar_dtype("other"); is_float(s) && !is_float(t.dtype)) {
        t.dtype = DType::f32;
    } else if (s == DType::i64 && t.dtype == DType::b1) {
        t.dtype = DType::i64;
    }
    t.shape = c.shape();
    a = as(a, t);
    b = c.operand("other", t);
    if (t.dtype == DType::b1) {  // comparisons of bools: through integers
        a = cast(a, DType::i32);
        b = cast(b, DType::i32);
    }
    return {op(a, b)};
}
template <V (*op)(V, V)>
Results bitwise(const Call& c) {
    if (c.type().dtype != DType::b1) return {};
    return {op(self(c), other(c))};
}
Results bitwise_not_(const Call& c) {
    if (c.type().dtype != DType::b1) return {};
    return {not_(self(c))};
}
Results logical_not_(const Call& c) { return {not_(self(c))}; }

// PyTorch 2.15 changed what ties get (2.12 to 2.14 were not tried).
constexpr bool kSharesTies = TORCH_VERSION_MAJOR > 2 || TORCH_VERSION_MINOR >= 15;
bool is_constant(V v) { return v.node().is(Op::constant); }
// Values whose gradients are clamp's, of one bound or two. A NaN, also a bound's, passes none.
V clamp_path(V x, V lo, V hi) {
    const V zero = zeros_like(x);
    V path = select(lo && hi ? and_(ge(x, lo), le(x, hi)) : lo ? ge(x, lo) : le(x, hi), x, zero);
    if (lo && !is_constant(lo)) path = path + select(hi ? and_(lt(lo, hi), lt(x, lo)) : lt(x, lo), lo, zero);
    if (hi && !is_constant(hi)) path = path + select(lo ? or_(lt(hi, lo), gt(x, hi)) : gt(x, hi), hi, zero);
    return path;
}
// From 2.15 on: nothing passes at a bound that is a number; with a tensor that is equal, or one of two that differ, x shares evenly.
V clamp_path_shared(V x, V lo, V hi) {
    const V zero = zeros_like(x);
    if ((!lo || is_constant(lo)) && (!hi || is_constant(hi))) return select(lo && hi ? and_(gt(x, lo), lt(x, hi)) : lo ? gt(x, lo) : lt(x, hi), x, zero);
    if (!(lo && hi)) return lo ? max(x, lo) : min(x, hi);
    const V apart = lt(lo, hi), in_order = le(lo, hi), at_lo = and_(apart, eq(x, lo)), at_hi = and_(apart, eq(x, hi));
    V path = select(or_(at_lo, at_hi), x * 0.5, select(or_(lt(x, lo), gt(x, hi)), zero, x));
    path = path + select(and_(in_order, lt(x, lo)), lo, select(at_lo, lo * 0.5, zero));
    return path + select(or_(lt(hi, lo), and_(in_order, gt(x, hi))), hi, select(at_hi, hi * 0.5, zero));
}
Results clamp_(const Call& c) {
    V x = self(c), y = x;
    V lo = c.given("min") ? c.operand("min", c.type()) : none(), hi = c.given("max") ? c.operand("max", c.type()) : none();
    // A NaN as bound gives NaN, but before 2.15 for one that is a number and stands alone.
    auto simple = [&](V bound, std::string_view name) {
        if (!is_constant(bound)) return false;
        return !std::isnan(bound.node().number("value")) || (!kSharesTies && !(lo && hi) && !std::holds_alternative<Ref>(*c.n.find(name)));
    };
    if (lo) y = simple(lo, "min") ? clamp_min(y, lo) : max(lo, y);
    if (hi) y = simple(hi, "max") ? clamp_max(y, hi) : min(hi, y);
    if (!is_float(c.type().dtype)) return {y};
    return {surrogate(y, kSharesTies ? clamp_path_shared(x, lo, hi) : clamp_path(x, lo, hi))};
}
Results where_(const Call& c) {
    return {select(broadcast(to(c.tensor("condition"), DType::b1), c.shape()), c.operand("self", c.type()), c.operand("other", c.type()))};
}
Results masked_fill_(const Call& c) {
    return {select(broadcast(to(c.tensor("mask"), DType::b1), c.shape()), c.operand("value", c.type()), self(c))};
}
Results lerp_(const Call& c) {
    V a = self(c), b = as(c.tensor("end"), c.type()), w = c.operand("weight", c.type()), d = b - a;
    return {surrogate(select(lt(abs(w), like(w, 0.5)), a + w * d, b - d * (1 - w)), a * stop_grad(1 - w) + b * stop_grad(w) + w * stop_grad(d))};
}
Results addcmul_(const Call& c) {
    V a = as(c.tensor("tensor1"), c.type()), b = as(c.tensor("tensor2"), c.type());
    if (c.number("value", 1) == 1) return {self(c) + a * b};
    V k = c.scalar("value", c.type(), 1);
    if (!is_float(c.type().dtype)) return {self(c) + a * k * b};
    return {self(c) + surrogate(a * k * b, a * stop_grad(b * k) + b * stop_grad(a * k))};
}
Results addcdiv_(const Call& c) {
    V a = as(c.tensor("tensor1"), c.type()), b = as(c.tensor("tensor2"), c.type());
    V k = c.scalar("value", c.type(), 1), ka = c.number("value", 1) == 1 ? a : a * k;
    if (!is_float(c.type().dtype)) return {self(c) + ka / b};
    return {self(c) + surrogate(ka / b, a * stop_grad(k / b) - b * stop_grad(ka / (b * b)))};
}
// Made of sizes and numbers alone, so that it lies on no device.
bool placeless(V v) {
    const Node n = v.node();
    if (n.is(Op::input) || n.is(Op::call) || n.is(Op::result)) return false;
    for (Id i : n.in)
        if (!placeless(v.graph->value(i))) return false;
    return true;
}
// A copy, a cast. To another device it is a call.
Results same(const Call& c) {
    if (c.given("device") && !placeless(c.in[0])) return {};
    return {as(c.in[0], c.type())};
}
Results surrogate_(const Call& c) { return {surrogate(self(c), other(c))}; }
Results copy_(const Call& c) { return {as(c.tensor("src"), c.type())}; }
Results fill_(const Call& c) { return {c.operand("value", c.type())}; }
Results zero_(const Call& c) { return {lift(c.g, c.type(), 0)}; }
Results reciprocal_(const Call& c) {
    V x = self(c), y = 1 / x;
    return {sloped(y, x, -(y * y))};
}
Results square_(const Call& c) { return {int_power(self(c), 2)}; }
V log_to(V x, double base) { return surrogate(log(x) * (1 / std::log(base)), x / stop_grad(x * std::log(base))); }
Results log2_(const Call& c) { return {log_to(self(c), 2)}; }
Results log10_(const Call& c) { return {log_to(self(c), 10)}; }
Results exp2_(const Call& c) { return {exp(self(c) * std::log(2.0))}; }
Results frac_(const Call& c) { return {self(c) - trunc(self(c))}; }
Results sign__(const Call& c) {
    return {c.type().dtype == DType::b1 ? self(c) : sign(self(c))};
}
// Integers are whole already.
template <V (*op)(V)>
Results rounded(const Call& c) { return {is_float(c.type().dtype) ? op(self(c)) : self(c)}; }
template <bool most>
Results extremum(const Call& c) {
    V a = self(c), b = other(c);
    if (c.type().dtype == DType::b1) return {most ? or_(a, b) : and_(a, b)};
    return {most ? max(a, b) : min(a, b)};
}
// |a| with the sign of b, that of a zero too.
Results copysign_(const Call& c) {
    V a = self(c), b = other(c), zero = zeros_like(b);
    V negative = or_(lt(b, zero), and_(eq(b, zero), lt(1 / b, zero)));
    V y = select(negative, -abs(a), abs(a));
    if (!is_float(c.type().dtype)) return {y};
    return {surrogate(y, a * stop_grad(select(eq(a, zero), zero, y / a)) + floor(b))};  // floor: a gradient of 0 for b
}
// log(e^(ka) + e^(kb)) / k, also of two infinities.
V log_add(V a, V b, double k) {
    auto power = [&](V v) { return exp(k == 1 ? v : v * k); };
    V apart = select(eq(a, b), zeros_like(a), -abs(a - b)), more = log1p(power(apart));
    return surrogate(max(a, b) + (k == 1 ? more : more / k), a / stop_grad(1 + power(b - a)) + b / stop_grad(1 + power(a - b)));
}
Results logaddexp2_(const Call& c) {
    return {log_add(self(c), other(c), std::log(2.0))};
}
Results xlog1py_(const Call& c) {
    return {xlog1py(c.operand("self", c.type()), other(c))};
}
template <int sign>
Results infinite(const Call& c) {
    V x = c.tensor("self");
    if (!is_float(x.type().dtype)) return {lift(c.g, c.type(), 0)};
    return {eq(x, like(x, sign * kInf))};
}
Results isnan_(const Call& c) { return {ne(c.tensor("self"), c.tensor("self"))}; }
Results isinf_(const Call& c) {
    V x = c.tensor("self");
    if (!is_float(x.type().dtype)) return {lift(c.g, c.type(), 0)};
    return {eq(abs(x), like(x, kInf))};
}
Results isfinite_(const Call& c) {
    V x = c.tensor("self");
    if (!is_float(x.type().dtype)) return {lift(c.g, c.type(), 1)};
    return {lt(abs(x), like(x, kInf))};
}
// Of a NaN and a number the number.
V shared_ties(V y, V a, V b) {
    return kSharesTies && is_float(y.type().dtype) ? surrogate(y, select(eq(a, b), (a + b) * 0.5, y)) : y;
}
Results fmax_(const Call& c) {
    V a = self(c), b = other(c);
    return {shared_ties(select(or_(ge(a, b), ne(b, b)), a, b), a, b)};
}
Results fmin_(const Call& c) {
    V a = self(c), b = other(c);
    return {shared_ties(select(or_(le(a, b), ne(b, b)), a, b), a, b)};
}
Results hypot_(const Call& c) {
    // The larger leg times a root of at least 1: nothing over- or underflows. An infinite leg counts more than a NaN.
    V a = self(c), b = other(c), p = abs(a), q = abs(b), zero = zeros_like(a), infinity = like(a, kInf);
    V hi = max(p, q), ratio = min(p, q) / select(eq(hi, zero), like(a, 1), hi), y = hi * sqrt(1 + ratio * ratio);
    y = select(or_(eq(p, infinity), eq(q, infinity)), infinity, y);
    return {surrogate(y, a / stop_grad(y) * stop_grad(a) + b / stop_grad(y) * stop_grad(b))};
}
Results logaddexp_(const Call& c) {
    return {log_add(self(c), other(c), 1)};
}
Results xlogy_(const Call& c) {
    return {xlogy(c.operand("self", c.type()), other(c))};
}
Results nan_to_num_(const Call& c) {
    if (!is_float(c.type().dtype)) return {self(c)};
    double top = c.type().dtype == DType::f64 ? 1.7976931348623157e308 : c.type().dtype == DType::f16 ? 65504 : c.type().dtype == DType::bf16 ? 3.3895313892515355e38 : 3.4028234663852886e38;
    V x = self(c);
    V y = select(ne(x, x), like(x, c.number("nan", 0)), x);
    y = select(eq(y, like(y, kInf)), like(y, c.number("posinf", top)), y);
    y = select(eq(y, like(y, -kInf)), like(y, c.number("neginf", -top)), y);
    return {sloped(y, x, to(lt(abs(x), like(x, kInf)), c.type().dtype))};
}
Results logit_(const Call& c) {
    // The gradient beyond the ends is 0, of no given ends NaN.
    const double eps = c.number("eps"), beyond = c.given("eps") ? kInf : NAN;
    V x = self(c), lo = like(x, eps), hi = like(x, 1 - eps), y = c.given("eps") ? clamp_max(clamp_min(x, lo), hi) : x;
    V by = select(or_(lt(x, lo), gt(x, hi)), like(x, beyond), abs(x * (1 - x)));
    return {surrogate(log(y / (1 - y)), x / stop_grad(by))};
}
Results deg2rad_(const Call& c) { return {self(c) * (3.14159265358979323846 / 180)}; }
Results rad2deg_(const Call& c) { return {self(c) * (180 / 3.14159265358979323846)}; }
Results sinc_(const Call& c) {
    V x = self(c), p = x * 3.14159265358979323846, zero = eq(x, like(x, 0));
    V y = select(zero, like(x, 1), sin(p) / select(zero, like(p, 1), p)), d = x * x * 3.14159265358979323846;
    return {sloped(y, x, select(eq(d, zeros_like(d)), zeros_like(x), (p * cos(p) - sin(p)) / d))};
}
}  // namespace

std::vector<Row> pointwise_rows() {
    return {
        {"aten.add.Tensor", add_}, {"aten.add.Scalar", add_}, {"aten.sub.Tensor", sub_}, {"aten.sub.Scalar", sub_},
        {"aten.rsub.Tensor", rsub_}, {"aten.rsub.Scalar", rsub_}, {"aten.mul.Tensor", mul_}, {"aten.mul.Scalar", mul_},
        {"aten.div.Tensor", div_}, {"aten.div.Scalar", div_}, {"aten.div.Tensor_mode", div_}, {"aten.div.Scalar_mode", div_},
        {"aten.true_divide.Tensor", div_}, {"aten.floor_divide.default", floor_divide_}, {"aten.floor_divide.Scalar", floor_divide_},
        {"aten.remainder.Tensor", remainder_}, {"aten.remainder.Scalar", remainder_}, {"aten.fmod.Tensor", fmod_}, {"aten.fmod.Scalar", fmod_},
        {"aten.pow.Tensor_Scalar", pow_scalar}, {"aten.pow.Tensor_Tensor", pow_tensor}, {"aten.pow.Scalar", pow_tensor},
        {"aten.eq.Tensor", compare<eq>}, {"aten.eq.Scalar", compare<eq>}, {"aten.ne.Tensor", compare<ne>}, {"aten.ne.Scalar", compare<ne>},
        {"aten.lt.Tensor", compare<lt>}, {"aten.lt.Scalar", compare<lt>}, {"aten.le.Tensor", compare<le>}, {"aten.le.Scalar", compare<le>},
        {"aten.gt.Tensor", compare<gt>}, {"aten.gt.Scalar", compare<gt>}, {"aten.ge.Tensor", compare<ge>}, {"aten.ge.Scalar", compare<ge>},
        {"aten.bitwise_and.Tensor", bitwise<and_>}, {"aten.bitwise_or.Tensor", bitwise<or_>}, {"aten.bitwise_xor.Tensor", bitwise<xor_>},
        {"aten.bitwise_and.Scalar", bitwise<and_>}, {"aten.bitwise_or.Scalar", bitwise<or_>}, {"aten.bitwise_xor.Scalar", bitwise<xor_>},
        {"aten.__and__.Tensor", bitwise<and_>}, {"aten.__or__.Tensor", bitwise<or_>}, {"aten.__xor__.Tensor", bitwise<xor_>},
        {"aten.bitwise_not.default", bitwise_not_}, {"aten.logical_not.default", logical_not_},
        {"aten.clamp.default", clamp_}, {"aten.clamp.Tensor", clamp_}, {"aten.clamp_min.default", clamp_}, {"aten.clamp_min.Tensor", clamp_},
        {"aten.clamp_max.default", clamp_}, {"aten.clamp_max.Tensor", clamp_}, {"aten.clip.default", clamp_},
        {"aten.where.self", where_}, {"aten.where.ScalarOther", where_}, {"aten.where.ScalarSelf", where_}, {"aten.where.Scalar", where_},
        {"aten.masked_fill.Scalar", masked_fill_}, {"aten.masked_fill.Tensor", masked_fill_},
        {"aten.lerp.Scalar", lerp_}, {"aten.lerp.Tensor", lerp_}, {"aten.addcmul.default", addcmul_}, {"aten.addcdiv.default", addcdiv_},
        {"aten._to_copy.default", same}, {"aten.clone.default", same}, {"aten.contiguous.default", same}, {"aten.detach.default", same},
        {"aten.alias.default", same}, {"aten.lift_fresh.default", same}, {"aten.lift_fresh_copy.default", same}, {"aten.to.dtype", same},
        {"aten.to.dtype_layout", same}, {"aten.to.device", same}, {"aten.type_as.default", same}, {"aten.positive.default", same},
        {"heddle.surrogate", surrogate_}, {"aten.detach_.default", same}, {"aten.alias_copy.default", same},
        {"aten.copy.default", copy_}, {"aten.fill.Scalar", fill_}, {"aten.fill.Tensor", fill_}, {"aten.zero.default", zero_},
        {"aten.reciprocal.default", reciprocal_}, {"aten.square.default", square_}, {"aten.log2.default", log2_}, {"aten.log10.default", log10_},
        {"aten.exp2.default", exp2_}, {"aten.frac.default", frac_}, {"aten.sign.default", sign__}, {"aten.sgn.default", sign__},
        {"aten.floor.default", rounded<floor>}, {"aten.ceil.default", rounded<ceil>}, {"aten.round.default", rounded<round>}, {"aten.trunc.default", rounded<trunc>},
        {"aten.maximum.default", extremum<true>}, {"aten.minimum.default", extremum<false>}, {"aten.copysign.Tensor", copysign_}, {"aten.copysign.Scalar", copysign_},
        {"aten.logaddexp2.default", logaddexp2_}, {"aten.special_xlog1py.default", xlog1py_}, {"aten.special_xlog1py.other_scalar", xlog1py_},
        {"aten.special_xlog1py.self_scalar", xlog1py_}, {"aten.isposinf.default", infinite<1>}, {"aten.isneginf.default", infinite<-1>},
        {"aten.isnan.default", isnan_}, {"aten.isinf.default", isinf_}, {"aten.isfinite.default", isfinite_}, {"aten.fmax.default", fmax_},
        {"aten.fmin.default", fmin_}, {"aten.hypot.default", hypot_}, {"aten.logaddexp.default", logaddexp_}, {"aten.xlogy.Tensor", xlogy_},
        {"aten.xlogy.Scalar_Self", xlogy_}, {"aten.xlogy.Scalar_Other", xlogy_}, {"aten.nan_to_num.default", nan_to_num_}, {"aten.logit.default", logit_},
        {"aten.deg2rad.default", deg2rad_}, {"aten.rad2deg.default", rad2deg_}, {"aten.sinc.default", sinc_},
    };
}

}  // namespace heddle::aten
