// heddle::fuse: any callable over libtorch tensors, captured once, run as fused kernels forward and backward.
// Law: outputs and gradients are those of calling it eagerly; where it can't be captured it runs eagerly and says why.
#pragma once
#include <functional>
#include <memory>
#include <string>

#include "frontends/capture/capture.h"
#include "runtime/executable.h"

namespace heddle {

using Tensors = std::vector<at::Tensor>;

struct FuseOptions {
    // Which sizes may change between calls, by name; sizes that share a name are equal. Example: {{.input = 0, .dim = 0, .name = "B"}}.
    std::vector<Varying> dynamic;
    std::string name = "f";
    bool eager_if_uncapturable = true;   // else errors of the capture are thrown
    bool recapture = false;              // calls that no capture holds for are captured too; sizes that were seen to change get names.
                                         // Else they throw Error
    std::vector<std::vector<std::vector<std::int64_t>>> earlier;  // with `recapture`: sizes of calls that went another way, which tell what changes
    double activation_memory_budget = 1; // the most that is kept from forward to backward, as a share of what costs least time: less is computed again
    bool deterministic = false;          // bit-equal results from run to run, on the CPU whatever the number of threads too; on CUDA sums of floats are ordered (codegen/cuda/ordered.h)
};

struct Traffic;                          // runtime/traffic.h

struct Report {                          // of the last call
    int launches_forward = 0, launches_backward = 0, calls_forward = 0, calls_backward = 0;
    std::int64_t bytes_forward = 0, bytes_backward = 0, saved_bytes = 0;
    double compile_seconds = 0;          // of all variants so far
    std::vector<std::string> library_calls;  // ops without a lowering, and matrix products, in order
    std::string eager_reason;            // not empty: the last call ran eagerly, because ...
    int captures = 0;                    // so far, those that failed included
};

class Fused {
public:
    // Same outputs as the callable, attached to autograd by one node. Throws Error where sizes or dtypes contradict the capture.
    Tensors operator()(at::TensorList inputs) const;
    Report report() const;
    // Writes graphs after each pass, programs and kernels (CUDA text, PTX where NVRTC is found, LLVM IR) into a folder. Returns the files.
    std::vector<std::string> dump(const std::string& folder) const;
    std::string explain() const;         // kernels, and for each value why it did or didn't join another's kernel
    // Texts of all CUDA kernels, forward and backward, of all variants: (name, text).
    std::vector<std::pair<std::string, std::string>> cuda_kernels() const;
    // What those of the last call's variant move, forward and backward, at its sizes.
    std::vector<Traffic> cuda_traffic() const;

    struct State;
    explicit Fused(std::shared_ptr<State>);

private:
    std::shared_ptr<State> state_;
};

// `example`: inputs of the kind that calls will have; the callable runs on them (and on copies of other sizes) during capture.
Fused fuse(Callable, const Tensors& example, FuseOptions = {});
// Captured at the first call, with its inputs.
Fused fuse(Callable, FuseOptions = {});

}  // namespace heddle
