// Rows of masks that kernels find: in the order of nonzero's, whatever the mask's shape; the same results where their number stays in memory.
// Law: the interpreter, given nonzero as a call, decides; bounded plans read nothing on the host and touch no memory past their capacity.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <numeric>

#include "runtime/nvrtc.h"
#include "tests/core/nest_builder.h"
#include "tests/cuda_on_cpu/oracles.h"

namespace heddle {
namespace {

using cuda_on_cpu::expect_same;

Id call(Graph& g, const std::string& name, V x, Type t, Attrs attrs = {}) {
    Attrs all{{"name", name}, {"self", Ref{0}}};
    all.insert(all.end(), attrs.begin(), attrs.end());
    return g.add({.op = Op::call, .in = {x.id}, .attrs = std::move(all), .type = std::move(t), .more = {}, .loc = {}});
}
V nonzero(V mask, const std::string& rows) { return mask.graph->value(call(*mask.graph, "aten.nonzero.default", mask, {DType::i64, {Dim::symbol(rows), mask.type().rank()}})); }
std::vector<V> columns(V table) {
    std::vector<V> all;
    const Shape s = table.type().shape;
    for (int k = 0; k < static_cast<int>(s[1].value()); ++k) all.push_back(reshape(slice(table, 1, k, k + 1), {s[0]}));
    return all;
}
std::vector<Tensor> library(const Node& n, const std::vector<Tensor>& in, Sizes& sizes) {
    const Tensor& m = in.at(0);
    if (n.text("name") == "heddle.guard") return {m};
    Tensor out = nonzero_of(m);
    bind_sizes(n.type.shape, out.sizes, sizes, "nonzero");
    return {out};
}
Tensor mask_of(const std::vector<std::int64_t>& sizes, double share, unsigned seed) {
    Tensor m{DType::b1, sizes, {}};
    std::mt19937 rng(seed);
    std::uniform_real_distribution<double> u(0, 1);
    for (std::int64_t i = 0; i < m.numel(); ++i) m.data.push_back(u(rng) < share);
    if (share < 0) std::fill(m.data.begin(), m.data.end(), 0), m.data[m.data.size() * 2 / 3] = 1;  // one
    return m;
}
// Memory that holds what would show: a NaN in any float, a number in any index that leads outside.
class PoisonedHost final : public Host {
public:
    explicit PoisonedHost(int threads = 1) : plain_(plain_host(threads)) {}
    int threads() const override { return plain_->threads(); }
    Array allocate(DType t, const Extents& sizes) override {
        Array a = plain_->allocate(t, sizes);
        std::memset(a.data, 0xff, static_cast<std::size_t>(a.bytes()));
        return a;
    }
    void dot(const std::vector<Array>& in, const Array& out, bool relu) override { plain_->dot(in, out, relu); }
    std::vector<Array> call(const Node& n, const std::vector<Array>& operands, const Sizes& sizes) override {
        ++calls;
        return plain_->call(n, operands, sizes);
    }
    void read(std::span<const Array> numbers, std::span<double> values) override {
        ++reads;
        Host::read(numbers, values);
    }
    int calls = 0, reads = 0;

private:
    std::unique_ptr<Host> plain_;
};
std::vector<Tensor> run(const Executable& e, PoisonedHost& host, const std::vector<Tensor>& in, Sizes sizes = {}) {
    std::vector<Array> arrays;
    for (const Tensor& t : in) arrays.push_back(to_array(host, t));
    std::vector<Tensor> out;
    for (const Array& a : e.run(host, arrays, sizes)) out.push_back(to_tensor(a));
    return out;
}
std::vector<std::pair<std::string, Target>> targets() { return {{"LLVM", {}}, {"CUDA on the CPU", cuda_on_cpu::target(3)}}; }

struct Form {
    std::string name;
    Shape mask;
    std::vector<Sizes> sizes;
};
std::ostream& operator<<(std::ostream& o, const Form& f) { return o << f.name; }
const Dim A = Dim::symbol("A"), B = Dim::symbol("B");
struct Order : testing::TestWithParam<Form> {};
INSTANTIATE_TEST_SUITE_P(Masks, Order, testing::Values(
    Form{"OneAxis", {A}, {{{"A", 1}}, {{"A", 255}}, {{"A", 256}}, {{"A", 1000}}, {{"A", 70001}}}},
    Form{"OneAxisKnown", {200}, {{}}},
    Form{"OneLongAxisKnown", {Dim(2000)}, {{}}},
    Form{"Rows", {A, 41}, {{{"A", 1}}, {{"A", 300}}, {{"A", 5}}}},
    Form{"RowsKnown", {6, 41}, {{}}},
    Form{"ShortRows", {A, 4}, {{{"A", 3}}, {{"A", 777}}}},
    Form{"TwoNamedAxes", {A, B}, {{{"A", 3}, {"B", 7}}, {{"A", 40}, {"B", 33}}}},
    Form{"ThreeAxes", {A, 5, 20}, {{{"A", 2}}, {{"A", 60}}}}), [](const auto& i) { return i.param.name; });

TEST_P(Order, IsThatOfNonzero) {
    NEEDS_LLVM();
    Graph g;
    g.name = "places";
    V m = g.value(g.input({DType::b1, GetParam().mask}, "m"));
    V table = nonzero(m, "u0");
    g.outputs = {table.id, columns(table)[0].id, size(g, {DType::i64, {}}, Dim::symbol("u0") * 3).id};
    const Pair pair = forward_and_backward(g, {0}, {});
    const Plan p = plan(pair.split.forward);
    for (const Step& s : p.program.steps) EXPECT_LT(s.call, 0) << print(p.program);
    for (const auto& [who, target] : targets()) {
        const Executable e(p, target);
        for (const Sizes& sizes : GetParam().sizes)
            for (double share : {0.0, -1.0, 0.1, 0.7, 1.0}) {
                SCOPED_TRACE(fmt::format("{}, {} at {}", who, share, numel(GetParam().mask).eval(sizes)));
                std::vector<std::int64_t> extents;
                for (const Dim& d : GetParam().mask) extents.push_back(d.eval(sizes));
                if (who != "LLVM" && numel(GetParam().mask).eval(sizes) > 20000 && share != 0.1) continue;  // fibers are slow
                const std::vector<Tensor> in{mask_of(extents, share, 5)};
                PoisonedHost host(who == "LLVM" ? 3 : 1);
                ASSERT_NO_FATAL_FAILURE(expect_same(evaluate(g, in, library, sizes), run(e, host, in), "places"));
                EXPECT_EQ(host.reads, 1);
            }
    }
}

V rectified(V x) {
    V y = select(lt(x, zeros_like(x)), zeros_like(x), x);
    return surrogate(y, select(le(y, zeros_like(y)), zeros_like(x), x));
}
// A network over the rows that a mask selects, and over those of them that a second one does; as captured, under `if m.any()`.
Graph network(bool branches) {
    Graph g;
    g.name = "network";
    const Dim R = Dim::symbol("R"), u0 = Dim::symbol("u0"), u1 = Dim::symbol("u1");
    V x = g.value(g.input({DType::f64, {R, 17, 3}}, "x")), w = g.value(g.input({DType::f64, {3, 5}}, "w")), v = g.value(g.input({DType::f64, {5, 2}}, "v"));
    V d = g.value(g.input({DType::f64, {5}}, "d")), c = g.value(g.input({DType::f64, {2}}, "c")), unused = g.value(g.input({DType::f64, {R}}, "everywhere"));
    V first = reshape(slice(x, 2, 0, 1), {R, 17}), m = gt(first, like(first, 0.2));
    auto guard = [&](V mask) {
        if (!branches) return;
        V any = gt(sum(cast(mask, DType::i32), {0, 1}), constant(g, {DType::i32, {}}, 0));
        g.outputs.push_back(call(g, "heddle.guard", any, any.type(), {{"value", true}}));
    };
    guard(m);
    auto places = columns(nonzero(m, "u0"));
    V rows = gather(x, places), hidden = dot(rows, w);
    hidden = select(gt(hidden, zeros_like(hidden)), hidden, hidden * 0.1);
    V out = scatter(constant(g, {DType::f64, {R, 17, 2}}, 0), places, dot(hidden, v) / 3);
    V second = reshape(slice(out, 2, 0, 1), {R, 17}), m2 = and_(m, gt(second, like(second, 0.05)));
    guard(m2);
    auto chosen = columns(nonzero(m2, "u1"));
    V both = concat({gather(out, chosen), gather(x, chosen)}, 1), t = dot(slice(both, 1, 1, 4), w) + expand(d, {0}, {u1, 5});
    V shade = exp(dot(rectified(t), v)) * expand(c, {0}, {u1, 2});  // rows past those that there are, which a library computes, aren't zeros
    V colour = scatter(out, chosen, shade);
    V loss = sum(colour * colour, {0, 1, 2}) + sum(out * out, {0, 1, 2}) + sum(unused * unused, {0});
    g.outputs.insert(g.outputs.begin(), {loss.id, sum(colour, {1}).id});
    return g;
}
std::vector<Tensor> inputs_of(const Graph& g, const Sizes& sizes, double lo) {
    std::vector<Tensor> in;
    std::mt19937 rng(8);
    for (Id i : g.inputs) in.push_back(random_tensor(g.type(i), sizes, rng, in.empty() ? lo : -1, in.empty() ? lo + 1 : 1));
    return in;
}
std::vector<Tensor> seeded(const Joint& j, const Graph& g, std::vector<Tensor> in, const Sizes& sizes) {
    std::mt19937 rng(9);
    for (std::size_t k = 0; k < j.seeds.size(); ++k)
        if (j.seeds[k] >= 0) in.push_back(random_tensor(g.type(g.outputs[k]), sizes, rng));
    return in;
}
const std::vector<char> kWants{1, 1, 1, 1, 1, 1};
std::int64_t count(const Tensor& x, double over) {
    std::int64_t n = 0;
    for (std::size_t i = 0; i < x.data.size(); i += 3) n += x.data[i] > over;
    return n;
}

TEST(Bounded, EqualsTheInterpreterAndReadsNothing) {
    NEEDS_LLVM();
    for (bool branches : {false, true}) {
        const Graph g = network(branches);
        const Joint plain = differentiate(g, kWants), j = joint(g, kWants);
        Plan exact = plan(j.graph), bounded = plan(j.graph, {}, {.bounded = true});
        ASSERT_EQ(bounded.bounds.size(), 2u);
        for (const Plan* p : {&exact, &bounded})
            EXPECT_EQ(std::count_if(p->program.steps.begin(), p->program.steps.end(), [&](const Step& s) { return s.call >= 0 && p->program.graph[s.call].flag("relu"); }), 1) << print(p->program);
        for (const Step& s : bounded.program.steps) {
            EXPECT_TRUE(s.reads.empty()) << print(bounded.program);
            EXPECT_TRUE(s.call < 0 || bounded.program.graph[s.call].is(Op::dot)) << print(bounded.program);
        }
        for (const auto& [who, target] : targets()) {
            const Executable e(bounded, target), other(exact, target);
            for (double lo : {-0.5, -1.0, 0.3, 0.0})
                for (int room : {0, 1, 3}) {  // all elements of the mask; just the rows there are, and some more
                    const Sizes sizes{{"R", 7}};
                    const auto in = seeded(plain, g, inputs_of(g, sizes, lo), sizes);
                    SCOPED_TRACE(fmt::format("{}, {} of {} rows, room {}, branches {}", who, count(in[0], 0.2), 7 * 17, room, branches));
                    auto want = evaluate(plain.graph, in, library, sizes);
                    if (!branches || count(in[0], 0.2) > 0) {
                        PoisonedHost host;
                        bool taken = true;
                        std::vector<Tensor> got;
                        try {
                            got = run(other, host, in);
                        } catch (const GuardFailed&) {
                            taken = false;
                        }
                        if (taken) {
                            ASSERT_NO_FATAL_FAILURE(expect_same(want, got, "exact"));
                            EXPECT_EQ(host.reads, 2);
                        }
                    }
                    Sizes given = sizes;
                    if (room > 0) given["u0_max"] = count(in[0], 0.2) + room - 1, given["u1_max"] = given["u0_max"] + room;
                    PoisonedHost host(who == "LLVM" ? 2 : 1);
                    auto got = run(e, host, in, given);
                    EXPECT_EQ(host.reads, 0);
                    const auto check = got.at(static_cast<std::size_t>(bounded.check)).data;
                    ASSERT_EQ(check.size(), 3u);
                    EXPECT_EQ(check[1], count(in[0], 0.2));
                    EXPECT_EQ(check[0], branches && (check[1] == 0 || check[2] == 0));  // a branch that eager doesn't take
                    if (check[0] != 0) continue;
                    got.resize(want.size());
                    for (std::size_t k = 0; k < g.outputs.size(); ++k)
                        if (is_guard(g[g.outputs[k]])) want[k] = got[k];
                    ASSERT_NO_FATAL_FAILURE(expect_same(want, got, "bounded"));
                }
        }
    }
}
TEST(Bounded, SaysWhereTheRoomIsTooSmall) {
    NEEDS_LLVM();
    const Graph g = network(true);
    const Joint j = joint(g, kWants);
    const Plan p = plan(j.graph, {}, {.bounded = true});
    for (const auto& [who, target] : targets()) {
        const Executable e(p, target);
        const Sizes sizes{{"R", 7}};
        const auto in = seeded(j, g, inputs_of(g, sizes, -0.5), sizes);
        PoisonedHost host;
        const auto n = count(in[0], 0.2);
        ASSERT_GT(n, 4);
        for (std::int64_t room : {n, n - 1, std::int64_t{2}, std::int64_t{0}}) {
            const auto got = run(e, host, in, {{"R", 7}, {"u0_max", room}});
            EXPECT_EQ(got.at(static_cast<std::size_t>(p.check)).data[0], room < n) << who << " " << room;
            EXPECT_EQ(got.at(static_cast<std::size_t>(p.check)).data[1], static_cast<double>(n));
        }
    }
}
// One name for two masks, which had as many rows at capture: that they still have is checked on the device.
TEST(Bounded, SaysWhereMasksDiffer) {
    NEEDS_LLVM();
    Graph g;
    g.name = "two";
    const Dim R = Dim::symbol("R");
    V x = g.value(g.input({DType::f64, {R}}, "x")), a = g.value(g.input({DType::b1, {R}}, "a")), b = g.value(g.input({DType::b1, {R}}, "b"));
    V rows = gather(x, columns(nonzero(a, "u0"))) * gather(x, columns(nonzero(b, "u0")));
    g.outputs = {sum(rows * rows, {0}).id};
    const Plan p = plan(joint(g, {1, 0, 0}).graph, {}, {.bounded = true});
    ASSERT_EQ(p.bounds.size(), 1u);
    for (const auto& [who, target] : targets()) {
        const Executable e(p, target);
        std::mt19937 rng(2);
        const Tensor ones{DType::f64, {}, {1}}, values = random_tensor({DType::f64, {R}}, {{"R", 600}}, rng);
        auto first = [](std::int64_t n) {
            Tensor m{DType::b1, {600}, std::vector<double>(600)};
            std::fill_n(m.data.begin(), n, 1);
            return m;
        };
        for (auto [n, m] : {std::pair{70, 70}, {70, 71}, {71, 70}, {500, 0}, {0, 500}, {0, 0}}) {
            PoisonedHost host;
            const auto got = run(e, host, {values, first(n), first(m), ones});
            EXPECT_EQ(got.at(static_cast<std::size_t>(p.check)).data[0], n != m) << who << " " << n << " " << m;
            const double want = std::accumulate(values.data.begin(), values.data.begin() + n, 0.0, [](double s, double v) { return s + v * v * v * v; });
            EXPECT_NEAR(n == m ? got[0].data[0] : want, want, 1e-10);
        }
    }
}
// A grid is cut by the capacity: with fewer rows than that, groups walk no shorter runs than it was cut for.
TEST(Bounded, RunsOfRowsTakeAll) {
    Graph g;
    g.name = "runs";
    const Dim R = Dim::symbol("R");
    V x = g.value(g.input({DType::f32, {R, 24}}, "x")), to = g.value(g.input({DType::i64, {R}}, "to")), m = g.value(g.input({DType::b1, {R}}, "m"));
    V at = columns(nonzero(m, "u0"))[0], rows = gather(x, {at});
    g.outputs = {scatter_add({DType::f32, {5, 24}}, {gather(to, {at})}, rows * rows).id};
    for (bool deterministic : {false, true}) {
        Plan p = plan(joint(g, {0, 0, 0}).graph, {}, {.machine = Machine::cuda, .deterministic = deterministic, .bounded = true});
        int walked = 0;
        for (auto& launch : p.loops)
            for (loop::Nest& n : launch)
                if (!n.counted.empty() && loop::run(n) > 1) n.schedule.full = 256 * n.schedule.group, ++walked;
        ASSERT_EQ(walked, 1) << print(p.program);
        const Executable e(p, cuda_on_cpu::target(4));
        const Sizes sizes{{"R", 600}};
        std::mt19937 rng(2);
        std::vector<Tensor> in{random_tensor({DType::f32, {R, 24}}, sizes, rng), random_tensor({DType::i64, {R}}, sizes, rng, 0, 5)};
        for (int n : {600, 511, 400, 1, 0}) {  // two rows each, where there could be 600
            in.resize(2);
            Tensor& first = in.emplace_back(Tensor{DType::b1, {600}, std::vector<double>(600)});
            std::fill_n(first.data.begin(), n, 1);
            PoisonedHost host;
            Sizes bound = sizes;
            ASSERT_NO_FATAL_FAILURE(expect_same(evaluate(g, in, library, bound), {run(e, host, in)[0]}, std::to_string(n)));
        }
    }
}
TEST(Bounded, RefusesWithTheReason) {
    auto refused = [](const std::function<void(Graph&, V)>& f) {
        Graph g;
        g.name = "g";
        V x = g.value(g.input({DType::f32, {Dim::symbol("R")}}, "x"));
        f(g, x);
        try {
            plan(joint(g, {1}).graph, {}, {.bounded = true});
        } catch (const Error& e) {
            return std::string(e.what());
        }
        return std::string("none");
    };
    EXPECT_EQ(refused([](Graph& g, V x) { g.outputs = {gather(x, columns(nonzero(gt(x, zeros_like(x)), "u0"))).id}; }),
              "g: a result has u0 rows, a number that stays in memory: reduce it, or let the host wait");
    EXPECT_EQ(refused([](Graph& g, V x) {
                  V rows = gather(x, columns(nonzero(gt(x, zeros_like(x)), "u0")));
                  g.outputs = {sum(x, {0}).id, sum(g.value(call(g, "aten.exp.default", rows, rows.type(), {{"no_grad", true}})), {0}).id};
              }),
              "g: aten.exp.default is given u0 rows, a number that stays in memory");
}
// Guards of any kind: the run fails where one isn't as at capture, and leaves what it updates as it was.
TEST(Bounded, ARunThatFailsUpdatesNothing) {
    NEEDS_LLVM();
    Graph g;
    g.name = "g";
    const Dim R = Dim::symbol("R");
    V x = g.value(g.input({DType::f64, {R}}, "x")), state = g.value(g.input({DType::f64, {R}}, "state")), turn = g.value(g.input({DType::i64, {}}, "turn"));
    V m = gt(x, zeros_like(x));
    auto places = columns(nonzero(m, "u0"));
    V rows = gather(x, places), products = dot(reshape(rows, {Dim::symbol("u0"), 1}), constant(g, {DType::f64, {1, 3}}, 2));
    g.outputs = {sum(products, {0, 1}).id, call(g, "heddle.guard", turn, turn.type(), {{"value", Dim(3)}}), (state + scatter(x, places, rows * rows)).id};
    const std::vector<Update> updates{{2, 1}};
    const Plan p = plan(joint(g, {0, 0, 0}).graph, {}, {.updates = updates, .bounded = true});
    ASSERT_EQ(p.program.updates, updates) << print(p.program);
    ASSERT_EQ(p.bounds.size(), 1u);
    for (const auto& [who, target] : targets()) {
        const Executable e(p, target);
        for (auto [turn, room] : {std::pair{3, 100}, {4, 100}, {3, 10}}) {
            const Sizes sizes{{"R", 100}};
            std::mt19937 rng(6);
            std::vector<Tensor> in{random_tensor({DType::f64, {R}}, sizes, rng), random_tensor({DType::f64, {R}}, sizes, rng), {DType::i64, {}, {static_cast<double>(turn)}}};
            const bool holds = turn == 3 && room == 100;
            PoisonedHost host;
            std::vector<Array> arrays, out(p.program.graph.outputs.size());
            for (const Tensor& t : in) arrays.push_back(to_array(host, t));
            SizeValues values = e.names().values({{"R", 100}, {"u0_max", room}});
            std::vector<double> told;
            e.run(host, arrays, out, values, [&](const Array& a) { told = to_tensor(a).data; });
            ASSERT_EQ(told.size(), 2u);
            EXPECT_EQ(told[0], !holds) << who;
            EXPECT_EQ(told[1], std::count_if(in[0].data.begin(), in[0].data.end(), [](double v) { return v > 0; }));
            const Tensor after = to_tensor(arrays[1]);
            for (std::size_t k = 0; k < 100; ++k) {
                const double x = in[0].data[k];
                EXPECT_EQ(after.data[k], in[1].data[k] + (holds ? x > 0 ? x * x : x : 0)) << who << k;
            }
            EXPECT_EQ(host.reads, 0);
        }
    }
}

// Few enough for one nest to count them and to list them: the list is made once their number is there.
TEST(Bounded, RowsWaitForTheirNumber) {
    NEEDS_LLVM();
    Graph g;
    g.name = "few";
    V x = g.value(g.input({DType::f64, {1, 2}}, "x")), m = gt(x, like(x, -0.5));
    auto places = columns(nonzero(m, "u0"));
    V rows = gather(x, places), after = scan(like(rows, 0.5), rows, 0, 1, true, 0);
    g.outputs = {scatter(constant(g, {DType::f64, {1, 2}}, 0), places, after).id};
    const Plan p = plan(joint(g, {0}).graph, {}, {.bounded = true});
    ASSERT_EQ(p.bounds.size(), 1u) << print(p.program);
    for (const auto& [who, target] : targets()) {
        const Executable e(p, target);
        for (const std::vector<double>& values : {std::vector{0.3, 0.7}, {0.3, -0.7}, {-0.7, 0.3}, {-0.7, -0.9}}) {
            const std::vector<Tensor> in{{DType::f64, {1, 2}, values}};
            PoisonedHost host;
            auto got = run(e, host, in);
            ASSERT_EQ(got.back().data[0], 0);
            got.pop_back();
            ASSERT_NO_FATAL_FAILURE(expect_same(evaluate(g, in, library), got, who));
        }
    }
}

TEST(Bounded, CompilesForADevice) {
    if (!Nvrtc().available()) GTEST_SKIP() << "no NVRTC";
    const Graph joined = joint(network(true), kWants).graph;
    for (const Plan& p : {plan(joined), plan(joined, {}, {.bounded = true})}) EXPECT_FALSE(Executable(p, {.arch = "sm_90"}).texts().empty());
}


}  // namespace
}  // namespace heddle
