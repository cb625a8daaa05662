// Strided accesses that together leave no gap, and indices that are divided; see loop.h.
#include <algorithm>
#include <map>

#include "passes/loop.h"

namespace heddle::loop {

namespace {
// An address as a constant and a sum of other values.
struct Linear {
    std::int64_t constant = 0;
    std::vector<Val> terms;
};
void add(const Nest& n, Val v, Linear& sum) {
    const Value& x = n.values[static_cast<std::size_t>(v)];
    if (x.what == What::constant) sum.constant += static_cast<std::int64_t>(x.imm);
    else if (x.what == What::map && x.op == Op::add) add(n, x.in[0], sum), add(n, x.in[1], sum);
    else sum.terms.push_back(v);
}
}  // namespace

std::vector<Stretch> stretches(const Nest& n, const std::vector<Val>& list, bool inner) {
    constexpr std::int64_t kMost = 32;  // elements from lane to lane
    struct Key {
        What what;
        int buffer;
        std::int64_t step;
        std::vector<Val> terms;
        auto operator<=>(const Key&) const = default;
    };
    std::map<Key, std::map<std::int64_t, Val>> found;  // by offset
    for (Val v : list) {
        const Value& x = n.values[static_cast<std::size_t>(v)];
        const bool load = x.what == What::load;
        if ((!load && x.what != What::store) || (load && x.in.size() > 1 && x.in[1] >= 0) || (!load && x.in.size() > 2)) continue;
        if (load && (n.buffers[static_cast<std::size_t>(x.index)].written || n.buffers[static_cast<std::size_t>(x.index)].accumulated)) continue;
        const Value& address = n.values[static_cast<std::size_t>(x.in[0])];
        const auto& step = inner ? address.step_inner : address.step_last;
        if (!step || *step < 2 || *step > kMost) continue;
        Linear sum;
        add(n, x.in[0], sum);
        std::sort(sum.terms.begin(), sum.terms.end());
        found[{x.what, x.index, *step, sum.terms}].emplace(sum.constant, v);
    }
    std::vector<Stretch> all;
    for (const auto& [key, at] : found)
        for (auto it = at.begin(); it != at.end();) {  // from each offset on, as many as one step covers
            Stretch s;
            auto next = it;
            while (next != at.end() && next->first == it->first + static_cast<std::int64_t>(s.members.size()) && static_cast<std::int64_t>(s.members.size()) < key.step) s.members.push_back((next++)->second);
            if (static_cast<std::int64_t>(s.members.size()) < key.step) {
                ++it;
                continue;
            }
            all.push_back(std::move(s));
            it = next;
        }
    return all;
}

std::int64_t divisor(const Nest& n, const Value& x) {
    if (x.what != What::map || !is_int(x.dtype) || (x.op != Op::floordiv && x.op != Op::mod)) return 0;
    const Value& by = n.values[static_cast<std::size_t>(x.in[1])];
    return by.what == What::constant ? static_cast<std::int64_t>(by.imm) : 0;
}

}  // namespace heddle::loop
