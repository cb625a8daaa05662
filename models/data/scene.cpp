// The bouncing balls, traced. Plain doubles and libm: no randomness, so that a picture can be checked pixel by pixel.
#include "models/data/scene.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace heddle::models {
namespace {

Vec3 operator+(const Vec3& a, const Vec3& b) { return {a[0] + b[0], a[1] + b[1], a[2] + b[2]}; }
Vec3 operator-(const Vec3& a, const Vec3& b) { return {a[0] - b[0], a[1] - b[1], a[2] - b[2]}; }
Vec3 operator*(const Vec3& a, double s) { return {a[0] * s, a[1] * s, a[2] * s}; }
double dot(const Vec3& a, const Vec3& b) { return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]; }
Vec3 cross(const Vec3& a, const Vec3& b) {
    return {a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]};
}
Vec3 unit(const Vec3& a) { return a * (1.0 / std::sqrt(dot(a, a))); }

constexpr double kNothing = std::numeric_limits<double>::infinity();
constexpr double kGroundHeight = -0.75, kGroundRadius = 1.4, kTile = 0.5;

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

double ground_distance(const Vec3& origin, const Vec3& direction) {
    if (direction[2] == 0) return kNothing;
    const double t = (kGroundHeight - origin[2]) / direction[2];
    if (t <= 1e-6) return kNothing;
    const Vec3 p = origin + direction * t;
    return p[0] * p[0] + p[1] * p[1] <= kGroundRadius * kGroundRadius ? t : kNothing;
}

Vec3 ground_colour(const Vec3& p) {
    const bool light =
        (static_cast<int64_t>(std::floor(p[0] / kTile)) + static_cast<int64_t>(std::floor(p[1] / kTile))) % 2 == 0;
    return light ? Vec3{0.78, 0.76, 0.72} : Vec3{0.58, 0.60, 0.66};
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

Sight look(const Vec3& origin, const Vec3& direction, double time) {
    const auto spheres = balls(time);
    double nearest = ground_distance(origin, direction);
    const Sphere* seen = nullptr;
    for (const auto& s : spheres) {
        const double t = sphere_distance(s, origin, direction);
        if (t < nearest) nearest = t, seen = &s;
    }
    if (nearest == kNothing) return {};

    const Vec3 point = origin + direction * nearest;
    Vec3 normal = seen ? unit(point - seen->centre) : Vec3{0, 0, 1};
    if (dot(normal, direction) > 0) normal = normal * -1;  // the ground seen from below
    const Vec3 albedo = seen ? seen->rgb : ground_colour(point);
    const Vec3 light = unit({0.5, -0.4, 1.0});
    const Vec3 lifted = point + normal * 1e-4;
    bool lit = dot(normal, light) > 0;
    for (const auto& s : spheres) lit = lit && sphere_distance(s, lifted, light) == kNothing;

    const double sky = 0.30 + 0.12 * normal[2];
    const double diffuse = lit ? 0.68 * dot(normal, light) : 0;
    const double gloss = lit && seen ? 0.35 * std::pow(std::max(0.0, dot(normal, unit(light - direction))), 40) : 0;
    Vec3 rgb{};
    for (size_t i = 0; i < 3; ++i) rgb[i] = std::clamp(albedo[i] * (sky + diffuse) + gloss, 0.0, 1.0);
    return {true, rgb};
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
