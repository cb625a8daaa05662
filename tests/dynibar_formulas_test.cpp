// DynIBaR's formulas against loops in float64, and their gradients against finite differences.
#include <gmock/gmock.h>

#include <cmath>

#include "models/dynibar/losses.h"
#include "tests/dynibar.h"

namespace heddle::models {
namespace {

Views some_views(int64_t count, int64_t height, int64_t width) {
    auto c = dynibar_config("tiny");
    c.frames = std::max<int64_t>(7, count), c.height = height, c.width = width;
    const auto v = noise_video(c, 5);
    return {v.images.slice(0, 0, count).to(at::kDouble), v.intrinsics.slice(0, 0, count).to(at::kDouble),
            v.camera_to_world.slice(0, 0, count).to(at::kDouble)};
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
    // Joined to float32 points, the time is float64 until both are rounded.
    const auto model = make(at::kFloat);
    const auto points = uniform({2, 16, 3}).to(at::kFloat);
    const auto time = at::full({1}, 1.0 / 3, at::kDouble);
    const auto c = motion_coefficients(*model->motion_mlp, points, time);
    EXPECT_EQ(c.scalar_type(), at::kFloat);
    EXPECT_TRUE(c.equal(motion_coefficients(*model->motion_mlp, points, time.to(at::kFloat))));
    // The dynamic net embeds a float64 time in float64: sin(2^9 t) differs from that of the rounded time.
    const auto rgb = uniform({2, 16, 4, 35}).to(at::kFloat), mask = at::ones({2, 16, 4, 1}),
               direction = unit(uniform({2, 3})).to(at::kFloat);
    const auto a = model->net_dynamic->forward(points, rgb, direction, mask, time),
               b = model->net_dynamic->forward(points, rgb, direction, mask, time.to(at::kFloat));
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
                    for (int64_t k = 0; k < 6; ++k)
                        want += number(coefficients[r][s][6 * axis + k]) * number(basis[frames[n].item<int64_t>()][k]);
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
        const auto at_frame = [&](int64_t f) {
            return trajectories(c, model->trajectory_basis, at::tensor({f}, at::kLong))[0];
        };
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
    const auto low = sample_rays(o, d, range, 16, at::zeros({4, 16}, at::kDouble)).depth,
               high = sample_rays(o, d, range, 16, at::ones({4, 16}, at::kDouble)).depth;
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
                    for (int64_t k = 0; k < 3; ++k)
                        camera[axis] += number(views.camera_to_world[i][k][axis]) *
                                        (number(points[i][a][b][k]) - number(views.camera_to_world[i][k][3]));
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
                sum += number(map[i][j]) * std::max(0.0, 1 - std::abs(y - static_cast<double>(i))) *
                       std::max(0.0, 1 - std::abs(x - static_cast<double>(j)));
        return sum;
    };
    for (int64_t i = 0; i < v; ++i)
        for (int64_t a = 0; a < r; ++a)
            for (int64_t b = 0; b < s; ++b) {
                const double x = number(p.pixels[i][a][b][0]), y = number(p.pixels[i][a][b][1]);
                for (int64_t k = 0; k < 3; ++k)
                    EXPECT_NEAR(number(got[a][b][i][k]), look_up(views.images[i][k], x, y), 1e-12);
                for (int64_t k = 0; k < c; ++k)
                    EXPECT_NEAR(number(got[a][b][i][3 + k]),
                                look_up(features[i][k], x * (fw - 1) / (w - 1), y * (fh - 1) / (h - 1)), 1e-12);
            }
    check_gradients(
        [&](const Tensors& x) {
            return mixed(sample_views({x[0], {}}, views, x[1]));
        },
        {p.pixels, features}, 1e-5);
}

TEST(Rays, CoordinatesAndAnglesAreThoseOfTheDefinition) {
    const auto views =
        some_views(3, 6, 8);  // three views and three rays: sizes that an unnamed dimension would confuse
    const auto points = uniform({3, 4, 3}, -1, 1) + at::tensor({0.0, 0.0, 4.0}, at::kDouble), eye = uniform({3}, -1, 1);
    const auto angles = angle_difference(points, eye, views), rays = source_ray_coordinates(points, views);
    ASSERT_EQ(angles.sizes(), at::IntArrayRef({3, 4, 3, 4}));
    ASSERT_EQ(rays.sizes(), at::IntArrayRef({3, 4, 3, 6}));
    for (int64_t a = 0; a < 3; ++a)
        for (int64_t b = 0; b < 4; ++b)
            for (int64_t i = 0; i < 3; ++i) {
                const auto centre = views.camera_to_world[i].slice(0, 0, 3).select(1, 3), x = points[a][b];
                const auto to_eye = (eye - x) / (eye - x).norm(), to_source = (centre - x) / (centre - x).norm(),
                           difference = to_eye - to_source;
                EXPECT_TRUE(near(angles[a][b][i].slice(0, 0, 3), difference / difference.norm()));
                EXPECT_NEAR(number(angles[a][b][i][3]), number((to_eye * to_source).sum()), 1e-12);
                const auto d = rays[a][b][i].slice(0, 0, 3), m = rays[a][b][i].slice(0, 3);
                EXPECT_TRUE(near(d, -to_source));
                for (int64_t k = 0; k < 3; ++k)
                    EXPECT_NEAR(number(m[k]),
                                number(centre[(k + 1) % 3] * d[(k + 2) % 3] - centre[(k + 2) % 3] * d[(k + 1) % 3]),
                                1e-12);
                // The moment is that of any point of the ray.
                for (int64_t k = 0; k < 3; ++k)
                    EXPECT_NEAR(number(m[k]), number(x[(k + 1) % 3] * d[(k + 2) % 3] - x[(k + 2) % 3] * d[(k + 1) % 3]),
                                1e-12);
            }
    EXPECT_NEAR(number(ray_coordinates(eye.expand({2, 3}), uniform({2, 3})).slice(1, 0, 3).norm(2, -1, false).sum()), 2,
                1e-12);
}

TEST(OpticalFlow, IsWhereTheExpectedPointIsSeen) {
    const auto views = some_views(6, 24, 32);
    const auto points = uniform({6, 5, 7, 3}, -0.5, 0.5) + at::tensor({0.0, 0.0, 4.0}, at::kDouble),
               pixel = uniform({5, 2}, 0, 20);
    const auto weights = at::softmax(uniform({5, 7}), -1);
    const auto flow = optical_flow(weights, points, views, pixel);
    const auto expected = (points * weights.unsqueeze(0).unsqueeze(-1)).sum(2, true);
    EXPECT_TRUE(near(flow, project(expected, views).pixels.squeeze(2) - pixel, 1e-10));
    check_gradients([&](const Tensors& x) { return mixed(optical_flow(x[0], x[1], views, pixel)); }, {weights, points},
                    1e-5);
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
            const double a = 1 - std::exp(-softplus(number(dynamic[i][k][3])) * length),
                         b = 1 - std::exp(-softplus(number(still[i][k][3])) * length);
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
    check_gradients(
        [&](const Tensors& x) {
            const auto y = composite(x[0], x[1], x[2], valid, none);
            return mixed(y.rgb) + mixed(y.depth) + mixed(y.weights) + mixed(y.weights_dynamic) + mixed(y.rgb_static);
        },
        {dynamic.slice(0, 0, 2), still.slice(0, 0, 2), depth.slice(0, 0, 2)});
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
    check_gradients([&](const Tensors& a) { return charbonnier(a[0], y, m) + cross_time_colour(a[0], y, m, seen); },
                    {x});
}

TEST(Losses, OfDisparityAndFlow) {
    const auto depth = uniform({6}, 0.5, 4), disparity = uniform({6});
    depth[2] = 1e-3;  // nearer than 0.01 counts as 0.01
    const auto mask = at::tensor({1, 0, 1, 1, 0, 1}, at::kLong) == 1;
    double sum = 0;
    for (int64_t i : {0, 2, 3, 5}) sum += std::abs(1 / std::max(number(depth[i]), 0.01) - number(disparity[i]));
    EXPECT_NEAR(number(disparity_loss(depth, disparity, mask)), sum / 4, 1e-8);
    EXPECT_EQ(number(disparity_loss(depth, disparity, at::zeros_like(mask))), 0);

    const auto flow = uniform({6, 4, 2}), truth = uniform({6, 4, 2}),
               trusted = (uniform({6, 4, 1}) < 0.5).to(at::kDouble);
    double off = 0, count = 0;
    for (int64_t k = 0; k < 6; ++k)
        for (int64_t i = 0; i < 4; ++i)
            for (int64_t c = 0; c < 2; ++c)
                off += std::abs(number(flow[k][i][c] - truth[k][i][c])) * number(trusted[k][i][0]),
                    count += number(trusted[k][i][0]);
    EXPECT_NEAR(number(flow_loss(flow, truth, trusted)), off / (count + 1e-8), 1e-12);
}

TEST(Losses, OfTrajectories) {
    const auto a = uniform({4, 2, 5, 3}), b = uniform({4, 2, 5, 3}), seen = uniform({2, 5});
    double sum = 0;
    for (int64_t p = 0; p < 4; ++p)
        for (int64_t r = 0; r < 2; ++r)
            for (int64_t s = 0; s < 5; ++s)
                for (int64_t k = 0; k < 3; ++k)
                    sum += std::abs(number(a[p][r][s][k] - b[p][r][s][k])) * number(seen[r][s]);
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
    check_gradients([&](const Tensors& x) { return entropy_loss(dynamic_share(x[0], x[1])); },
                    {dynamic.slice(0, 0, 1), still.slice(0, 0, 1)});

    const auto opacity = uniform({4}), mask = uniform({4}), shares = at::tensor({0.05, 0.5, 0.09, 0.1}, at::kDouble);
    EXPECT_NEAR(number(sparsity_loss(opacity, shares, mask)),
                number((opacity * mask)[0] + (opacity * mask)[2]) / number(mask[0] + mask[2] + 4e-8), 1e-12);
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

}  // namespace
}  // namespace heddle::models
