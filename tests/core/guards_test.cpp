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
    for (const auto& launch : plan(graph_of(GetParam()), {}, {.machine = Machine::cuda}).loops)
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
    auto forced = [&](const std::string& who, const Target& target, const std::function<void(Schedule&)>& change) {
        Plan p = plan(g, {}, {.machine = Machine::cuda});
        for (auto& launch : p.loops)
            for (loop::Nest& n : launch) change(n.schedule);
        ways.emplace_back(who, std::make_unique<Executable>(std::move(p), target));
    };
    forced("as chosen", {}, [](Schedule&) {});
    forced("points in lanes", {}, [](Schedule& s) { s.lanes_inner = false, s.width = 8, s.chunk = 32; });
    forced("rows in lanes", {}, [](Schedule& s) { s.lanes_inner = true, s.width = 16, s.chunk = 1; });
    forced("rows in lanes, ahead", {}, [](Schedule& s) { s.lanes_inner = true, s.width = 8, s.chunk = 16; });
    forced("one by one", {}, [](Schedule& s) { s.lanes_inner = false, s.width = 1; });
    forced("CUDA", cuda_on_cpu::target(5), [](Schedule&) {});
    for (const int group : {1, 8, 32, 64}) {
        if (group > 32 && g.name == "scanned") continue;  // lanes of a warp hand a carry on
        forced(fmt::format("groups of {}", group), cuda_on_cpu::target(6), [&](Schedule& s) { s.lanes_inner = group > 1, s.group = group, s.vector = 1, s.run = 1, s.adds = Adds::direct; });
    }
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
    EXPECT_EQ(loop::print(p.loops[0][0]), R"(for [R]
  0: i64 = 0
  1: i64 = 1
  2: i64 = size R
  4: i64 = 40
  14: f32 = 1
  16: f32 = 0
  3: i64 = outer 0
  6: i64 = mul 3 4
  13: b1 = m[3]
  loop 40 if 13
    5: i64 = inner
    7: i64 = add 5 6
    8: f32 = x[7]
    9: f32 = mul 8 8
    10: f32 = exp 9
    fold 0 sum 10
  12: f32 = fold 0
  15: f32 = add 12 14
  17: f32 = select 13 15 16
  v10[3] = 17
)");
    EXPECT_THAT(cuda_text("k", p.loops[0]).text, HasSubstr("\n  if (m_13) for (index_t j = live ? lane"));
    loop::Nest other = p.loops[0][0];
    other.phases[0].guard = -1;
    EXPECT_NE(loop::exact({other}), loop::exact({p.loops[0][0]}));
}

}  // namespace
}  // namespace heddle
