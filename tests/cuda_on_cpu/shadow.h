// What is known of every element of memory: who wrote it last, who read it since, whether it was ever written.
// Law: an access is refused before it is made; two stamps are compared by what orders them, never by when they ran.
#pragma once
#include <functional>
#include <map>
#include <memory>

#include "tests/cuda_on_cpu/machine.h"

namespace heddle::cuda_on_cpu {

struct Stamp {                       // an access
    std::uint32_t block = 0, epoch = 0, warp_epoch = 0, from = 0;  // epoch: barriers of the block that came before it; from: offset of the code
    std::uint16_t thread = 0;
    bool set = false, relaxed = false;
};
struct Cell {
    Stamp write, read, other_read;   // reads since that write: two of different threads tell any writer of a race
    std::uint32_t life = 0;          // of which run, or block, this is; an older one means nothing
    bool initialised = false;
};
struct Unmap {
    std::size_t n = 0;
    void operator()(Cell*) const;
};
struct Clock {                       // of the accessing thread
    std::uint32_t block = 0, epoch = 0, warp_epoch = 0;
    std::uint16_t thread = 0;
    const std::map<std::uint32_t, std::uint32_t>* seen = nullptr;  // other blocks: accesses before this epoch came before
    bool after(const Stamp& s) const {
        if (s.block != block) {
            auto it = seen->find(s.block);
            return it != seen->end() && s.epoch < it->second;
        }
        return s.thread == thread || (s.thread / 32 == thread / 32 ? s.warp_epoch < warp_epoch : s.epoch < epoch);
    }
    Stamp stamp(std::uint32_t from, bool relaxed) const { return {block, epoch, warp_epoch, from, thread, true, relaxed}; }
};

// Elements of one buffer, or bytes of shared memory. Zero pages until they are touched: a buffer may have billions.
struct Cells {
    void resize(std::size_t n);      // all of them untouched
    std::size_t size() const { return cells.get_deleter().n; }
    std::unique_ptr<Cell[], Unmap> cells;
    std::uint32_t life = 0;
    bool initialised = false;        // of cells that nobody touched
    struct Conflict {
        const char* what = nullptr;  // "uninitialised", "race"; null: none
        Stamp with;
        bool wrote = false;          // the other one
    };
    Conflict touch(std::size_t cell, const Clock&, How, std::uint32_t from);
    const Cell* at(std::size_t k) const { return cells[k].life == life ? &cells[k] : nullptr; }
};

// Address space for buffers, kept for the life of the process.
class Arena {
public:
    static constexpr std::size_t kSpan = std::size_t{1} << 35, kMost = 256;
    static Arena& get();
    char* place(std::size_t k, std::size_t bytes);  // at least so much memory in the middle of span k
    // Of the span that an address lies in; kMost: none.
    std::size_t span(const void* address) const {
        auto d = static_cast<std::size_t>(static_cast<const char*>(address) - base_);
        return d < kSpan * kMost ? d / kSpan : kMost;
    }

private:
    Arena();
    char* base_;
    std::vector<std::size_t> usable_;
};

}  // namespace heddle::cuda_on_cpu
