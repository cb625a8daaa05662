// Each quantity is a few lines over first_hit: a pixel's ray, the point it meets, where the point goes, whether another
// camera sees it.
#include "models/data/video_scene.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

namespace heddle::models {
namespace {

constexpr double kPi = 3.14159265358979323846;
constexpr double kFieldOfView = 42 * kPi / 180;  // of the width

Pinhole look_from(const VideoOptions& o, double azimuth, double elevation) {
    const auto m = orbit(azimuth, elevation).to_world;  // right, up, backward, position
    const auto column = [&](size_t i) { return Vec3{m[0][i], m[1][i], m[2][i]}; };
    const double focal = 0.5 * static_cast<double>(o.width) / std::tan(0.5 * kFieldOfView);
    return {column(0), column(1) * -1, column(2) * -1, column(3), focal, o.width, o.height};
}

// At most 0.35 rad to either side of the x axis, and towards the floor: all rays meet the room.
double azimuth(double time) { return 0.7 * time - 0.35; }
double elevation(double time) { return 0.36 + 0.08 * std::sin(2 * kPi * time); }

// The i-th of `grid` evenly spaced places within a pixel.
double within(int64_t pixel, int64_t i, int64_t grid) {
    return static_cast<double>(pixel) + (static_cast<double>(i) + 0.5) / static_cast<double>(grid) - 0.5;
}

// Does a ray from `camera` meet `point`, which lies on `surface`, before anything else? The room is some units wide, so
// 1e-5 is far above rounding, and matters only where a surface is seen edge on.
bool sees(const Moment& moment, const Pinhole& camera, const Vec3& point, int64_t surface) {
    const Vec3 to = point - camera.position;
    const Hit hit = first_hit(moment, camera.position, unit(to));
    return hit.surface == surface && std::abs(hit.distance - length(to)) < 1e-5;
}

bool in_picture(const Pinhole& camera, const Sighting& s) {
    return s.z > 0 && s.u >= 0 && s.u <= static_cast<double>(camera.width - 1) && s.v >= 0 &&
           s.v <= static_cast<double>(camera.height - 1);
}

}  // namespace

Vec3 Pinhole::ray(double u, double v) const {
    const double x = (u - 0.5 * static_cast<double>(width)) / focal,
                 y = (v - 0.5 * static_cast<double>(height)) / focal;
    return unit(right * x + down * y + forward);
}

Sighting project(const Pinhole& c, const Vec3& point) {
    const Vec3 to = point - c.position;
    const double z = dot(to, c.forward), scale = c.focal / z;
    return {dot(to, c.right) * scale + 0.5 * static_cast<double>(c.width),
            dot(to, c.down) * scale + 0.5 * static_cast<double>(c.height), z};
}

double video_time(int64_t frame) { return static_cast<double>(frame) / static_cast<double>(kMostFrames - 1); }

Pinhole video_camera(const VideoOptions& o, int64_t frame) {
    const double time = video_time(frame);
    return look_from(o, azimuth(time), elevation(time));
}

Pinhole held_out_camera(const VideoOptions& o, int64_t frame) {
    const double time = video_time(frame);
    return look_from(o, azimuth(time) + 0.05, elevation(time) + 0.04);
}

std::vector<Pinhole> virtual_cameras(const Pinhole& camera, double near) {
    const double pixel =
        static_cast<double>(camera.height) / 288 * 0.75 * near / camera.focal;  // of 288 rows, in the scene's units
    std::vector<Pinhole> out(8, camera);
    for (size_t i = 0; i < 4; ++i) {
        const double angle = kPi / 6 + kPi / 2 * static_cast<double>(i), turned = angle + kPi / 3;
        out[i].position =
            camera.position + (camera.right * std::sin(angle) + camera.forward * std::cos(angle)) * (84 * pixel);
        out[4 + i].position =
            camera.position + (camera.right * std::sin(turned) + camera.down * (0.5 * std::cos(turned))) * (72 * pixel);
    }
    return out;
}

Image video_picture(const Pinhole& camera, double time, int64_t grid, const Pinhole* seen_by) {
    const Moment moment(Stage::Room, time);
    const Pinhole& eye = seen_by ? *seen_by : camera;
    Image image{camera.width, camera.height, {}};
    for (int64_t row = 0; row < camera.height; ++row)
        for (int64_t column = 0; column < camera.width; ++column) {
            Vec3 sum{};
            int64_t seen = 0;
            for (int64_t sub = 0; sub < grid * grid; ++sub) {
                const Vec3 direction = camera.ray(within(column, sub % grid, grid), within(row, sub / grid, grid));
                const Hit hit = first_hit(moment, camera.position, direction);
                if (seen_by && !(in_picture(eye, project(eye, hit.point)) && sees(moment, eye, hit.point, hit.surface)))
                    continue;
                sum = sum + shade(moment, hit, unit(hit.point - eye.position));
                ++seen;
            }
            for (const double c : sum)
                image.rgba.push_back(2 * seen > grid * grid
                                         ? static_cast<uint8_t>(std::lround(c / static_cast<double>(seen) * 255))
                                         : 0);
            image.rgba.push_back(255);
        }
    return image;
}

at::Tensor video_disparity(const Pinhole& camera, double time) {
    const Moment moment(Stage::Room, time);
    auto out = at::empty({camera.height, camera.width}, at::kDouble);
    auto cells = out.accessor<double, 2>();
    for (int64_t row = 0; row < camera.height; ++row)
        for (int64_t column = 0; column < camera.width; ++column) {
            const Vec3 direction = camera.ray(static_cast<double>(column), static_cast<double>(row));
            cells[row][column] =
                1 / (first_hit(moment, camera.position, direction).distance * dot(direction, camera.forward));
        }
    return out;
}

MotionMasks video_masks(const Pinhole& camera, double time, int64_t grid) {
    const Moment moment(Stage::Room, time);
    MotionMasks out{at::zeros({camera.height, camera.width}, at::kBool),
                    at::zeros({camera.height, camera.width}, at::kBool)};
    auto tight = out.tight.accessor<bool, 2>(), generous = out.generous.accessor<bool, 2>();
    for (int64_t row = 0; row < camera.height; ++row)
        for (int64_t column = 0; column < camera.width; ++column) {
            const auto meets = [&](double u, double v) { return first_hit(moment, camera.position, camera.ray(u, v)); };
            tight[row][column] = meets(static_cast<double>(column), static_cast<double>(row)).on_ball();
            bool any = tight[row][column];
            for (int64_t sub = 0; sub < grid * grid && !any; ++sub) {
                const Hit hit = meets(within(column, sub % grid, grid), within(row, sub / grid, grid));
                any = hit.on_ball() || !lit(moment, hit);
            }
            generous[row][column] = any;
        }
    return out;
}

Flow video_flow(const Pinhole& from, double now, const Pinhole& to, double later) {
    const Moment before(Stage::Room, now), after(Stage::Room, later);
    Flow out{at::empty({from.height, from.width, 2}, at::kDouble), at::empty({from.height, from.width}, at::kBool)};
    auto flow = out.flow.accessor<double, 3>();
    auto mask = out.mask.accessor<bool, 2>();
    for (int64_t row = 0; row < from.height; ++row)
        for (int64_t column = 0; column < from.width; ++column) {
            const double u = static_cast<double>(column), v = static_cast<double>(row);
            const Hit hit = first_hit(before, from.position, from.ray(u, v));
            Vec3 point = hit.point;
            if (hit.on_ball()) {
                const auto ball = static_cast<size_t>(hit.surface);
                point = point + (after.spheres[ball].centre - before.spheres[ball].centre);
            }
            const Sighting there = project(to, point);
            flow[row][column][0] = there.u - u, flow[row][column][1] = there.v - v;
            mask[row][column] = in_picture(to, there) && sees(after, to, point, hit.surface);
        }
    return out;
}

}  // namespace heddle::models
