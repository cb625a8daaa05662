// What is compiled stays in proportion to the graph, and no kernel grows past what compiles in seconds, however large the program.
// Law: bounds are on statements and instructions, not on time; values equal the interpreter's.
#include <gtest/gtest.h>

#include <random>

#include "passes/pipeline.h"
#include "runtime/executable.h"
#include "tests/core/arrays.h"
#include "tests/core/nest_builder.h"

namespace heddle {
namespace {

constexpr std::size_t kNest = 3200, kLaunch = 6000 + kNest;  // statements; a nest may take a few more for what it stores

void expect_bounded(const Graph& g, std::size_t per_node) {
    Plan p = plan(g);
    std::size_t all = 0;
    for (const auto& launch : p.loops) {
        std::size_t sum = 0;
        for (const loop::Nest& n : launch) {
            EXPECT_LE(n.values.size(), kNest);
            sum += n.values.size();
        }
        EXPECT_LE(sum, kLaunch);
        all += sum;
    }
    EXPECT_LE(all, per_node * g.nodes.size());
}
void expect_values(const Graph& g, const Sizes& sizes) {
    auto host = plain_host(1);
    std::mt19937 rng(3);
    std::vector<Tensor> in;
    std::vector<Array> arrays;
    for (Id i : g.inputs) in.push_back(random_tensor(g.type(i), sizes, rng, 0.1, 0.9)), arrays.push_back(to_array(*host, in.back()));
    auto want = evaluate(g, in);
    Sizes bound;
    auto got = Executable(plan(g)).run(*host, arrays, bound);
    for (std::size_t k = 0; k < want.size(); ++k) expect_near(want[k], to_tensor(got[k]), "output " + std::to_string(k));
}

// Each step asks for the one before at two places, under predicates of its own: written out, twice as much each time.
Graph rolls(int steps) {
    Graph g;
    g.name = "rolls";
    Dim n = Dim::symbol("N");
    V x = g.value(g.input({DType::f64, {4, n}}, "x")), y = x;
    for (int k = 0; k < steps; ++k) y = y * 0.5 + concat({slice(y, 1, 1, n), slice(y, 1, 0, 1)}, 1) * x;
    g.outputs = {y.id};
    return g;
}
TEST(Large, WhatDoublesFromStepToStepIsDivided) {
    NEEDS_LLVM();
    Graph g = rolls(16);
    expect_bounded(g, 150);
    expect_values(g, {{"N", 37}});
    Pair pair = forward_and_backward(rolls(12), {1}, {{{"N", 1000}}});
    expect_bounded(pair.split.forward, 150);
    expect_bounded(pair.split.backward, 150);
}
TEST(Large, AChainOfThousandsOfMapsIsDivided) {
    NEEDS_LLVM();
    Graph g;
    g.name = "chain";
    V x = g.value(g.input({DType::f32, {Dim::symbol("N")}}, "x")), y = x;
    for (int k = 0; k < 4000; ++k) y = k % 2 ? y * 0.5 : y + x;
    g.outputs = {y.id};
    expect_bounded(g, 3);
    expect_values(g, {{"N", 67}});
}
TEST(Large, ManyOutputsTakeMoreThanOneLaunch) {
    Graph g;
    g.name = "many";
    for (int k = 0; k < 40; ++k) {
        V x = g.value(g.input({DType::f32, {Dim::symbol("N" + std::to_string(k))}}, "x" + std::to_string(k))), y = x;
        for (int i = 0; i < 400; ++i) y = i % 2 ? y * 0.5 : y + x;
        g.outputs.push_back(y.id);
    }
    expect_bounded(g, 3);
}
TEST(Large, WhatCannotBeDividedIsCompiledPlainly) {
    NEEDS_LLVM();
    auto chain = [](int steps) {
        NestBuilder k({Dim::symbol("N")}, false, 1);
        int in = k.buffer(DType::f32, false), out = k.buffer(DType::f32, true);
        k.prologue();
        loop::Val i = k.outer(0), x = k.load(in, i), y = x;
        for (int s = 0; s < steps; ++s) y = s % 2 ? k.map(Op::mul, {y, k.constant(0.5)}) : k.map(Op::add, {y, x});
        k.store(out, i, y);
        return k.n;
    };
    CpuBackend& backend = *load_cpu_backend();
    EXPECT_FALSE(backend.text("chain", {chain(100)}).starts_with("; compiled plainly"));
    const auto large = chain(static_cast<int>(kPlainFrom));
    EXPECT_TRUE(backend.text("chain", {large}).starts_with("; compiled plainly"));
    CpuFn f = backend.compile("chain", {large})[0];
    float in[] = {1, 2, 3}, out[3] = {};
    void* buffers[] = {in, out};
    std::int64_t n = 3;
    f(buffers, &n, 0, 1);
    for (int i = 0; i < 3; ++i) EXPECT_FLOAT_EQ(out[i], in[i]);  // y = (y + x) / 2 ends at x
}

}  // namespace
}  // namespace heddle
