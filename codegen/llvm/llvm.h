// A nest as one LLVM function over units of work; what a unit is, codegen/llvm_backend.h says.
// Law: statements become instructions one to one, each once per width in which its loop runs: full lanes and, apart, the rest.
#pragma once
#include "codegen/llvm/ir.h"
#include "codegen/llvm_backend.h"

namespace heddle {

// Adds `void name(ptr buffers, ptr sizes, i64 begin, i64 end)` to the module.
llvm::Function* emit(llvm::Module&, const Target&, const std::string& name, const loop::Nest&);

}  // namespace heddle
