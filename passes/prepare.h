// Rewrites that make a graph fit for fusion; each says why it stands where it stands in pipeline.cpp.
#pragma once
#include "ir/graph.h"

namespace heddle {

// Gathers read whole rows: a source that is a permuted view is laid out anew (channels last), so rows are contiguous and so are
// their gradients. Before the derivative, which then scatters into the same layout.
Graph rows_contiguous(const Graph&);

// For each input, the order of its axes in memory that would spare rows_contiguous a copy, if there is one; else empty.
std::vector<std::vector<int>> better_orders(const Graph&);
// The graph for inputs that lie in memory in such orders: its inputs are as they lie there.
Graph in_memory_order(const Graph&, const std::vector<std::vector<int>>& orders);

// What no gradient passes is itself once the derivative is taken, and a surrogate its value: nothing then stands between a concat and the memory it is written to.
Graph without_stop_grads(const Graph&);

// Folds and scatters in the forms that nests have: sums that leave their points accumulate in float64, other folds go one axis at
// a time, any/all become counts.
Graph lower_folds(const Graph&);

}  // namespace heddle
