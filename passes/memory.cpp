// Arena planning, greedy by size.
#include "passes/memory.h"

#include <algorithm>
#include <numeric>

namespace heddle {

std::int64_t place(std::vector<Slot>& slots) {
    std::vector<std::size_t> order(slots.size()), done;
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return slots[a].bytes > slots[b].bytes; });
    std::int64_t total = 0;
    for (std::size_t i : order) {
        Slot& s = slots[i];
        std::int64_t size = (s.bytes + kAlign - 1) / kAlign * kAlign, at = 0;
        std::vector<std::pair<std::int64_t, std::int64_t>> taken;  // [begin, end) of neighbours in time
        for (std::size_t k : done)
            if (slots[k].first <= s.last && s.first <= slots[k].last) taken.emplace_back(slots[k].offset, slots[k].offset + (slots[k].bytes + kAlign - 1) / kAlign * kAlign);
        std::sort(taken.begin(), taken.end());
        for (auto [begin, end] : taken) {
            if (at + size <= begin) break;
            at = std::max(at, end);
        }
        s.offset = at;
        total = std::max(total, at + size);
        done.push_back(i);
    }
    return total;
}

}  // namespace heddle
