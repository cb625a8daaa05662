// Captured, lowered and interpreted equals eager, values and gradients, at the captured size and at another; and what can't be
// captured says so in one line.
#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

#include "frontends/aten.h"
#include "frontends/torch/host.h"
#include "frontends/torch/ops_host.h"
#include "ir/eval.h"
#include "ir/text.h"
#include "ir/verify.h"
#include "passes/grad.h"
#include "tests/frontends_cases.h"

namespace heddle::testing {

namespace {
Tensor plain(const at::Tensor& t) {
    at::Tensor d = t.detach().to(at::kDouble).contiguous();
    return {dtype_of(t.scalar_type()), t.sizes().vec(), {d.data_ptr<double>(), d.data_ptr<double>() + d.numel()}};
}
at::Tensor torch_of(const Tensor& t) {
    return at::from_blob(const_cast<double*>(t.data.data()), t.sizes, at::kDouble).clone().to(scalar_type(t.dtype));
}
std::vector<Tensor> library(const Node& n, const std::vector<Tensor>& in, Sizes& sizes) {
    Tensors operands;
    for (const auto& t : in) operands.push_back(torch_of(t));
    std::vector<Tensor> out;
    for (auto& t : run_call(n, operands, sizes)) out.push_back(plain(t));
    return out;
}
void expect_close(const at::Tensor& got, const at::Tensor& want, const std::string& what) {
    ASSERT_EQ(got.sizes(), want.sizes()) << what;
    ASSERT_EQ(got.scalar_type(), want.scalar_type()) << what;
    double tolerance = want.scalar_type() == at::kFloat ? 1e-5 : 1e-9;
    EXPECT_TRUE(at::allclose(got.to(at::kDouble), want.to(at::kDouble), tolerance, tolerance, true)) << what << "\ngot  " << got << "\nwant " << want;
}
Tensors with_implicit(const Tensors& in, const Captured& c) {
    Tensors all = in;
    all.insert(all.end(), c.implicit.begin(), c.implicit.end());
    return all;
}
std::vector<Tensor> plain(const Tensors& ts) {
    std::vector<Tensor> out;
    for (const auto& t : ts) out.push_back(plain(t));
    return out;
}
// Gradients of sum(out * seed) by both, None where PyTorch has None.
void compare_gradients(const Case& c, const Captured& captured, const Graph& lowered, const Tensors& in) {
    Tensors all = with_implicit(in, captured), eager = c.f(in), outs, seeds, wanted;
    std::vector<char> wants;
    for (const auto& t : all) wants.push_back(t.requires_grad());
    Graph results = lowered;
    results.outputs.resize(captured.results);
    Joint joint = differentiate(live(results), wants);
    verify(joint.graph, "differentiate");
    auto arguments = plain(all);
    for (std::size_t i = 0; i < eager.size(); ++i) {
        ASSERT_EQ(eager[i].requires_grad(), joint.seeds[i] >= 0) << c.name << ": result " << i;
        if (joint.seeds[i] < 0) continue;
        outs.push_back(eager[i]);
        seeds.push_back(at::rand(eager[i].sizes(), eager[i].options().requires_grad(false)));
        arguments.push_back(plain(seeds.back()));
    }
    if (outs.empty()) return;
    std::vector<std::size_t> which;
    for (std::size_t i = 0; i < all.size(); ++i)
        if (wants[i]) wanted.push_back(all[i]), which.push_back(i);
    auto want = torch::autograd::grad(outs, wanted, seeds, true, false, true);
    auto got = evaluate(joint.graph, arguments, library);
    for (std::size_t k = 0; k < which.size(); ++k) {
        int at = joint.gradients[which[k]];
        ASSERT_EQ(want[k].defined(), at >= 0) << c.name << ": gradient of input " << which[k];
        if (at >= 0) expect_close(torch_of(got[static_cast<std::size_t>(at)]), want[k], std::string(c.name) + ": gradient of input " + std::to_string(which[k]) + "\n" + print(joint.graph));
    }
}
void check(const Case& c) {
    SCOPED_TRACE(c.name);
    at::manual_seed(7);
    Tensors example = c.inputs(5);
    CaptureOptions options;
    for (auto [input, dim] : c.varying) options.dynamic.push_back({.input = input, .tensor = {}, .dim = dim, .name = "B"});
    Captured captured = capture(c.f, example, options);
    std::string text = print(captured.graph);
    EXPECT_EQ(parse(text), captured.graph) << text;
    verify(captured.graph, "capture");
    Graph lowered = lower_aten(captured.graph);
    verify(lowered, "lower_aten");
    EXPECT_EQ(parse(print(lowered)), lowered) << print(lowered);
    int calls = 0;
    for (const Node& n : lowered.nodes) calls += n.is(Op::call);
    EXPECT_EQ(calls, c.calls) << print(lowered);
    EXPECT_EQ(lower_aten(lowered), lowered);
    for (std::int64_t n : {5, 8}) {
        Tensors in = c.inputs(n), want = c.f(in);
        auto got = evaluate(lowered, plain(with_implicit(in, captured)), library);
        ASSERT_GE(got.size(), want.size());
        for (std::size_t k = 0; k < want.size(); ++k) expect_close(torch_of(got[k]), want[k].detach(), std::string(c.name) + ": result " + std::to_string(k) + " at B=" + std::to_string(n) + "\n" + text + print(lowered));
        if (!::testing::Test::HasFatalFailure()) compare_gradients(c, captured, lowered, in);
    }
}
class Frontends : public ::testing::TestWithParam<Case> {};
TEST_P(Frontends, EqualsEager) {
    try {
        check(GetParam());
    } catch (const std::exception& e) {
        ADD_FAILURE() << GetParam().name << ": " << e.what();
    }
}
auto case_name = [](const auto& info) { return std::string(info.param.name); };
INSTANTIATE_TEST_SUITE_P(Pointwise, Frontends, ::testing::ValuesIn(pointwise_cases()), case_name);
INSTANTIATE_TEST_SUITE_P(View, Frontends, ::testing::ValuesIn(view_cases()), case_name);
INSTANTIATE_TEST_SUITE_P(Reduce, Frontends, ::testing::ValuesIn(reduce_cases()), case_name);
INSTANTIATE_TEST_SUITE_P(Index, Frontends, ::testing::ValuesIn(index_cases()), case_name);
INSTANTIATE_TEST_SUITE_P(Write, Frontends, ::testing::ValuesIn(write_cases()), case_name);

std::string error_of(const Callable& f, const Tensors& in, const CaptureOptions& options = {}) {
    try {
        capture(f, in, options);
    } catch (const Error& e) {
        return e.what();
    }
    return "none";
}
CaptureOptions varying() { return {.dynamic = {{.input = 0, .tensor = {}, .dim = 0, .name = "B"}}, .host_read = HostRead::error, .name = "f"}; }

TEST(Capture, HostReadsAreErrors) {
    EXPECT_EQ(error_of([](const Tensors& x) { return Tensors{x[0] * x[0].sum().item<double>()}; }, {real({4})}),
              "capture: aten.item: the host reads a value of f64[]: keep it a tensor (torch::where for a branch), or capture with HostRead::guard");
    EXPECT_EQ(error_of([](const Tensors& x) {
        Scope s("render");
        Scope t("mask");
        return Tensors{(x[0] > 0).any().item<bool>() ? x[0] : -x[0]};
    }, {real({4})}), "render.mask: aten.item: the host reads a value of b1[]: keep it a tensor (torch::where for a branch), or capture with HostRead::guard");
}
TEST(Capture, GuardsHoldTheValueRead) {
    Callable f = [](const Tensors& x) { return Tensors{(x[0] > 0).any().item<bool>() ? x[0] * 2 : -x[0]}; };
    CaptureOptions options = varying();
    options.host_read = HostRead::guard;
    Captured c = capture(f, {at::ones({4}, at::kDouble)}, options);
    ASSERT_EQ(c.guards, 1u);
    const Node& guard = c.graph[c.graph.outputs.back()];
    EXPECT_EQ(guard.text("name"), "heddle.guard");
    EXPECT_TRUE(guard.flag("value"));
    EXPECT_THAT(unlowered(lower_aten(c.graph)), ::testing::ElementsAre("heddle.guard"));
    EXPECT_EQ(error_of([](const Tensors& x) { return Tensors{x[0] * x[0].sum().item<double>()}; }, {real({4})}, options),
              "capture: aten.item: the host reads a f64: a guard holds a bool or an integer; keep it a tensor");
}
TEST(Capture, ParametersAreImplicitInputs) {
    at::Tensor w = real({3, 2}), unused = real({3}), before = w.clone();
    Captured c = capture([&](const Tensors& x) { return Tensors{at::mm(x[0], w) + at::mm(x[0], w)}; }, {real({4, 3})}, varying());
    ASSERT_EQ(c.implicit.size(), 1u);
    EXPECT_TRUE(c.implicit[0].is_same(w));
    EXPECT_TRUE(c.implicit_requires_grad[0]);
    EXPECT_TRUE(at::equal(w, before));
    EXPECT_EQ(print(c.graph.type(c.graph.inputs[0])), "f64[B, 3]");
}
TEST(Capture, SizesOfParametersMayVary) {
    at::Tensor plane = real({1, 2, 6, 5});
    at::Tensor data = plane.detach().clone();
    CaptureOptions options{.dynamic = {{.input = -1, .tensor = plane, .dim = 2, .name = "R"}, {.input = -1, .tensor = plane, .dim = 3, .name = "T"}}, .host_read = HostRead::error, .name = "tv"};
    Captured c = capture([&](const Tensors&) { return Tensors{(plane.slice(2, 1) - plane.slice(2, 0, plane.size(2) - 1)).pow(2).sum() / ((plane.size(2) - 1) * plane.size(3) * 2)}; }, {}, options);
    EXPECT_EQ(print(c.graph.type(c.graph.inputs[0])), "f64[1, 2, R, T]");
    EXPECT_TRUE(at::equal(plane, data));
    Graph lowered = lower_aten(c.graph);
    EXPECT_THAT(unlowered(lowered), ::testing::IsEmpty());
    at::Tensor other = real({1, 2, 9, 4});
    auto got = evaluate(lowered, {plain(other)});
    EXPECT_NEAR(got[0].data[0], ((other.slice(2, 1) - other.slice(2, 0, 8)).pow(2).sum() / (8 * 4 * 2)).item<double>(), 1e-12);
}
TEST(Capture, BuffersThatAreWrittenComeBackAsOutputs) {
    at::Tensor mean = at::zeros({4}, at::kDouble), var = at::ones({4}, at::kDouble), count = at::zeros({}, at::kLong);
    Callable f = [&](const Tensors& x) {
        count.add_(1);
        return Tensors{at::batch_norm(x[0], {}, {}, mean, var, true, 0.1, 1e-5, false)};
    };
    Captured c = capture(f, {real({5, 4})}, varying());
    EXPECT_EQ(count.item<std::int64_t>(), 0);
    EXPECT_EQ(mean.abs().sum().item<double>(), 0);
    ASSERT_EQ(c.writes.size(), 3u);
    at::Tensor x = real({8, 4});
    auto got = evaluate(lower_aten(c.graph), plain(with_implicit({x}, c)), library);
    Tensors want = f({x});
    expect_close(torch_of(got[0]), want[0].detach(), "normalised");
    for (const auto& w : c.writes) expect_close(torch_of(got[static_cast<std::size_t>(w.output)]), c.implicit[static_cast<std::size_t>(w.input - 1)], "buffer");
}
TEST(Capture, InputsAmongResultsAreTold) {
    at::Tensor x = real({4, 3});
    Captured c = capture([](const Tensors& in) { return Tensors{in[0], in[0].t(), in[0] * 2}; }, {x});
    using Of = Captured::Origin::Of;
    EXPECT_EQ(c.origins[0].of, Of::input);
    EXPECT_TRUE(c.origins[0].views.empty());
    ASSERT_EQ(c.origins[1].of, Of::input);
    ASSERT_EQ(c.origins[1].views.size(), 1u);
    EXPECT_EQ(c.graph[c.origins[1].views[0]].text("name"), "aten.t.default");
    EXPECT_EQ(c.origins[2].of, Of::itself);
}
TEST(Capture, RandomOpsAreCallsAndTheGeneratorStays) {
    at::manual_seed(3);
    auto state = at::detail::getDefaultCPUGenerator().get_state();
    Captured c = capture([](const Tensors& x) { return Tensors{x[0] + at::rand_like(x[0]) + at::rand_like(x[0])}; }, {at::ones({4})}, varying());
    EXPECT_TRUE(at::equal(at::detail::getDefaultCPUGenerator().get_state(), state));
    Graph lowered = lower_aten(c.graph);
    EXPECT_THAT(unlowered(lowered), ::testing::ElementsAre("aten.rand_like.default"));
    EXPECT_EQ(std::count_if(lowered.nodes.begin(), lowered.nodes.end(), [](const Node& n) { return n.is(Op::call); }), 2);
}
TEST(Capture, FloatsThatChangeAreErrors) {
    EXPECT_EQ(error_of([](const Tensors& x) { return Tensors{x[0] * (1.0 / static_cast<double>(x[0].size(0)))}; }, {real({4})}, varying()),
              "capture: aten.mul.Scalar: argument other: is 0.25 and 0.043478260869565216: a number that changes is no constant; pass it as a tensor of no dimensions");
}
TEST(Capture, OpsThatDependOnSizesAreErrors) {
    EXPECT_THAT(error_of([](const Tensors& x) { return Tensors{x[0].size(0) > 10 ? x[0].exp() : x[0].sin()}; }, {real({4})}, varying()),
                ::testing::HasSubstr("depends on sizes or values: expected the same ops at all sizes"));
    EXPECT_THAT(error_of([](const Tensors& x) { return Tensors{x[0].slice(0, 0, static_cast<std::int64_t>(std::sqrt(x[0].size(0)))) * 2}; }, {real({4})}, varying()),
                ::testing::HasSubstr("expected a polynomial in the named sizes"));
}
TEST(Capture, SizesAreMultiplesOfSums) {  // as instance_norm repeats its weights for the pictures of two batches
    const std::vector<Varying> two{{.input = 0, .tensor = {}, .dim = 0, .name = "A"}, {.input = 1, .tensor = {}, .dim = 0, .name = "B"}};
    const auto f = [](const Tensors& x) { return Tensors{at::cat({x[0], x[1]}).repeat({64})}; };
    EXPECT_EQ(error_of(f, {real({4}), real({5})}, {.dynamic = two}), "none");
}
TEST(Capture, TensorsTheHostFillsAreConstants) {
    Captured c = capture([](const Tensors& x) {
        at::Tensor t = at::empty({3}, at::kDouble);
        for (int i = 0; i < 3; ++i) t.data_ptr<double>()[i] = i * i;
        return Tensors{x[0] * t};
    }, {real({4, 3})}, varying());
    EXPECT_EQ(c.implicit.size(), 0u);
    auto got = evaluate(lower_aten(c.graph), {plain(at::ones({1, 3}, at::kDouble))});
    EXPECT_THAT(got[0].data, ::testing::ElementsAre(0, 1, 4));
}
struct Twice : torch::autograd::Function<Twice> {
    static at::Tensor forward(torch::autograd::AutogradContext*, at::Tensor x) { return x * 2; }
    static Tensors backward(torch::autograd::AutogradContext*, Tensors g) { return {g[0] * 3}; }
};
TEST(Capture, FunctionsOfTheirOwnAreErrors) {
    EXPECT_THAT(error_of([](const Tensors& x) { return Tensors{Twice::apply(x[0] * 1) + 1}; }, {real({4})}), ::testing::HasSubstr("an autograd Function of its own"));
}
TEST(Lower, TextAloneIsEnough) {
    Graph g = parse(R"(graph @f(%0 "x": f32[B, 3], %1 "y": f32[3]) {
  %2 = aten.add.Tensor %0, %1, self=$0, other=$1, alpha=2 : f32[B, 3]  # model.py:7
  %3 = aten.unknown.default %2, self=$0 : f32[B, 3]
  return %3
})");
    Graph l = lower_aten(g);
    EXPECT_THAT(unlowered(l), ::testing::ElementsAre("aten.unknown.default"));
    EXPECT_EQ(l[l[l.outputs[0]].in[0]].loc, "model.py:7");
}
TEST(Lower, ContradictionsAreErrors) {
    Graph g = parse(R"(graph @f(%0 "x": f32[B, 3], %1 "y": f32[4]) {
  %2 = aten.mul.Tensor %0, %1, self=$0, other=$1 : f32[B, 3]  # model.py:7
  return %2
})");
    try {
        lower_aten(g);
        FAIL();
    } catch (const Error& e) {
        EXPECT_STREQ(e.what(), "model.py:7: aten.mul.Tensor: cannot expand f32[4] to [B, 3]");
    }
}
}  // namespace

}  // namespace heddle::testing
