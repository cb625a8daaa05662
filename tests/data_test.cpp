// Scenes and pictures: what is written is what is read, and each kind of bad input has one message.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/torch.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "models/data/blender.h"
#include "models/data/png.h"
#include "models/data/scene.h"
#include "tests/data_files.h"

namespace heddle::models {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

// A small scene, fresh for each test, since the tests break it.
struct Data : testing::Test {
    fs::path root = fs::temp_directory_path() / ("heddle_data_test_" + std::to_string(::getpid()));
    fs::path scene = root / "scene";
    const SceneOptions options{3, 1, 1, 24, 2};
    void SetUp() override { write_bouncing_balls(scene.string(), options); }
    void TearDown() override { fs::remove_all(root); }

    std::string failure(const std::function<void()>& f) const { return error_text(scene, f); }
    std::string load_failure(const BlenderOptions& o = {}) {
        return failure([&] { load_blender(scene.string(), "train", o); });
    }
    void edit(const std::function<void(json&)>& change) {
        json meta = json::parse(std::ifstream(scene / "transforms_train.json"));
        change(meta);
        std::ofstream(scene / "transforms_train.json") << meta;
    }
};

TEST_F(Data, PngRoundTrips) {
    Image image{3, 2, {}};
    for (int i = 0; i < 24; ++i) image.rgba.push_back(static_cast<uint8_t>(i * 10));
    write_png((root / "a.png").string(), image);
    const auto back = read_png((root / "a.png").string());
    EXPECT_EQ(back.width, 3);
    EXPECT_EQ(back.height, 2);
    EXPECT_EQ(back.rgba, image.rgba);
}

TEST_F(Data, SceneIsDeterministicAndInsideTheBox) {
    const auto a = picture(orbit(1, 0.4), 0.3, 16, 2), b = picture(orbit(1, 0.4), 0.3, 16, 2);
    EXPECT_EQ(a.rgba, b.rgba);
    for (int i = 0; i <= 100; ++i)
        for (const auto& s : balls(i / 100.0))
            for (double c : s.centre) EXPECT_LE(std::abs(c) + s.radius, 1.5) << "at " << i / 100.0;
}

TEST_F(Data, RaysReadBackHitTheBallsTheyShow) {
    const auto split = load_blender(scene.string(), "train");
    ASSERT_EQ(split.views, 3);
    ASSERT_EQ(split.rays.sizes(), at::IntArrayRef({3 * 24 * 24, 6}));
    EXPECT_EQ(split.rgb.sizes(), at::IntArrayRef({3 * 24 * 24, 3}));
    EXPECT_EQ(split.time.sizes(), at::IntArrayRef({3 * 24 * 24, 1}));
    EXPECT_EQ(split.time.min().item<double>(), -1);
    EXPECT_EQ(split.time.max().item<double>(), 1);

    // The pixel nearest to each ball's middle points at that ball.
    const auto rays = split.rays.to(at::kDouble);
    for (int64_t view = 0; view < 3; ++view) {
        const double time = (split.time[view * 24 * 24].item<double>() + 1) / 2;
        const auto these = rays.slice(0, view * 576, (view + 1) * 576);
        const auto origin = these.slice(1, 0, 3), direction = these.slice(1, 3, 6);
        EXPECT_NEAR(origin.norm(2, -1).max().item<double>(), 4, 1e-5);
        for (const auto& s : balls(time)) {
            const auto to = at::tensor({s.centre[0], s.centre[1], s.centre[2]}, at::kDouble) - origin;
            const auto along = (to * direction).sum(-1, true);
            const auto miss = (to - along * direction).norm(2, -1).min().item<double>();
            EXPECT_LT(miss, s.radius) << "view " << view;
        }
    }

    // Every pixel is what the tracer sees there, on white, to the rounding of colour and alpha to bytes.
    const auto meta = json::parse(std::ifstream(scene / "transforms_train.json"));
    const auto rgb = split.rgb.accessor<float, 2>();
    for (int64_t pixel = 0; pixel < 3 * 576; pixel += 7) {
        const auto& frame = meta["frames"][static_cast<size_t>(pixel / 576)];
        Camera camera;
        camera.to_world = frame["transform_matrix"].get<decltype(camera.to_world)>();
        const Vec3 origin{camera.to_world[0][3], camera.to_world[1][3], camera.to_world[2][3]};
        const double row = static_cast<double>(pixel % 576 / 24), column = static_cast<double>(pixel % 24);
        Vec3 sum{};
        for (double dy : {0.25, 0.75})
            for (double dx : {0.25, 0.75}) {
                const auto sight =
                    look(origin, ray_direction(camera, 24, column + dx, row + dy), frame["time"].get<double>());
                for (size_t i = 0; i < 3; ++i) sum[i] += (sight.hit ? sight.rgb[i] : 1.0) / 4;
            }
        for (size_t i = 0; i < 3; ++i)
            EXPECT_NEAR(rgb[pixel][static_cast<int64_t>(i)], sum[i], 1.2 / 255) << "pixel " << pixel;
    }
}

TEST_F(Data, DownsamplingAveragesAndDroppingKeepsTheHits) {
    const auto fine = load_blender(scene.string(), "test"), coarse = load_blender(scene.string(), "test", {2, 0, 0});
    EXPECT_EQ(coarse.width, 12);
    const auto expected = fine.rgb.view({12, 2, 12, 2, 3}).mean({1, 3}).view({-1, 3});
    EXPECT_TRUE(at::allclose(coarse.rgb, expected, 0, 1e-6));
    const auto kept = load_blender(scene.string(), "test", {0, 0, 1.5});
    EXPECT_TRUE(kept.rays.equal(fine.rays.index({meets_box(fine.rays, 1.5)})));
    EXPECT_EQ(kept.rgb.size(0), kept.rays.size(0));
    EXPECT_LT(load_blender(scene.string(), "test", {0, 0, 0.5}).rays.size(0), fine.rays.size(0));
    EXPECT_EQ(load_blender(scene.string(), "train", {0, 2, 0}).views, 2);
}

TEST_F(Data, WritingTwiceIsFreeAndWritingOverSomethingIsRefused) {
    EXPECT_FALSE(write_bouncing_balls(scene.string(), options));
    EXPECT_EQ(failure([&] {
                  write_bouncing_balls(scene.string(), {4, 1, 1, 24, 2});
              }),
              "directory holds something else: DIR: remove it or choose another --out");
    EXPECT_EQ(std::distance(fs::directory_iterator(root), {}), 1) << "a temporary directory is left";
}

TEST_F(Data, EachBadInputHasItsMessage) {
    const std::string hint = "check --data; `heddle data bouncing-balls --out DIR` makes a scene",
                      meta = "DIR/transforms_train.json";
    EXPECT_EQ(failure([&] { load_blender((scene / "no").string(), "train"); }), "data set not found: DIR/no: " + hint);
    EXPECT_EQ(failure([&] { load_blender(scene.string(), "extra"); }),
              "file not found: DIR/transforms_extra.json: " + hint);
    EXPECT_EQ(load_failure({5, 0, 0}),
              "picture of 24 x 24 can't be reduced 5 times: DIR/train/r_000.png: choose a --downsample that divides "
              "both edges");

    edit([](json& m) { m["frames"][1]["transform_matrix"][2] = {1, 2, "x", 4}; });
    EXPECT_EQ(load_failure(), "transform_matrix isn't 4 x 4 numbers: " + meta + " frame 1: restore the file");
    edit([](json& m) { m["frames"][1].erase("transform_matrix"); });
    EXPECT_EQ(load_failure(), "frame without transform_matrix: " + meta + " frame 1: add the camera's pose");
    edit([](json& m) { m["frames"][0].erase("time"); });
    EXPECT_EQ(load_failure(), "frame without time: " + meta + " frame 0: add its time in [0, 1]");
    edit([](json& m) { m["frames"][0].erase("file_path"); });
    EXPECT_EQ(load_failure(), "frame without file_path: " + meta + " frame 0: add the picture's path");
    edit([](json& m) { m["frames"] = json::array(); });
    EXPECT_EQ(load_failure(), "no frames: " + meta + ": add at least one frame");
    edit([](json& m) { m.erase("camera_angle_x"); });
    EXPECT_EQ(load_failure(), "camera_angle_x is missing: " + meta + ": add the horizontal field of view in radians");
    std::ofstream(scene / "transforms_train.json") << "{\"frames\": [";
    EXPECT_EQ(load_failure(), "broken JSON: " + meta + " at byte 13: restore the file");
}

TEST_F(Data, EachBadPictureHasItsMessage) {
    const fs::path path = scene / "train/r_001.png";
    write_png(path.string(), {2, 3, std::vector<uint8_t>(24)});
    EXPECT_EQ(load_failure(), "picture of 2 x 3: DIR/train/r_001.png: all pictures of a split must be 24 x 24");
    fs::copy_file(scene / "train/r_000.png", path, fs::copy_options::overwrite_existing);
    fs::resize_file(path, fs::file_size(path) / 2);
    EXPECT_THAT(load_failure(), testing::StartsWith("damaged PNG file: DIR/train/r_001.png: replace it ("));
    std::ofstream(path) << "GIF89a, not what it says";
    EXPECT_EQ(load_failure(), "not a PNG file: DIR/train/r_001.png: convert it to PNG");
    fs::remove(path);
    EXPECT_EQ(load_failure(), "image not found: DIR/train/r_001.png: restore the file or its name in the transforms");
}

}  // namespace
}  // namespace heddle::models
