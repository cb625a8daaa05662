// A whole step in one plan trains as eager libtorch does: parameters, the optimiser's state, results, step by step.
#include <ATen/ATen.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/optim/adam.h>
#include <torch/optim/adamw.h>
#include <torch/optim/sgd.h>

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

using ::testing::HasSubstr;
using at::Tensor;
using models::HexPlane;

using Shapes = std::vector<std::vector<std::int64_t>>;
// Two equal sets of parameters, one trained eagerly.
struct Twins {
    Tensors eager, fused;
    explicit Twins(const Shapes& shapes, at::ScalarType t = at::kDouble) {
        at::manual_seed(3);
        for (const auto& s : shapes) {
            Tensor x = at::randn(s, at::TensorOptions().dtype(t));
            eager.push_back(x.clone().requires_grad_());
            fused.push_back(x.clone().requires_grad_());
        }
    }
};
using Loss = std::function<Tensors(const Tensors& parameters, const Tensors& in)>;
// All forms of a step: the host waits; it doesn't; nor does it count.
const StepOptions kForms[] = {{.bounded = false}, {.bounded = true}, {.bounded = true, .capturable = true}};
template <class Optimiser, class Options>
AdamStep::Report trains_alike(const Loss& loss, Twins& p, const std::function<Tensors(int)>& inputs, Options options, int steps, double tolerance, StepOptions form = {}) {
    Optimiser a(p.eager, options), b(p.fused, options);
    TrainStep step([&](const Tensors& in) { return loss(p.fused, in); }, b, {.dynamic = {}, .name = "step"}, form);
    for (int i = 0; i < steps; ++i) {
        const Tensors in = inputs(i);
        const double rate = options.lr() * (1 - 0.05 * i);  // a schedule
        for (auto* o : {static_cast<torch::optim::Optimizer*>(&a), static_cast<torch::optim::Optimizer*>(&b)}) o->param_groups()[0].options().set_lr(rate);
        a.zero_grad();
        Tensors want = loss(p.eager, in);
        want[0].backward();
        a.step();
        Tensors got = step(in);
        EXPECT_EQ(step.report().eager_reason, "");
        EXPECT_EQ(got.size(), want.size());
        if (::testing::Test::HasFailure()) return step.report();
        for (std::size_t k = 0; k < got.size(); ++k) {
            EXPECT_FALSE(got[k].requires_grad());
            EXPECT_TRUE(at::allclose(got[k], want[k], tolerance, tolerance)) << "result " << k << " of step " << i << "\n" << got[k] << "\n" << want[k];
        }
        for (std::size_t k = 0; k < p.eager.size(); ++k)
            EXPECT_TRUE(at::allclose(p.fused[k], p.eager[k], tolerance, tolerance)) << "parameter " << k << " after step " << i << "\n" << p.fused[k] << "\n" << p.eager[k];
    }
    EXPECT_EQ(a.state().size(), b.state().size());
    step.note();
    using State = std::conditional_t<std::is_same_v<Optimiser, torch::optim::Adam>, torch::optim::AdamParamState, torch::optim::AdamWParamState>;
    for (auto& [key, state] : b.state()) EXPECT_EQ(static_cast<State&>(*state).step(), static_cast<State&>(*a.state().begin()->second).step());
    EXPECT_EQ(step.report().copied, 0) << step.explain();
    return step.report();
}
Tensors random(int seed, const Shapes& shapes, at::ScalarType t = at::kDouble) {
    at::manual_seed(100 + static_cast<std::uint64_t>(seed));
    Tensors all;
    for (const auto& s : shapes) all.push_back(at::randn(s, at::TensorOptions().dtype(t)));
    return all;
}
Tensors regression(const Tensors& p, const Tensors& in) {
    Tensor y = at::addmm(p[1], at::relu(at::addmm(p[3], in[0], p[2])), p[0]);
    Tensor loss = (y - in[1]).pow(2).mean();
    return {loss, y};
}

