// A model by name as `heddle bench` and `heddle dump` take it: in the midst of training, with parts and a step to run.
#pragma once

#include <torch/nn/module.h>

#include <array>
#include <memory>
#include <string>
#include <vector>

#include "models/part.h"

namespace heddle {

struct Subject {
  std::shared_ptr<torch::nn::Module> module;
  std::vector<models::Part> parts;  // the last one is a whole step's loss
  std::vector<models::ParameterGroup> groups;
  std::array<double, 2> betas;      // of Adam
  std::string size;                 // what its steps cost, in words
};

// The same model each time for a seed. `midst`: as in the midst of training; else as it starts. Throws Error for an unknown model or scale.
Subject make_subject(const std::string& model, const std::string& scale, uint64_t seed, bool midst, at::ScalarType dtype = at::kFloat);

// For help texts and errors.
inline constexpr const char* kModels = "hexplane or dynibar";
inline constexpr const char* kScales = "full, demo, tiny, for dynibar also thesis, for hexplane also a number up to 1";

}  // namespace heddle
