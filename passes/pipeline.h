// The passes in order, with the reason each stands where it stands.
// Law: the graph is verified after every pass, in every build.
#pragma once
#include <functional>

#include "passes/example.h"
#include "passes/fuse.h"
#include "passes/partition.h"

namespace heddle {

// Sees the graph after each pass: for dumps.
using Watch = std::function<void(std::string_view pass, const Graph&)>;

// A forward that keeps what its backward needs, and the backward. `wants[i]`: input i requires grad.
struct Pair {
    Split split;
    std::vector<int> gradients;       // per input: position among the backward's outputs, or -1 (None)
    std::vector<char> differentiable; // per output
    bool has_backward = false;
    std::vector<std::string> masks;   // what became of each, and why
};
// The two as one graph, before it is cut: outputs, then gradients; seeds are its last inputs.
Joint joint(const Graph&, const std::vector<char>& wants, const Example& = {}, const Watch& = {}, std::vector<std::string>* masks = nullptr);
Pair forward_and_backward(const Graph&, const std::vector<char>& wants, const Example&, const Watch& = {}, double activation_memory_budget = 1);

struct PlanOptions {
    Machine machine = Machine::cpu;
    std::vector<Update> updates = {};  // outputs that had best be written over inputs: see passes/fuse.h
    bool deterministic = false;  // the same bits from run to run: floats are added in an order that sizes alone decide, or so that no order matters
    bool bounded = false;  // no step waits: see passes/bounded.h. Throws Error where a graph can't be run so, and says why
};
// One direction: primitives to launches.
Plan plan(const Graph&, const Watch& = {}, const PlanOptions& = {});

}  // namespace heddle
