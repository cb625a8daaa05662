// Reads a carry's way from iteration to iteration off the statements of a body.
#include <algorithm>

#include "passes/loop.h"

namespace heddle::loop {

namespace {
struct Reader {
    const Nest& n;
    Val carry;            // the statement that reads it
    std::vector<Val> ahead;  // what the body has before that
    bool independent(Val v) const {  // of the carry, and there when it is read
        const Value& x = n.values[static_cast<std::size_t>(v)];
        if (x.what == What::constant || x.what == What::size || !x.varies_inner) return true;
        return std::find(ahead.begin(), ahead.end(), v) != ahead.end();
    }
    std::optional<Recurrence> read(Val v) const {
        if (v == carry) return Recurrence{};
        const Value& x = n.values[static_cast<std::size_t>(v)];
        if (x.what != What::map || (x.op != Op::add && x.op != Op::mul)) return {};
        for (std::size_t k : {0, 1}) {
            Val other = x.in[1 - k];
            if (!independent(other)) continue;
            auto r = read(x.in[k]);
            if (!r) continue;
            if (x.op == Op::add) {
                r->b.push_back({other});
            } else {
                r->a.push_back(other);
                for (auto& product : r->b) product.push_back(other);
            }
            return r;
        }
        return {};
    }
};
}  // namespace

std::optional<Recurrence> recurrence(const Nest& n, const Phase& p, int carry) {
    Reader r{n, -1, {}};
    Val next = -1;
    for (Val v : p.body) {
        const Value& x = n.values[static_cast<std::size_t>(v)];
        if (x.what == What::carry && x.index == carry) {
            if (r.carry >= 0) return {};
            r.carry = v;
        }
        if (r.carry < 0) r.ahead.push_back(v);
        if (x.what == What::carry_step && x.index == carry) next = x.in[0];
    }
    if (r.carry < 0 || next < 0 || next == r.carry) return {};
    return r.read(next);
}
bool compresses(const Nest& n, const Phase& p, Val store) {
    auto at = [&](Val v) -> const Value& { return n.values[static_cast<std::size_t>(v)]; };
    const Value& s = at(store);
    if (s.what != What::store || s.in.size() < 3 || at(s.in[0]).what != What::map || at(s.in[0]).op != Op::add) return false;
    Val holds = s.in[2];  // those that also lie below an end are still side by side
    if (const Value& both = at(holds); both.what == What::map && both.op == Op::and_)
        for (std::size_t k : {0, 1}) {
            const Value& below = at(both.in[k]);
            if (below.what == What::map && below.op == Op::lt && below.in[0] == s.in[0] && !at(below.in[1]).varies_inner) holds = both.in[1 - k];
        }
    auto through_cast = [&](Val v) { return at(v).what == What::map && at(v).op == Op::cast ? at(v).in[0] : v; };
    for (std::size_t k : {0, 1}) {
        const Value& carry = at(through_cast(at(s.in[0]).in[k]));
        if (carry.what != What::carry || at(at(s.in[0]).in[1 - k]).varies_inner) continue;
        auto r = recurrence(n, p, carry.index);
        if (r && r->a.empty() && r->b.size() == 1 && r->b[0].size() == 1 && at(r->b[0][0]).op == Op::cast && through_cast(r->b[0][0]) == holds) return true;
    }
    return false;
}
bool walkable(const Nest& n, const Phase& p) {
    return std::all_of(p.carries.begin(), p.carries.end(), [&](int c) { return recurrence(n, p, c).has_value(); });
}

}  // namespace heddle::loop
