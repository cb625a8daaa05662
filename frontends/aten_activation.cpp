// Activations as formulas. Law: no branch that isn't taken may overflow into the gradient of the one that is.
#include "frontends/aten_rules.h"

namespace heddle::aten {

namespace {
V self(const Call& c) { return as(c.tensor("self"), c.type()); }
V zero(V x) { return zeros_like(x); }
Results relu_(const Call& c) {
    V x = self(c);
    return {select(le(x, zero(x)), zero(x), x)};
}
// Gradient on the open interval, unlike clamp.
V hard_clip(V x, V lo, V hi) { return select(le(x, lo), lo, select(ge(x, hi), hi, x)); }
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
    V low = le(x, zero(x)), e = expm1(select(low, x, zero(x)) * input_scale) * (alpha * scale);
    return select(low, e, scale == 1 ? x : x * scale);
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
    V low = lt(x, zero(x)), m = select(low, x, zero(x)), minus_abs = select(low, x, -x);
    return m - log1p(exp(minus_abs));
}
Results log_sigmoid_(const Call& c) { return {log_sigmoid(self(c))}; }
Results log_sigmoid_forward_(const Call& c) {
    V x = self(c), buffer = exp(-abs(x));
    if (numel(c.type(1).shape) == 0) buffer = lift(c.g, c.type(1), 0);
    return {log_sigmoid(x), buffer};
}
Results silu_(const Call& c) { return {self(c) * sigmoid(self(c))}; }
Results mish_(const Call& c) { return {self(c) * tanh(softplus_of(self(c), 1, 20))}; }
Results gelu_(const Call& c) {
    V x = self(c);
    if (c.text("approximate", "none") == "tanh") {
        V inner = (x + x * x * x * 0.044715) * 0.79788456080286535588;
        return {x * 0.5 * (tanh(inner) + 1)};
    }
    return {x * 0.5 * (erf(x * 0.70710678118654752440) + 1)};
}
Results hardsigmoid_(const Call& c) {
    V x = self(c);
    return {hard_clip(x + 3, zero(x), like(x, 6)) / 6};
}
Results hardswish_(const Call& c) {
    V x = self(c);
    return {select(le(x, like(x, -3)), zero(x), select(ge(x, like(x, 3)), x, x * (x + 3) / 6))};
}
Results threshold_(const Call& c) {
    V x = self(c);
    return {select(le(x, c.scalar("threshold", c.type())), c.scalar("value", c.type()), x)};
}
Results softshrink_(const Call& c) {
    V x = self(c), l = c.scalar("lambd", c.type(), 0.5);
    return {select(gt(x, l), x - l, select(lt(x, -l), x + l, zero(x)))};
}
Results hardshrink_(const Call& c) {
    V x = self(c), l = c.scalar("lambd", c.type(), 0.5);
    return {select(and_(ge(x, -l), le(x, l)), zero(x), x)};
}
Results prelu_(const Call& c) {
    V x = self(c), w = as(c.tensor("weight"), c.type());
    return {select(gt(x, zero(x)), x, x * w)};
}
Results glu_(const Call& c) {
    V x = c.tensor("self");
    int axis = c.axis("dim", x.type().rank(), -1);
    Dim whole = x.type().shape[static_cast<std::size_t>(axis)], half = c.shape()[static_cast<std::size_t>(axis)];
    return {slice(x, axis, 0, half) * sigmoid(slice(x, axis, half, whole))};
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
