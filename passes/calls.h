// Derivatives of library calls, which only PyTorch knows: another call, made of the first one's arguments and the gradients that reach it.
// Law: the other call is a node like any: it prints, parses, is cut off and scheduled as one. Nothing of PyTorch is needed to make it.
//
//   %g, %h = heddle.vjp %x, %y, %d, of="aten.op.overload", self=$0, other=$1, .., incoming=[$2, none], wanted=[$0, $1]
//
// `of` and its arguments are the forward's; `incoming` has a gradient (or none) for each of its results, `wanted` are the operands whose
// gradients are the results, in this order. The host runs the op once more under PyTorch's autograd.
#pragma once
#include "ir/graph.h"

namespace heddle {

// Gradients of the operands of `call` for which `wants` is set, none() for others. `incoming`: per result; none() where nothing reaches it.
// Throws Error for a random op: run again, it would draw other numbers.
std::vector<V> call_vjp(Graph&, Id call, const std::vector<V>& incoming, const std::vector<char>& wants);

inline bool is_vjp(const Node& n) { return n.is(Op::call) && n.text("name") == "heddle.vjp"; }

}  // namespace heddle
