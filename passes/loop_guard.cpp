// Which loops of a nest nobody needs where a condition of the point doesn't hold; see loop.h.
// Law: what skipping them leaves, folds at their init, is seen by nothing but the side of a select that isn't taken.
#include <algorithm>
#include <map>

#include "passes/loop.h"

namespace heddle::loop {

namespace {
class Guards {
public:
    explicit Guards(Nest& n) : n_(n), users_(n.values.size()), body_(n.values.size(), -1), scope_(n.values.size(), -1) {
        int scope = 0;
        auto list = [&](const std::vector<Val>& values, int phase) {
            for (Val v : values) {
                scope_[at(v)] = scope, body_[at(v)] = phase;
                for (Val i : value(v).in)
                    if (i >= 0) users_[at(i)].push_back(v);
                if (value(v).what == What::fold) finished_[value(v).index].push_back(v);
            }
            ++scope;
        };
        list(n.uniform, -1), list(n.prologue, -1);
        for (int p = 0; p < static_cast<int>(n.phases.size()); ++p) list(phase(p).body, p), list(phase(p).after, -1);
    }
    void run() {
        for (int p = static_cast<int>(n_.phases.size()); p-- > 0;)
            for (Val m : conditions(2 + 2 * p))
                if (guards(m, p)) phase(p).guard = m;  // of several the last: it is made of those before it
    }

private:
    static std::size_t at(int i) { return static_cast<std::size_t>(i); }
    const Value& value(Val v) const { return n_.values[at(v)]; }
    Phase& phase(int p) { return n_.phases[at(p)]; }
    static bool effect(const Value& v) { return v.what == What::store || v.what == What::accumulate; }
    bool both(Val v) const { return value(v).what == What::map && value(v).op == Op::and_; }
    bool implies(Val v, Val m) const { return v == m || (v >= 0 && both(v) && (implies(value(v).in[0], m) || implies(value(v).in[1], m))); }

    // What selects and effects ask for, and what that is made of, where it's known before a scope begins.
    std::vector<Val> conditions(int before) const {
        std::vector<char> asked(n_.values.size());
        auto ask = [&](auto& self, Val v) -> void {
            if (std::exchange(asked[at(v)], 1) || !both(v)) return;
            for (Val i : value(v).in) self(self, i);
        };
        for (Val v = 0; v < static_cast<Val>(n_.values.size()); ++v) {
            const Value& x = value(v);
            if (x.what == What::map && x.op == Op::select) ask(ask, x.in[0]);
            if (effect(x) && x.in.size() > 2) ask(ask, x.in[2]);
        }
        std::vector<Val> all;
        for (Val v = 0; v < static_cast<Val>(n_.values.size()); ++v)
            if (asked[at(v)] && value(v).what != What::constant && scope_[at(v)] >= 0 && scope_[at(v)] < before && body_[at(v)] < 0) all.push_back(v);
        return all;
    }
    bool guards(Val m, int p) {
        const Phase& ph = phase(p);
        if (!ph.carries.empty()) return false;
        for (Val v : ph.body)
            if (const Value& x = value(v); effect(x) && (x.in.size() <= 2 || !implies(x.in[2], m))) return false;
        seen_.clear();
        return std::all_of(ph.folds.begin(), ph.folds.end(), [&](int f) { return unneeded(f, m); });
    }
    // Does the value of a fold, or one that is made of it, matter to nothing where m doesn't hold?
    bool unneeded(int fold, Val m) {
        const auto& all = finished_[fold];
        return std::all_of(all.begin(), all.end(), [&](Val v) { return unneeded_value(v, m); });
    }
    bool unneeded_value(Val v, Val m) {
        const auto [it, fresh] = seen_.emplace(v, true);  // a chain of users never comes back
        if (!fresh) return it->second;
        const auto& users = users_[at(v)];
        return seen_[v] = std::all_of(users.begin(), users.end(), [&](Val u) { return unneeded_by(u, v, m); });
    }
    bool unneeded_by(Val user, Val v, Val m) {
        const Value& x = value(user);
        if (const int p = body_[at(user)]; p >= 0 && implies(phase(p).guard, m)) return true;
        switch (x.what) {
            case What::map: return (x.op == Op::select && implies(x.in[0], m) && v != x.in[0] && v != x.in[2]) || unneeded_value(user, m);
            case What::load: return x.in.size() > 1 && implies(x.in[1], m) && v != x.in[1];
            case What::store:
            case What::accumulate: return x.in.size() > 2 && implies(x.in[2], m) && v != x.in[2];
            case What::fold_step: return unneeded(x.index, m);
            default: return false;
        }
    }

    Nest& n_;
    std::vector<std::vector<Val>> users_;
    std::vector<int> body_, scope_;          // per value: the phase in whose body it is, or -1; its scope, in order
    std::map<int, std::vector<Val>> finished_;  // per fold: its values
    std::map<Val, bool> seen_;
};
}  // namespace

Nest with_guards(Nest n) {
    Guards(n).run();
    return n;
}

}  // namespace heddle::loop
