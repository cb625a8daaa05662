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

at::Tensor truth(const BlenderSplit& split) { return split.rgb.view({split.views, split.height, split.width, 3}); }

}  // namespace

double psnr(double mean_squared_error) { return -10 * std::log10(std::max(mean_squared_error, 1e-12)); }

at::Tensor render_views(const Task& task, const BlenderSplit& split, const at::Tensor& like) {
    const at::NoGradGuard no_grad;
    std::vector<at::Tensor> parts;
    for (int64_t i = 0; i < split.rays.size(0); i += kChunk) {
        const auto rays = split.rays.slice(0, i, i + kChunk).to(like.options());
        const auto time = split.time.slice(0, i, i + kChunk).to(like.options());
        parts.push_back(task.render(rays, time).to(at::kCPU, at::kFloat));
    }
    return at::cat(parts).view({split.views, split.height, split.width, 3});
}

std::vector<double> view_psnr(const at::Tensor& rendered, const BlenderSplit& split) {
    const auto errors = (rendered - truth(split)).to(at::kDouble).pow(2).mean({1, 2, 3});
    std::vector<double> out;
    for (int64_t i = 0; i < split.views; ++i) out.push_back(psnr(errors[i].item<double>()));
    return out;
}

void write_views(const std::string& directory, const at::Tensor& rendered, const BlenderSplit& split) {
    make_directories(directory);
    const auto opaque = at::full({split.views, split.height, 2 * split.width, 1}, 255, at::kByte);
    const auto colour = at::cat({rendered, truth(split)}, 2).clamp(0, 1).mul(255).round().to(at::kByte);
    const auto bytes = at::cat({colour, opaque}, 3).contiguous();
    for (int64_t i = 0; i < split.views; ++i) {
        Image image{2 * split.width, split.height, std::vector<uint8_t>(static_cast<size_t>(bytes[i].numel()))};
        std::memcpy(image.rgba.data(), bytes[i].const_data_ptr<uint8_t>(), image.rgba.size());
        std::string number = std::to_string(i);
        number.insert(0, number.size() < 3 ? 3 - number.size() : 0, '0');
        write_png(directory + "/view_" + number + ".png", image);
    }
}

}  // namespace heddle::models
