// What the trainer asks of a model: functions, so that a model needs no base class and a fused loss can stand in.
// Law: the loss function reads everything that changes from step to step from its inputs.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
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

// A dimension of one of a step's inputs that may change between steps; those that share a name are equal.
struct VaryingSize {
    int input, dim;
    std::string name;
};

// What a step of the schedule altered: nothing, what the loss function reads (the step is made again), or the parameters
// themselves (the optimiser starts anew as well).
enum class Change { none, loss, parameters };

struct Task {
    std::string model;
    std::vector<std::string> terms;  // names of the loss function's results; [0] is the sum, [1] the mean squared error
    int64_t iterations = 0;          // length of the schedule
    std::array<double, 2> betas = {0.9, 0.999};  // of Adam

    StepFn loss;
    std::vector<VaryingSize> sizes;  // of its inputs
    std::function<std::map<std::string, at::Tensor>()> parameters;  // by name
    std::function<std::vector<ParameterGroup>()> groups;            // at the rates of the first iteration
    std::function<double(int64_t iteration)> rate_factor;           // multiplies the rates
    std::function<Change(int64_t iteration)> after;  // the schedule, called after each iteration

    // What else a checkpoint must hold. `restore` also gives the parameters the shapes they had.
    std::function<std::map<std::string, at::Tensor>()> state;
    std::function<void(const std::map<std::string, at::Tensor>&)> restore;
};

// Where a run's steps come from: the loss function's inputs, in the run's dtype and on its device.
struct Feed {
    std::function<std::vector<at::Tensor>(int64_t iteration)> next;
    std::function<at::Tensor()> position;  // what a checkpoint holds to go on
    std::function<void(const at::Tensor&)> seek;
};

// Pictures that aren't trained on.
struct HeldOut {
    at::Tensor pictures;                 // [views, height, width, 3] in [0, 1], float32 on the CPU; undefined: none
    std::function<at::Tensor()> render;  // the same, as the model has them now
};

// rays [B, 6], rgb [B, 3], time [B, 1].
struct Batch {
    at::Tensor rays, rgb, time;
};

// A model of rays, each on its own, at a time: its steps are batches of any rays of all pictures.
struct RayTask : Task {
    int64_t rays = 0;  // per iteration
    std::function<std::vector<at::Tensor>(const Batch&, int64_t iteration)> inputs;
    std::function<at::Tensor(const at::Tensor& rays, const at::Tensor& time)> render;  // -> rgb [B, 3], no gradient
};

}  // namespace heddle::models
