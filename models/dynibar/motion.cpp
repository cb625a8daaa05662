// The trajectory block gathers rows of the basis, so that another frame or offset is another index and not another program.
#include "models/dynibar/motion.h"

#include <ATen/ATen.h>

#include <cmath>

#include "models/dynibar/layers.h"

namespace heddle::models {
namespace {

constexpr int64_t kWidth = 256, kLayers = 8, kSkip = 4;  // the input joins again after layer kSkip
constexpr int64_t kFrequencies = 16;                     // evenly spread from 1 to 17, not octaves
constexpr double kStill = 0.1;                           // of the samples

}  // namespace

at::Tensor cosine_basis(int64_t frames, int64_t count) {
    const auto f = at::arange(frames, at::kDouble).unsqueeze(1), k = at::arange(1, count + 1, at::kDouble);
    const auto n = static_cast<double>(frames);
    return (std::sqrt(2 / n) * at::cos(M_PI / (2 * n) * (2 * f + 1) * k)).to(at::kFloat);
}

MotionMlp::MotionMlp(int64_t basis) : coeff_linear_(nullptr) {
    for (int64_t i = 0; i < kFrequencies; ++i)
        frequencies_.push_back(1 + static_cast<double>(i) * static_cast<double>(kFrequencies) / (kFrequencies - 1));
    const int64_t in = 4 * (1 + 2 * kFrequencies);
    for (int64_t i = 0; i < kLayers; ++i) {
        const int64_t width = i == 0 ? in : i == kSkip + 1 ? kWidth + in : kWidth;
        linears_.push_back(register_module("linear_" + std::to_string(i), torch::nn::Linear(width, kWidth)));
    }
    coeff_linear_ = register_module("coeff_linear", torch::nn::Linear(kWidth, 3 * basis));
    const torch::NoGradGuard no_grad;
    coeff_linear_->weight.zero_();
    coeff_linear_->bias.zero_();
}

at::Tensor MotionMlp::forward(const at::Tensor& xyzt) {
    const auto input = periodic_embedding(xyzt, frequencies_);
    auto h = input;
    for (size_t i = 0; i < linears_.size(); ++i) {
        h = at::relu(linears_[i]->forward(h));
        if (i == kSkip) h = at::cat({input, h}, -1);
    }
    return coeff_linear_->forward(h);
}

at::Tensor motion_coefficients(MotionMlp& mlp, const at::Tensor& points, const at::Tensor& time) {
    const int64_t rays = points.size(0), samples = points.size(1);
    const auto xyzt = at::cat({points, time.view({1, 1, 1}).repeat({rays, samples, 1})}, -1).to(points.dtype());
    auto coefficients = mlp.forward(xyzt);
    const auto still = static_cast<int64_t>(std::nearbyint(kStill * static_cast<double>(samples)));
    coefficients.slice(1, samples - still).mul_(0.0);
    return coefficients;
}

at::Tensor trajectories(const at::Tensor& coefficients, const at::Tensor& basis, const at::Tensor& frames) {
    const auto rows = basis.index_select(0, frames).unsqueeze(1).unsqueeze(1).unsqueeze(1);  // [n, 1, 1, 1, K]
    const auto axes = coefficients.unflatten(-1, {3, basis.size(1)}).unsqueeze(0);           // [1, R, S, 3, K]
    return (axes * rows).sum(-1);
}

}  // namespace heddle::models
