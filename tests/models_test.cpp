// HexPlane and the trainer: the paper's numbers, formulas against loops, gradients that must be None, runs that resume.
#include "models/hexplane/hexplane.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/torch.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>

#include "models/checkpoint.h"
#include "models/data/png.h"
#include "models/error.h"
#include "models/hexplane/task.h"
#include "models/trainer.h"
#include "models/views.h"

namespace heddle::models {
namespace {

namespace fs = std::filesystem;

struct Folder {
    fs::path path = fs::temp_directory_path() / ("heddle_models_test_" + std::to_string(::getpid()));
    Folder() { fs::create_directories(path); }
    ~Folder() { fs::remove_all(path); }
    std::string operator/(const std::string& name) const { return (path / name).string(); }
};

std::string message_of(const std::function<void()>& f) {
    try {
        f();
    } catch (const Error& e) {
        return e.what();
    }
    return "no error";
}

std::shared_ptr<HexPlane> make(const HexPlaneConfig& config, at::ScalarType dtype = at::kFloat) {
    torch::manual_seed(1);
    auto model = std::make_shared<HexPlane>(config);
    model->to(dtype);
    return model;
}

// Rays from a sphere of radius 4 towards points near the middle.
Batch rays(int64_t n, at::ScalarType dtype = at::kFloat) {
    const auto g = at::detail::createCPUGenerator(7);
    auto origin = at::randn({n, 3}, g, at::TensorOptions(at::kDouble));
    origin = 4 * origin / origin.norm(2, -1, true);
    auto direction = at::rand({n, 3}, g, at::TensorOptions(at::kDouble)) - 0.5 - origin;
    direction = direction / direction.norm(2, -1, true);
    const auto rgb = at::rand({n, 3}, g, at::TensorOptions(at::kDouble));
    const auto time = at::rand({n, 1}, g, at::TensorOptions(at::kDouble)) * 2 - 1;
    return {at::cat({origin, direction}, 1).to(dtype), rgb.to(dtype), time.to(dtype)};
}

// Raises the density everywhere, so that the colour branch is taken.
void thicken(HexPlane& model) {
    const torch::NoGradGuard no_grad;
    for (auto* planes : {&model.density_plane, &model.density_line_time})
        for (auto& p : *planes) p.add_(0.35);
}

std::vector<at::Tensor> loss_inputs(HexPlane& model, const Batch& b) {
    const auto g = at::detail::createCPUGenerator(3);
    const auto jitter = at::rand({1, model.samples()}, g, at::TensorOptions(at::kDouble)).to(b.rays.dtype());
    return {b.rays, b.rgb, b.time, at::full({}, 1e-4, b.rays.options()), at::full({}, 1e-4, b.rays.options()), jitter};
}

BlenderSplit split_of(const Batch& b, int64_t views, int64_t width, int64_t height) {
    return {b.rays, b.rgb, b.time, views, width, height};
}

TEST(HexPlaneConfig, FollowsThePapersSchedule) {
    const auto s = stages(hexplane_config("full"));
    ASSERT_EQ(s.size(), 4u);
    const int64_t expected[4][5] = {
        {0, 64, 16, 221, 219}, {3001, 93, 18, 322, 319}, {6001, 136, 21, 471, 468}, {9001, 199, 24, 689, 686}};
    for (size_t i = 0; i < 4; ++i) {
        EXPECT_EQ(s[i].from, expected[i][0]);
        EXPECT_EQ(s[i].grid, expected[i][1]);
        EXPECT_EQ(s[i].time, expected[i][2]);
        EXPECT_EQ(s[i].samples, expected[i][3]);
        EXPECT_EQ(s[i].eval_samples, expected[i][4]);
    }
    EXPECT_THAT(emptiness_iterations(hexplane_config("full")), testing::ElementsAre(4000, 8000, 10000));
    EXPECT_NEAR(rate_factor(hexplane_config("full"), 12500), std::sqrt(0.1), 1e-12);
}

TEST(HexPlaneConfig, RefusesAnUnknownScale) {
    for (const std::string bad : {"huge", "", "0", "2", "0.5x", "nan"})
        EXPECT_EQ(message_of([&] { hexplane_config(bad); }),
                  "unknown scale: " + bad + ": use full, demo, tiny or a number above 0 and up to 1");
    EXPECT_EQ(hexplane_config("0.5").rays, 2048);
}

TEST(HexPlane, HasThePapersParameters) {
    const auto model = make(hexplane_config("full"));
    int64_t values = 0;
    for (const auto& p : model->parameters()) values += p.numel();
    EXPECT_EQ(model->parameters().size(), 22u);
    EXPECT_EQ(values, 1146107);
    EXPECT_EQ(model->plane_parameters().size() + model->network_parameters().size(), 22u);
    EXPECT_EQ(model->samples(), 221);
}

TEST(HexPlane, RendersColoursAtEveryStage) {
    const auto model = make(hexplane_config("tiny"));
    thicken(*model);
    const auto b = rays(8);
    const auto check = [&] {
        for (bool train : {true, false}) {
            const auto rgb = model->render(b.rays, b.time, train, true);
            EXPECT_EQ(rgb.sizes(), at::IntArrayRef({8, 3}));
            EXPECT_TRUE(rgb.isfinite().all().item<bool>());
            EXPECT_GE(rgb.min().item<double>(), 0);
            EXPECT_LE(rgb.max().item<double>(), 1);
        }
        EXPECT_LT(model->render(b.rays, b.time, false, true).mean().item<double>(), 0.9)
            << "the branch for colours isn't taken";
    };
    check();
    model->upsample(16, 8);
    EXPECT_EQ(model->density_plane[1].sizes(), at::IntArrayRef({1, 24, 16, 16}));
    EXPECT_EQ(model->app_line_time[2].sizes(), at::IntArrayRef({1, 48, 16, 8}));
    check();
    EXPECT_EQ(model->parameters().size(), 22u);
}

TEST(HexPlane, RaysBesideTheBoxAreWhite) {
    const auto model = make(hexplane_config("tiny"));
    thicken(*model);
    auto b = rays(4);
    b.rays.slice(1, 3, 6).neg_();
    model->update_emptiness_mask();
    EXPECT_TRUE(model->render(b.rays, b.time, true, true).equal(at::ones({4, 3})));
}

TEST(HexPlane, EmptinessMaskKeepsWhatIsThere) {
    const auto model = make(hexplane_config("tiny"));
    const auto b = rays(16);
    {
        const torch::NoGradGuard no_grad;  // something in one corner only
        for (auto& p : model->density_plane) p.zero_(), p.slice(2, 8).slice(3, 8).fill_(0.6);
        for (auto& p : model->density_line_time) p.fill_(0.6);
    }
    const auto before = model->render(b.rays, b.time, false, true);
    model->update_emptiness_mask();
    EXPECT_LT(model->emptiness().mean().item<double>(), 0.5);
    EXPECT_GT(model->emptiness().mean().item<double>(), 0);
    EXPECT_LT((model->render(b.rays, b.time, false, true) - before).abs().max().item<double>(), 1e-2);
}

TEST(HexPlane, TotalVariationEqualsALoop) {
    const auto x = at::rand({2, 3, 4, 5}, at::kDouble);
    const auto a = x.accessor<double, 4>();
    double h = 0, w = 0;
    for (int64_t b = 0; b < 2; ++b)
        for (int64_t c = 0; c < 3; ++c)
            for (int64_t i = 0; i < 4; ++i)
                for (int64_t j = 0; j < 5; ++j) {
                    if (i > 0) h += std::pow(a[b][c][i][j] - a[b][c][i - 1][j], 2);
                    if (j > 0) w += 2 * std::pow(a[b][c][i][j] - a[b][c][i][j - 1], 2);
                }
    const double expected = 2 * (h / (3 * 3 * 5) + w / (3 * 4 * 4)) / 2;
    EXPECT_NEAR(total_variation(x, 1, 2).item<double>(), expected, 1e-12);
}

// Only time counts twice: a plane that varies along one axis shows the weight of that axis.
TEST(HexPlane, TimeWeighsTwiceInTheTotalVariation) {
    const auto model = make(hexplane_config("tiny"), at::kDouble);
    const torch::NoGradGuard no_grad;
    for (auto& p : model->plane_parameters()) at::Tensor(p).zero_();
    const auto ramp = [](at::Tensor p, int64_t axis) {
        std::vector<int64_t> shape(4, 1);
        shape[static_cast<size_t>(axis)] = p.size(axis);
        p.copy_(at::arange(p.size(axis), at::kDouble).view(shape).expand_as(p));
    };
    const auto only = [&](const at::Tensor& p, int64_t axis) {
        ramp(p, axis);
        const double out = (model->tv_density() + model->tv_app()).item<double>();
        at::Tensor(p).zero_();
        return out;
    };
    for (size_t i = 0; i < 3; ++i) {
        for (const auto* planes : {&model->density_plane, &model->app_plane})
            for (int64_t axis : {2, 3}) EXPECT_NEAR(only((*planes)[i], axis), 2, 1e-12);
        for (const auto* planes : {&model->density_line_time, &model->app_line_time}) {
            EXPECT_NEAR(only((*planes)[i], 2), 2, 1e-12);
            EXPECT_NEAR(only((*planes)[i], 3), 4, 1e-12);
        }
    }
}

TEST(HexPlane, DensityFeatureEqualsALoop) {
    const auto model = make(hexplane_config("tiny"), at::kDouble);
    const torch::NoGradGuard no_grad;
    for (auto& basis : model->density_basis_mat) basis.copy_(at::rand_like(basis));
    const auto xyz = at::rand({5, 3}, at::kDouble) * 2.2 - 1.1, t = at::rand({5, 1}, at::kDouble) * 2 - 1;
    const int axes[3][3] = {{0, 1, 2}, {0, 2, 1}, {1, 2, 0}};
    const auto sample = [](const at::Tensor& plane, int64_t c, double u, double v) {  // u along W, v along H
        const auto a = plane.accessor<double, 4>();
        const double x = (u + 1) / 2 * static_cast<double>(plane.size(3) - 1),
                     y = (v + 1) / 2 * static_cast<double>(plane.size(2) - 1);
        double sum = 0;
        for (int64_t dy = 0; dy < 2; ++dy)
            for (int64_t dx = 0; dx < 2; ++dx) {
                const int64_t ix = static_cast<int64_t>(std::floor(x)) + dx,
                              iy = static_cast<int64_t>(std::floor(y)) + dy;
                if (ix < 0 || iy < 0 || ix >= plane.size(3) || iy >= plane.size(2)) continue;
                sum += a[0][c][iy][ix] * (1 - std::abs(x - static_cast<double>(ix))) *
                       (1 - std::abs(y - static_cast<double>(iy)));
            }
        return sum;
    };
    const auto got = model->density_feature(xyz, t);
    for (int64_t m = 0; m < 5; ++m) {
        const auto at_axis = [&](int k) { return xyz[m][k].item<double>(); };
        double expected = 0;
        for (size_t i = 0; i < 3; ++i)
            for (int64_t c = 0; c < 24; ++c)
                expected += sample(model->density_plane[i], c, at_axis(axes[i][0]), at_axis(axes[i][1])) *
                            sample(model->density_line_time[i], c, t[m][0].item<double>(), at_axis(axes[i][2])) *
                            model->density_basis_mat[i][c][0].item<double>();
        EXPECT_NEAR(got[m].item<double>(), expected, 1e-12);
    }
}

TEST(HexPlane, WeightsAndBackgroundSumToOne) {
    const auto sigma = at::rand({4, 9}, at::kDouble) * 3, dist = at::rand({1, 9}, at::kDouble);
    const auto o = raw2alpha(sigma, dist);
    EXPECT_TRUE(at::allclose(o.weights.sum(-1, true) + o.background, at::ones({4, 1}, at::kDouble), 0, 1e-8));
    EXPECT_TRUE(at::allclose(o.background, at::exp(-(sigma * dist).sum(-1, true)), 1e-6));
}

// At the start nothing is dense enough to be given a colour, so the colour network gets no gradient at all, not zeros.
TEST(HexPlane, ColourNetworkHasNoGradientAtTheStart) {
    const auto model = make(hexplane_config("full"));
    const auto in = loss_inputs(*model, rays(16));
    model->render(in[0], in[2], true, true, in[5]).sum().backward();
    int64_t defined = 0;
    for (const auto& p : model->parameters()) defined += p.grad().defined();
    EXPECT_EQ(defined, 9);
    model->zero_grad();
    model->loss(in)[0].backward();
    for (const auto& p : model->named_parameters()) {
        const bool of_colour = p.key().rfind("app_basis", 0) == 0 || p.key().rfind("mlp", 0) == 0;
        EXPECT_EQ(p.value().grad().defined(), !of_colour) << p.key();
    }
    thicken(*model);
    model->zero_grad();
    model->loss(in)[0].backward();
    for (const auto& p : model->named_parameters()) EXPECT_TRUE(p.value().grad().defined()) << p.key();
}

TEST(HexPlane, LossIsTheSumOfItsTermsInBothPrecisions) {
    std::vector<double> totals;
    for (const auto dtype : {at::kFloat, at::kDouble}) {
        const auto model = make(hexplane_config("tiny"), dtype);
        thicken(*model);
        const auto out = model->loss(loss_inputs(*model, rays(16, dtype)));
        for (const auto& t : out) EXPECT_EQ(t.scalar_type(), dtype);
        EXPECT_NEAR(out[0].item<double>(), (out[1] + out[2] + out[3]).item<double>(), 1e-7);
        totals.push_back(out[0].item<double>());
    }
    EXPECT_NEAR(totals[0], totals[1], 1e-4 * totals[1]);
}

// A full schedule: the planes grow after iteration 8 of 20, the mask comes after 12.
TEST(Trainer, ResumedRunEqualsUninterruptedRun) {
    const Folder folder;
    const auto b = rays(300);
    const auto data = split_of(b, 1, 300, 1);
    const auto run = [&](int64_t stop, const std::string& resume, const std::string& checkpoint) {
        const auto model = make(hexplane_config("tiny"));
        thicken(*model);
        TrainOptions o;
        o.seed = 5, o.quiet = true, o.stop_after = stop, o.resume = resume, o.checkpoint = checkpoint,
        o.run = {{"scale", "tiny"}};
        return std::pair(train(hexplane_task(model), data, {}, o), model);
    };
    const auto [whole, reference] = run(0, "", "");
    ASSERT_EQ(whole.losses.size(), 20u);
    EXPECT_LT(whole.losses.back()[0], whole.losses.front()[0]);
    for (const int64_t cut : {5, 15}) {
        run(cut, "", folder / "half");
        const auto [rest, model] = run(0, folder / "half", "");
        ASSERT_EQ(rest.losses.size(), static_cast<size_t>(20 - cut));
        EXPECT_EQ(rest.losses.back(), whole.losses.back());
        const auto theirs = reference->named_parameters();
        for (const auto& p : model->named_parameters())
            EXPECT_TRUE(p.value().equal(theirs[p.key()])) << p.key() << " cut " << cut;
    }
}

TEST(Trainer, MakesItsStepAgainWhenTheLossFunctionChanges) {
    int made = 0;
    TrainOptions o;
    o.quiet = true;
    o.make_step = [&](StepFn loss, torch::optim::Optimizer& optimiser) {
        ++made;
        return [loss, &optimiser](const std::vector<at::Tensor>& in) {
            EXPECT_EQ(in.size(), 5u);
            optimiser.zero_grad();
            auto all = loss(in);
            all[0].backward();
            optimiser.step();
            for (auto& x : all) x = x.detach();
            return all;
        };
    };
    const auto result = train(hexplane_task(make(hexplane_config("tiny"))), split_of(rays(100), 1, 100, 1), {}, o);
    EXPECT_EQ(made, 3);  // at the start, after the planes grew, after the mask
    EXPECT_EQ(result.iterations, 20);
}

TEST(Trainer, MeasuresAndWritesHeldOutViews) {
    const Folder folder;
    TrainOptions o;
    o.quiet = true, o.stop_after = 1, o.out = folder / "views", o.log = folder / "log.json";
    const auto b = rays(24);
    const auto result =
        train(hexplane_task(make(hexplane_config("tiny"))), split_of(b, 1, 24, 1), split_of(b, 2, 4, 3), o);
    ASSERT_EQ(result.evaluations.size(), 1u);
    EXPECT_EQ(result.evaluations[0].views.size(), 2u);
    const auto image = read_png(folder / "views/view_001.png");
    EXPECT_EQ(image.width, 8);
    EXPECT_EQ(image.height, 3);
    EXPECT_TRUE(fs::exists(folder / "log.json"));
}

TEST(Trainer, NamesTheTermThatIsntFinite) {
    const auto model = make(hexplane_config("tiny"));
    auto task = hexplane_task(model);
    task.after = [model](int64_t iteration) {
        const torch::NoGradGuard no_grad;
        if (iteration == 3) model->app_plane[0].fill_(std::numeric_limits<float>::quiet_NaN());
        return Change::none;
    };
    TrainOptions o;
    o.quiet = true;
    EXPECT_EQ(message_of([&] { train(task, split_of(rays(100), 1, 100, 1), {}, o); }),
              "loss isn't finite: iteration 4, tv_app: lower the learning rates or check the data");
}

TEST(Checkpoint, RefusesWhatItCantGoOnFrom) {
    const Folder folder;
    EXPECT_EQ(message_of([&] { load_checkpoint(folder / "none"); }),
              "checkpoint not found: " + (folder / "none") + ": check --resume");
    std::ofstream(folder / "bad") << "PK nonsense";
    EXPECT_EQ(message_of([&] { load_checkpoint(folder / "bad"); }),
              "not a checkpoint, or a damaged one: " + (folder / "bad") + ": resume from another file or start anew");
    save_checkpoint(folder / "good", {{{"scale", "demo"}}, {{"x", at::arange(3)}}});
    const auto c = load_checkpoint(folder / "good");
    EXPECT_TRUE(c.tensors.at("x").equal(at::arange(3)));
    EXPECT_EQ(message_of([&] {
                  check_same_run(folder / "good", c, {{"scale", "tiny"}});
              }),
              "checkpoint of another run: " + (folder / "good") + ": it has scale demo, this run has tiny");
    EXPECT_EQ(std::distance(fs::directory_iterator(folder.path), {}), 2) << "a temporary file is left";
}

}  // namespace
}  // namespace heddle::models
