// Derives the schedule of a DynIBaR run. The original counts epochs (as many iterations as frames); a span is its init_decay_epoch of them.
#include "models/dynibar/config.h"

#include <algorithm>
#include <cmath>

#include "models/error.h"

namespace heddle::models {

DynibarConfig dynibar_config(const std::string& scale) {
    DynibarConfig c;
    c.scale = scale;
    if (scale == "full") return c;
    if (scale == "thesis") {
        c.rays = 64;
        c.samples = 128;
        return c;
    }
    if (scale == "demo") {
        c.rays = 96;
        c.samples = 32;
        c.static_views = 3;
        c.static_range = 12;
        c.virtual_views = 1;
        c.iterations = 300;
        c.decay = 0.25;
        c.height = 72;
        c.width = 96;
        c.erosion_radius = 1;
        return c;
    }
    if (scale == "tiny") {
        c.rays = 12;
        c.samples = 16;
        c.static_views = 2;
        c.static_range = 6;
        c.virtual_views = 1;
        c.iterations = 40;
        c.decay = 0.15;
        c.frames = 12;
        c.height = 24;
        c.width = 32;
        c.erosion_radius = 1;
        return c;
    }
    throw Error("unknown scale", scale, "use full, thesis, demo or tiny");
}

int64_t span_iterations(const DynibarConfig& c) {
    return std::max<int64_t>(2, std::llround(c.decay * static_cast<double>(c.iterations)));
}

int64_t bootstrap_iterations(const DynibarConfig& c) { return span_iterations(c) / 2; }

int64_t spans(const DynibarConfig& c, int64_t iteration) {
    return std::max<int64_t>(0, iteration - bootstrap_iterations(c)) / span_iterations(c);
}

Phase phase(const DynibarConfig& c, int64_t iteration) {
    if (iteration < bootstrap_iterations(c)) return Phase::bootstrap;
    const int64_t n = spans(c, iteration);
    return n == 0 ? Phase::moving : n <= 4 ? Phase::decayed : Phase::sparse;
}

double rate_factor(const DynibarConfig& c, int64_t iteration) {
    double factor = 1;
    for (int64_t n = spans(c, iteration); n > 0 && 0.5 * c.network_rate * factor > c.least_rate; --n)
        factor *= c.rate_decay;
    return factor;
}

double data_weight(const DynibarConfig& c, int64_t iteration) {
    return std::pow(c.data_decay, -static_cast<double>(spans(c, iteration)));
}

double cycle_weight(const DynibarConfig& c, int64_t iteration) {
    return std::min(c.most_cycle_weight, c.cycle_weight * (1 + static_cast<double>(spans(c, iteration))));
}

int64_t anchor_range(const DynibarConfig& c, int64_t iteration) {
    return std::min<int64_t>(3, spans(c, iteration) + 1);
}

}  // namespace heddle::models
