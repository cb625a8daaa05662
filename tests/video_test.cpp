// Videos for DynIBaR: what is written is exact, by geometry that the tracer doesn't use; what is read is what was written; each kind of bad
// input has one message.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/types.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>

#include "models/data/monocular.h"
#include "models/data/npy.h"
#include "models/data/video_scene.h"
#include "models/error.h"

namespace heddle::models {
namespace {

namespace fs = std::filesystem;

std::string bytes_of(const fs::path& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
}

struct VideoFiles : testing::Test {
    fs::path root = fs::temp_directory_path() / ("heddle_video_test_" + std::to_string(::getpid()));
    fs::path scene = root / "video", dense = scene / "dense";
    VideoOptions options{.frames = 8, .width = 48, .height = 30, .held_out = 2, .grid = 2};
    void SetUp() override { write_bouncing_balls_video(scene.string(), options); }
    void TearDown() override { fs::remove_all(root); }

    fs::path flow_file(int64_t frame, int64_t offset) const {
        return dense / ("flow_i" + std::to_string(std::abs(offset))) / ("0000" + std::to_string(frame) + (offset > 0 ? "_fwd.npz" : "_bwd.npz"));
    }
    std::string failure(const std::function<void()>& f) const {
        try {
            f();
        } catch (const Error& e) {
            std::string text = e.what();  // the scene's place is written as DIR
            for (size_t i; (i = text.find(scene.string())) != std::string::npos;) text.replace(i, scene.string().size(), "DIR");
            return text;
        }
        return "no error";
    }
    std::string load_failure(int64_t height = 0) const {
        return failure([&] { load_monocular(scene.string(), height); });
    }
};

at::Tensor vector(const Vec3& v) { return at::tensor({v[0], v[1], v[2]}, at::kDouble); }

// A camera read from the file of poses as a matrix, and geometry by matrices: the tracer has neither.
struct Matrices {
    at::Tensor to_camera, to_world, lens;  // [4, 4], [4, 4], [3, 3]; x right, y down, z forward
    int64_t width, height;

