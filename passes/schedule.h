// Picks how a nest runs from its loops and sizes. Nothing else decides; the choice is printed with the nest.
#pragma once
#include "passes/loop.h"

namespace heddle {

// The machine that a program is for. A plan for one runs on the other too: but a CPU's core is best given all that reads the same, a GPU's
// thread no more than its registers hold.
enum class Machine : std::uint8_t { cpu, cuda };
constexpr int kRegisters = 64;  // of a thread where lanes share a point: half of the threads that a multiprocessor can hold are then there

Schedule schedule(const loop::Nest&, Machine = Machine::cpu);
// On a GPU, how such a nest adds to memory. Ordered, where it must not matter in which order floats are added.
Schedule with_adds(const loop::Nest&, bool deterministic);
double typical(const Dim&);  // what a size is taken for while its names have none: each a few thousand
// Vector instructions that a core spends on a nest run as its schedule says, roughly: what choices are made by. Sizes are typical;
// memory is taken for near, but what lanes gather or scatter costs them one by one.
double cost(const loop::Nest&);

}  // namespace heddle
