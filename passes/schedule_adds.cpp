// How a nest's points add to memory: directly, in registers first, in shared memory first, or in whole numbers whose order doesn't matter.
// Law: as in schedule.cpp, the schedule says it and nothing else decides; what a schedule asks for and can't be is direct.
#include <algorithm>

#include "passes/schedule.h"

namespace heddle {

namespace loop {

namespace {
const Value& at(const Nest& n, Val v) { return n.values[static_cast<std::size_t>(v)]; }
bool added_to(const Buffer& b) { return b.accumulated && !b.written; }
bool adds_to(const Nest& n, const Value& v, const Buffer& b) { return v.what == What::accumulate && &n.buffers[static_cast<std::size_t>(v.index)] == &b; }
bool read(const Nest& n, const Buffer& b) {
    return std::any_of(n.values.begin(), n.values.end(), [&](const Value& v) { return v.what == What::load && &n.buffers[static_cast<std::size_t>(v.index)] == &b; });
}
// Do all points add to the same elements? These meet in registers.
bool met(const Nest& n, const Buffer& b) {
    return std::any_of(n.values.begin(), n.values.end(), [&](const Value& v) { return adds_to(n, v, b) && !at(n, v.in[0]).varies_outer; });
}
Dim count(const Nest& n, const Buffer& b, bool to_one) {
    Dim each = 0;
    auto add = [&](const std::vector<Val>& list, const Dim& times) {
        for (Val v : list)
            if (const Value& x = at(n, v); adds_to(n, x, b)) each = each + (to_one && step_of(n, x.in[0]).value_or(0) != 0 ? Dim(1) : times);
    };
    add(n.prologue, 1);
    for (const Phase& p : n.phases) add(p.body, p.extent), add(p.after, 1);
    return each * numel(n.outer);
}
bool fits(const Nest& n, const Buffer& b) { return added_to(b) && b.elements.is_const() && bytes(b.dtype) >= 4 && !met(n, b); }
}  // namespace

bool ordered(const Nest& n, const Buffer& b) { return n.schedule.adds == Adds::ordered && added_to(b) && is_float(b.dtype); }

bool near(const Nest& n, const Buffer& b) {
    if (n.schedule.adds != Adds::shared || !fits(n, b)) return false;
    if (n.schedule.lanes_inner && n.schedule.group > 1) {
        if (run(n) == 1) return false;
    } else if (std::any_of(n.buffers.begin(), n.buffers.end(), [&](const Buffer& o) { return (added_to(o) && met(n, o)) || (o.written && read(n, o)); })) {
        return false;  // a block's threads meet once, not in a loop; and those without a point read what is the same for all
    }
    std::int64_t all = 0;
    for (const Buffer& o : n.buffers)
        if (fits(n, o)) all += (o.elements.value() * bytes(o.dtype) + 7) / 8 * 8;
    return all <= kNear;
}
std::int64_t near_bytes(const Nest& n) {
    std::int64_t all = 0;
    for (const Buffer& b : n.buffers)
        if (near(n, b)) all += (b.elements.value() * bytes(b.dtype) + 7) / 8 * 8;
    return all;
}

Dim additions(const Nest& n, const Buffer& b) { return count(n, b, false); }
Dim additions_to_one(const Nest& n, const Buffer& b) { return count(n, b, true); }

}  // namespace loop

namespace {
constexpr int kCrowd = 256;           // additions to each element of shared memory, of all points, from which it is worth its atomics and its end
constexpr int kLong = 64, kMany = 256;  // points that one thread or group adds there, threads of a block: what a block adds to memory is much less
}  // namespace

Schedule with_adds(const loop::Nest& nest, bool deterministic) {
    using loop::What;
    loop::Nest n = nest;
    Schedule s = n.schedule;
    auto any = [&](auto&& holds) { return std::any_of(n.buffers.begin(), n.buffers.end(), holds); };
    if (!any([](const loop::Buffer& b) { return b.accumulated && !b.written; })) return s;
    if (deterministic && any([](const loop::Buffer& b) { return b.accumulated && !b.written && is_float(b.dtype); })) {
        s.adds = Adds::ordered;
        return s;
    }
    const bool walks = loop::run(n) > 1;
    n.schedule.adds = Adds::shared, n.schedule.threads = std::max(s.threads, kMany);
    if (walks || !s.lanes_inner || s.group == 1) n.schedule.run = kLong;
    bool crowded = loop::near_bytes(n) > 0;
    for (const loop::Buffer& b : n.buffers)
        if (loop::near(n, b)) crowded &= typical(loop::additions(n, b)) >= kCrowd * typical(b.elements);
    if (crowded) return n.schedule;
    s.adds = walks ? Adds::merged : Adds::direct;
    return s;
}

}  // namespace heddle
