// DynIBaR's layout read: cameras, disparity and flows agree in the units that it trains in; each kind of bad input has
// one message.
#include <torch/types.h>

#include <cmath>

#include "models/data/npy.h"
#include "tests/video_files.h"

namespace heddle::models {
namespace {

// Where what pixel (u, v) of frame i shows stands in the video's coordinates, seen by another of its cameras: [H, W, 2].
at::Tensor seen_by(const Video& video, int64_t i, const at::Tensor& lens, const at::Tensor& to_world) {
    const int64_t height = video.disparity.size(1), width = video.disparity.size(2);
    const auto grid = at::meshgrid({at::arange(height, at::kDouble), at::arange(width, at::kDouble)}, "ij");
    const auto z = 1 / video.disparity[i].to(at::kDouble);
    const auto homogeneous = at::stack({grid[1] * z, grid[0] * z, z, at::ones_like(z)}, -1).view({-1, 4});
    const auto world =
        at::matmul(video.camera_to_world[i].to(at::kDouble), at::linalg_inv(video.intrinsics[i].to(at::kDouble)));
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
            const auto rigid =
                seen_by(video, i, video.intrinsics[j], video.camera_to_world[j]) - at::stack({grid[1], grid[0]}, -1);
            const auto error = (rigid - video.flows[i][static_cast<int64_t>(k)]).norm(2, -1);
            EXPECT_LT(error.masked_select(video.motion_masks[i] == 0).max().item<double>(), 2e-4) << i << " to " << j;
            EXPECT_GT(error.masked_select(video.motion_masks[i] > 0).mean().item<double>(), 0.3) << i << " to " << j;
        }
    // 3/4 of the least depth is 1; the mean camera stands at the origin and looks along -z, y up.
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
    // Colours of the frame's pixels where the other camera sees them: the median error, as some are hidden there.
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
            EXPECT_LT(error(i, video.virtual_images[i][k], video.virtual_camera_to_world[i][k], true), 0.02)
                << i << ", " << k;
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
        const auto bytes =
            at::tensor(at::ArrayRef<uint8_t>(picture.rgba)).view({30, 48, 4}).slice(2, 0, 3).permute({2, 0, 1});
        EXPECT_TRUE(video.images[i].equal(bytes.to(at::kFloat) / 255));
        EXPECT_TRUE(
            at::allclose(video.disparity[i].to(at::kDouble), video_disparity(camera, video_time(i)) / scale, 1e-6, 0));
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
    for (const auto& t :
         {video.images, video.intrinsics, video.camera_to_world, video.disparity, video.flows, video.flow_masks,
          video.motion_masks, video.static_masks, video.virtual_images, video.virtual_camera_to_world}) {
        EXPECT_EQ(t.scalar_type(), at::kFloat);
        EXPECT_TRUE(t.is_contiguous());
    }
}

TEST_F(VideoFiles, EachBadVideoHasItsMessage) {
    const auto poses = dense / "poses_bounds_cvd.npy";
    const auto good = read_npy(poses.string());
    EXPECT_EQ(failure([&] { load_monocular((scene / "no").string()); }),
              "video not found: DIR/no/dense: check --data; `heddle data bouncing-balls-video --out DIR` makes one");
    EXPECT_EQ(load_failure(31),
              "pictures not found: DIR/dense/images_Wx31: make them with DynIBaR's save_monocular_cameras.py");
    fs::create_directory(dense / "images_96x60");
    EXPECT_EQ(load_failure(), "pictures of several sizes: DIR/dense: choose a height");
    EXPECT_EQ(load_failure(60),
              "focal lengths are of other pictures than 96 x 60: DIR/dense/poses_bounds_cvd.npy: restore the file or "
              "choose another height");
    EXPECT_EQ(load_failure(30), "no error");
    fs::remove(dense / "images_96x60");

    write_npy(poses.string(), good.slice(1, 0, 16));
    EXPECT_EQ(load_failure(), "array of [8, 16]: DIR/dense/poses_bounds_cvd.npy: it must be [any, 17]");
    write_npy(poses.string(), good.slice(0, 0, 6));
    EXPECT_EQ(
        load_failure(),
        "video of 6 frames: DIR/dense/poses_bounds_cvd.npy: at least 7 are needed, for three on either side of one");
    write_npy(poses.string(), good.slice(0, 0, 7));
    EXPECT_EQ(load_failure(), "array of [8, 3, 4, 8]: DIR/dense/source_vv_poses.npy: it must be [any, 3, 4, 7]");
    auto bad = good.clone();
    bad[2][15] = 0;
    write_npy(poses.string(), bad);
    EXPECT_EQ(load_failure(),
              "depth bound of 0 or less: DIR/dense/poses_bounds_cvd.npy: depths are measured along the camera's axis");
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
    EXPECT_EQ(
        load_failure(),
        "no array named mask: DIR/dense/flow_i3/00001_fwd.npz: save it with numpy.savez(path, flow=..., mask=...)");
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
              "held-out view of a frame that lacks neighbours: DIR/held_out/frames.npy: take frames with three on "
              "either side");
}

}  // namespace
}  // namespace heddle::models
