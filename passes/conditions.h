// Gradients that depend on values: None in eager where a branch `if m.any():` isn't taken, as nothing then led from the input to a result.
// Law: says of a graph captured with the branches taken what eager does when any of them aren't.
#pragma once
#include <set>
#include <string>
#include <vector>

#include "ir/graph.h"

namespace heddle {

// There is a gradient if, for any of these sets, each number of rows in it is more than 0. {{}}: always; {}: never.
using Condition = std::vector<std::set<std::string>>;

// Per input, of a graph before it is differentiated (that still asks for rows by aten.nonzero and reads heddle.guard). A path to an output
// exists where all branches do whose rows it runs through; rows that no guard asked for are there even if they are none.
std::vector<Condition> conditions(const Graph&, const std::vector<char>& wants);

}  // namespace heddle
