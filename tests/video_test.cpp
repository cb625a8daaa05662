// Videos for DynIBaR: what is written is exact, by geometry that the tracer doesn't use.
#include <torch/types.h>

#include <cmath>

#include "models/data/npy.h"
#include "tests/video_files.h"

namespace heddle::models {
namespace {

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
        const auto local =
            at::matmul(points, to_camera.slice(0, 0, 3).slice(1, 0, 3).t()) + to_camera.slice(0, 0, 3).select(1, 3);
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
        out.masked_fill_(((points - vector(spheres[i].centre)).norm(2, 1) - spheres[i].radius).abs() < 1e-5,
                         static_cast<int64_t>(i));
    return out;
}

// Is each point in sight? A ball hides it when the line of sight comes nearer to the ball's middle than its radius; the
// ball it lies on hides it when the surface there faces away. The floor and the wall hide nothing. `sure`: rounding to
// float32 can't change the answer.
struct InSight {
    at::Tensor yes, sure;
};
InSight in_sight(const at::Tensor& eye, const at::Tensor& points, const at::Tensor& on,
                 const std::vector<Sphere>& spheres) {
    const auto line = points - eye;
    InSight out{at::ones({points.size(0)}, at::kBool), at::ones({points.size(0)}, at::kBool)};
    for (size_t i = 0; i < spheres.size(); ++i) {
        const auto own = on == static_cast<int64_t>(i);
        const auto facing =
            -(line * (points - vector(spheres[i].centre))).sum(1) / line.norm(2, 1) / spheres[i].radius;  // cosine
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
        EXPECT_TRUE((points.select(1, 2) > -0.75001).all().item<bool>() &&
                    (points.select(1, 0) > -2.50001).all().item<bool>());
        const auto sight = in_sight(camera.position(), points, on, spheres);
        EXPECT_GT(sight.sure.to(at::kDouble).mean().item<double>(), 0.99);
        EXPECT_TRUE((sight.yes | ~sight.sure).all().item<bool>()) << "frame " << i << ": a point behind a ball";
        EXPECT_NEAR(poses[i][15].item<double>(), 1 / disparity.max().item<double>(), 1e-6);
        EXPECT_NEAR(poses[i][16].item<double>(), 1 / disparity.min().item<double>(), 1e-6);

        EXPECT_TRUE((video.motion_masks[i].flatten() > 0).equal(on >= 0)) << "frame " << i;
        // The generous mask has all of the tight one, the shadows, and pixels that a ball or a shadow fills in part.
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
                points +=
                    (on == static_cast<int64_t>(b)).unsqueeze(1) * (vector(after[b].centre) - vector(before[b].centre));
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
                const auto range = [](const at::Tensor& x) {
                    return at::max_pool2d(x, {5, 5}, {1, 1}, {2, 2}) + at::max_pool2d(-x, {5, 5}, {1, 1}, {2, 2});
                };
                return ((range(m) > 0) | (range(d) > 0.03))[0];
            };
            const auto outline_there =
                sample(at::stack({outline(j), outline(j), outline(j)}).to(at::kFloat), there)[0].view({96, 128});
            const auto use = (video.flow_masks[i][index] > 0) & (shadow(i) == 0) & (shadow_there == 0) & ~outline(i) &
                             (outline_there == 0);
            EXPECT_GT(use.to(at::kFloat).mean().item<float>(), 0.5);
            const auto balls_used = use & (video.motion_masks[i] > 0);
            EXPECT_GT(balls_used.sum().item<int64_t>(), 500);
            // Interpolation blurs the tiles' edges, and the gloss moves over a ball as the eye does.
            const auto error = difference(there).masked_select(use),
                       of_balls = difference(there).masked_select(balls_used);
            const auto still = difference(pixels).masked_select(use),
                       balls_still = difference(pixels).masked_select(balls_used);
            const std::string pair = std::to_string(i) + " to " + std::to_string(j);
            EXPECT_LT(error.mean().item<float>(), 0.01) << pair;
            EXPECT_LT(of_balls.mean().item<float>(), 0.01) << pair;
            EXPECT_LT(of_balls.max().item<float>(), 0.06) << pair;
            EXPECT_GT(still.mean().item<float>(), 3 * error.mean().item<float>()) << pair;
            EXPECT_GT(balls_still.mean().item<float>(), 10 * of_balls.mean().item<float>()) << pair;
        }
}

TEST_F(VideoFiles, VirtualViewsAreBlackWhereTheFrameSeesNothing) {
    fs::remove_all(scene);
    options.grid = 1;  // one ray a pixel: it's seen or it isn't
    write_bouncing_balls_video(scene.string(), options);
    const Video video = load_monocular(scene.string());
    const auto poses = read_npy((dense / "poses_bounds_cvd.npy").string()),
               views = read_npy((dense / "source_vv_poses.npy").string());
    int64_t black = 0;
    for (int64_t i = 0; i < 8; i += 3)
        for (int64_t k = 0; k < 8; ++k) {
            const Matrices frame(poses[i]);
            Matrices camera(poses[i]);
            camera.to_world.slice(0, 0, 3).select(1, 3).copy_(views[k].select(2, i).select(1, 3));
            const auto spheres = balls(video_time(i));
            const Pinhole view = virtual_cameras(video_camera(options, i),
                                                 poses.slice(1, 15, 17).min().item<double>())[static_cast<size_t>(k)];
            const auto points = camera.points(video_disparity(view, video_time(i))), there = frame.project(points);
            const auto edge = at::tensor({47.0, 29.0}, at::kDouble);
            const auto sight = in_sight(frame.position(), points, ball_at(points, spheres), spheres);
            const auto seen = sight.yes & ((there >= 0) & (there <= edge)).all(1);
            const auto sure = sight.sure & (at::minimum(there.abs(), (there - edge).abs()) > 1e-4).all(1);
            const auto shown = (video.virtual_images[i][k].amax(0) > 0).flatten();
            EXPECT_GT(sure.to(at::kDouble).mean().item<double>(),
                      0.9);  // seen from straight aside or above, a row or column lies on the edge
            EXPECT_TRUE(((shown == seen) | ~sure).all().item<bool>()) << i << ", " << k;
            black += (~seen).sum().item<int64_t>();
        }
    EXPECT_GT(black, 24 * 50);
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
    EXPECT_EQ(failure([&] { write_bouncing_balls_video(scene.string(), options); }),
              "directory holds something else: DIR: remove it or choose another --out");
    for (const int64_t frames : {6, 62}) {
        options.frames = frames;
        EXPECT_EQ(failure([&] { write_bouncing_balls_video(scene.string(), options); }),
                  "video of " + std::to_string(frames) + " frames: DIR: choose from 7 to 61");
    }
    EXPECT_EQ(std::distance(fs::directory_iterator(root), {}), 2) << "a temporary directory is left";
}

}  // namespace
}  // namespace heddle::models
