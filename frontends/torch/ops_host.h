// Runs a call of the graph as the PyTorch op it is, through the boxed dispatcher.
// Law: arguments are the captured ones, sizes with today's values; nothing is recorded by autograd here.
#pragma once
#include <ATen/core/Tensor.h>

#include "ir/graph.h"

namespace heddle {

// Results of a call ("aten.op.overload") or dot node for its operands. Throws Error naming the op and the argument.
std::vector<at::Tensor> run_call(const Node&, const std::vector<at::Tensor>& operands, const Sizes&);

}  // namespace heddle
