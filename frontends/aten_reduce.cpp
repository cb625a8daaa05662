// Rows: reductions, scans, softmax and norms, losses.
#include <algorithm>

#include "frontends/aten_table.h"

namespace heddle::aten {

namespace {
V count_of(V x, const std::vector<int>& axes, const Type& t) {
    Dim n = 1;
    for (int a : axes) n = n * x.type().shape[static_cast<std::size_t>(a)];
    return size(*x.graph, Type(t), n);
}
V folded(Op op, V x, const std::vector<int>& axes) {
    return axes.empty() ? x : apply(op, {x}, {{"axes", std::vector<Dim>(axes.begin(), axes.end())}});
}
V source(Call& c) { return cast(c.tensor("self"), c.type().dtype); }
std::optional<V> total(Call& c) {
    V x = source(c);
    return reshape(sum(x, c.axes("dim", x.type().rank())), c.type().shape);
}
std::optional<V> mean(Call& c) {
    V x = source(c);
    auto axes = c.axes("dim", x.type().rank());
    V s = sum(x, axes);
    return reshape(s / count_of(x, axes, s.type()), c.type().shape);
}
Row extremum(Op op) {
    return [op](Call& c) -> std::optional<V> {
        if (!c.node.more.empty() || c.maybe("other")) return {};  // max over an axis also gives indices
        V x = c.tensor("self");
        return reshape(folded(op, x, c.axes("dim", x.type().rank())), c.type().shape);
    };
}
Row truth(Op op) {
    return [op](Call& c) -> std::optional<V> {
        V x = c.tensor("self");
        if (x.type().dtype != DType::b1) x = ne(x, zeros_like(x));
        return reshape(cast(folded(op, x, c.axes("dim", x.type().rank())), c.type().dtype), c.type().shape);
    };
}
std::optional<V> product(Call& c) {
    V x = source(c);
    auto axes = c.axes("dim", x.type().rank());
    for (std::size_t k = axes.size(); k-- > 0;) x = prod(x, {axes[k]});  // one at a time: its derivative is per axis
    return reshape(x, c.type().shape);
}
std::optional<V> variance(Call& c) {
    V x = source(c);
    auto axes = c.axes("dim", x.type().rank());
    double correction = c.has("correction") ? c.number("correction") : c.flag("unbiased", true) ? 1 : 0;
    V s = sum(x, axes), n = count_of(x, axes, s.type());
    V d = x - expand(s / n, axes, x.type().shape);
    return reshape(sum(d * d, axes) / (n - correction), c.type().shape);
}
// sqrt(sum x^2) with gradient 0 where it is 0, as PyTorch's norm has.
std::optional<V> norm(Call& c) {
    V x = source(c);
    auto axes = c.axes("dim", x.type().rank());
    double p = c.has("ord") ? c.number("ord") : c.has("p") ? c.number("p") : 2;
    if (p == 1) return reshape(sum(abs(x), axes), c.type().shape);
    if (p != 2) return {};
    V s = sum(x * x, axes), zero = eq(s, zeros_like(s));
    return reshape(select(zero, zeros_like(s), sqrt(select(zero, like(s, 1), s))), c.type().shape);
}
std::optional<V> running(Call& c, bool sums) {
    V x = source(c);
    if (x.type().rank() == 0) return x;
    int a = c.axis("dim", x.type().rank());
    return sums ? scan(like(x, 1), x, a, 0, false, 0) : scan(x, zeros_like(x), a, 0, false, 1);
}
std::optional<V> softmax(Call& c, bool logarithm) {
    V x = source(c);
    if (x.type().rank() == 0) return logarithm ? zeros_like(x) : like(x, 1);
    int a = c.axis("dim", x.type().rank());
    auto wide = [&](V v) { return expand(v, {a}, x.type().shape); };
    V shifted = x - stop_grad(wide(amax(x, {a})));
    V e = exp(shifted), s = sum(e, {a});
    return logarithm ? shifted - wide(log(s)) : e / wide(s);
}
// [.., normalized_shape]: (x - mean) / sqrt(var + eps) * weight + bias
std::optional<V> layer_norm(Call& c) {
    if (!c.node.more.empty()) return {};
    V x = c.tensor("input");
    int rank = x.type().rank(), n = static_cast<int>(std::get<std::vector<Dim>>(*c.node.find("normalized_shape")).size());
    auto axes = axes_from_to(rank - n, rank);
    auto wide = [&](V v) { return expand(v, axes, x.type().shape); };
    V s = sum(x, axes), count = count_of(x, axes, s.type());
    V d = x - wide(s / count);
    V y = d * wide(rsqrt(sum(d * d, axes) / count + c.number("eps", 1e-5)));
    if (auto w = c.maybe("weight")) y = y * broadcast(*w, x.type().shape);
    if (auto b = c.maybe("bias")) y = y + broadcast(*b, x.type().shape);
    return y;
}
std::optional<V> reduced(Call& c, V each) {
    int reduction = c.has("reduction") ? c.node.integer("reduction") : 1;  // none, mean, sum
    if (reduction == 0) return each;
    auto axes = axes_from_to(0, each.type().rank());
    V s = sum(each, axes);
    return reduction == 2 ? s : s / count_of(each, axes, s.type());
}
Row loss(V (*f)(Call&, V)) {
    return [f](Call& c) -> std::optional<V> {
        V a = c.tensor("self"), b = c.tensor("target");
        if (a.type().shape != b.type().shape) return {};
        return reduced(c, f(c, cast(a, c.type().dtype) - cast(b, c.type().dtype)));
    };
}
}  // namespace

const Table& reduce_rows() {
    static const Table rows = {
        {"sum", total}, {"mean", mean}, {"prod", product}, {"var", variance},
        {"amax", extremum(Op::amax)}, {"amin", extremum(Op::amin)}, {"max", extremum(Op::amax)}, {"min", extremum(Op::amin)},
        {"any", truth(Op::amax)}, {"all", truth(Op::amin)},
        {"linalg_vector_norm", norm}, {"norm", norm},
        {"cumsum", [](Call& c) { return running(c, true); }},
        {"cumprod", [](Call& c) { return running(c, false); }},
        {"softmax", [](Call& c) { return softmax(c, false); }}, {"_softmax", [](Call& c) { return softmax(c, false); }},
        {"log_softmax", [](Call& c) { return softmax(c, true); }}, {"_log_softmax", [](Call& c) { return softmax(c, true); }},
        {"layer_norm", layer_norm},
        {"mse_loss", loss([](Call&, V d) { return d * d; })},
        {"l1_loss", loss([](Call&, V d) { return abs(d); })},
        {"smooth_l1_loss", loss([](Call& c, V d) {
             double beta = c.number("beta", 1);
             V a = abs(d);
             return beta == 0 ? a : select(lt(a, like(a, beta)), d * d * (0.5 / beta), a - 0.5 * beta);
         })},
        {"huber_loss", loss([](Call& c, V d) {
             double delta = c.number("delta", 1);
             V a = abs(d);
             return select(le(a, like(a, delta)), d * d * 0.5, (a - 0.5 * delta) * delta);
         })},
    };
    return rows;
}

}  // namespace heddle::aten
