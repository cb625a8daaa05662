// Calls to the library inside a region: their derivatives are PyTorch's, whichever way they're had.
#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "frontends/aten.h"
#include "frontends/torch/ops_host.h"
#include "ir/text.h"
#include "passes/grad.h"
#include "tests/torch/fused.h"

namespace heddle::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using at::Tensor;
using X = const Tensors&;

struct Call {
    const char* name;
    Tensors inputs;
    Callable f;
    std::int64_t reduction = 1;
    const char* backward = "heddle.vjp";  // a call of the backward
};
Tensor image(std::vector<std::int64_t> s) { return at::rand(s, at::kDouble).sub_(0.5).set_requires_grad(true); }

std::vector<Call> calls() {
    at::manual_seed(1);
    return {
        {"conv2d", {image({2, 3, 6, 5}), image({4, 3, 3, 3}), image({4})}, [](X x) { return Tensors{at::conv2d(x[0] * 2, x[1], x[2], 1, 1).relu()}; }, 64, "aten.convolution_backward"},
        {"conv2d_no_bias", {image({2, 4, 6, 5}), image({4, 2, 3, 3})}, [](X x) { return Tensors{at::conv2d(x[0].sin(), x[1], {}, 2, 1, 1, 2)}; }, 64, "aten.convolution_backward"},
        {"conv_weight_only", {image({2, 3, 6, 5}).detach(), image({4, 3, 3, 3}), image({4})}, [](X x) { return Tensors{at::conv2d(x[0], x[1], x[2])}; }, 64, "aten.convolution_backward"},
        {"conv_transpose", {image({2, 3, 4}), image({3, 2, 3})}, [](X x) { return Tensors{at::conv_transpose1d(x[0], x[1], {}, 2)}; }, 64, "aten.convolution_backward"},
        {"max_pool", {image({2, 3, 6, 6})}, [](X x) { return Tensors{at::max_pool2d(x[0] * 3, 2).exp()}; }, 4, "aten.max_pool2d_with_indices_backward"},
        {"avg_pool", {image({2, 3, 6, 6})}, [](X x) { return Tensors{at::avg_pool2d(x[0] * 3, 2), at::adaptive_avg_pool2d(x[0], {2, 3})}; }, 8, "aten.avg_pool2d_backward"},
        {"upsample", {image({2, 3, 4, 4})}, [](X x) { return Tensors{at::upsample_bilinear2d(x[0].exp(), {7, 9}, true), at::upsample_nearest2d(x[0], {8, 8}), at::upsample_bicubic2d(x[0], {6, 6}, false)}; }, 16, "aten.upsample_bilinear2d_backward"},
        {"i0", {image({7})}, [](X x) { return Tensors{at::special_i0(x[0] * 2) + 1}; }},
        {"cummax", {image({3, 7})}, [](X x) { auto [v, i] = x[0].mul(2).cummax(1); return Tensors{v, i}; }, 8, "scatter_add"},
        {"second_result_only", {image({4, 3})}, [](X x) { return Tensors{std::get<1>(at::linalg_qr(x[0] * 2))}; }, 16},
        {"both_results", {image({4, 3})}, [](X x) { auto [q, r] = at::linalg_qr(x[0] * 2); return Tensors{q.sin(), r}; }, 16},
        {"one_operand_twice", {image({3, 3})}, [](X x) { Tensor y = x[0].exp(); return Tensors{at::cdist(y, y + x[0])}; }, 16},
        {"solve", {image({5, 2}), image({7, 2})}, [](X x) { return Tensors{at::linalg_solve(x[0].t().matmul(x[0]), x[1].t())}; }, 256},
        {"list_of_operands", {image({2, 2}), image({3, 3})}, [](X x) { return Tensors{at::block_diag({x[0] * 2, x[1]})}; }, 1, ""},
        {"grid_sample_bicubic", {image({1, 2, 5, 5}), image({1, 3, 4, 2})}, [](X x) { return Tensors{at::grid_sampler_2d(x[0], x[1] * 0.8, 2, 0, true)}; }, 64},
        {"no_gradient_to_give", {image({5})}, [](X x) { return Tensors{x[0] * at::rand_like(x[0]).detach(), at::bucketize(x[0], at::arange(3, at::kDouble))}; }, 1, ""},
    };
}
class Calls : public ::testing::TestWithParam<Call> {};
INSTANTIATE_TEST_SUITE_P(Library, Calls, ::testing::ValuesIn(calls()), [](const auto& i) { return std::string(i.param.name); });

