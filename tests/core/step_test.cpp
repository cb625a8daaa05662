// Whole steps, whose updates lie over their inputs: LLVM and CUDA text on the CPU against the interpreter, run after run.
// Law: what a plan reads of an input that it updates is what was there before.
#include "passes/step.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "tests/core/nest_builder.h"
#include "tests/cuda_on_cpu/oracles.h"

namespace heddle {
namespace {

using cuda_on_cpu::expect_same;

std::vector<std::pair<std::string, Target>> targets() { return {{"LLVM", {}}, {"CUDA on the CPU", cuda_on_cpu::target(3)}}; }

// Runs the plan `times` times over its own updates beside the interpreter, which is handed them back.
void runs_as_interpreted(const Graph& g, const std::vector<Update>& updates, std::vector<Tensor> in, const Sizes& sizes, int times, bool bounded = false) {
    const Plan p = plan(g, {}, {.updates = updates, .bounded = bounded});
    for (const auto& [who, target] : targets()) {
        const Executable e(p, target);
        auto host = plain_host(who == "LLVM" ? 2 : 1);
        std::vector<Array> arrays;
        std::vector<Tensor> now = in;
        for (const Tensor& t : in) arrays.push_back(to_array(*host, t));
        for (int i = 0; i < times; ++i) {
            SCOPED_TRACE(fmt::format("{}, run {}\n{}", who, i, print(p.program)));
            const auto want = evaluate(g, now, {}, sizes);
            std::vector<Array> out(p.program.graph.outputs.size());
            SizeValues values = e.names().values(sizes);
            ASSERT_NO_THROW(e.run(*host, arrays, out, values));
            std::vector<Tensor> got;
            for (std::size_t k = 0; k < g.outputs.size(); ++k) got.push_back(to_tensor(out[k]));
            ASSERT_NO_FATAL_FAILURE(expect_same(want, got, "outputs"));
            for (const Update& u : updates) {
                const auto input = static_cast<std::size_t>(u.input), output = static_cast<std::size_t>(u.output);
                now[input] = want[output];
                const auto& done = p.program.updates;
                if (std::find(done.begin(), done.end(), u) == done.end()) arrays[input] = to_array(*host, now[input]);  // the caller's copy
            }
        }
    }
}
std::vector<Tensor> inputs_of(const Graph& g, const Sizes& sizes) {
    std::vector<Tensor> in;
    std::mt19937 rng(8);
    for (Id i : g.inputs) in.push_back(random_tensor(g.type(i), sizes, rng));
    return in;
}

TEST(Updates, AreWhatOthersReadOnceTheyAreThere) {
    NEEDS_LLVM();
    for (bool doubled : {false, true}) {
        Graph g;
        V x = g.value(g.input({DType::f64, {70}}, "x")), y = g.value(g.input({DType::f64, {70}}, "y"));
        V next = x + sin(y);
        g.outputs = {next.id, sum(next * x, {0}).id, scan(like(next, 1), next * (doubled ? x : y), 0, 0, false, 0).id};
        runs_as_interpreted(g, {{0, 0}}, inputs_of(g, {}), {}, 3);
    }
}
TEST(Updates, ThatAProductReads) {
    NEEDS_LLVM();
    Graph g;
    V x = g.value(g.input({DType::f64, {6, 5}}, "x")), w = g.value(g.input({DType::f64, {5, 4}}, "w"));
    V next = x * 0.5 + like(x, 0.1);
    V y = dot(next, w);
    g.outputs = {next.id, sum(y * y, {0, 1}).id, (x + next).id};
    runs_as_interpreted(g, {{0, 0}}, inputs_of(g, {}), {}, 3);
}
TEST(Updates, OfWhatIsReadAtOtherPlaces) {
    NEEDS_LLVM();
    Graph g;
    V x = g.value(g.input({DType::f64, {30, 8}}, "x")), y = g.value(g.input({DType::f64, {30, 8}}, "y"));
    g.outputs = {(flip(x, {0}) + y).id, (y + flip(x, {1})).id, sum(x * y, {1}).id};
    runs_as_interpreted(g, {{0, 0}, {1, 1}}, inputs_of(g, {}), {}, 3);
}

// A network over all rows, and one over those that a mask selects; forward, backward, Adam, counted by the plan or not.
TEST(WholeStep, OfANetworkWithAMask) {
    NEEDS_LLVM();
    Graph g;
    g.name = "net";
    const Dim R = Dim::symbol("R"), u = Dim::symbol("u0");
    V x = g.value(g.input({DType::f64, {R, 5}}, "x")), w = g.value(g.input({DType::f64, {5, 3}}, "w")), v = g.value(g.input({DType::f64, {3, 4}}, "v"));
    V bias = g.value(g.input({DType::f64, {4}}, "bias")), unused = g.value(g.input({DType::f64, {7}}, "unused"));
    V y = tanh(dot(x, w)), first = reshape(slice(y, 1, 0, 1), {R}), mask = gt(first, like(first, 0.2));
    Attrs attrs{{"name", "aten.nonzero.default"}, {"self", Ref{0}}};
    V places = g.value(g.add({.op = Op::call, .in = {mask.id}, .attrs = std::move(attrs), .type = {DType::i64, {u, 1}}, .more = {}, .loc = {}}));
    V z = dot(gather(y, {reshape(places, {u})}), v) + expand(bias, {0}, {u, 4});
    g.outputs = {(sum(z * z, {0, 1}) + sum(y * y, {0, 1}) + sum(unused, {0}) * 0.0).id};
    const Pair pair = forward_and_backward(g, {0, 1, 1, 1, 0}, {});
    const Sizes sizes{{"R", 90}};
    for (bool counts : {false, true})
        for (bool bounded : {false, true}) {
            SCOPED_TRACE(fmt::format("counts {}, bounded {}", counts, bounded));
            std::vector<Trained> trained{{1, 0, true, {}}, {2, 2, true, {.weight_decay = true}}, {3, 1, true, {.weight_decay = true, .decoupled = true, .amsgrad = true}}};
            const WholeStep step = whole_step(pair, 1, 0, trained, 3, counts);
            ASSERT_EQ(step.updates.size(), 10u + counts);
            auto in = inputs_of(step.graph, sizes);
            Tensor& numbers = in[5];
            for (std::size_t k = 0; k < 3; ++k) {
                const double lr = 1e-2, beta1 = 0.9, beta2 = 0.99, eps = 1e-8, decay = 0.05;
                const std::vector<double> options{lr, beta1, beta2, eps, decay, 1}, row{lr, 1, 1 - beta1, beta2, 1 - beta2, eps, decay, 1 - lr * decay};
                std::copy_n((counts ? options : row).begin(), numbers.sizes[1], numbers.data.begin() + static_cast<std::ptrdiff_t>(k) * numbers.sizes[1]);
            }
            for (std::size_t k = step.states - counts; k < in.size(); ++k)
                for (double& d : in[k].data) d = k < step.states ? 3 : std::abs(d);
            runs_as_interpreted(step.graph, step.updates, in, sizes, 3, bounded);
        }
}
// The plan's own numbers are those of the host.
TEST(WholeStep, CountsAsTheHostDoes) {
    NEEDS_LLVM();
    Graph g;
    V p = g.value(g.input({DType::f64, {9}}, "p"));
    g.outputs = {sum(p * p * p, {0}).id};
    const Pair pair = forward_and_backward(g, {1}, {});
    const std::vector<Trained> trained{{0, 0, true, {.weight_decay = true}}};
    const WholeStep told = whole_step(pair, 1, 0, trained, 1), counted = whole_step(pair, 1, 0, trained, 1, true);
    auto a = inputs_of(told.graph, {});
    std::vector<Tensor> b{a[0], {DType::f64, {1, kAdamOptions}, {2e-3, 0.8, 0.95, 1e-6, 0.01, 1}}, {DType::f32, {1}, {0}}, a[2], a[3]};
    for (double& d : a[3].data) d = std::abs(d);
    b[4] = a[3];
    for (int t = 1; t <= 40; ++t) {
        a[1].data = {2e-3 / (1 - std::pow(0.8, t)), 1 / std::sqrt(1 - std::pow(0.95, t)), 1 - 0.8, 0.95, 1 - 0.95, 1e-6, 0.01, 1 - 2e-3 * 0.01};
        const auto x = evaluate(told.graph, a), y = evaluate(counted.graph, b);
        a[0] = x[1], a[2] = x[2], a[3] = x[3];
        b[2] = y[1], b[0] = y[2], b[3] = y[3], b[4] = y[4];
        EXPECT_EQ(b[2].data[0], t);
        for (std::size_t k = 0; k < 9; ++k) EXPECT_NEAR(a[0].data[k], b[0].data[k], 1e-14);
    }
}

}  // namespace
}  // namespace heddle
