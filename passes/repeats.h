// Products whose rows repeat: a row that is the same for every view, sample or frame is multiplied once.
#pragma once
#include "ir/graph.h"

namespace heddle {

// Of a product [M, K] x [K, N] whose left rows are the same along an axis (an expand somewhere below, through maps and views), the rows that
// differ are multiplied, and results repeat. Where only some columns of the rows repeat (a concat of what a point has with what its view has), and
// these are so many that it pays, the product is the sum of two; a sum of products in a narrow type would be rounded twice, and stays one.
// Before the derivative, which then sums over the repetitions first and multiplies afterwards.
Graph products_once(const Graph&);

}  // namespace heddle
