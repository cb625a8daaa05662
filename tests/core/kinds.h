// One op of every kind that fuses, as a function of one value; and pairs of them, planned with their derivative.
// Law: an op that is no map and no fold has a part here.
#pragma once
#include <fmt/format.h>

#include <functional>

#include "passes/grad.h"
#include "passes/simplify.h"
#include "tests/cuda_on_cpu/oracles.h"

namespace heddle::kinds {

struct Part {
    const char* name;
    Op op;
    V (*of)(V);  // x: f64, of one axis or more; what it adds of its own has the sizes of x
};
inline const Dim& first(V x) { return x.type().shape[0]; }
inline int last(V x) { return static_cast<int>(x.type().shape.size()) - 1; }
inline V rows(V x, int by) {  // an index for each row, in 0..size; each of them once where by is odd and the size no multiple
    const Type t{DType::i64, {first(x)}};
    return mod(iota(*x.graph, t, 0) * by, size(*x.graph, t, first(x)));
}
inline V backwards(V x) {
    const Type t{DType::i64, {first(x)}};
    return size(*x.graph, t, first(x) - 1) - iota(*x.graph, t, 0);
}
inline const Part kParts[] = {
    {"map", Op::mul, [](V x) { return sin(x) * 0.5; }},
    {"select", Op::select, [](V x) { return select(gt(x, like(x, 0.4)), x * x, x); }},
    {"cast", Op::cast, [](V x) { return cast(cast(x, DType::f32), DType::f64) + x; }},
    {"expand", Op::expand, [](V x) {
        Shape s = x.type().shape;
        s.insert(s.begin(), Dim(2));
        return expand(x, {0}, s);
    }},
    {"permute", Op::permute, [](V x) {
        std::vector<int> axes;
        for (int k = last(x); k >= 0; --k) axes.push_back(k);
        return permute(x, axes);
    }},
    {"reshape", Op::reshape, [](V x) { return reshape(x, {numel(x.type().shape)}); }},
    {"slice", Op::slice, [](V x) { return slice(pad(x, 0, 1, 0), 0, 0, first(x)); }},
    {"pad", Op::pad, [](V x) { return pad(x, last(x), 1, 2); }},
    {"flip", Op::flip, [](V x) { return flip(x, 0); }},
    {"concat", Op::concat, [](V x) { return concat({x, x * 2}, 0); }},
    {"sum", Op::sum, [](V x) { return sum(x, {last(x)}); }},
    {"sum of rows", Op::sum, [](V x) { return sum(x, {0}); }},
    {"amax", Op::amax, [](V x) { return amax(x, {last(x)}); }},
    {"prod", Op::prod, [](V x) { return prod(x, {last(x)}); }},
    {"mean back", Op::sum, [](V x) {
        const int axis = last(x);
        return x - expand(sum(x, {axis}), {axis}, x.type().shape) * 0.1;
    }},
    {"scan", Op::scan, [](V x) { return scan(x, like(x, 0.25), last(x), 0, false, 1); }},
    {"scan of rows", Op::scan, [](V x) { return scan(like(x, 0.5), x, 0, 0, true, 0); }},
    {"gather", Op::gather, [](V x) { return gather(x, {rows(x, 2)}); }},
    {"scatter add", Op::scatter_add, [](V x) { return scatter_add(x.type(), {rows(x, 2)}, x); }},
    {"scatter", Op::scatter, [](V x) { return scatter(x * 0.5, {backwards(x)}, x); }},
    {"dot", Op::dot, [](V x) {
        const Shape& s = x.type().shape;
        V m = reshape(x, {first(x), numel({s.begin() + 1, s.end()})});
        return dot(permute(m, {1, 0}), m);
    }},
    {"blocks", Op::blocks, [](V x) {
        V rows = blocks(reshape(x, {numel(x.type().shape)}), 4);
        rows = rows - expand(sum(rows, {1}), {1}, rows.type().shape) * 0.1;
        return reshape(slice(reshape(rows, {numel(rows.type().shape)}), 0, 0, numel(x.type().shape)), x.type().shape);
    }},
    {"compact", Op::compact, [](V x) {  // elements over a threshold
        const Shape& s = x.type().shape;
        V rows = reshape(x, {first(x), numel({s.begin() + 1, s.end()})}), mask = gt(rows, like(rows, 0.6)), each = sum(cast(mask, DType::i64), {1});
        const Dim u = Dim::symbol("u" + std::to_string(x.graph->size()));
        V places = compact(mask, scan(like(each, 1), each, 0, 1, false, 0), sum(each, {0}), {DType::i64, {u}});
        V chosen = gather(reshape(x, {numel(s)}), {places});
        return reshape(scatter_add({x.type().dtype, {numel(s)}}, {places}, chosen * chosen), s);
    }},
    {"stop grad", Op::stop_grad, [](V x) { return x * stop_grad(x); }},
    {"realize", Op::realize, [](V x) { return realize(x * 2); }},
};
inline constexpr std::size_t kCount = std::size(kParts);

// Of x: f64[B, N, 3], or [B, 2, N] where the last axis is to be a loop.
enum class Last { three, N };
inline Graph graph_of(const std::string& name, Last last, const std::function<std::vector<V>(V)>& outputs) {
    Graph g;
    g.name = name;
    const Dim B = Dim::symbol("B"), N = Dim::symbol("N");
    for (V v : outputs(g.value(g.input({DType::f64, last == Last::N ? Shape{B, 2, N} : Shape{B, N, 3}}, "x")))) g.outputs.push_back(v.id);
    return g;
}
inline Graph into(const Part& a, const Part& b, Last last = Last::three) {
    return graph_of(fmt::format("{}_{}", a.name, b.name), last, [&](V x) { return std::vector{b.of(a.of(x))}; });
}
inline Graph beside(const Part& a, const Part& b, Last last = Last::three) {
    return graph_of(fmt::format("{}_and_{}", a.name, b.name), last, [&](V x) { return std::vector{a.of(x), b.of(x)}; });
}

// A graph and its derivative in one, before any pass, and the plans of it.
struct Planned {
    Graph graph;
    Plan plan, cuda;
    explicit Planned(const Graph& g) : graph(differentiate(g, {1}).graph), plan(heddle::plan(simplify(graph))), cuda(heddle::plan(simplify(graph), {}, {.machine = Machine::cuda})) {}
};
// Names of tests.
inline std::string name_of(std::size_t part) {
    std::string s = kParts[part].name;
    std::replace(s.begin(), s.end(), ' ', '_');
    return s;
}

}  // namespace heddle::kinds
