// Reads scenes in Blender's layout (D-NeRF's data sets and `heddle data`) into rays.
// Law: float32 on the CPU, pixels row by row, view after view; times mapped from [0, 1] to [-1, 1]; white behind.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>

namespace heddle::models {

struct BlenderSplit {
    at::Tensor rays;                           // [n, 6]: origin, unit direction
    at::Tensor rgb;                            // [n, 3] in [0, 1]
    at::Tensor time;                           // [n, 1]
    int64_t views = 0, width = 0, height = 0;  // n = views * width * height unless rays were dropped
};

struct BlenderOptions {
    int64_t downsample = 0;   // whole pixels averaged along each edge; 0: the least that gives at most 400 pixels
    int64_t max_views = 0;    // evenly spread over the split; 0: all
    double drop_outside = 0;  // half edge of the box whose missing rays are dropped; 0: keep all
};

// `split` is train, val or test. Throws Error for anything missing or malformed.
BlenderSplit load_blender(const std::string& directory, const std::string& split, const BlenderOptions& options = {});

// Which rays [n, 6] pass the box [-box, box]^3: bool [n].
at::Tensor meets_box(const at::Tensor& rays, double box);

}  // namespace heddle::models
