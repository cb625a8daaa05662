// The autograd node of one call of a fused callable.
// Law: a gradient is what eager's would be: None where no given output depends on an input, an error where memory it reads was written.
#pragma once
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/saved_variable.h>

#include "frontends/torch/variant.h"

namespace heddle {

// What the backward reads. Its memory is held, not a tensor: one that is a result of the call would hold this node, and itself.
class Kept {
public:
    explicit Kept(Array a = {}) : array_(std::move(a)) {}
    // Memory that a tensor of the caller shares is read only as long as nobody has written it.
    void watch(const at::Tensor&);
    // Handed to the hooks for saved tensors that are set (torch.autograd.graph.saved_tensors_hooks), and taken back by read().
    void pack();
    Array read(at::Device) const;  // throws if it was written

private:
    Array array_;
    c10::VariableVersion counter_ = c10::VariableVersion::DISABLED;
    std::uint32_t version_ = 0;
    std::unique_ptr<torch::autograd::SavedVariable> packed_;
};

// What it takes to run the callable again: a second derivative is PyTorch's own.
struct Rerun {
    const Callable* callable = nullptr;   // of the Fused that made the call, which `calls` keeps alive
    Tensors inputs;                       // the user's, then those that the callable holds
    Tensors before;                       // if the callable writes any: the values before it of those that it writes, else undefined
    c10::SmallVector<std::uint32_t, 8> versions;  // of inputs, after the run
    at::Tensor random;                    // state of the generator before it, undefined if nothing is drawn
    at::Device device = at::kCPU;         // whose generator that is
    std::size_t users = 0;
    const at::Tensor& overwritten(std::size_t input) const {
        static const at::Tensor none;
        return before.empty() ? none : before[input];
    }
};

class RegionBackward final : public torch::autograd::Node {
public:
    std::shared_ptr<Variant> variant;
    std::shared_ptr<LastCalls> calls;            // told of every run of the backward
    std::vector<Kept> kept;                      // in the order of Split::backward_inputs, empty for seeds
    c10::SmallVector<int, 8> slot;               // per output of the variant: which incoming gradient is its, or -1
    SizeValues sizes;                            // of the forward
    Rerun rerun;

    std::string name() const override { return "HeddleBackward"; }
    torch::autograd::variable_list apply(torch::autograd::variable_list&& grads) override;
    void release_variables() override;
    void note_versions();                        // when the call has ended, and all that it writes is written

private:
    void run(const torch::autograd::variable_list& grads, torch::autograd::variable_list& result, at::ArrayRef<char> wanted);
    torch::autograd::variable_list again(const torch::autograd::variable_list& grads, bool differentiable);
    bool released_ = false;
};

// PyTorch counts references to nodes in shared_ptrs up to some release and in intrusive_ptrs after it; its edges say which.
using NodePtr = decltype(torch::autograd::Edge::function);
template <class N, class Ptr = NodePtr>
auto make_node() {
    if constexpr (std::is_same_v<Ptr, std::shared_ptr<torch::autograd::Node>>) return std::shared_ptr<N>(new N(), [](N* n) { deleteNode(n); });
    else return c10::make_intrusive<N>();
}

std::uint32_t version_of(const at::Tensor&);  // 0 for inference tensors, which have none

}  // namespace heddle
