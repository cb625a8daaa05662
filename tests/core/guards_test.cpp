// Loops that are needed only where a condition of the point holds: which are, and that back ends that skip them change no value.
// Law: the interpreter decides the values; a loop that anything else needs has no guard.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "codegen/cuda/cuda.h"
#include "tests/core/nest_builder.h"
#include "tests/cuda_on_cpu/oracles.h"

namespace heddle {
namespace {

using testing::HasSubstr;

const Dim R = Dim::symbol("R");

// Of x [R, 40], y [R], m b1[R] and places i64[R] below 3; what a nest is made of, and whether each of its loops has a guard.
struct In {
    V x, y, m, to;
    V over(V v) const { return expand(v, {1}, x.type().shape); }
    V zero(V v) const { return zeros_like(v); }
    V long_sum() const { return sum(exp(x * x), {1}); }
};
struct Form {
    const char* name;
    std::vector<V> (*of)(const In&);
    std::vector<bool> guarded;  // per loop of all nests
};
std::ostream& operator<<(std::ostream& o, const Form& f) { return o << f.name; }
const Form kForms[] = {
    {"one_side", [](const In& i) { return std::vector{select(i.m, i.long_sum() + 1, i.zero(i.y))}; }, {true}},
    {"one_side_in_the_end", [](const In& i) { return std::vector{select(i.m, exp(-i.long_sum()) * i.y, i.y)}; }, {true}},
    {"part_of_a_condition", [](const In& i) { return std::vector{select(and_(i.m, lt(i.y, i.zero(i.y))), i.long_sum(), i.y)}; }, {true}},
    {"two_sums", [](const In& i) { return std::vector{select(i.m, i.long_sum() + amax(i.x, {1}), i.y)}; }, {true}},
    {"loop_after_loop", [](const In& i) { return std::vector{select(i.m, sum(exp(i.x - i.over(amax(i.x, {1}))), {1}), i.y)}; }, {true, true}},
    {"rows_added", [](const In& i) { return std::vector{scatter_add({DType::f32, {3, 40}}, {i.to}, select(i.over(i.m), exp(i.x), i.zero(i.x)))}; }, {true}},
    {"other_side", [](const In& i) { return std::vector{select(i.m, i.y, i.long_sum())}; }, {false}},
    {"both_sides", [](const In& i) { V s = i.long_sum(); return std::vector{select(i.m, s, s * i.y)}; }, {false}},
    {"also_a_result", [](const In& i) { V s = i.long_sum(); return std::vector{select(i.m, s, i.y), s}; }, {false}},
    {"also_needed_elsewhere", [](const In& i) { V s = i.long_sum(); return std::vector{select(i.m, s, i.y), exp(-s)}; }, {false}},
    {"two_conditions", [](const In& i) { V s = i.long_sum(); return std::vector{select(i.m, s, i.y), select(lt(i.y, i.zero(i.y)), s, i.y)}; }, {false}},
    {"either_condition", [](const In& i) { return std::vector{select(or_(i.m, lt(i.y, i.zero(i.y))), select(i.m, i.long_sum(), i.y), i.y)}; }, {true}},
    {"its_own_condition", [](const In& i) { V s = i.long_sum(); return std::vector{select(lt(s, like(s, 40)), s, i.y)}; }, {false}},
    {"condition_inside", [](const In& i) { return std::vector{sum(select(lt(i.x, i.zero(i.x)), exp(i.x), i.zero(i.x)), {1})}; }, {false}},
    {"one_sum_of_two", [](const In& i) { return std::vector{select(i.m, i.long_sum(), i.y), amax(i.x, {1})}; }, {false}},
    {"needed_by_a_later_loop", [](const In& i) { V s = amax(i.x, {1}); return std::vector{select(i.m, s, i.y), sum(exp(i.x - i.over(s)), {1})}; }, {false, false}},
    {"rows_written", [](const In& i) { return std::vector{select(i.over(i.m), exp(i.x) * i.over(i.long_sum()), i.x)}; }, {true, false}},
    {"scanned", [](const In& i) { return std::vector{select(i.over(i.m), scan(like(i.x, 0.5), i.x, 1, 0, false, 0), i.zero(i.x))}; }, {false}},
    {"rows_added_anyway", [](const In& i) { return std::vector{scatter_add({DType::f32, {3, 40}}, {i.to}, select(i.over(i.m), exp(i.x), i.x))}; }, {false}},
};
Graph graph_of(const Form& f) {
    Graph g;
    g.name = f.name;
    In in{g.value(g.input({DType::f32, {R, 40}}, "x")), g.value(g.input({DType::f32, {R}}, "y")), g.value(g.input({DType::b1, {R}}, "m")), g.value(g.input({DType::i64, {R}}, "to"))};
    for (V v : f.of(in)) g.outputs.push_back(v.id);
    return g;
}
struct Guards : testing::TestWithParam<Form> {};
INSTANTIATE_TEST_SUITE_P(Forms, Guards, testing::ValuesIn(kForms), [](const auto& i) { return std::string(i.param.name); });

TEST_P(Guards, AreWhereNothingElseNeedsTheLoop) {
    std::string all;
    std::vector<bool> guarded;
    for (const auto& launch : plan(graph_of(GetParam())).loops)
        for (const loop::Nest& n : launch) {
            all += loop::print(n);
            for (const loop::Phase& p : n.phases) guarded.push_back(p.guard >= 0);
        }
    EXPECT_EQ(guarded, GetParam().guarded) << all;
}
// By rows in lanes, points in lanes, one by one, and groups of threads; where the condition never, always or sometimes holds.
TEST_P(Guards, ChangeNoValue) {
    NEEDS_LLVM();
    const Graph g = graph_of(GetParam());
    std::vector<std::pair<std::string, std::unique_ptr<Executable>>> ways;
    auto forced = [&](const std::string& who, Machine machine, const Target& target, const std::function<void(Schedule&)>& change) {
        Plan p = plan(g, {}, {.machine = machine});
        for (auto& launch : p.loops)
            for (loop::Nest& n : launch) change(n.schedule);
        ways.emplace_back(who, std::make_unique<Executable>(std::move(p), target));
    };
    forced("as chosen", Machine::cpu, {}, [](Schedule&) {});
    forced("points in lanes", Machine::cpu, {}, [](Schedule& s) { s.lanes_inner = false, s.width = 8, s.chunk = 32; });
    forced("rows in lanes", Machine::cpu, {}, [](Schedule& s) { s.lanes_inner = true, s.width = 16, s.chunk = 1; });
    forced("rows in lanes, ahead", Machine::cpu, {}, [](Schedule& s) { s.lanes_inner = true, s.width = 8, s.chunk = 16; });
    forced("one by one", Machine::cpu, {}, [](Schedule& s) { s.lanes_inner = false, s.width = 1; });
    forced("CUDA", Machine::cuda, cuda_on_cpu::target(5), [](Schedule&) {});
    for (const int group : {1, 8, 32, 64})
        forced(fmt::format("groups of {}", group), Machine::cuda, cuda_on_cpu::target(6), [&](Schedule& s) { s.lanes_inner = group > 1, s.group = group, s.vector = 1, s.run = 1, s.adds = Adds::direct; });
    for (const auto& [who, e] : ways)
        for (const std::int64_t n : {0, 1, 7, 69})
            for (const double share : {0.0, 0.5, 1.0}) {
                SCOPED_TRACE(fmt::format("{}: {} rows, {}", who, n, share));
                std::mt19937 rng(3);
                const Sizes sizes{{"R", n}};
                std::vector<Tensor> in;
                for (Id i : g.inputs) in.push_back(random_tensor(g.type(i), sizes, rng, g.type(i).dtype == DType::i64 ? 0 : -1, g.type(i).dtype == DType::i64 ? 3 : 1));
                std::uniform_real_distribution<double> u(0, 1);
                for (double& m : in[2].data) m = u(rng) < share;
                auto host = plain_host(1);
                std::vector<Array> arrays;
                for (const Tensor& t : in) arrays.push_back(to_array(*host, t));
                Sizes bound = sizes;
                std::vector<Tensor> got;
                for (const Array& a : e->run(*host, arrays, bound)) got.push_back(to_tensor(a));
                ASSERT_NO_FATAL_FAILURE(cuda_on_cpu::expect_same(evaluate(g, in, {}, sizes), got, who));
            }
}
TEST(GuardsText, SaysUnderWhichCondition) {
    const Plan p = plan(graph_of(kForms[0]), {}, {.machine = Machine::cuda});
    EXPECT_EQ(loop::print(p.loops[0][0]), "");
    EXPECT_THAT(cuda_text("k", p.loops[0]).text, HasSubstr(") for (index_t j = live ? lane : 40;"));
}

}  // namespace
}  // namespace heddle
