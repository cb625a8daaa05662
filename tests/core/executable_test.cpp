// Compiled plans equal the reference interpreter: values at several sizes and thread counts, forward and backward.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>
#include <thread>

#include "ir/text.h"
#include "passes/pipeline.h"
#include "runtime/executable.h"
#include "tests/core/arrays.h"
#include "tests/cuda_on_cpu/launcher.h"

namespace heddle {
namespace {

void check(const Graph& g, const std::vector<Sizes>& all_sizes, double lo = 0.1, double hi = 0.9) {
    std::vector<char> wants;
    for (Id i : g.inputs) wants.push_back(is_float(g.type(i).dtype));
    Pair pair = forward_and_backward(g, wants, {all_sizes[0]});
    Plan plans[2] = {plan(pair.split.forward), {}};
    if (pair.has_backward) plans[1] = plan(pair.split.backward);
    cuda_on_cpu::compile_ahead({&plans[0], &plans[1]});
    struct Way {
        const char* name;
        Target target;
        int threads;
        std::size_t sizes;  // how many of them
    };
    for (const Way& way : {Way{"LLVM", {}, 1, all_sizes.size()}, Way{"LLVM", {}, 3, all_sizes.size()}, Way{"CUDA on the CPU", cuda_on_cpu::target(), 1, 2}}) {
        const int threads = way.threads;
        Executable forward(plans[0], way.target);
        std::unique_ptr<Executable> backward;
        if (pair.has_backward) backward = std::make_unique<Executable>(plans[1], way.target);
        for (std::size_t n = 0; n < std::min(way.sizes, all_sizes.size()); ++n) {
            const Sizes& sizes = all_sizes[n];
            SCOPED_TRACE(fmt::format("{}, {}, threads {}", way.name, g.name, threads));
            auto host = plain_host(threads);
            std::mt19937 rng(3);
            std::vector<Tensor> in;
            std::vector<Array> arrays;
            for (Id i : g.inputs) in.push_back(random_tensor(g.type(i), sizes, rng, lo, hi)), arrays.push_back(to_array(*host, in.back()));
            auto want = evaluate(pair.split.forward, in);
            Sizes bound;
            auto got = forward.run(*host, arrays, bound);
            ASSERT_EQ(want.size(), got.size());
            for (std::size_t k = 0; k < want.size(); ++k) expect_near(want[k], to_tensor(got[k]), "output " + std::to_string(k) + "\n" + print(forward.plan().program));
            if (!backward) continue;
            std::vector<Tensor> back;
            std::vector<Array> back_arrays;
            for (const auto& s : pair.split.backward_inputs) {
                auto i = static_cast<std::size_t>(s.index);
                if (s.from == Split::Source::From::input) back.push_back(in[i]);
                else if (s.from == Split::Source::From::saved) back.push_back(want[want.size() - pair.split.saved + i]);
                else back.push_back(random_tensor(g.type(g.outputs[i]), sizes, rng, -1, 1));
                back_arrays.push_back(to_array(*host, back.back()));
            }
            auto grads = evaluate(pair.split.backward, back);
            bound.clear();
            auto fused = backward->run(*host, back_arrays, bound);
            for (std::size_t k = 0; k < grads.size(); ++k) expect_near(grads[k], to_tensor(fused[k]), "gradient " + std::to_string(k) + "\n" + print(backward->plan().program));
        }
    }
}

class InDType : public testing::TestWithParam<DType> {};
INSTANTIATE_TEST_SUITE_P(Floats, InDType, testing::Values(DType::f32, DType::f64), [](const auto& i) { return std::string(name(i.param)); });

TEST_P(InDType, VolumeRendering) {
    DType f = GetParam();
    Graph g;
    Dim B = Dim::symbol("B"), N = Dim::symbol("N");
    V sigma = g.value(g.input({f, {B, N}}, "sigma")), rgb = g.value(g.input({f, {B, N, 3}}, "rgb")), target = g.value(g.input({f, {B, 3}}, "target"));
    V alpha = 1 - exp(-sigma * 0.7);
    V all = concat({constant(g, {f, {B, 1}}, 1), 1 - alpha + 1e-10}, 1);
    V weights = alpha * slice(scan(all, zeros_like(all), 1, 0, false, 1), 1, 0, N);
    V colour = sum(expand(weights, {2}, {B, N, 3}) * rgb, {1}), acc = sum(weights, {1});
    V d = colour + (1 - expand(acc, {1}, {B, 3})) - target;
    g.outputs = {(sum(d * d, {0, 1}) / size(g, {f, {}}, B * 3)).id, weights.id, gt(weights, like(weights, 0.05)).id};
    check(g, {{{"B", 5}, {"N", 7}}, {{"B", 1}, {"N", 1}}, {{"B", 37}, {"N", 33}}, {{"B", 64}, {"N", 100}}});
}
TEST_P(InDType, Softmax) {
    DType f = GetParam();
    Graph g;
    Dim B = Dim::symbol("B"), N = Dim::symbol("N");
    V x = g.value(g.input({f, {B, N}}, "x"));
    V e = exp(x - stop_grad(expand(amax(x, {1}), {1}, {B, N})));
    g.outputs = {(e / expand(sum(e, {1}), {1}, {B, N})).id};
    check(g, {{{"B", 3}, {"N", 4}}, {{"B", 17}, {"N", 65}}, {{"B", 1}, {"N", 1}}});
}
TEST_P(InDType, PlaneSampling) {
    DType f = GetParam();
    Graph g;
    Dim M = Dim::symbol("M"), H = Dim::symbol("H");
    V plane = g.value(g.input({f, {24, H, 5}}, "plane")), line = g.value(g.input({f, {24, H, 3}}, "line")), basis = g.value(g.input({f, {24}}, "basis"));
    V x = g.value(g.input({f, {M}}, "x"));
    V i = cast(floor(x * size(g, Type(x.type()), H - 1)), DType::i64), j = cast(floor(x * 4), DType::i64), k = cast(floor(x * 2), DType::i64);
    V a = gather(permute(plane, {1, 2, 0}), {i, j}), b = gather(permute(plane, {1, 2, 0}), {i, j + 1}), c = gather(permute(line, {1, 2, 0}), {i, k});
    V wx = expand(x, {1}, {M, 24});
    V feature = (a * wx + b * (1 - wx)) * c * expand(basis, {0}, {M, 24});
    g.outputs = {sum(feature, {1}).id};
    check(g, {{{"M", 300}, {"H", 6}}, {{"M", 1}, {"H", 2}}, {{"M", 0}, {"H", 4}}});
}
TEST_P(InDType, TotalVariation) {
    DType f = GetParam();
    Graph g;
    Dim R = Dim::symbol("R"), T = Dim::symbol("T");
    std::vector<V> planes = {g.value(g.input({f, {1, 4, R, R}}, "a")), g.value(g.input({f, {1, 4, R, T}}, "b"))};
    V loss = constant(g, {f, {}}, 0);
    for (V p : planes) {
        auto s = p.type().shape;
        V h = slice(p, 2, 1, s[2]) - slice(p, 2, 0, s[2] - 1), w = slice(p, 3, 1, s[3]) - slice(p, 3, 0, s[3] - 1);
        loss = loss + sum(h * h, {0, 1, 2, 3}) * 0.5 + sum(w * w, {0, 1, 2, 3}) * 2;
    }
    g.outputs = {loss.id};
    check(g, {{{"R", 9}, {"T", 5}}, {{"R", 33}, {"T", 16}}});
    Pair pair = forward_and_backward(g, {1, 1}, {});
    EXPECT_LE(plan(pair.split.forward).program.launches.size(), 2u);
    EXPECT_LE(plan(pair.split.backward).program.launches.size(), 1u);
}
TEST_P(InDType, LayerNormDotConcat) {
    DType f = GetParam();
    Graph g;
    Dim K = Dim::symbol("K");
    V x = g.value(g.input({f, {K, 12}}, "x")), w = g.value(g.input({f, {7, 12}}, "w")), bias = g.value(g.input({f, {7}}, "bias"));
    V mean = sum(x, {1}) / 12, d = x - expand(mean, {1}, {K, 12});
    V y = d * expand(rsqrt(sum(d * d, {1}) / 12 + 1e-3), {1}, {K, 12});
    V z = dot(y, transpose(w)) + expand(bias, {0}, {K, 7});
    V out = concat({z, sin(z), slice(y, 1, 2, 5)}, 1);
    g.outputs = {out.id};
    check(g, {{{"K", 6}}, {{"K", 100}}, {{"K", 0}}});
}

TEST_P(InDType, ConcatOfAScan) {  // its part is read from memory, at all elements
    DType f = GetParam();
    Graph g;
    Dim B = Dim::symbol("B");
    V x = g.value(g.input({f, {B, B, 5}}, "x"));
    g.outputs = {concat({x * 2, scan(x, x, 0, 1, false, 1)}, 2).id};
    check(g, {{{"B", 3}}, {{"B", 17}}});
}
TEST(Masks, RowsStoredByAllThreads) {
    Graph g;
    Dim N = Dim::symbol("N"), M = Dim::symbol("M");
    V mask = g.value(g.input({DType::b1, {N}}, "mask")), rows = g.value(g.input({DType::b1, {M}}, "rows"));
    g.outputs = {scatter(mask, {iota(g, {DType::i64, {M}}, 0)}, rows).id, scatter_add({DType::b1, {3}}, {mod(iota(g, {DType::i64, {M}}, 0), constant(g, {DType::i64, {M}}, 3))}, rows).id};
    check(g, {{{"N", 900}, {"M", 800}}, {{"N", 5}, {"M", 4}}, {{"N", 5}, {"M", 0}}});
}
TEST(Scan, RoundsOnceHoweverLong) {
    Graph g;
    V x = g.value(g.input({DType::f32, {Dim::symbol("N")}}, "x"));
    g.outputs = {scan(like(x, 1), x, 0, 0, false, 0).id};
    Executable e(plan(g));
    auto host = plain_host();
    const std::int64_t n = 100000;
    Tensor in{DType::f32, {n}, std::vector<double>(static_cast<std::size_t>(n), static_cast<double>(0.1f))};
    Sizes bound;
    double last = to_tensor(e.run(*host, {to_array(*host, in)}, bound)[0]).data.back();
    EXPECT_EQ(last, static_cast<double>(static_cast<float>(static_cast<double>(0.1f) * static_cast<double>(n))));
}

// ---- what a run is told, and what several do at once
std::string error_of(const std::function<void()>& f) {
    try {
        f();
    } catch (const Error& e) {
        return e.what();
    }
    return "none";
}
Array filled(Host& host, const Extents& sizes, float value = 1) {
    Array a = host.allocate(DType::f32, sizes);
    std::fill_n(static_cast<float*>(a.data), a.numel(), value);
    return a;
}
TEST(Run, SaysWhichSizeIsWrong) {
    Graph g;
    Dim B = Dim::symbol("B"), N = Dim::symbol("N");
    V a = g.value(g.input({DType::f32, {B * N, 3}}, "a")), b = g.value(g.input({DType::f32, {B}}, "b")), c = g.value(g.input({DType::f32, {N, B}}, "c"));
    g.outputs = {sum(a, {0, 1}).id, sum(b, {0}).id, sum(c, {0, 1}).id};
    Executable e(plan(g));
    auto host = plain_host();
    const std::string remedy = ": fuse again, or name this dimension as one that varies";
    auto run = [&](const Extents& x, const Extents& y, const Extents& z, Sizes sizes = {}) {
        return error_of([&] { e.run(*host, {filled(*host, x), filled(*host, y), filled(*host, z)}, sizes); });
    };
    EXPECT_EQ(run({8, 3}, {4}, {2, 4}), "none");
    EXPECT_EQ(run({8, 3}, {4}, {2, 4}, {{"N", 2}}), "none");
    EXPECT_EQ(run({0, 3}, {0}, {2, 0}), "none");
    EXPECT_EQ(run({8, 2}, {4}, {2, 4}), "input a: size 3 of dimension 1 is 2, expected 3" + remedy);
    EXPECT_EQ(run({9, 3}, {4}, {2, 4}), "input a: size B*N of dimension 0 is 9, expected 8" + remedy);
    EXPECT_EQ(run({8, 3}, {4}, {2, 5}), "input c: size B of dimension 1 is 5, expected 4" + remedy);
    EXPECT_EQ(run({8, 3}, {4}, {2, 4}, {{"N", 3}}), "input c: size N of dimension 0 is 2, expected 3" + remedy);
    EXPECT_EQ(run({8, 3}, {4, 1}, {2, 4}), "input b: got 2 dimensions, expected [B]" + remedy);
    Sizes sizes;
    EXPECT_EQ(error_of([&] { e.run(*host, {filled(*host, {8, 3})}, sizes); }), "f: got 1 inputs, expected 3");
    EXPECT_EQ(error_of([&] { e.run(*host, {filled(*host, {8, 3}), host->allocate(DType::f64, {4}), filled(*host, {2, 4})}, sizes); }),
              "input b: got f64, expected f32: capture again for another dtype");
}
TEST(Run, SizesThatNothingBindsAreGiven) {
    Graph g;
    V x = g.value(g.input({DType::f32, {Dim::symbol("B")}}, "x"));
    g.outputs = {expand(sum(x, {0}), {0}, {Dim::symbol("M") + 1}).id};
    Executable e(plan(g), {}, {"Z", "M"});  // names in the order of another plan
    EXPECT_EQ(e.names().list()[1], "M");
    auto host = plain_host();
    Sizes sizes;
    EXPECT_EQ(error_of([&] { e.run(*host, {filled(*host, {4})}, sizes); }), "f: size M has no value");
    sizes["M"] = 2;
    EXPECT_EQ(to_tensor(e.run(*host, {filled(*host, {4})}, sizes)[0]).data, std::vector<double>(3, 4));
    EXPECT_EQ(sizes, (Sizes{{"B", 4}, {"M", 2}}));
}
TEST(Run, OutputsThatAreInputsOrEachOther) {
    Graph g;
    V x = g.value(g.input({DType::f32, {3}}, "x")), y = exp(x);
    g.outputs = {y.id, x.id, y.id};
    Executable e(plan(g));
    auto host = plain_host();
    Sizes sizes;
    auto in = filled(*host, {3});
    auto out = e.run(*host, {in}, sizes);
    EXPECT_EQ(out[1].data, in.data);
    EXPECT_EQ(out[2].data, out[0].data);
    EXPECT_EQ(e.same_input(0), -1);
    EXPECT_EQ(e.same_input(1), 0);
    EXPECT_EQ(e.first_same(2), 0u);
}
TEST(Run, FromSeveralThreadsAtOnce) {  // of two stretches, with an arena, each thread at sizes of its own that change
    Graph g;
    Dim B = Dim::symbol("B"), N = Dim::symbol("N");
    V x = g.value(g.input({DType::f32, {B, N}}, "x")), w = g.value(g.input({DType::f32, {N, N}}, "w"));
    V centred = x - expand(sum(x, {1}), {1}, {B, N}), product = dot(exp(centred), w);
    g.outputs = {sum(product * product, {1}).id, sum(centred, {0}).id};
    Executable e(plan(g));
    std::atomic<int> wrong{0};
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t)
        threads.emplace_back([&, t] {
            auto host = plain_host(1 + t % 2 * 2);
            std::mt19937 rng(static_cast<unsigned>(t));
            for (int i = 0; i < 50; ++i) {
                Sizes sizes{{"B", 1 + (t * 7 + i) % 5}, {"N", (t + i / 3) % 6}}, bound;
                std::vector<Tensor> in{random_tensor(g.type(g.inputs[0]), sizes, rng, -0.3, 0.3), random_tensor(g.type(g.inputs[1]), sizes, rng, -1, 1)};
                auto want = evaluate(g, in);
                auto got = e.run(*host, {to_array(*host, in[0]), to_array(*host, in[1])}, bound);
                for (std::size_t k = 0; k < want.size(); ++k)
                    for (std::size_t j = 0; j < want[k].data.size(); ++j) wrong += !(std::fabs(to_tensor(got[k]).data[j] - want[k].data[j]) < 1e-4);
            }
        });
    for (auto& t : threads) t.join();
    EXPECT_EQ(wrong, 0);
}
TEST(Run, TellsWhatItMoved) {
    Graph g;
    Dim B = Dim::symbol("B");
    V x = g.value(g.input({DType::f32, {B, 4}}, "x"));
    g.outputs = {sum(dot(sin(x), transpose(cos(x))), {0, 1}).id};
    Executable e(plan(g));
    Stats s = e.stats(e.names().values({{"B", 10}}));
    EXPECT_EQ(s.calls, 1);
    EXPECT_EQ(s.launches, static_cast<int>(e.plan().program.launches.size()));
    EXPECT_GE(s.arena, 2 * 10 * 4 * 4);  // sin and cos of x
    EXPECT_GE(s.bytes, (3 * 10 * 4 + 10 * 10 + 1) * 4);
    EXPECT_GT(e.stats(e.names().values({{"B", 20}})).bytes, s.bytes);
}

// A scatter and sums of many points: by default a thread adds up its share, so that the number of threads shows in the last bits.
TEST(Deterministic, AnyNumberOfThreadsGivesTheSameBits) {
    Graph g;
    const Dim N = Dim::symbol("N");
    V x = g.value(g.input({DType::f32, {N, 5}}, "x")), at = g.value(g.input({DType::f32, {N}}, "at"));
    V to = cast(floor(at * 7.0), DType::i64);
    g.outputs = {scatter_add({DType::f32, {7, 5}}, {to}, sin(x)).id, sum(x * x, {0}).id, sum(x, {0, 1}).id};
    const Sizes sizes{{"N", 5003}};
    std::mt19937 rng(3);
    std::vector<Tensor> in;
    for (Id i : g.inputs) in.push_back(random_tensor(g.type(i), sizes, rng, 0.1, 0.9));
    auto values = [&](bool deterministic, int threads) {
        Plan p = plan(g);
        p.deterministic = deterministic;
        const Executable e(std::move(p));
        auto host = plain_host(threads);
        std::vector<Array> arrays;
        for (const Tensor& t : in) arrays.push_back(to_array(*host, t));
        std::vector<double> all, again;
        for (auto* into : {&all, &again}) {
            Sizes bound;
            for (const Array& a : e.run(*host, arrays, bound))
                for (double v : to_tensor(a).data) into->push_back(v);
        }
        EXPECT_EQ(all, again) << threads << " threads, run again";
        return all;
    };
    const auto one = values(true, 1);
    for (int threads : {2, 3, 8, 13}) EXPECT_EQ(one, values(true, threads)) << threads << " threads";
    EXPECT_NE(values(false, 1), values(false, 3)) << "the order of additions is nobody's concern here";
    const auto want = evaluate(g, in, {}, sizes);
    std::size_t k = 0;
    for (const Tensor& t : want)
        for (double v : t.data) EXPECT_NEAR(one[k++], v, 1e-5 * (1 + std::fabs(v)));
}

}  // namespace
}  // namespace heddle
