// Written as the original writes them, so that results agree to rounding.
#include "models/dynibar/losses.h"

#include <ATen/ATen.h>

namespace heddle::models {
namespace {

constexpr double kCharbonnier = 1e-6;  // the square of its constant, 0.001

at::Tensor smooth_difference(const at::Tensor& x, const at::Tensor& y) {
    return at::sqrt((x - y).pow(2) + kCharbonnier);
}

}  // namespace

at::Tensor charbonnier(const at::Tensor& x, const at::Tensor& y, const at::Tensor& mask) {
    const auto channels = static_cast<double>(x.size(-1));
    return (smooth_difference(x, y) * mask.unsqueeze(-1)).sum() / (mask.sum() * channels + 1e-6);
}

at::Tensor cross_time_colour(const at::Tensor& x, const at::Tensor& y, const at::Tensor& mask, const at::Tensor& seen) {
    const auto weight = (mask * seen).unsqueeze(-1).repeat({1, 3});
    return (weight * smooth_difference(x, y)).sum() / (weight.sum() + 1e-8);
}

at::Tensor disparity_loss(const at::Tensor& depth, const at::Tensor& disparity, const at::Tensor& mask) {
    return ((1.0 / depth.clamp_min(1e-2) - disparity).abs() * mask).sum() / (mask.sum() + 1e-8);
}

at::Tensor flow_loss(const at::Tensor& flow, const at::Tensor& truth, const at::Tensor& mask) {
    const auto both = mask.repeat({1, 1, 2});
    return ((flow - truth).abs() * both).sum() / (both.sum() + 1e-8);
}

at::Tensor cycle_loss(const at::Tensor& a, const at::Tensor& b, const at::Tensor& seen) {
    const auto weight = seen.unsqueeze(0).unsqueeze(-1).repeat({a.size(0), 1, 1, a.size(3)});
    return ((a - b).abs() * weight).sum() / (weight.sum() + 1e-8);
}

at::Tensor scene_flow_loss(const at::Tensor& f) {
    const auto small = f.abs().mean();
    const auto in_time = 0.5 * (f.slice(0, 0, -1) - f.slice(0, 1)).pow(2).mean();
    const auto in_space = (f.slice(2, 1) - f.slice(2, 0, -1)).abs().mean();
    return small + in_time + in_space;
}

at::Tensor dynamic_share(const at::Tensor& weights_dynamic, const at::Tensor& weights_static) {
    const auto of_dynamic = weights_dynamic.sum(-1), of_static = weights_static.sum(-1);
    return of_dynamic / (of_dynamic + of_static).clamp_min(1e-9);
}

at::Tensor entropy_loss(const at::Tensor& share) {
    return -(share * at::log(share + 1e-9) + (1.0 - share) * at::log(1.0 - share + 1e-9)).mean();
}

at::Tensor distortion_loss(const at::Tensor& w, const at::Tensor& positions) {
    const auto m = (positions.slice(1, 1) + positions.slice(1, 0, -1)) * 0.5;
    const auto length = positions.slice(1, 1) - positions.slice(1, 0, -1);
    const auto wm = w * m;
    // Positions ascend, so that |m_i - m_j| needs no sorting: twice the pairs j < i.
    const auto pairs = wm.slice(1, 1) * w.cumsum(-1).slice(1, 0, -1) - w.slice(1, 1) * wm.cumsum(-1).slice(1, 0, -1);
    return 2.0 * pairs.sum(-1).mean() + 1.0 / 3.0 * (length * w.pow(2)).sum(-1).mean();
}

at::Tensor sparsity_loss(const at::Tensor& opacity_dynamic, const at::Tensor& share, const at::Tensor& mask) {
    const auto surely_static = (mask * (share < 0.1).to(mask.dtype())).detach();
    return (opacity_dynamic * surely_static).abs().sum() / (surely_static + 1e-8).sum();
}

}  // namespace heddle::models
