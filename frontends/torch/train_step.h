// heddle::TrainStep: one call is forward, loss, backward, zero_grad and an optimiser's step.
// Law: afterwards parameters and the optimiser's state are what eager libtorch would have made of them; a step that can't be fused runs eagerly,
// with the reason in report(). Gradients aren't kept: where the step is fused, Tensor::grad is neither read nor written.
#pragma once
#include <torch/optim/optimizer.h>

#include "frontends/torch/adam_step.h"

namespace heddle {

class TrainStep {
public:
    // `loss`: as for heddle::fuse; its first result is minimised. `optimiser`: torch::optim::Adam or AdamW, whose options may change between steps
    // and whose state is read and written where it is, so that it's saved and loaded as ever. It outlives the step. Another optimiser runs eagerly.
    // A capturable step counts on the device: the optimiser's state has the numbers of steps after note().
    TrainStep(Callable loss, torch::optim::Optimizer& optimiser, FuseOptions = {}, StepOptions = {});
    // The loss's results, detached. `wait`: see AdamStep; a step that isn't fused then throws Error.
    Tensors operator()(at::TensorList inputs, bool wait = true);
    // States that were made, and numbers of steps, go to the optimiser. A step does so itself, but for the numbers where it is capturable.
    void note() { note(true); }
    at::Tensor failed() const { return step_.failed(); }
    const std::string& eager_reason() const { return reason_; }  // of the last step: not empty if it ran eagerly
    AdamStep::Report report() const;
    std::string explain() const { return step_.explain(); }
    std::vector<std::pair<std::string, std::string>> cuda_kernels() const { return step_.cuda_kernels(); }

private:
    std::vector<AdamGroup> groups() const;
    std::vector<AdamParameter> parameters() const;
    void note(bool count);
    std::vector<std::int64_t> noted_;           // numbers of steps that the optimiser's state has
    Callable loss_;
    torch::optim::Optimizer& optimiser_;
    const bool capturable_;
    AdamStep step_;
    std::string reason_;
};

}  // namespace heddle
