// The road through the core, without a back end: graphs differentiate, split, fuse and lower; values and gradients stay.
#include <gtest/gtest.h>

#include <algorithm>

#include "ir/text.h"
#include "ir/verify.h"
#include "passes/pipeline.h"
#include "passes/prepare.h"
#include "passes/simplify.h"
#include "tests/core/arrays.h"

namespace heddle {
namespace {

// Gradients through differentiate + partition equal central differences of the forward, in double.
void check_gradients(const Graph& g, const Sizes& sizes, double lo = 0.2, double hi = 0.9, double budget = 1) {
    std::mt19937 rng(7);
    std::vector<Tensor> in;
    std::vector<char> wants;
    for (Id i : g.inputs) {
        in.push_back(random_tensor(g.type(i), sizes, rng, lo, hi));
        wants.push_back(g.type(i).dtype == DType::f64);
    }
    Pair pair = forward_and_backward(g, wants, {sizes}, {}, budget);
    auto plain = evaluate(g, in);
    auto forward = evaluate(pair.split.forward, in);
    std::vector<Tensor> seeds;
    for (std::size_t k = 0; k < plain.size(); ++k) {
        ASSERT_EQ(plain[k].sizes, forward[k].sizes);
        for (std::size_t i = 0; i < plain[k].data.size(); ++i) ASSERT_NEAR(plain[k].data[i], forward[k].data[i], 1e-10);
        seeds.push_back(random_tensor({DType::f64, g.type(g.outputs[k]).shape}, sizes, rng));
    }
    std::vector<Tensor> back;
    for (const auto& s : pair.split.backward_inputs)
        back.push_back(s.from == Split::Source::From::input ? in[static_cast<std::size_t>(s.index)]
                       : s.from == Split::Source::From::saved ? forward[plain.size() + static_cast<std::size_t>(s.index)]
                                                              : seeds[static_cast<std::size_t>(s.index)]);
    auto grads = evaluate(lower_folds(pair.split.backward), back);
    auto objective = [&] {
        auto out = evaluate(g, in);
        double sum = 0;
        for (std::size_t k = 0; k < out.size(); ++k)
            for (std::size_t i = 0; i < out[k].data.size(); ++i) sum += out[k].data[i] * seeds[k].data[i];
        return sum;
    };
    for (std::size_t k = 0; k < in.size(); ++k) {
        if (pair.gradients[k] < 0) continue;
        const Tensor& grad = grads[static_cast<std::size_t>(pair.gradients[k])];
        ASSERT_EQ(grad.sizes, in[k].sizes);
        for (std::size_t i = 0; i < in[k].data.size(); ++i) {
            double x = in[k].data[i], h = 1e-6;
            in[k].data[i] = x + h;
            double up = objective();
            in[k].data[i] = x - h;
            double down = objective();
            in[k].data[i] = x;
            ASSERT_NEAR((up - down) / (2 * h), grad.data[i], 1e-6) << g.name << " input " << k << " element " << i;
        }
    }
}

// A transmittance as volume rendering writes it: weights = alpha * cumprod(cat(1, 1 - alpha + eps))[:-1].
Graph rendering() {
    Graph g;
    g.name = "rendering";
    Dim B = Dim::symbol("B"), N = Dim::symbol("N");
    V sigma = g.value(g.input({DType::f64, {B, N}}, "sigma")), rgb = g.value(g.input({DType::f64, {B, N, 3}}, "rgb")), target = g.value(g.input({DType::f64, {B, 3}}, "target"));
    V alpha = 1 - exp(-sigma * 0.7);
    V ones = constant(g, {DType::f64, {B, 1}}, 1);
    V all = concat({ones, 1 - alpha + 1e-10}, 1);
    V t = scan(all, zeros_like(all), 1, 0, false, 1);
    V weights = alpha * slice(t, 1, 0, N);
    V colour = sum(expand(weights, {2}, {B, N, 3}) * rgb, {1});
    V acc = sum(weights, {1});
    V picture = colour + (1 - expand(acc, {1}, {B, 3}));
    V d = picture - target;
    V loss = sum(d * d, {0, 1}) / size(g, {DType::f64, {}}, B * 3);
    g.outputs = {loss.id, weights.id};
    return g;
}

TEST(Pipeline, VolumeRendering) {
    Graph g = rendering();
    EXPECT_EQ(parse(print(g)), g);
    check_gradients(g, {{"B", 2}, {"N", 5}});
    Pair pair = forward_and_backward(g, {1, 1, 0}, {{{"B", 4096}, {"N", 221}}});
    Plan f = plan(pair.split.forward), b = plan(pair.split.backward);
    RecordProperty("forward", print(f.program));
    EXPECT_LE(f.program.launches.size(), 3u) << print(f.program);
    EXPECT_LE(b.program.launches.size(), 2u) << print(b.program);
}

TEST(Pipeline, Softmax) {
    Graph g;
    Dim B = Dim::symbol("B"), N = Dim::symbol("N");
    V x = g.value(g.input({DType::f64, {B, N}}, "x"));
    V m = stop_grad(expand(amax(x, {1}), {1}, {B, N}));
    V e = exp(x - m);
    g.outputs = {(e / expand(sum(e, {1}), {1}, {B, N})).id};
    check_gradients(g, {{"B", 3}, {"N", 4}});
    Plan f = plan(g);
    EXPECT_EQ(f.program.launches.size(), 1u) << print(f.program);
    EXPECT_EQ(f.loops[0].size(), 1u);
}

// Less is kept, as was asked for where that is possible; gradients stay.
TEST(Pipeline, ActivationMemoryBudget) {
    Graph g;
    g.name = "perceptron";
    const Dim B = Dim::symbol("B");
    V x = g.value(g.input({DType::f64, {B, 3}}, "x")), w = g.value(g.input({DType::f64, {6, 8}}, "w")), v = g.value(g.input({DType::f64, {8, 8}}, "v"));
    V u = g.value(g.input({DType::f64, {8, 2}}, "u"));
    V h = sigmoid(dot(concat({sin(x * 3), cos(x * 3)}, 1), w));
    h = sigmoid(dot(h, v));
    g.outputs = {dot(h, u).id};
    const Sizes sizes{{"B", 4096}};
    auto kept = [&](double budget) {
        const Split s = forward_and_backward(g, {1, 1, 1, 1}, {sizes}, {}, budget).split;
        double sum = 0;
        for (std::size_t k = g.outputs.size(); k < s.forward.outputs.size(); ++k) {
            const Type& t = s.forward.type(s.forward.outputs[k]);
            sum += bytes(t.dtype) * static_cast<double>(numel(t.shape).eval(sizes));
        }
        return sum;
    };
    const double all = kept(1);
    EXPECT_GT(all, 0);
    for (double budget : {0.9, 0.7, 0.5, 0.3, 0.0}) {
        EXPECT_LE(kept(budget), budget * all) << budget;
        check_gradients(g, {{"B", 3}}, 0.2, 0.9, budget);
    }
    EXPECT_GT(kept(0.7), 0);  // no less than was asked for
}

TEST(Pipeline, GatherScatter) {
    Graph g;
    Dim M = Dim::symbol("M");
    V plane = g.value(g.input({DType::f64, {4, 3, 5}}, "plane"));
    V x = g.value(g.input({DType::f64, {M}}, "x"));
    V i = cast(floor(x * 2.5), DType::i64), j = cast(floor(x * 4), DType::i64);
    V rows = gather(permute(plane, {1, 2, 0}), {i, j});
    V next = gather(permute(plane, {1, 2, 0}), {j * 0.0, i});
    g.outputs = {sum(rows * next * expand(x, {1}, {M, 4}), {1}).id};
    check_gradients(g, {{"M", 7}});
    Pair pair = forward_and_backward(g, {1, 0}, {{{"M", 1000}}});
    Plan b = plan(pair.split.backward);
    EXPECT_LE(b.program.launches.size(), 2u) << print(b.program);
}

TEST(Pipeline, PadSliceConcatFlip) {
    Graph g;
    Dim N = Dim::symbol("N");
    V x = g.value(g.input({DType::f64, {3, N}}, "x"));
    V d = slice(x, 1, 1, N) - slice(x, 1, 0, N - 1);
    V c = concat({d * d, flip(x, 1), pad(d, 1, 2, 1)}, 1);
    g.outputs = {sum(c * c, {0, 1}).id, reshape(c, {numel(c.type().shape)}).id};
    check_gradients(g, {{"N", 5}});
    Plan p = plan(g);
    EXPECT_LE(p.program.launches.size(), 2u) << print(p.program);
}

// A stack, written as a concat of rows that is reshaped, is a concat along the stack's axis, whatever the sizes.
TEST(Pipeline, ReshapedConcatIsAConcatOfParts) {
    Graph g;
    Dim n = Dim::symbol("N"), m = Dim::symbol("M");
    std::mt19937 rng(5);
    std::vector<Tensor> values;
    auto in = [&](Shape s) {
        V v = g.value(g.input({DType::f64, s}, "x" + std::to_string(g.inputs.size())));
        values.push_back(random_tensor(v.type(), {{"M", 5}, {"N", 2}}, rng, -3, 3));
        return v;
    };
    V a = in({n, 3}), b = in({n, 3}), c = in({m, 3}), d = in({4, n}), e = in({4, 2 * n});
    g.outputs = {reshape(concat({a, b, a}, 0), {3, n, 3}).id, reshape(concat({a, c}, 0), {n + m, 1, 3}).id, reshape(concat({d, e}, 1), {4, 3, n}).id,
                 reshape(concat({d, e}, 1), {2, 2, 3, n}).id, reshape(concat({a, c}, 0), {3 * n + 3 * m}).id, reshape(concat({a, b}, 0), {n, 2, 3}).id};
    Graph s = simplify(g);
    verify(s, "simplify");
    for (std::size_t k : {0, 1, 2, 3, 4}) EXPECT_TRUE(s[s.outputs[k]].is(Op::concat)) << print(s);
    EXPECT_TRUE(s[s.outputs[5]].is(Op::reshape)) << "rows of both parts alternate";
    EXPECT_EQ(simplify(s), s);
    auto x = evaluate(g, values), y = evaluate(s, values);
    for (std::size_t k = 0; k < x.size(); ++k) {
        EXPECT_EQ(x[k].sizes, y[k].sizes);
        EXPECT_EQ(x[k].data, y[k].data);
    }
}
// Without a derivative, what no gradient passes stands in no one's way: the parts of a concat are written apart.
TEST(Pipeline, ADetachedConcatIsWrittenInParts) {
    Graph g;
    Dim n = Dim::symbol("N");
    V x = g.value(g.input({DType::f32, {n, 3}}, "x")), y = g.value(g.input({DType::f32, {n, 45}}, "y"));
    g.outputs = {stop_grad(concat({x, y}, 1)).id, stop_grad(x).id};
    Plan p = plan(g);
    std::vector<int> pieces;
    for (const Nest& nest : p.program.launches.at(0).nests) pieces.push_back(nest.piece);
    std::sort(pieces.begin(), pieces.end());
    EXPECT_EQ(pieces, (std::vector{-1, 0, 1})) << print(p.program);
    for (Id id : p.program.graph.outputs) EXPECT_FALSE(p.program.graph[id].is(Op::input)) << "an output is a value of its own";
}
TEST(Pipeline, SumsOfAllPointsAddInAnyOrder) {
    auto planned = [](const char* text) { return plan(parse(text)); };
    EXPECT_EQ(adds_in_any_order(planned("graph @f(%0 \"x\": f32[64, 3]) {\n  %1 = sum %0, axes=[0, 1] : f32[]\n  return %1\n}\n")), "f_0");
    EXPECT_EQ(adds_in_any_order(planned("graph @f(%0 \"x\": f32[64, 300]) {\n  %1 = sum %0, axes=[1] : f32[64]\n  return %1\n}\n")), "");
    EXPECT_EQ(adds_in_any_order(planned("graph @f(%0 \"x\": i64[64, 3]) {\n  %1 = sum %0, axes=[0, 1] : i64[]\n  return %1\n}\n")), "");
}
// Points of several axes are one where every address is that of a whole element.
TEST(Pipeline, WholeElementsAreOneAxis) {
    auto outer = [](const char* text) { return plan(parse(text)).loops.at(0).at(0).outer; };
    EXPECT_EQ(outer("graph @f(%0 \"x\": f32[B, 3], %1 \"y\": f32[B, 3]) {\n  %2 = mul %0, %1 : f32[B, 3]\n  return %2\n}\n"), Shape{parse_dim("3*B")});
    EXPECT_EQ(outer("graph @f(%0 \"x\": f32[B, 1, 3]) {\n  %1 = reshape %0, shape=[B, 3] : f32[B, 3]\n  %2 = exp %1 : f32[B, 3]\n  return %2\n}\n"), Shape{parse_dim("3*B")});
    // Of a part of a concat, what lies together on both sides.
    EXPECT_EQ(outer("graph @f(%0 \"x\": f32[B, 1, 3], %1 \"y\": f32[B, 15, 3]) {\n  %2 = concat %1, %0, axis=1 : f32[B, 16, 3]\n  return %2\n}\n"), (Shape{parse_dim("B"), 45}));
    EXPECT_EQ(outer("graph @f(%0 \"x\": f32[B, 16, 3]) {\n  %1 = slice %0, axis=1, start=1, end=16 : f32[B, 15, 3]\n  %2 = exp %1 : f32[B, 15, 3]\n  return %2\n}\n"), (Shape{parse_dim("B"), 45}));
    // A row's own value is needed by itself.
    EXPECT_EQ(outer("graph @f(%0 \"x\": f32[B, 3], %1 \"y\": f32[B]) {\n  %2 = expand %1, axes=[1] : f32[B, 3]\n  %3 = mul %0, %2 : f32[B, 3]\n  return %3\n}\n"), Shape{parse_dim("B")});
    EXPECT_EQ(outer("graph @f(%0 \"x\": f32[B, 30]) {\n  %1 = permute %0, axes=[1, 0] : f32[30, B]\n  %2 = exp %1 : f32[30, B]\n  return %2\n}\n").size(), 2u);
}
TEST(Rules, EachFiresAndKeepsValues) {
    for (const Rule& r : rules()) SCOPED_TRACE(r.name);
    EXPECT_GE(rules().size(), 15u);
}

}  // namespace
}  // namespace heddle
