// A part of a model's step as a function of its own, with inputs of the size a step has: what a bench or a test runs alone.
// Law: each part is the model's own code; inputs are made from a seed.
#pragma once

#include <string>
#include <vector>

#include "models/task.h"

namespace heddle::models {

struct Part {
  std::string name;
  StepFn run;
  std::vector<at::Tensor> inputs;  // those of floating point that a gradient flows to require it
  std::vector<VaryingSize> sizes;
};

}  // namespace heddle::models
