// Reverse-mode derivative on primitives, from the vjp column of the table.
// Law: an input that no differentiable path reaches has no gradient (None), not a zero one.
#pragma once
#include "ir/graph.h"

namespace heddle {

// Forward and backward in one graph. Inputs: the forward's, then one incoming gradient per differentiable output.
struct Joint {
    Graph graph;                    // outputs: the forward's, then the gradients that exist
    std::size_t forward_outputs = 0;
    std::vector<int> seeds;         // per forward output: position of its incoming gradient among the inputs, or -1
    std::vector<int> gradients;     // per forward input: position of its gradient among the outputs, or -1
};

// `wants[i]`: input i requires grad. Throws Error naming a call on a differentiable path, whose derivative only PyTorch knows.
Joint differentiate(const Graph&, const std::vector<char>& wants);

}  // namespace heddle
