// Picks how a nest runs from its loops and sizes. Nothing else decides; the choice is printed with the nest.
#pragma once
#include "passes/loop.h"

namespace heddle {

Schedule schedule(const loop::Nest&);
double typical(const Dim&);  // what a size is taken for while its names have none: each a few thousand
// Vector instructions that a core spends on a nest run as its schedule says, roughly: what choices are made by. Sizes are typical;
// memory is taken for near, but what lanes gather or scatter costs them one by one.
double cost(const loop::Nest&);

}  // namespace heddle
