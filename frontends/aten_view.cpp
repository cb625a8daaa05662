// Rows: views, concatenation, and tensors made from nothing. Shapes come from the captured type.
#include <algorithm>

#include "frontends/aten_table.h"

namespace heddle::aten {

namespace {
std::optional<V> same(Call& c) { return reshape(cast(c.tensor("self"), c.type().dtype), c.type().shape); }
std::optional<V> broadcasted(Call& c) { return broadcast(c.tensor("self"), c.type().shape); }
std::optional<V> swapped(Call& c) {
    V x = c.tensor("self");
    int r = x.type().rank();
    auto axes = axes_from_to(0, r);
    if (r < 2 && !c.has("dim0")) return x;
    if (r == 0) return x;
    int a = c.axis("dim0", r, 0), b = c.axis("dim1", r, 1);
    std::swap(axes[static_cast<std::size_t>(a)], axes[static_cast<std::size_t>(b)]);
    return permute(x, axes);
}
// Elements start, start + step, ... of an axis.
V strided(V x, int axis, Dim start, int step, Dim length) {
    if (step == 1) return slice(x, axis, start, start + length);
    Graph& g = *x.graph;
    Type i64{DType::i64, {length}};
    V index = iota(g, i64, 0) * static_cast<double>(step) + size(g, i64, start);
    auto front = axes_from_to(0, x.type().rank());
    std::rotate(front.begin(), front.begin() + axis, front.begin() + axis + 1);
    return permute(gather(permute(x, front), {index}), inverse(front));
}
Dim from_end(const Dim& i, const Dim& size) { return i.is_const() && i.value() < 0 ? size + i : i; }

std::optional<V> sliced(Call& c) {
    V x = c.tensor("self");
    int a = c.axis("dim", x.type().rank());
    auto at = static_cast<std::size_t>(a);
    Dim start = from_end(c.dim("start").value_or(0), x.type().shape[at]);
    if (start.is_const() && start.value() < 0) start = 0;
    return strided(x, a, start, c.has("step") ? c.node.integer("step") : 1, c.type().shape[at]);
}
std::optional<V> selected(Call& c) {
    V x = c.tensor("self");
    int a = c.axis("dim", x.type().rank());
    Dim i = from_end(c.node.dim("index"), x.type().shape[static_cast<std::size_t>(a)]);
    return reshape(slice(x, a, i, i + 1), c.type().shape);
}
std::optional<V> concatenated(Call& c) {
    std::vector<V> parts;
    int rank = c.type().rank(), a = c.axis("dim", rank);
    for (auto v : c.tensors("tensors"))
        if (v && !(v->type().rank() == 1 && rank > 1)) parts.push_back(cast(*v, c.type().dtype));  // an empty [0] is skipped
    return concat(parts, a);
}
std::optional<V> stacked(Call& c) {
    int a = c.axis("dim", c.type().rank());
    std::vector<V> parts;
    for (auto v : c.tensors("tensors")) {
        Shape s = v->type().shape;
        s.insert(s.begin() + a, 1);
        parts.push_back(reshape(cast(*v, c.type().dtype), s));
    }
    return concat(parts, a);
}
std::optional<V> padded(Call& c) {
    V x = c.tensor("self");
    const auto* p = std::get_if<std::vector<Dim>>(c.node.find("pad"));
    if (!p) return {};
    double value = c.number("value", 0);
    V inside = constant(c.g, {DType::b1, x.type().shape}, 1);
    for (std::size_t k = 0; 2 * k + 1 < p->size(); ++k) {
        int a = x.type().rank() - 1 - static_cast<int>(k);
        Dim lo = (*p)[2 * k], hi = (*p)[2 * k + 1];
        for (const Dim& d : {lo, hi})
            if (!d.is_const()) return {};
        auto cut = [&](V v) {  // negative padding cuts
            auto at = static_cast<std::size_t>(a);
            Dim begin = std::max<std::int64_t>(0, -lo.value()), end = v.type().shape[at] - Dim(std::max<std::int64_t>(0, -hi.value()));
            return pad(slice(v, a, begin, end), a, std::max<std::int64_t>(0, lo.value()), std::max<std::int64_t>(0, hi.value()));
        };
        x = cut(x), inside = cut(inside);
    }
    return value == 0 ? x : select(inside, x, like(x, value));
}
std::optional<V> repeated(Call& c) {
    V x = c.tensor("self");
    const auto* times = std::get_if<std::vector<Dim>>(c.node.find("repeats"));
    if (!times) return {};
    Shape from = x.type().shape;
    while (from.size() < times->size()) from.insert(from.begin(), 1);
    x = reshape(x, from);
    Shape wide;
    std::vector<int> axes;
    for (std::size_t k = 0; k < from.size(); ++k) {
        axes.push_back(static_cast<int>(wide.size()));
        wide.push_back((*times)[k]);
        wide.push_back(from[k]);
    }
    return reshape(expand(x, axes, wide), c.type().shape);
}
Row filled(double v) {
    return [v](Call& c) -> std::optional<V> { return fill(c.g, c.type(), v); };
}
std::optional<V> filled_with(Call& c) {
    for (const char* name : {"fill_value", "value", "s"})
        if (c.has(name)) return c.operand(name, c.type().dtype, c.type().shape);
    return {};
}
std::optional<V> arange(Call& c) {
    const Type& t = c.type();
    if (is_float(t.dtype)) return iota(c.g, Type(t), 0) * c.number("step", 1) + c.number("start", 0);
    V start = c.has("start") ? c.operand("start", t.dtype, t.shape) : fill(c.g, t, 0);
    return iota(c.g, Type(t), 0) * c.number("step", 1) + start;
}
// PyTorch counts from whichever end is nearer, so that both ends are exact.
std::optional<V> linspace(Call& c) {
    const Type& t = c.type();
    if (!is_float(t.dtype) || c.maybe("start") || c.maybe("end")) return {};
    double start = c.number("start"), end = c.number("end");
    const Dim& n = t.shape[0];
    V i = iota(c.g, {DType::i64, t.shape}, 0), last = size(c.g, {DType::i64, t.shape}, n - 1);
    V count = size(c.g, Type(t), n - 1);
    V step = fill(c.g, t, end - start) / max(count, like(count, 1));
    V up = cast(i, t.dtype) * step + start, down = fill(c.g, t, end) - cast(last - i, t.dtype) * step;
    return select(lt(i * 2.0, last + 1), up, down);
}
}  // namespace

const Table& view_rows() {
    static const Table rows = {
        {"view", same}, {"reshape", same}, {"_unsafe_view", same}, {"_reshape_alias", same}, {"flatten", same}, {"unflatten", same},
        {"unsqueeze", same}, {"squeeze", same}, {"clone", same}, {"contiguous", same}, {"alias", same}, {"lift_fresh", same}, {"lift", same},
        {"_to_copy", same}, {"to", same}, {"type_as", same}, {"_conj", same}, {"resolve_conj", same}, {"resolve_neg", same}, {"real", same},
        {"detach", [](Call& c) -> std::optional<V> { return stop_grad(c.tensor("self")); }},
        {"expand", broadcasted}, {"expand_as", broadcasted}, {"broadcast_to", broadcasted},
        {"copy", [](Call& c) -> std::optional<V> { return c.operand("src", c.type().dtype, c.type().shape); }},
        {"permute", [](Call& c) -> std::optional<V> {
             V x = c.tensor("self");
             auto axes = c.node.ints("dims");
             for (int& a : axes) a += a < 0 ? x.type().rank() : 0;
             return permute(x, axes);
         }},
        {"t", swapped}, {"transpose", swapped}, {"numpy_T", swapped},
        {"slice", sliced},
        {"select", selected},
        {"narrow", [](Call& c) -> std::optional<V> {
             V x = c.tensor("self");
             int a = c.axis("dim", x.type().rank());
             auto at = static_cast<std::size_t>(a);
             if (c.maybe("start")) return {};
             Dim start = from_end(c.node.dim("start"), x.type().shape[at]);
             return slice(x, a, start, start + c.type().shape[at]);
         }},
        {"flip", [](Call& c) -> std::optional<V> {
             V x = c.tensor("self");
             for (int a : c.axes("dims", x.type().rank(), false)) x = flip(x, a);
             return x;
         }},
        {"cat", concatenated}, {"concat", concatenated}, {"concatenate", concatenated}, {"stack", stacked},
        {"constant_pad_nd", padded},
        {"repeat", repeated},
        {"zeros", filled(0)}, {"zeros_like", filled(0)}, {"new_zeros", filled(0)}, {"zero", filled(0)},
        {"ones", filled(1)}, {"ones_like", filled(1)}, {"new_ones", filled(1)},
        {"empty", filled(0)}, {"empty_like", filled(0)}, {"new_empty", filled(0)}, {"empty_strided", filled(0)}, {"new_empty_strided", filled(0)},
        {"full", filled_with}, {"full_like", filled_with}, {"new_full", filled_with}, {"fill", filled_with}, {"scalar_tensor", filled_with},
        {"arange", arange},
        {"linspace", linspace},
    };
    return rows;
}

}  // namespace heddle::aten