TEST(TrainStep, AdamOfAnMlp) {
    for (const StepOptions& form : kForms) {
        Twins p({{8, 3}, {3}, {5, 8}, {8}});
        trains_alike<torch::optim::Adam>(regression, p, [](int i) { return random(i, {{7, 5}, {7, 3}}); }, torch::optim::AdamOptions(1e-2), 6, 1e-12, form);
    }
}
TEST(TrainStep, FormsOfAdam) {
    for (const StepOptions& form : {kForms[0], kForms[2]})
        for (auto [amsgrad, decay] : {std::pair{false, 0.}, {false, 0.1}, {true, 0.}, {true, 0.1}}) {
            Twins p({{8, 3}, {3}, {5, 8}, {8}}), q({{8, 3}, {3}, {5, 8}, {8}});
            auto inputs = [](int i) { return random(i, {{7, 5}, {7, 3}}); };
            trains_alike<torch::optim::Adam>(regression, p, inputs, torch::optim::AdamOptions(1e-2).amsgrad(amsgrad).weight_decay(decay).betas({0.8, 0.95}).eps(1e-6), 4, 1e-12, form);
            trains_alike<torch::optim::AdamW>(regression, q, inputs, torch::optim::AdamWOptions(1e-2).amsgrad(amsgrad).weight_decay(decay), 4, 1e-12, form);
        }
}
TEST(TrainStep, AParameterThatReadsItsNeighbours) {  // the gradient of an element needs others, which must not be updated yet
    Twins p({{1, 3, 9, 11}, {40}, {}});
    auto loss = [](const Tensors& p, const Tensors& in) {
        const Tensor& x = p[0];
        Tensor tv = (x.slice(2, 1) - x.slice(2, 0, -1)).pow(2).sum() + 2 * (x.slice(3, 1) - x.slice(3, 0, -1)).pow(2).sum();
        Tensor smooth = (p[1].slice(0, 1) * p[1].slice(0, 0, -1)).sum() * p[2];
        return Tensors{tv * in[0].sum() + smooth + (p[1].cumsum(0) * p[1].flip(0)).sum()};
    };
    trains_alike<torch::optim::Adam>(loss, p, [](int i) { return random(i, {{4}}); }, torch::optim::AdamOptions(1e-2), 6, 1e-12);
}
TEST(TrainStep, GradientsThatAreNoneOrZero) {  // None: no update, no state; zeros: momentum goes on
    for (const StepOptions& form : kForms) {
        Twins p({{4}, {4}, {4}});
        auto loss = [](const Tensors& p, const Tensors& in) { return Tensors{(p[0] * in[0]).sum() + (p[1] * 0).sum(), p[2] * 2}; };
        trains_alike<torch::optim::Adam>(loss, p, [](int i) { return random(i, {{4}}); }, torch::optim::AdamOptions(1e-2), 3, 1e-12, form);
        EXPECT_TRUE(p.fused[2].equal(p.eager[2]));
    }
}
TEST(TrainStep, BranchesOnValues) {  // each branch is a plan; a guard that fails has changed nothing
    Twins p({{6}, {6}}), q({{6}, {6}});
    auto loss = [](const Tensors& p, const Tensors& in) {
        Tensor y = p[0] * in[0];
        if ((y > 0.5).any().item<bool>()) y = y + p[0] * in[0].sin() + p[1];
        return Tensors{y.pow(2).sum() + p[0].pow(4).sum() + p[1].pow(2).sum()};
    };
    auto inputs = [](int i) { return Tensors{at::full({6}, i % 3 == 1 ? 1e-3 : 2., at::kDouble) * (1 + i)}; };
    auto exact = trains_alike<torch::optim::Adam>(loss, p, inputs, torch::optim::AdamOptions(5e-2), 9, 1e-12);
    auto late = trains_alike<torch::optim::Adam>(loss, q, inputs, torch::optim::AdamOptions(5e-2), 9, 1e-12, {.bounded = true});
    EXPECT_EQ(exact.host_reads, 1);
    EXPECT_EQ(late.host_reads, 0);
    EXPECT_EQ(late.captures, 2);
}
TEST(TrainStep, AGradientThatABranchAloneLeadsTo) {  // None where it isn't taken: no update then
    for (bool bounded : {false, true}) {
        Twins p({{6}, {6}});
        auto loss = [](const Tensors& p, const Tensors& in) {
            Tensor y = p[0] * in[0];
            if ((y > 0.5).any().item<bool>()) y = y + p[1] * in[0].sin();
            return Tensors{y.pow(2).sum() + p[0].pow(4).sum()};
        };
        torch::optim::Adam a(p.eager, torch::optim::AdamOptions(5e-2)), b(p.fused, torch::optim::AdamOptions(5e-2));
        TrainStep step([&](const Tensors& in) { return loss(p.fused, in); }, b, {}, {.bounded = bounded});
        for (int i = 0; i < 9; ++i) {
            Tensors in{at::full({6}, i % 3 == 1 ? 1e-3 : 2., at::kDouble) * (1 + i)};
            a.zero_grad();
            loss(p.eager, in)[0].backward();
            a.step();
            step(in);
            EXPECT_EQ(step.report().eager_reason, "");
            for (std::size_t k = 0; k < 2; ++k) EXPECT_TRUE(at::allclose(p.fused[k], p.eager[k], 1e-12, 1e-12)) << i << " " << k;
        }
    }
}
// More rows than there is room for: the step is repeated, and has changed nothing before.
TEST(TrainStep, RowsThatGrow) {
    auto loss = [](const Tensors& p, const Tensors& in) {
        Tensor y = in[0].mm(p[0]).tanh();                     // [N, 3]
        Tensor rows = y.index({y.select(1, 0) > in[1]});      // [u, 3]
        Tensor z = rows.mm(p[1]).relu().cumsum(0);
        return Tensors{z.pow(2).mean() + y.pow(2).mean(), z.sum()};
    };
    auto inputs = [](int i) {
        const double over[] = {0.9, 0.9, 0.2, 0.2, 0.95, 0.95, -2, 0.9};
        Tensors in = random(i, {{2000, 5}});
        in.push_back(at::full({}, over[i], at::kDouble));
        return in;
    };
    for (const StepOptions& form : kForms) {
        Twins p({{5, 3}, {3, 4}});
        auto report = trains_alike<torch::optim::Adam>(loss, p, inputs, torch::optim::AdamOptions(1e-2), 8, 1e-11, form);
        EXPECT_EQ(report.bounded, *form.bounded) << report.waits;
        EXPECT_EQ(report.host_reads, *form.bounded ? 0 : 1);
        EXPECT_EQ(report.captures, 1);
        EXPECT_EQ(report.repeated, *form.bounded ? 2 : 0);
    }
}
TEST(TrainStep, ResultsOfARowEachWait) {  // a result has as many rows as a mask: the host has to know
    Twins p(Shapes{{7}});
    auto loss = [](const Tensors& p, const Tensors& in) {
        Tensor y = p[0] * in[0], rows = y.index({y > 0});
        return Tensors{rows.pow(2).sum() + y.sum(), rows};
    };
    auto report = trains_alike<torch::optim::Adam>(loss, p, [](int i) { return random(i, {{7}}); }, torch::optim::AdamOptions(1e-2), 3, 1e-12, {.bounded = true});
    EXPECT_FALSE(report.bounded);
    EXPECT_THAT(report.waits, HasSubstr("a result has u0 rows"));
}
// What a CUDA graph needs: from its second run on a step is kernels and products in the same memory. No host reads, nothing is allocated, and
// numbers of steps are on the device. A run that doesn't hold says so and changes nothing.
TEST(TrainStep, CanBeRecorded) {
    auto loss = [](const Tensors& p, const Tensors& in) {
        Tensor y = in[0].mm(p[0]), rows = y.index({y.select(1, 0) > in[1]}), z = rows.mm(p[1]).relu();
        return Tensors{z.pow(2).sum() + y.pow(2).mean()};
    };
    Twins p({{5, 3}, {3, 4}});
    torch::optim::Adam a(p.eager, torch::optim::AdamOptions(1e-2)), b(p.fused, torch::optim::AdamOptions(1e-2));
    TrainStep step([&](const Tensors& in) { return loss(p.fused, in); }, b, {}, kForms[2]);
    Tensors in = random(1, {{3000, 5}});
    in.push_back(at::full({}, 0.5, at::kDouble));
    auto eager = [&] {
        a.zero_grad();
        Tensors want = loss(p.eager, in);
        want[0].backward();
        a.step();
        return want[0].item<double>();
    };
    step(in), step(in), eager(), eager();
    const auto before = step.report();
    for (int i = 0; i < 5; ++i) {
        in[0].copy_(random(i, {{3000, 5}})[0]);
        EXPECT_NEAR(step(in, false)[0].item<double>() / eager(), 1, 1e-11);
        EXPECT_EQ(step.failed()[0].item<std::int64_t>(), 0);
        for (std::size_t k = 0; k < 2; ++k) EXPECT_TRUE(at::allclose(p.fused[k], p.eager[k], 1e-11, 1e-11)) << i;
    }
    const auto after = step.report();
    EXPECT_EQ(after.allocations, before.allocations);
    EXPECT_EQ(after.host_reads, 0);
    EXPECT_EQ(after.captures, 1);
    for (const auto& call : after.library_calls) EXPECT_EQ(call, "dot");
    in[1].fill_(-10.);
    Tensors old{p.fused[0].detach().clone(), p.fused[1].detach().clone()};
    step(in, false);
    EXPECT_NE(step.failed()[0].item<std::int64_t>(), 0);
    EXPECT_EQ(step.failed()[1].item<std::int64_t>(), 3000);
    for (std::size_t k = 0; k < 2; ++k) EXPECT_TRUE(p.fused[k].equal(old[k]));
    step.note();
    EXPECT_EQ(static_cast<torch::optim::AdamParamState&>(*b.state().at(p.fused[0].unsafeGetTensorImpl())).step(), 7);
    step(in), eager();  // once more, with room
    for (std::size_t k = 0; k < 2; ++k) EXPECT_TRUE(at::allclose(p.fused[k], p.eager[k], 1e-11, 1e-11));
    step.note();
    EXPECT_EQ(static_cast<torch::optim::AdamParamState&>(*b.state().at(p.fused[0].unsafeGetTensorImpl())).step(), 8);
}
TEST(TrainStep, RandomNumbersAndMasks) {
    auto loss = [](const Tensors& p, const Tensors& in) {
        Tensor y = in[0].mm(p[0]), noisy = y + at::rand_like(y);
        return Tensors{noisy.index({noisy > 0.2}).pow(2).sum() + noisy.mean(), noisy};
    };
    for (bool bounded : {false, true}) {
        Twins q({{5, 3}});
        torch::optim::Adam a(q.eager, torch::optim::AdamOptions(1e-2)), b(q.fused, torch::optim::AdamOptions(1e-2));
        TrainStep step([&](const Tensors& in) { return loss(q.fused, in); }, b, {}, {.bounded = bounded});
        for (int i = 0; i < 4; ++i) {
            Tensors in = random(i, {{6, 5}});
            at::manual_seed(9 + static_cast<std::uint64_t>(i));
            a.zero_grad();
            Tensors want = loss(q.eager, in);
            want[0].backward();
            a.step();
            at::manual_seed(9 + static_cast<std::uint64_t>(i));
            Tensors got = step(in);
            EXPECT_EQ(step.report().eager_reason, "");
            EXPECT_TRUE(at::allclose(got[0], want[0], 1e-12, 1e-12)) << i;
            EXPECT_TRUE(at::allclose(q.fused[0], q.eager[0], 1e-12, 1e-12)) << i;
        }
    }
}
TEST(TrainStep, UpdatesComeAfterAllReadsOfTheHost) {  // one parameter is free before the rows of a mask are counted
    Twins p(Shapes{{5, 3}, {40}});
    auto loss = [](const Tensors& p, const Tensors& in) {
        Tensor y = in[0].mm(p[0]);
        return Tensors{y.index({y > 0.2}).sin().cumsum(0).pow(2).sum() + p[1].pow(2).sum()};
    };
    trains_alike<torch::optim::Adam>(loss, p, [](int i) { return random(i, {{60, 5}}); }, torch::optim::AdamOptions(1e-2), 4, 1e-12);
    torch::optim::Adam adam(p.fused, torch::optim::AdamOptions(1e-2));
    TrainStep step([&](const Tensors& in) { return loss(p.fused, in); }, adam);
    step(random(9, {{60, 5}}));
    ASSERT_EQ(step.report().eager_reason, "");
    EXPECT_EQ(step.report().host_reads, 1);
    const std::string plan = step.explain();
    const auto read = plan.find("  size u0 = ");
    ASSERT_NE(read, plan.npos) << plan;
    int updates = 0;
    for (auto at = plan.find(" is written over "); at != plan.npos; at = plan.find(" is written over ", at + 1), ++updates) {
        const auto begin = plan.rfind('%', at);
        EXPECT_GT(plan.find("store " + plan.substr(begin, at - begin) + " ="), read) << plan;
    }
    EXPECT_EQ(updates, 6) << plan;
}
TEST(TrainStep, ResultsStayWhatTheyWere) {  // memory is used again only when nobody holds it
    Twins p(Shapes{{6}});
    torch::optim::Adam adam(p.fused, torch::optim::AdamOptions(1e-1));
    TrainStep step([&](const Tensors& in) { Tensor y = p.fused[0] * in[0]; return Tensors{y.sum(), y}; }, adam);
    Tensors held;
    std::vector<Tensor> copies;
    for (int i = 0; i < 4; ++i) {
        Tensors out = step(random(i, {{6}}));
        held.push_back(out[1]);
        copies.push_back(out[1].clone());
    }
    for (std::size_t i = 0; i < 4; ++i) EXPECT_TRUE(held[i].equal(copies[i]));
}
TEST(TrainStep, AllocatesNothingAfterItsFirst) {
    Twins p({{64, 64}, {64}}, at::kFloat);
    torch::optim::Adam adam(p.fused, torch::optim::AdamOptions(1e-3));
    TrainStep step([&](const Tensors& in) { Tensor h = at::tanh(at::addmm(p.fused[1], in[0], p.fused[0])); return Tensors{(h - in[1]).pow(2).cumsum(0).mean(), h}; }, adam);
    Tensors in = random(0, {{100, 64}, {100, 64}}, at::kFloat);
    step(in);
    const auto first = step.report().allocations;
    for (int i = 0; i < 5; ++i) step(in);
    EXPECT_EQ(step.report().allocations, first);
    EXPECT_EQ(step.report().host_reads, 0);
}
TEST(TrainStep, OtherOptimisersAndLossesRunEagerly) {
    Twins p(Shapes{{6}});
    torch::optim::SGD a(p.eager, torch::optim::SGDOptions(1e-1)), b(p.fused, torch::optim::SGDOptions(1e-1));
    auto loss = [](const Tensor& p, const Tensors& in) { return Tensors{(p * in[0]).pow(2).sum()}; };
    TrainStep step([&](const Tensors& in) { return loss(p.fused[0], in); }, b);
    for (int i = 0; i < 3; ++i) {
        Tensors in = random(i, {{6}});
        a.zero_grad();
        loss(p.eager[0], in)[0].backward();
        a.step();
        step(in);
        EXPECT_THAT(step.report().eager_reason, HasSubstr("neither torch::optim::Adam nor AdamW"));
        EXPECT_TRUE(p.fused[0].equal(p.eager[0]));
    }
}
TEST(TrainStep, AStepOfTheOptimisersOwnInBetween) {
    Twins p(Shapes{{6}});
    auto loss = [](const Tensor& p, const Tensors& in) { return Tensors{(p * in[0]).pow(2).sum()}; };
    torch::optim::Adam a(p.eager, torch::optim::AdamOptions(1e-1)), b(p.fused, torch::optim::AdamOptions(1e-1));
    TrainStep step([&](const Tensors& in) { return loss(p.fused[0], in); }, b);
    for (int i = 0; i < 6; ++i) {
        Tensors in = random(i, {{6}});
        a.zero_grad();
        loss(p.eager[0], in)[0].backward();
        a.step();
        if (i % 3 == 1) {
            b.zero_grad();
            loss(p.fused[0], in)[0].backward();
            b.step();
        } else {
            step(in);
        }
        EXPECT_TRUE(at::allclose(p.fused[0], p.eager[0], 1e-13, 1e-13)) << i;
    }
}

