// Several recordings of one callable as one graph. Law: the graph, with a run's sizes put in, is that run's recording.
#pragma once
#include "frontends/capture/fit.h"
#include "frontends/capture/recorder.h"

namespace heddle {

// `sizes`: the named sizes, one map per run. Throws Error where runs differ in more than integers that `sizes` explain.
Captured merge(const std::vector<Recording>& runs, const std::vector<Sizes>& sizes, std::size_t arguments, const std::string& name);

}  // namespace heddle
