// A hundred steps of DynIBaR's training, eager and fused, on other frames, anchors, rays and numbers of views each time.
// Law: losses stay within 1e-3; the fused run compiles in its first step alone, and no step waits for the host to read a value.
#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/optim/adam.h>
#include <torch/utils.h>

#include <set>

#include "frontends/torch/train_step.h"
#include "models/dynibar/parts.h"

namespace heddle::testing {
namespace {

using models::Dynibar;
using models::Phase;

struct Trained {
    std::shared_ptr<Dynibar> model;
    std::unique_ptr<torch::optim::Adam> adam;

    Trained() {
        torch::manual_seed(3);
        model = std::make_shared<Dynibar>(models::dynibar_config("tiny"));
        models::stir(*model, 4);
        std::vector<torch::optim::OptimizerParamGroup> groups;
        for (const auto& g : model->groups()) groups.emplace_back(g.parameters, std::make_unique<torch::optim::AdamOptions>(g.rate));
        adam = std::make_unique<torch::optim::Adam>(groups);
    }
    Tensors loss(const Tensors& in) const { return model->loss(in, Phase::moving); }
};

TEST(DynibarTraining, StaysWithEagerAndCompilesOnce) {
    Trained eager, fused;
    const auto inputs = models::dynibar_steps(eager.model->config(), 5);
    FuseOptions options;
    options.name = "dynibar";
    for (const auto& s : models::StepInputs::sizes()) options.dynamic.push_back({.input = s.input, .tensor = {}, .dim = s.dim, .name = s.name});
    TrainStep step([&](const Tensors& in) { return fused.loss(in); }, *fused.adam, options);
    std::set<std::vector<std::int64_t>> moments, sizes;
    for (int i = 0; i < 100; ++i) {
        const auto in = inputs(i);
        moments.insert({in.frame.item<std::int64_t>(), in.anchor.item<std::int64_t>()});
        sizes.insert({in.sources.images.size(0), in.anchor_sources.images.size(0), in.static_sources.images.size(0), in.pairs.size(0)});
        eager.adam->zero_grad();
        const auto want = eager.loss(in.list());
        want[0].backward();
        eager.adam->step();
        const auto got = step(in.list());
        ASSERT_EQ(step.eager_reason(), "");
        const double a = got[0].item<double>(), b = want[0].item<double>();
        ASSERT_NEAR(a, b, 1e-3 * std::abs(b)) << "step " << i;
        const auto r = step.report();
        ASSERT_EQ(r.compiles, 1) << "step " << i;
        ASSERT_EQ(r.host_reads, 0) << "step " << i;
        ASSERT_LE(r.launches, 200) << "step " << i;
    }
    EXPECT_GE(moments.size(), 20U);
    EXPECT_GE(sizes.size(), 5U);
}

}  // namespace
}  // namespace heddle::testing
