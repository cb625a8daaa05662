// The autograd node of one call of a fused callable.
// Law: a gradient is what eager's would be: None where no given output depends on an input, an error where memory it reads was written.
#pragma once
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/saved_variable.h>

#include <optional>

#include "frontends/torch/variant.h"

namespace heddle {

// What the backward reads: an array that nobody else sees, or one that a tensor of the caller shares, watched for writes.
struct Kept {
    Array array;
    std::optional<torch::autograd::SavedVariable> watched;
};

// What it takes to run the callable again: a second derivative is PyTorch's own.
struct Rerun {
    const Callable* callable = nullptr;   // of the Fused that made the call, which `ran` keeps alive
    Tensors inputs;                       // the user's, then those that the callable holds
    Tensors before;                       // of inputs that the callable writes: their values before it, else undefined
    std::vector<std::uint32_t> versions;  // of inputs, after the run
    at::Tensor random;                    // state of the generator before it, undefined if nothing is drawn
    at::Device device = at::kCPU;         // whose generator that is
    std::size_t users = 0;
};

class RegionBackward final : public torch::autograd::Node {
public:
    std::shared_ptr<Variant> variant;
    std::function<void()> ran;                           // told after every run of the backward
    std::vector<Kept> kept;                              // in the order of Split::backward_inputs, empty for seeds
    std::vector<int> slot;                               // per user output: which incoming gradient is its, or -1
    std::vector<std::vector<std::int64_t>> output_sizes;
    Sizes sizes;
    Rerun rerun;

    std::string name() const override { return "HeddleBackward"; }
    torch::autograd::variable_list apply(torch::autograd::variable_list&& grads) override;
    void release_variables() override;

private:
    std::vector<Array> run(const torch::autograd::variable_list& grads);
    torch::autograd::variable_list again(const torch::autograd::variable_list& grads);
    bool released_ = false;
};

// PyTorch counts references to nodes in shared_ptrs up to some release and in intrusive_ptrs after it; its edges say which.
using NodePtr = decltype(torch::autograd::Edge::function);
template <class N, class Ptr = NodePtr>
auto make_node() {
    if constexpr (std::is_same_v<Ptr, std::shared_ptr<torch::autograd::Node>>) return std::shared_ptr<N>(new N(), [](N* n) { deleteNode(n); });
    else return c10::make_intrusive<N>();
}
template <class N, class Ptr = NodePtr>
Ptr pointer_to(N* node) {
    if constexpr (std::is_same_v<Ptr, std::shared_ptr<torch::autograd::Node>>) return node->shared_from_this();
    else return Ptr::reclaim_copy(node);
}

std::uint32_t version_of(const at::Tensor&);  // 0 for inference tensors, which have none

}  // namespace heddle
