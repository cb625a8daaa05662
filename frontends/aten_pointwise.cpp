// Rows: elementwise ops whose meaning or operands differ from the primitive of that name.
#include <cmath>
#include <limits>
#include <numbers>

#include "frontends/aten_table.h"

namespace heddle::aten {

namespace {
V arg(Call& c, const char* name = "self") { return c.operand(name, c.type().dtype, c.type().shape); }

Row binary(V (*f)(V, V)) {
    return [f](Call& c) -> std::optional<V> { return f(arg(c), arg(c, "other")); };
}
Row comparison(V (*f)(V, V)) {
    return [f](Call& c) -> std::optional<V> {
        DType t = promoted(c, "self", "other");
        return f(c.operand("self", t, c.type().shape), c.operand("other", t, c.type().shape));
    };
}
Row unary(V (*f)(V)) {
    return [f](Call& c) -> std::optional<V> { return f(arg(c)); };
}
V scaled(V x, double by) { return by == 1 ? x : mul(x, like(x, by)); }
Row sum_of(int sign, bool reversed) {
    return [=](Call& c) -> std::optional<V> {
        V a = arg(c), b = arg(c, "other");
        if (a.type().dtype == DType::b1) return or_(a, b);
        double alpha = c.number("alpha", 1);
        if (reversed) std::swap(a, b), a = a, b = scaled(b, alpha);
        else b = scaled(b, alpha);
        return sign > 0 ? a + b : a - b;
    };
}
// On bool as logic; on integers it stays a call.
Row bitwise(V (*f)(V, V)) {
    return [f](Call& c) -> std::optional<V> {
        if (c.type().dtype != DType::b1) return {};
        return f(arg(c), arg(c, "other"));
    };
}
Row logical(V (*f)(V, V)) {
    return [f](Call& c) -> std::optional<V> {
        auto truth = [&](const char* name) {
            V x = c.tensor(name);
            return broadcast(x.type().dtype == DType::b1 ? x : ne(x, zeros_like(x)), c.type().shape);
        };
        return f(truth("self"), truth("other"));
    };
}
std::optional<V> power(Call& c) {
    V x = arg(c);
    const Attr* e = c.node.find("exponent");
    if (e && !std::holds_alternative<Ref>(*e)) {
        double p = c.number("exponent");
        if (p == 0) return like(x, 1);
        if (p == 1) return x;
        if (p == 2) return x * x;
        if (p == 3) return x * x * x;
        if (is_float(x.type().dtype)) {
            if (p == 0.5) return sqrt(x);
            if (p == -0.5) return rsqrt(x);
            if (p == -1) return 1.0 / x;
            if (p == -2) return 1.0 / (x * x);
        }
    }
    if (!is_float(c.type().dtype)) return {};
    return pow(x, arg(c, "exponent"));
}
std::optional<V> divide(Call& c) {
    V a = arg(c), b = arg(c, "other");
    if (!c.has("rounding_mode")) return a / b;
    if (c.node.text("rounding_mode") == "floor") return is_float(a.type().dtype) ? std::optional(floordiv(a, b)) : floordiv(a, b);
    return is_float(a.type().dtype) ? std::optional(trunc(a / b)) : std::nullopt;
}
std::optional<V> clamped(Call& c) {
    V x = arg(c);
    if (c.maybe("min") || c.maybe("max")) {
        if (c.has("min")) x = max(x, arg(c, "min"));
        if (c.has("max")) x = min(x, arg(c, "max"));
        return x;
    }
    auto bound = [&](const char* n) { return c.has(n) ? std::optional<double>(c.number(n)) : std::nullopt; };
    return clamp(x, bound("min"), bound("max"));
}
// log1p(exp(bx)) / b, linear where bx > threshold; the exponential never sees what the linear branch handles.
std::optional<V> softplus(Call& c) {
    V x = arg(c);
    double beta = c.number("beta", 1), threshold = c.number("threshold", 20);
    V bx = scaled(x, beta), linear = gt(bx, like(bx, threshold));
    V safe = select(linear, zeros_like(bx), bx);
    V curve = log1p(exp(safe));
    return select(linear, x, beta == 1 ? curve : curve / beta);
}
V relu(V x) { return select(le(x, zeros_like(x)), zeros_like(x), x); }
V sigmoid_linear(V x) { return x * sigmoid(x); }
V logistic_log(V x) {  // log(sigmoid(x)), stable on both sides
    V negative = lt(x, zeros_like(x)), z = exp(select(negative, x, -x));
    return select(negative, x, zeros_like(x)) - log1p(z);
}
std::optional<V> gelu(Call& c) {
    V x = arg(c);
    if (c.has("approximate") && c.node.text("approximate") == "tanh") {
        V inner = (x + x * x * x * 0.044715) * std::sqrt(2 / std::numbers::pi);
        return x * 0.5 * (tanh(inner) + 1);
    }
    return x * 0.5 * (erf(x * std::numbers::sqrt2 * 0.5) + 1);
}
V is_nan(V x) { return is_float(x.type().dtype) ? ne(x, x) : constant(*x.graph, {DType::b1, x.type().shape}, 0); }
}  // namespace

const Table& pointwise_rows() {
    static const Table rows = {
        {"add", sum_of(1, false)},
        {"sub", sum_of(-1, false)},
        {"rsub", sum_of(-1, true)},
        {"mul", [](Call& c) -> std::optional<V> { return c.type().dtype == DType::b1 ? and_(arg(c), arg(c, "other")) : arg(c) * arg(c, "other"); }},
        {"div", divide},
        {"true_divide", divide},
        {"floor_divide", [](Call& c) -> std::optional<V> { return floordiv(arg(c), arg(c, "other")); }},
        {"remainder", [](Call& c) -> std::optional<V> { return mod(arg(c), arg(c, "other")); }},
        {"fmod", [](Call& c) -> std::optional<V> {
             if (!is_float(c.type().dtype)) return {};
             V a = arg(c), b = arg(c, "other");
             return a - stop_grad(trunc(a / b)) * b;
         }},
        {"pow", power},
        {"square", [](Call& c) -> std::optional<V> { V x = arg(c); return x * x; }},
        {"reciprocal", [](Call& c) -> std::optional<V> { return 1.0 / arg(c); }},
        {"sign", unary(sign)},
        {"round", [](Call& c) -> std::optional<V> {
             if (c.number("decimals", 0) != 0) return {};
             return is_float(c.type().dtype) ? round(arg(c)) : arg(c);
         }},
        {"floor", [](Call& c) -> std::optional<V> { return is_float(c.type().dtype) ? floor(arg(c)) : arg(c); }},
        {"ceil", [](Call& c) -> std::optional<V> { return is_float(c.type().dtype) ? ceil(arg(c)) : arg(c); }},
        {"trunc", [](Call& c) -> std::optional<V> { return is_float(c.type().dtype) ? trunc(arg(c)) : arg(c); }},
        {"frac", [](Call& c) -> std::optional<V> { V x = arg(c); return x - trunc(x); }},
        {"log2", [](Call& c) -> std::optional<V> { return log(arg(c)) * std::numbers::log2e; }},
        {"log10", [](Call& c) -> std::optional<V> { return log(arg(c)) * std::numbers::log10e; }},
        {"exp2", [](Call& c) -> std::optional<V> { return exp(arg(c) * std::numbers::ln2); }},
        {"lt", comparison(lt)},
        {"le", comparison(le)},
        {"gt", comparison(gt)},
        {"ge", comparison(ge)},
        {"eq", comparison(eq)},
        {"ne", comparison(ne)},
        {"isnan", [](Call& c) -> std::optional<V> { return is_nan(c.tensor("self")); }},
        {"isinf", [](Call& c) -> std::optional<V> { V x = c.tensor("self"); return eq(abs(x), like(x, kInf)); }},
        {"isfinite", [](Call& c) -> std::optional<V> { V x = c.tensor("self"); return lt(abs(x), like(x, kInf)); }},
        {"bitwise_and", bitwise(and_)},
        {"bitwise_or", bitwise(or_)},
        {"bitwise_xor", bitwise(xor_)},
        {"__and__", bitwise(and_)},
        {"__or__", bitwise(or_)},
        {"bitwise_not", [](Call& c) -> std::optional<V> { return c.type().dtype == DType::b1 ? std::optional(not_(arg(c))) : std::nullopt; }},
        {"logical_and", logical(and_)},
        {"logical_or", logical(or_)},
        {"logical_xor", logical(xor_)},
        {"logical_not", [](Call& c) -> std::optional<V> { V x = c.tensor("self"); return x.type().dtype == DType::b1 ? not_(x) : eq(x, zeros_like(x)); }},
        {"where", [](Call& c) -> std::optional<V> {
             if (!c.has("self")) return {};
             return select(broadcast(cast(c.tensor("condition"), DType::b1), c.type().shape), arg(c), arg(c, "other"));
         }},
        {"masked_fill", [](Call& c) -> std::optional<V> { return select(broadcast(c.tensor("mask"), c.type().shape), arg(c, "value"), arg(c)); }},
        {"clamp", clamped},
        {"clamp_min", clamped},
        {"clamp_max", clamped},
        {"lerp", [](Call& c) -> std::optional<V> { V a = arg(c), b = arg(c, "end"); return a + arg(c, "weight") * (b - a); }},
        {"addcmul", [](Call& c) -> std::optional<V> { return arg(c) + scaled(arg(c, "tensor1") * arg(c, "tensor2"), c.number("value", 1)); }},
        {"addcdiv", [](Call& c) -> std::optional<V> { return arg(c) + scaled(arg(c, "tensor1") / arg(c, "tensor2"), c.number("value", 1)); }},
        {"softplus", softplus},
        {"relu", unary(relu)},
        {"relu6", [](Call& c) -> std::optional<V> { return clamp(arg(c), 0.0, 6.0); }},
        {"hardtanh", [](Call& c) -> std::optional<V> { return clamp(arg(c), c.number("min_val", -1), c.number("max_val", 1)); }},
        {"silu", unary(sigmoid_linear)},
        {"log_sigmoid", unary(logistic_log)},
        {"gelu", gelu},
        {"elu", [](Call& c) -> std::optional<V> {
             V x = arg(c);
             V positive = gt(x, zeros_like(x)), safe = select(positive, zeros_like(x), x);
             return scaled(select(positive, x, scaled(expm1(scaled(safe, c.number("input_scale", 1))), c.number("alpha", 1))), c.number("scale", 1));
         }},
        {"leaky_relu", [](Call& c) -> std::optional<V> { V x = arg(c); return select(gt(x, zeros_like(x)), x, x * c.number("negative_slope", 0.01)); }},
        {"atan2", binary(atan2)},
        {"maximum", binary(max)},
        {"minimum", binary(min)},
        {"nan_to_num", [](Call& c) -> std::optional<V> {
             V x = arg(c);
             if (!is_float(c.type().dtype) || !c.has("posinf") || !c.has("neginf")) return {};
             V y = select(ne(x, x), like(x, c.number("nan", 0)), x);
             y = select(eq(y, like(y, kInf)), like(y, c.number("posinf")), y);
             return select(eq(y, like(y, -kInf)), like(y, c.number("neginf")), y);
         }},
    };
    return rows;
}

}  // namespace heddle::aten
