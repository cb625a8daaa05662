// What `train --fused` makes of a loss function and its optimiser: heddle::TrainStep. What can't be fused is an error here, not a slow run.
#include "frontends/torch/train_step.h"
#include "models/error.h"
#include "tools/cli.h"

namespace heddle {

models::MakeStep fused_step() {
  return [](models::StepFn loss, torch::optim::Optimizer& optimiser) -> models::StepFn {
    FuseOptions options;
    options.name = "step";
    for (int k : {0, 1, 2}) options.dynamic.push_back({.input = k, .tensor = {}, .dim = 0, .name = "B"});
    return [step = std::make_shared<TrainStep>(std::move(loss), optimiser, options)](const std::vector<at::Tensor>& in) {
      auto results = (*step)(in);
      if (const auto& why = step->eager_reason(); !why.empty()) throw models::Error("step", why, "this model doesn't fuse; use --eager");
      return results;
    };
  };
}

}  // namespace heddle
