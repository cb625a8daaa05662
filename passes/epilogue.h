// What a library does at the end of a product: a row of biases added, negative elements to zero.
// Law: values stay; a product that anything else reads, and one whose sum a kernel makes anyway, stay as they are.
#pragma once
#include "ir/graph.h"

namespace heddle {

Graph epilogues(const Graph&);

}  // namespace heddle
