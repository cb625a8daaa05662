// Masks are numbers 0 and 1 that weigh views, except where they decide a value outright.
#include "models/dynibar/aggregation.h"

#include <ATen/ATen.h>

#include <cmath>

namespace heddle::models {
namespace {

constexpr int64_t kWidth = 128, kHeads = 4;
constexpr int64_t kPointOctaves = 5, kRayOctaves = 5, kDirectionOctaves = 4, kTimeOctaves = 10;
constexpr double kNever = -1e9;  // before a softmax or a softplus

int64_t embedded(int64_t channels, int64_t octaves) { return channels * (1 + 2 * octaves); }

// Vaswani et al. 2017, section 3.5: sines on even channels, cosines on odd ones.
at::Tensor sample_order(int64_t samples, int64_t width) {
    const auto channel = at::arange(width, at::kDouble);
    const auto rate = at::pow(10000.0, -2 * at::floor(channel / 2) / static_cast<double>(width));
    const auto phase = at::arange(samples, at::kDouble).unsqueeze(1) * rate;
    return at::where(channel.remainder(2) == 0, at::sin(phase), at::cos(phase)).unsqueeze(0).to(at::kFloat);
}

at::Tensor shares(const at::Tensor& weight) { return weight / (weight.sum(2, true) + 1e-8); }

torch::nn::Linear projection(int64_t width) {
    return torch::nn::Linear(torch::nn::LinearOptions(width, width).bias(false));
}

}  // namespace

RayAttention::RayAttention(int64_t width)
    : query_(register_module("w_qs", projection(width))),
      key_(register_module("w_ks", projection(width))),
      value_(register_module("w_vs", projection(width))),
      out_(register_module("fc", projection(width))),
      norm_(register_module("layer_norm", torch::nn::LayerNorm(torch::nn::LayerNormOptions({width}).eps(1e-6)))) {}

at::Tensor RayAttention::forward(const at::Tensor& x, const at::Tensor& queries) {
    const int64_t rays = x.size(0), samples = x.size(1), each = x.size(2) / kHeads;
    const auto heads = [&](torch::nn::Linear& linear) {
        return linear->forward(x).view({rays, samples, kHeads, each}).transpose(1, 2);  // [R, heads, S, each]
    };
    const auto query = heads(query_), key = heads(key_), value = heads(value_);
    const auto scores = at::matmul(query / std::sqrt(static_cast<double>(each)), key.transpose(2, 3));
    const auto attention = at::softmax(scores.masked_fill(queries.unsqueeze(1) == 0, kNever), -1);
    auto out = out_->forward(at::matmul(attention, value).transpose(1, 2).contiguous().view({rays, samples, -1}));
    out += x;
    return norm_->forward(out);
}

std::pair<at::Tensor, at::Tensor> mean_and_variance(const at::Tensor& x, const at::Tensor& weight) {
    const auto mean = (x * weight).sum(2, true);
    return {mean, (weight * (x - mean).pow(2)).sum(2, true)};
}

ViewAggregation::ViewAggregation(int64_t features)
    : base_fc_(register_module("base_fc", std::make_shared<Mlp>(std::vector<int64_t>{3 * features, 256, kWidth}))),
      vis_fc_(register_module("vis_fc", std::make_shared<Mlp>(std::vector<int64_t>{kWidth, kWidth, kWidth + 1}))),
      vis_fc2_(register_module("vis_fc2", std::make_shared<Mlp>(std::vector<int64_t>{kWidth, kWidth, 1}, false))),
      geometry_fc_(
          register_module("geometry_fc", std::make_shared<Mlp>(std::vector<int64_t>{2 * kWidth + 1, 256, kWidth}))),
      out_geometry_fc_(
          register_module("out_geometry_fc", std::make_shared<Mlp>(std::vector<int64_t>{kWidth, kWidth, 1}, false))),
      ray_attention_(register_module("ray_attention", std::make_shared<RayAttention>(kWidth))) {}

ViewAggregation::Pooled ViewAggregation::pool(const at::Tensor& features, const at::Tensor& mask) {
    const auto weight = shares(mask);
    const auto [mean, variance] = mean_and_variance(features, weight);
    const auto all = at::cat({mean, variance}, -1).expand({-1, -1, features.size(2), -1});
    auto x = base_fc_->forward(at::cat({all, features}, -1));

    const auto seen = vis_fc_->forward(x * weight);
    const auto guess = at::sigmoid(seen.slice(3, kWidth)) * mask;
    x = x + seen.slice(3, 0, kWidth);
    const auto visible = at::sigmoid(vis_fc2_->forward(x * guess)) * mask;
    const auto share = shares(visible);
    const auto [mean2, variance2] = mean_and_variance(x, share);
    const auto pooled = at::cat({mean2.squeeze(2), variance2.squeeze(2), share.mean(2)}, -1);
    return {x, visible, geometry_fc_->forward(pooled)};
}

DynamicNet::DynamicNet(int64_t feature_channels, int64_t samples, double density_shift)
    : ViewAggregation(feature_channels + 3), density_shift_(density_shift) {
    time_fc_ = register_module("ray_dir_fc", std::make_shared<Mlp>(std::vector<int64_t>{embedded(1, kTimeOctaves), 256,
                                                                                        feature_channels + 3}));
    ref_pts_fc_ = register_module(
        "ref_pts_fc", std::make_shared<Mlp>(std::vector<int64_t>{embedded(3, kPointOctaves) + kWidth, 256, kWidth}));
    rgb_fc_ = register_module(
        "rgb_fc",
        std::make_shared<Mlp>(std::vector<int64_t>{kWidth + embedded(3, kDirectionOctaves), kWidth, 64, 3}, false));
    order_ = register_buffer("pos_encoding", sample_order(samples, kWidth));
}

at::Tensor DynamicNet::forward(const at::Tensor& points, const at::Tensor& rgb_feat, const at::Tensor& ray_d,
                               const at::Tensor& mask, const at::Tensor& time) {
    const int64_t rays = points.size(0), samples = points.size(1), views = rgb_feat.size(2);
    const auto moments = time.view({1, 1, 1}).repeat({rays, samples, 1});
    const auto time_embedding =
        periodic_embedding(moments, octaves(kTimeOctaves)).unsqueeze(2).repeat({1, 1, views, 1}).to(points.dtype());
    const auto pooled = pool(rgb_feat + time_fc_->forward(time_embedding), mask);

    const auto seeing = mask.sum(2);
    const auto along = ray_attention_->forward(pooled.geometry + order_, (seeing > 1).to(points.dtype()));
    const auto geometry =
        ref_pts_fc_->forward(at::cat({along, periodic_embedding(points, octaves(kPointOctaves))}, -1));
    const auto sigma = (out_geometry_fc_->forward(geometry) - density_shift_).masked_fill(seeing < 1, kNever);

    const auto direction = periodic_embedding(ray_d, octaves(kDirectionOctaves)).unsqueeze(1).repeat({1, samples, 1});
    const auto rgb = at::sigmoid(rgb_fc_->forward(at::cat({geometry, direction}, -1)));
    return at::cat({rgb.masked_fill(mask.repeat({1, 1, 1, 3}).sum(2) == 0, 0), sigma}, -1);
}

StaticNet::StaticNet(int64_t feature_channels) : ViewAggregation(2 * (feature_channels + 3)) {
    const int64_t width = feature_channels + 3, ray = embedded(6, kRayOctaves);
    ray_dir_fc_ = register_module(
        "ray_dir_fc",
        std::make_shared<Mlp>(std::vector<int64_t>{embedded(3, kPointOctaves) + ray + 4, 256, width}, false));
    ref_feature_fc_ = register_module("ref_feature_fc", std::make_shared<Mlp>(std::vector<int64_t>{ray, width}, false));
    rgb_fc_ = register_module("rgb_fc",
                              std::make_shared<Mlp>(std::vector<int64_t>{2 * kWidth + 1 + 4, kWidth, 64, 1}, false));
}

at::Tensor StaticNet::forward(const at::Tensor& points, const at::Tensor& target_rays, const at::Tensor& source_rays,
                              const at::Tensor& rgb_feat, const at::Tensor& angles, const at::Tensor& visible_mask) {
    const int64_t samples = source_rays.size(1), views = source_rays.size(2);
    const auto target = periodic_embedding(target_rays, octaves(kRayOctaves)).unsqueeze(1).unsqueeze(1);
    const auto source = periodic_embedding(source_rays, octaves(kRayOctaves));
    const auto point = periodic_embedding(points, octaves(kPointOctaves)).unsqueeze(2).expand({-1, -1, views, -1});
    const auto from_source = ray_dir_fc_->forward(at::cat({point, source, angles}, -1));
    const auto from_target = ref_feature_fc_->forward(target.expand({-1, samples, views, -1}));

    const auto rgb_in = rgb_feat.slice(3, 0, 3);
    const auto mask = visible_mask * (rgb_in.sum(-1, true) > 1e-3).to(points.dtype()).detach();
    const auto pooled = pool(at::cat({rgb_feat, from_source * from_target}, -1), mask);

    const auto seeing = mask.sum(2);
    const auto geometry = ray_attention_->forward(pooled.geometry, (seeing > 1).to(points.dtype()));
    const auto sigma = out_geometry_fc_->forward(geometry).masked_fill(seeing < 1, kNever);

    const auto each =
        at::cat({geometry.unsqueeze(2).expand({-1, -1, views, -1}), pooled.views, pooled.visible, angles}, -1);
    const auto blend = at::softmax(rgb_fc_->forward(each).masked_fill(mask == 0, kNever), 2);
    return at::cat({(rgb_in * blend).sum(2), sigma}, -1);
}

}  // namespace heddle::models
