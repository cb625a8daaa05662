// Training that goes on at other sizes: planes and masks grow, numbers follow from sizes, and nothing is compiled for it.
// Law: each step is eager's, in float64; code is compiled once for each form of the loss, and never for a size.
#include <ATen/ATen.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/optim/adam.h>
#include <unistd.h>

#include <filesystem>

#include "frontends/torch/train_step.h"
#include "models/hexplane/hexplane.h"
#include "models/hexplane/parts.h"
#include "models/hexplane/task.h"
#include "models/trainer.h"
#include "tests/torch/scene.h"

namespace heddle::testing {
namespace {

using at::Tensor;
using models::HexPlane;

// One loss of parameters `p`, trained by an optimiser and a step of their own each time, beside eager. Returns how often code was compiled.
struct Case {
    std::vector<std::int64_t> sizes;
    double number = 1;
};
using Loss = std::function<Tensors(const Tensors& p, const Tensors& in, const Case&)>;
std::vector<int> compiles(const std::string& name, const std::function<Tensors(const Case&)>& parameters, const Loss& loss, const std::vector<Case>& cases) {
    std::vector<int> all;
    for (const Case& c : cases) {
        at::manual_seed(11);
        Tensors eager, fused;
        for (const Tensor& p : parameters(c)) eager.push_back(p.clone().requires_grad_()), fused.push_back(p.clone().requires_grad_());
        torch::optim::Adam a(eager, torch::optim::AdamOptions(1e-2)), b(fused, torch::optim::AdamOptions(1e-2));
        TrainStep step([&](const Tensors& in) { return loss(fused, in, c); }, b, {.dynamic = {}, .name = name});
        for (int i = 0; i < 3; ++i) {
            const Tensors in{at::rand({50, 2}, at::kDouble) * 2.2 - 1.1};
            at::manual_seed(i);
            a.zero_grad();
            Tensor want = loss(eager, in, c)[0];
            want.backward();
            a.step();
            at::manual_seed(i);
            Tensor got = step(in)[0];
            EXPECT_EQ(step.report().eager_reason, "");
            EXPECT_NEAR(got.item<double>(), want.item<double>(), 1e-12 * (1 + std::abs(want.item<double>())));
            for (std::size_t k = 0; k < eager.size(); ++k) EXPECT_TRUE(at::allclose(fused[k], eager[k], 1e-11, 1e-12)) << name << ": parameter " << k << " after step " << i;
        }
        all.push_back(step.report().compiles);
    }
    return all;
}
Tensors planes(const Case& c) { return {at::randn({1, 4, c.sizes[0], c.sizes[1]}, at::kDouble), at::randn({1, 4, c.sizes[0], c.sizes[2]}, at::kDouble)}; }
Tensor look_up(const Tensor& plane, const Tensor& at) { return at::grid_sampler(plane, at.view({1, -1, 1, 2}), 0, 0, true).squeeze(3).squeeze(0); }
Tensor variation(const Tensor& x) {
    const auto h = x.size(2), w = x.size(3);
    return (x.slice(2, 1) - x.slice(2, 0, h - 1)).pow(2).sum() / static_cast<double>((h - 1) * w) + (x.slice(3, 1) - x.slice(3, 0, w - 1)).pow(2).sum() / static_cast<double>(h * (w - 1));
}
Tensors sampled(const Tensors& p, const Tensors& in, const Case& c) {
    const auto steps = static_cast<std::int64_t>(static_cast<double>(p[0].size(2)) * std::sqrt(3.0));  // no polynomial
    Tensor along = at::linspace(0, 1, steps, at::kDouble).unsqueeze(1);
    Tensor f = (look_up(p[0], in[0]) * look_up(p[1], in[0])).sum(0);
    Tensor y = (1 - at::exp(-f.unsqueeze(0) * along * (4.0 / static_cast<double>(steps)))).sum(0);
    return {y.pow(2).mean() * c.number + (variation(p[0]) + variation(p[1])) * 0.1};
}

TEST(Resume, PlanesThatAreSampledGrowWithoutCompiling) {
    EXPECT_THAT(compiles("sampled", planes, sampled, {{{6, 7, 5}}, {{9, 11, 8}}, {{14, 13, 9}}, {{8, 30, 17}}}), ::testing::ElementsAre(1, 0, 0, 0));
}
TEST(Resume, WhatIsNotSampledCompilesOnceMore) {
    auto smooth = [](const Tensors& p, const Tensors& in, const Case&) {
        return Tensors{variation(p[0]) + variation(p[1]) * 2.0 + (p[0] * in[0].sum()).mean() / static_cast<double>(p[0].numel())};
    };
    EXPECT_THAT(compiles("smooth", planes, smooth, {{{16, 27, 11}}, {{19, 33, 15}}, {{14, 13, 9}}, {{8, 30, 17}}}), ::testing::ElementsAre(1, 1, 0, 0));
    // Two sizes that one less than another is, in both captures: another is needed to tell them apart.
    EXPECT_THAT(compiles("smooth by chance", planes, smooth, {{{6, 7, 5}}, {{9, 11, 8}}, {{14, 22, 9}}, {{18, 30, 11}}}), ::testing::Contains(0));
}
TEST(Resume, SizesThatWereEqualByChance) {
    EXPECT_THAT(compiles("equal", planes, sampled, {{{6, 6, 6}}, {{9, 9, 9}}, {{14, 13, 9}}, {{8, 30, 17}}}), ::testing::ElementsAre(1, 0, 1, 0));
}
TEST(Resume, NumbersThatBecomeZeroOrOne) {
    auto weighted = [](const Tensors& p, const Tensors& in, const Case& c) {
        return Tensors{(look_up(p[0], in[0]) * look_up(p[1], in[0])).pow(2).sum() * c.number + (p[0] + c.number).pow(2).sum() / (c.number + 3) + p[1].pow(2).mean()};
    };
    EXPECT_THAT(compiles("weighted", planes, weighted, {{{6, 7, 5}, 2}, {{6, 7, 5}, 3}, {{9, 7, 5}, 1}, {{6, 8, 5}, 0}, {{6, 7, 5}, -0.5}}), ::testing::ElementsAre(1, 1, 0, 0, 0));
    EXPECT_THAT(compiles("weighted from one", planes, weighted, {{{6, 7, 5}, 1}, {{6, 7, 5}, 0}, {{9, 7, 5}, 3}}), ::testing::ElementsAre(1, 1, 0));
}
TEST(Resume, AnyOtherDifferenceIsAnotherPlan) {
    auto other = [](const Tensors& p, const Tensors& in, const Case& c) {
        Tensor f = look_up(p[0], in[0]);
        switch (static_cast<int>(c.number)) {
            case 0: return Tensors{f.cumsum(1).sin().mean()};
            case 1: return Tensors{f.cumsum(1).cos().mean()};
            case 2: return Tensors{f.cumsum(0).sin().mean()};
            case 3: return Tensors{(f * at::rand({50}, at::kDouble) + at::rand({50}, at::kDouble).sin()).mean()};
            case 4: return Tensors{(at::rand({50}, at::kDouble).sin() + f * at::rand({50}, at::kDouble)).mean()};
            default: return Tensors{f.sin().cumsum(1).mean()};
        }
    };
    for (std::vector<std::int64_t> sizes : {std::vector<std::int64_t>{6, 7, 5}, {9, 8, 8}}) {
        std::vector<Case> cases;
        for (int k = 0; k < 6; ++k) cases.push_back({sizes, static_cast<double>(k)});
        EXPECT_THAT(compiles("other", planes, other, cases), ::testing::Each(sizes[0] == 6 ? 1 : 0));
    }
}
TEST(Resume, AnotherNumberOfChannelsIsAnotherModel) {  // whose kernels are written around it
    auto channels = [](const Case& c) { return Tensors{at::randn({1, c.sizes[0], 6, 7}, at::kDouble)}; };
    auto loss = [](const Tensors& p, const Tensors& in, const Case&) { return Tensors{look_up(p[0], in[0]).sin().sum(0).pow(2).mean()}; };
    EXPECT_THAT(compiles("channels", channels, loss, {{{4}}, {{8}}, {{4}}, {{6}}}), ::testing::ElementsAre(1, 1, 0, 1));
}
TEST(Resume, ALossThatMakesItsOwnTensorsForASize) {  // a run at other sizes replaces them
    auto cached = std::make_shared<Tensor>();
    auto loss = [cached](const Tensors& p, const Tensors& in, const Case&) {
        if (!cached->defined() || cached->size(0) != p[0].size(3)) *cached = at::linspace(0, 1, p[0].size(3), at::kDouble);
        return Tensors{look_up(p[0] * *cached, in[0]).pow(2).mean() + look_up(p[0], in[0]).mean()};
    };
    for (const Case& c : {Case{{6, 7, 5}}, {{9, 8, 8}}}) {
        *cached = Tensor();
        Tensor p = at::randn({1, 4, c.sizes[0], c.sizes[1]}, at::kDouble);
        Tensor q = p.clone().requires_grad_();
        p.requires_grad_();
        torch::optim::Adam a(Tensors{p}, torch::optim::AdamOptions(1e-2)), b(Tensors{q}, torch::optim::AdamOptions(1e-2));
        loss({p}, {at::rand({50, 2}, at::kDouble)}, c);  // a run that makes it isn't a run that finds it
        TrainStep step([&](const Tensors& in) { return loss({q}, in, c); }, b, {.dynamic = {}, .name = "cached"});
        for (int i = 0; i < 3; ++i) {
            const Tensors in{at::rand({50, 2}, at::kDouble) * 2 - 1};
            step(in);
            EXPECT_EQ(step.report().eager_reason, "");
            a.zero_grad();
            loss({p}, in, c)[0].backward();
            a.step();
            EXPECT_TRUE(at::allclose(p, q, 1e-11, 1e-12)) << i;
        }
    }
}

// ---- HexPlane's own schedule: planes grow three times, the mask of what is empty comes, grows late, and is made anew
models::HexPlaneConfig schedule() {
    auto c = models::hexplane_config("tiny");
    c.grid_first = 11, c.grid_last = 18, c.time_first = 5, c.time_last = 9;
    c.iterations = 24;
    c.upsample_after = {0.125, 0.375, 0.625};   // after 3, 9, 15
    c.emptiness_after = {0.25, 0.5, 0.75};      // after 6, 12, 18: planes grow twice beneath a mask of the old size
    return c;
}
struct Trained {
    models::TrainResult result;
    std::shared_ptr<HexPlane> model;
    int captures = 0, compiles = 0;
};
Trained train(bool fused, const std::string& name, std::int64_t stop = 0, const std::string& resume = "", const std::string& checkpoint = "") {
    at::manual_seed(5);
    Trained t;
    t.model = std::make_shared<HexPlane>(schedule());
    models::thicken(*t.model, 5);
    t.model->to(at::kDouble);
    at::manual_seed(21);
    models::TrainOptions o;
    o.seed = 5, o.quiet = true, o.dtype = at::kDouble, o.stop_after = stop, o.resume = resume, o.checkpoint = checkpoint, o.run = {{"scale", "tiny"}};
    std::vector<std::shared_ptr<TrainStep>> steps;
    if (fused)
        o.make_step = [&](models::StepFn loss, torch::optim::Optimizer& adam) -> models::StepFn {
            steps.push_back(std::make_shared<TrainStep>(std::move(loss), adam, FuseOptions{.dynamic = {}, .name = name}));
            return [&t, step = steps.back()](const Tensors& in) {
                const auto before = step->report();
                auto out = (*step)(in);
                EXPECT_EQ(step->eager_reason(), "");
                const auto r = step->report();
                t.captures += r.captures - before.captures, t.compiles += r.compiles - before.compiles;
                return out;
            };
        };
    t.result = models::train(models::hexplane_task(t.model), random_rays(at::kDouble), {}, o);
    return t;
}
TEST(Resume, HexPlanesSchedule) {
    const auto c = schedule();
    ASSERT_EQ(models::upsample_iterations(c), (std::vector<std::int64_t>{3, 9, 15}));
    ASSERT_EQ(models::emptiness_iterations(c), (std::vector<std::int64_t>{6, 12, 18}));
    ASSERT_EQ(models::stages(c).size(), 4u);
    const Trained want = train(false, ""), got = train(true, "schedule");
    ASSERT_EQ(got.result.losses.size(), 24u);
    for (std::size_t i = 0; i < 24; ++i) EXPECT_NEAR(got.result.losses[i][0] / want.result.losses[i][0], 1, 1e-9) << i;
    for (const auto& p : want.model->named_parameters())
        EXPECT_LE((p.value() - got.model->named_parameters()[p.key()]).norm().item<double>(), 1e-9 * p.value().norm().item<double>() + 1e-12) << p.key();
    EXPECT_EQ(got.captures, 7);  // at the start, and after each of six changes
    EXPECT_EQ(got.compiles, 2);  // without a mask and with one
    const auto folder = std::filesystem::temp_directory_path() / fmt::format("heddle-resume-{}", ::getpid());
    std::filesystem::create_directories(folder);
    for (std::int64_t cut : {5, 14, 20}) {
        train(true, "schedule", cut, "", folder / "half");
        const Trained rest = train(true, "schedule", 0, folder / "half");
        EXPECT_EQ(rest.compiles, 0) << cut;
        for (const auto& p : got.model->named_parameters()) EXPECT_TRUE(p.value().equal(rest.model->named_parameters()[p.key()])) << p.key() << " cut " << cut;
    }
    std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace heddle::testing
