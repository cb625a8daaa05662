// Where intermediate values live: lifetimes to offsets in an arena, once their sizes are known.
// Law: two values whose lifetimes overlap never overlap in memory.
#pragma once
#include "passes/fuse.h"

namespace heddle {

struct Slot {
    Id value;
    int first, last;          // steps, inclusive
    std::int64_t bytes;
    std::int64_t offset = 0;
};
constexpr std::int64_t kAlign = 64;  // bytes; a cache line, and enough for 16 lanes

// Fills offsets, largest first into the lowest gap (Source: greedy by size, Pisarchyk and Lee 2020); returns the arena's bytes.
std::int64_t place(std::vector<Slot>&);

}  // namespace heddle
