// What the trainer asks of a model: functions, so that a model needs no base class and a fused loss can stand in.
// Law: the loss function reads everything that changes from step to step from its inputs.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

namespace torch::optim {
class Optimizer;
}

namespace heddle::models {

// The function that a step calls: inputs to {loss, the terms it's the sum of}.
using StepFn = std::function<std::vector<at::Tensor>(const std::vector<at::Tensor>&)>;

// Makes one function of a loss and its optimiser, e.g. a fused one: a call gives the loss's results, detached, and has trained once.
using MakeStep = std::function<StepFn(StepFn loss, torch::optim::Optimizer&)>;

struct ParameterGroup {
    std::vector<at::Tensor> parameters;
    double rate;
};

// rays [B, 6], rgb [B, 3], time [B, 1].
struct Batch {
    at::Tensor rays, rgb, time;
};

// What a step of the schedule altered: nothing, what the loss function reads (the step is made again), or the parameters
// themselves (the optimiser starts anew as well).
enum class Change { none, loss, parameters };

struct Task {
    std::string model;
    std::vector<std::string> terms;  // names of the loss function's results; [0] is the sum, [1] the mean squared error
    int64_t rays = 0;                // per iteration
    int64_t iterations = 0;          // length of the schedule

    StepFn loss;
    std::function<std::map<std::string, at::Tensor>()> parameters;  // by name
    std::function<std::vector<ParameterGroup>()> groups;            // at the rates of the first iteration
    std::function<double(int64_t iteration)> rate_factor;           // multiplies the rates
    std::function<std::vector<at::Tensor>(const Batch&, int64_t iteration)> inputs;
    std::function<Change(int64_t iteration)> after;  // the schedule, called after each iteration
    std::function<at::Tensor(const at::Tensor& rays, const at::Tensor& time)> render;  // -> rgb [B, 3], no gradient

    // What else a checkpoint must hold. `restore` also gives the parameters the shapes they had.
    std::function<std::map<std::string, at::Tensor>()> state;
    std::function<void(const std::map<std::string, at::Tensor>&)> restore;
};

}  // namespace heddle::models
