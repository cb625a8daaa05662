// Emits, optimizes and links nests for this machine. Law: every compile has a context of its own, so compiles run in parallel;
// equal text is compiled once; no compile takes more than a few seconds: one that is too large for that is compiled plainly.
#pragma once
#include "codegen/llvm_backend.h"

namespace heddle {

// nullptr, with the reason, where LLVM has no target for this machine.
CpuBackend* make_orc_backend(std::string* why_not);

}  // namespace heddle
