// The two networks that turn what source views show at a ray's samples into colours and densities.
// Law: they share everything but how a view's feature is prepared and how colours come out.
// Source: DynIBaR sections 3.2 and 3.3, after IBRNet (Wang et al. 2021).
#pragma once

#include <torch/nn/modules/linear.h>
#include <torch/nn/modules/normalization.h>

#include <memory>

#include "models/dynibar/layers.h"

namespace heddle::models {

// Attention of four heads among the samples of a ray, with a residual and layer norm.
class RayAttention : public torch::nn::Module {
public:
    explicit RayAttention(int64_t width);

    // x [R, S, C]; `queries` [R, S, 1]: a sample where it's 0 attends to all samples alike.
    at::Tensor forward(const at::Tensor& x, const at::Tensor& queries);

private:
    torch::nn::Linear query_, key_, value_, out_;
    torch::nn::LayerNorm norm_;
};

// Weighted mean and variance over the views, dimension 2, which they keep with size 1.
std::pair<at::Tensor, at::Tensor> mean_and_variance(const at::Tensor& x, const at::Tensor& weight);

// What both networks do with the views' features: pools them, learns which views see the point, pools again.
class ViewAggregation : public torch::nn::Module {
protected:
    explicit ViewAggregation(int64_t features);

    struct Pooled {
        at::Tensor views;     // [R, S, V, 128]
        at::Tensor visible;   // [R, S, V, 1], how far each view sees the point, in [0, 1]
        at::Tensor geometry;  // [R, S, 128]
    };
    // features [R, S, V, C], mask [R, S, V, 1].
    Pooled pool(const at::Tensor& features, const at::Tensor& mask);

    std::shared_ptr<Mlp> base_fc_, vis_fc_, vis_fc2_, geometry_fc_, out_geometry_fc_;
    std::shared_ptr<RayAttention> ray_attention_;
};

// Colour and density at a moment. `density_shift` makes space empty before training.
class DynamicNet : public ViewAggregation {
public:
    DynamicNet(int64_t feature_channels, int64_t samples, double density_shift);

    // points [R, S, 3], rgb_feat [R, S, V, 3 + C], ray_d unit [R, 3], mask [R, S, V, 1], time [1] in any floating dtype: its embedding is computed
    // in that -> [R, S, 4]: rgb in (0, 1), and density before the softplus, -1e9 where no view sees the point.
    at::Tensor forward(const at::Tensor& points, const at::Tensor& rgb_feat, const at::Tensor& ray_d,
                       const at::Tensor& mask, const at::Tensor& time);

private:
    double density_shift_;
    std::shared_ptr<Mlp> time_fc_, ref_pts_fc_, rgb_fc_;
    at::Tensor order_;  // [1, S, C]: sines that tell where along the ray a sample is
};

// Colour and density at all times; its colour is a blend of the views' colours.
class StaticNet : public ViewAggregation {
public:
    explicit StaticNet(int64_t feature_channels);

    // As above, and the rays' coordinates: of the target [R, 6], of the sources [R, S, V, 6]; difference of angles [R, S, V, 4].
    // A view whose colour is black (masked) doesn't count.
    at::Tensor forward(const at::Tensor& points, const at::Tensor& target_rays, const at::Tensor& source_rays,
                       const at::Tensor& rgb_feat, const at::Tensor& angles, const at::Tensor& mask);

private:
    std::shared_ptr<Mlp> ray_dir_fc_, ref_feature_fc_, rgb_fc_;
};

}  // namespace heddle::models
