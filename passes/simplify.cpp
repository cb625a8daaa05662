// One walk over the nodes: rebuild each from its simplified operands, then try the rules and the view laws on it.
#include "passes/simplify.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "ir/mutant.h"

namespace heddle {

namespace {
enum { exact, ints };
constexpr Rule kRules[] = {
#define RULE(name, from, to, when) {#name, from, to, when == ints},
#include "passes/rules.def"
#undef RULE
};

// ---- patterns: op(args), a one-letter variable, or a number
struct Pattern {
    char variable = 0;
    double number = 0;
    Op op = Op::constant;
    std::vector<Pattern> args;
};
Pattern parse_pattern(std::string_view& s) {
    auto skip = [&] { while (!s.empty() && (s[0] == ' ' || s[0] == ',')) s.remove_prefix(1); };
    skip();
    Pattern p;
    if (std::isdigit(static_cast<unsigned char>(s[0])) || s[0] == '-') {
        auto [end, ec] = std::from_chars(s.data(), s.data() + s.size(), p.number);
        HEDDLE_CHECK(ec == std::errc{}, "rule: number");
        s.remove_prefix(static_cast<std::size_t>(end - s.data()));
        return p;
    }
    std::size_t n = 0;
    while (n < s.size() && (std::isalnum(static_cast<unsigned char>(s[n])) || s[n] == '_')) ++n;
    std::string_view word = s.substr(0, n);
    s.remove_prefix(n);
    if (n == 1 && (s.empty() || s[0] != '(')) {
        p.variable = word[0];
        return p;
    }
    const OpDef* d = op_named(word);
    HEDDLE_CHECK(d && !s.empty() && s[0] == '(', "rule: no op " + std::string(word));
    p.op = static_cast<Op>(d - &def(Op{}));
    s.remove_prefix(1);
    while (skip(), s[0] != ')') p.args.push_back(parse_pattern(s));
    s.remove_prefix(1);
    return p;
}
struct Parsed {
    Rule rule;
    Pattern from, to;
};
const std::vector<Parsed>& parsed_rules() {
    static const std::vector<Parsed> all = [] {
        std::vector<Parsed> v;
        for (const Rule& r : kRules) {
            const std::string text = mutant::read("rule", r.name, std::string(r.from) + " -> " + std::string(r.to)), ints = mutant::read("ints", r.name, r.ints_only ? "1" : "0");
            std::string_view from = text, to = text;
            from = from.substr(0, from.find(" -> ")), to.remove_prefix(from.size() + 4);
            v.push_back({{r.name, r.from, r.to, ints == "1"}, parse_pattern(from), parse_pattern(to)});
        }
        return v;
    }();
    return all;
}
using Bound = std::map<char, Id>;
bool matches(const Graph& g, Id id, const Pattern& p, Bound& b) {
    const Node& n = g[id];
    if (p.variable) return b.emplace(p.variable, id).first->second == id;
    if (p.op == Op::constant) return n.is(Op::constant) && n.number("value") == p.number;
    if (n.op != p.op || n.in.size() != p.args.size()) return false;
    auto in_order = [&](std::vector<Id> in) {
        Bound trial = b;
        for (std::size_t k = 0; k < in.size(); ++k)
            if (!matches(g, in[k], p.args[k], trial)) return false;
        b = trial;
        return true;
    };
    return in_order(n.in) || (n.def().commutes && in_order({n.in[1], n.in[0]}));
}
V build(Graph& g, const Pattern& p, const Bound& b, const Type& t) {
    if (p.variable) return g.value(b.at(p.variable));
    if (p.op == Op::constant) return constant(g, t, p.number);
    std::vector<V> in;
    for (const Pattern& a : p.args) in.push_back(build(g, a, b, t));
    return apply(p.op, in);
}
V by_rule(V v, const Parsed& r) {
    if (r.rule.ints_only && !is_int(v.type().dtype)) return v;
    Bound b;
    if (!matches(*v.graph, v.id, r.from, b)) return v;
    Type t = v.type();
    return build(*v.graph, r.to, b, t);
}

// ---- laws of views and constants
V operand(V v, std::size_t k = 0) { return v.graph->value(v.node().in[k]); }

// Views that take an axis of their operand for the same axis of theirs.
bool along_an_axis(const Node& n) { return n.is(Op::slice) || n.is(Op::pad) || n.is(Op::flip); }
// Would a permutation of x end in one that x is made of, or vanish in constants? Then it is worth moving inwards.
bool absorbs(V x, int depth = 0) {
    const Node& n = x.node();
    if (n.is(Op::permute)) return true;
    if (n.is(Op::constant)) return depth > 0;
    if (n.is(Op::expand) && operand(x).type().rank() == 0) return depth > 0;
    if ((n.kind() != Kind::map && n.kind() != Kind::concat && !along_an_axis(n)) || depth > 12) return false;
    for (std::size_t k = 0; k < n.in.size(); ++k)
        if (!absorbs(operand(x, k), depth + 1)) return false;
    return true;
}
V permuted(V x, const std::vector<int>& axes) {
    const Node n = x.node();
    Shape s;
    for (int a : axes) s.push_back(n.type.shape[static_cast<std::size_t>(a)]);
    if (n.is(Op::constant)) return constant(*x.graph, {n.type.dtype, s}, n.number("value"));
    if (n.is(Op::expand)) return expand(operand(x), axes_from_to(0, static_cast<int>(s.size())), s);
    if (n.is(Op::permute)) {
        auto all = axes, inner = n.ints("axes");
        for (int& a : all) a = inner[static_cast<std::size_t>(a)];
        return permute(operand(x), all);
    }
    std::vector<V> in;
    for (std::size_t k = 0; k < n.in.size(); ++k) in.push_back(permuted(operand(x, k), axes));
    auto moved = [&] { return static_cast<int>(std::find(axes.begin(), axes.end(), n.integer("axis")) - axes.begin()); };
    if (n.is(Op::concat)) return concat(in, moved());
    Attrs attrs = n.attrs;
    for (auto& [name, value] : attrs)
        if (along_an_axis(n) && name == "axis") value = Dim(moved());
    return apply(n.op, in, std::move(attrs), {n.type.dtype, s});
}
// The first permutation that x is made of, or nothing.
std::vector<int> inner_order(V x) {
    const Node& n = x.node();
    if (n.is(Op::permute)) return n.ints("axes");
    if (n.kind() != Kind::map && n.kind() != Kind::concat && !along_an_axis(n)) return {};
    for (std::size_t k = 0; k < n.in.size(); ++k)
        if (auto order = inner_order(operand(x, k)); !order.empty()) return order;
    return {};
}
// reshape(concat(a, b)) is concat(reshape(a), reshape(b)) where an axis of the result still runs over the parts: a stack that was written as
// a concat of rows is a stack again, and an index along it says which part is meant.
V reshaped_parts(V v) {
    const Node n = v.node(), m = v.graph->value(n.in[0]).node();
    Graph& g = *v.graph;
    auto a = static_cast<std::size_t>(m.integer("axis"));
    const Shape &from = m.type.shape, &to = n.type.shape;
    auto count = [](const Shape& s, std::size_t begin, std::size_t end) {
        Dim c = 1;
        for (std::size_t k = begin; k < end; ++k) c = c * s[k];
        return c;
    };
    const Dim before = count(from, 0, a), row = count(from, a + 1, from.size());
    if (numel(from) == 0) return v;
    for (std::size_t j = 0; j < to.size(); ++j) {
        if (to[j] == 1 || !(count(to, 0, j) == before)) continue;
        const Dim to_row = count(to, j + 1, to.size());
        std::vector<V> parts;
        for (Id i : m.in) {
            auto along = (g.type(i).shape[a] * row).divided_by(to_row);
            if (!along) break;
            Shape s = to;
            s[j] = *along;
            parts.push_back(reshape(g.value(i), s));
        }
        if (parts.size() == m.in.size()) return concat(parts, static_cast<int>(j));
    }
    return v;
}
// map(concat(a, b), concat(c, d)) is concat(map(a, c), map(b, d)): the parts are then written apart, with no test of which part an
// element is in. All operands are cut alike or constant.
V parted(V v) {
    const Node n = v.node();
    const Node* cut = nullptr;
    Graph& g = *v.graph;
    for (Id i : n.in)
        if (g[i].is(Op::concat) && !cut) cut = &g[i];
    if (!cut) return v;
    const int axis = cut->integer("axis");
    const Node pattern = *cut;
    for (Id i : n.in) {
        if (g[i].is(Op::constant)) continue;
        if (!g[i].is(Op::concat) || g[i].integer("axis") != axis || g[i].in.size() != pattern.in.size()) return v;
        for (std::size_t k = 0; k < pattern.in.size(); ++k)
            if (g.type(g[i].in[k]).shape != g.type(pattern.in[k]).shape) return v;
    }
    std::vector<V> parts;
    for (std::size_t k = 0; k < pattern.in.size(); ++k) {
        const Shape s = g.type(pattern.in[k]).shape;
        std::vector<V> in;
        for (Id i : n.in) {
            const Node x = g[i];
            in.push_back(x.is(Op::constant) ? constant(g, {x.type.dtype, s}, x.number("value")) : g.value(x.in[k]));
        }
        parts.push_back(apply(n.op, in, Attrs(n.attrs), {n.type.dtype, s}));
    }
    return concat(parts, axis);
}

V by_view(V v) {
    const Node n = v.node();
    if (n.in.empty()) return v;
    V x = operand(v);
    const Node m = x.node();
    auto whole = m.type.shape;
    if ((n.kind() == Kind::view && !n.is(Op::realize) && !n.is(Op::pad) && !n.is(Op::blocks)) || n.is(Op::cast))
        if (m.is(Op::constant)) {
            double c = m.number("value");
            if (is_int(n.type.dtype)) c = std::trunc(c);
            if (n.type.dtype == DType::b1) c = c != 0;
            if (n.type.dtype == DType::f32) c = static_cast<double>(static_cast<float>(c));
            return constant(*v.graph, n.type, c);
        }
    switch (n.op) {  // lists ops: laws of structure, whose guards compare axes and sizes; laws of arithmetic are in the rules
        case Op::cast:
            if (n.type.dtype == m.type.dtype) return x;
            // Back and forth through a wider type changes nothing.
            if (m.is(Op::cast) && operand(x).type().dtype == n.type.dtype && is_float(n.type.dtype) && m.type.dtype == DType::f64) return operand(x);
            break;
        case Op::expand:
            if (m.is(Op::expand)) {  // axes of the inner one, moved to where they are now
                auto outer = n.ints("axes"), inner = m.ints("axes"), all = outer;
                int k = 0;
                for (int a = 0; a < n.type.rank(); ++a) {
                    if (std::binary_search(outer.begin(), outer.end(), a)) continue;
                    if (std::binary_search(inner.begin(), inner.end(), k)) all.push_back(a);
                    ++k;
                }
                std::sort(all.begin(), all.end());
                return expand(operand(x), all, n.type.shape);
            }
            break;
        case Op::permute:
            if (m.is(Op::permute)) {
                auto outer = n.ints("axes"), inner = m.ints("axes");
                for (int& a : outer) a = inner[static_cast<std::size_t>(a)];
                return permute(operand(x), outer);
            }
            if (n.ints("axes") == axes_from_to(0, n.type.rank())) return x;
            if (!m.is(Op::constant) && absorbs(x)) return permuted(x, n.ints("axes"));
            if (m.is(Op::dot) && m.in.size() == 2 && n.ints("axes") == transpose(x).node().ints("axes")) {  // a library reads its operands either way, if they are in memory
                V a = operand(x, 0), b = operand(x, 1);
                if (!a.node().is(Op::reshape) && !b.node().is(Op::reshape)) return dot(transpose(b), transpose(a));
            }
            break;
        case Op::reshape:
            if (n.type.shape == whole) return x;
            if (m.is(Op::reshape)) return reshape(operand(x), n.type.shape);
            if (m.is(Op::concat))
                if (V w = reshaped_parts(v); w.id != v.id) return w;
            if (m.is(Op::permute)) {  // without its axes of size 1, a permutation stands outside
                auto dropped = [](const Shape& s) {
                    Shape t;
                    for (const Dim& d : s)
                        if (!(d == 1)) t.push_back(d);
                    return t;
                };
                if (dropped(whole) != n.type.shape || n.type.shape.size() == whole.size()) break;
                V inner = operand(x);
                const Shape before = inner.type().shape;
                std::vector<int> rank(before.size()), axes;  // place of each axis that stays, among those that stay
                int k = 0;
                for (std::size_t a = 0; a < before.size(); ++a) rank[a] = before[a] == 1 ? -1 : k++;
                for (int a : m.ints("axes"))
                    if (rank[static_cast<std::size_t>(a)] >= 0) axes.push_back(rank[static_cast<std::size_t>(a)]);
                return permute(reshape(inner, dropped(before)), axes);
            }
            break;
        case Op::slice: {
            int a = n.integer("axis");
            auto at = static_cast<std::size_t>(a);
            if (n.dim("start") == 0 && n.dim("end") == whole[at]) return x;
            if (m.is(Op::slice) && m.integer("axis") == a) return slice(operand(x), a, m.dim("start") + n.dim("start"), m.dim("start") + n.dim("end"));
            if (m.is(Op::concat) && m.integer("axis") == a) {
                Dim begin;
                for (Id i : m.in) {
                    Dim end = begin + v.graph->type(i).shape[at];
                    Dim lo = n.dim("start") - begin, hi = end - n.dim("end");
                    if (lo.is_const() && hi.is_const() && lo.value() >= 0 && hi.value() >= 0)
                        return slice(v.graph->value(i), a, lo, n.dim("end") - begin);
                    begin = end;
                }
            }
            // Transmittance: cumprod(concat(c, y)) without its last element is the exclusive product that starts at c.
            if (m.is(Op::scan) && m.integer("axis") == a && m.integer("mode") == 0 && !m.flag("reverse") && n.dim("start") == 0 && n.dim("end") == whole[at] - 1) {
                V factor = operand(x, 0), term = operand(x, 1);
                const Node f = factor.node(), t = term.node();
                if (f.is(Op::concat) && f.integer("axis") == a && f.in.size() == 2 && t.is(Op::constant) && t.number("value") == 0) {
                    V first = operand(factor, 0), rest = operand(factor, 1);
                    if (first.node().is(Op::constant) && first.type().shape[at] == 1)
                        return scan(rest, zeros_like(rest), a, 1, false, m.number("init") * first.node().number("value"));
                }
            }
            if (m.is(Op::pad) && m.integer("axis") == a) {
                Dim lo = n.dim("start") - m.dim("lo"), hi = operand(x).type().shape[at] - (n.dim("end") - m.dim("lo"));
                if (lo.is_const() && hi.is_const() && lo.value() >= 0 && hi.value() >= 0) return slice(operand(x), a, lo, n.dim("end") - m.dim("lo"));
            }
            break;
        }
        case Op::pad:
            if (n.dim("lo") == 0 && n.dim("hi") == 0) return x;
            if (m.is(Op::constant) && m.number("value") == 0) return constant(*v.graph, n.type, 0);
            break;
        case Op::flip:
            if (m.is(Op::flip) && m.integer("axis") == n.integer("axis")) return operand(x);
            break;
        case Op::select:
            if (m.is(Op::constant)) return operand(v, m.number("value") != 0 ? 1 : 2);
            break;
        case Op::sum: {
            // A sum over everything runs in the order in which its operands lie.
            if (n.type.rank() == 0 && absorbs(x) && !m.is(Op::constant))
                if (auto order = inner_order(x); !order.empty() && order != axes_from_to(0, m.type.rank())) return sum(permuted(x, inverse(order)), axes_from_to(0, m.type.rank()));
            if (m.is(Op::constant) && m.number("value") == 0) return constant(*v.graph, n.type, 0);
            if (m.is(Op::expand) && m.ints("axes") == n.ints("axes")) {  // n equal terms
                Dim count = 1;
                for (int a : n.ints("axes")) count = count * whole[static_cast<std::size_t>(a)];
                V terms = size(*v.graph, Type(n.type), count), all = mul(operand(x), terms);
                return count.is_const() ? all : select(eq(terms, zeros_like(terms)), zeros_like(all), all);  // none of an infinite one
            }
            break;
        }
        case Op::scatter: {  // into zeros: every row is hit at most once
            if (m.is(Op::constant) && m.number("value") == 0) {
                std::vector<V> rest;
                for (std::size_t k = 1; k < n.in.size(); ++k) rest.push_back(operand(v, k));
                return apply(Op::scatter_add, rest, {{"k", Dim(static_cast<int>(n.in.size()) - 2)}, {"unique", true}}, Type(n.type));
            }
            break;
        }
        default: break;
    }
    if (n.kind() == Kind::map)
        if (V w = parted(v); w.id != v.id) return w;
    if (n.kind() == Kind::map && n.def().scalar.eval && !n.is(Op::cast)) {
        double c[3] = {0, 0, 0};
        for (std::size_t k = 0; k < n.in.size(); ++k) {
            if (!operand(v, k).node().is(Op::constant)) return v;
            c[k] = operand(v, k).node().number("value");
        }
        double r = n.def().scalar.eval(c[0], c[1], c[2]);
        if (n.type.dtype == DType::f32) r = static_cast<double>(static_cast<float>(r));
        if (is_int(n.type.dtype) && !(std::fabs(r) < (n.type.dtype == DType::i32 ? 0x1p31 : 0x1p53))) return v;  // wraps, or isn't exact here
        return constant(*v.graph, n.type, is_int(n.type.dtype) ? std::trunc(r) : r);
    }
    return v;
}

template <class F>
Graph rebuilt(const Graph& g, F improve) {
    Graph out;
    out.name = g.name;
    std::vector<Id> at(g.nodes.size(), -1);
    for (Id i : g.inputs) at[static_cast<std::size_t>(i)] = out.input(g.type(i), g[i].text("name"));
    for (Id id = 0; id < g.size(); ++id) {
        if (g[id].is(Op::input)) continue;
        Node n = g[id];
        for (Id& i : n.in) i = at[static_cast<std::size_t>(i)];
        out.here = n.loc;
        V v = out.value(out.add(std::move(n)));
        for (int k = 0; k < 16; ++k) {
            V better = improve(v);
            if (better.id == v.id) break;
            v = better;
        }
        at[static_cast<std::size_t>(id)] = v.id;
    }
    out.here.clear();
    for (Id i : g.outputs) out.outputs.push_back(at[static_cast<std::size_t>(i)]);
    return live(out);
}
}  // namespace

std::span<const Rule> rules() { return kRules; }

Graph simplify(const Graph& g) {
    Graph now = g;
    for (int round = 0; round < 8; ++round) {
        Graph next = rebuilt(now, [](V v) {
            V w = by_view(v);
            if (w.id != v.id) return w;
            for (const Parsed& r : parsed_rules())
                if (V u = by_rule(v, r); u.id != v.id) return u;
            return v;
        });
        if (next == now) return next;
        now = std::move(next);
    }
    return now;
}

Graph apply_rule(const Graph& g, const Rule& rule, int* fired) {
    for (const Parsed& r : parsed_rules())
        if (r.rule.name == rule.name)
            return rebuilt(g, [&](V v) {
                V u = by_rule(v, r);
                if (fired && u.id != v.id) ++*fired;
                return u;
            });
    throw Error("no rule " + std::string(rule.name));
}

}  // namespace heddle
