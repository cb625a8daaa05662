// Random graphs and what must hold of each: the parts of fuzz_test.cpp, and of tools/fuzz.
// Law: a graph is a function of its seed, and what is checked of it (sizes, inputs, which of them want gradients) of the seed in its name
// and the names of inputs and sizes alone: so its text replays it, and it can be made smaller without its inputs changing.
#pragma once
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "ir/eval.h"
#include "passes/pipeline.h"

namespace heddle::fuzz {

Graph weave(unsigned seed);               // named fuzz<seed>
unsigned seed_of(const Graph&);           // by its name; 0 without one

enum class By { interpreter, llvm, all }; // all: compiled for the CPU, and as CUDA text that runs on the CPU

struct Failure {
    std::string oracle, what;             // who disagrees; where, with numbers
};
struct Tally {                            // how many graphs each oracle has seen
    int graphs = 0, nodes = 0, gradients = 0, differences = 0, memory = 0, memory_more = 0, llvm = 0, cuda = 0, empty = 0, updates = 0, in_place = 0, bounded = 0;
    int not_finite = 0;                   // values that the interpreter itself makes inf or NaN, or too large to compare
    int jumps = 0;                        // runs where somebody disagrees and the interpreter jumps
    Tally& operator+=(const Tally& o) {
        for (int Tally::*m : {&Tally::graphs, &Tally::nodes, &Tally::gradients, &Tally::differences, &Tally::memory, &Tally::memory_more, &Tally::llvm, &Tally::cuda, &Tally::empty, &Tally::updates, &Tally::in_place, &Tally::bounded, &Tally::not_finite, &Tally::jumps})
            this->*m += o.*m;
        return *this;
    }
};
// A graph with what the pipeline makes of it.
struct Woven {
    Graph graph;
    std::vector<char> wants;
    Pair pair;
    Plan forward, backward;
    explicit Woven(Graph);
};
std::optional<Failure> check(const Woven&, By, Tally&);
std::optional<Failure> check(const Graph&, By, Tally&);  // an exception is a failure too
Sizes draw_sizes(const Graph&, int round);  // such that every node has a meaning; round 0 draws no 0, later ones do

// Bytes of intermediate values at the peak, outputs and inputs apart: of a plan; of a graph run op by op; and of what sums in parts may hold besides.
struct Planned {
    std::int64_t peak, held;              // held: values that a step uses up or only keeps, at most
};
Planned planned(const Plan&, const Sizes&);
std::int64_t unfused(const Graph&, const Sizes&);
std::int64_t scratch(const Graph&, const Sizes&);

// As small as it gets, by taking away one thing at a time, while `fails` holds and `seconds` last.
Graph shrink(Graph, const std::function<bool(const Graph&)>& fails, double seconds);

}  // namespace heddle::fuzz
