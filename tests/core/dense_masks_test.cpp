// Masks whose rows are computed at all places: what a mask leaves out may look up anywhere and be anything, and is neither read nor added.
// Law: the interpreter decides, given the rows themselves; a plan that was chosen for one share of places is right at every other.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "passes/masks.h"
#include "tests/core/nest_builder.h"
#include "tests/cuda_on_cpu/oracles.h"

namespace heddle {
namespace {

using cuda_on_cpu::expect_same, testing::HasSubstr;

const Dim R = Dim::symbol("R"), P = Dim::symbol("P");
constexpr int kColumns = 5, kWidth = 24;

V nonzero(V mask) {
    return mask.graph->value(mask.graph->add({.op = Op::call, .in = {mask.id}, .attrs = {{"name", "aten.nonzero.default"}, {"self", Ref{0}}}, .type = {DType::i64, {Dim::symbol("u0"), mask.type().rank()}}, .more = {}, .loc = {}}));
}
std::vector<Tensor> library(const Node& n, const std::vector<Tensor>& in, Sizes& sizes) {
    Tensor out = nonzero_of(in.at(0));
    bind_sizes(n.type.shape, out.sizes, sizes, "nonzero");
    return {out};
}
// out[m] = exp(<table[row, column], scale>) * weight[m], at places that are computed from `at`[m].
Graph look_ups(const Dim& rows = 6) {
    Graph g;
    g.name = "look_ups";
    V at = g.value(g.input({DType::f32, {R, kColumns}}, "at")), m = g.value(g.input({DType::b1, {R, kColumns}}, "m")), weight = g.value(g.input({DType::f32, {R, kColumns}}, "weight"));
    V table = g.value(g.input({DType::f32, {rows, 4, kWidth}}, "table")), scale = g.value(g.input({DType::f32, {kWidth}}, "scale"));
    V places = nonzero(m), first = reshape(slice(places, 1, 0, 1), {Dim::symbol("u0")}), second = reshape(slice(places, 1, 1, 2), {Dim::symbol("u0")});
    V row = cast(gather(at, {first, second}), DType::i64), column = mod(row, like(row, 4));
    V found = gather(table, {row, column});
    V values = exp(sum(found * expand(scale, {0}, found.type().shape), {1})) * gather(weight, {first, second});
    g.outputs = {scatter(constant(g, {DType::f32, {R, kColumns}}, 0), {first, second}, values).id};
    return g;
}
const std::vector<char> kWants{0, 0, 1, 1, 1};
Example example(std::int64_t rows, Machine machine = Machine::cuda) { return {.sizes = {{"R", 40}, {"u0", 4096}}, .rows = {{"u0", rows}}, .positive = {}, .machine = machine}; }

std::vector<Tensor> arguments(const Graph& g, std::int64_t n, double share) {
    std::mt19937 rng(11);
    const Sizes sizes{{"R", n}};
    std::vector<Tensor> in;
    for (Id i : g.inputs) in.push_back(random_tensor(g.type(i), sizes, rng));
    in.push_back(random_tensor(g.type(g.outputs[0]), sizes, rng));
    constexpr double kNothing[] = {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity(), -1e30, 1e30, -7, 6};
    std::uniform_real_distribution<double> u(0, 1);
    for (std::size_t i = 0; i < in[0].data.size(); ++i) {
        in[1].data[i] = u(rng) < share;
        in[0].data[i] = in[1].data[i] != 0 ? static_cast<double>(rng() % 6) : kNothing[rng() % 6];
        if (in[1].data[i] == 0) in[2].data[i] = kNothing[rng() % 3];
    }
    return in;
}

TEST(DenseMasks, EqualTheInterpreterAtEveryShare) {
    NEEDS_LLVM();
    const Graph g = look_ups();
    const Joint plain = differentiate(g, kWants), found = joint(g, kWants), dense = joint(g, kWants, example(180));
    for (const Node& n : dense.graph.nodes) EXPECT_FALSE(n.is(Op::compact) || n.is(Op::call)) << print(dense.graph);
    for (const bool all : {true, false}) {
        const Graph& joined = all ? dense.graph : found.graph;
        std::vector<std::pair<std::string, std::unique_ptr<Executable>>> ways;
        auto add = [&](const std::string& who, const PlanOptions& how, const Target& target) { ways.emplace_back(who, std::make_unique<Executable>(plan(joined, {}, how), target)); };
        add("LLVM", {}, {});
        add("bounded", {.bounded = true}, {});
        for (const bool deterministic : {false, true}) add(deterministic ? "CUDA, whole numbers" : "CUDA", {.machine = Machine::cuda, .deterministic = deterministic}, cuda_on_cpu::target(3));
        EXPECT_EQ(ways[1].second->plan().bounds.size(), all ? 0u : 1u);
        for (const auto& [who, e] : ways)
            for (const double share : {0.0, 0.01, 0.5, 0.9, 1.0})
                for (const std::int64_t n : {1, 7, 61}) {
                    SCOPED_TRACE(fmt::format("{} of {}, {} of {} rows", who, all ? "all places" : "rows found", share, n));
                    const auto in = arguments(g, n, share);
                    const auto want = evaluate(plain.graph, in, library, {{"R", n}});
                    auto host = plain_host(1);
                    std::vector<Array> arrays;
                    for (const Tensor& t : in) arrays.push_back(to_array(*host, t));
                    Sizes sizes{{"R", n}};
                    std::vector<Tensor> got;
                    for (const Array& a : e->run(*host, arrays, sizes)) got.push_back(to_tensor(a));
                    if (e->plan().check >= 0) got.pop_back();
                    ASSERT_NO_FATAL_FAILURE(expect_same(want, got, who));
                    for (std::size_t k = 2; share == 0 && k < got.size(); ++k)
                        for (const double v : got[k].data) ASSERT_EQ(v, 0) << "what nothing was added to";
                }
    }
}
// All places without a row would be added to one place, by all threads at once.
TEST(DenseMasks, AddNothingWhereTheyDoNotHold) {
    const Joint dense = joint(look_ups(), kWants, example(180));
    for (const Machine machine : {Machine::cpu, Machine::cuda}) {
        int additions = 0;
        const Plan p = plan(dense.graph, {}, {.machine = machine});
        for (const auto& launch : p.loops)
            for (const loop::Nest& n : launch)
                for (const loop::Value& v : n.values)
                    if (v.what == loop::What::accumulate && !n.values[static_cast<std::size_t>(v.in[0])].step_last) {
                        EXPECT_EQ(v.in.size(), 3u) << loop::print(n);
                        ++additions;
                    }
        EXPECT_GT(additions, 0) << print(p.program);
    }
}
TEST(DenseMasks, AreChosenByTheExample) {
    auto note = [](const Graph& g, const Example& e) {
        std::vector<std::string> notes;
        joint(g, kWants, e, {}, &notes);
        return notes.at(0);
    };
    EXPECT_EQ(note(look_ups(), example(180)), "mask b1[R, 5]: dense: 90 % of its places hold");
    EXPECT_EQ(note(look_ups(), example(100)), "mask b1[R, 5]: dense: 50 % of its places hold");
    EXPECT_THAT(note(look_ups(), example(98)), testing::AllOf(HasSubstr("rows are found: "), HasSubstr(" of its rows costs more than arithmetic, 49 % of its places hold")));
    EXPECT_THAT(note(look_ups(), {.machine = Machine::cuda}), testing::EndsWith(" of its rows costs more than arithmetic"));
    EXPECT_EQ(note(look_ups(), example(160, Machine::cpu)), "mask b1[R, 5]: dense: 80 % of its places hold");
    EXPECT_THAT(note(look_ups(), example(158, Machine::cpu)), HasSubstr("rows are found: "));
    EXPECT_EQ(dense_from(Machine::cuda), 0.5);
    Example tables = example(180);
    EXPECT_THAT(note(look_ups(P), tables), HasSubstr("its table may be empty, 90 % of its places hold"));
    tables.positive = {"P"};
    EXPECT_THAT(note(look_ups(P), tables), HasSubstr(": dense: 90 %"));
    EXPECT_THAT(note(look_ups(P + 1), tables), HasSubstr(": dense: 90 %"));
    EXPECT_THAT(note(look_ups(P - 1), tables), HasSubstr("its table may be empty"));
    EXPECT_THAT(note(look_ups(0), example(180)), HasSubstr("its table may be empty"));
}

}  // namespace
}  // namespace heddle
