// Every kind of op into every other, and beside it: values and gradients of LLVM and of CUDA text on the CPU are the interpreter's, and
// how many kernels and stages each pair takes stands in a golden file.
// Law: a kind of op that is new in ir/ops.def gets a row here; a pair that stops fusing shows in the diff.
#include <fmt/format.h>

#include <functional>
#include <set>

#include "passes/grad.h"
#include "passes/simplify.h"
#include "tests/core/golden.h"
#include "tests/core/nest_builder.h"
#include "tests/cuda_on_cpu/oracles.h"

namespace heddle {
namespace {

struct Part {
    const char* name;
    Op op;
    V (*of)(V);  // x: f64, of one axis or more; what it adds of its own has the sizes of x
};
const Dim& first(V x) { return x.type().shape[0]; }
int last(V x) { return static_cast<int>(x.type().shape.size()) - 1; }
V rows(V x, int by) {  // an index for each row, in 0..size; each of them once where by is odd and the size no multiple
    const Type t{DType::i64, {first(x)}};
    return mod(iota(*x.graph, t, 0) * by, size(*x.graph, t, first(x)));
}
V backwards(V x) {
    const Type t{DType::i64, {first(x)}};
    return size(*x.graph, t, first(x) - 1) - iota(*x.graph, t, 0);
}
const Part kParts[] = {
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
    {"stop grad", Op::stop_grad, [](V x) { return x * stop_grad(x); }},
    {"realize", Op::realize, [](V x) { return realize(x * 2); }},
};
constexpr std::size_t kCount = std::size(kParts);

Graph graph_of(const std::string& name, const std::function<std::vector<V>(V)>& outputs) {
    Graph g;
    g.name = name;
    for (V v : outputs(g.value(g.input({DType::f64, {Dim::symbol("B"), Dim::symbol("N"), 3}}, "x")))) g.outputs.push_back(v.id);
    return g;
}
Graph into(const Part& a, const Part& b) {
    return graph_of(fmt::format("{}_{}", a.name, b.name), [&](V x) { return std::vector{b.of(a.of(x))}; });
}
Graph beside(const Part& a, const Part& b) {
    return graph_of(fmt::format("{}_and_{}", a.name, b.name), [&](V x) { return std::vector{a.of(x), b.of(x)}; });
}

// A graph and its derivative in one, before any pass, and the plan of it.
struct Planned {
    Graph graph;
    Plan plan;
    explicit Planned(const Graph& g) : graph(differentiate(g, {1}).graph), plan(heddle::plan(simplify(graph))) {}
};
// Compiled, after all passes: what the graph means before any.
void check(const std::vector<Graph>& graphs) {
    std::vector<Planned> all(graphs.begin(), graphs.end());
    std::vector<const Plan*> plans;
    for (const Planned& p : all) plans.push_back(&p.plan);
    cuda_on_cpu::compile_ahead(plans);
    for (const Planned& p : all) {
        const cuda_on_cpu::Runner llvm(p.plan, {}), cuda(p.plan, cuda_on_cpu::target(1));
        for (const Sizes& sizes : {Sizes{{"B", 5}, {"N", 7}}, Sizes{{"B", 1}, {"N", 2}}, Sizes{{"B", 0}, {"N", 3}}}) {
            SCOPED_TRACE(fmt::format("{} at B = {}", p.graph.name, sizes.at("B")));
            std::mt19937 rng(11);
            std::vector<Tensor> in;
            for (Id i : p.graph.inputs) in.push_back(random_tensor(p.graph.type(i), sizes, rng, 0.3, 0.9));
            const auto want = evaluate(p.graph, in, {}, sizes);
            ASSERT_NO_FATAL_FAILURE(cuda_on_cpu::expect_same(want, llvm(in, sizes), "LLVM, output"));
            ASSERT_NO_FATAL_FAILURE(cuda_on_cpu::expect_same(want, cuda(in, sizes), "CUDA on the CPU, output"));
        }
    }
}

class FusionMatrix : public testing::TestWithParam<std::size_t> {};
INSTANTIATE_TEST_SUITE_P(Kinds, FusionMatrix, testing::Range<std::size_t>(0, kCount), [](const auto& i) {
    std::string s = kParts[i.param].name;
    std::replace(s.begin(), s.end(), ' ', '_');
    return s;
});
TEST_P(FusionMatrix, IntoEachOther) {
    NEEDS_LLVM();
    std::vector<Graph> graphs;
    for (const Part& b : kParts) graphs.push_back(into(kParts[GetParam()], b));
    check(graphs);
}
TEST_P(FusionMatrix, BesideEachOther) {
    NEEDS_LLVM();
    std::vector<Graph> graphs;
    for (std::size_t k = GetParam(); k < kCount; ++k) graphs.push_back(beside(kParts[GetParam()], kParts[k]));
    check(graphs);
}
TEST(FusionMatrix, HasAllKinds) {
    std::set<Op> there;
    for (const Part& p : kParts) there.insert(p.op);
    for (int k = 0; k < kOps; ++k) {
        const OpDef& d = def(static_cast<Op>(k));
        const bool of_many = d.kind == Kind::map || d.kind == Kind::fold || d.kind == Kind::leaf || d.kind == Kind::call;
        EXPECT_TRUE(of_many || there.contains(static_cast<Op>(k))) << d.name;
    }
}

// Steps of a direction, and the stages of its launches in all where some wait for others.
std::string kernels(const Graph& half) {
    const Plan p = plan(half);
    std::size_t stages = 0;
    for (const Launch& l : p.program.launches) stages += static_cast<std::size_t>(l.nests.back().stage) + 1;
    const std::size_t steps = p.program.steps.size();
    return stages > p.program.launches.size() ? fmt::format("{}:{}", steps, stages + steps - p.program.launches.size()) : fmt::format("{}", steps);
}
std::string both_ways(const Graph& g) {
    const Pair pair = forward_and_backward(g, {1}, {});
    return kernels(pair.split.forward) + "/" + (pair.has_backward ? kernels(pair.split.backward) : "0");
}
TEST(GoldenFusionMatrix, ComesBack) {
    std::string now = "Kernels and library calls, forward/backward; 1:3 is one kernel in three stages. What stands left computes x and what stands above reads it; or both read x.\n";
    for (const auto& [title, of] : {std::pair{"into", &into}, {"beside", &beside}}) {
        now += fmt::format("\n# {}\n{:<14}", title, "");
        for (const Part& b : kParts) now += fmt::format("{:>13}", b.name);
        for (const Part& a : kParts) {
            now += fmt::format("\n{:<14}", a.name);
            for (const Part& b : kParts) now += fmt::format("{:>13}", &b < &a && of == &beside ? "" : both_ways(of(a, b)));
        }
        now += "\n";
    }
    golden::expect("fusion_matrix.txt", now);
}

}  // namespace
}  // namespace heddle
