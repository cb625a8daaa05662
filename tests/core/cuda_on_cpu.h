// Runs generated CUDA text on this machine's CPU: g++ compiles it with a shim; the threads of a block are fibers.
// Law: threads run in an order drawn from `seed` between barriers, so what depends on their order shows.
#pragma once
#include "codegen/cuda/cuda.h"

namespace heddle::test {

// Pointers and sizes in order of arguments. Throws std::runtime_error with the compiler's words, or if threads wait for
// each other for ever.
void run_on_cpu(const CudaSource&, const std::vector<void*>& buffers, const Sizes&, unsigned seed = 1);

}  // namespace heddle::test
