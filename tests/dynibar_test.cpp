// DynIBaR as a whole: the original's parameters and schedule, what must be None, networks, training.
#include "models/dynibar/dynibar.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/utils.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>

#include "models/dynibar/task.h"
#include "models/error.h"
#include "models/trainer.h"
#include "tests/dynibar.h"

namespace heddle::models {
namespace {

Tensors gradients(const Tensor& loss, const torch::nn::Module& model) {
    return torch::autograd::grad({loss}, model.parameters(), {}, false, false, true);
}
int64_t defined(const Tensors& all) {
    return std::count_if(all.begin(), all.end(), [](const Tensor& t) { return t.defined(); });
}

// ---- the schedule ------------------------------------------------------------------------------------------------------------------------

TEST(DynibarConfig, FollowsTheOriginalsSchedule) {
    const auto c = dynibar_config("full");
    EXPECT_EQ(span_iterations(c), 40000);
    EXPECT_EQ(phase(c, 19999), Phase::bootstrap);
    EXPECT_EQ(phase(c, 20000), Phase::moving);
    EXPECT_EQ(phase(c, 59999), Phase::moving);
    EXPECT_EQ(phase(c, 60000), Phase::decayed);
    EXPECT_EQ(phase(c, 219999), Phase::decayed);
    EXPECT_EQ(phase(c, 220000), Phase::sparse);
    EXPECT_DOUBLE_EQ(data_weight(c, 59999), 1);
    EXPECT_DOUBLE_EQ(data_weight(c, 100000), 0.01);
    EXPECT_DOUBLE_EQ(cycle_weight(c, 0), 0.1);
    EXPECT_DOUBLE_EQ(cycle_weight(c, 60000), 0.2);
    EXPECT_DOUBLE_EQ(cycle_weight(c, 399999), 0.5);
    EXPECT_EQ(anchor_range(c, 20000), 1);
    EXPECT_EQ(anchor_range(c, 60000), 2);
    EXPECT_EQ(anchor_range(c, 399999), 3);
    EXPECT_DOUBLE_EQ(rate_factor(c, 19999), 1);
    EXPECT_DOUBLE_EQ(rate_factor(c, 60000), 0.5);
    EXPECT_DOUBLE_EQ(rate_factor(c, 20000 + 40000 * 20), std::pow(0.5, 9));  // 2e-4 * 0.5^9 is below 5e-7
    EXPECT_EQ(message_of([] { dynibar_config("huge"); }), "unknown scale: huge: use full, thesis, demo or tiny");
}

// ---- the model ---------------------------------------------------------------------------------------------------------------------------

TEST(Dynibar, HasTheOriginalsParameters) {
    const auto count = [](const torch::nn::Module& m) {
        int64_t n = 0;
        for (const auto& p : m.parameters()) n += p.numel();
        return n;
    };
    const Dynibar model(dynibar_config("full"));
    EXPECT_EQ(model.parameters().size(), 313u);
    EXPECT_NEAR(static_cast<double>(count(model)), 19.17e6, 0.01e6);
    EXPECT_NEAR(static_cast<double>(count(*model.motion_mlp)), 533e3, 1e3);
    EXPECT_NEAR(static_cast<double>(count(*model.net_dynamic)), 409e3, 1e3);
    EXPECT_NEAR(static_cast<double>(count(*model.net_static)), 398e3, 1e3);
    size_t grouped = 0;
    for (const auto& g : model.groups()) grouped += g.parameters.size();
    EXPECT_EQ(grouped, 313u);
    std::vector<double> rates;
    for (const auto& g : model.groups()) rates.push_back(g.rate);
    EXPECT_THAT(rates, testing::ElementsAre(2e-4, 4e-4, 4e-4, 8e-4, 4e-4, 1e-4));
    EXPECT_EQ(model.trajectory_basis.sizes(), at::IntArrayRef({24, 6}));
}

TEST(Dynibar, GradientsAreNoneExactlyForWhatIsNeverCalled) {
    const auto model = make();
    const auto in = dynibar_step_inputs(model->config(), 1, at::kDouble).list();
    const auto names = model->named_parameters().keys();
    const auto all = gradients(model->loss(in, Phase::moving)[0], *model);
    EXPECT_EQ(all.size() - static_cast<size_t>(defined(all)), 164u);
    int64_t live = 0;
    for (size_t k = 0; k < all.size(); ++k) {
        const bool dead =
            names[k].rfind("feature_net", 0) == 0 &&
            (names[k].find("layer2") != std::string::npos || names[k].find("layer3") != std::string::npos ||
             names[k].find("conv2.conv") != std::string::npos || names[k].find("conv3.conv") != std::string::npos ||
             names[k].find("conv2.bn") != std::string::npos || names[k].find("conv3.bn") != std::string::npos);
        EXPECT_EQ(all[k].defined(), !dead) << names[k];
        if (!all[k].defined()) continue;
        live += all[k].numel();
        EXPECT_TRUE(all[k].isfinite().all().item<bool>()) << names[k];
    }
    EXPECT_NEAR(static_cast<double>(live), 1.82e6, 0.01e6);
}

TEST(Dynibar, BootstrapTrainsTheStaticPartAlone) {
    const auto model = make();
    const auto names = model->named_parameters().keys();
    const auto in = dynibar_step_inputs(model->config(), 1, at::kDouble).list();
    const auto losses = model->loss(in, Phase::bootstrap);
    const auto all = gradients(losses[0], *model);
    for (size_t k = 0; k < all.size(); ++k)
        EXPECT_TRUE(!all[k].defined() || names[k].rfind("net_static.", 0) == 0 ||
                    names[k].rfind("feature_net_static.", 0) == 0)
            << names[k];
    EXPECT_EQ(defined(all), 38 + 26);
    for (size_t k = 2; k + 1 < losses.size(); ++k) EXPECT_EQ(number(losses[k]), 0) << loss_terms()[k];
    EXPECT_GT(number(losses.back()), 0);
}

TEST(Dynibar, LossIsTheSumOfItsTermsInEveryPhase) {
    const auto model = make();
    auto in = dynibar_step_inputs(model->config(), 1, at::kDouble);
    std::vector<Tensors> by_phase;
    for (const auto phase : {Phase::bootstrap, Phase::moving, Phase::decayed, Phase::sparse}) {
        const auto losses = model->loss(in.list(), phase);
        ASSERT_EQ(losses.size(), loss_terms().size());
        double sum = 0;
        for (size_t k = 2; k < losses.size(); ++k) sum += number(losses[k]);
        EXPECT_NEAR(number(losses[0]), sum, 1e-12);
        EXPECT_FALSE(losses[1].requires_grad());
        by_phase.push_back(losses);
    }
    EXPECT_GT(number(by_phase[1][2]), number(by_phase[2][2]));  // colours of what moves count once more
    EXPECT_GE(number(by_phase[3][9]), number(by_phase[2][9]));
    // The weights are inputs.
    in.data_weight = in.data_weight * 0.1, in.cycle_weight = in.cycle_weight * 3;
    const auto other = model->loss(in.list(), Phase::decayed);
    EXPECT_NEAR(number(other[4]), 0.1 * number(by_phase[2][4]), 1e-12);  // flow
    EXPECT_NEAR(number(other[5]), 0.1 * number(by_phase[2][5]), 1e-12);  // disparity
    EXPECT_NEAR(number(other[3]), 3 * number(by_phase[2][3]), 1e-12);    // cycle
}

TEST(Dynibar, ReadsFramesFromItsInputs) {
    const auto model = make();
    auto in = dynibar_step_inputs(model->config(), 1, at::kDouble);
    const auto before = number(model->loss(in.list(), Phase::moving)[0]);
    const auto shift = number(in.frame) > 5 ? -1 : 1;
    in.frame = in.frame + shift, in.anchor = in.anchor + shift;
    EXPECT_NE(number(model->loss(in.list(), Phase::moving)[0]), before);
}

TEST(Dynibar, StartsWithoutMotion) {
    const auto model = make(at::kDouble, false);
    const auto losses = model->loss(dynibar_step_inputs(model->config(), 1, at::kDouble).list(), Phase::moving);
    EXPECT_EQ(number(losses[3]), 0);  // cycle
    EXPECT_EQ(number(losses[6]), 0);  // scene flow
}

TEST(Dynibar, RendersAViewInPiecesOfAnySize) {
    const auto model = make();
    auto c = model->config();
    c.height = 8, c.width = 12;
    const auto video = noise_video(c, 2);
    const VideoSteps steps(video, c);
    const auto view = steps.view(5, video.intrinsics[0], video.camera_to_world[2], at::TensorOptions(at::kDouble));
    const auto whole = model->render(view, 100000);
    EXPECT_EQ(whole.sizes(), at::IntArrayRef({8 * 12, 3}));
    EXPECT_TRUE(near(model->render(view, 40), whole, 1e-10));
    EXPECT_FALSE(whole.requires_grad());
}

TEST(FeatureNet, HalvesTwiceAndGivesSlices) {
    torch::manual_seed(1);
    FeatureNet net(32);
    const auto [coarse, fine] = net.forward(at::rand({2, 3, 24, 32}));
    EXPECT_EQ(coarse.sizes(), at::IntArrayRef({2, 32, 6, 8}));
    EXPECT_EQ(fine.sizes(), coarse.sizes());
    EXPECT_FALSE(coarse.is_contiguous());
    EXPECT_EQ(net.parameters().size(), 108u);
}

// ---- networks ----------------------------------------------------------------------------------------------------------------------------

TEST(RayAttention, IsScaledDotProductAttention) {
    torch::manual_seed(1);
    RayAttention net(128);
    net.to(at::kDouble);
    const auto p = net.named_parameters();
    const auto x = uniform({2, 5, 128}, -1, 1);
    auto asks = at::ones({2, 5, 1}, at::kDouble);
    asks[1][3] = 0;
    const auto got = net.forward(x, asks);
    for (int64_t r = 0; r < 2; ++r)
        for (int64_t i = 0; i < 5; ++i) {
            const auto of = [&](const char* name, int64_t sample) { return at::mv(p[name], x[r][sample]); };
            Tensors heads;
            for (int64_t h = 0; h < 4; ++h) {
                std::vector<double> score;
                for (int64_t j = 0; j < 5; ++j)
                    score.push_back(
                        number(asks[r][i]) == 0
                            ? 0
                            : number(
                                  (of("w_qs.weight", i) * of("w_ks.weight", j)).slice(0, 32 * h, 32 * h + 32).sum()) /
                                  std::sqrt(32.0));
                const auto share = at::softmax(at::tensor(score, at::kDouble), 0);
                auto sum = at::zeros({32}, at::kDouble);
                for (int64_t j = 0; j < 5; ++j) sum += share[j] * of("w_vs.weight", j).slice(0, 32 * h, 32 * h + 32);
                heads.push_back(sum);
            }
            auto want = at::mv(p["fc.weight"], at::cat(heads)) + x[r][i];
            want = (want - want.mean()) / at::sqrt((want - want.mean()).pow(2).mean() + 1e-6);
            EXPECT_TRUE(near(got[r][i], want, 1e-10))
                << r << " " << i;  // the norm's weight is 1 and its bias 0 at first
        }
}

// Inputs of both networks, of a size that has no view at one sample and one view at another.
struct NetInputs {
    int64_t r = 2, s = 16, v = 4;
    Tensor points = uniform({r, s, 3}), direction = unit(uniform({r, 3})), rgb_dynamic = uniform({r, s, v, 35}),
           rgb_static = rgb_dynamic.clone();
    Tensor mask = at::ones({r, s, v, 1}, at::kDouble), target = uniform({r, 6}), source = uniform({r, s, v, 6}),
           angles = uniform({r, s, v, 4});
    Tensor time = at::full({1}, 0.3, at::kDouble);
    NetInputs() { mask[0][2] = 0, mask[0][3].slice(0, 1) = 0, mask[1][4][2] = 0; }
    Tensor dynamic(Dynibar& m) const { return m.net_dynamic->forward(points, rgb_dynamic, direction, mask, time); }
    Tensor still(Dynibar& m) const { return m.net_static->forward(points, target, source, rgb_static, angles, mask); }
};

TEST(Networks, IgnoreViewsThatDontSeeThePoint) {
    const auto model = make();
    const NetInputs a;
    NetInputs b = a;
    b.rgb_dynamic = a.rgb_dynamic + (1 - a.mask) * uniform({2, 16, 4, 35});
    b.rgb_static = a.rgb_static + (1 - a.mask) * uniform({2, 16, 4, 35});
    EXPECT_TRUE(near(a.dynamic(*model), b.dynamic(*model), 1e-10));
    // The static net blends colours of views that don't see a point only where none does: with equal shares of all.
    const auto x = a.still(*model), y = b.still(*model);
    EXPECT_TRUE(near(x.slice(2, 3), y.slice(2, 3), 1e-10));
    EXPECT_TRUE(near(x[1], y[1], 1e-10));
    EXPECT_TRUE(near(x[0][2].slice(0, 0, 3), a.rgb_static[0][2].slice(1, 0, 3).mean(0), 1e-10));
    for (const auto& out : {a.dynamic(*model), x}) {
        EXPECT_EQ(number(out[0][2][3]), -1e9);
        EXPECT_GT(number(out[0][3][3]), -1e3);
    }
    EXPECT_EQ(number(a.dynamic(*model)[0][2].slice(0, 0, 3).abs().sum()), 0);
}

TEST(Networks, DontCareForTheOrderOfViews) {
    const auto model = make();
    const NetInputs a;
    NetInputs b = a;
    const auto order = at::tensor({2, 0, 3, 1}, at::kLong);
    for (auto* t : {&b.rgb_dynamic, &b.rgb_static, &b.mask, &b.source, &b.angles}) *t = t->index_select(2, order);
    EXPECT_TRUE(near(a.dynamic(*model), b.dynamic(*model), 1e-10));
    EXPECT_TRUE(near(a.still(*model), b.still(*model), 1e-10));
}

TEST(Networks, StaticViewsThatAreBlackDontCount) {
    const auto model = make();
    NetInputs a, b;
    b.points = a.points, b.target = a.target, b.source = a.source, b.angles = a.angles;
    a.rgb_static.slice(2, 1, 2).slice(3, 0, 3).fill_(0);
    b.rgb_static = a.rgb_static.clone();
    b.mask = a.mask.clone();
    b.mask.slice(2, 1, 2).fill_(0);
    EXPECT_TRUE(near(a.still(*model), b.still(*model), 1e-12));
}

TEST(MeanAndVariance, OverViews) {
    const auto x = uniform({2, 3, 4, 5}), w = uniform({2, 3, 4, 1});
    const auto [mean, variance] = mean_and_variance(x, w);
    double m = 0, v = 0;
    for (int64_t k = 0; k < 4; ++k) m += number(x[1][2][k][3] * w[1][2][k][0]);
    for (int64_t k = 0; k < 4; ++k) v += number(w[1][2][k][0]) * std::pow(number(x[1][2][k][3]) - m, 2);
    EXPECT_NEAR(number(mean[1][2][0][3]), m, 1e-12);
    EXPECT_NEAR(number(variance[1][2][0][3]), v, 1e-12);
}

TEST(DynibarParts, RunInEitherPrecision) {
    for (const auto type : {at::kDouble, at::kFloat}) {
        const auto parts = dynibar_parts(make(type), 1, type), others = dynibar_parts(make(type), 1, type);
        std::vector<std::string> names;
        for (size_t k = 0; k < parts.size(); ++k) {
            names.push_back(parts[k].name);
            const auto out = parts[k].run(parts[k].inputs), again = others[k].run(others[k].inputs);
            for (size_t i = 0; i < out.size(); ++i) {
                EXPECT_EQ(out[i].scalar_type(), out[i].is_floating_point() ? type : at::kBool)
                    << parts[k].name << " " << i;
                EXPECT_TRUE(out[i].isfinite().all().item<bool>()) << parts[k].name << " " << i;
                EXPECT_TRUE(near(out[i], again[i], 1e-5)) << parts[k].name << " " << i;
            }
            EXPECT_TRUE(out[0].requires_grad()) << parts[k].name;
            for (const auto& s : parts[k].sizes) EXPECT_LT(s.dim, parts[k].inputs[static_cast<size_t>(s.input)].dim());
        }
        EXPECT_THAT(names, testing::ElementsAre("feature_net", "motion_mlp", "trajectory", "projection", "dynamic_net",
                                                "static_net", "compositing", "losses", "iteration"));
    }
}

// ---- training ----------------------------------------------------------------------------------------------------------------------------

// Phases change after iterations 2 and 6 of 8.
DynibarConfig short_run() {
    auto c = dynibar_config("tiny");
    c.iterations = 8, c.decay = 0.5;
    return c;
}

TEST(DynibarTask, ResumedRunEqualsUninterruptedRun) {
    const std::string file =
        (std::filesystem::temp_directory_path() / fmt::format("heddle_dynibar_test_{}", ::getpid())).string();
    const auto steps = std::make_shared<VideoSteps>(noise_video(short_run(), 1), short_run());
    const auto run = [&](int64_t stop, const std::string& resume, const std::string& checkpoint) {
        torch::manual_seed(3);
        const auto model = std::make_shared<Dynibar>(short_run());
        TrainOptions o;
        o.quiet = true, o.stop_after = stop, o.resume = resume, o.checkpoint = checkpoint, o.run = {{"scale", "tiny"}};
        return std::pair(train(dynibar_task(model), video_feed(steps, 5, at::kFloat), {}, o), model);
    };
    const auto [whole, reference] = run(0, "", "");
    ASSERT_EQ(whole.losses.size(), 8u);
    EXPECT_EQ(whole.losses[1][2], 0);  // rgb isn't trained in the bootstrap
    EXPECT_GT(whole.losses[2][2], 0);
    run(3, "", file);
    const auto [rest, model] = run(0, file, "");
    std::filesystem::remove(file);
    ASSERT_EQ(rest.losses.size(), 5u);
    EXPECT_EQ(rest.losses.back(), whole.losses.back());
    const auto theirs = reference->named_parameters();
    for (const auto& p : model->named_parameters()) EXPECT_TRUE(p.value().equal(theirs[p.key()])) << p.key();
}

TEST(DynibarTask, MakesItsStepAgainWhenAPhaseEnds) {
    const auto model = std::make_shared<Dynibar>(short_run());
    const auto task = dynibar_task(model);
    std::vector<Change> changes;
    for (int64_t i = 0; i < 8; ++i) changes.push_back(task.after(i));
    for (size_t i = 0; i < 8; ++i) EXPECT_EQ(changes[i], i == 1 || i == 5 ? Change::loss : Change::none) << i;
}

TEST(DynibarTask, MeasuresOnPicturesBesideTheVideo) {
    auto c = short_run();
    c.height = 8, c.width = 12;
    const auto video = noise_video(c, 1);
    const auto steps = std::make_shared<VideoSteps>(video, c);
    const auto frames = at::tensor({3, 8}, at::kLong);
    const HeldOutViews views{video.virtual_images.index_select(0, frames).select(1, 0),
                             video.intrinsics.index_select(0, frames),
                             video.virtual_camera_to_world.index_select(0, frames).select(1, 0), frames};
    const auto held_out = held_out_views(std::make_shared<Dynibar>(c), steps, views, at::kFloat);
    const auto rendered = held_out.render();
    EXPECT_EQ(rendered.sizes(), at::IntArrayRef({2, 8, 12, 3}));
    EXPECT_EQ(held_out.pictures.sizes(), rendered.sizes());
    EXPECT_TRUE(rendered.isfinite().all().item<bool>());
}

}  // namespace
}  // namespace heddle::models
