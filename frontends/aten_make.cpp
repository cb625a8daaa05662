// Tensors made of sizes and numbers. Law: they lie on no device; random ones stay calls.
#include <algorithm>
#include <cmath>

#include "frontends/aten_rules.h"

namespace heddle::aten {

namespace {
template <int value>
Results filled(const Call& c) { return {lift(c.g, c.type(), value)}; }
Results full_(const Call& c) { return {c.operand("fill_value", c.type())}; }
Results scalar_tensor_(const Call& c) { return {c.scalar("s", c.type())}; }
Results arange_(const Call& c) {
    Type t = c.type();
    V i = heddle::iota(c.g, is_float(t.dtype) ? Type{DType::i64, t.shape} : t, 0);
    if (c.given("step") && c.number("step", 1) != 1) {
        V step = c.scalar("step", t);
        i = cast(i, t.dtype) * step;
    }
    i = cast(i, t.dtype);
    if (c.given("start") && !(c.scalar_dtype("start") == DType::i64 && c.dim("start") == 0)) i = i + c.scalar("start", t);
    return {i};
}
// From both ends towards the middle, as PyTorch computes it.
Results linspace_(const Call& c) {
    Type t = c.type();
    if (!is_float(t.dtype) || std::holds_alternative<Ref>(*c.n.find("start")) || std::holds_alternative<Ref>(*c.n.find("end"))) return {};
    Dim n = t.shape[0];
    V start = c.scalar("start", t), end = c.scalar("end", t);
    if (n == 1) return {start};
    V i = heddle::iota(c.g, {DType::i64, t.shape}, 0), last = number(c.g, {DType::i64, t.shape}, n - 1);
    V step = (end - start) / number(c.g, t, n - 1);
    V low = lt(i * like(i, 2), last + like(last, 1));
    return {select(low, start + cast(i, t.dtype) * step, end - cast(last - i, t.dtype) * step)};
}
Results eye_(const Call& c) {
    V a = heddle::iota(c.g, {DType::i64, c.shape()}, 0), b = heddle::iota(c.g, {DType::i64, c.shape()}, 1);
    return {eq(a, b)};
}
template <bool lower>
Results triangle(const Call& c) {
    V x = to(c.tensor("self"), c.type().dtype);
    int r = x.type().rank();
    Type t{DType::i64, c.shape()};
    V d = heddle::iota(c.g, t, r - 1) - heddle::iota(c.g, t, r - 2), k = number(c.g, t, c.dim("diagonal"));
    return {select(lower ? le(d, k) : ge(d, k), x, zeros_like(x))};
}
// A constant tensor, values in row-major order: one value, a progression, or pieces side by side.
Results literal(const Call& c) {
    std::vector<double> v;
    if (auto* reals = std::get_if<std::vector<double>>(c.n.find("values"))) v = *reals;
    else
        for (const Dim& d : c.dims("values")) {
            v.push_back(static_cast<double>(d.value()));
            if (std::fabs(v.back()) >= 0x1p53) return {};  // no number here holds it
        }
    if (v.empty()) return {lift(c.g, c.type(), 0)};
    if (std::all_of(v.begin(), v.end(), [&](double x) { return x == v[0]; })) return {lift(c.g, c.type(), v[0])};
    Type flat{c.type().dtype, {static_cast<std::int64_t>(v.size())}};
    double step = v[1] - v[0];
    bool progression = is_int(flat.dtype) && v.size() > 2;
    for (std::size_t i = 1; i < v.size(); ++i) progression &= v[i] - v[i - 1] == step;
    V all;
    if (progression) {
        all = heddle::iota(c.g, flat, 0);
        if (step != 1) all = all * lift(c.g, flat, step);
        if (v[0] != 0) all = all + lift(c.g, flat, v[0]);
    } else {
        std::vector<V> parts;
        for (double x : v) parts.push_back(lift(c.g, {flat.dtype, {1}}, x));
        all = concat(parts, 0);
    }
    return {reshape(all, c.shape())};
}
// What is drawn is a call's, through which no gradient flows; what is done with it is seen.
Results drawn(const Call& c) {
    Node draw = c.n;
    for (std::size_t k = 0; k < draw.in.size(); ++k) draw.in[k] = is_float(c.in[k].type().dtype) ? stop_grad(c.in[k]).id : c.in[k].id;
    std::erase_if(draw.attrs, [](const auto& a) { return a.first == "no_grad" || a.first == "ended"; });
    Results all{c.g.value(c.g.add(std::move(draw)))};
    for (std::size_t k = 1; k <= c.n.more.size(); ++k)
        all.push_back(c.g.value(c.g.add({.op = Op::result, .in = {all[0].id}, .attrs = {{"index", Dim(static_cast<std::int64_t>(k))}}, .type = {}, .more = {}, .loc = {}})));
    return all;
}
Results native_dropout_(const Call& c) {
    V x = c.tensor("input");
    if (c.given("train") && !c.flag("train")) return {x, lift(c.g, c.type(1), 1)};
    V kept = drawn(c)[1];
    double p = c.number("p");
    return {x * cast(kept, x.type().dtype) * (p == 1 ? 0 : 1 / (1 - p)), kept};
}
// The noise is 1 where x is positive.
Results rrelu_(const Call& c) {
    V x = c.tensor("self");
    if (!c.flag("training")) {
        V slope = (c.scalar("lower", c.type(), 0.125) + c.scalar("upper", c.type(), 1.0 / 3)) / 2;
        return {select(gt(x, zeros_like(x)), x, x * slope), c.tensor("noise")};
    }
    Results r = drawn(c);
    return {x * r[1], r[1]};
}
}  // namespace

std::vector<Row> make_rows() {
    return {
        {"aten.zeros.default", filled<0>}, {"aten.zeros_like.default", filled<0>}, {"aten.new_zeros.default", filled<0>},
        {"aten.ones.default", filled<1>}, {"aten.ones_like.default", filled<1>}, {"aten.new_ones.default", filled<1>},
        {"aten.empty.memory_format", filled<0>}, {"aten.empty_like.default", filled<0>}, {"aten.new_empty.default", filled<0>},
        {"aten.empty_strided.default", filled<0>}, {"aten.new_empty_strided.default", filled<0>}, {"aten.empty_permuted.default", filled<0>},
        {"aten._efficientzerotensor.default", filled<0>},
        {"aten.full.default", full_}, {"aten.full_like.default", full_}, {"aten.new_full.default", full_}, {"aten.scalar_tensor.default", scalar_tensor_},
        {"aten.arange.default", arange_}, {"aten.arange.start", arange_}, {"aten.arange.start_step", arange_}, {"aten.linspace.default", linspace_},
        {"aten.eye.default", eye_}, {"aten.eye.m", eye_}, {"aten.tril.default", triangle<true>}, {"aten.triu.default", triangle<false>},
        {"aten.native_dropout.default", native_dropout_}, {"aten.rrelu_with_noise_functional.default", rrelu_},
        {"aten.bernoulli.default", drawn}, {"aten.bernoulli.p", drawn}, {"aten.poisson.default", drawn}, {"aten.normal.Tensor_float", drawn},
        {"aten.normal.float_Tensor", drawn}, {"aten.normal.Tensor_Tensor", drawn}, {"aten.normal_functional.default", drawn}, {"aten.uniform.default", drawn},
        {"aten.exponential.default", drawn}, {"aten.geometric.default", drawn}, {"aten.cauchy.default", drawn}, {"aten.log_normal.default", drawn},
        {"heddle.tensor", literal},
    };
}

}  // namespace heddle::aten
