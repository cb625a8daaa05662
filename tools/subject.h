// A model by name as `heddle bench` and `heddle dump` take it: as it starts or in the midst of training, with parts and steps to run.
#pragma once

#include <torch/nn/module.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "models/part.h"

namespace heddle {

struct Subject {
  std::shared_ptr<torch::nn::Module> module;
  std::vector<models::Part> parts;  // the last one is a whole step's loss
  models::Task task;
  std::function<std::vector<at::Tensor>(int64_t iteration)> inputs;  // the task's; the same numbers in either precision
  std::string size;                                                  // what its steps cost, in words
};

struct SubjectOptions {
  uint64_t seed = 0;
  bool midst = true;  // as in the midst of training; else as it starts
  at::ScalarType dtype = at::kFloat;
  int64_t iterations = 0;  // length of the schedule; 0: the scale's
};

// The same model each time for a seed. Throws Error for an unknown model or scale.
Subject make_subject(const std::string& model, const std::string& scale, const SubjectOptions& options);

// For help texts and errors.
inline constexpr const char* kModels = "hexplane or dynibar";
inline constexpr const char* kScales = "full, demo, tiny, for dynibar also thesis, for hexplane also a number up to 1";

}  // namespace heddle
