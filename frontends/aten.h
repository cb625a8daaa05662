// The one lowering of all three doors: a graph of aten.* calls becomes primitives. Needs the ir only, no libtorch.
// Law: what a call computes and its type stay; what has no row here stays the call it is.
#pragma once
#include "ir/graph.h"

namespace heddle {

Graph lower_aten(const Graph&);                       // throws Error "loc: aten.op: ..." on arguments it can't mean
std::vector<std::string> unlowered(const Graph&);     // names of the calls that are left, each once
std::vector<std::string> lowered_names();             // every aten.* name with a row, for tests

}  // namespace heddle
