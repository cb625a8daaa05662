// The sizes and the schedule of a DynIBaR run on a monocular video, at the paper's scale or smaller.
// Law: everything that depends on scale or on the run's length is derived here, from one struct.
// Source: DynIBaR, Li et al. 2023, its configuration `train_kid-running`.
#pragma once

#include <cstdint>
#include <string>

namespace heddle::models {

struct DynibarConfig {
    std::string scale = "full";

    // What a step costs.
    int64_t rays = 3072;        // per iteration, all of one frame
    int64_t samples = 64;       // per ray
    int64_t static_views = 7;   // source views of the static part in each direction: at most twice as many
    int64_t static_range = 42;  // frames within which they lie, in each direction
    int64_t virtual_views = 3;  // of a frame's moment, drawn each step for the dynamic part; where the video has some
    int64_t iterations = 400000;
    double decay = 0.1;  // of `iterations`: after each such span the losses from data and the rates shrink

    // The seeded video that benches use; a real one brings its own sizes.
    int64_t frames = 24;   // also the rows of the trajectory basis
    int64_t height = 288, width = 512;

    // The model.
    int64_t feature_channels = 32;  // of a view's feature map that the networks read; the CNN makes twice as many
    int64_t basis = 6;              // trajectories are combinations of so many
    double density_shift = 5.0;     // of the dynamic part
    int64_t erosion_radius = 3;     // pixels by which motion masks shrink

    // The optimiser. The static part's networks learn at half these rates.
    double feature_rate = 8e-4;
    double network_rate = 4e-4;
    double basis_rate = 1e-4;
    double rate_decay = 0.5;   // after each span
    double least_rate = 5e-7;  // the static network's rate falls no further once it's below

    // Weights of the losses.
    double disparity_weight = 0.1;
    double flow_weight = 0.01;
    double data_decay = 10.0;   // after each span: of the two above and of the dynamic part's own colours
    double cycle_weight = 0.1;  // and so much more after each span, up to `most_cycle_weight`
    double most_cycle_weight = 0.5;
    double scene_flow_weight = 0.05;
    double entropy_weight = 5e-4;
    double distortion_weight = 1e-3;
    double sparsity_weight = 0.1;
};

// Which losses there are. `bootstrap`: colours of the static part alone. Then all; in `moving`, the first span, also the
// dynamic part's colours within the composite; in `sparse`, from the sixth span, no dynamic part where all is static.
enum class Phase { bootstrap, moving, decayed, sparse };

// The config for `scale`: "full" (the original), "thesis" (its profiled step: 64 rays x 128 samples), "demo" or "tiny". Throws Error on
// anything else.
DynibarConfig dynibar_config(const std::string& scale);

// Iterations of a span, and of the bootstrap, which is half of one.
int64_t span_iterations(const DynibarConfig& config);
int64_t bootstrap_iterations(const DynibarConfig& config);

// Spans behind `iteration`, counted from the end of the bootstrap; 0 in it.
int64_t spans(const DynibarConfig& config, int64_t iteration);
Phase phase(const DynibarConfig& config, int64_t iteration);

// Multiplies learning rates.
double rate_factor(const DynibarConfig& config, int64_t iteration);

// Multiplies the losses from data: data_decay^-spans. And the weight of the cycle consistency.
double data_weight(const DynibarConfig& config, int64_t iteration);
double cycle_weight(const DynibarConfig& config, int64_t iteration);

// The most frames between a step's frame and its anchor: 1, 2, then 3.
int64_t anchor_range(const DynibarConfig& config, int64_t iteration);

}  // namespace heddle::models
