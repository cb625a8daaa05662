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

// `wants[i]`: input i requires grad. Throws Error naming a random call that a gradient would flow through.
Joint differentiate(const Graph&, const std::vector<char>& wants);

// Per node: does a gradient of `from` reach it, that is, is it computed from these inputs by float values and calls, and nothing that
// ends gradients? A call whose first result is an integer is not reached itself, though its other results may be.
std::vector<char> reached(const Graph&, const std::vector<char>& from);
bool ended(const Node& call, int result);  // by its attribute `ended`, as captured calls have it

}  // namespace heddle
