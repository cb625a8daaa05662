// The sizes and the schedule of a HexPlane run, at the paper's scale or smaller.
// Law: everything that depends on scale or on the run's length is derived here, from one struct.
// Source: HexPlane, Cao and Johnson 2023, the `dnerf_slim` setting.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace heddle::models {

struct HexPlaneConfig {
    std::string scale = "full";

    // What a run costs.
    int64_t rays = 4096;         // rays per iteration
    int64_t iterations = 25000;  // the schedule below stretches with it
    int64_t grid_first = 64;     // cells per spatial axis before the first upsampling
    int64_t grid_last = 200;     // and the target after the last: 199, see `stages`
    int64_t time_first = 16;
    int64_t time_last = 24;
    std::vector<double> upsample_after = {0.12, 0.24, 0.36};   // fractions of `iterations`: 3000, 6000, 9000 of 25000
    std::vector<double> emptiness_after = {0.16, 0.32, 0.40};  // 4000, 8000, 10000
    int64_t emptiness_times = 64;                              // moments over which a cell must be empty

    // The model.
    int64_t density_channels = 24;
    int64_t app_channels = 48;
    int64_t app_features = 27;
    int64_t hidden = 128;
    int64_t frequencies = 2;  // of the positional encodings of features and directions
    double init_scale = 0.1;
    double init_shift = 0.0;
    double density_shift = -10.0;
    double distance_scale = 25.0;
    double step_ratio = 0.5;  // samples per cell diagonal
    double box = 1.5;         // the scene lies in [-box, box]^3
    double near = 2.0;        // distances along a ray
    double far = 6.0;
    double weight_floor = 1e-4;     // samples that weigh less get no colour
    double emptiness_floor = 1e-3;  // opacity of one step below which a cell is empty

    // The optimiser.
    double plane_rate = 0.02;
    double network_rate = 0.001;
    double rate_end = 0.1;  // learning rates and TV weights end at this fraction of their start
    double tv_weight_density = 1e-4;
    double tv_weight_app = 1e-4;
};

struct Stage {
    int64_t from;          // first iteration, 0-based
    int64_t grid;          // cells per spatial axis
    int64_t time;          // cells of the time axis
    int64_t samples;       // per ray, in training
    int64_t eval_samples;  // per ray, when a view is rendered
};

// The config for `scale`: "full", "demo", "tiny" or a number s in (0, 1], which multiplies the grid and the rays.
// Throws Error on anything else.
HexPlaneConfig hexplane_config(const std::string& scale);

// The schedule: one stage at the start and one after each upsampling, at geometric steps in the number of cells.
std::vector<Stage> stages(const HexPlaneConfig& config);

// Iterations after which the planes grow, and after which the emptiness mask is rebuilt (0-based, ascending).
std::vector<int64_t> upsample_iterations(const HexPlaneConfig& config);
std::vector<int64_t> emptiness_iterations(const HexPlaneConfig& config);

// rate_end^(iteration / iterations): multiplies learning rates and TV weights.
double rate_factor(const HexPlaneConfig& config, int64_t iteration);

}  // namespace heddle::models
