// Smaller graphs with the same values: the rules of rules.def, views of views, constants, casts of casts.
// Law: types and values stay; simplify(simplify(g)) == simplify(g).
#pragma once
#include <span>

#include "ir/graph.h"

namespace heddle {

struct Rule {
    std::string_view name, from, to;
    bool ints_only = false;
};
std::span<const Rule> rules();

Graph simplify(const Graph&);
Graph apply_rule(const Graph&, const Rule&, int* fired = nullptr);  // one rule alone, everywhere it matches once

}  // namespace heddle
