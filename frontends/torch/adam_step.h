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
    at::Tensor step;                     // one number on the CPU, of any type: how many updates it has had. capturable: float32, a view of all of them
    at::Tensor exp_avg, exp_avg_sq, max_exp_avg_sq;  // like the parameter. Undefined: zeros, made at its first update
    std::size_t group = 0;
};

struct StepOptions {
    // A parameter that is looked up by rows that don't lie together is laid out anew, once, so that they do: its values and sizes stay, its strides
    // change (as Tensor::to(memory_format) does).
    bool restride = true;
    // No kernel waits for the host: numbers of rows of masks stay on the device, in memory with room for some more than were seen, and branches
    // on values are taken as at capture. The host looks at both when all is under way, and repeats a step that didn't hold, which has changed
    // nothing. Not given: on CUDA, if the loss allows.
    std::optional<bool> bounded;
    // The plan counts its steps itself, in AdamParameter::step, then on the parameters' device; with `bounded` the work of a step is the same from
    // step to step and can be recorded as a CUDA graph.
    bool capturable = false;
};

class AdamStep {
public:
    // `loss`: as for heddle::fuse; its first result is minimised. Tensors that it holds are read anew at each step.
    AdamStep(Callable loss, std::vector<AdamParameter>, FuseOptions = {}, StepOptions = {});
    // One step. Returns the loss's results, detached; nothing if it can't be fused for these inputs: nothing has changed then, and
    // report().eager_reason says why. Memory of results is used again once nobody holds them.
    // `wait`: false while a CUDA graph is recorded: a step that doesn't hold changes nothing and isn't repeated; see failed().
    std::optional<Tensors> operator()(at::TensorList inputs, const std::vector<AdamGroup>&, bool wait = true);
    // Of a bounded plan's last step, on its device: i64[1 + masks], whether it didn't hold, then the rows of each mask. Undefined if it can't fail.
    at::Tensor failed() const;
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
        bool bounded = false;                                // no kernel waits for the host
        int repeated = 0;                                    // bounded steps that didn't hold and were run again, so far
        std::string waits;                                   // why it isn't bounded though that was wanted
    };
    Report report() const;
    std::string explain() const;
    std::vector<std::pair<std::string, std::string>> cuda_kernels() const;
    std::vector<Traffic> cuda_traffic() const;  // what they move at the last step's sizes, see runtime/traffic.h; nothing where it ran eagerly

    struct State;

private:
    std::shared_ptr<State> state_;
};

}  // namespace heddle
