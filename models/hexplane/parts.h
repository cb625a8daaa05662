// The parts of a HexPlane step, see part.h.
// Law: each part is the model's own code; inputs are made from a seed.
#pragma once

#include <memory>

#include "models/hexplane/hexplane.h"
#include "models/part.h"

namespace heddle::models {

// "sample_rays", "density_feature", "volume_rendering", "colour", "loss_block", "iteration". Rays come from cameras on a sphere of radius
// 4 that look at the centre; planes are as the model has them.
std::vector<Part> hexplane_parts(std::shared_ptr<HexPlane> model, uint64_t seed, at::ScalarType dtype = at::kFloat);

// The inputs of one whole step: rays, rgb, time, the two TV weights.
std::vector<at::Tensor> hexplane_step_inputs(const HexPlane& model, uint64_t seed, at::ScalarType dtype = at::kFloat);

// Raises the density planes until the scene is partly opaque, so that the colour branch is taken as in the midst of training.
void thicken(HexPlane& model, uint64_t seed);

}  // namespace heddle::models
