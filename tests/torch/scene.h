// A small set of rays with colours, for tests that train. Law: the same each time.
#pragma once
#include <ATen/ATen.h>

#include "models/data/blender.h"

namespace heddle::testing {

inline models::BlenderSplit random_rays(at::ScalarType t) {
    at::manual_seed(8);
    const std::int64_t n = 300;
    at::Tensor origin = at::randn({n, 3}), target = at::rand({n, 3}) * 1.6 - 0.8;
    origin = origin / origin.norm(2, -1, true) * 4;
    at::Tensor direction = (target - origin) / (target - origin).norm(2, -1, true);
    models::BlenderSplit s;
    s.rays = at::cat({origin, direction}, 1).to(t), s.rgb = at::rand({n, 3}).to(t), s.time = (at::rand({n, 1}) * 2 - 1).to(t);
    s.views = 1, s.width = n, s.height = 1;
    return s;
}

}  // namespace heddle::testing
