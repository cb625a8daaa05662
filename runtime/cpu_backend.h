// Finds the CPU backend. Law: a machine without LLVM runs everything else; what is missing is said, once, by name.
#pragma once
#include "codegen/llvm_backend.h"

namespace heddle {

// Loads libheddle_llvm.so: $HEDDLE_LLVM_BACKEND, else beside the library or program that this is part of. The same backend
// every time; nullptr if there is none, with the reason in why_not.
CpuBackend* load_cpu_backend(std::string* why_not = nullptr);

}  // namespace heddle
