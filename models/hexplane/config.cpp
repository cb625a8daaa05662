// Derives the schedule of a HexPlane run; the table it must give is in tests/models_test.cpp.
#include "models/hexplane/config.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "models/error.h"

namespace heddle::models {
namespace {

// Step `i` of `n` on the geometric way from `first` to `last`, rounded. In float32 on purpose, here and below: the
// rounding of single precision is what makes the reference's last grid 199 and not 200.
double geometric(double first, double last, size_t i, size_t n) {
    if (n == 0) return first;
    const double share = static_cast<double>(i) / static_cast<double>(n);
    return std::round(std::exp(static_cast<float>(std::log(first) + (std::log(last) - std::log(first)) * share)));
}

// Cells per axis of a cube that holds `cells` cells: the box's edge over a cell's, rounded down.
int64_t cells_per_axis(double cells, double box) {
    const float extent = static_cast<float>(2 * box);
    const float edge =
        static_cast<float>(std::cbrt(static_cast<double>(extent * extent * extent / static_cast<float>(cells))));
    return static_cast<int64_t>(extent / edge);
}

std::vector<int64_t> at_fractions(const std::vector<double>& fractions, int64_t iterations) {
    std::vector<int64_t> out;
    for (double f : fractions) out.push_back(std::llround(f * static_cast<double>(iterations)));
    return out;
}

}  // namespace

HexPlaneConfig hexplane_config(const std::string& scale) {
    HexPlaneConfig c;
    c.scale = scale;
    if (scale == "full") return c;
    if (scale == "demo") {  // a good picture of `heddle data bouncing-balls` after a minute of one CPU core
        c.rays = 768;
        c.iterations = 350;
        c.grid_first = 24;
        c.grid_last = 40;
        c.time_first = 12;
        c.time_last = 16;
        c.step_ratio = 1.0;
        c.upsample_after = {0.4};
        c.emptiness_after = {0.25, 0.6};
        c.emptiness_times = 16;
        c.plane_rate = 0.08;  // a run this short needs faster planes; a faster network learns fog instead
        c.network_rate = 0.002;
        return c;
    }
    if (scale == "tiny") {
        c.rays = 64;
        c.iterations = 20;
        c.grid_first = 12;
        c.grid_last = 16;
        c.time_first = 6;
        c.time_last = 8;
        c.upsample_after = {0.4};
        c.emptiness_after = {0.6};
        c.emptiness_times = 8;
        return c;
    }
    char* end = nullptr;
    const double s = std::strtod(scale.c_str(), &end);
    if (scale.empty() || *end != '\0' || !(s > 0 && s <= 1))
        throw Error("unknown scale", scale, "use full, demo, tiny or a number above 0 and up to 1");
    const auto shrink = [s](int64_t n, int64_t least) {
        return std::max(least, static_cast<int64_t>(std::llround(s * static_cast<double>(n))));
    };
    c.rays = shrink(c.rays, 16);
    c.grid_first = shrink(c.grid_first, 8);
    c.grid_last = shrink(c.grid_last, c.grid_first);
    return c;
}

std::vector<Stage> stages(const HexPlaneConfig& c) {
    const auto after = upsample_iterations(c);
    std::vector<Stage> out;
    for (size_t i = 0; i <= after.size(); ++i) {
        const double cubed = geometric(std::pow(c.grid_first, 3), std::pow(c.grid_last, 3), i, after.size());
        Stage s{};
        s.from = i == 0 ? 0 : after[i - 1] + 1;
        s.grid = i == 0 ? c.grid_first : cells_per_axis(cubed, c.box);
        s.time = static_cast<int64_t>(
            geometric(static_cast<double>(c.time_first), static_cast<double>(c.time_last), i, after.size()));
        const double grid = static_cast<double>(s.grid);
        // Training: the grid's diagonal in cells, over step_ratio. Rendering: the box's diagonal over the length of a
        // step, where a cell is the box's edge / (grid - 1) because grid points lie on the corners.
        s.samples = static_cast<int64_t>(grid * std::sqrt(3.0) / c.step_ratio);
        s.eval_samples = static_cast<int64_t>((grid - 1) * std::sqrt(3.0) / c.step_ratio) + 1;
        out.push_back(s);
    }
    return out;
}

std::vector<int64_t> upsample_iterations(const HexPlaneConfig& c) {
    return at_fractions(c.upsample_after, c.iterations);
}

std::vector<int64_t> emptiness_iterations(const HexPlaneConfig& c) {
    return at_fractions(c.emptiness_after, c.iterations);
}

double rate_factor(const HexPlaneConfig& c, int64_t iteration) {
    return std::pow(c.rate_end, static_cast<double>(iteration) / static_cast<double>(c.iterations));
}

}  // namespace heddle::models
