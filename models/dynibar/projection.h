// Samples along camera rays, what source views show at them, and how the rays of source and target differ.
// Law: a picture's size is its tensor's; nothing here reads a value on the host.
// Source: DynIBaR section 3.2 and IBRNet (Wang et al. 2021); pixels and cameras as in video.h.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

namespace heddle::models {

// V source views with cameras.
struct Views {
    at::Tensor images;           // [V, 3, H, W] in [0, 1]
    at::Tensor intrinsics;       // [V, 4, 4]
    at::Tensor camera_to_world;  // [V, 4, 4]
};

struct DepthSamples {
    at::Tensor points;    // [R, S, 3], world
    at::Tensor depth;     // [R, S], multiples of the ray's direction: z of the camera
    at::Tensor position;  // [R, S]: depth mapped to 0 at near and 1 at far, evenly in 1 / depth
};

// `samples` points on each ray, evenly spread in 1 / depth; each is moved within its interval by its `jitter` [R, S] in [0, 1) if there is any.
// ray_o, ray_d [R, 3]: ray_d has z = 1 in the camera. depth_range [2]: near, far.
DepthSamples sample_rays(const at::Tensor& ray_o, const at::Tensor& ray_d, const at::Tensor& depth_range,
                         int64_t samples, const std::optional<at::Tensor>& jitter);

struct Projection {
    at::Tensor pixels;   // [V, R, S, 2]: (u, v) in each view
    at::Tensor visible;  // [R, S, V, 1]: 1 where the pixel is in the picture and the point before the camera
};

// Points [V, R, S, 3], for each view where the point is at its moment.
Projection project(const at::Tensor& points, const Views& views);

// Colours and features [V, C, h, w] there, bilinear, zero outside: [R, S, V, 3 + C]. Feature maps cover the whole picture.
at::Tensor sample_views(const Projection& projection, const Views& views, const at::Tensor& features);

// x / max(|x|, 1e-12) over the last dimension.
at::Tensor unit(const at::Tensor& x);

// For each point [R, S, 3]: the unit difference of the directions to the target's camera at `eye` [3] and to each source's, and their
// cosine: [R, S, V, 4]. No gradient.
at::Tensor angle_difference(const at::Tensor& points, const at::Tensor& eye, const Views& views);

// Pluecker coordinates (unit direction, origin x direction) of the target's rays: [R, 6], and of the rays from the sources' cameras
// to the points: [R, S, V, 6].
at::Tensor ray_coordinates(const at::Tensor& ray_o, const at::Tensor& ray_d);
at::Tensor source_ray_coordinates(const at::Tensor& points, const Views& views);

// Where the points of each ray, weighted [R, S], are seen in n views, less its own pixel [R, 2]: [n, R, 2]. points [n, R, S, 3].
at::Tensor optical_flow(const at::Tensor& weights, const at::Tensor& points, const Views& views,
                        const at::Tensor& pixel);

}  // namespace heddle::models
