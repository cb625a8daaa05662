// A graph cut into launches: what runs, in which order, and how. Still data.
// Law: every stored value is written by exactly one step, before any step that reads it.
#pragma once
#include <map>
#include <string>

#include "ir/graph.h"

namespace heddle {

// How a nest runs; chosen by passes/schedule from kind and sizes, printed with the nest. Nothing else decides.
struct Schedule {
    bool lanes_inner = false;  // SIMD lanes / neighbouring threads walk the inner loops (else: the last outer axis)
    int width = 16;            // CPU lanes
    int chunk = 256;           // CPU: points of the last outer axis that one unit of work takes; lanes_inner: the prologue of so many is computed in lanes
    int group = 1;             // CUDA: threads that share one outer point, a power of two <= threads (1 unless lanes_inner)
    int threads = 128;         // CUDA: threads per block
    int vector = 1;            // CUDA: neighbouring elements of an inner loop that a thread takes at once: 1, 2 or 4 (1 where group is 1)
    int run = 1;               // CUDA: consecutive points that a group walks at most, adding up in registers what goes to one address; 1: adds directly
    int full = 1 << 17;        // CUDA: threads that fill a device: runs are shorter where there would be fewer
    bool operator==(const Schedule&) const = default;
};

// One loop nest: for every point of `outer`, compute the roots. Folds and scans add inner loops (codegen/loop.h).
struct Nest {
    Shape outer;
    std::vector<Id> roots;  // values that this nest computes at its points, in topological order
    int piece = -1;         // >= 0: the only root is a concat or scatter, of which this nest writes this operand's part
    int pieces = 1;         // and those of as many operands less one after it, all of one shape (of a concat)
    int stage = 0;          // of its launch
    Schedule schedule;
    bool operator==(const Nest&) const = default;
};

// One kernel, in stages: nests of one stage run side by side and don't depend on each other; a stage begins when all before it are done.
struct Launch {
    std::string name;
    std::vector<Nest> nests;  // in the order of stages
    bool operator==(const Launch&) const = default;
};

struct Step {
    int launch = -1;  // index into Program::launches, or
    Id call = -1;     // a dot or call node, or
    std::vector<Id> reads = {};  // what the host reads, all at once: the number of places of each compact node, the value of each guard
    bool operator==(const Step&) const = default;
};

// An output that takes over the memory of an input: positions among the graph's. What the caller holds there is the new value afterwards.
struct Update {
    int output, input;
    bool operator==(const Update&) const = default;
};

struct Program {
    Graph graph;
    std::vector<Launch> launches;
    std::vector<Step> steps;       // in order of execution
    std::vector<char> stored;      // per node: has a buffer (inputs, results of calls, roots read elsewhere, outputs)
    std::vector<int> last_use;     // per node: last step that reads its buffer; -1 never, steps.size() for outputs
    std::vector<Update> updates;   // those that are written in place: nothing reads the input's old elements after their new ones are there
    std::map<std::string, Id> counted;  // sizes that launches take from memory, and where: a host knows only what they don't exceed
    bool is_stored(Id id) const { return stored[static_cast<std::size_t>(id)] != 0; }
    Id memory_of(Id id) const {    // the value whose memory it lies in
        for (const Update& u : updates)
            if (graph.outputs[static_cast<std::size_t>(u.output)] == id) return graph.inputs[static_cast<std::size_t>(u.input)];
        return id;
    }
};

std::vector<std::string> names_in(const Attrs&);  // sizes in them
std::vector<std::string> names_in(const Node&);   // in its attributes and types
bool is_guard(const Node&);  // a call heddle.guard: the plan holds as long as its operand has the attribute's value
// The stored value a library call reads for operand `id`, and how it views it: a reshape, or the last two axes swapped.
struct Operand {
    Id base;
    bool transposed = false;
};
Operand library_operand(const Graph&, Id id);

}  // namespace heddle
