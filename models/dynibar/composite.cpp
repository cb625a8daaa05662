// Front to back: a sample's weight is its opacity times the light that passes those before it.
#include "models/dynibar/composite.h"

#include <ATen/ATen.h>

namespace heddle::models {
namespace {

constexpr double kEndless = 1e10;

at::Tensor opacity(const at::Tensor& raw) {
    const auto sigma = raw.select(2, 3);
    const auto length = at::cat({at::ones_like(sigma.slice(1, 1)), at::full_like(sigma.slice(1, 0, 1), kEndless)}, -1);
    return 1.0 - at::exp(-at::softplus(sigma) * length);
}

at::Tensor transmittance(const at::Tensor& alpha) {
    const auto passed = at::cumprod(1.0 - alpha + 1e-10, -1).slice(1, 0, -1);
    return at::cat({at::ones_like(passed.slice(1, 0, 1)), passed}, -1);
}

at::Tensor colour(const at::Tensor& weights, const at::Tensor& raw) {
    return (weights.unsqueeze(2) * raw.slice(2, 0, 3)).sum(1);
}

}  // namespace

at::Tensor enough(const at::Tensor& valid) { return valid.to(at::kFloat).sum(1) > 8; }

Rendering render(const at::Tensor& raw, const at::Tensor& depth, const at::Tensor& valid) {
    const auto alpha = opacity(raw);
    const auto weights = alpha * transmittance(alpha);
    return {colour(weights, raw), (weights * depth).sum(-1), weights, enough(valid)};
}

Composite composite(const at::Tensor& raw_dynamic, const at::Tensor& raw_static, const at::Tensor& depth,
                    const at::Tensor& valid_dynamic, const at::Tensor& valid_static) {
    const auto alpha_dynamic = opacity(raw_dynamic), alpha_static = opacity(raw_static);
    const auto alpha = 1 - (1 - alpha_static) * (1 - alpha_dynamic);
    const auto passed = transmittance(alpha);
    Composite out;
    out.weights_dynamic = alpha_dynamic * passed;
    out.weights_static = alpha_static * passed;
    out.rgb_dynamic = colour(out.weights_dynamic, raw_dynamic);
    out.rgb_static = colour(out.weights_static, raw_static);
    out.rgb = out.rgb_dynamic + out.rgb_static;
    out.weights = alpha * passed;
    out.depth = (out.weights * depth).sum(-1);
    out.mask = at::bitwise_or(enough(valid_dynamic), enough(valid_static));
    return out;
}

}  // namespace heddle::models
