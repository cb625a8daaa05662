// Generated kernels on the machine: one text with its nests, or all launches of a plan as an Executable's target.
// Law: arguments, grid and cleared buffers are as in runtime/cuda_launch.cpp; every run is checked and made with two seeds.
#pragma once
#include <map>

#include "codegen/cuda/cuda.h"
#include "runtime/launch.h"
#include "tests/cuda_on_cpu/machine.h"

namespace heddle::cuda_on_cpu {

// The kernel of `nests` over buffers in order of its arguments, each with room for its elements. Buffers that are written and not added to
// start without values. `whole`: and have all of them at the end.
struct Memory {
    void* data;
    std::size_t bytes;
};
void run(const CudaSource&, const std::vector<loop::Nest>& nests, const std::vector<Memory>&, const Sizes&, unsigned seed = 1, bool whole = false);

// Executable(plan, target()) compiles for CUDA and runs on the CPU, on a host whose memory is the CPU's.
Target target(unsigned seed = 1);
// All texts of these plans, compiled together: what follows finds them done.
void compile_ahead(const std::vector<const Plan*>&);
struct Count {
    int kernels = 0, runs = 0;   // kernels: different ones
};
Count count();

}  // namespace heddle::cuda_on_cpu
