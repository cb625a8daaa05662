// Building graphs: typing, sharing of equal nodes, and the builders that have attributes.
#include "ir/graph.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

namespace heddle {

namespace {
template <class... F>
struct Overload : F... {
    using F::operator()...;
};
template <class... F>
Overload(F...) -> Overload<F...>;

std::string quote(const std::string& s) {
    std::string out = "\"";
    for (char c : s) {
        if (c == '"' || c == '\\') out += '\\';
        if (c == '\n') out += "\\n";
        else out += c;
    }
    return out + "\"";
}
template <class T, class F>
std::string list(const std::vector<T>& v, F f) {
    std::string s;
    for (const auto& x : v) s += (s.empty() ? "" : ", ") + f(x);
    return "[" + s + "]";
}
std::string ref(const Ref& r) { return r.operand < 0 ? "none" : "$" + std::to_string(r.operand); }
// A double in text always shows as one (1.0, not 1), so that it parses back as one.
std::string real(double v) {
    std::string s = print_number(v);
    return s.find_first_of(".en") == std::string::npos ? s + ".0" : s;
}
// As text reads back: -0.0 is another number than 0.0, and NaN is the same as itself.
bool same(double a, double b) { return std::isnan(a) ? std::isnan(b) : a == b && std::signbit(a) == std::signbit(b); }
bool same(const Attr& a, const Attr& b) {
    if (auto* x = std::get_if<double>(&a))
        if (auto* y = std::get_if<double>(&b)) return same(*x, *y);
    if (auto* x = std::get_if<std::vector<double>>(&a))
        if (auto* y = std::get_if<std::vector<double>>(&b)) return std::equal(x->begin(), x->end(), y->begin(), y->end(), [](double p, double q) { return same(p, q); });
    return a == b;
}
bool same(const Attrs& a, const Attrs& b) {
    return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const auto& x, const auto& y) { return x.first == y.first && same(x.second, y.second); });
}
std::optional<int> as_int(const Dim& d) {
    if (!d.is_const() || d.value() > std::numeric_limits<int>::max() || d.value() < std::numeric_limits<int>::min()) return {};
    return static_cast<int>(d.value());
}
void check_sizes(const OpDef& op, const Type& t) {
    for (const Dim& d : t.shape)
        if (d.is_const() && d.value() < 0) throw Error(fmt::format("{}: size {} of {} is negative", op.name, print(d), print(t)));
}

const Attr& need(const Node& n, std::string_view name) {
    const Attr* a = n.find(name);
    if (!a) throw Error(fmt::format("{}: attribute {} is missing", n.def().name, name));
    return *a;
}
[[noreturn]] void wrong(const Node& n, std::string_view name, std::string_view expected) {
    throw Error(fmt::format("{}: attribute {} is {}, expected {}", n.def().name, name, print(*n.find(name)), expected));
}
}  // namespace

std::string print(const Attr& a) {
    return std::visit(Overload{
                          [](None) { return std::string("none"); },
                          [](bool b) { return std::string(b ? "true" : "false"); },
                          [](const Dim& d) { return print(d); },
                          [](double v) { return real(v); },
                          [](const std::string& s) { return quote(s); },
                          [](const Ref& r) { return ref(r); },
                          [](const std::vector<Dim>& v) { return print(v); },
                          [](const std::vector<double>& v) { return list(v, real); },
                          [](const std::vector<Ref>& v) { return list(v, ref); },
                      },
                      a);
}

const Attr* Node::find(std::string_view name) const {
    for (const auto& [k, v] : attrs)
        if (k == name) return &v;
    return nullptr;
}
const Dim& Node::dim(std::string_view name) const {
    if (auto* d = std::get_if<Dim>(&need(*this, name))) return *d;
    wrong(*this, name, "a size");
}
int Node::integer(std::string_view name) const {
    auto* d = std::get_if<Dim>(&need(*this, name));
    const auto i = d ? as_int(*d) : std::nullopt;
    if (!i) wrong(*this, name, "an integer");
    return *i;
}
double Node::number(std::string_view name) const {
    const Attr& a = need(*this, name);
    if (auto* v = std::get_if<double>(&a)) return *v;
    if (auto* d = std::get_if<Dim>(&a); d && d->is_const()) return static_cast<double>(d->value());
    if (auto* b = std::get_if<bool>(&a)) return *b;
    wrong(*this, name, "a number");
}
bool Node::flag(std::string_view name) const {
    const Attr* a = find(name);
    if (!a) return false;
    if (auto* b = std::get_if<bool>(a)) return *b;
    wrong(*this, name, "true or false");
}
const std::string& Node::text(std::string_view name) const {
    if (auto* s = std::get_if<std::string>(&need(*this, name))) return *s;
    wrong(*this, name, "a string");
}
std::vector<int> Node::ints(std::string_view name) const {
    const Attr& a = need(*this, name);
    std::vector<int> out;
    if (auto* v = std::get_if<std::vector<Dim>>(&a)) {
        for (const Dim& d : *v) {
            const auto i = as_int(d);
            if (!i) wrong(*this, name, "integers");
            out.push_back(*i);
        }
        return out;
    }
    wrong(*this, name, "a list of integers");
}

