// HexPlane fused trains as HexPlane eager: losses step by step, every gradient, None, and what its schedule changes.
#include "models/hexplane/hexplane.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/optim/adam.h>

#include "frontends/torch/fuse.h"
#include "models/hexplane/parts.h"

namespace heddle::testing {
namespace {

using at::Tensor;
using models::HexPlane;
constexpr std::uint64_t kSeed = 5;

std::shared_ptr<HexPlane> make(at::ScalarType type, bool thick, const std::string& scale = "tiny", double shift = -10) {
    at::manual_seed(kSeed);
    auto config = models::hexplane_config(scale);
    config.density_shift = shift;
    auto model = std::make_shared<HexPlane>(config);
    if (thick) models::thicken(*model, kSeed);
    model->to(type);
    return model;
}
Fused fused(const std::shared_ptr<HexPlane>& model, const Tensors& example) {
    FuseOptions options{.dynamic = {}, .name = "hexplane", .eager_if_uncapturable = false};
    for (int i : {0, 1, 2}) options.dynamic.push_back({.input = i, .tensor = {}, .dim = 0, .name = "B"});
    return fuse([model](const Tensors& in) { return model->loss(in); }, example, options);
}
Tensors step(const HexPlane& model, std::uint64_t seed, at::ScalarType type) { return models::hexplane_step_inputs(model, seed, type); }
std::vector<Tensor> parameters(const HexPlane& model) {
    auto all = model.plane_parameters(), network = model.network_parameters();
    all.insert(all.end(), network.begin(), network.end());
    return all;
}
// Losses of `n` steps of Adam; `call` stands in for the model's loss.
std::vector<double> train(const std::shared_ptr<HexPlane>& model, at::ScalarType type, int n, const Callable& call) {
    at::manual_seed(kSeed + 1);
    torch::optim::Adam adam({torch::optim::OptimizerParamGroup(model->plane_parameters(), std::make_unique<torch::optim::AdamOptions>(0.02)),
                             torch::optim::OptimizerParamGroup(model->network_parameters(), std::make_unique<torch::optim::AdamOptions>(0.001))});
    std::vector<double> losses;
    for (int i = 0; i < n; ++i) {
        adam.zero_grad();
        Tensor loss = call(step(*model, static_cast<std::uint64_t>(i), type))[0];
        loss.backward();
        adam.step();
        losses.push_back(loss.item<double>());
    }
    return losses;
}
void same_losses(at::ScalarType type, bool thick, int steps, double tolerance) {
    auto a = make(type, thick), b = make(type, thick);
    Fused f = fused(b, step(*b, 0, type));
    auto want = train(a, type, steps, [&](const Tensors& in) { return a->loss(in); }), got = train(b, type, steps, f);
    for (int i = 0; i < steps; ++i) EXPECT_NEAR(got[static_cast<std::size_t>(i)] / want[static_cast<std::size_t>(i)], 1, tolerance) << "step " << i << (thick ? ", thick" : ", thin");
}
// One step's outputs, then the gradient of each parameter.
Tensors gradients(const std::shared_ptr<HexPlane>& model, const Callable& call, const Tensors& in) {
    Tensors out = call(in), all = out;
    for (auto& g : torch::autograd::grad({out[0]}, parameters(*model), {}, false, false, true)) all.push_back(g);
    return all;
}
Tensor jitter(const HexPlane& model, std::uint64_t seed = 0) {
    at::manual_seed(77 + seed);
    return at::rand({1, model.samples()}, at::kFloat);
}
// Fused float32 is as near to eager float64 as eager float32 is, within a factor of 4: root mean squares over six batches. One batch's
// error of a gradient with few elements is one draw; samples share their distances, so their roundings don't average out within it.
void as_near_as_eager(const std::shared_ptr<HexPlane>& exact, const std::shared_ptr<HexPlane>& eager, const std::shared_ptr<HexPlane>& mine, const Callable& call) {
    std::vector<double> norm, eager_error, error;
    for (std::uint64_t seed = 1; seed <= 6; ++seed) {
        Tensors in = step(*eager, seed, at::kFloat), wide;
        in.push_back(jitter(*eager, seed));
        for (const auto& t : in) wide.push_back(t.to(at::kDouble));
        Tensors want = gradients(exact, [&](const Tensors& x) { return exact->loss(x); }, wide);
        Tensors e = gradients(eager, [&](const Tensors& x) { return eager->loss(x); }, in), f = gradients(mine, call, in);
        ASSERT_EQ(want.size(), f.size());
        for (auto* v : {&norm, &eager_error, &error}) v->resize(want.size());
        for (std::size_t k = 0; k < want.size(); ++k) {
            ASSERT_EQ(e[k].defined(), f[k].defined()) << "value " << k;
            if (!e[k].defined() || !want[k].defined()) continue;
            auto square = [](const Tensor& t) { return t.square().sum().item<double>(); };
            norm[k] += square(want[k]), eager_error[k] += square(e[k].to(at::kDouble) - want[k]), error[k] += square(f[k].to(at::kDouble) - want[k]);
        }
    }
    for (std::size_t k = 0; k < norm.size(); ++k)
        EXPECT_LE(std::sqrt(error[k]), 4 * std::max(std::sqrt(eager_error[k]), 1e-7 * std::sqrt(norm[k]))) << "value " << k << ": norm " << std::sqrt(norm[k]) << ", eager's error " << std::sqrt(eager_error[k]);
}
void as_near_as_eager(bool thick, const std::string& scale = "tiny") {
    auto exact = make(at::kFloat, thick, scale), eager = make(at::kFloat, thick, scale), mine = make(at::kFloat, thick, scale);
    exact->to(at::kDouble);
    Tensors example = step(*mine, 0, at::kFloat);
    example.push_back(jitter(*mine));
    Fused f = fused(mine, example);
    as_near_as_eager(exact, eager, mine, f);
}

class Threads : public ::testing::TestWithParam<int> {
protected:
    void SetUp() override { before_ = at::get_num_threads(), at::set_num_threads(GetParam()); }
    void TearDown() override { at::set_num_threads(before_); }
    int before_ = 1;
};
INSTANTIATE_TEST_SUITE_P(HexPlane, Threads, ::testing::Values(1, 2));

TEST_P(Threads, LossesInFloat64) { same_losses(at::kDouble, GetParam() == 2, 20, 1e-9); }
TEST_P(Threads, Gradients) { as_near_as_eager(true); }
TEST(HexPlaneFused, LossesInFloat32) { same_losses(at::kFloat, true, 50, 1e-3); }
TEST(HexPlaneFused, GradientsOfThinPlanes) { as_near_as_eager(false); }
TEST(HexPlaneFused, GradientsAtScaleDemo) { as_near_as_eager(true, "demo"); }

TEST(HexPlaneFused, NoneUntilTheColourBranchIsTaken) {
    // The few samples of scale tiny are far apart, and weigh more for it: a thinner start, for the branch not to be taken.
    auto model = make(at::kDouble, false, "tiny", -13), eager = make(at::kDouble, false, "tiny", -13);
    Tensors in = step(*model, 0, at::kDouble);
    in.push_back(jitter(*model).to(at::kDouble));
    Fused f = fused(model, in);
    auto count = [](const Tensors& all) { return std::count_if(all.begin() + 4, all.end(), [](const Tensor& t) { return t.defined(); }); };
    Callable loss = [&](const Tensors& x) { return eager->loss(x); };
    Tensors got = gradients(model, f, in), want = gradients(eager, loss, in);
    EXPECT_LT(count(want), 22);  // none for the network, which only the colour branch reads
    EXPECT_EQ(count(got), count(want));
    for (std::size_t k = 0; k < got.size(); ++k) EXPECT_EQ(got[k].defined(), want[k].defined()) << k;
    double before = f.report().compile_seconds;
    EXPECT_GT(before, 0);
    for (auto& m : {model, eager})
        for (auto& p : m->density_plane) p.detach().add_(8);
    for (auto& m : {model, eager})
        for (auto& p : m->density_line_time) p.detach().add_(1);
    got = gradients(model, f, in), want = gradients(eager, loss, in);
    EXPECT_EQ(count(got), 22);
    EXPECT_GT(f.report().compile_seconds, before);
    for (std::size_t k = 0; k < got.size(); ++k) EXPECT_TRUE(at::allclose(got[k], want[k], 1e-9, 1e-12)) << k;
    // And back: the first form is still known.
    before = f.report().compile_seconds;
    for (auto& m : {model, eager})
        for (auto& p : m->density_plane) p.detach().mul_(0.01);
    got = gradients(model, f, in), want = gradients(eager, loss, in);
    EXPECT_EQ(count(got), count(want));
    EXPECT_EQ(f.report().compile_seconds, before);
}
TEST(HexPlaneFused, AnotherBatchNeedsNoCompiler) {
    auto model = make(at::kDouble, true), eager = make(at::kDouble, true);
    Tensors in = step(*model, 0, at::kDouble);
    in.push_back(jitter(*model).to(at::kDouble));
    Fused f = fused(model, in);
    gradients(model, f, in);
    double before = f.report().compile_seconds;
    for (std::int64_t rays : {1, 17, 64, 40}) {
        Tensors few = in;
        for (std::size_t k = 0; k < 3; ++k) few[k] = in[k].slice(0, 0, rays);
        Tensors got = gradients(model, f, few), want = gradients(eager, [&](const Tensors& x) { return eager->loss(x); }, few);
        for (std::size_t k = 0; k < got.size(); ++k) {
            ASSERT_EQ(got[k].defined(), want[k].defined()) << k << " at " << rays;
            EXPECT_TRUE(!got[k].defined() || at::allclose(got[k], want[k], 1e-9, 1e-12)) << k << " at " << rays;
        }
    }
    EXPECT_EQ(f.report().compile_seconds, before);
}
TEST(HexPlaneFused, EmptinessMask) {
    auto exact = make(at::kFloat, true), eager = make(at::kFloat, true), mine = make(at::kFloat, true);
    for (auto& m : {exact, eager, mine}) {
        at::manual_seed(9);
        std::int64_t r = m->grid();
        m->set_emptiness((at::rand({1, 1, r, r, r}) > 0.5).to(at::kFloat));
    }
    exact->to(at::kDouble);
    Tensors example = step(*mine, 0, at::kFloat);
    example.push_back(jitter(*mine));
    Fused f = fused(mine, example);
    as_near_as_eager(exact, eager, mine, f);
    // Another mask of the same size is read, not remembered; an empty one takes other branches.
    for (double keep : {0.2, 0.0, 1.0}) {
        for (auto& m : {exact, eager, mine}) {
            at::manual_seed(10);
            m->set_emptiness((at::rand({1, 1, m->grid(), m->grid(), m->grid()}) < keep).to(m->density_plane[0].scalar_type()));
        }
        as_near_as_eager(exact, eager, mine, f);
    }
}
TEST(HexPlaneFused, UpsamplingReplacesParameters) {
    auto eager = make(at::kDouble, true), mine = make(at::kDouble, true);
    Fused f = fused(mine, step(*mine, 0, at::kDouble));
    auto want = train(eager, at::kDouble, 3, [&](const Tensors& in) { return eager->loss(in); }), got = train(mine, at::kDouble, 3, f);
    EXPECT_EQ(f.report().eager_reason, "");
    for (auto& m : {eager, mine}) {
        m->zero_grad();
        m->upsample(16, 8);
    }
    try {
        f(step(*mine, 0, at::kDouble));
        ADD_FAILURE() << "trained tensors that the model no longer has";
    } catch (const Error& e) {
        EXPECT_THAT(e.what(), ::testing::HasSubstr("fuse again after replacing parameters"));
    }
    f = fused(mine, step(*mine, 0, at::kDouble));
    for (double v : train(eager, at::kDouble, 5, [&](const Tensors& in) { return eager->loss(in); })) want.push_back(v);
    for (double v : train(mine, at::kDouble, 5, f)) got.push_back(v);
    for (std::size_t i = 0; i < want.size(); ++i) EXPECT_NEAR(got[i] / want[i], 1, 1e-9) << i;
}

}  // namespace
}  // namespace heddle::testing
