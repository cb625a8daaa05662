// Rendering goes in chunks of rays because a view's samples would not fit; the chunk only bounds memory.
#include "models/views.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "models/data/png.h"
#include "models/files.h"

namespace heddle::models {
namespace {

constexpr int64_t kChunk = 4096;  // rays

at::Tensor rendered(const RayTask& task, const BlenderSplit& split, const at::TensorOptions& options) {
    const at::NoGradGuard no_grad;
    std::vector<at::Tensor> parts;
    for (int64_t i = 0; i < split.rays.size(0); i += kChunk) {
        const auto rays = split.rays.slice(0, i, i + kChunk).to(options);
        const auto time = split.time.slice(0, i, i + kChunk).to(options);
        parts.push_back(task.render(rays, time).to(at::kCPU, at::kFloat));
    }
    return at::cat(parts).view({split.views, split.height, split.width, 3});
}

}  // namespace

double psnr(double mean_squared_error) { return -10 * std::log10(std::max(mean_squared_error, 1e-12)); }

HeldOut held_out_views(const RayTask& task, const BlenderSplit& split, const at::TensorOptions& options) {
    if (split.views == 0) return {};
    return {split.rgb.view({split.views, split.height, split.width, 3}),
            [&task, &split, options] { return rendered(task, split, options); }};
}

std::vector<double> view_psnr(const at::Tensor& rendered, const at::Tensor& truth) {
    const auto errors = (rendered - truth).to(at::kDouble).pow(2).mean({1, 2, 3});
    std::vector<double> out;
    for (int64_t i = 0; i < errors.numel(); ++i) out.push_back(psnr(errors[i].item<double>()));
    return out;
}

void write_views(const std::string& directory, const at::Tensor& rendered, const at::Tensor& truth) {
    make_directories(directory);
    const int64_t views = truth.size(0), height = truth.size(1), width = truth.size(2);
    const auto opaque = at::full({views, height, 2 * width, 1}, 255, at::kByte);
    const auto colour = at::cat({rendered, truth}, 2).clamp(0, 1).mul(255).round().to(at::kByte);
    const auto bytes = at::cat({colour, opaque}, 3).contiguous();
    for (int64_t i = 0; i < views; ++i) {
        Image image{2 * width, height, std::vector<uint8_t>(static_cast<size_t>(bytes[i].numel()))};
        std::memcpy(image.rgba.data(), bytes[i].const_data_ptr<uint8_t>(), image.rgba.size());
        std::string number = std::to_string(i);
        number.insert(0, number.size() < 3 ? 3 - number.size() : 0, '0');
        write_png(directory + "/view_" + number + ".png", image);
    }
}

}  // namespace heddle::models