const Type& V::type() const { return graph->type(id); }
const Node& V::node() const { return (*graph)[id]; }

namespace {
bool shareable(const Node& n) { return !n.is(Op::input) && !n.flag("random") && !n.is(Op::realize); }
bool same_but_place(const Node& a, const Node& b) {
    return a.op == b.op && a.in == b.in && a.type == b.type && a.more == b.more && same(a.attrs, b.attrs);
}
std::size_t hash(const Node& n) {
    std::string key = std::to_string(static_cast<int>(n.op)) + print(n.type);
    for (Id i : n.in) key += "," + std::to_string(i);
    for (const auto& [k, v] : n.attrs) key += k + print(v);
    return std::hash<std::string>{}(key);
}
}  // namespace

Id Graph::add(Node n) {
    const OpDef& d = n.def();
    if (d.arity >= 0 && static_cast<int>(n.in.size()) != d.arity)
        throw Error(fmt::format("{}: got {} operands, expected {}", d.name, n.in.size(), d.arity));
    for (Id i : n.in)
        if (i < 0 || i >= size()) throw Error(fmt::format("{}: operand %{} is not defined", d.name, i));
    if (n.loc.empty()) n.loc = here;
    if (d.type) n.type = d.type(*this, n);
    check_sizes(d, n.type);
    for (const Type& t : n.more) check_sizes(d, t);
    bool share = shareable(n);
    std::size_t h = share ? hash(n) : 0;
    if (share) {
        auto [lo, hi] = shared_.equal_range(h);
        for (auto it = lo; it != hi; ++it)
            if (same_but_place((*this)[it->second], n)) return it->second;
    }
    nodes.push_back(std::move(n));
    if (share) shared_.emplace(h, size() - 1);
    return size() - 1;
}
Id Graph::input(Type t, std::string input_name) {
    Node n{.op = Op::input, .in = {}, .attrs = {{"name", std::move(input_name)}}, .type = std::move(t), .more = {}, .loc = {}};
    inputs.push_back(add(std::move(n)));
    return inputs.back();
}
std::vector<std::vector<Id>> Graph::users() const {
    std::vector<std::vector<Id>> u(nodes.size());
    for (Id id = 0; id < size(); ++id)
        for (Id i : (*this)[id].in)
            if (auto& v = u[static_cast<std::size_t>(i)]; v.empty() || v.back() != id) v.push_back(id);
    return u;
}
std::vector<std::string> Graph::symbols() const {
    std::vector<std::string> out;
    for (const Node& n : nodes) {
        for (const Dim& d : n.type.shape) d.names(out);
        for (const Type& t : n.more)
            for (const Dim& d : t.shape) d.names(out);
        for (const auto& [k, v] : n.attrs)
            if (auto* d = std::get_if<Dim>(&v)) d->names(out);
    }
    return out;
}
bool Graph::operator==(const Graph& o) const {
    return name == o.name && inputs == o.inputs && outputs == o.outputs &&
           std::equal(nodes.begin(), nodes.end(), o.nodes.begin(), o.nodes.end(), same_but_place);
}

Graph live(const Graph& g) {
    std::vector<char> needed(g.nodes.size());
    for (Id i : g.inputs) needed[static_cast<std::size_t>(i)] = 1;
    for (Id i : g.outputs) needed[static_cast<std::size_t>(i)] = 1;
    for (Id i = g.size() - 1; i >= 0; --i)
        if (needed[static_cast<std::size_t>(i)])
            for (Id j : g[i].in) needed[static_cast<std::size_t>(j)] = 1;
    Graph out;
    out.name = g.name;
    std::vector<Id> at(g.nodes.size(), -1);
    for (Id i = 0; i < g.size(); ++i) {
        if (!needed[static_cast<std::size_t>(i)]) continue;
        Node n = g[i];
        for (Id& j : n.in) j = at[static_cast<std::size_t>(j)];
        at[static_cast<std::size_t>(i)] = out.add(std::move(n));
    }
    for (Id i : g.inputs) out.inputs.push_back(at[static_cast<std::size_t>(i)]);
    for (Id i : g.outputs) out.outputs.push_back(at[static_cast<std::size_t>(i)]);
    return out;
}

