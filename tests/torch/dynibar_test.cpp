// DynIBaR's parts and steps fused against eager in float64: values, gradients, None, other sizes, other frames.
// Law: nothing falls back to eager; a tolerance is that of the dtype, or eager's own error in it.
#include "models/dynibar/dynibar.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/optim/adam.h>
#include <torch/utils.h>

#include "frontends/torch/fuse.h"
#include "frontends/torch/train_step.h"
#include "models/dynibar/parts.h"

namespace heddle::testing {
namespace {

using at::Tensor;
using models::Dynibar;
using models::Phase;

std::shared_ptr<Dynibar> make(at::ScalarType type) {
    torch::manual_seed(3);
    auto model = std::make_shared<Dynibar>(models::dynibar_config("tiny"));
    models::stir(*model, 4);
    model->to(type);
    return model;
}
std::vector<Varying> varying(const std::vector<models::VaryingSize>& sizes) {
    std::vector<Varying> v;
    for (const auto& s : sizes) v.push_back({.input = s.input, .tensor = {}, .dim = s.dim, .name = s.name});
    return v;
}
Fused fused(const std::string& name, const models::StepFn& f, const Tensors& example, const std::vector<models::VaryingSize>& sizes) {
    return fuse(f, example, {.dynamic = varying(sizes), .name = name, .eager_if_uncapturable = false});
}
// Outputs of one call, then the gradient of each input and parameter; outputs are weighed alike for all callers.
Tensors outcome(const Callable& f, const Tensors& in, const Dynibar& model) {
    Tensors out = f(in), leaves, roots, seeds;
    for (const auto& t : in)
        if (t.requires_grad()) leaves.push_back(t);
    for (const auto& t : model.parameters()) leaves.push_back(t);
    for (const auto& t : out)
        if (t.requires_grad()) roots.push_back(t), seeds.push_back(at::sin(at::arange(t.numel(), at::kDouble) + 1).reshape(t.sizes()).to(t.scalar_type()));
    auto all = out;
    for (auto& g : torch::autograd::grad(roots, leaves, seeds, false, false, true)) all.push_back(g);
    return all;
}
double length(const Tensor& t) { return t.to(at::kDouble).norm().item<double>(); }
// Each value's error is at most 8 times eager's in the same dtype, or rounding of the list's largest.
void as_near_as_eager(const Tensors& got, const Tensors& eager, const Tensors& exact, double rounding) {
    ASSERT_EQ(got.size(), exact.size());
    double largest = 0;
    for (const auto& t : exact)
        if (t.defined() && t.is_floating_point()) largest = std::max(largest, length(t));
    for (std::size_t k = 0; k < got.size(); ++k) {
        ASSERT_EQ(got[k].defined(), exact[k].defined()) << "value " << k << ": None in one, not in the other";
        if (!got[k].defined()) continue;
        ASSERT_EQ(got[k].sizes(), exact[k].sizes()) << "value " << k;
        ASSERT_EQ(got[k].scalar_type(), eager[k].scalar_type()) << "value " << k;
        if (!got[k].is_floating_point()) {
            EXPECT_TRUE(got[k].equal(exact[k])) << "value " << k;
            continue;
        }
        const auto off = [&](const Tensor& t) { return length(t.to(at::kDouble) - exact[k].to(at::kDouble)); };
        EXPECT_LE(off(got[k]), std::max({8 * off(eager[k]), rounding * length(exact[k]), 1e-2 * rounding * largest})) << "value " << k << " of norm " << length(exact[k]) << ", eager's error " << off(eager[k]);
    }
}

class DynibarFused : public ::testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(Parts, DynibarFused, ::testing::Values("feature_net", "motion_mlp", "trajectory", "projection", "dynamic_net", "static_net", "compositing", "losses"),
                         [](const auto& i) { return i.param; });

TEST_P(DynibarFused, IsAsNearAsEager) {
    const auto exact = make(at::kDouble);
    const auto part = [&](const std::shared_ptr<Dynibar>& model, at::ScalarType type) {
        for (auto& p : models::dynibar_parts(model, 1, type))
            if (p.name == GetParam()) return p;
        throw std::runtime_error("no such part");
    };
    const auto p64 = part(exact, at::kDouble);
    const auto want = outcome(p64.run, p64.inputs, *exact);
    for (const auto type : {at::kDouble, at::kFloat}) {
        SCOPED_TRACE(c10::toString(type));
        const auto model = make(type);
        const auto p = part(model, type);
        const auto f = fused(p.name, p.run, p.inputs, p.sizes);
        as_near_as_eager(outcome(f, p.inputs, *model), outcome(p.run, p.inputs, *model), want, type == at::kDouble ? 1e-12 : 1e-5);
        EXPECT_EQ(f.report().eager_reason, "");
    }
}

TEST(DynibarFusedParts, AreFewKernels) {
    const auto model = make(at::kFloat);
    for (const auto& p : models::dynibar_parts(model, 1)) {
        if (p.name != "trajectory" && p.name != "compositing" && p.name != "losses") continue;
        const auto f = fused(p.name, p.run, p.inputs, p.sizes);
        outcome(f, p.inputs, *model);
        const auto r = f.report();
        EXPECT_EQ(r.launches_forward, 1) << p.name;
        EXPECT_EQ(r.launches_backward, 1) << p.name;
        EXPECT_EQ(r.calls_forward + r.calls_backward, 0) << p.name;
    }
}

// Views, rays and frames of other steps: the trajectories are captured once.
TEST(DynibarFusedParts, OtherFramesAndViewsNeedNoCompiler) {
    const auto model = make(at::kDouble), eager = make(at::kDouble);
    const auto find = [](const std::shared_ptr<Dynibar>& m) {
        for (auto& p : models::dynibar_parts(m, 1, at::kDouble))
            if (p.name == "trajectory") return p;
        throw std::runtime_error("no such part");
    };
    const auto p = find(model), q = find(eager);
    const auto f = fused(p.name, p.run, p.inputs, p.sizes);
    outcome(f, p.inputs, *model);
    const double before = f.report().compile_seconds;
    for (const std::int64_t frame : {3, 4, 8})
        for (const std::int64_t rays : {1, 5, 12}) {
            auto in = p.inputs;
            in[0] = in[0].detach().slice(0, 0, rays).clone().requires_grad_(), in[1] = in[1].detach().slice(0, 0, rays).clone().requires_grad_();
            in[2] = at::full({1}, frame, at::kLong), in[3] = at::arange(-3, 4, at::kLong).slice(0, 0, 2 + rays % 5).contiguous();
            const auto want = outcome(q.run, in, *eager);
            as_near_as_eager(outcome(f, in, *model), want, want, 1e-12);
        }
    EXPECT_EQ(f.report().compile_seconds, before);
}

// A whole step of each form, of one size.
class DynibarPhase : public ::testing::TestWithParam<Phase> {};
INSTANTIATE_TEST_SUITE_P(Step, DynibarPhase, ::testing::Values(Phase::bootstrap, Phase::sparse), [](const auto& i) { return i.param == Phase::bootstrap ? "bootstrap" : "sparse"; });
TEST_P(DynibarPhase, TrainsAsEager) {
    const auto eager = make(at::kDouble), mine = make(at::kDouble);
    const auto adam = [](Dynibar& m) {
        std::vector<torch::optim::OptimizerParamGroup> groups;
        for (const auto& g : m.groups()) groups.emplace_back(g.parameters, std::make_unique<torch::optim::AdamOptions>(g.rate));
        return torch::optim::Adam(groups);
    };
    auto a = adam(*eager), b = adam(*mine);
    TrainStep step([&](const Tensors& in) { return mine->loss(in, GetParam()); }, b, {.dynamic = {}, .name = "dynibar"});
    const auto in = models::dynibar_step_inputs(eager->config(), 2, at::kDouble).list();
    for (int i = 0; i < 2; ++i) {
        a.zero_grad();
        const auto want = eager->loss(in, GetParam());
        want[0].backward();
        a.step();
        const auto got = step(in);
        ASSERT_EQ(step.eager_reason(), "");
        for (std::size_t k = 0; k < want.size(); ++k) EXPECT_NEAR(got[k].item<double>(), want[k].item<double>(), 1e-9 * (1 + std::abs(want[k].item<double>()))) << "step " << i << ", " << models::loss_terms()[k];
    }
    const auto x = eager->named_parameters(), y = mine->named_parameters();
    for (const auto& p : x) {
        EXPECT_EQ(a.state().count(p.value().unsafeGetTensorImpl()), b.state().count(y[p.key()].unsafeGetTensorImpl())) << p.key();
        // Adam divides by a gradient's size: where that is rounding alone, what it makes of it is as large as a step.
        const bool settled = p.key() != "net_static.rgb_fc.4.bias";
        EXPECT_TRUE(!settled || length(p.value() - y[p.key()]) <= 1e-6 * (1e-3 + length(p.value()))) << p.key() << " off by " << length(p.value() - y[p.key()]);
    }
}

}  // namespace
}  // namespace heddle::testing
