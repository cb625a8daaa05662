// Runs a call of the graph as the PyTorch op it is, through the boxed dispatcher.
// Law: arguments are the captured ones, sizes with today's values; results have the node's dtypes and memory of their own;
// nothing is recorded by autograd here.
#pragma once
#include <ATen/core/Tensor.h>

#include <memory>
#include <mutex>
#include <unordered_map>

#include "ir/graph.h"

namespace heddle {

// A call with its schema looked up and its arguments boxed; only operands and named sizes are put in at each run.
class PreparedCall {
public:
    explicit PreparedCall(const Node&);  // throws Error naming the op and the argument
    PreparedCall(PreparedCall&&) noexcept;
    ~PreparedCall();
    std::vector<at::Tensor> operator()(const std::vector<at::Tensor>& operands, const Sizes&) const;
    at::Tensor view(const at::Tensor&, const Sizes&) const;  // of a view op of one operand, seen by autograd
    bool is(const Node&) const;          // made from an equal node

private:
    struct Parts;
    std::unique_ptr<Parts> parts_;
};

// Prepared calls by node. A node that moved or changed is prepared again.
class CallCache {
public:
    std::vector<at::Tensor> run(const Node&, const std::vector<at::Tensor>& operands, const Sizes&);

private:
    std::mutex mutex_;
    std::unordered_map<const Node*, std::shared_ptr<const PreparedCall>> calls_;
};

// Results of a call ("aten.op.overload", "heddle.tensor") for its operands, prepared for this once.
std::vector<at::Tensor> run_call(const Node&, const std::vector<at::Tensor>& operands, const Sizes&);

}  // namespace heddle
