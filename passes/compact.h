// The rows that a mask selects, found by the graph itself: no library call, and no host that waits for their number but where it sizes memory.
// Law: row k is the k-th place, in row-major order, where the mask holds: exactly those of nonzero.
#pragma once
#include "ir/graph.h"

namespace heddle {

// Replaces each `aten.nonzero(mask)` (whose number of rows is a name) by counts per row of the mask, where each row starts (two levels: sums
// of 256 counts, then over these), and the places themselves (Op::compact), from which coordinates are computed where they're asked for. A
// guard of any(mask) becomes one of that count, so that the host reads both at once.
// After masks_to_predicates, which leaves no call where predicates do; before the cut, so that places are saved and not coordinates.
Graph compact_rows(const Graph&);

}  // namespace heddle
