// Plans that run from end to end with no host in between: numbers of rows stay in memory, the host knows only what they don't exceed.
// Law: results are those of the plan that reads the numbers. What library calls read of rows beyond the number is zeros, added to nothing.
#pragma once
#include "passes/fuse.h"

namespace heddle {

// A graph whose masks are compacted (passes/compact.h), made so. Of a mask whose rows are `u` in number, `u_max` is the capacity: memory, grids
// and library calls are sized by it; it's given with the sizes of a run, or else is the number of the mask's elements. Kernels take u, the
// number of rows but at most the capacity, from memory.
//
// A run fails where a mask has more rows than its capacity, where two masks that had as many rows as each other at capture now have not, and
// where a guard's value isn't that of the capture. An output is added that says so, i64[1 + bounds]: whether the run failed, then the rows that
// there are of each mask (too few of a mask over rows that were cut). A run that failed writes its `updates` back as they were; its other outputs are to be
// discarded. More room helps against the first, another capture against the others. Guards among the outputs are that output too.
//
// Throws Error, with the reason, where numbers of rows leave the graph (an output's size, an argument of a call), and where a library call
// other than a matrix product reads rows.
struct Bounded {
    Graph graph;
    std::vector<Bound> bounds;
    int check = -1;                // position of that output; -1: nothing can fail
};
Bounded bounded(const Graph&, const std::vector<Update>& updates = {});

}  // namespace heddle
