// The bouncing balls, traced. Plain doubles and libm: no randomness, so that a picture can be checked pixel by pixel.
#include "models/data/scene.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace heddle::models {
namespace {

constexpr double kNothing = std::numeric_limits<double>::infinity();
constexpr double kGroundHeight = -0.75, kGroundRadius = 1.4, kBackWall = -2.5, kTile = 0.5;
const Vec3 kLight = unit({0.5, -0.4, 1.0});

// A ball hops on the spot of a circle that it slowly follows.
struct Ball {
    double radius, peak, hops, phase;  // peak: height of the hop above the ground
    double orbit, azimuth, turn;       // distance from the axis, start and travel of the angle, radians
    Vec3 rgb;
};

constexpr Ball kBalls[] = {
    {0.40, 0.95, 1.0, 0.00, 0.75, 0.4, 0.6, {0.86, 0.16, 0.14}},
    {0.32, 0.80, 1.5, 0.35, 0.80, 2.4, -0.5, {0.13, 0.42, 0.85}},
    {0.36, 1.10, 1.0, 0.60, 0.75, 4.3, 0.5, {0.16, 0.64, 0.27}},
    {0.24, 0.60, 2.0, 0.15, 0.10, 1.0, 1.0, {0.93, 0.69, 0.12}},
};

double sphere_distance(const Sphere& s, const Vec3& origin, const Vec3& direction) {
    const Vec3 to = origin - s.centre;
    const double b = dot(to, direction), c = dot(to, to) - s.radius * s.radius, inside = b * b - c;
    if (inside <= 0) return kNothing;
    const double t = -b - std::sqrt(inside);
    return t > 1e-6 ? t : kNothing;
}

// To the plane where coordinate `axis` is `at`.
double plane_distance(size_t axis, double at, const Vec3& origin, const Vec3& direction) {
    if (direction[axis] == 0) return kNothing;
    const double t = (at - origin[axis]) / direction[axis];
    return t > 1e-6 ? t : kNothing;
}

Vec3 tile_colour(double a, double b) {
    const bool light =
        (static_cast<int64_t>(std::floor(a / kTile)) + static_cast<int64_t>(std::floor(b / kTile))) % 2 == 0;
    return light ? Vec3{0.78, 0.76, 0.72} : Vec3{0.58, 0.60, 0.66};
}

// Waves at odd angles, other ones in each channel, so that no two places of a surface look the same.
Vec3 woven(const Vec3& rgb, double a, double b) {
    Vec3 out{};
    for (size_t i = 0; i < 3; ++i) {
        const double turn = 2.0 * static_cast<double>(i);
        out[i] =
            rgb[i] * (0.72 + 0.14 * std::sin(5.3 * a - 3.1 * b + turn) + 0.14 * std::sin(9.7 * b + 6.1 * a - turn));
    }
    return out;
}

Vec3 albedo(const Moment& moment, const Hit& hit) {
    const Vec3& p = hit.point;
    if (hit.on_ball()) {
        const Vec3& rgb = moment.spheres[static_cast<size_t>(hit.surface)].rgb;
        return moment.stage == Stage::Room ? woven(rgb, hit.normal[1], hit.normal[2]) : rgb;
    }
    if (hit.surface == Hit::kWall) return woven(tile_colour(p[1], p[2]), p[1], p[2]);
    const Vec3 tile = tile_colour(p[0], p[1]);
    return moment.stage == Stage::Room ? woven(tile, p[0], p[1]) : tile;
}

uint8_t byte(double v) { return static_cast<uint8_t>(std::lround(std::clamp(v, 0.0, 1.0) * 255)); }

}  // namespace

std::vector<Sphere> balls(double time) {
    std::vector<Sphere> out;
    for (const Ball& b : kBalls) {
        const double turns = b.hops * time + b.phase, u = turns - std::floor(turns);
        const double angle = b.azimuth + b.turn * time;
        const double height = kGroundHeight + b.radius + b.peak * 4 * u * (1 - u);
        out.push_back({{b.orbit * std::cos(angle), b.orbit * std::sin(angle), height}, b.radius, b.rgb});
    }
    return out;
}

