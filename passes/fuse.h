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
// In a plan whose host waits for nothing: the name of a mask's number of rows, which stays in memory, and that of its capacity.
struct Bound {
    std::string size, capacity;   // a capacity that isn't given is `most`
    Dim most;                     // the elements of the mask
};
struct Plan {
    Program program;
    std::vector<std::vector<loop::Nest>> loops;  // per launch, per nest
    std::vector<Decision> decisions;
    std::vector<Id> zeroed;                      // accumulated buffers: zero before their launch
    std::vector<Bound> bounds;                   // of a bounded plan
    int check = -1;                              // of a bounded plan that may fail: the output that says so, see passes/bounded.h
    bool deterministic = false;                  // on the CPU floats are added in an order that sizes alone decide, not how many threads there are
};
// `updates`: outputs that had best be written over inputs. Those that can be are in Program::updates; they are written after all guards.
Plan fuse(const Graph&, Machine = Machine::cpu, const std::vector<Update>& updates = {});
// The launch that on a GPU adds floats with atomics, in an order that changes from run to run; "" if none does.
std::string adds_in_any_order(const Plan&);

}  // namespace heddle
