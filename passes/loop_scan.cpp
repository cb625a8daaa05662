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
bool walkable(const Nest& n, const Phase& p) {
    return std::all_of(p.carries.begin(), p.carries.end(), [&](int c) { return recurrence(n, p, c).has_value(); });
}

}  // namespace heddle::loop
