// The bouncing balls in the room, filmed by one camera that moves slowly, with what an estimator would have to guess:
// disparity, optical flow, what moves. Law: all of it is exact at pixel middles, from the scene's formulas.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <string>
#include <vector>

#include "models/data/scene.h"

namespace heddle::models {

// A pinhole camera as DynIBaR takes it (sample_ray.py, projection.py): pixel middles are at whole (u, v), and the axis
// meets the picture at (width / 2, height / 2), half a pixel from the picture's middle. The three axes are unit vectors.
struct Pinhole {
    Vec3 right{}, down{}, forward{}, position{};
    double focal = 0;  // pixels
    int64_t width = 0, height = 0;

    Vec3 ray(double u, double v) const;  // unit direction
};

// Where a point is seen: pixels, and the depth z along the axis, which is negative behind the camera.
struct Sighting {
    double u, v, z;
};
Sighting project(const Pinhole& camera, const Vec3& point);

struct VideoOptions {
    int64_t frames = 24;  // kFewestFrames to kMostFrames
    int64_t width = 96, height = 72;
    int64_t held_out = 4;  // pictures to measure on
    int64_t grid = 3;      // grid x grid rays a pixel
};
inline constexpr int64_t kFewestFrames = 7;  // one with three on either side
inline constexpr int64_t kMostFrames = 61;   // a frame is 1/60 of the scene's time, which ends at 1

double video_time(int64_t frame);
Pinhole video_camera(const VideoOptions& options, int64_t frame);
Pinhole held_out_camera(const VideoOptions& options, int64_t frame);  // beside the video's path, at that frame's time

// The cameras of a frame's virtual views: eight, on two circles around `camera`, as DynIBaR places them for a scene
// whose nearest depth is `near` (render_source_vv.py: 84 and 72 pixels of 288 rows at 3/4 of it).
std::vector<Pinhole> virtual_cameras(const Pinhole& camera, double near);

// Opaque. What `seen_by` can't see stays black, which is what is left when that camera's picture is warped to this one.
Image video_picture(const Pinhole& camera, double time, int64_t grid, const Pinhole* seen_by = nullptr);

at::Tensor video_disparity(const Pinhole& camera, double time);  // float64 [H, W]: 1 / z

// bool [H, W] each: pixels whose middle sees a ball; pixels any of whose rays meets a ball or a ball's shadow.
struct MotionMasks {
    at::Tensor tight, generous;
};
MotionMasks video_masks(const Pinhole& camera, double time, int64_t grid);

struct Flow {
    at::Tensor flow;  // float64 [H, W, 2]: where the point of the surface seen at (u, v) is later, minus (u, v)
    at::Tensor mask;  // bool [H, W]: it's seen there too, between pixel middles
};
Flow video_flow(const Pinhole& from, double now, const Pinhole& to, double later);

// Writes DIR/dense in the layout of DynIBaR's monocular loader, and the held-out views beside it; models/data/monocular.h
// says what is where. `progress(done, total)` after each frame. Returns and throws as write_bouncing_balls.
bool write_bouncing_balls_video(const std::string& directory, const VideoOptions& options,
                                const std::function<void(int64_t, int64_t)>& progress = {});

}  // namespace heddle::models
