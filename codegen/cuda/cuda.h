// CUDA text of a launch: its nests side by side in one kernel. Text only; runtime/nvrtc compiles it, runtime/device runs it.
// Law: the text follows the loop nest statement by statement, compiles alone, and never decides how to run: the schedule does.
//
//   group == 1    one thread computes one outer point, all phases in order
//   group == G    G neighbouring threads share a point and stride over the inner loops; folds are reduced over the group and
//                 every thread gets them; thread 0 of the group stores. G <= 32 by shuffles, above through shared memory.
//                 A recurrence goes from lane to lane, G iterations at a time, by doubling; G <= 32
//   vector V      a thread of a group takes V neighbouring elements of an inner loop at a time, and moves them as one where they are aligned
//   run R         a group walks up to R points in a row and keeps in registers what goes to one address; memory gets it when that changes
//                 or the run ends. What all points add to is added up over the groups of a block first
//   adds shared   a block adds in shared memory and what that came to in memory; threads of their own then take up to R points each
//   adds ordered  a nest is two parts of the kernel and each buffer that it adds floats to a third, one stage after the other: ordered.h
//   Threads beyond the last point return at once; where shuffles or barriers follow they run along at point 0, storing nothing.
//   stages        blocks of a stage come after those of the stages before it, and wait until all of these have counted themselves off in
//                 `done`. As in CUB's look-back scans this takes that blocks start in the order of their indices; those waited for are
//                 then running or gone, however few fit on the device
#pragma once
#include "passes/loop.h"

namespace heddle {

struct CudaOptions {
    bool wide_index = false;  // 64-bit index arithmetic; a narrow kernel may run where CudaSource::fits_narrow says so
    bool vectors = true;      // several elements moved as one; takes that all buffers begin at multiples of CudaSource::kAligned bytes
};

// A kernel's arguments: one pointer per buffer, where sums are ordered one to `scratch` bytes that are zero, one size each, and where there are
// stages a pointer to an unsigned int that is zero. Sizes may be passed as pointers to i64 in any case: a narrow
// kernel reads the low half.
struct CudaSource {
    std::string text;
    std::string kernel;               // its name
    std::vector<Id> buffers;          // in order of arguments
    std::vector<std::string> sizes;   // in order of arguments
    int threads = 0;                  // per block: the largest of the nests' schedules

    // Per part of the kernel, which is a nest or what ordered sums make of it:
    std::vector<Dim> points;          // outer points
    std::vector<int> groups;          // threads per point
    std::vector<int> runs, full;      // points in a row that a group walks at most; threads below which it walks less
    bool vectors = false;             // has accesses of several elements
    static constexpr std::size_t kAligned = 16;
    std::vector<int> stages;          // ascending
    bool staged() const { return !stages.empty() && stages.back() > 0; }
    Dim scratch = 0;
    bool ordered() const { return !(scratch == 0); }
    std::vector<Dim> limits;          // index values that a narrow kernel computes; each is to be < 2^31
    std::int64_t blocks(const Sizes&) const;  // the grid; 0: nothing to do
    std::int64_t blocks(const Sizes&, std::size_t part) const;
    std::int64_t blocks_for(std::int64_t points, std::size_t part) const;  // the same, with the value of points[part]
    // May a narrow kernel run at these sizes? The caller also sees to it that every buffer has < 2^31 elements.
    bool fits_narrow(const Sizes&) const;
};

// Throws Bug if a schedule can't be: groups at a carry that is no recurrence, or of more than a warp at any, or that don't divide the block.
CudaSource cuda_text(const std::string& name, const std::vector<loop::Nest>& nests, const CudaOptions& = {});

// Blocks of one nest, by the formula that the kernel uses itself.
std::int64_t blocks(const loop::Nest&, const Sizes&, int threads);

}  // namespace heddle
