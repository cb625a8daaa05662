// What `train --fused` does to a loss function.
#include "frontends/torch/fuse.h"
#include "tools/cli.h"

namespace heddle {

models::Wrap fused_wrap() {
  return [](models::StepFn eager, const std::vector<at::Tensor>& example) -> models::StepFn {
    FuseOptions options;
    options.name = "loss";
    options.eager_if_uncapturable = false;
    for (int k = 0; k < static_cast<int>(example.size()); ++k)
      if (example[static_cast<size_t>(k)].dim() > 0) options.dynamic.push_back({.input = k, .tensor = {}, .dim = 0, .name = "B"});
    return [fused = fuse(std::move(eager), example, options)](const std::vector<at::Tensor>& in) { return fused(in); };
  };
}

}  // namespace heddle
