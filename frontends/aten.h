// From aten.* calls to primitives: the one lowering, and the one table that says how (frontends/aten_*.cpp).
// Law: a lowered graph computes, and differentiates to, what PyTorch does; an op that isn't in the table stays the call it is.
#pragma once
#include <string>
#include <vector>

#include "ir/graph.h"

namespace heddle {

// Ops recorded under no_grad, and detach, end in stop_grad where a differentiable op or a result takes them. Dead nodes are dropped.
// Throws Error, naming the source line, where a call's arguments contradict its operands. An index out of range is clamped, so that no kernel
// reads beyond its tensors; with `guard_indices` it also fails a guard, one output more at the end: eager raises an error there.
Graph lower_aten(const Graph&, bool guard_indices = false);

// Names of the calls that are left, each once, in order.
std::vector<std::string> unlowered(const Graph&);
std::vector<std::string> lowered_names();  // every name with a row, sorted

}  // namespace heddle
