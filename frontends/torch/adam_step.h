// Forward, loss, backward and Adam as one plan, which writes parameters and the optimiser's state in place. TrainStep (train_step.h) and Python's
// heddle.TrainStep are this with an optimiser of PyTorch's around it.
// Law: after a step, parameters, state and results are those that eager PyTorch and torch.optim.Adam would have; where the loss can't be captured
// nothing is touched, and the reason is said. Gradients exist only within the step: Tensor::grad is neither read nor written.
#pragma once
#include "frontends/torch/fuse.h"

namespace heddle {

struct AdamGroup {                       // numbers may change with each step; flags make another plan
    double lr = 1e-3, beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weight_decay = 0;
    bool decoupled = false, amsgrad = false, maximize = false;  // decoupled: AdamW
};
struct AdamParameter {
    at::Tensor parameter;                // a leaf
    at::Tensor step;                     // one number on the CPU, of any type: how many updates it has had
    at::Tensor exp_avg, exp_avg_sq, max_exp_avg_sq;  // like the parameter. Undefined: zeros, made at its first update
    std::size_t group = 0;
};

class AdamStep {
public:
    // `loss`: as for heddle::fuse; its first result is minimised. Tensors that it holds are read anew at each step.
    // `restride`: a parameter that is looked up by rows that don't lie together is laid out anew, once, so that they do: its values and sizes stay,
    // its strides change (as Tensor::to(memory_format) does).
    AdamStep(Callable loss, std::vector<AdamParameter>, FuseOptions = {}, bool restride = true);
    // One step. Returns the loss's results, detached; nothing if it can't be fused for these inputs: nothing has changed then, and
    // report().eager_reason says why. Memory of results is used again once nobody holds them.
    std::optional<Tensors> operator()(at::TensorList inputs, const std::vector<AdamGroup>&);
    const std::vector<AdamParameter>& parameters() const;   // with their states
    void parameters(std::vector<AdamParameter>);            // others: after an upsampling, or of a checkpoint
    struct Report {
        int launches = 0, calls = 0, host_reads = 0;         // of the last step: kernels; library calls; times that the host waits for values
        int in_place = 0, copied = 0;                        // tensors that are updated in place; and by a copy after the step
        std::int64_t bytes = 0, arena = 0;                   // moved, if every buffer is read or written once a launch; intermediate memory
        std::int64_t allocations = 0;                        // of memory, in all steps so far
        std::vector<std::string> library_calls;
        std::string eager_reason;
        int captures = 0, compiles = 0;                      // so far: of the loss, one for each size; of whole steps, each for all sizes that it can
        double capture_seconds = 0, plan_seconds = 0;        // so far: of captures, and of what follows where no plan holds
    };
    Report report() const;
    std::string explain() const;
    std::vector<std::pair<std::string, std::string>> cuda_kernels() const;

    struct State;

private:
    std::shared_ptr<State> state_;
};

}  // namespace heddle
