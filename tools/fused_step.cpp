// What `train --fused` makes of a loss function and its optimiser: heddle::TrainStep. What can't be fused is an error here, not a slow run.
#include "frontends/torch/train_step.h"
#include "models/error.h"
#include "tools/cli.h"

namespace heddle {

models::MakeStep fused_step(const models::Task& task) {
  return [sizes = task.sizes](models::StepFn loss, torch::optim::Optimizer& optimiser) -> models::StepFn {
    FuseOptions options;
    options.name = "step";
    for (const auto& s : sizes) options.dynamic.push_back({.input = s.input, .tensor = {}, .dim = s.dim, .name = s.name});
    return [step = std::make_shared<TrainStep>(std::move(loss), optimiser, options)](const std::vector<at::Tensor>& in) {
      auto results = (*step)(in);
      if (const auto& why = step->eager_reason(); !why.empty()) throw models::Error("step", why, "this model doesn't fuse; use --eager");
      return results;
    };
  };
}

}  // namespace heddle
