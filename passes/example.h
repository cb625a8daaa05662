// What is known of where a graph was captured and of the machine it's for. Law: it decides what is fast, never what is computed.
#pragma once
#include <set>

#include "passes/schedule.h"

namespace heddle {

struct Example {
    Sizes sizes = {};                     // likely ones, by name
    Sizes rows = {};                      // of these, how many rows each mask selected in the example (names of the calls' numbers)
    std::set<std::string> positive = {};  // names of sizes that are never 0
    Machine machine = Machine::cpu;
};

}  // namespace heddle
