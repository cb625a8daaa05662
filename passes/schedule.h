// Picks how a nest runs from its loops and sizes. Nothing else decides; the choice is printed with the nest.
#pragma once
#include "passes/loop.h"

namespace heddle {

Schedule schedule(const loop::Nest&);

}  // namespace heddle
