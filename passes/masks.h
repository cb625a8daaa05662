// Masks as predicates: what is computed for the elements a mask selects is computed for all, and counted where the mask holds.
// Law: values and gradients stay, whatever is computed where the mask doesn't hold (an inf, a NaN): it ends in a select.
#pragma once
#include "passes/example.h"

namespace heddle {

struct Masked {
    Graph graph;
    std::vector<std::string> notes;  // what became of each mask, and why, for `explain`
};
// A value with an axis over the rows of `aten.nonzero(mask)` (x[mask] and what is made of it) becomes one with the mask's axes; folds over
// them take their neutral element where the mask doesn't hold, what is written to the rows becomes a select, the number of rows a count.
// The call is then gone, and with it the host's wait for it. It stays where the rows' order or number leaves the graph, or where
// a row costs more than arithmetic (products, calls); then its attribute `kept` says why.
// Look-ups at computed places, and sums to computed places, cost more too, so that their share decides: where the example's mask held at so
// many of its places that the machine is faster at all of them than at finding those, rows are computed at all. Places are 0 where the mask
// doesn't hold, whatever was computed there, and what is added there is 0; a table of which an axis may be empty has no place 0, and is kept.
// After the derivative: gradients are rows too.
Masked masks_to_predicates(const Graph&, const Example& = {});
double dense_from(Machine);          // the share of its places from which on a mask with look-ups is computed at all of them

}  // namespace heddle
