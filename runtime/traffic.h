// Bytes that the steps of a plan move between a device's memory and its kernels, beside the least that they can be.
// Moved: each buffer that nests of a stage read, and each that they write, once a stage, no more of it than their loads and stores could touch;
// what is added to is cleared before, which is a pass of its own.
// Least, of a launch: what it reads of others and what others read of it, each once; what only its own stages hand on is nothing.
// Least, of a plan: inputs that launches read and outputs that they write, and what they write for library calls to read and read of what these
// write. What is kept from forward to backward is nothing, and so is every other value that lies in memory between two launches.
#pragma once
#include <limits>

#include "passes/fuse.h"

namespace heddle {

struct Moved {
    std::string name;                 // of the launch
    std::int64_t moved = 0, least = 0;
};
struct Traffic {
    std::vector<Moved> launches;
    std::int64_t moved = 0, least = 0;  // by launches
    std::int64_t calls = 0;             // by library calls: their operands and results
};
// What a plan has that is kept from one direction to the other.
struct KeptValues {
    std::size_t outputs = std::numeric_limits<std::size_t>::max();  // those from here on
    std::vector<char> inputs = {};                                  // per input
};
Traffic traffic(const Plan&, const Sizes&, const KeptValues& = {});

}  // namespace heddle
