// Runs compiled kernels: threads of a block are fibers, switched in an order drawn from a seed; every access is checked before it is made.
// Law: a run that breaks a rule of CUDA throws Report, in one line: kernel, buffer, threads, lines. What is checked:
//
//   bounds         each buffer lies in 32 GiB of its own, so an address tells its buffer however far out it is; also alignment
//   uninitialised  reads of elements that nobody wrote, in buffers and in __shared__ memory
//   races          two accesses to an element by two threads, one of them a write, not both atomic, with nothing between that orders them:
//                  __syncthreads in a block, __syncwarp in a warp (shuffles order no memory), and among blocks __threadfence, an atomic,
//                  a relaxed read of what it wrote, __threadfence. Found by what orders them, whatever order the fibers ran in
//   barriers       threads of a block that meet at different ones, return before one, or wait for ever
//   order          run_twice: results differ between two seeds. Sums of floats may differ by what rounding them in two orders can come to
#pragma once
#include <span>
#include <stdexcept>
#include <unordered_map>

#include "ir/type.h"
#include "tests/cuda_on_cpu/compile.h"

namespace heddle::cuda_on_cpu {

struct Report : std::runtime_error {
    using std::runtime_error::runtime_error;
};
struct Buffer {
    std::string name;
    DType dtype;
    void* data;                 // the caller's: copied in and out; or place(k, bytes) itself, for buffers too large to touch all of
    std::size_t bytes;
    bool initialised = true;    // false: an output
    bool whole = false;         // it is an error if an element stays uninitialised
};
struct Grid {
    unsigned blocks = 1, threads = 32;
    bool in_order = false;      // blocks start in the order of their indices, several at a time; else in any order
    bool counts = false;        // the last argument is a counter that starts at zero
    std::vector<unsigned> only = {};  // blocks that run; none given: all
};

char* place(std::size_t k, std::size_t bytes);  // where the machine has buffer k, of up to 16 GiB: zero pages at first
void forget(std::size_t k, std::size_t bytes);  // zero pages again
// Arguments: the buffers, then the sizes. A kernel takes 32-bit sizes from the low half.
// Returns for each buffer what floats were added to its elements atomically: those of which some were; last for bytes of shared memory, of all blocks.
struct Added {
    double count = 0, sum = 0;  // sum: of absolute values
};
using Sums = std::unordered_map<std::size_t, Added>;
std::vector<Sums> run(const Object&, const Grid&, std::span<Buffer>, std::span<const std::int64_t> sizes, unsigned seed);
// With two seeds; leaves the first one's results.
void run_twice(const Object&, const Grid&, std::span<Buffer>, std::span<const std::int64_t> sizes, unsigned seed);

double number(DType, const void*);              // an element of a buffer
void put_number(DType, void*, double);

}  // namespace heddle::cuda_on_cpu
