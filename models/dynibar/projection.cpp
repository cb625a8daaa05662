// Camera matrices are a few numbers a view: their inverses are taken in the step, without the check that waits for the device.
#include "models/dynibar/projection.h"

#include <ATen/ATen.h>

namespace heddle::models {
namespace {

at::Tensor inverted(const at::Tensor& matrices) { return std::get<0>(at::linalg_inv_ex(matrices)); }

at::Tensor positions(const Views& views) { return views.camera_to_world.slice(1, 0, 3).select(2, 3); }  // [V, 3]

at::Tensor sample(const at::Tensor& maps, const at::Tensor& grid) {
    return at::grid_sampler(maps, grid, /*bilinear*/ 0, /*zeros*/ 0, /*align_corners=*/true).permute({2, 3, 0, 1});
}

}  // namespace

at::Tensor unit(const at::Tensor& x) { return x / x.norm(2, -1, true).clamp_min(1e-12); }

DepthSamples sample_rays(const at::Tensor& ray_o, const at::Tensor& ray_d, const at::Tensor& depth_range,
                         int64_t samples, const std::optional<at::Tensor>& jitter) {
    const auto near = depth_range[0] * at::ones_like(ray_d.select(1, 0)), far = depth_range[1] * at::ones_like(near);
    const auto start = 1.0 / near;
    const auto step = (1.0 / far - start) / static_cast<double>(samples - 1);
    auto z = 1.0 / (start.unsqueeze(1) + step.unsqueeze(1) * at::arange(samples, near.options()));
    if (jitter) {
        const auto middle = 0.5 * (z.slice(1, 1) + z.slice(1, 0, -1));
        const auto upper = at::cat({middle, z.slice(1, -1)}, -1), lower = at::cat({z.slice(1, 0, 1), middle}, -1);
        z = lower + (upper - lower) * *jitter;
    }
    const auto points = z.unsqueeze(2) * ray_d.unsqueeze(1) + ray_o.unsqueeze(1);
    const auto position = (1.0 / z - 1.0 / depth_range[0]) / (1.0 / depth_range[1] - 1.0 / depth_range[0]);
    return {points, z, position};
}

Projection project(const at::Tensor& points, const Views& views) {
    const int64_t v = points.size(0), r = points.size(1), s = points.size(2);
    const auto width = static_cast<double>(views.images.size(3)), height = static_cast<double>(views.images.size(2));
    const auto flat = points.reshape({v, r * s, 3});
    const auto homogeneous = at::cat({flat, at::ones_like(flat.slice(2, 0, 1))}, -1);
    const auto seen =
        views.intrinsics.bmm(inverted(views.camera_to_world)).bmm(homogeneous.transpose(1, 2)).transpose(1, 2);
    const auto depth = seen.slice(2, 2, 3);
    const auto pixels = (seen.slice(2, 0, 2) / depth.clamp_min(1e-8)).clamp(-1e6, 1e6).view({v, r, s, 2});
    const auto x = pixels.select(3, 0), y = pixels.select(3, 1);
    const auto inside = (x <= width - 1).logical_and(x >= 0).logical_and(y <= height - 1).logical_and(y >= 0);
    const auto visible = inside.logical_and((depth > 0).view({v, r, s}));
    return {pixels, visible.to(points.dtype()).permute({1, 2, 0}).unsqueeze(-1)};
}

at::Tensor sample_views(const Projection& projection, const Views& views, const at::Tensor& features) {
    const auto width = static_cast<double>(views.images.size(3)), height = static_cast<double>(views.images.size(2));
    const auto x = projection.pixels.select(3, 0), y = projection.pixels.select(3, 1);
    const auto grid = at::stack({2 * x / (width - 1) - 1.0, 2 * y / (height - 1) - 1.0}, -1);
    return at::cat({sample(views.images, grid), sample(features, grid)}, -1);
}

at::Tensor angle_difference(const at::Tensor& points, const at::Tensor& eye, const Views& views) {
    const auto to_target = unit(eye - points).unsqueeze(0);                                         // [1, R, S, 3]
    const auto to_source = unit(positions(views).unsqueeze(1).unsqueeze(1) - points.unsqueeze(0));  // [V, R, S, 3]
    const auto cosine = (to_target * to_source).sum(-1, true);
    return at::cat({unit(to_target - to_source), cosine}, -1).detach().permute({1, 2, 0, 3});
}

at::Tensor ray_coordinates(const at::Tensor& ray_o, const at::Tensor& ray_d) {
    const auto direction = unit(ray_d);
    return at::cat({direction, at::cross(ray_o, direction, -1)}, -1);
}

at::Tensor source_ray_coordinates(const at::Tensor& points, const Views& views) {
    const auto origin = positions(views).unsqueeze(1).unsqueeze(1);
    const auto direction = unit(points.unsqueeze(0) - origin);
    // Along the last dimension by name. The original names none, and takes the first one of size 3: rays or views, if there are three.
    return at::cat({direction, at::cross(origin.expand_as(direction), direction, -1)}, -1).permute({1, 2, 0, 3});
}

at::Tensor optical_flow(const at::Tensor& weights, const at::Tensor& points, const Views& views,
                        const at::Tensor& pixel) {
    const auto expected = (weights.unsqueeze(0).unsqueeze(-1) * points).sum(-2).unsqueeze(-1);  // [n, R, 3, 1]
    const auto to_camera = inverted(views.camera_to_world).slice(1, 0, 3).unsqueeze(1);         // [n, 1, 3, 4]
    const auto in_camera = at::matmul(to_camera.slice(3, 0, 3), expected) + to_camera.slice(3, 3);
    const auto seen = at::matmul(views.intrinsics.slice(1, 0, 3).slice(2, 0, 3).unsqueeze(1), in_camera);
    return (seen / seen.slice(2, 2)).slice(2, 0, 2).squeeze(3) - pixel.unsqueeze(0);
}

}  // namespace heddle::models