Hit first_hit(const Moment& moment, const Vec3& origin, const Vec3& direction) {
    Hit hit;
    const double floor = plane_distance(2, kGroundHeight, origin, direction);
    const Vec3 p = origin + direction * floor;
    if (moment.stage == Stage::Room || p[0] * p[0] + p[1] * p[1] <= kGroundRadius * kGroundRadius) hit.distance = floor;
    hit.normal = {0, 0, 1};
    if (moment.stage == Stage::Room) {
        const double wall = plane_distance(0, kBackWall, origin, direction);
        if (wall < hit.distance) hit.distance = wall, hit.surface = Hit::kWall, hit.normal = {1, 0, 0};
    }
    for (size_t i = 0; i < moment.spheres.size(); ++i) {
        const double t = sphere_distance(moment.spheres[i], origin, direction);
        if (t < hit.distance) hit.distance = t, hit.surface = static_cast<int64_t>(i);
    }
    hit.point = origin + direction * hit.distance;
    if (hit.on_ball()) hit.normal = unit(hit.point - moment.spheres[static_cast<size_t>(hit.surface)].centre);
    if (dot(hit.normal, direction) > 0) hit.normal = hit.normal * -1;  // the ground seen from below
    return hit;
}

bool lit(const Moment& moment, const Hit& hit) {
    if (dot(hit.normal, kLight) <= 0) return false;
    const Vec3 lifted = hit.point + hit.normal * 1e-4;
    return std::all_of(moment.spheres.begin(), moment.spheres.end(),
                       [&](const Sphere& s) { return sphere_distance(s, lifted, kLight) == kNothing; });
}

Vec3 shade(const Moment& moment, const Hit& hit, const Vec3& direction) {
    const Vec3 colour = albedo(moment, hit);
    const bool light = lit(moment, hit);
    const double sky = 0.30 + 0.12 * hit.normal[2];
    const double diffuse = light ? 0.68 * dot(hit.normal, kLight) : 0;
    const double gloss =
        light && hit.on_ball() ? 0.35 * std::pow(std::max(0.0, dot(hit.normal, unit(kLight - direction))), 40) : 0;
    Vec3 rgb{};
    for (size_t i = 0; i < 3; ++i) rgb[i] = std::clamp(colour[i] * (sky + diffuse) + gloss, 0.0, 1.0);
    return rgb;
}

Sight look(const Vec3& origin, const Vec3& direction, double time) {
    const Moment moment(Stage::Disc, time);
    const Hit hit = first_hit(moment, origin, direction);
    if (hit.distance == kNothing) return {};
    return {true, shade(moment, hit, direction)};
}

Camera orbit(double azimuth, double elevation) {
    const Vec3 back{std::cos(elevation) * std::cos(azimuth), std::cos(elevation) * std::sin(azimuth),
                    std::sin(elevation)};
    const Vec3 right = unit(cross({0, 0, 1}, back)), up = cross(back, right);
    Camera camera;
    for (size_t row = 0; row < 3; ++row) camera.to_world[row] = {right[row], up[row], back[row], 4 * back[row]};
    camera.to_world[3] = {0, 0, 0, 1};
    return camera;
}

Vec3 ray_direction(const Camera& camera, int64_t size, double column, double row) {
    const double half = 0.5 * static_cast<double>(size), focal = half / std::tan(0.5 * camera.fov_x);
    const Vec3 local{(column - half) / focal, -(row - half) / focal, -1};
    Vec3 out{};
    for (size_t i = 0; i < 3; ++i)
        out[i] = camera.to_world[i][0] * local[0] + camera.to_world[i][1] * local[1] + camera.to_world[i][2] * local[2];
    return unit(out);
}

Image picture(const Camera& camera, double time, int64_t size, int64_t grid) {
    Image image{size, size, std::vector<uint8_t>(static_cast<size_t>(size * size * 4))};
    const Vec3 origin{camera.to_world[0][3], camera.to_world[1][3], camera.to_world[2][3]};
    const double rays = static_cast<double>(grid * grid), step = 1.0 / static_cast<double>(grid);
    for (int64_t row = 0; row < size; ++row)
        for (int64_t column = 0; column < size; ++column) {
            Vec3 sum{};
            double hits = 0;
            for (int64_t sub = 0; sub < grid * grid; ++sub) {
                const double x = static_cast<double>(column) + (static_cast<double>(sub % grid) + 0.5) * step;
                const double y = static_cast<double>(row) + (static_cast<double>(sub / grid) + 0.5) * step;
                const Sight sight = look(origin, ray_direction(camera, size, x, y), time);
                if (sight.hit) sum = sum + sight.rgb, hits += 1;
            }
            uint8_t* pixel = &image.rgba[static_cast<size_t>((row * size + column) * 4)];
            for (size_t i = 0; i < 3; ++i) pixel[i] = hits > 0 ? byte(sum[i] / hits) : 0;
            pixel[3] = byte(hits / rays);
        }
    return image;
}

}  // namespace heddle::models
