// The table's scalar expressions over LLVM values: the third reading of C(...).
// Law: an expression means here what it means in double (ir/op.cpp), at the precision of its operands.
#pragma once
#include "codegen/llvm/ir.h"
#include "ir/op.h"

namespace heddle {

// One element of a MAP or FOLD row; operands beyond its arity are null. Not for cast.
Lv scalar(Ir&, Op, Lv a, Lv b = nullptr, Lv c = nullptr);
// To `to` as PyTorch does it: floats truncate to integers, anything but 0 is true. f16 and bf16 are rounded to, and stay in, f32.
Lv cast(Ir&, Lv, DType to);

Lv from_memory(Ir&, Lv, DType);  // of type Ir::mem, as Ir::reg
Lv to_memory(Ir&, Lv, DType);    // rounded to the nearest, ties to even

}  // namespace heddle
