// Steps drawn from a video: what belongs together, what repeats, what is refused.
#include <gmock/gmock.h>

#include <map>
#include <set>

#include "tests/dynibar.h"

namespace heddle::models {
namespace {

TEST(VideoSteps, DrawsWhatBelongsTogether) {
    const auto c = dynibar_config("tiny");
    const auto video = noise_video(c, 1);
    const VideoSteps steps(video, c);
    std::set<int64_t> frames, anchors, views;
    for (int64_t it = 0; it < 40; ++it) {
        const auto in = steps.step(it, 7, at::kDouble);
        const auto frame = in.frame.item<int64_t>(), anchor = in.anchor.item<int64_t>(),
                   away = std::abs(anchor - frame);
        frames.insert(frame), anchors.insert(anchor - frame), views.insert(in.anchor_sources.images.size(0));
        ASSERT_GE(frame, 3);
        ASSERT_LT(frame, c.frames - 3);
        EXPECT_GE(away, 1);
        EXPECT_LE(away, anchor_range(c, it));
        EXPECT_DOUBLE_EQ(number(in.time), static_cast<double>(frame) / 12.0);
        EXPECT_EQ(in.time.scalar_type(), at::kDouble);
        // A ray goes through its pixel, and at depth z its point has that depth.
        const Views own = {video.images[frame].unsqueeze(0).to(at::kDouble),
                           video.intrinsics[frame].unsqueeze(0).to(at::kDouble),
                           video.camera_to_world[frame].unsqueeze(0).to(at::kDouble)};
        const auto points = (in.ray_o + 3 * in.ray_d).unsqueeze(0).unsqueeze(2);
        EXPECT_TRUE(near(project(points, own).pixels.squeeze(2).squeeze(0), in.pixel, 1e-4));
        for (int64_t i = 0; i < in.rgb.size(0); ++i) {
            const auto u = static_cast<int64_t>(number(in.pixel[i][0])),
                       v = static_cast<int64_t>(number(in.pixel[i][1]));
            EXPECT_TRUE(near(in.rgb[i], video.images[frame].select(2, u).select(1, v)));
            EXPECT_EQ(number(in.disparity[i]), number(video.disparity[frame][v][u]));
            EXPECT_TRUE(near(in.flows.select(1, i), video.flows[frame].select(1, v).select(1, u)));
            EXPECT_EQ(number(in.flow_masks[4][i][0]), number(video.flow_masks[frame][4][v][u]));
            EXPECT_EQ(number(in.static_mask[i]), number(video.static_masks[frame][v][u]));
        }
        for (int64_t k = 0; k < 6; ++k)
            EXPECT_TRUE(near(in.sources.images[k], video.images[frame + kFlowOffsets[static_cast<size_t>(k)]]));
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
    const auto a = steps.step(5, 7, at::kFloat).list(), b = steps.step(5, 7, at::kFloat).list(),
               other = steps.step(6, 7, at::kFloat).list();
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
                    const auto u = static_cast<int64_t>(number(in.pixel[i][0])) + x,
                               v = static_cast<int64_t>(number(in.pixel[i][1])) + y;
                    if (x * x + y * y <= 4 && u >= 0 && u < c.width && v >= 0 && v < c.height)
                        want = want && number(mask[v][u]) > 0;
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
    EXPECT_EQ(wrong([](Video& v) { v.flows = v.flows.slice(1, 0, 4); }),
              "video: flows: has sizes [12, 4, 24, 32, 2], expected [12, 6, 24, 32, 2]");
    EXPECT_EQ(wrong([](Video& v) { v.images = v.images.slice(0, 0, 6); }),
              "video: 6 frames: a step needs 3 frames on either side of its own");
    EXPECT_EQ(wrong([](Video& v) { v.far = v.near; }), "video: near and far: expected 0 < near < far");
    const auto video = noise_video(c, 1);
    const VideoSteps steps(video, c);
    EXPECT_EQ(message_of([&] { steps.view(2, video.intrinsics[0], video.camera_to_world[0], at::kFloat); }),
              "view: frame 2: choose one with 3 frames on either side");
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

}  // namespace
}  // namespace heddle::models
