// Bouncing balls: a small moving scene in closed form, and the pictures of it in the layout of D-NeRF's data sets.
// Law: the same arguments give the same bytes; the balls and the disc lie within [-1.5, 1.5]^3; time runs over [0, 1].
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "models/data/png.h"
#include "models/data/vec3.h"

namespace heddle::models {

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

// Where the balls are at `time`. They move and don't turn.
std::vector<Sphere> balls(double time);

// What stands still around them. Disc: a round floor in mid-air, as D-NeRF's data sets have it. Room: a floor without
// end and a wall at x = -2.5, so that every ray with x < 0 meets something; all of it textured, the balls too.
enum class Stage { Disc, Room };

// The scene at one time.
struct Moment {
    Moment(Stage stage, double time) : stage(stage), spheres(balls(time)) {}
    Stage stage;
    std::vector<Sphere> spheres;
};

// Where a ray first meets the scene.
struct Hit {
    static constexpr int64_t kFloor = -1, kWall = -2;
    double distance = std::numeric_limits<double>::infinity();  // infinite: nowhere
    int64_t surface = kFloor;                                   // kFloor, kWall or a place in Moment::spheres
    Vec3 point{}, normal{};                                     // the normal on the ray's side
    bool on_ball() const { return surface >= 0; }
};

// `direction` is a unit vector, also below.
Hit first_hit(const Moment& moment, const Vec3& origin, const Vec3& direction);

// Does the light reach it, past the balls?
bool lit(const Moment& moment, const Hit& hit);

// Its colour on the ray: diffuse, specular and a hard shadow from one distant light.
Vec3 shade(const Moment& moment, const Hit& hit, const Vec3& direction);

// The first surface on the ray, shaded, on the disc.
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
