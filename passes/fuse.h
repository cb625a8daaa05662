// Cuts a graph into launches. What may share a kernel is asked of the lowering itself: a nest fuses if it lowers.
// Law: values are computed once or pulled in; a nest reads what earlier launches, earlier stages or it itself wrote.
#pragma once
#include "passes/loop.h"
#include "passes/schedule.h"

namespace heddle {

struct Decision {          // for `explain`: why a value did or didn't join a nest
    Id value;
    int launch;            // where it went
    bool joined;           // an existing nest
    std::string reason;
};
struct Plan {
    Program program;
    std::vector<std::vector<loop::Nest>> loops;  // per launch, per nest
    std::vector<Decision> decisions;
    std::vector<Id> zeroed;                      // accumulated buffers: zero before their launch
    bool deterministic = false;                  // on the CPU floats are added in an order that sizes alone decide, not how many threads there are
};
Plan fuse(const Graph&, Machine = Machine::cpu);
// The launch that on a GPU adds floats with atomics, in an order that changes from run to run; "" if none does.
std::string adds_in_any_order(const Plan&);

}  // namespace heddle
