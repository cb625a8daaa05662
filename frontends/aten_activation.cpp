// Activations as formulas. Law: no branch that isn't taken may overflow into the gradient of the one that is.
#include "frontends/aten_rules.h"

namespace heddle::aten {

namespace {
V self(const Call& c) { return as(c.tensor("self"), c.type()); }
V zero(V x) { return zeros_like(x); }
Results relu_(const Call& c) {
    V x = self(c);
    if (!is_float(c.type().dtype)) return {max(x, zero(x))};
    V y = select(lt(x, zero(x)), zero(x), x);  // -0 stays
    return {surrogate(y, select(le(y, zero(y)), zero(x), x))};
}
// Gradient on the open interval, unlike clamp; a zero at the bound keeps its sign.
V hard_clip(V x, V lo, V hi) {
    V y = clamp_max(clamp_min(x, lo), hi);
    return is_float(x.type().dtype) ? surrogate(y, select(or_(le(x, lo), ge(x, hi)), zero(x), x)) : y;
}
Results hardtanh_(const Call& c) {
    V x = self(c);
    return {hard_clip(x, c.scalar("min_val", c.type(), -1), c.scalar("max_val", c.type(), 1))};
}
Results relu6_(const Call& c) {
    V x = self(c);
    return {hard_clip(x, zero(x), like(x, 6))};
}
Results leaky_relu_(const Call& c) {
    V x = self(c);
    return {select(gt(x, zero(x)), x, x * c.scalar("negative_slope", c.type(), 0.01))};
}
V elu_of(V x, double alpha, double scale, double input_scale) {
    V low = le(x, zero(x)), z = select(low, x, zero(x)) * input_scale, high = scale == 1 ? x : x * scale;
    return sloped(select(low, expm1(z) * (alpha * scale), high), x, select(low, exp(z) * (input_scale * alpha * scale), like(x, scale)));
}
Results elu_(const Call& c) { return {elu_of(self(c), c.number("alpha", 1), c.number("scale", 1), c.number("input_scale", 1))}; }
Results celu_(const Call& c) { return {elu_of(self(c), c.number("alpha", 1), 1, 1 / c.number("alpha", 1))}; }
Results selu_(const Call& c) { return {elu_of(self(c), 1.6732632423543772848170429916717, 1.0507009873554804934193349852946, 1)}; }
V softplus_of(V x, double beta, double threshold) {
    V z = beta == 1 ? x : x * beta, big = gt(z, like(z, threshold)), l = log1p(exp(select(big, zero(z), z)));
    return select(big, x, beta == 1 ? l : l / beta);
}
Results softplus_(const Call& c) { return {softplus_of(self(c), c.number("beta", 1), c.number("threshold", 20))}; }
V log_sigmoid(V x) {
    V low = lt(x, zero(x)), e = exp(-abs(x)), part = e / (1 + e);
    return sloped(select(low, x, zero(x)) - log1p(e), x, select(low, 1 - part, part));
}
Results log_sigmoid_(const Call& c) { return {log_sigmoid(self(c))}; }
Results log_sigmoid_forward_(const Call& c) {
    V x = self(c), buffer = exp(-abs(x));
    if (numel(c.type(1).shape) == 0) buffer = lift(c.g, c.type(1), 0);
    return {log_sigmoid(x), buffer};
}
Results silu_(const Call& c) {
    V x = self(c), s = sigmoid(x);
    return {sloped(x * s, x, s * (1 + x * (1 - s)))};
}
Results mish_(const Call& c) {
    V x = self(c), t = tanh(softplus_of(x, 1, 20));
    return {sloped(x * t, x, t + x * sigmoid(x) * (1 - t * t))};
}
Results gelu_(const Call& c) {
    V x = self(c);
    if (c.text("approximate", "none") == "tanh") {
        V xx = x * x, t = tanh((x + xx * x * 0.044715) * 0.79788456080286535588), half = x * 0.5;
        return {sloped(half * (t + 1), x, (t + 1) * 0.5 + half * (1 - t * t) * ((xx * (3 * 0.044715) + 1) * 0.79788456080286535588))};
    }
    V part = (erf(x * 0.70710678118654752440) + 1) * 0.5;
    return {sloped(x * part, x, part + x * (exp(x * x * -0.5) * 0.39894228040143267794))};
}
Results hardsigmoid_(const Call& c) {
    V x = self(c), three = like(x, 3);
    return {surrogate(hard_clip(x + 3, zero(x), like(x, 6)) / 6, select(and_(gt(x, -three), lt(x, three)), x, zero(x)) / 6)};
}
Results hardswish_(const Call& c) {
    V x = self(c);
    V y = x * clamp_max(clamp_min(x + 3, zero(x)), like(x, 6)) / 6, low = select(le(x, like(x, -3)), zero(x), x / 3 + 0.5);
    return {sloped(y, x, select(lt(x, like(x, 3)), low, like(x, 1)))};
}
Results threshold_(const Call& c) {
    V x = self(c);
    return {select(le(x, c.scalar("threshold", c.type())), c.scalar("value", c.type()), x)};
}
Results softshrink_(const Call& c) {
    V x = self(c), l = c.scalar("lambd", c.type(), 0.5);
    return {surrogate(select(gt(x, l), x - l, select(lt(x, -l), x + l, x * 0)), select(and_(ge(x, -l), le(x, l)), zero(x), x))};  // x * 0: a NaN stays
}
Results hardshrink_(const Call& c) {
    V x = self(c), l = c.scalar("lambd", c.type(), 0.5);
    return {select(and_(ge(x, -l), le(x, l)), zero(x), x)};
}
Results prelu_(const Call& c) {
    V x = self(c), w = as(c.tensor("weight"), c.type());
    V high = gt(x, zero(x));
    return {surrogate(select(high, x, x * w), x * stop_grad(select(high, like(x, 1), w)) + w * stop_grad(select(high, zero(x), x)))};
}
Results glu_(const Call& c) {
    V x = c.tensor("self");
    int axis = c.axis("dim", x.type().rank(), -1);
    Dim whole = x.type().shape[static_cast<std::size_t>(axis)], half = c.shape()[static_cast<std::size_t>(axis)];
    V a = slice(x, axis, 0, half), b = slice(x, axis, half, whole), s = sigmoid(b);
    return {surrogate(a * s, a * stop_grad(s) + b * stop_grad(a) * stop_grad((1 - s) * s))};
}
}  // namespace

std::vector<Row> activation_rows() {
    return {
        {"aten.relu.default", relu_}, {"aten.relu6.default", relu6_}, {"aten.hardtanh.default", hardtanh_}, {"aten.leaky_relu.default", leaky_relu_},
        {"aten.elu.default", elu_}, {"aten.celu.default", celu_}, {"aten.selu.default", selu_}, {"aten.softplus.default", softplus_},
        {"aten.log_sigmoid.default", log_sigmoid_}, {"aten.log_sigmoid_forward.default", log_sigmoid_forward_}, {"aten.silu.default", silu_},
        {"aten.mish.default", mish_}, {"aten.gelu.default", gelu_}, {"aten.hardsigmoid.default", hardsigmoid_}, {"aten.hardswish.default", hardswish_},
        {"aten.threshold.default", threshold_}, {"aten.softshrink.default", softshrink_}, {"aten.hardshrink.default", hardshrink_},
        {"aten._prelu_kernel.default", prelu_}, {"aten.glu.default", glu_},
    };
}

}  // namespace heddle::aten
