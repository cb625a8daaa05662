// The rules of schedules, in order; unmeasured ones say so.
#include "passes/schedule.h"

#include <algorithm>

namespace heddle {

Schedule schedule(const loop::Nest& n) {
    Schedule s;
    s.lanes_inner = false;
    bool ordered = false, wide = true;
    std::int64_t narrowest = 1 << 30;
    for (const auto& p : n.phases) {
        ordered |= p.ordered;
        if (p.extent.is_const()) narrowest = std::min(narrowest, p.extent.value());
    }
    for (const auto& v : n.values)
        if (v.what == loop::What::load && v.dtype != DType::f64) wide = false;
    s.width = wide && !n.values.empty() ? 8 : 16;
    if (!n.phases.empty() && !ordered) {
        // Lanes go where addresses are dense: count accesses that are contiguous or uniform along each candidate.
        int inner = 0, last = 0;
        for (const auto& v : n.values) {
            bool access = v.what == loop::What::load || v.what == loop::What::store || v.what == loop::What::accumulate;
            if (!access) continue;
            inner += v.step_inner && (*v.step_inner == 1 || *v.step_inner == 0);
            last += v.step_last && (*v.step_last == 1 || *v.step_last == 0);
        }
        s.lanes_inner = n.outer.empty() || (inner >= last && narrowest >= 4);
    }
    if (s.lanes_inner) {
        // Fill the lanes: 24 channels are three of 8 lanes, not one and a half of 16.
        if (narrowest < (1 << 30) && s.width == 16 && (narrowest % 16 != 0) && (narrowest % 8 == 0 || narrowest <= 8)) s.width = 8;
        s.group = n.outer.empty() ? s.threads : narrowest <= 8 ? 8 : narrowest <= 16 ? 16 : 32;
        s.chunk = 64;
    } else {
        s.chunk = n.phases.empty() ? 1024 : 2 * s.width;
    }
    return s;
}

}  // namespace heddle
