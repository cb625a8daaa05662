// A small video on disk, fresh for each test, since the tests break it.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include "models/data/monocular.h"
#include "models/data/video_scene.h"
#include "tests/data_files.h"

namespace heddle::models {

namespace fs = std::filesystem;

struct VideoFiles : testing::Test {
    fs::path root = fs::temp_directory_path() / ("heddle_video_test_" + std::to_string(::getpid()));
    fs::path scene = root / "video", dense = scene / "dense";
    VideoOptions options{.frames = 8, .width = 48, .height = 30, .held_out = 2, .grid = 2};
    void SetUp() override { write_bouncing_balls_video(scene.string(), options); }
    void TearDown() override { fs::remove_all(root); }

    fs::path flow_file(int64_t frame, int64_t offset) const {
        return dense / ("flow_i" + std::to_string(std::abs(offset))) /
               ("0000" + std::to_string(frame) + (offset > 0 ? "_fwd.npz" : "_bwd.npz"));
    }
    std::string failure(const std::function<void()>& f) const { return error_text(scene, f); }
    std::string load_failure(int64_t height = 0) const {
        return failure([&] { load_monocular(scene.string(), height); });
    }
};

// `image` [3, h, w] at pixels [..., 2].
inline at::Tensor sample(const at::Tensor& image, const at::Tensor& pixels) {
    const auto edge = at::tensor({static_cast<double>(image.size(2) - 1), static_cast<double>(image.size(1) - 1)})
                          .to(pixels.scalar_type());
    const auto grid = (2 * pixels / edge - 1).to(image.scalar_type()).view({1, 1, -1, 2});
    return at::grid_sampler_2d(image.unsqueeze(0), grid, 0, 0, true).view({3, -1});
}

}  // namespace heddle::models