TEST_P(Calls, GradientsAreEagers) {
    const Call& c = GetParam();
    for (auto type : {at::kDouble, at::kFloat}) {
        at::manual_seed(2);
        Fused g = strict(c.f, leaves(c.inputs, type));
        Tensors a = leaves(c.inputs, type), b = leaves(c.inputs, type);
        at::manual_seed(3);
        Tensors want = c.f(a);
        at::manual_seed(3);
        Tensors got = g(b);
        for (std::size_t k = 0; k < want.size(); ++k) {
            expect_near(got[k], want[k], c.reduction, "output " + std::to_string(k));
            EXPECT_EQ(got[k].requires_grad(), want[k].requires_grad()) << "output " << k;
        }
        Tensors da = gradients(want, a), db = gradients(got, b);
        for (std::size_t k = 0; k < da.size(); ++k) expect_near(db[k], da[k], c.reduction, "gradient " + std::to_string(k));
        EXPECT_THAT(g.explain(), HasSubstr(c.backward));
    }
}
// Along a random direction, in float64.
TEST_P(Calls, GradientsAreTheLimitOfDifferences) {
    const Call& c = GetParam();
    Fused g = strict(c.f, c.inputs);
    auto objective = [&](const Tensors& in) {
        at::manual_seed(3);
        double sum = 0;
        Tensors out = g(in);
        for (std::size_t k = 0; k < out.size(); ++k)
            if (out[k].requires_grad()) sum += (out[k] * at::sin(at::arange(out[k].numel(), at::kDouble) + static_cast<double>(k + 1)).reshape(out[k].sizes())).sum().item<double>();
        return sum;
    };
    Tensors in = leaves(c.inputs, at::kDouble), up = leaves(c.inputs, at::kDouble), down = leaves(c.inputs, at::kDouble);
    at::manual_seed(3);
    Tensors d = gradients(g(in), in);
    double h = 1e-6, slope = 0;
    std::size_t at_gradient = 0;
    for (std::size_t k = 0; k < in.size(); ++k) {
        if (!in[k].requires_grad()) continue;
        at::NoGradGuard no_grad;
        Tensor direction = at::cos(at::arange(in[k].numel(), at::kDouble) * 1.7).reshape(in[k].sizes());
        slope += (d[at_gradient++] * direction).sum().item<double>();
        up[k].add_(direction * h), down[k].sub_(direction * h);
    }
    EXPECT_NEAR((objective(up) - objective(down)) / (2 * h), slope, 1e-6 * std::max(1.0, std::fabs(slope)));
}
TEST_P(Calls, DerivativesAreTextToo) {
    const Call& c = GetParam();
    Graph lowered = lower_aten(capture(c.f, c.inputs).graph);
    std::vector<char> wants;
    for (Id i : lowered.inputs) wants.push_back(is_float(lowered.type(i).dtype));
    Joint j = differentiate(lowered, wants);
    EXPECT_EQ(print(parse(print(j.graph))), print(j.graph));
    EXPECT_THAT(print(j.graph), HasSubstr(c.backward));
}

TEST(CallVjp, IsANode) {
    Graph g = parse(R"(graph @f(%0 "x": f64[B], %1 "y": f64[B]) {
  %2 = aten.special_zeta.default %0, %1, self=$0, other=$1 : f64[B]  # model.py:3
  return %2
})");
    EXPECT_EQ(print(live(differentiate(g, {0, 1}).graph)), R"(graph @f(%0 "x": f64[B], %1 "y": f64[B], %2 "grad_0": f64[B]) {
  %3 = aten.special_zeta.default %0, %1, self=$0, other=$1 : f64[B]  # model.py:3
  %4 = heddle.vjp %0, %1, %2, of="aten.special_zeta.default", self=$0, other=$1, incoming=[$2], wanted=[$1] : f64[B]  # model.py:3
  return %3, %4
}
)");
}
TEST(CallVjp, RandomOpsHaveNone) {
    Tensor x = real({6});
    Callable f = [](X in) { return Tensors{at::_standard_gamma(in[0].exp())}; };
    Fused g = fuse(f, {x});
    EXPECT_THAT(g.report().eager_reason, HasSubstr("a gradient flows through a random op"));
    at::manual_seed(4);
    Tensor want = torch::autograd::grad({f({x})[0].sum()}, {x})[0];
    at::manual_seed(4);
    expect_near(torch::autograd::grad({g({x})[0].sum()}, {x})[0], want, 1, "eager");
}
TEST(CallVjp, UnderAnyModeAndInAnyThread) {
    Tensor x = real({5});
    Callable f = [](X in) { return Tensors{at::special_i0(in[0]).sum()}; };
    Fused g = strict(f, {x});
    Tensor want = torch::autograd::grad({f({x})[0]}, {x})[0];
    std::vector<std::thread> threads;
    Tensors got(4);
    for (std::size_t k = 0; k < got.size(); ++k)
        threads.emplace_back([&, k] {
            at::AutoGradMode on(true);
            Tensor y = g({x})[0];
            at::NoGradGuard no_grad;
            got[k] = torch::autograd::grad({y}, {x})[0];
        });
    for (auto& t : threads) t.join();
    for (const Tensor& t : got) {
        expect_near(t, want, 1, "thread");
        EXPECT_FALSE(t.requires_grad());
    }
}
TEST(CallVjp, WhatTheLibraryCannotDeriveIsAnErrorOfTheBackward) {
    Tensor x = real({5});
    Callable f = [](X in) { return Tensors{at::igamma(in[0].abs(), in[0].detach().exp()).sum()}; };
    Fused g = strict(f, {x});
    auto backward = [&](const auto& call) {
        std::string e = error_of([&] { torch::autograd::grad({call(Tensors{x})[0]}, {x}); });
        return e.substr(0, e.find('\n'));
    };
    std::string eager = backward(f);
    EXPECT_THAT(eager, HasSubstr("not implemented"));
    EXPECT_EQ(backward(g), eager);
}