// ---- HexPlane
std::shared_ptr<HexPlane> hexplane(at::ScalarType type, bool thick) {
    at::manual_seed(5);
    auto model = std::make_shared<HexPlane>(models::hexplane_config("tiny"));
    if (thick) models::thicken(*model, 5);
    model->to(type);
    return model;
}
std::vector<torch::optim::OptimizerParamGroup> groups(const HexPlane& m) {
    std::vector<torch::optim::OptimizerParamGroup> g;
    g.emplace_back(m.plane_parameters(), std::make_unique<torch::optim::AdamOptions>(torch::optim::AdamOptions(0.02).betas({0.9, 0.99})));
    g.emplace_back(m.network_parameters(), std::make_unique<torch::optim::AdamOptions>(torch::optim::AdamOptions(0.001).betas({0.9, 0.99})));
    return g;
}
void hexplane_trains_alike(bool thick, int steps, double tolerance, StepOptions form) {
    auto a = hexplane(at::kDouble, thick), b = hexplane(at::kDouble, thick);
    torch::optim::Adam adam_a(groups(*a)), adam_b(groups(*b));
    TrainStep step([&](const Tensors& in) { return b->loss(in); }, adam_b, {.dynamic = {}, .name = "hexplane"}, form);
    for (int i = 0; i < steps; ++i) {
        const Tensors in = models::hexplane_step_inputs(*a, static_cast<std::uint64_t>(i), at::kDouble);
        at::manual_seed(static_cast<std::uint64_t>(i));
        adam_a.zero_grad();
        Tensors want = a->loss(in);
        want[0].backward();
        adam_a.step();
        at::manual_seed(static_cast<std::uint64_t>(i));
        Tensors got = step(in);
        ASSERT_EQ(step.report().eager_reason, "");
        EXPECT_NEAR(got[0].item<double>(), want[0].item<double>(), tolerance * std::abs(want[0].item<double>())) << i;
    }
    EXPECT_EQ(step.report().copied, 0) << step.explain();
    EXPECT_LE(step.report().launches, 10) << step.explain();
    EXPECT_EQ(step.report().bounded, *form.bounded) << step.report().waits;
    for (const auto& p : a->named_parameters()) {
        const Tensor& q = b->named_parameters()[p.key()];
        const double scale = p.value().norm().item<double>();
        EXPECT_LE((p.value() - q).norm().item<double>(), tolerance * std::max(scale, 1e-12)) << p.key();
    }
}
TEST(TrainStep, HexPlaneThin) {
    for (const StepOptions& form : kForms) hexplane_trains_alike(false, 4, 1e-9, form);
}
TEST(TrainStep, HexPlaneThick) {
    for (const StepOptions& form : kForms) hexplane_trains_alike(true, 4, 1e-9, form);
}