// ---- builders
V apply(Op op, std::vector<V> in, Attrs attrs, Type as) {
    Graph& g = *in.at(0).graph;
    Node n{.op = op, .in = {}, .attrs = std::move(attrs), .type = std::move(as), .more = {}, .loc = {}};
    for (V v : in) n.in.push_back(v.id);
    return {&g, g.add(std::move(n))};
}
namespace {
V leaf(Graph& g, Op op, Attrs attrs, Type t) {
    return {&g, g.add({.op = op, .in = {}, .attrs = std::move(attrs), .type = std::move(t), .more = {}, .loc = {}})};
}
std::vector<Dim> dims(const std::vector<int>& v) { return {v.begin(), v.end()}; }
}  // namespace
V constant(Graph& g, Type t, double v) { return leaf(g, Op::constant, {{"value", v}}, std::move(t)); }
V size(Graph& g, Type t, Dim d) {
    if (d.is_const()) return constant(g, std::move(t), static_cast<double>(d.value()));
    return leaf(g, Op::size, {{"dim", std::move(d)}}, std::move(t));
}
V iota(Graph& g, Type t, int axis) { return leaf(g, Op::iota, {{"axis", Dim(axis)}}, std::move(t)); }
V zeros_like(V x) { return like(x, 0); }
V like(V x, double v) { return constant(*x.graph, Type(x.type()), v); }
V cast(V x, DType t) { return x.type().dtype == t ? x : apply(Op::cast, {x}, {}, {t, x.type().shape}); }
V expand(V x, std::vector<int> axes, const Shape& s) {
    return axes.empty() ? x : apply(Op::expand, {x}, {{"axes", dims(axes)}}, {x.type().dtype, s});
}
V permute(V x, std::vector<int> axes) {
    return axes == axes_from_to(0, x.type().rank()) ? x : apply(Op::permute, {x}, {{"axes", dims(axes)}});
}
V reshape(V x, const Shape& s) { return s == x.type().shape ? x : apply(Op::reshape, {x}, {}, {x.type().dtype, s}); }
V slice(V x, int axis, Dim start, Dim end) {
    if (start == 0 && end == x.type().shape.at(static_cast<std::size_t>(axis))) return x;
    return apply(Op::slice, {x}, {{"axis", Dim(axis)}, {"start", start}, {"end", end}});
}
V pad(V x, int axis, Dim lo, Dim hi) {
    return lo == 0 && hi == 0 ? x : apply(Op::pad, {x}, {{"axis", Dim(axis)}, {"lo", lo}, {"hi", hi}});
}
V flip(V x, int axis) { return apply(Op::flip, {x}, {{"axis", Dim(axis)}}); }
V concat(std::vector<V> v, int axis) { return v.size() == 1 ? v[0] : apply(Op::concat, v, {{"axis", Dim(axis)}}); }
V realize(V x) { return apply(Op::realize, {x}); }
V stop_grad(V x) { return apply(Op::stop_grad, {x}); }
namespace {
V fold(Op op, V x, std::vector<int> axes) {
    std::sort(axes.begin(), axes.end());
    return axes.empty() ? x : apply(op, {x}, {{"axes", dims(axes)}});
}
}  // namespace
V sum(V x, std::vector<int> axes) { return fold(Op::sum, x, std::move(axes)); }
V prod(V x, std::vector<int> axes) { return fold(Op::prod, x, std::move(axes)); }
V amax(V x, std::vector<int> axes) { return fold(Op::amax, x, std::move(axes)); }
V amin(V x, std::vector<int> axes) { return fold(Op::amin, x, std::move(axes)); }
V scan(V a, V b, int axis, int mode, bool reverse, double init) {
    return apply(Op::scan, {a, b}, {{"axis", Dim(axis)}, {"mode", Dim(mode)}, {"reverse", reverse}, {"init", init}});
}
V gather(V x, std::vector<V> index) {
    index.insert(index.begin(), x);
    return apply(Op::gather, std::move(index));
}
V scatter_add(Type t, std::vector<V> index, V v) {
    Dim k = static_cast<std::int64_t>(index.size());
    index.push_back(v);
    return apply(Op::scatter_add, std::move(index), {{"k", k}}, std::move(t));
}
V scatter(V base, std::vector<V> index, V v) {
    index.insert(index.begin(), base);
    index.push_back(v);
    return apply(Op::scatter, std::move(index));
}
Dim blocks_of(const Dim& n, int width) {
    if (n.is_const()) return (n.value() + width - 1) / width;
    std::string s = "q" + std::to_string(width) + "_";
    for (char c : print(n))
        if (c != ' ') s += c == '*' ? 'x' : c == '+' ? 'p' : c == '-' ? 'm' : c;
    return Dim::symbol(s);
}
V blocks(V x, int width) {
    const Dim n = x.type().shape.at(0);
    return apply(Op::blocks, {x}, {}, {x.type().dtype, {blocks_of(n, width), width}});
}
V compact(V mask, V starts, V count, Type as) { return apply(Op::compact, {mask, starts, count}, {}, std::move(as)); }
V dot(V a, V b) { return apply(Op::dot, {a, b}); }
V transpose(V x) {
    auto axes = axes_from_to(0, x.type().rank());
    std::swap(axes[axes.size() - 1], axes[axes.size() - 2]);
    return permute(x, axes);
}
std::vector<int> inverse(const std::vector<int>& p) {
    std::vector<int> q(p.size());
    for (std::size_t i = 0; i < p.size(); ++i) q[static_cast<std::size_t>(p[i])] = static_cast<int>(i);
    return q;
}
std::vector<int> axes_from_to(int from, int to) {
    std::vector<int> v;
    for (int i = from; i < to; ++i) v.push_back(i);
    return v;
}

}  // namespace heddle
