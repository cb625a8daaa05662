// What is legal: every node has its row's type, operands come first, attributes are complete. Runs after every pass, in every build.
#pragma once
#include "ir/program.h"

namespace heddle {

void verify(const Graph&, std::string_view after);    // throws Bug naming the pass and the node
void verify(const Program&, std::string_view after);  // also: stored values are written once, before they are read

}  // namespace heddle
