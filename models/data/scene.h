// Bouncing balls: a small moving scene in closed form, and the pictures of it in the layout of D-NeRF's data sets.
// Law: the same arguments give the same bytes; everything lies within [-1.5, 1.5]^3; time runs over [0, 1].
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "models/data/png.h"

namespace heddle::models {

using Vec3 = std::array<double, 3>;

// What a ray sees; rgb is meaningless without a hit.
struct Sight {
    bool hit = false;
    Vec3 rgb{};
};

// Blender's convention: columns are right, up, backward and position; `fov_x` in radians.
struct Camera {
    std::array<std::array<double, 4>, 4> to_world{};
    double fov_x = 0.6911112070083618;
};

struct Sphere {
    Vec3 centre;
    double radius;
    Vec3 rgb;
};

// Where the balls are at `time`.
std::vector<Sphere> balls(double time);

// The first surface on the ray, shaded: diffuse, specular and a hard shadow from one distant light.
Sight look(const Vec3& origin, const Vec3& direction, double time);

// A camera on the sphere of radius 4, angles in radians, that looks at the middle.
Camera orbit(double azimuth, double elevation);

// The ray through image position (column, row) in pixels; a pixel's middle is at + 0.5.
Vec3 ray_direction(const Camera& camera, int64_t size, double column, double row);

// A square picture, `grid` x `grid` rays a pixel; alpha is the share of rays that hit something.
Image picture(const Camera& camera, double time, int64_t size, int64_t grid);

struct SceneOptions {
    int64_t train_frames = 150, val_frames = 8, test_frames = 8;
    int64_t size = 100;  // pixels along both edges
    int64_t grid = 3;
};

// Writes transforms_{train,val,test}.json and the pictures. `progress(done, total)` after each picture. Returns false
// and writes nothing when `directory` already holds exactly this; throws Error when it holds something else.
bool write_bouncing_balls(const std::string& directory, const SceneOptions& options,
                          const std::function<void(int64_t, int64_t)>& progress = {});

}  // namespace heddle::models
