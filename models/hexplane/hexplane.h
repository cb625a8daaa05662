// HexPlane (Cao and Johnson 2023) as a plain libtorch module: a 4-D radiance field in six feature planes.
// Law: real boolean masks and branches on tensors, as a user would write them; constants follow the inputs' dtype.
#pragma once

#include <torch/nn/modules/linear.h>

#include <array>
#include <optional>
#include <vector>

#include "models/hexplane/config.h"

namespace heddle::models {

// Points [B, N, 3] in world units, their distance along the ray [1, N], and whether they lie in the box [B, N] (bool).
struct RaySamples {
    at::Tensor points, distance, inside;
};

// alpha [B, N], weights [B, N], and the light that passes all samples [B, 1].
struct Opacity {
    at::Tensor alpha, weights, background;
};

// alpha = 1 - exp(-sigma * dist), composited front to back. sigma [B, N], dist [1, N] or [B, N].
Opacity raw2alpha(const at::Tensor& sigma, const at::Tensor& dist);

// Total variation of a plane [B, C, H, W]: 2 (h / count_h + w / count_w) / B, where h and w are the sums of squared
// differences along H and W times their weights.
at::Tensor total_variation(const at::Tensor& plane, double weight_h, double weight_w);

// (sin(2^k x), cos(2^k x)) for k < frequencies: [M, C] -> [M, 2 * C * frequencies].
at::Tensor positional_encoding(const at::Tensor& x, int64_t frequencies);

class HexPlane : public torch::nn::Module {
public:
    explicit HexPlane(HexPlaneConfig config);

    // Samples `n_samples` points on each ray; `jitter` [1, N] in [0, 1) shifts all rays alike. rays [B, 6]: origin,
    // unit direction.
    RaySamples sample_rays(const at::Tensor& rays, const std::optional<at::Tensor>& jitter, int64_t n_samples) const;

    // World coordinates to [-1, 1] over the box.
    at::Tensor normalise(const at::Tensor& points) const;

    // xyz [M, 3] in [-1, 1], t [M, 1] in [-1, 1] -> [M], before the softplus.
    at::Tensor density_feature(const at::Tensor& xyz, const at::Tensor& t) const;
    at::Tensor density(const at::Tensor& feature) const;

    // -> [M, 27].
    at::Tensor app_feature(const at::Tensor& xyz, const at::Tensor& t) const;

    // features [M, 27], unit viewdirs [M, 3] -> rgb [M, 3] in (0, 1).
    at::Tensor colour(const at::Tensor& features, const at::Tensor& viewdirs);

    // rays [B, 6], times [B, 1] -> rgb [B, 3]. Training jitters the samples (`jitter`, or one drawn here) and, without
    // `white_bg`, puts a random colour behind the scene.
    at::Tensor render(const at::Tensor& rays, const at::Tensor& times, bool train, bool white_bg,
                      const std::optional<at::Tensor>& jitter = std::nullopt);

    // Total variation of the six planes, spatial axes weighing 1 and the time axis 2.
    at::Tensor tv_density() const;
    at::Tensor tv_app() const;

    // inputs: rays [B, 6], rgb [B, 3], time [B, 1], tv_weight_density [], tv_weight_app [], and, where the jitter must
    // be known, jitter [1, N]. Returns {loss, mse, weighted tv_density, weighted tv_app}; the first is the sum of the
    // rest.
    std::vector<at::Tensor> loss(const std::vector<at::Tensor>& inputs);

    // Marks the cells that are empty at all times; later renders skip samples there. No gradient.
    void update_emptiness_mask();
    const at::Tensor& emptiness() const { return emptiness_; }
    void set_emptiness(const at::Tensor& volume);  // [1, 1, R, R, R], 1 where something is

    // Bilinear; the planes become new Parameters, so an optimiser must be built anew.
    void upsample(int64_t grid, int64_t time);

    const HexPlaneConfig& config() const { return config_; }
    int64_t grid() const { return density_plane[0].size(3); }
    int64_t time() const { return density_line_time[0].size(3); }
    int64_t samples() const;       // per ray in training, from the grid
    int64_t eval_samples() const;  // per ray in rendering

    std::vector<at::Tensor> plane_parameters() const;    // 12: density then app, spatial and space-time in turns
    std::vector<at::Tensor> network_parameters() const;  // 10: bases and MLP

    // The spatial planes [1, C, R, R] over (x,y), (x,z), (y,z) and the space-time planes [1, C, R, T] over (z,t),
    // (y,t), (x,t).
    std::array<at::Tensor, 3> density_plane, density_line_time, app_plane, app_line_time;
    std::array<at::Tensor, 3> density_basis_mat;  // [C, 1]

private:
    using Planes = std::array<at::Tensor, 3>;

    void add_planes(const std::string& name, Planes& planes, int64_t channels, int64_t last);
    void grow(const std::string& name, Planes& planes, int64_t height, int64_t width);
    at::Tensor occupied(const at::Tensor& xyz) const;

    HexPlaneConfig config_;
    torch::nn::Linear app_basis_mat_, mlp_0_, mlp_1_, mlp_2_;
    at::Tensor emptiness_;
};

}  // namespace heddle::models
