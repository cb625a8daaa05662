// The words lowering rows are written in: arguments by name, promotion, broadcast, axes.
#include <fmt/format.h>

#include <algorithm>

#include "frontends/aten_rules.h"

namespace heddle::aten {

bool Call::given(std::string_view name) const {
    const Attr* a = n.find(name);
    return a && !std::holds_alternative<None>(*a) && !(std::holds_alternative<Ref>(*a) && std::get<Ref>(*a).operand < 0);
}
V Call::tensor(std::string_view name) const {
    if (!given(name)) return none();
    auto* r = std::get_if<Ref>(n.find(name));
    if (!r) return none();
    return in.at(static_cast<std::size_t>(r->operand));
}
std::vector<V> Call::tensors(std::string_view name) const {
    std::vector<V> out;
    if (!given(name)) return out;
    if (auto* refs = std::get_if<std::vector<Ref>>(n.find(name)))
        for (Ref r : *refs) out.push_back(r.operand < 0 ? none() : in.at(static_cast<std::size_t>(r.operand)));
    return out;
}
Dim Call::dim(std::string_view name, Dim otherwise) const { return given(name) ? n.dim(name) : otherwise; }
double Call::number(std::string_view name, double otherwise) const {
    if (!given(name)) return otherwise;
    if (auto* b = std::get_if<bool>(n.find(name))) return *b;
    return n.number(name);
}
bool Call::flag(std::string_view name, bool otherwise) const { return given(name) ? n.flag(name) : otherwise; }
std::string Call::text(std::string_view name, std::string otherwise) const { return given(name) ? n.text(name) : otherwise; }
std::vector<Dim> Call::dims(std::string_view name) const {
    if (!given(name)) return {};
    if (auto* d = std::get_if<Dim>(n.find(name))) return {*d};
    if (auto* v = std::get_if<std::vector<Dim>>(n.find(name))) return *v;
    throw Error(fmt::format("argument {} is no list of integers", name));
}
namespace {
int wrapped(std::int64_t a, int rank) {
    if (rank == 0) rank = 1;
    if (a < -rank || a >= rank) throw Error(fmt::format("dimension {} is outside rank {}", a, rank));
    return static_cast<int>(a < 0 ? a + rank : a);
}
}  // namespace
int Call::axis(std::string_view name, int rank, int otherwise) const { return wrapped(dim(name, otherwise).value(), rank); }
std::vector<int> Call::axes(std::string_view name, int rank) const {
    std::vector<int> out;
    for (const Dim& d : dims(name)) out.push_back(wrapped(d.value(), rank));
    if (out.empty()) out = axes_from_to(0, rank);
    if (rank == 0) out.clear();
    std::sort(out.begin(), out.end());
    return out;
}
V Call::scalar(std::string_view name, const Type& t, double otherwise) const {
    if (given(name))
        if (auto* d = std::get_if<Dim>(n.find(name))) return aten::number(g, t, *d);
    return lift(g, t, number(name, otherwise));
}
DType Call::scalar_dtype(std::string_view name) const {
    const Attr* a = n.find(name);
    return a && std::holds_alternative<bool>(*a) ? DType::b1 : a && std::holds_alternative<Dim>(*a) ? DType::i64 : DType::f64;
}
V Call::operand(std::string_view name, const Type& t) const {
    const Attr* a = n.find(name);
    return a && std::holds_alternative<Ref>(*a) ? as(tensor(name), t) : scalar(name, t);
}

void Call::check(V wrong) const {
    V any = sum(cast(wrong, DType::i32), axes_from_to(0, wrong.type().rank()));
    any = gt(any, zeros_like(any));
    if (std::none_of(outside.begin(), outside.end(), [&](V v) { return v.id == any.id; })) outside.push_back(any);
}
namespace {
// Below `size` and not negative whatever the values: positions along an axis that is no longer, or columns of a nonzero.
bool in_range(V i, const Dim& size) {
    for (V v = i; v; v = v.graph->value(v.node().in[0])) {
        const Node n = v.node();
        if (n.is(Op::call) && n.text("name") == "aten.nonzero.default") return true;
        if (n.is(Op::iota)) {
            const Dim& length = n.type.shape[static_cast<std::size_t>(n.integer("axis"))];
            return length == size || (length.is_const() && size.is_const() && length.value() <= size.value());
        }
        if (n.is(Op::constant)) return size.is_const() && n.number("value") >= 0 && n.number("value") < static_cast<double>(size.value());
        if (n.kind() != Kind::view && !n.is(Op::cast)) return false;
    }
    return false;
}
}  // namespace
V Call::place(V i, const Dim& size, bool from_end) const {
    if (in_range(i, size)) return i;
    V n = aten::number(g, i.type(), size), zero = zeros_like(i), low = lt(i, zero);
    check(or_(from_end ? lt(i, -n) : low, ge(i, n)));
    return max(min(from_end ? select(low, i + n, i) : i, n - 1), zero);
}

V to(V v, DType t) {
    if (t == DType::b1 && v.type().dtype != DType::b1) return ne(v, zeros_like(v));
    return cast(v, t);
}
V broadcast(V v, Shape s) {
    Type from = v.type();
    if (from.shape == s) return v;
    if (v.node().is(Op::constant)) return constant(*v.graph, {from.dtype, s}, v.node().number("value"));
    int lead = static_cast<int>(s.size()) - from.rank();
    if (lead < 0) throw Error(fmt::format("cannot expand {} to {}", print(from), print(s)));
    std::vector<int> inserted = axes_from_to(0, lead);
    Shape kept;
    for (int i = 0; i < from.rank(); ++i) {
        const Dim& d = from.shape[static_cast<std::size_t>(i)];
        const Dim& to = s[static_cast<std::size_t>(i + lead)];
        if (d == to) kept.push_back(d);
        else if (d == 1) inserted.push_back(i + lead);
        else throw Error(fmt::format("cannot expand {} to {}", print(from), print(s)));
    }
    return expand(reshape(v, kept), inserted, s);
}
V as(V v, Type t) { return broadcast(to(v, t.dtype), t.shape); }
V number(Graph& g, const Type& t, const Dim& d) {
    if (constexpr std::int64_t kExact = std::int64_t{1} << 53; t.dtype == DType::i64 && d.is_const() && (d.value() >= kExact || d.value() <= -kExact))
        return lift(g, t, static_cast<double>(d.value() >> 32)) * lift(g, t, 0x1p32) + lift(g, t, static_cast<double>(d.value() & 0xffffffff));
    if (d.is_const()) return lift(g, t, static_cast<double>(d.value()));
    if (is_float(t.dtype) && t.dtype < DType::f32) return cast(size(g, {DType::f32, t.shape}, d), t.dtype);
    return t.dtype == DType::b1 ? to(size(g, {DType::i64, t.shape}, d), DType::b1) : size(g, Type(t), d);
}
V lift(Graph& g, const Type& t, double v) { return constant(g, Type(t), t.dtype == DType::b1 ? v != 0 : is_int(t.dtype) ? static_cast<double>(static_cast<std::int64_t>(v)) : v); }
V iota(Graph& g, DType t, const Shape& s, int axis) { return heddle::iota(g, {t, s}, axis); }
V unsqueeze(V v, int axis) {
    Shape s = v.type().shape;
    HEDDLE_CHECK(axis >= 0 && axis <= v.type().rank(), "unsqueeze: no such axis");
    s.insert(s.begin() + axis, Dim(1));
    return reshape(v, s);
}
V squeeze(V v, int axis) {
    Shape s = v.type().shape;
    HEDDLE_CHECK(axis >= 0 && axis < v.type().rank(), "squeeze: no such axis");
    s.erase(s.begin() + axis);
    return reshape(v, s);
}
V move_axis(V v, int from, int to) {
    auto axes = axes_from_to(0, v.type().rank());
    HEDDLE_CHECK(from >= 0 && from < v.type().rank() && to >= 0 && to < v.type().rank(), "move_axis: no such axis");
    axes.erase(axes.begin() + from);
    axes.insert(axes.begin() + to, from);
    return permute(v, axes);
}
V count(V x, const std::vector<int>& axes) {
    Dim n = 1;
    for (int a : axes) n = n * x.type().shape[static_cast<std::size_t>(a)];
    return number(*x.graph, {x.type().dtype, {}}, n);
}
V keep(V folded, const std::vector<int>& axes, Shape before) {
    for (int a : axes) before[static_cast<std::size_t>(a)] = 1;
    return reshape(folded, before);
}
V back(V folded, const std::vector<int>& axes, Shape before) { return expand(folded, axes, before); }
V sloped(V value, V x, V slope) { return surrogate(value, x * stop_grad(slope)); }
V root(V x) {
    V zero = eq(x, zeros_like(x));
    return select(zero, zeros_like(x), sqrt(select(zero, like(x, 1), x)));
}
V take(V x, int axis, V index) {
    int rank = index.type().rank();
    V rows = gather(move_axis(x, axis, 0), {index});
    if (axis == 0) return rows;
    // [S, rest] -> rest before axis, S, rest after
    std::vector<int> order;
    for (int i = 0; i < axis; ++i) order.push_back(rank + i);
    for (int i = 0; i < rank; ++i) order.push_back(i);
    for (int i = rank + axis; i < rows.type().rank(); ++i) order.push_back(i);
    return permute(rows, order);
}
// As PyTorch's clamp, but for a NaN as bound: a NaN stays, and the gradient at the bound is x's.
V clamp_min(V x, V lo) { return select(lt(x, lo), lo, x); }
V clamp_max(V x, V hi) { return select(gt(x, hi), hi, x); }
DType promoted(const Type& a, const Type& b) {
    auto category = [](DType t) { return t == DType::b1 ? 0 : is_int(t) ? 1 : 2; };
    int ca = category(a.dtype), cb = category(b.dtype);
    if (ca != cb) return ca > cb ? a.dtype : b.dtype;
    if ((a.rank() == 0) != (b.rank() == 0)) return a.rank() == 0 ? b.dtype : a.dtype;
    if (a.dtype == b.dtype) return a.dtype;
    if (ca == 2 && a.dtype < DType::f32 && b.dtype < DType::f32) return DType::f32;
    return std::max(a.dtype, b.dtype);
}
Shape broadcast_shape(const Shape& a, const Shape& b) {
    const Shape &l = a.size() >= b.size() ? a : b, &s = a.size() >= b.size() ? b : a;
    Shape out = l;
    for (std::size_t i = 0; i < s.size(); ++i) {
        Dim& d = out[l.size() - s.size() + i];
        if (d == 1) d = s[i];
    }
    return out;
}

}  // namespace heddle::aten