    explicit Matrices(const at::Tensor& row) {
        const auto m = row.slice(0, 0, 15).reshape({3, 5});
        to_world = at::eye(4, at::kDouble);
        to_world.slice(0, 0, 3) = at::stack({m.select(1, 1), m.select(1, 0), -m.select(1, 2), m.select(1, 3)}, 1);
        to_camera = at::linalg_inv(to_world);
        height = static_cast<int64_t>(m[0][4].item<double>()), width = static_cast<int64_t>(m[1][4].item<double>());
        lens = at::diag(at::stack({m[2][4], m[2][4], at::ones({}, at::kDouble)}));
        lens[0][2] = 0.5 * static_cast<double>(width), lens[1][2] = 0.5 * static_cast<double>(height);
    }
    // [H * W, 3]: u, v, 1, row by row.
    at::Tensor pixels() const {
        const auto grid = at::meshgrid({at::arange(height, at::kDouble), at::arange(width, at::kDouble)}, "ij");
        return at::stack({grid[1].flatten(), grid[0].flatten(), at::ones({height * width}, at::kDouble)}, 1);
    }
    at::Tensor points(const at::Tensor& disparity) const {  // [H, W] -> [H * W, 3]
        const auto local = at::matmul(pixels(), at::linalg_inv(lens).t()) / disparity.to(at::kDouble).reshape({-1, 1});
        return at::matmul(local, to_world.slice(0, 0, 3).slice(1, 0, 3).t()) + position();
    }
    at::Tensor project(const at::Tensor& points) const {  // [n, 3] -> [n, 2]; all of them in front
        const auto local = at::matmul(points, to_camera.slice(0, 0, 3).slice(1, 0, 3).t()) + to_camera.slice(0, 0, 3).select(1, 3);
        const auto seen = at::matmul(local, lens.t());
        EXPECT_GT(seen.select(1, 2).min().item<double>(), 0);
        return seen.slice(1, 0, 2) / seen.slice(1, 2);
    }
    at::Tensor position() const { return to_world.slice(0, 0, 3).select(1, 3); }
};

// Which ball's surface each point lies on: [n] int64, -1: none.
at::Tensor ball_at(const at::Tensor& points, const std::vector<Sphere>& spheres) {
    auto out = at::full({points.size(0)}, -1, at::kLong);
    for (size_t i = 0; i < spheres.size(); ++i)
        out.masked_fill_(((points - vector(spheres[i].centre)).norm(2, 1) - spheres[i].radius).abs() < 1e-5, static_cast<int64_t>(i));
    return out;
}

// Is each point in sight? A ball hides it when the line of sight comes nearer to the ball's middle than its radius; the ball it lies on hides it
// when the surface there faces away. The floor and the wall hide nothing. `sure`: rounding to float32 can't change the answer.
struct InSight {
    at::Tensor yes, sure;
};
InSight in_sight(const at::Tensor& eye, const at::Tensor& points, const at::Tensor& on, const std::vector<Sphere>& spheres) {
    const auto line = points - eye;
    InSight out{at::ones({points.size(0)}, at::kBool), at::ones({points.size(0)}, at::kBool)};
    for (size_t i = 0; i < spheres.size(); ++i) {
        const auto own = on == static_cast<int64_t>(i);
        const auto facing = -(line * (points - vector(spheres[i].centre))).sum(1) / line.norm(2, 1) / spheres[i].radius;  // cosine
        const auto along = ((vector(spheres[i].centre) - eye) * line).sum(1) / line.square().sum(1);
        const auto nearest = eye + along.clamp(0, 1).unsqueeze(1) * line;
        const auto clear = (nearest - vector(spheres[i].centre)).norm(2, 1) - spheres[i].radius;
        out.yes.logical_and_(at::where(own, facing, clear) > 0);
        out.sure.logical_and_(at::where(own, facing, clear).abs() > at::where(own, 2e-3, 1e-5));
    }
    return out;
}

TEST_F(VideoFiles, DisparityIsThatOfTheFirstSurfaceAndMasksAreTheBalls) {
    const auto poses = read_npy((dense / "poses_bounds_cvd.npy").string());
    ASSERT_EQ(poses.sizes(), at::IntArrayRef({8, 17}));
    const Video video = load_monocular(scene.string());
    int64_t balls_seen = 0, shadows_seen = 0;
    for (int64_t i = 0; i < 8; ++i) {
        const Matrices camera(poses[i]);
        const auto spheres = balls(video_time(i));
        const auto disparity = read_npy((dense / "disp" / ("0000" + std::to_string(i) + ".npy")).string());
        ASSERT_EQ(disparity.sizes(), at::IntArrayRef({30, 48}));
        const auto points = camera.points(disparity), on = ball_at(points, spheres);
        const auto floor = (points.select(1, 2) + 0.75).abs() < 1e-5, wall = (points.select(1, 0) + 2.5).abs() < 1e-5;
        EXPECT_TRUE((floor | wall | (on >= 0)).all().item<bool>()) << "frame " << i << ": a point in mid-air";
        EXPECT_TRUE((points.select(1, 2) > -0.75001).all().item<bool>() && (points.select(1, 0) > -2.50001).all().item<bool>());
        const auto sight = in_sight(camera.position(), points, on, spheres);
        EXPECT_GT(sight.sure.to(at::kDouble).mean().item<double>(), 0.99);
        EXPECT_TRUE((sight.yes | ~sight.sure).all().item<bool>()) << "frame " << i << ": a point behind a ball";
        EXPECT_NEAR(poses[i][15].item<double>(), 1 / disparity.max().item<double>(), 1e-6);
        EXPECT_NEAR(poses[i][16].item<double>(), 1 / disparity.min().item<double>(), 1e-6);

        EXPECT_TRUE((video.motion_masks[i].flatten() > 0).equal(on >= 0)) << "frame " << i;
        // The generous mask has all of the tight one, the shadows, and little else: pixels that a ball or a shadow fills in part.
        auto shadow = at::zeros({30 * 48}, at::kBool);
        const auto light = vector(unit({0.5, -0.4, 1.0}));
        for (const auto& s : spheres) {
            const auto to = vector(s.centre) - points, along = at::matmul(to, light);
            shadow |= (on < 0) & (along > 0) & ((to - along.unsqueeze(1) * light).norm(2, 1) < s.radius - 1e-5);
        }
        const auto needed = ((on >= 0) | shadow).view({30, 48}), generous = video.static_masks[i] > 0;
        EXPECT_TRUE((generous | ~needed).all().item<bool>());
        const auto around = at::max_pool2d(needed.to(at::kFloat).unsqueeze(0), {3, 3}, {1, 1}, {1, 1})[0] > 0;
        EXPECT_TRUE((around | ~generous).all().item<bool>());
        balls_seen += (on >= 0).sum().item<int64_t>(), shadows_seen += shadow.sum().item<int64_t>();
    }
    EXPECT_GT(balls_seen, 8 * 100);
    EXPECT_GT(shadows_seen, 8 * 20);
}

TEST_F(VideoFiles, FlowIsWhereThePointGoesAndItsMaskWhetherItIsSeenThere) {
    const auto poses = read_npy((dense / "poses_bounds_cvd.npy").string());
    int64_t hidden = 0, moved = 0, files = 0;
    for (int64_t i = 0; i < 8; ++i)
        for (const int64_t offset : kFlowOffsets) {
            const int64_t j = i + offset;
            ASSERT_EQ(fs::exists(flow_file(i, offset)), j >= 0 && j < 8);
            if (j < 0 || j >= 8) continue;
            ++files;
            const Matrices camera(poses[i]), other(poses[j]);
            const auto before = balls(video_time(i)), after = balls(video_time(j));
            auto points = camera.points(read_npy((dense / "disp" / ("0000" + std::to_string(i) + ".npy")).string()));
            const auto on = ball_at(points, before);
            for (size_t b = 0; b < before.size(); ++b)
                points += (on == static_cast<int64_t>(b)).unsqueeze(1) * (vector(after[b].centre) - vector(before[b].centre));
            const auto expected = other.project(points);

            const auto arrays = read_npz(flow_file(i, offset).string());
            ASSERT_EQ(arrays.at("flow").sizes(), at::IntArrayRef({30, 48, 2}));
            ASSERT_EQ(arrays.at("mask").sizes(), at::IntArrayRef({30, 48}));
            const auto there = camera.pixels().slice(1, 0, 2) + arrays.at("flow").view({-1, 2}).to(at::kDouble);
            EXPECT_LT((there - expected).abs().max().item<double>(), 2e-5) << i << " to " << j;

            const auto edge = at::tensor({47.0, 29.0}, at::kDouble);
            const auto inside = ((expected >= 0) & (expected <= edge)).all(1);
            const auto sure_inside = (at::minimum(expected.abs(), (expected - edge).abs()) > 1e-4).all(1);
            const auto sight = in_sight(other.position(), points, on, after);
            const auto sure = sight.sure & sure_inside, seen = sight.yes & inside, mask = arrays.at("mask").flatten();
            EXPECT_GT(sure.to(at::kDouble).mean().item<double>(), 0.98);
            EXPECT_TRUE(((mask == seen) | ~sure).all().item<bool>()) << i << " to " << j;
            hidden += (inside & ~sight.yes).sum().item<int64_t>(), moved += (on >= 0).sum().item<int64_t>();
        }
    EXPECT_EQ(files, 2 * (7 + 6 + 5));
    EXPECT_GT(hidden, 36 * 10);
    EXPECT_GT(moved, 36 * 100);
}

// `image` [3, h, w] at pixels [..., 2].
at::Tensor sample(const at::Tensor& image, const at::Tensor& pixels) {
    const auto edge = at::tensor({static_cast<double>(image.size(2) - 1), static_cast<double>(image.size(1) - 1)}).to(pixels.scalar_type());
    const auto grid = (2 * pixels / edge - 1).to(image.scalar_type()).view({1, 1, -1, 2});
    return at::grid_sampler_2d(image.unsqueeze(0), grid, 0, 0, true).view({3, -1});
}

TEST_F(VideoFiles, PicturesWarpedByTheFlowAreThePictures) {
    fs::remove_all(scene);
    write_bouncing_balls_video(scene.string(), {.frames = 7, .width = 128, .height = 96, .held_out = 0, .grid = 2});
    const Video video = load_monocular(scene.string());
    const auto grid = at::meshgrid({at::arange(96, at::kFloat), at::arange(128, at::kFloat)}, "ij");
    const auto pixels = at::stack({grid[1], grid[0]}, -1);
    for (const int64_t i : {0, 3, 6})
        for (size_t k = 0; k < kFlowOffsets.size(); ++k) {
            const int64_t j = i + kFlowOffsets[k], index = static_cast<int64_t>(k);
            if (j < 0 || j >= 7) {
                EXPECT_EQ(video.flow_masks[i][index].max().item<float>(), 0);
                continue;
            }
            const auto there = pixels + video.flows[i][index];
            const auto difference = [&](const at::Tensor& where) {
                return (sample(video.images[j], where) - video.images[i].view({3, -1})).abs().amax(0).view({96, 128});
            };
            // Shadows move over what they fall on; at outlines a pixel mixes two surfaces.
            const auto shadow = [&](int64_t f) { return video.static_masks[f] - video.motion_masks[f]; };
            const auto shadow_there = sample(at::stack({shadow(j), shadow(j), shadow(j)}), there)[0].view({96, 128});
            const auto outline = [&](int64_t f) {
                const auto m = video.motion_masks[f].unsqueeze(0), d = video.disparity[f].unsqueeze(0);
                const auto range = [](const at::Tensor& x) { return at::max_pool2d(x, {5, 5}, {1, 1}, {2, 2}) + at::max_pool2d(-x, {5, 5}, {1, 1}, {2, 2}); };
                return ((range(m) > 0) | (range(d) > 0.03))[0];
            };
            const auto outline_there = sample(at::stack({outline(j), outline(j), outline(j)}).to(at::kFloat), there)[0].view({96, 128});
            const auto use = (video.flow_masks[i][index] > 0) & (shadow(i) == 0) & (shadow_there == 0) & ~outline(i) & (outline_there == 0);
            EXPECT_GT(use.to(at::kFloat).mean().item<float>(), 0.5);
            const auto balls_used = use & (video.motion_masks[i] > 0);
            EXPECT_GT(balls_used.sum().item<int64_t>(), 500);
            // Interpolation blurs the tiles' edges, and the gloss moves over a ball as the eye does.
            const auto error = difference(there).masked_select(use), of_balls = difference(there).masked_select(balls_used);
            const auto still = difference(pixels).masked_select(use), balls_still = difference(pixels).masked_select(balls_used);
            const std::string pair = std::to_string(i) + " to " + std::to_string(j);
            EXPECT_LT(error.mean().item<float>(), 0.01) << pair;
            EXPECT_LT(of_balls.mean().item<float>(), 0.01) << pair;
            EXPECT_LT(of_balls.max().item<float>(), 0.06) << pair;
            EXPECT_GT(still.mean().item<float>(), 3 * error.mean().item<float>()) << pair;
            EXPECT_GT(balls_still.mean().item<float>(), 10 * of_balls.mean().item<float>()) << pair;
        }
}

// Where what pixel (u, v) of frame i shows stands in the video's coordinates, seen by another of its cameras: [H, W, 2].
at::Tensor seen_by(const Video& video, int64_t i, const at::Tensor& lens, const at::Tensor& to_world) {
    const int64_t height = video.disparity.size(1), width = video.disparity.size(2);
    const auto grid = at::meshgrid({at::arange(height, at::kDouble), at::arange(width, at::kDouble)}, "ij");
    const auto z = 1 / video.disparity[i].to(at::kDouble);
    const auto homogeneous = at::stack({grid[1] * z, grid[0] * z, z, at::ones_like(z)}, -1).view({-1, 4});
    const auto world = at::matmul(video.camera_to_world[i].to(at::kDouble), at::linalg_inv(video.intrinsics[i].to(at::kDouble)));
    const auto camera = at::matmul(lens.to(at::kDouble), at::linalg_inv(to_world.to(at::kDouble)));
    const auto seen = at::matmul(homogeneous, at::matmul(camera, world).t());
    return (seen.slice(1, 0, 2) / seen.slice(1, 2, 3)).view({height, width, 2});
}

TEST_F(VideoFiles, LoadedCamerasDisparityAndFlowsAgree) {
    const Video video = load_monocular(scene.string());
    for (int64_t i = 0; i < 8; ++i)
        for (size_t k = 0; k < kFlowOffsets.size(); ++k) {
            const int64_t j = i + kFlowOffsets[k];
            if (j < 0 || j >= 8) continue;
            const auto grid = at::meshgrid({at::arange(30, at::kDouble), at::arange(48, at::kDouble)}, "ij");
            const auto rigid = seen_by(video, i, video.intrinsics[j], video.camera_to_world[j]) - at::stack({grid[1], grid[0]}, -1);
            const auto error = (rigid - video.flows[i][static_cast<int64_t>(k)]).norm(2, -1);
            EXPECT_LT(error.masked_select(video.motion_masks[i] == 0).max().item<double>(), 2e-4) << i << " to " << j;
            EXPECT_GT(error.masked_select(video.motion_masks[i] > 0).mean().item<double>(), 0.3) << i << " to " << j;
        }
    // DynIBaR's units and axes: 3/4 of the least depth is 1; the mean camera stands at the origin and looks along -z, y up.
    EXPECT_NEAR(video.disparity.max().item<double>(), 0.75, 1e-6);
    EXPECT_NEAR(video.near, 0.9 / 0.75, 1e-6);
    EXPECT_NEAR(video.far, 1.5 * (1 / video.disparity.min().item<double>() + 15), 1e-4);
    const auto poses = video.camera_to_world;
    EXPECT_LT(poses.slice(1, 0, 3).select(2, 3).mean(0).abs().max().item<double>(), 1e-5);
    const auto axes = poses.slice(1, 0, 3).slice(2, 0, 3);
    EXPECT_TRUE(at::allclose(at::matmul(axes, axes.transpose(1, 2)), at::eye(3).expand({8, 3, 3}), 0, 1e-5));
    EXPECT_TRUE(at::allclose(axes.mean(0), at::diag(at::tensor({1.0f, -1.0f, -1.0f})), 0, 0.02));
    EXPECT_TRUE(poses.select(1, 3).equal(at::tensor({0.0f, 0.0f, 0.0f, 1.0f}).expand({8, 4})));
}

TEST_F(VideoFiles, VirtualAndHeldOutViewsShowTheFramesMoment) {
    const Video video = load_monocular(scene.string());
    ASSERT_EQ(video.virtual_images.sizes(), at::IntArrayRef({8, 8, 3, 30, 48}));
    ASSERT_EQ(video.virtual_camera_to_world.sizes(), at::IntArrayRef({8, 8, 4, 4}));
    // Colours of the frame's pixels where the other camera sees them: the middle one of all errors, as some are hidden there.
    const auto error = [&](int64_t i, const at::Tensor& image, const at::Tensor& to_world, bool warped) {
        const auto there = seen_by(video, i, video.intrinsics[i], to_world).view({-1, 2});
        const auto edge = at::tensor({47.0, 29.0}, at::kDouble);
        auto use = ((there >= 0) & (there <= edge)).all(1);
        const auto colour = sample(image, there);
        if (warped) use &= sample((image.amax(0, true) > 0).to(at::kFloat).expand({3, 30, 48}), there)[0] == 1;
        EXPECT_GT(use.to(at::kDouble).mean().item<double>(), 0.5);
        return (colour - video.images[i].view({3, -1})).abs().amax(0).masked_select(use).median().item<float>();
    };
    for (int64_t i = 0; i < 8; ++i)
        for (int64_t k = 0; k < 8; ++k) {
            EXPECT_LT(error(i, video.virtual_images[i][k], video.virtual_camera_to_world[i][k], true), 0.02) << i << ", " << k;
            EXPECT_GT(error(i, video.virtual_images[i][k], video.camera_to_world[i], true), 0.03) << i << ", " << k;
        }
    const auto held_out = load_held_out(scene.string());
    ASSERT_TRUE(held_out);
    ASSERT_EQ(held_out->images.sizes(), at::IntArrayRef({2, 3, 30, 48}));
    EXPECT_TRUE(held_out->frames.equal(at::tensor({3, 4}, at::kLong)));
    EXPECT_TRUE(held_out->intrinsics.equal(video.intrinsics.slice(0, 0, 2)));
    for (int64_t k = 0; k < 2; ++k) {
        const auto frame = held_out->frames[k].item<int64_t>();
        EXPECT_LT(error(frame, held_out->images[k], held_out->camera_to_world[k], false), 0.02);
        EXPECT_GT(error(frame, held_out->images[k], video.camera_to_world[frame], false), 0.03);
    }
    fs::remove_all(scene / "held_out");
    EXPECT_FALSE(load_held_out(scene.string()));
}

TEST_F(VideoFiles, WhatIsReadIsWhatWasTraced) {
    const Video video = load_monocular(scene.string());
    const auto poses = read_npy((dense / "poses_bounds_cvd.npy").string());
    const double scale = 1 / (0.75 * poses.slice(1, 15, 17).min().item<double>());
    for (int64_t i = 0; i < 8; ++i) {
        const Pinhole camera = video_camera(options, i);
        const Image picture = video_picture(camera, video_time(i), 2);
        const auto bytes = at::tensor(at::ArrayRef<uint8_t>(picture.rgba)).view({30, 48, 4}).slice(2, 0, 3).permute({2, 0, 1});
        EXPECT_TRUE(video.images[i].equal(bytes.to(at::kFloat) / 255));
        EXPECT_TRUE(at::allclose(video.disparity[i].to(at::kDouble), video_disparity(camera, video_time(i)) / scale, 1e-6, 0));
        const MotionMasks masks = video_masks(camera, video_time(i), 2);
        EXPECT_TRUE(video.motion_masks[i].equal(masks.tight.to(at::kFloat)));
        EXPECT_TRUE(video.static_masks[i].equal(masks.generous.to(at::kFloat)));
        for (int64_t k = 0; k < 6; ++k) {
            const int64_t j = i + kFlowOffsets[static_cast<size_t>(k)];
            const bool exists = j >= 0 && j < 8;
            const Flow flow = exists ? video_flow(camera, video_time(i), video_camera(options, j), video_time(j))
                                     : Flow{at::zeros({30, 48, 2}), at::zeros({30, 48})};
            EXPECT_TRUE(video.flows[i][k].equal(flow.flow.to(at::kFloat)));
            EXPECT_TRUE(video.flow_masks[i][k].equal(flow.mask.to(at::kFloat)));
        }
    }
    for (const auto& t : {video.images, video.intrinsics, video.camera_to_world, video.disparity, video.flows, video.flow_masks, video.motion_masks,
                          video.static_masks, video.virtual_images, video.virtual_camera_to_world}) {
        EXPECT_EQ(t.scalar_type(), at::kFloat);
        EXPECT_TRUE(t.is_contiguous());
    }
}

TEST_F(VideoFiles, TheSameArgumentsGiveTheSameBytes) {
    EXPECT_FALSE(write_bouncing_balls_video(scene.string(), options));
    EXPECT_TRUE(write_bouncing_balls_video((root / "again").string(), options));
    int64_t files = 0;
    for (const auto& entry : fs::recursive_directory_iterator(scene)) {
        if (!entry.is_regular_file()) continue;
        ++files;
        EXPECT_EQ(bytes_of(entry.path()), bytes_of(root / "again" / fs::relative(entry.path(), scene))) << entry.path();
    }
    EXPECT_EQ(files, 8 * (2 + 1 + 2 + 8) + 36 + 2 + 2 + 2 + 1);
    options.frames = 9;
    EXPECT_EQ(failure([&] { write_bouncing_balls_video(scene.string(), options); }), "directory holds something else: DIR: remove it or choose another --out");
    for (const int64_t frames : {6, 62}) {
        options.frames = frames;
        EXPECT_EQ(failure([&] { write_bouncing_balls_video(scene.string(), options); }),
                  "video of " + std::to_string(frames) + " frames: DIR: choose from 7 to 61");
    }
    EXPECT_EQ(std::distance(fs::directory_iterator(root), {}), 2) << "a temporary directory is left";
}

TEST_F(VideoFiles, EachBadVideoHasItsMessage) {
    const auto poses = dense / "poses_bounds_cvd.npy";
    const auto good = read_npy(poses.string());
    EXPECT_EQ(failure([&] { load_monocular((scene / "no").string()); }),
              "video not found: DIR/no/dense: check --data; `heddle data bouncing-balls-video --out DIR` makes one");
    EXPECT_EQ(load_failure(31), "pictures not found: DIR/dense/images_Wx31: make them with DynIBaR's save_monocular_cameras.py");
    fs::create_directory(dense / "images_96x60");
    EXPECT_EQ(load_failure(), "pictures of several sizes: DIR/dense: choose a height");
    EXPECT_EQ(load_failure(60),
              "focal lengths are of other pictures than 96 x 60: DIR/dense/poses_bounds_cvd.npy: restore the file or choose another height");
    EXPECT_EQ(load_failure(30), "no error");
    fs::remove(dense / "images_96x60");

    write_npy(poses.string(), good.slice(1, 0, 16));
    EXPECT_EQ(load_failure(), "array of [8, 16]: DIR/dense/poses_bounds_cvd.npy: it must be [any, 17]");
    write_npy(poses.string(), good.slice(0, 0, 6));
    EXPECT_EQ(load_failure(), "video of 6 frames: DIR/dense/poses_bounds_cvd.npy: at least 7 are needed, for three on either side of one");
    write_npy(poses.string(), good.slice(0, 0, 7));
    EXPECT_EQ(load_failure(), "array of [8, 3, 4, 8]: DIR/dense/source_vv_poses.npy: it must be [any, 3, 4, 7]");
    auto bad = good.clone();
    bad[2][15] = 0;
    write_npy(poses.string(), bad);
    EXPECT_EQ(load_failure(), "depth bound of 0 or less: DIR/dense/poses_bounds_cvd.npy: depths are measured along the camera's axis");
    bad[2][15] = std::nan("");
    write_npy(poses.string(), bad);
    EXPECT_EQ(load_failure(), "array holds NaN or infinity: DIR/dense/poses_bounds_cvd.npy: restore the file");
    fs::remove(poses);
    EXPECT_EQ(load_failure(), "file not found: DIR/dense/poses_bounds_cvd.npy: restore the file");
    write_npy(poses.string(), good);

    write_npy((dense / "disp/00002.npy").string(), at::zeros({48, 30}));
    EXPECT_EQ(load_failure(), "array of [48, 30]: DIR/dense/disp/00002.npy: it must be [30, 48]");
    write_npz(flow_file(1, -1).string(), {{"flow", at::zeros({30, 48, 3})}, {"mask", at::zeros({30, 48})}});
    EXPECT_EQ(load_failure(), "array of [30, 48, 3]: DIR/dense/flow_i1/00001_bwd.npz flow: it must be [30, 48, 2]");
    write_npz(flow_file(1, 3).string(), {{"flow", at::zeros({30, 48, 2})}});
    EXPECT_EQ(load_failure(), "no array named mask: DIR/dense/flow_i3/00001_fwd.npz: save it with numpy.savez(path, flow=..., mask=...)");
    fs::remove(flow_file(1, 2));
    EXPECT_EQ(load_failure(), "file not found: DIR/dense/flow_i2/00001_fwd.npz: restore the file");
    fs::remove(dense / "static_masks/0.png");
    EXPECT_EQ(load_failure(), "image not found: DIR/dense/static_masks/0.png: restore the file");
    write_png((dense / "images_48x30/00000.png").string(), {2, 3, std::vector<uint8_t>(24)});
    EXPECT_EQ(load_failure(), "picture of 2 x 3: DIR/dense/images_48x30/00000.png: it must be 48 x 30");
    fs::remove(dense / "images_48x30/00007.png");
    EXPECT_EQ(load_failure(), "7 pictures for 8 poses: DIR/dense/images_48x30: there must be as many");

    write_npy((scene / "held_out/frames.npy").string(), at::tensor({3, 5}, at::kLong));
    EXPECT_EQ(failure([&] { load_held_out(scene.string()); }),
              "held-out view of a frame that lacks neighbours: DIR/held_out/frames.npy: take frames with three on either side");
}

}  // namespace
}  // namespace heddle::models
