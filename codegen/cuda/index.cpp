// Two sweeps: bounds from operands to users, then needs from users to operands.
#include "codegen/cuda/index.h"

#include <algorithm>
#include <cmath>

namespace heddle::cuda {

using loop::Val, loop::Value, loop::What;

namespace {

bool wraps(const Value& v) {  // low bits of the result depend on low bits of the operands only
    return v.op == Op::add || v.op == Op::sub || v.op == Op::mul || v.op == Op::neg || v.op == Op::select || v.op == Op::cast;
}
bool small(double imm) { return std::abs(imm) < 0x1p31; }

struct Bounds {
    const loop::Nest& n;
    std::vector<std::optional<Dim>> of;  // of the magnitude; none for data
    Dim extent = 0;                      // of the longest inner loop: the sum of all, which is no less

    explicit Bounds(const loop::Nest& nest) : n(nest), of(nest.values.size()) {
        for (const loop::Phase& p : n.phases) extent = extent + p.extent;
        for (std::size_t i = 0; i < of.size(); ++i) of[i] = bound(n.values[i]);
    }
    std::optional<Dim> bound(const Value& v) const {
        switch (v.what) {
            case What::constant:
                if (v.dtype != DType::i64 || !small(v.imm)) return {};
                return Dim(static_cast<std::int64_t>(std::abs(v.imm)));
            case What::size: return Dim::symbol(n.sizes[static_cast<std::size_t>(v.index)]);
            case What::outer: return n.outer[static_cast<std::size_t>(v.index)];
            case What::inner: return extent;
            case What::load:
                if (const Dim& below = n.buffers[static_cast<std::size_t>(v.index)].below; is_int(v.dtype) && !(below == 0)) return below;
                return {};
            case What::map: break;
            default: return {};
        }
        if (v.op == Op::cast && v.dtype == DType::i64) return of[static_cast<std::size_t>(v.in[0])];
        if (v.dtype != DType::i64 || v.in.size() != 2) return {};
        const auto &a = of[static_cast<std::size_t>(v.in[0])], &b = of[static_cast<std::size_t>(v.in[1])];
        if (!a || !b) return {};
        if (v.op == Op::add || v.op == Op::sub || v.op == Op::max || v.op == Op::min) return *a + *b;
        if (v.op == Op::mul) return *a * *b;
        if (v.op == Op::floordiv) return *a + 1;
        if (v.op == Op::mod) return *b;
        return {};
    }
};

}  // namespace

Index index_types(const loop::Nest& n) {
    Bounds bounds(n);
    auto at = [](Val v) { return static_cast<std::size_t>(v); };
    auto bounded = [&](const Value& v) {  // all 64-bit operands have bounds
        return std::all_of(v.in.begin(), v.in.end(), [&](Val o) { return n.values[at(o)].dtype != DType::i64 || bounds.of[at(o)]; });
    };
    Index r;
    r.positive.assign(n.values.size(), 0);
    for (std::size_t i = 0; i < n.values.size(); ++i) {
        const Value& v = n.values[i];
        bool leaf = v.what == What::outer || v.what == What::inner || v.what == What::size || v.what == What::load || (v.what == What::constant && v.imm >= 0);
        bool keeps = v.what == What::map && (v.op == Op::add || v.op == Op::mul || v.op == Op::floordiv || v.op == Op::mod || v.op == Op::cast);
        bool all = leaf || std::all_of(v.in.begin(), v.in.end(), [&](Val o) { return o >= 0 && r.positive[at(o)]; });
        r.positive[i] = is_int(v.dtype) && bounds.of[i] && (leaf || (keeps && all));
    }
    r.narrow.assign(n.values.size(), 1);  // until a use says otherwise
    for (std::size_t i = n.values.size(); i-- > 0;) {
        const Value& v = n.values[i];
        if (v.dtype != DType::i64) r.narrow[i] = 0;
        bool is_map = v.what == What::map;
        if (is_map && r.narrow[i]) {
            auto big = [&](Val o) { const Value& c = n.values[at(o)]; return c.what == What::constant && !small(c.imm); };
            if ((!wraps(v) && !bounded(v)) || std::any_of(v.in.begin(), v.in.end(), big)) r.narrow[i] = 0;
        }
        if (v.what == What::outer || v.what == What::inner || v.what == What::size) r.narrow[i] = 1;  // index_t variables
        if (v.what == What::fold || v.what == What::carry) r.narrow[i] = 0;
        // What this value needs of its operands.
        bool exact = is_map && !(wraps(v) && r.narrow[i]) && !(v.dtype == DType::i64 && !r.narrow[i]) && bounded(v);
        for (std::size_t k = 0; k < v.in.size(); ++k) {
            if (v.in[k] < 0 || n.values[at(v.in[k])].dtype != DType::i64) continue;
            HEDDLE_CHECK(at(v.in[k]) < i, "a value is used before it is defined");
            bool address = k == 0 && (v.what == What::load || v.what == What::store || v.what == What::accumulate);
            bool passes = is_map && wraps(v) && r.narrow[i];
            if (!address && !passes && !exact) r.narrow[at(v.in[k])] = 0;
        }
    }
    for (std::size_t i = 0; i < n.values.size(); ++i) {
        const Value& v = n.values[i];
        if (v.what != What::map || (wraps(v) && r.narrow[i])) continue;
        for (Val o : v.in)
            if (o >= 0 && r.narrow[at(o)] && bounds.of[at(o)] && (n.values[at(o)].what == What::map || n.values[at(o)].what == What::load)) r.limits.push_back(*bounds.of[at(o)]);
    }
    return r;
}

}  // namespace heddle::cuda
