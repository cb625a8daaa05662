// The parts of a HexPlane step as functions of their own, with inputs of the size a step has: what a bench or a test runs alone.
// Law: each part is the model's own code; inputs are made from a seed.
#pragma once

#include <memory>

#include "models/hexplane/hexplane.h"
#include "models/task.h"

namespace heddle::models {

struct Part {
  struct Size {
    int input, dim;
    std::string name;
  };
  std::string name;
  StepFn run;
  std::vector<at::Tensor> inputs;  // those of floating point that a gradient flows to require it
  std::vector<Size> sizes;         // which dimensions may change, by name
};

// "sample_rays", "density_feature", "volume_rendering", "colour", "loss_block", "iteration". Rays come from cameras on a sphere of radius
// 4 that look at the centre; planes are as the model has them.
std::vector<Part> hexplane_parts(std::shared_ptr<HexPlane> model, uint64_t seed, at::ScalarType dtype = at::kFloat);

// The inputs of one whole step: rays, rgb, time, the two TV weights.
std::vector<at::Tensor> hexplane_step_inputs(const HexPlane& model, uint64_t seed, at::ScalarType dtype = at::kFloat);

// Raises the density planes until the scene is partly opaque, so that the colour branch is taken as in the midst of training.
void thicken(HexPlane& model, uint64_t seed);

}  // namespace heddle::models
