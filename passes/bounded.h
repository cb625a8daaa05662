// Plans that run from end to end with no host in between: numbers of rows stay in memory, the host knows only what they don't exceed.
// Law: results are those of the plan that reads the numbers. What library calls read of rows beyond the number is zeros, added to nothing.
#pragma once
#include "passes/fuse.h"

namespace heddle {

// A graph whose masks are compacted (passes/compact.h), made so. Of a mask whose rows are `u` in number, `u_max` is the capacity: memory, grids
// and library calls are sized by it; it's given with the sizes of a run, or else is the number of the mask's elements. Kernels take u, the
// number of rows but at most the capacity, from memory. Two outputs are added for each name: u, and whether there were more rows than the
// capacity; then the outputs aren't those of all rows, and the caller discards them and runs again with more room. The same is said where two
// masks that had as many rows as each other at capture now have not; only another capture helps then.
//
// A guard that a mask holds anywhere isn't read: the branch that was captured runs, on no rows if need be. So the graph is to be of a callable
// in which not taking such a branch gives the values that running it on no rows gives; passes/conditions.h says which gradients eager then
// leaves None.
//
// Throws Error, with the reason, where numbers of rows leave the graph (an output's size, an argument of a call), where a library call other
// than a matrix product reads rows, and where a guard is of another value or was captured with the branch not taken.
Graph bounded(const Graph&, std::vector<Bound>& bounds);

}  // namespace heddle
