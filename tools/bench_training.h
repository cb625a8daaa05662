// Trains a model's first steps eager, fused and eager in float64, from one start on one sequence of steps: do the runs stay together, and what
// does the fused one compile or wait for once it's under way?
// Law: all three see the same numbers, made in float32; each step is timed in CPU time of the process, eager and fused in turns.
#pragma once

#include <functional>
#include <nlohmann/json.hpp>

#include "tools/subject.h"

namespace heddle {

// Of each run's losses, in every step; of the fused one what the report of its step says in each phase of the schedule: a phase is another loss
// function, hence another step. Prints a summary.
nlohmann::json bench_training(const std::function<Subject(at::ScalarType)>& make, int64_t steps);

}  // namespace heddle
