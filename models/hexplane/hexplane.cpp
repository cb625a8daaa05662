// HexPlane's formulas. Every tensor is made like an input (dtype, device), so that one text serves float32 and float64.
#include "models/hexplane/hexplane.h"

#include <ATen/ATen.h>
#include <torch/nn/init.h>

#include <cmath>

namespace heddle::models {
namespace {

using at::indexing::TensorIndex;

// The i-th spatial plane spans axes (0,1), (0,2), (1,2); its space-time partner spans the remaining axis and time.
at::Tensor plane_coordinates(const at::Tensor& xyz, int i) {
    switch (i) {
        case 0: return xyz.slice(1, 0, 2);
        case 1: return xyz.slice(1, 0, 3, 2);
        default: return xyz.slice(1, 1, 3);
    }
}

at::Tensor line_coordinates(const at::Tensor& xyz, const at::Tensor& t, int i) {
    return at::cat({t, xyz.slice(1, 2 - i, 3 - i)}, 1);
}

// Bilinear lookup of plane [1, C, H, W] at coordinates [M, 2] = (along W, along H) -> [C, M].
at::Tensor look_up(const at::Tensor& plane, const at::Tensor& coordinates) {
    const auto grid = coordinates.unsqueeze(0).unsqueeze(2);  // [1, M, 1, 2]
    return at::grid_sampler(plane, grid, /*bilinear*/ 0, /*zeros*/ 0, /*align_corners=*/true).squeeze(3).squeeze(0);
}

at::Tensor grown(const at::Tensor& plane, int64_t height, int64_t width) {
    return at::upsample_bilinear2d(plane.detach(), {height, width}, /*align_corners=*/true);
}

}  // namespace

Opacity raw2alpha(const at::Tensor& sigma, const at::Tensor& dist) {
    const auto alpha = 1.0 - at::exp(-sigma * dist);
    const auto passed = at::cumprod(at::cat({at::ones_like(alpha.slice(1, 0, 1)), 1.0 - alpha + 1e-10}, -1), -1);
    return {alpha, alpha * passed.slice(1, 0, -1), passed.slice(1, -1)};
}

at::Tensor total_variation(const at::Tensor& x, double weight_h, double weight_w) {
    const auto batch = x.size(0), channels = x.size(1), height = x.size(2), width = x.size(3);
    const auto h = (x.slice(2, 1) - x.slice(2, 0, height - 1)).pow(2).sum() * weight_h;
    const auto w = (x.slice(3, 1) - x.slice(3, 0, width - 1)).pow(2).sum() * weight_w;
    const auto count_h = static_cast<double>(channels * (height - 1) * width);
    const auto count_w = static_cast<double>(channels * height * (width - 1));
    return 2 * (h / count_h + w / count_w) / static_cast<double>(batch);
}

at::Tensor positional_encoding(const at::Tensor& x, int64_t frequencies) {
    std::vector<at::Tensor> bands;
    for (int64_t k = 0; k < frequencies; ++k) bands.push_back(x * std::ldexp(1.0, static_cast<int>(k)));
    const auto phase = at::stack(bands, -1).flatten(-2);
    return at::cat({at::sin(phase), at::cos(phase)}, -1);
}

HexPlane::HexPlane(HexPlaneConfig config)
    : config_(std::move(config)), app_basis_mat_(nullptr), mlp_0_(nullptr), mlp_1_(nullptr), mlp_2_(nullptr) {
    add_planes("density_plane", density_plane, config_.density_channels, config_.grid_first);
    add_planes("density_line_time", density_line_time, config_.density_channels, config_.time_first);
    add_planes("app_plane", app_plane, config_.app_channels, config_.grid_first);
    add_planes("app_line_time", app_line_time, config_.app_channels, config_.time_first);
    for (size_t i = 0; i < 3; ++i)
        density_basis_mat[i] =
            register_parameter("density_basis_mat_" + std::to_string(i), at::ones({config_.density_channels, 1}));
    app_basis_mat_ = register_module(
        "app_basis_mat",
        torch::nn::Linear(torch::nn::LinearOptions(3 * config_.app_channels, config_.app_features).bias(false)));
    const int64_t width =
        config_.app_features + 2 * config_.frequencies * config_.app_features + 3 + 2 * config_.frequencies * 3;
    mlp_0_ = register_module("mlp_0", torch::nn::Linear(width, config_.hidden));
    mlp_1_ = register_module("mlp_1", torch::nn::Linear(config_.hidden, config_.hidden));
    mlp_2_ = register_module("mlp_2", torch::nn::Linear(config_.hidden, 3));
    torch::nn::init::zeros_(mlp_2_->bias);
}

void HexPlane::add_planes(const std::string& name, Planes& planes, int64_t channels, int64_t last) {
    for (size_t i = 0; i < 3; ++i)
        planes[i] = register_parameter(
            name + "_" + std::to_string(i),
            config_.init_scale * at::randn({1, channels, config_.grid_first, last}) + config_.init_shift);
}

int64_t HexPlane::samples() const {
    return static_cast<int64_t>(static_cast<double>(grid()) * std::sqrt(3.0) / config_.step_ratio);
}

int64_t HexPlane::eval_samples() const {
    return static_cast<int64_t>(static_cast<double>(grid() - 1) * std::sqrt(3.0) / config_.step_ratio) + 1;
}

RaySamples HexPlane::sample_rays(const at::Tensor& rays, const std::optional<at::Tensor>& jitter,
                                 int64_t n_samples) const {
    auto distance = at::linspace(config_.near, config_.far, n_samples, rays.options()).unsqueeze(0);
    if (jitter) distance = distance + *jitter * ((config_.far - config_.near) / static_cast<double>(n_samples));
    const auto origin = rays.slice(1, 0, 3).unsqueeze(1), direction = rays.slice(1, 3, 6).unsqueeze(1);
    const auto points = origin + direction * distance.unsqueeze(-1);
    const auto outside = (points < -config_.box).logical_or(points > config_.box).any(-1);
    return {points, distance, outside.logical_not()};
}

at::Tensor HexPlane::normalise(const at::Tensor& points) const {
    return (points + config_.box) * (1.0 / config_.box) - 1.0;
}

at::Tensor HexPlane::density_feature(const at::Tensor& xyz, const at::Tensor& t) const {
    at::Tensor sum;
    for (int i = 0; i < 3; ++i) {
        const auto space = look_up(density_plane[i], plane_coordinates(xyz, i));
        const auto space_time = look_up(density_line_time[i], line_coordinates(xyz, t, i));
        const auto term = (space * space_time * density_basis_mat[i]).sum(0);
        sum = i == 0 ? term : sum + term;
    }
    return sum;
}

at::Tensor HexPlane::density(const at::Tensor& feature) const { return at::softplus(feature + config_.density_shift); }

at::Tensor HexPlane::app_feature(const at::Tensor& xyz, const at::Tensor& t) const {
    std::vector<at::Tensor> space, space_time;
    for (int i = 0; i < 3; ++i) {
        space.push_back(look_up(app_plane[i], plane_coordinates(xyz, i)));
        space_time.push_back(look_up(app_line_time[i], line_coordinates(xyz, t, i)));
    }
    return at::linear((at::cat(space) * at::cat(space_time)).t(), app_basis_mat_->weight);
}

at::Tensor HexPlane::colour(const at::Tensor& features, const at::Tensor& viewdirs) {
    auto x = at::cat({features, positional_encoding(features, config_.frequencies), viewdirs,
                      positional_encoding(viewdirs, config_.frequencies)},
                     -1);
    x = at::relu(mlp_0_->forward(x));
    x = at::relu(mlp_1_->forward(x));
    return at::sigmoid(mlp_2_->forward(x));
}

at::Tensor HexPlane::occupied(const at::Tensor& xyz) const {
    const at::NoGradGuard no_grad;
    const auto grid = xyz.unsqueeze(0).unsqueeze(2).unsqueeze(2);  // [1, M, 1, 1, 3]
    return at::grid_sampler(emptiness_, grid, 0, 0, true).flatten() > 0;
}

at::Tensor HexPlane::render(const at::Tensor& rays, const at::Tensor& times, bool train, bool white_bg,
                            const std::optional<at::Tensor>& jitter) {
    const int64_t n = train ? samples() : eval_samples();
    auto shift = jitter;
    if (train && !shift) shift = at::rand({1, n}, rays.options());
    const auto [points, distance, inside] = sample_rays(rays, shift, n);

    const auto dist =
        at::cat({distance.slice(1, 1) - distance.slice(1, 0, -1), at::zeros_like(distance.slice(1, 0, 1))}, -1);
    const auto direction = rays.slice(1, 3, 6);
    const auto viewdirs = (direction / direction.norm(2, -1, true)).unsqueeze(1).expand_as(points);
    const auto t = times.unsqueeze(1).expand({-1, n, 1});
    const auto xyz = normalise(points);

    auto valid = inside;
    if (emptiness_.defined()) {
        valid = inside.clone();
        valid.index_put_({TensorIndex(inside)}, occupied(xyz.index({TensorIndex(inside)})));
    }

    auto sigma = at::zeros_like(points.select(2, 0));
    auto rgb = at::zeros_like(points);
    if (valid.any().item<bool>()) {
        const auto feature = density_feature(xyz.index({TensorIndex(valid)}), t.index({TensorIndex(valid)}));
        sigma.index_put_({TensorIndex(valid)}, density(feature));
    }
    const auto [alpha, weights, background] = raw2alpha(sigma, dist * config_.distance_scale);

    const auto app_mask = weights > config_.weight_floor;
    if (app_mask.any().item<bool>()) {
        const auto features = app_feature(xyz.index({TensorIndex(app_mask)}), t.index({TensorIndex(app_mask)}));
        rgb.index_put_({TensorIndex(app_mask)}, colour(features, viewdirs.index({TensorIndex(app_mask)})));
    }

    const auto passed = 1.0 - weights.sum(-1).unsqueeze(-1);
    const auto seen = (weights.unsqueeze(-1) * rgb).sum(-2);
    const auto behind = white_bg || !train ? passed : passed * at::rand({1, 3}, rays.options());
    return (seen + behind).clamp(0, 1);
}

namespace {
using Planes = std::array<at::Tensor, 3>;

at::Tensor planes_variation(const Planes& space, const Planes& space_time) {
    at::Tensor sum;
    for (size_t i = 0; i < 3; ++i) {
        const auto term = total_variation(space[i], 1, 1) + total_variation(space_time[i], 1, 2);
        sum = i == 0 ? term : sum + term;
    }
    return sum;
}
}  // namespace

at::Tensor HexPlane::tv_density() const { return planes_variation(density_plane, density_line_time); }
at::Tensor HexPlane::tv_app() const { return planes_variation(app_plane, app_line_time); }

std::vector<at::Tensor> HexPlane::loss(const std::vector<at::Tensor>& in) {
    TORCH_CHECK(in.size() == 5 || in.size() == 6, "HexPlane::loss: got ", in.size(),
                " inputs, expected rays, rgb, time, tv_weight_density, tv_weight_app and perhaps jitter");
    const auto jitter = in.size() == 6 ? std::optional(in[5]) : std::nullopt;
    const auto rgb = render(in[0], in[2], /*train=*/true, /*white_bg=*/true, jitter);
    const auto mse = (rgb - in[1]).pow(2).mean();
    const auto density_term = tv_density() * in[3];
    const auto app_term = tv_app() * in[4];
    return {mse + density_term + app_term, mse, density_term, app_term};
}

void HexPlane::update_emptiness_mask() {
    const at::NoGradGuard no_grad;
    const auto options = density_plane[0].options().requires_grad(false);
    const int64_t r = grid(), times = config_.emptiness_times;
    const auto axis = at::linspace(-1, 1, r, options), moments = at::linspace(-1, 1, times, options);
    const double step = 2 * config_.box / static_cast<double>(r - 1) * config_.step_ratio;
    auto volume = at::zeros({1, 1, r, r, r}, options);
    for (int64_t z = 0; z < r; ++z) {  // a slab at a time bounds the memory: r * r * times points
        const auto plane = at::meshgrid({axis, axis}, "ij");
        const auto xyz = at::stack({plane[1], plane[0], axis[z].expand({r, r})}, -1).view({-1, 1, 3});
        auto points = xyz.expand({-1, times, 3}).reshape({-1, 3});
        auto t = moments.view({1, times, 1}).expand({r * r, times, 1}).reshape({-1, 1});
        const auto strongest = density_feature(points, t).view({r, r, times}).amax(-1);
        volume[0][0][z] = 1.0 - at::exp(-density(strongest) * step);
    }
    // One cell around whatever is there counts as occupied too.
    set_emptiness((at::max_pool3d(volume, 3, 1, 1) >= config_.emptiness_floor).to(volume.dtype()));
}

void HexPlane::set_emptiness(const at::Tensor& volume) {
    if (emptiness_.defined()) emptiness_.set_data(volume);
    else emptiness_ = register_buffer("emptiness", volume);
}

void HexPlane::grow(const std::string& name, Planes& planes, int64_t height, int64_t width) {
    for (size_t i = 0; i < 3; ++i) {
        planes[i] = grown(planes[i], height, width).requires_grad_();
        parameters_[name + "_" + std::to_string(i)] = planes[i];
    }
}

void HexPlane::upsample(int64_t grid, int64_t time) {
    grow("density_plane", density_plane, grid, grid);
    grow("density_line_time", density_line_time, grid, time);
    grow("app_plane", app_plane, grid, grid);
    grow("app_line_time", app_line_time, grid, time);
}

std::vector<at::Tensor> HexPlane::plane_parameters() const {
    std::vector<at::Tensor> out;
    for (const auto* planes : {&density_plane, &density_line_time, &app_plane, &app_line_time})
        out.insert(out.end(), planes->begin(), planes->end());
    return out;
}

std::vector<at::Tensor> HexPlane::network_parameters() const {
    std::vector<at::Tensor> out(density_basis_mat.begin(), density_basis_mat.end());
    for (const auto* layer : {&app_basis_mat_, &mlp_0_, &mlp_1_, &mlp_2_})
        for (const auto& p : (*layer)->parameters()) out.push_back(p);
    return out;
}

}  // namespace heddle::models