// ---- a whole schedule: planes grow after 8 of 20 iterations, the emptiness mask comes after 12, the run is cut and resumed
TEST(TrainStep, TrainsTheScheduleAsEagerAndResumes) {
    const auto data = random_rays(at::kDouble);
    const auto folder = std::filesystem::temp_directory_path() / fmt::format("heddle-step-{}", ::getpid());
    std::filesystem::create_directories(folder);
    auto run = [&](bool fused, std::int64_t stop, const std::string& resume, const std::string& checkpoint) {
        auto model = hexplane(at::kDouble, true);
        at::manual_seed(21);
        models::TrainOptions o;
        o.seed = 5, o.quiet = true, o.dtype = at::kDouble, o.stop_after = stop, o.resume = resume, o.checkpoint = checkpoint, o.run = {{"scale", "tiny"}};
        if (fused)
            o.make_step = [](models::StepFn loss, torch::optim::Optimizer& adam) -> models::StepFn {
                return [step = std::make_shared<TrainStep>(std::move(loss), adam)](const Tensors& in) {
                    auto out = (*step)(in);
                    EXPECT_EQ(step->eager_reason(), "");
                    return out;
                };
            };
        return std::pair(models::train(models::hexplane_task(model), data, {}, o), model);
    };
    const auto [want, eager] = run(false, 0, "", "");
    const auto [got, model] = run(true, 0, "", "");
    ASSERT_EQ(got.losses.size(), 20u);
    for (std::size_t i = 0; i < 20; ++i) EXPECT_NEAR(got.losses[i][0] / want.losses[i][0], 1, 1e-8) << i;
    for (const auto& p : eager->named_parameters())
        EXPECT_LE((p.value() - model->named_parameters()[p.key()]).norm().item<double>(), 1e-7 * p.value().norm().item<double>() + 1e-12) << p.key();
    for (std::int64_t cut : {5, 15}) {
        run(true, cut, "", folder / "half");
        const auto [rest, again] = run(true, 0, folder / "half", "");
        ASSERT_EQ(rest.losses.size(), static_cast<std::size_t>(20 - cut));
        for (const auto& p : model->named_parameters()) EXPECT_TRUE(p.value().equal(again->named_parameters()[p.key()])) << p.key() << " cut " << cut;
    }
    std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace heddle::testing
