// A hundred steps of DynIBaR's training, eager and fused, on other frames, anchors, rays and numbers of views each time.
// Law: in float64, where rounding is too small to be amplified into sight, losses stay together; in float32 training parts eager from itself
// (`heddle bench dynibar --steps 100` shows by how much). The fused run compiles in its first step alone, and no kernel waits for the host.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>
#include <torch/optim/adam.h>
#include <torch/utils.h>

#include <set>

#include "frontends/torch/train_step.h"
#include "models/dynibar/parts.h"

namespace heddle::testing {
namespace {

using models::Dynibar;

struct Trained {
    std::shared_ptr<Dynibar> model;
    std::unique_ptr<torch::optim::Adam> adam;
    std::function<models::StepInputs(std::int64_t)> inputs;

    Trained() {
        torch::manual_seed(3);
        model = std::make_shared<Dynibar>(models::dynibar_config("tiny"));
        model->to(at::kDouble);
        std::vector<torch::optim::OptimizerParamGroup> groups;
        for (const auto& g : model->groups()) groups.emplace_back(g.parameters, std::make_unique<torch::optim::AdamOptions>(g.rate));
        adam = std::make_unique<torch::optim::Adam>(groups);
        inputs = models::dynibar_steps(model->config(), 5, at::kDouble);
    }
    Tensors loss(const Tensors& in) const { return model->loss(in, models::Phase::moving); }
    double eager_step(int i) const {
        adam->zero_grad();
        const auto out = loss(inputs(i).list());
        out[0].backward();
        adam->step();
        return out[0].item<double>();
    }
};

struct OneThread {  // its ops are too small to share
    int before = at::get_num_threads();
    OneThread() { at::set_num_threads(1); }
    ~OneThread() { at::set_num_threads(before); }
};

TEST(DynibarTraining, StaysWithEagerAndCompilesOnce) {
    const OneThread one;
    Trained eager, fused;
    FuseOptions options;
    options.name = "dynibar";
    for (const auto& s : models::StepInputs::sizes()) options.dynamic.push_back({.input = s.input, .tensor = {}, .dim = s.dim, .name = s.name});
    TrainStep step([&](const Tensors& in) { return fused.loss(in); }, *fused.adam, options, {.bounded = true});
    std::set<std::vector<std::int64_t>> moments, sizes;
    for (int i = 0; i < 100; ++i) {
        const auto in = fused.inputs(i);
        moments.insert({in.frame.item<std::int64_t>(), in.anchor.item<std::int64_t>()});
        sizes.insert({in.sources.images.size(0), in.anchor_sources.images.size(0), in.static_sources.images.size(0), in.pairs.size(0)});
        const double want = eager.eager_step(i);
        const auto got = step(in.list());
        ASSERT_EQ(step.eager_reason(), "");
        ASSERT_NEAR(got[0].item<double>(), want, 1e-6 * std::abs(want)) << "step " << i;
        const auto r = step.report();
        ASSERT_EQ(r.compiles, 1) << "step " << i;
        ASSERT_TRUE(r.bounded) << r.waits;
        ASSERT_EQ(r.host_reads, 0) << "step " << i;
        ASSERT_EQ(r.repeated, 0) << "step " << i;
        ASSERT_LE(r.launches, 200) << "step " << i;
    }
    EXPECT_GE(moments.size(), 20U);
    EXPECT_GE(sizes.size(), 5U);
}

}  // namespace
}  // namespace heddle::testing