// ---- indices that eager refuses
struct Bad {
    const char* name;
    Tensors good, bad;
    Callable f;
};
std::vector<Bad> bad_indices() {
    auto ints = [](std::vector<std::int64_t> v) { return at::tensor(v); };
    Tensor x = image({4, 3});
    return {
        {"embedding", {x, ints({0, 3, 1})}, {x, ints({0, 4, 1})}, [](X in) { return Tensors{at::embedding(in[0], in[1]) * 2}; }},
        {"embedding_negative", {x, ints({0, 3, 1})}, {x, ints({0, -1, 1})}, [](X in) { return Tensors{at::embedding(in[0], in[1]) * 2}; }},
        {"index", {x, ints({0, -4, 3})}, {x, ints({0, -5, 3})}, [](X in) { return Tensors{in[0].index({in[1]}).exp()}; }},
        {"index_put", {x, ints({0, 3})}, {x, ints({0, 4})}, [](X in) { return Tensors{in[0].index_put({in[1]}, at::ones({}, in[0].options().requires_grad(false))).exp()}; }},
        {"gather", {x, ints({0, 2, 1, 2}).unsqueeze(1)}, {x, ints({0, 3, 1, 2}).unsqueeze(1)}, [](X in) { return Tensors{in[0].gather(1, in[1]).exp()}; }},
        {"scatter_add", {x, ints({0, 2, 1, 2}).unsqueeze(1)}, {x, ints({0, -1, 1, 2}).unsqueeze(1)}, [](X in) { return Tensors{in[0].scatter_add(1, in[1], at::ones({4, 1}, in[0].options().requires_grad(false))).exp()}; }},
        {"index_select", {x, ints({0, 3})}, {x, ints({0, 1000000})}, [](X in) { return Tensors{in[0].index_select(0, in[1]).exp()}; }},
        {"nll", {x, ints({0, 2, 1, -100})}, {x, ints({0, 3, 1, -100})}, [](X in) { return Tensors{at::nll_loss(in[0].log_softmax(1), in[1])}; }},
        {"one_hot", {x, ints({0, 2})}, {x, ints({0, 3})}, [](X in) { return Tensors{at::one_hot(in[1], 3) * in[0].slice(0, 0, 2)}; }},
    };
}
class BadIndices : public ::testing::TestWithParam<Bad> {};
INSTANTIATE_TEST_SUITE_P(Library, BadIndices, ::testing::ValuesIn(bad_indices()), [](const auto& i) { return std::string(i.param.name); });

TEST_P(BadIndices, RaiseEagersErrorAndNothingElse) {
    const Bad& b = GetParam();
    FuseOptions options;
    options.recapture = true;
    Fused g = fuse(b.f, options);
    check(b.name, b.f, b.good, b.good, 12);
    Tensors in = leaves(b.good, at::kDouble);
    expect_near(g(in)[0], b.f(in)[0], 1, "before");
    auto first_line = [](std::string s) { return s.substr(0, s.find('\n')); };
    std::string eager = first_line(error_of([&] { b.f(b.bad); })), fused = first_line(error_of([&] { g(b.bad); }));
    EXPECT_NE(eager, "none");
    EXPECT_EQ(fused, eager);
    expect_near(g(in)[0], b.f(in)[0], 1, "after");
    EXPECT_EQ(g.report().eager_reason, "");
}
TEST(Indices, OfKnownRangeAreNotChecked) {
    Tensor x = real({5, 3});
    Fused g = strict([](X in) { return Tensors{in[0].index({in[0].select(1, 0) > 1}).sum(), in[0].index({at::arange(3)}), std::get<0>(in[0].max(1))}; }, {x});
    g({x});
    EXPECT_THAT(g.report().library_calls, Not(::testing::Contains(HasSubstr("guard"))));
}

}  // namespace
}  // namespace heddle::testing
