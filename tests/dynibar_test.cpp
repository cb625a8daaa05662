// DynIBaR's formulas against loops in float64, its gradients against finite differences, what must be None, and steps drawn from a video.
#include "models/dynibar/dynibar.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/utils.h>

#include <cmath>

#include "models/dynibar/losses.h"
#include "models/dynibar/parts.h"
#include "models/error.h"

namespace heddle::models {
namespace {

using at::Tensor;
using Tensors = std::vector<Tensor>;

Tensor uniform(std::vector<int64_t> sizes, double low = 0, double high = 1) {
    return at::rand(sizes, at::kDouble) * (high - low) + low;
}
double number(const Tensor& t) { return t.item<double>(); }
bool near(const Tensor& a, const Tensor& b, double tolerance = 1e-12) {
    return a.sizes() == b.sizes() && at::allclose(a.to(at::kDouble), b.to(at::kDouble), tolerance, tolerance);
}
std::string message_of(const std::function<void()>& f) {
    try {
        f();
    } catch (const Error& e) {
        return e.what();
    }
    return "no error";
}
std::shared_ptr<Dynibar> make(at::ScalarType type = at::kDouble, bool moving = true) {
    torch::manual_seed(3);
    auto model = std::make_shared<Dynibar>(dynibar_config("tiny"));
    if (moving) stir(*model, 4);
    model->to(type);
    return model;
}
Tensors gradients(const Tensor& loss, const torch::nn::Module& model) {
    return torch::autograd::grad({loss}, model.parameters(), {}, false, false, true);
}
int64_t defined(const Tensors& all) { return std::count_if(all.begin(), all.end(), [](const Tensor& t) { return t.defined(); }); }

// Gradients of a number against central differences in a random direction, for each input.
void check_gradients(const std::function<Tensor(const Tensors&)>& f, const Tensors& at_point, double tolerance = 1e-6) {
    Tensors x;
    for (const auto& t : at_point) x.push_back(t.detach().clone().requires_grad_());
    const auto got = torch::autograd::grad({f(x)}, x);
    for (size_t k = 0; k < x.size(); ++k) {
        const torch::NoGradGuard no_grad;
        const auto along = at::randn_like(x[k]);
        const double step = 1e-6;
        auto up = x, down = x;
        up[k] = x[k] + step * along, down[k] = x[k] - step * along;
        const double want = (number(f(up)) - number(f(down))) / (2 * step);
        EXPECT_NEAR(number((got[k] * along).sum()), want, tolerance * std::max(1.0, std::abs(want))) << "input " << k;
    }
}
// A number that depends on all elements of a tensor, each in its own way.
Tensor mixed(const Tensor& t) { return (t * at::sin(at::arange(t.numel(), at::kDouble) + 1).view(t.sizes())).sum(); }

Views some_views(int64_t count, int64_t height, int64_t width) {
    auto c = dynibar_config("tiny");
    c.frames = std::max<int64_t>(7, count), c.height = height, c.width = width;
    const auto v = noise_video(c, 5);
    return {v.images.slice(0, 0, count).to(at::kDouble), v.intrinsics.slice(0, 0, count).to(at::kDouble), v.camera_to_world.slice(0, 0, count).to(at::kDouble)};
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
        const bool dead = names[k].rfind("feature_net", 0) == 0 && (names[k].find("layer2") != std::string::npos || names[k].find("layer3") != std::string::npos || names[k].find("conv2.conv") != std::string::npos ||
                                                                 names[k].find("conv3.conv") != std::string::npos || names[k].find("conv2.bn") != std::string::npos || names[k].find("conv3.bn") != std::string::npos);
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
        EXPECT_TRUE(!all[k].defined() || names[k].rfind("net_static.", 0) == 0 || names[k].rfind("feature_net_static.", 0) == 0) << names[k];
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
    const auto video = noise_video(model->config(), 2);
    const VideoSteps steps(video, model->config());
    const auto view = steps.view(5, video.intrinsics[0], video.camera_to_world[2], at::TensorOptions(at::kDouble));
    const auto whole = model->render(view, 100000);
    EXPECT_EQ(whole.sizes(), at::IntArrayRef({24 * 32, 3}));
    EXPECT_TRUE(near(model->render(view, 100), whole, 1e-10));
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

// ---- embeddings and motion ---------------------------------------------------------------------------------------------------------------

TEST(PeriodicEmbedding, IsInputThenCosinesThenSines) {
    const auto x = uniform({5, 3}, -2, 2);
    const auto e = periodic_embedding(x, {1, 2.5});
    ASSERT_EQ(e.sizes(), at::IntArrayRef({5, 15}));
    for (int64_t i = 0; i < 5; ++i)
        for (int64_t c = 0; c < 3; ++c) {
            const double v = number(x[i][c]);
            const double want[] = {v, std::cos(v), std::cos(2.5 * v), std::sin(v), std::sin(2.5 * v)};
            for (int64_t k = 0; k < 5; ++k) EXPECT_DOUBLE_EQ(number(e[i][3 * k + c]), want[k]);
        }
    EXPECT_THAT(octaves(4), testing::ElementsAre(1, 2, 4, 8));
}

TEST(CosineBasis, IsOrthonormal) {
    const auto b = cosine_basis(24, 6).to(at::kDouble);
    EXPECT_TRUE(near(at::matmul(b.t(), b), at::eye(6, at::kDouble), 1e-6));
    EXPECT_NEAR(number(b[3][1]), std::sqrt(2.0 / 24) * std::cos(M_PI / 48 * 7 * 2), 1e-7);
}

TEST(MotionMlp, LastTenthOfTheSamplesStandsStill) {
    const auto model = make();
    const auto points = uniform({3, 16, 3});
    const auto c = motion_coefficients(*model->motion_mlp, points, at::full({1}, 0.25, at::kDouble));
    ASSERT_EQ(c.sizes(), at::IntArrayRef({3, 16, 18}));
    EXPECT_EQ(number(c.slice(1, 14).abs().max()), 0);
    EXPECT_GT(number(c.slice(1, 0, 14).abs().amax(-1).min()), 0);
}

TEST(MotionMlp, TimeStaysFloat64UntilTheNetwork) {
    // The sum of a point and a moment is never formed: what counts is that float32 points don't round the time before it's joined.
    const auto model = make(at::kFloat);
    const auto points = uniform({2, 16, 3}).to(at::kFloat);
    const auto time = at::full({1}, 1.0 / 3, at::kDouble);
    const auto c = motion_coefficients(*model->motion_mlp, points, time);
    EXPECT_EQ(c.scalar_type(), at::kFloat);
    EXPECT_TRUE(c.equal(motion_coefficients(*model->motion_mlp, points, time.to(at::kFloat))));
    // The dynamic net embeds a float64 time in float64: sin(2^9 t) differs from that of the rounded time.
    const auto rgb = uniform({2, 16, 4, 35}).to(at::kFloat), mask = at::ones({2, 16, 4, 1}), direction = unit(uniform({2, 3})).to(at::kFloat);
    const auto a = model->net_dynamic->forward(points, rgb, direction, mask, time), b = model->net_dynamic->forward(points, rgb, direction, mask, time.to(at::kFloat));
    EXPECT_EQ(a.scalar_type(), at::kFloat);
    EXPECT_FALSE(a.equal(b));
}

TEST(Trajectories, AreSumsOverTheBasis) {
    const auto coefficients = uniform({2, 3, 18}, -1, 1), basis = uniform({10, 6}, -1, 1);
    const auto frames = at::tensor({7, 2, 7}, at::kLong);
    const auto got = trajectories(coefficients, basis, frames);
    ASSERT_EQ(got.sizes(), at::IntArrayRef({3, 2, 3, 3}));
    for (int64_t n = 0; n < 3; ++n)
        for (int64_t r = 0; r < 2; ++r)
            for (int64_t s = 0; s < 3; ++s)
                for (int64_t axis = 0; axis < 3; ++axis) {
                    double want = 0;
                    for (int64_t k = 0; k < 6; ++k) want += number(coefficients[r][s][6 * axis + k]) * number(basis[frames[n].item<int64_t>()][k]);
                    EXPECT_NEAR(number(got[n][r][s][axis]), want, 1e-14);
                }
    check_gradients([&](const Tensors& x) { return mixed(trajectories(x[0], x[1], frames)); }, {coefficients, basis});
}

TEST(Motion, FollowsEachSourcesFrame) {
    const auto model = make();
    StepInputs in;
    in.frame = at::tensor({5}, at::kLong);
    in.offsets = at::tensor({1, 2, 3, -1, -2, -3, 0}, at::kLong);
    const auto points = uniform({2, 16, 3}), c = uniform({2, 16, 18}, -1, 1);
    const auto m = model->motion(points, c, in);
    ASSERT_EQ(m.paths.sizes(), at::IntArrayRef({7, 2, 16, 3}));
    EXPECT_TRUE(m.moved[6].equal(points));  // a virtual view is of the frame's own moment
    for (int64_t v = 0; v < 6; ++v) {
        const auto d = in.offsets[v].item<int64_t>();
        const auto at_frame = [&](int64_t f) { return trajectories(c, model->trajectory_basis, at::tensor({f}, at::kLong))[0]; };
        EXPECT_TRUE(near(m.moved[v], points + at_frame(5 + d) - at_frame(5), 1e-14)) << d;
        EXPECT_TRUE(near(m.paths[3 + d], at_frame(5 + d)));
    }
}

// ---- cameras -----------------------------------------------------------------------------------------------------------------------------

TEST(SampleRays, IsEvenInInverseDepth) {
    const auto o = uniform({4, 3}), d = uniform({4, 3}), range = at::tensor({2.0, 10.0}, at::kDouble);
    const auto s = sample_rays(o, d, range, 16, {});
    for (int64_t k = 0; k < 16; ++k) {
        const double share = static_cast<double>(k) / 15, z = 1 / (0.5 + share * (0.1 - 0.5));
        EXPECT_NEAR(number(s.depth[1][k]), z, 1e-12);
        EXPECT_NEAR(number(s.position[1][k]), share, 1e-12);
        EXPECT_TRUE(near(s.points[1][k], o[1] + z * d[1], 1e-12));
    }
    const auto low = sample_rays(o, d, range, 16, at::zeros({4, 16}, at::kDouble)).depth, high = sample_rays(o, d, range, 16, at::ones({4, 16}, at::kDouble)).depth;
    EXPECT_TRUE(near(high.slice(1, 0, 15), low.slice(1, 1), 1e-12));  // intervals meet
    EXPECT_TRUE(near(low.select(1, 0), at::full({4}, 2.0, at::kDouble)));
    EXPECT_TRUE(near(high.select(1, 15), at::full({4}, 10.0, at::kDouble), 1e-12));
}

TEST(Project, IsAPinholeCamera) {
    const int64_t v = 3, r = 4, s = 5, h = 6, w = 8;
    const auto views = some_views(v, h, w);
    const auto points = at::cat({uniform({v, r, s, 2}, -4, 4), uniform({v, r, s, 1}, -2, 6)}, -1);
    const auto p = project(points, views);
    int64_t seen = 0;
    for (int64_t i = 0; i < v; ++i)
        for (int64_t a = 0; a < r; ++a)
            for (int64_t b = 0; b < s; ++b) {
                double camera[3] = {};
                for (int64_t axis = 0; axis < 3; ++axis)  // the inverse of a rotation is its transpose
                    for (int64_t k = 0; k < 3; ++k) camera[axis] += number(views.camera_to_world[i][k][axis]) * (number(points[i][a][b][k]) - number(views.camera_to_world[i][k][3]));
                const auto& K = views.intrinsics[i];
                const double z = std::max(camera[2], 1e-8);
                const double x = std::clamp((number(K[0][0]) * camera[0] + number(K[0][2]) * camera[2]) / z, -1e6, 1e6);
                const double y = std::clamp((number(K[1][1]) * camera[1] + number(K[1][2]) * camera[2]) / z, -1e6, 1e6);
                EXPECT_NEAR(number(p.pixels[i][a][b][0]), x, 1e-6 * std::max(1.0, std::abs(x)));
                EXPECT_NEAR(number(p.pixels[i][a][b][1]), y, 1e-6 * std::max(1.0, std::abs(y)));
                const bool visible = camera[2] > 0 && x >= 0 && x <= w - 1 && y >= 0 && y <= h - 1;
                EXPECT_EQ(number(p.visible[a][b][i][0]), visible ? 1 : 0);
                seen += visible;
            }
    EXPECT_GT(seen, 3);
    EXPECT_LT(seen, v * r * s - 3);
    const auto before = at::cat({uniform({v, r, s, 2}, -1, 1), uniform({v, r, s, 1}, 3, 6)}, -1);
    check_gradients([&](const Tensors& x) { return mixed(project(x[0], views).pixels); }, {before}, 1e-5);
}

TEST(SampleViews, IsBilinearAndZeroOutside) {
    const int64_t v = 2, r = 3, s = 4, h = 6, w = 8, fh = 3, fw = 4, c = 5;
    const auto views = some_views(v, h, w);
    const auto features = uniform({v, c, fh, fw});
    const Projection p{at::cat({uniform({v, r, s, 1}, -1, w), uniform({v, r, s, 1}, -1, h)}, -1), {}};
    const auto got = sample_views(p, views, features);
    ASSERT_EQ(got.sizes(), at::IntArrayRef({r, s, v, 3 + c}));
    const auto look_up = [](const Tensor& map, double x, double y) {
        double sum = 0;
        for (int64_t i = 0; i < map.size(0); ++i)
            for (int64_t j = 0; j < map.size(1); ++j)
                sum += number(map[i][j]) * std::max(0.0, 1 - std::abs(y - static_cast<double>(i))) * std::max(0.0, 1 - std::abs(x - static_cast<double>(j)));
        return sum;
    };
    for (int64_t i = 0; i < v; ++i)
        for (int64_t a = 0; a < r; ++a)
            for (int64_t b = 0; b < s; ++b) {
                const double x = number(p.pixels[i][a][b][0]), y = number(p.pixels[i][a][b][1]);
                for (int64_t k = 0; k < 3; ++k) EXPECT_NEAR(number(got[a][b][i][k]), look_up(views.images[i][k], x, y), 1e-12);
                for (int64_t k = 0; k < c; ++k) EXPECT_NEAR(number(got[a][b][i][3 + k]), look_up(features[i][k], x * (fw - 1) / (w - 1), y * (fh - 1) / (h - 1)), 1e-12);
            }
    check_gradients([&](const Tensors& x) { return mixed(sample_views({x[0], {}}, views, x[1])); }, {p.pixels, features}, 1e-5);
}

TEST(Rays, CoordinatesAndAnglesAreThoseOfTheDefinition) {
    const auto views = some_views(3, 6, 8);  // three views and three rays: sizes that an unnamed dimension would confuse
    const auto points = uniform({3, 4, 3}, -1, 1) + at::tensor({0.0, 0.0, 4.0}, at::kDouble), eye = uniform({3}, -1, 1);
    const auto angles = angle_difference(points, eye, views), rays = source_ray_coordinates(points, views);
    ASSERT_EQ(angles.sizes(), at::IntArrayRef({3, 4, 3, 4}));
    ASSERT_EQ(rays.sizes(), at::IntArrayRef({3, 4, 3, 6}));
    for (int64_t a = 0; a < 3; ++a)
        for (int64_t b = 0; b < 4; ++b)
            for (int64_t i = 0; i < 3; ++i) {
                const auto centre = views.camera_to_world[i].slice(0, 0, 3).select(1, 3), x = points[a][b];
                const auto to_eye = (eye - x) / (eye - x).norm(), to_source = (centre - x) / (centre - x).norm(), difference = to_eye - to_source;
                EXPECT_TRUE(near(angles[a][b][i].slice(0, 0, 3), difference / difference.norm()));
                EXPECT_NEAR(number(angles[a][b][i][3]), number((to_eye * to_source).sum()), 1e-12);
                const auto d = rays[a][b][i].slice(0, 0, 3), m = rays[a][b][i].slice(0, 3);
                EXPECT_TRUE(near(d, -to_source));
                for (int64_t k = 0; k < 3; ++k) EXPECT_NEAR(number(m[k]), number(centre[(k + 1) % 3] * d[(k + 2) % 3] - centre[(k + 2) % 3] * d[(k + 1) % 3]), 1e-12);
                // The moment is that of any point of the ray.
                for (int64_t k = 0; k < 3; ++k) EXPECT_NEAR(number(m[k]), number(x[(k + 1) % 3] * d[(k + 2) % 3] - x[(k + 2) % 3] * d[(k + 1) % 3]), 1e-12);
            }
    EXPECT_NEAR(number(ray_coordinates(eye.expand({2, 3}), uniform({2, 3})).slice(1, 0, 3).norm(2, -1, false).sum()), 2, 1e-12);
}

TEST(OpticalFlow, IsWhereTheExpectedPointIsSeen) {
    const auto views = some_views(6, 24, 32);
    const auto points = uniform({6, 5, 7, 3}, -0.5, 0.5) + at::tensor({0.0, 0.0, 4.0}, at::kDouble), pixel = uniform({5, 2}, 0, 20);
    const auto weights = at::softmax(uniform({5, 7}), -1);
    const auto flow = optical_flow(weights, points, views, pixel);
    const auto expected = (points * weights.unsqueeze(0).unsqueeze(-1)).sum(2, true);
    EXPECT_TRUE(near(flow, project(expected, views).pixels.squeeze(2) - pixel, 1e-10));
    check_gradients([&](const Tensors& x) { return mixed(optical_flow(x[0], x[1], views, pixel)); }, {weights, points}, 1e-5);
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
                    score.push_back(number(asks[r][i]) == 0 ? 0 : number((of("w_qs.weight", i) * of("w_ks.weight", j)).slice(0, 32 * h, 32 * h + 32).sum()) / std::sqrt(32.0));
                const auto share = at::softmax(at::tensor(score, at::kDouble), 0);
                auto sum = at::zeros({32}, at::kDouble);
                for (int64_t j = 0; j < 5; ++j) sum += share[j] * of("w_vs.weight", j).slice(0, 32 * h, 32 * h + 32);
                heads.push_back(sum);
            }
            auto want = at::mv(p["fc.weight"], at::cat(heads)) + x[r][i];
            want = (want - want.mean()) / at::sqrt((want - want.mean()).pow(2).mean() + 1e-6);
            EXPECT_TRUE(near(got[r][i], want, 1e-10)) << r << " " << i;  // the norm's weight is 1 and its bias 0 at first
        }
}

// Inputs of both networks, of a size that has no view at one sample and one view at another.
struct NetInputs {
    int64_t r = 2, s = 16, v = 4;
    Tensor points = uniform({r, s, 3}), direction = unit(uniform({r, 3})), rgb_dynamic = uniform({r, s, v, 35}), rgb_static = rgb_dynamic.clone();
    Tensor mask = at::ones({r, s, v, 1}, at::kDouble), target = uniform({r, 6}), source = uniform({r, s, v, 6}), angles = uniform({r, s, v, 4});
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

// ---- compositing -------------------------------------------------------------------------------------------------------------------------

double softplus(double x) { return x > 20 ? x : std::log1p(std::exp(x)); }

TEST(Composite, IsTheSumAlongTheRay) {
    const int64_t r = 3, s = 12;
    const auto raw = [&] { return at::cat({uniform({r, s, 3}), uniform({r, s, 1}, -4, 2)}, -1); };
    const auto dynamic = raw(), still = raw(), depth = uniform({r, s}, 1, 9);
    auto valid = at::ones({r, s}, at::kBool), none = at::zeros({r, s}, at::kBool);
    valid[1].slice(0, 8) = false;  // eight samples aren't enough
    dynamic[2].select(1, 3).fill_(-1e9);
    still[2].select(1, 3).fill_(-1e9);
    const auto c = composite(dynamic, still, depth, valid, none);
    const auto alone = render(dynamic, depth, valid);
    for (int64_t i = 0; i < r; ++i) {
        double passed = 1, passed_alone = 1, z = 0, z_alone = 0;
        std::vector<double> rgb(3), rgb_static(3), rgb_alone(3);
        for (int64_t k = 0; k < s; ++k) {
            const double length = k + 1 == s ? 1e10 : 1;
            const double a = 1 - std::exp(-softplus(number(dynamic[i][k][3])) * length), b = 1 - std::exp(-softplus(number(still[i][k][3])) * length);
            EXPECT_NEAR(number(c.weights_dynamic[i][k]), a * passed, 1e-12);
            EXPECT_NEAR(number(c.weights_static[i][k]), b * passed, 1e-12);
            const double both = 1 - (1 - a) * (1 - b);
            EXPECT_NEAR(number(c.weights[i][k]), both * passed, 1e-12);
            EXPECT_NEAR(number(alone.weights[i][k]), a * passed_alone, 1e-12);
            for (size_t j = 0; j < 3; ++j) {
                const auto channel = static_cast<int64_t>(j);
                rgb[j] += (a * number(dynamic[i][k][channel]) + b * number(still[i][k][channel])) * passed;
                rgb_static[j] += b * number(still[i][k][channel]) * passed;
                rgb_alone[j] += a * number(dynamic[i][k][channel]) * passed_alone;
            }
            z += both * passed * number(depth[i][k]), z_alone += a * passed_alone * number(depth[i][k]);
            passed *= 1 - both + 1e-10, passed_alone *= 1 - a + 1e-10;
        }
        EXPECT_TRUE(near(c.rgb[i], at::tensor(rgb, at::kDouble)));
        EXPECT_TRUE(near(c.rgb_static[i], at::tensor(rgb_static, at::kDouble)));
        EXPECT_TRUE(near(c.rgb_dynamic[i], c.rgb[i] - c.rgb_static[i]));
        EXPECT_TRUE(near(alone.rgb[i], at::tensor(rgb_alone, at::kDouble)));
        EXPECT_NEAR(number(c.depth[i]), z, 1e-11);
        EXPECT_NEAR(number(alone.depth[i]), z_alone, 1e-11);
        EXPECT_EQ(c.mask[i].item<bool>(), i != 1);
        EXPECT_EQ(alone.mask[i].item<bool>(), i != 1);
    }
    EXPECT_EQ(number(c.weights[2].sum()), 0);  // no view sees it: nothing there, not even at the end
    EXPECT_EQ(composite(dynamic, still, depth, none, valid).mask[1].item<bool>(), false);
    check_gradients([&](const Tensors& x) {
        const auto y = composite(x[0], x[1], x[2], valid, none);
        return mixed(y.rgb) + mixed(y.depth) + mixed(y.weights) + mixed(y.weights_dynamic) + mixed(y.rgb_static);
    }, {dynamic.slice(0, 0, 2), still.slice(0, 0, 2), depth.slice(0, 0, 2)});
}

// ---- losses ------------------------------------------------------------------------------------------------------------------------------

TEST(Losses, OfColours) {
    const auto x = uniform({5, 3}), y = uniform({5, 3}), m = uniform({5}), seen = uniform({5});
    double sum = 0, weight = 0, timed = 0, timed_weight = 0;
    for (int64_t i = 0; i < 5; ++i) {
        for (int64_t c = 0; c < 3; ++c) {
            const double d = std::sqrt(std::pow(number(x[i][c] - y[i][c]), 2) + 1e-6);
            sum += d * number(m[i]), timed += d * number(m[i] * seen[i]), timed_weight += number(m[i] * seen[i]);
        }
        weight += number(m[i]);
    }
    EXPECT_NEAR(number(charbonnier(x, y, m)), sum / (3 * weight + 1e-6), 1e-12);
    EXPECT_NEAR(number(cross_time_colour(x, y, m, seen)), timed / (timed_weight + 1e-8), 1e-12);
    EXPECT_EQ(number(charbonnier(x, y, at::zeros_like(m))), 0);
    check_gradients([&](const Tensors& a) { return charbonnier(a[0], y, m) + cross_time_colour(a[0], y, m, seen); }, {x});
}

TEST(Losses, OfDisparityAndFlow) {
    const auto depth = uniform({6}, 0.5, 4), disparity = uniform({6});
    depth[2] = 1e-3;  // nearer than 0.01 counts as 0.01
    const auto mask = at::tensor({1, 0, 1, 1, 0, 1}, at::kLong) == 1;
    double sum = 0;
    for (int64_t i : {0, 2, 3, 5}) sum += std::abs(1 / std::max(number(depth[i]), 0.01) - number(disparity[i]));
    EXPECT_NEAR(number(disparity_loss(depth, disparity, mask)), sum / 4, 1e-8);
    EXPECT_EQ(number(disparity_loss(depth, disparity, at::zeros_like(mask))), 0);

    const auto flow = uniform({6, 4, 2}), truth = uniform({6, 4, 2}), trusted = (uniform({6, 4, 1}) < 0.5).to(at::kDouble);
    double off = 0, count = 0;
    for (int64_t k = 0; k < 6; ++k)
        for (int64_t i = 0; i < 4; ++i)
            for (int64_t c = 0; c < 2; ++c) off += std::abs(number(flow[k][i][c] - truth[k][i][c])) * number(trusted[k][i][0]), count += number(trusted[k][i][0]);
    EXPECT_NEAR(number(flow_loss(flow, truth, trusted)), off / (count + 1e-8), 1e-12);
}

TEST(Losses, OfTrajectories) {
    const auto a = uniform({4, 2, 5, 3}), b = uniform({4, 2, 5, 3}), seen = uniform({2, 5});
    double sum = 0;
    for (int64_t p = 0; p < 4; ++p)
        for (int64_t r = 0; r < 2; ++r)
            for (int64_t s = 0; s < 5; ++s)
                for (int64_t k = 0; k < 3; ++k) sum += std::abs(number(a[p][r][s][k] - b[p][r][s][k])) * number(seen[r][s]);
    EXPECT_NEAR(number(cycle_loss(a, b, seen)), sum / (12 * number(seen.sum()) + 1e-8), 1e-12);

    double small = 0, in_time = 0, in_space = 0;
    for (int64_t f = 0; f < 4; ++f)
        for (int64_t r = 0; r < 2; ++r)
            for (int64_t s = 0; s < 5; ++s)
                for (int64_t k = 0; k < 3; ++k) {
                    small += std::abs(number(a[f][r][s][k])) / 120;
                    if (f > 0) in_time += 0.5 * std::pow(number(a[f][r][s][k] - a[f - 1][r][s][k]), 2) / 90;
                    if (s > 0) in_space += std::abs(number(a[f][r][s][k] - a[f][r][s - 1][k])) / 96;
                }
    EXPECT_NEAR(number(scene_flow_loss(a)), small + in_time + in_space, 1e-12);
    check_gradients([&](const Tensors& x) { return cycle_loss(x[0], x[1], seen) + scene_flow_loss(x[0]); }, {a, b});
}

TEST(Losses, OfTheDecomposition) {
    auto dynamic = uniform({4, 6}), still = uniform({4, 6});
    dynamic[1].fill_(0);
    still[2].fill_(0);
    dynamic[3].fill_(0), still[3].fill_(0);
    const auto share = dynamic_share(dynamic, still);
    EXPECT_NEAR(number(share[0]), number(dynamic[0].sum() / (dynamic[0].sum() + still[0].sum())), 1e-12);
    EXPECT_EQ(number(share[1]), 0);
    EXPECT_EQ(number(share[2]), 1);
    EXPECT_EQ(number(share[3]), 0);
    double entropy = 0;
    for (int64_t i = 0; i < 4; ++i) {
        const double p = number(share[i]);
        entropy -= (p * std::log(p + 1e-9) + (1 - p) * std::log(1 - p + 1e-9)) / 4;
    }
    EXPECT_NEAR(number(entropy_loss(share)), entropy, 1e-12);
    check_gradients([&](const Tensors& x) { return entropy_loss(dynamic_share(x[0], x[1])); }, {dynamic.slice(0, 0, 1), still.slice(0, 0, 1)});

    const auto opacity = uniform({4}), mask = uniform({4}), shares = at::tensor({0.05, 0.5, 0.09, 0.1}, at::kDouble);
    EXPECT_NEAR(number(sparsity_loss(opacity, shares, mask)), number((opacity * mask)[0] + (opacity * mask)[2]) / number(mask[0] + mask[2] + 4e-8), 1e-12);
}

TEST(Losses, DistortionIsTheSumOverAllPairs) {
    const int64_t r = 3, s = 9;
    const auto w = uniform({r, s}), x = std::get<0>(uniform({r, s + 1}).sort(-1));
    double want = 0;
    for (int64_t k = 0; k < r; ++k)
        for (int64_t i = 0; i < s; ++i) {
            const auto middle = [&](int64_t n) { return number(x[k][n] + x[k][n + 1]) / 2; };
            for (int64_t j = 0; j < s; ++j) want += number(w[k][i] * w[k][j]) * std::abs(middle(i) - middle(j)) / r;
            want += std::pow(number(w[k][i]), 2) * number(x[k][i + 1] - x[k][i]) / 3 / r;
        }
    EXPECT_NEAR(number(distortion_loss(w, x)), want, 1e-12);
    check_gradients([&](const Tensors& in) { return distortion_loss(in[0], in[1]); }, {w, x});
}

// ---- steps from a video ------------------------------------------------------------------------------------------------------------------

TEST(VideoSteps, DrawsWhatBelongsTogether) {
    const auto c = dynibar_config("tiny");
    const auto video = noise_video(c, 1);
    const VideoSteps steps(video, c);
    std::set<int64_t> frames, anchors, views;
    for (int64_t it = 0; it < 40; ++it) {
        const auto in = steps.step(it, 7, at::kDouble);
        const auto frame = in.frame.item<int64_t>(), anchor = in.anchor.item<int64_t>(), away = std::abs(anchor - frame);
        frames.insert(frame), anchors.insert(anchor - frame), views.insert(in.anchor_sources.images.size(0));
        ASSERT_GE(frame, 3);
        ASSERT_LT(frame, c.frames - 3);
        EXPECT_GE(away, 1);
        EXPECT_LE(away, anchor_range(c, it));
        EXPECT_DOUBLE_EQ(number(in.time), static_cast<double>(frame) / 12.0);
        EXPECT_EQ(in.time.scalar_type(), at::kDouble);
        // A ray goes through its pixel, and at depth z its point has that depth.
        const Views own = {video.images[frame].unsqueeze(0).to(at::kDouble), video.intrinsics[frame].unsqueeze(0).to(at::kDouble), video.camera_to_world[frame].unsqueeze(0).to(at::kDouble)};
        const auto points = (in.ray_o + 3 * in.ray_d).unsqueeze(0).unsqueeze(2);
        EXPECT_TRUE(near(project(points, own).pixels.squeeze(2).squeeze(0), in.pixel, 1e-4));
        for (int64_t i = 0; i < in.rgb.size(0); ++i) {
            const auto u = static_cast<int64_t>(number(in.pixel[i][0])), v = static_cast<int64_t>(number(in.pixel[i][1]));
            EXPECT_TRUE(near(in.rgb[i], video.images[frame].select(2, u).select(1, v)));
            EXPECT_EQ(number(in.disparity[i]), number(video.disparity[frame][v][u]));
            EXPECT_TRUE(near(in.flows.select(1, i), video.flows[frame].select(1, v).select(1, u)));
            EXPECT_EQ(number(in.flow_masks[4][i][0]), number(video.flow_masks[frame][4][v][u]));
            EXPECT_EQ(number(in.static_mask[i]), number(video.static_masks[frame][v][u]));
        }
        for (int64_t k = 0; k < 6; ++k) EXPECT_TRUE(near(in.sources.images[k], video.images[frame + kFlowOffsets[static_cast<size_t>(k)]]));
        ASSERT_EQ(in.sources.images.size(0), in.offsets.size(0));
        ASSERT_EQ(in.anchor_sources.images.size(0), in.anchor_offsets.size(0));
        for (int64_t k = 0; k + c.virtual_views < in.anchor_offsets.size(0); ++k)
            EXPECT_TRUE(near(in.anchor_sources.images[k], video.images[anchor + in.anchor_offsets[k].item<int64_t>()]));
        for (int64_t k = 0; k < in.pairs.size(0); ++k)
            EXPECT_LE(std::abs(anchor + in.anchor_offsets[in.pairs[k].item<int64_t>()].item<int64_t>() - frame), 3);
        EXPECT_GE(in.pairs.size(0), 3);
        EXPECT_EQ(number(in.offsets.slice(0, 6).abs().sum()), 0);
        EXPECT_LE(in.static_sources.images.size(0), 2 * c.static_views);
        EXPECT_GE(in.static_sources.images.size(0), 1);
        EXPECT_EQ(number(in.static_sources.images.slice(3, 0, 32 / 3).abs().max()), 0);  // where the noise moves
    }
    EXPECT_GT(frames.size(), 3u);
    EXPECT_EQ(anchors.count(0), 0u);
    EXPECT_GT(anchors.size(), 2u);
    EXPECT_GT(views.size(), 1u);  // fewer near the ends
}

TEST(VideoSteps, RepeatsWithItsSeed) {
    const auto c = dynibar_config("tiny");
    const VideoSteps steps(noise_video(c, 1), c);
    const auto a = steps.step(5, 7, at::kFloat).list(), b = steps.step(5, 7, at::kFloat).list(), other = steps.step(6, 7, at::kFloat).list();
    for (size_t k = 0; k < a.size(); ++k) EXPECT_TRUE(a[k].equal(b[k])) << k;
    EXPECT_FALSE(a[2].equal(other[2]));
}

TEST(VideoSteps, ErodesMotionMasksByADisc) {
    auto c = dynibar_config("tiny");
    c.erosion_radius = 2;
    auto video = noise_video(c, 1);
    video.motion_masks = (at::rand({c.frames, c.height, c.width}) < 0.9).to(at::kFloat);
    const VideoSteps steps(video, c);
    int64_t moving = 0;
    for (int64_t it = 0; it < 6; ++it) {
        const auto in = steps.step(it, 7, at::kFloat);
        const auto mask = video.motion_masks[in.frame.item<int64_t>()];
        for (int64_t i = 0; i < in.pixel.size(0); ++i) {
            bool want = true;
            for (int64_t y = -2; y <= 2; ++y)
                for (int64_t x = -2; x <= 2; ++x) {
                    const auto u = static_cast<int64_t>(number(in.pixel[i][0])) + x, v = static_cast<int64_t>(number(in.pixel[i][1])) + y;
                    if (x * x + y * y <= 4 && u >= 0 && u < c.width && v >= 0 && v < c.height) want = want && number(mask[v][u]) > 0;
                }
            EXPECT_EQ(number(in.motion_mask[i]), want ? 1 : 0);
            moving += want;
        }
    }
    EXPECT_GT(moving, 3);
}

TEST(VideoSteps, WorksWithoutVirtualViews) {
    const auto c = dynibar_config("tiny");
    auto video = noise_video(c, 1);
    video.virtual_images = video.virtual_camera_to_world = Tensor();
    const VideoSteps steps(video, c);
    const auto in = steps.step(20, 7, at::kDouble);
    EXPECT_EQ(in.sources.images.size(0), 6);
    EXPECT_TRUE(std::isfinite(number(make()->loss(in.list(), Phase::moving)[0])));
}

TEST(VideoSteps, NamesWhatIsWrongWithAVideo) {
    const auto c = dynibar_config("tiny");
    const auto wrong = [&](const std::function<void(Video&)>& spoil) {
        auto video = noise_video(c, 1);
        spoil(video);
        return message_of([&] { VideoSteps(video, c); });
    };
    EXPECT_EQ(wrong([](Video& v) { v.disparity = Tensor(); }), "video: disparity: is missing");
    EXPECT_EQ(wrong([](Video& v) { v.flows = v.flows.slice(1, 0, 4); }), "video: flows: has sizes [12, 4, 24, 32, 2], expected [12, 6, 24, 32, 2]");
    EXPECT_EQ(wrong([](Video& v) { v.images = v.images.slice(0, 0, 6); }), "video: 6 frames: a step needs 3 frames on either side of its own");
    EXPECT_EQ(wrong([](Video& v) { v.far = v.near; }), "video: near and far: expected 0 < near < far");
    const auto video = noise_video(c, 1);
    const VideoSteps steps(video, c);
    EXPECT_EQ(message_of([&] { steps.view(2, video.intrinsics[0], video.camera_to_world[0], at::kFloat); }), "view: frame 2: choose one with 3 frames on either side");
}

TEST(StepInputs, AreAListInOneOrder) {
    const auto in = dynibar_step_inputs(dynibar_config("tiny"), 1);
    auto list = in.list();
    const auto back = StepInputs::of(list);
    EXPECT_TRUE(back.jitter.equal(in.jitter));
    EXPECT_TRUE(back.static_sources.images.equal(in.static_sources.images));
    list.pop_back();
    EXPECT_FALSE(StepInputs::of(list).jitter.defined());
    std::map<std::string, std::set<int64_t>> sizes;
    for (const auto& s : StepInputs::sizes()) sizes[s.name].insert(in.list()[static_cast<size_t>(s.input)].size(s.dim));
    EXPECT_EQ(sizes.size(), 5u);
    for (const auto& [name, values] : sizes) EXPECT_EQ(values.size(), 1u) << name;
}

TEST(DynibarParts, RunInEitherPrecision) {
    for (const auto type : {at::kDouble, at::kFloat}) {
        const auto parts = dynibar_parts(make(type), 1, type), others = dynibar_parts(make(type), 1, type);
        std::vector<std::string> names;
        for (size_t k = 0; k < parts.size(); ++k) {
            names.push_back(parts[k].name);
            const auto out = parts[k].run(parts[k].inputs), again = others[k].run(others[k].inputs);
            for (size_t i = 0; i < out.size(); ++i) {
                EXPECT_EQ(out[i].scalar_type(), out[i].is_floating_point() ? type : at::kBool) << parts[k].name << " " << i;
                EXPECT_TRUE(out[i].isfinite().all().item<bool>()) << parts[k].name << " " << i;
                EXPECT_TRUE(near(out[i], again[i], 1e-5)) << parts[k].name << " " << i;
            }
            EXPECT_TRUE(out[0].requires_grad()) << parts[k].name;
            for (const auto& s : parts[k].sizes) EXPECT_LT(s.dim, parts[k].inputs[static_cast<size_t>(s.input)].dim());
        }
        EXPECT_THAT(names, testing::ElementsAre("feature_net", "motion_mlp", "trajectory", "projection", "dynamic_net", "static_net", "compositing", "losses", "iteration"));
    }
}

}  // namespace
}  // namespace heddle::models
