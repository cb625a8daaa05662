// Masks as predicates: what is computed for the elements a mask selects is computed for all, and counted where the mask holds.
// Law: values and gradients stay, whatever is computed where the mask doesn't hold (an inf, a NaN): it ends in a select.
#pragma once
#include "ir/graph.h"

namespace heddle {

// A value with an axis over the rows of `aten.nonzero(mask)` (x[mask] and what is made of it) becomes one with the mask's axes; folds over
// them take their neutral element where the mask doesn't hold, what is written to the rows becomes a select, the number of rows a count.
// The call is then gone, and with it the host's wait for it. It stays where the rows' order or number leaves the graph, or where
// a row costs more than arithmetic (look-ups, products, calls); then its attribute `kept` says why.
// After the derivative: gradients are rows too.
Graph masks_to_predicates(const Graph&);

}  // namespace heddle
