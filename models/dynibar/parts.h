// The parts of a DynIBaR step, see part.h.
// Law: each part is the model's own code; inputs are made from a seed, rounded to float32 whatever the dtype.
#pragma once

#include <functional>
#include <memory>

#include "models/dynibar/dynibar.h"
#include "models/part.h"

namespace heddle::models {

// "feature_net", "motion_mlp", "trajectory", "projection", "dynamic_net", "static_net", "compositing", "losses" (of the phase `moving`) and
// "iteration": the whole step's. Its jitter is given, so that float32 and float64 see the same samples.
std::vector<Part> dynibar_parts(std::shared_ptr<Dynibar> model, uint64_t seed, at::ScalarType dtype = at::kFloat);

// The inputs of one whole step, from a video of noise: the first one after the bootstrap.
StepInputs dynibar_step_inputs(const DynibarConfig& config, uint64_t seed, at::ScalarType dtype = at::kFloat);

// Those of any step of a run on such a video.
std::function<StepInputs(int64_t iteration)> dynibar_steps(const DynibarConfig& config, uint64_t seed, at::ScalarType dtype = at::kFloat);

// Draws the coefficients' last layer, which starts at zero: points move, as in the midst of training.
void stir(Dynibar& model, uint64_t seed);

}  // namespace heddle::models
