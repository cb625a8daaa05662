// The training loop, the same for every model and for eager and fused loss functions.
// Law: with the same seed an eager run repeats bit by bit, and a resumed run equals one that never stopped.
#pragma once

#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>

#include <map>
#include <string>
#include <vector>

#include "models/data/blender.h"
#include "models/task.h"

namespace heddle::models {

struct TrainOptions {
    uint64_t seed = 0;       // of the order of rays, where the task is one of rays; the caller seeds PyTorch's generator before it builds the model
    int64_t stop_after = 0;  // iterations of the schedule after which to stop; 0: all
    at::ScalarType dtype = at::kFloat;
    at::Device device = at::kCPU;
    MakeStep make_step;      // none: eager
    std::string checkpoint;  // written every `checkpoint_every` iterations and at the end
    int64_t checkpoint_every = 500;
    std::string resume;
    std::string out;                         // directory for rendered held-out views
    std::string log;                         // JSON
    int64_t evaluate_every = 0;              // 0: at the end alone
    std::map<std::string, std::string> run;  // words that must agree between a checkpoint and the run that resumes it
    bool quiet = false;
};

struct Evaluation {
    int64_t iteration;  // after how many
    double psnr;        // mean over views, dB
    std::vector<double> views;
};

struct TrainResult {
    int64_t first = 0, iterations = 0;        // where this run began, and how many iterations are behind it in all
    double seconds = 0;                       // in steps alone: no evaluation, no files
    std::vector<std::vector<double>> losses;  // per iteration, in the order of Task::terms
    std::vector<Evaluation> evaluations;
};

// Throws Error when a loss isn't finite, naming the iteration and the term.
TrainResult train(const Task& task, const Feed& feed, const HeldOut& held_out, const TrainOptions& options);

// Trains on `data` (rays in any number) and measures on `held_out` (whole views; may have none).
TrainResult train(const RayTask& task, const BlenderSplit& data, const BlenderSplit& held_out,
                  const TrainOptions& options);

}  // namespace heddle::models
