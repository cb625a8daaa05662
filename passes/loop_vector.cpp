// What neighbouring elements and consecutive points have in common, for threads that take several; see loop.h.
// Law: nothing here is guessed: what isn't known to hold for every size is taken not to.
#include <algorithm>
#include <map>
#include <numeric>

#include "passes/loop.h"

namespace heddle::loop {

namespace {

const Value& at(const Nest& n, Val v) { return n.values[static_cast<std::size_t>(v)]; }

// Is v a multiple of n, a power of two, wherever the inner index is one?
class Multiple {
public:
    Multiple(const Nest& nest, int n) : nest_(nest), n_(n) {}
    bool operator()(Val v) { return divisor(v) % n_ == 0; }

private:
    int divisor(Val v) {  // a power of two, at most n
        auto [it, fresh] = known_.try_emplace(v, 1);
        return fresh ? known_[v] = find(at(nest_, v)) : it->second;
    }
    int find(const Value& x) {
        auto of = [&](std::size_t k) { return divisor(x.in[k]); };
        if (!is_int(x.dtype)) return 1;
        if (x.what == What::inner) return n_;
        if (x.what == What::constant) return static_cast<int>(std::gcd(static_cast<std::int64_t>(x.imm), std::int64_t{n_}));
        if (x.what != What::map) return 1;
        switch (x.op) {  // lists ops: what index arithmetic is made of
            case Op::add:
            case Op::sub: return std::min(of(0), of(1));
            case Op::mul: return std::min(of(0) * of(1), n_);
            case Op::cast: return of(0);
            default: return 1;
        }
    }
    const Nest& nest_;
    const int n_;
    std::map<Val, int> known_;
};
bool effect(const Value& v) { return v.what == What::store || v.what == What::accumulate; }

}  // namespace

int taken(const Nest& n, const Phase& p) {
    const int by = n.schedule.vector;
    return n.schedule.lanes_inner && n.schedule.group > 1 && !p.reverse && !p.ordered && p.extent.is_const() && p.extent.value() % by == 0 ? by : 1;
}

std::optional<std::int64_t> step_of(const Nest& n, Val v) {
    const Value& x = at(n, v);
    if (x.what == What::inner) return 1;
    if (!x.varies_inner) return 0;
    return is_int(x.dtype) && x.what == What::map ? x.step_inner : std::nullopt;
}

bool beside(const Nest& nest, Val access, int n) {
    const Value& x = at(nest, access);
    if (x.what != What::load && !effect(x)) return false;
    if (x.what == What::load && x.in.size() > 1 && x.in[1] >= 0 && at(nest, x.in[1]).varies_inner) return false;  // under one predicate, or none
    return step_of(nest, x.in[0]) == 1 && Multiple(nest, n)(x.in[0]);
}

bool merges(const Nest& nest, const Value& x, int n) {
    const Buffer& b = nest.buffers[static_cast<std::size_t>(x.index)];
    if (x.what != What::accumulate || bytes(b.dtype) < 4 || (x.in.size() > 2 && at(nest, x.in[2]).varies_inner)) return false;  // narrow floats would round elsewhere
    if (n == 1) return true;
    return step_of(nest, x.in[0]) == 1 && Multiple(nest, n)(x.in[0]);
}

int run(const Nest& n) {
    if (n.schedule.run > 1 && !(n.schedule.lanes_inner && n.schedule.group > 1))  // a thread by itself takes several where they meet in shared memory
        return std::any_of(n.buffers.begin(), n.buffers.end(), [&](const Buffer& b) { return near(n, b); }) ? n.schedule.run : 1;
    if (n.schedule.run <= 1 || !n.schedule.lanes_inner || n.schedule.group <= 1 || n.schedule.group > 32) return 1;
    auto reads_back = [&](const Value& v) { return v.what == What::load && (n.buffers[static_cast<std::size_t>(v.index)].written || n.buffers[static_cast<std::size_t>(v.index)].accumulated); };
    if (n.outer.empty() || n.phases.size() != 1 || n.phases[0].ordered || n.phases[0].reverse || !n.phases[0].after.empty() || !n.phases[0].folds.empty()) return 1;
    if (std::any_of(n.values.begin(), n.values.end(), reads_back)) return 1;
    for (const auto* list : {&n.uniform, &n.prologue})
        if (std::any_of(list->begin(), list->end(), [&](Val v) { return effect(at(n, v)); })) return 1;
    const auto& body = n.phases[0].body;
    return std::any_of(body.begin(), body.end(), [&](Val v) { return at(n, v).what == What::store; }) ? 1 : n.schedule.run;
}

int registers(const Nest& n) {
    constexpr int kOwn = 2;  // indices and ends of loops; most of an index is computed again where it is used
    // Statements in the order of their first use: a compiler computes what it can late.
    std::vector<Val> order;
    std::vector<char> seen(n.values.size());
    for (Val v : n.uniform) seen[static_cast<std::size_t>(v)] = 1;  // constants, or computed once and for all
    auto visit = [&](auto& self, Val v) -> void {
        if (v < 0 || std::exchange(seen[static_cast<std::size_t>(v)], 1)) return;
        const auto& in = at(n, v).in;
        std::for_each(in.rbegin(), in.rend(), [&](Val i) { self(self, i); });  // an address after what goes there
        order.push_back(v);
    };
    int most = 0, kept = 0, lanes = 1;
    for (const Phase& p : n.phases) {
        lanes = std::max(lanes, taken(n, p));
        for (const auto* list : {&p.body, &p.after})
            for (Val v : *list)
                if (const Value& x = at(n, v); effect(x) || x.what == What::fold_step || x.what == What::carry_step) visit(visit, v);
        for (Val v : p.body)
            if (const Value& x = at(n, v); run(n) > 1 && merges(n, x, lanes)) kept += at(n, x.in[0]).varies_outer + lanes * (bytes(at(n, x.in[1]).dtype) + 3) / 4;
        for (int f : p.folds) kept += (bytes(n.folds[static_cast<std::size_t>(f)].dtype) + 3) / 4;
    }
    auto size = [&](Val v) {
        const Value& x = at(n, v);
        if (x.what == What::constant || x.what == What::size || effect(x) || x.dtype == DType::b1) return 0;
        const bool wide = bytes(x.dtype) == 8 && is_float(x.dtype);  // indices have 32 bits
        return (x.varies_inner && !step_of(n, v) ? lanes : step_of(n, v) == 1 ? 0 : 1) * (wide ? 2 : 1);
    };
    std::vector<std::size_t> last(n.values.size(), 0);
    for (std::size_t k = 0; k < order.size(); ++k)
        for (Val i : at(n, order[k]).in)
            if (i >= 0) last[static_cast<std::size_t>(i)] = k;
    int now = 0;
    for (std::size_t k = 0; k < order.size(); ++k) {
        most = std::max(most, now += size(order[k]));
        std::vector<Val> in = at(n, order[k]).in;
        std::sort(in.begin(), in.end());
        in.erase(std::unique(in.begin(), in.end()), in.end());
        for (Val i : in)
            if (i >= 0 && last[static_cast<std::size_t>(i)] == k) now -= std::find(n.uniform.begin(), n.uniform.end(), i) == n.uniform.end() ? size(i) : 0;
    }
    return kOwn + kept + most;
}

}  // namespace heddle::loop
