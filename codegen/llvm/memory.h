// Loads, stores and accumulations of lanes. Law: nothing is read or written where mask or predicate does not hold; buffers of
// one nest do not overlap, and the text says so.
#pragma once
#include <vector>

#include "codegen/llvm/ir.h"
#include "passes/loop.h"

namespace heddle {

// Element indices of the lanes: base + lane * step if the step is known, else `each` (i64 per lane).
struct Place {
    Lv base = nullptr;
    std::optional<std::int64_t> step;
    Lv each = nullptr;
};

class Memory {
public:
    Memory(Ir&, const std::vector<loop::Buffer>&, Lv pointers);  // emits the loads of the pointers

    // A mask is null (all lanes), an i1, or an i1 per lane. Lanes that it leaves out read 0. One scalar if step is 0.
    Lv load(int buffer, const Place&, int width, Lv mask);
    void store(int buffer, const Place&, int width, Lv mask, Lv value);
    // Those of the lanes that mask holds for side by side from element `first` on.
    void compress(int buffer, Lv first, int width, Lv mask, Lv value);
    // Lanes may meet at one address unless the step is known and not 0.
    void accumulate(int buffer, const Place&, int width, Lv mask, Lv value);
    // Asks for the memory `distance` bytes on from so many elements, to be read or written soon; whole cache lines alone.
    void prefetch(int buffer, Lv first, int elements, std::int64_t distance, bool write);

private:
    Lv at(int buffer, Lv index);
    Lv lanes_mask(Lv mask, int width);             // an i1 per lane, all true for null
    Lv each(const Place&, int width);
    template <class I> I* tag(I* access, int buffer);
    Lv zeros();                                    // 256 readable bytes of 0
    Lv load_one(int buffer, Lv pointer);
    void store_one(int buffer, Lv pointer, Lv value);

    Ir& ir_;
    const std::vector<loop::Buffer>& buffers_;
    std::vector<Lv> pointers_;
    std::vector<llvm::MDNode*> mine_, others_;     // alias scopes
    Lv scratch_ = nullptr;                         // where a lane that is left out may write
};

}  // namespace heddle
