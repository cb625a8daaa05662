// Lowering of a nest: pulls every root's expression to the nest's points, through views, concats and gathers.
// Law: a value is computed at most once per scope; an element is read only where its predicate holds or where it is sure to be there.
#include "passes/loop.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "passes/loop_index.h"

namespace heddle::loop {

namespace {

std::optional<std::int64_t> constant_product(const Shape& s, const std::vector<int>& axes) {
    std::int64_t n = 1;
    for (int a : axes) {
        if (!s[static_cast<std::size_t>(a)].is_const()) return {};
        n *= s[static_cast<std::size_t>(a)].value();
    }
    return n;
}

DType computed(DType t) { return t == DType::f16 || t == DType::bf16 ? DType::f32 : t; }

class Lowering : IndexBuilder {
public:
    // Points from axis `flat` on as one axis (-1: as they are). Throws Unfusable where an address needs more of it than its own value.
    Lowering(const Program& p, const heddle::Nest& n, int flat, std::size_t most) : p_(p), g_(p.graph), n_(n), flat_(flat), most_(most) {}

    Nest run() {
        out.outer = n_.outer;
        Shape together;
        if (flat_ >= 0) {
            together.assign(n_.outer.begin() + flat_, n_.outer.end());
            out.outer.resize(static_cast<std::size_t>(flat_));
            out.outer.push_back(numel(together));
        }
        out.stage = n_.stage;
        out.schedule = n_.schedule;
        std::vector<Val>& point = point_;
        for (std::size_t k = 0; k < out.outer.size(); ++k) {
            out.outer_sizes.push_back(dim(out.outer[k]));
            Value v{.what = What::outer, .dtype = DType::i64, .in = {}, .index = static_cast<int>(k)};
            v.varies_outer = true, v.varies_last = k + 1 == out.outer.size();
            v.step_last = v.varies_last, v.step_inner = 0;
            point.push_back(put(v, kPoint));
        }
        std::vector<Val> parts;
        if (flat_ >= 0) {
            parts = split(point.back(), together);
            point.pop_back();
            point.insert(point.end(), parts.begin(), parts.end());
        }
        for (Id r : n_.roots) {
            auto b = bind_root(g_, r, n_.outer, n_.piece);
            if (!b) throw Unfusable(fmt::format("{} has other points than {}", print(g_.type(r)), print(n_.outer)));
            if (flat_ >= 0 && (b->extent || b->domain != n_.outer)) throw Unfusable("has loops of its own");
            roots_.push_back({r, *b, b->extent ? 0 : -1});
            position_[r] = roots_.size() - 1;
        }
        for (Root& r : roots_)
            if (r.binding.extent) r.phase = choose_phase(r);
        for (std::size_t k = 0; k < out.phases.size(); ++k) {
            phase = static_cast<int>(k);
            Value i{.what = What::inner, .dtype = DType::i64, .in = {}, .index = -1};
            i.varies_inner = true, i.step_inner = 1, i.step_last = 0;
            Val inner = put(i, body_scope());
            for (Root& r : roots_)
                if (r.phase == phase) root(r, point, inner);
        }
        phase = -1;
        for (Root& r : roots_)
            if (r.phase < 0) root(r, point, -1);
        for (Phase& ph : out.phases) ph.ordered = !ph.carries.empty();
        for (const auto& s : out.sizes)
            if (auto it = p_.counted.find(s); it != p_.counted.end()) out.counted.push_back({s, buffer(it->second, false, false)});
        if (flat_ >= 0) {
            auto used = drop_unused();
            for (Val v : parts)
                if (used[static_cast<std::size_t>(v)] && at_(v).what != What::constant) throw Unfusable("an index is needed by itself");
        }
        return std::move(out);
    }

private:
    struct Root {
        Id id;
        Binding binding;
        int phase;
    };
    using Index = std::vector<Val>;
    struct Key {
        Id id;
        Index index;
        Val predicate;
        bool operator==(const Key&) const = default;
        struct Hash {
            std::size_t operator()(const Key& k) const {
                std::size_t h = static_cast<std::size_t>(k.id);
                for (Val v : k.index) mix(h, v);
                mix(h, k.predicate);
                return h;
            }
        };
    };

    // ---- phases
    // Folds and scans of this nest that `id` reads at its own point, through everything that is pulled in.
    void inner_deps(Id id, std::vector<char>& seen, std::vector<Id>& deps) const {
        for (Id i : g_[id].in) {
            if (std::exchange(seen[static_cast<std::size_t>(i)], 1)) continue;
            bool mine = position_.count(i) != 0;
            if (mine && ((g_[i].kind() == Kind::fold && !is_small_fold(g_, i)) || g_[i].kind() == Kind::scan)) deps.push_back(i);
            else if (mine || !p_.is_stored(i)) inner_deps(i, seen, deps);
        }
    }
    int choose_phase(const Root& r) {
        const Node& n = g_[r.id];
        std::vector<char> seen(g_.nodes.size());
        std::vector<Id> deps;
        inner_deps(r.id, seen, deps);
        std::optional<bool> reverse;
        if (n.is(Op::scan)) reverse = n.flag("reverse");
        if (n.is(Op::compact)) reverse = false;
        int earliest = 0;
        for (int pass = 0; pass < 2; ++pass)  // directions first, then what they mean
            for (Id d : deps) {
                const Root& q = roots_[position_.at(d)];
                bool together = g_[d].is(Op::scan) && q.binding.extent == r.binding.extent;
                bool back = g_[d].is(Op::scan) && g_[d].flag("reverse");
                if (pass == 0 && together && !reverse && q.phase + 1 == static_cast<int>(out.phases.size())) reverse = back;
                if (pass == 1) earliest = std::max(earliest, together && reverse == back ? q.phase : q.phase + 1);
            }
        for (int k = earliest; k < static_cast<int>(out.phases.size()); ++k) {
            Phase& ph = out.phases[static_cast<std::size_t>(k)];
            if (ph.extent != *r.binding.extent) continue;
            if (!reverse || !directed_[static_cast<std::size_t>(k)] || ph.reverse == *reverse) {
                if (reverse) ph.reverse = *reverse, directed_[static_cast<std::size_t>(k)] = true;
                return k;
            }
        }
        Phase ph;
        ph.extent = *r.binding.extent;
        ph.size = dim(ph.extent);
        ph.reverse = reverse.value_or(false);
        out.phases.push_back(ph);
        directed_.push_back(reverse.has_value());
        return static_cast<int>(out.phases.size()) - 1;
    }

    // ---- roots
    void root(Root& r, const std::vector<Val>& point, Val inner) {
        std::vector<int> unrolled;
        for (std::size_t k = 0; k < r.binding.axes.size(); ++k)
            if (r.binding.axes[k] == kUnroll) unrolled.push_back(static_cast<int>(k));
        std::int64_t copies = *constant_product(r.binding.domain, unrolled);
        sums_.clear();
        for (std::int64_t c = 0; c < copies; ++c) {
            Index at;
            std::int64_t rest = c;
            for (std::size_t k = r.binding.axes.size(); k-- > 0;) {
                int a = r.binding.axes[k];
                if (a == kUnroll) {
                    std::int64_t size = r.binding.domain[k].value();
                    at.insert(at.begin(), integer(rest % size));
                    rest /= size;
                } else {
                    at.insert(at.begin(), a == kInner ? inner : point[static_cast<std::size_t>(a)]);
                }
            }
            one(r, at);
        }
        for (auto [address, x] : sums_) add(r.id, address, x);
    }
    // Where what is added is 0 unless a condition of the point holds, that is a predicate: memory isn't touched to add nothing, nor is a place
    // that is 0 then needed as such.
    void add(Id to, Val address, Val x) {
        Value v{.what = What::accumulate, .dtype = computed(g_.type(to).dtype), .in = {address, x}, .index = buffer(to, false, true)};
        const Value s = at_(x);
        if (s.what == What::map && s.op == Op::select && at_(s.in[2]).what == What::constant && at_(s.in[2]).imm == 0 && !at_(s.in[0]).varies_inner) v.in = {address, s.in[1], s.in[0]};
        effect(v);
    }
    void one(const Root& r, const Index& at) {
        const Node& n = g_[r.id];
        if (n.kind() == Kind::fold && !is_small_fold(g_, r.id)) {
            Val x = emit(n.in[0], at, -1);
            auto axes = n.ints("axes");
            Index kept;
            for (std::size_t k = 0; k < at.size(); ++k)
                if (!std::binary_search(axes.begin(), axes.end(), static_cast<int>(k))) kept.push_back(at[k]);
            if (r.binding.accumulates) {
                Val address = linear(kept, n.type.shape);  // copies that meet there are added up first
                auto [it, fresh] = sums_.try_emplace(address, x);
                if (!fresh) it->second = value({.what = What::map, .op = combine(n.op, at_(x).dtype), .dtype = at_(x).dtype, .in = {it->second, x}}, kUniform);
                return;
            }
            DType t = computed(n.type.dtype);
            int f = static_cast<int>(out.folds.size());
            out.folds.push_back({n.op, t, initial(n.def().init, t)});
            out.phases[static_cast<std::size_t>(phase)].folds.push_back(f);
            effect({.what = What::fold_step, .op = n.op, .dtype = t, .in = {x}, .index = f}, body_scope());
            Value v{.what = What::fold, .dtype = t, .in = {}, .index = f};
            v.varies_outer = at_(x).varies_outer, v.varies_last = at_(x).varies_last, v.step_inner = 0;
            if (!v.varies_last) v.step_last = 0;
            v.name = hint(r.id), v.loc = n.loc;
            int scope = after_scope(phase);
            Val result = put(v, scope);
            finished_[{r.id, kept, -1}] = result;
            if (p_.is_stored(r.id)) effect({.what = What::store, .dtype = t, .in = {linear(kept, n.type.shape), result}, .index = buffer(r.id, true, false)}, scope);
        } else if (n.is(Op::scatter_add)) {
            auto k = static_cast<std::size_t>(n.integer("k"));
            bool unique = n.flag("unique");
            for (std::size_t q = 0; q < n.in.size(); q += k + 1) {
                auto s = g_.type(n.in[q]).shape.size();
                Index index_at(at.begin(), at.begin() + static_cast<std::ptrdiff_t>(s)), row;
                for (std::size_t i = q; i < q + k; ++i) row.push_back(as(emit(n.in[i], index_at, -1), DType::i64));
                row.insert(row.end(), at.begin() + static_cast<std::ptrdiff_t>(s), at.end());
                Val v = emit(n.in[q + k], at, -1);
                Val to = linear(row, n.type.shape);
                if (unique) effect({.what = What::store, .dtype = computed(n.type.dtype), .in = {to, v}, .index = buffer(r.id, true, true)});
                else add(r.id, to, v);
            }
        } else if (n.is(Op::compact)) {  // how many places of the row came before is carried along it
            const DType t = g_.type(n.in[0]).shape[1].is_const() ? DType::i32 : DType::i64;
            Val holds = emit(n.in[0], at, -1), one = as(holds, t), start = as(emit(n.in[1], {at[0]}, -1), DType::i64);
            const int c = static_cast<int>(out.carries.size());
            out.carries.push_back({t, 0});
            out.phases[static_cast<std::size_t>(phase)].carries.push_back(c);
            Value carry{.what = What::carry, .dtype = t, .in = {}, .index = c};
            carry.varies_outer = carry.varies_last = !out.outer.empty(), carry.varies_inner = true;
            Val before = put(carry, body_scope());
            effect({.what = What::carry_step, .dtype = t, .in = {arith(Op::add, before, one, t)}, .index = c}, body_scope());
            Val to = plus(start, as(before, DType::i64));
            if (n.flag("bounded")) holds = both(holds, compare(Op::lt, to, dim(n.type.shape[0])));
            Val place = as(linear(at, g_.type(n.in[0]).shape), n.type.dtype);
            effect({.what = What::store, .dtype = n.type.dtype, .in = {to, place, holds}, .index = buffer(r.id, true, n.flag("cleared"))});
        } else if (n.is(Op::scatter)) {  // its base at every place, or in a later stage its rows
            const auto k = static_cast<std::size_t>(n_.piece);
            Val v = emit(n.in[k], at, -1);
            Index to = at;
            if (k > 0) {
                const auto s = static_cast<std::ptrdiff_t>(g_.type(n.in[1]).shape.size());
                const Index index_at(at.begin(), at.begin() + s);
                to.clear();
                for (std::size_t i = 1; i < k; ++i) to.push_back(as(emit(n.in[i], index_at, -1), DType::i64));
                to.insert(to.end(), at.begin() + s, at.end());
            }
            effect({.what = What::store, .dtype = at_(v).dtype, .in = {linear(to, n.type.shape), v}, .index = buffer(r.id, true, false)});
        } else if (n_.piece >= 0) {
            const auto a = static_cast<std::size_t>(n.integer("axis")), first = static_cast<std::size_t>(n_.piece);
            Dim begin;
            for (std::size_t i = 0; i < first; ++i) begin = begin + g_.type(n.in[i]).shape[a];
            for (std::size_t k = first; k < first + static_cast<std::size_t>(n_.pieces); ++k) {
                Val v = emit(n.in[k], at, -1);
                Index to = at;
                to[a] = plus(at[a], dim(begin));
                effect({.what = What::store, .dtype = at_(v).dtype, .in = {linear(to, n.type.shape), v}, .index = buffer(r.id, true, false)});
                begin = begin + g_.type(n.in[k]).shape[a];
            }
        } else {
            Val v = n.is(Op::scan) ? scan(r, at) : compute(r.id, at, -1);
            if (p_.is_stored(r.id)) effect({.what = What::store, .dtype = at_(v).dtype, .in = {linear(at, n.type.shape), v}, .index = buffer(r.id, true, false)});
        }
    }
    // The state is kept in float64, as PyTorch's cumsum and cumprod do: its rounding would grow with the length of the axis.
    Val scan(const Root& r, const Index& at) {
        const Node& n = g_[r.id];
        DType t = is_float(n.type.dtype) ? DType::f64 : n.type.dtype;
        Val a = as(emit(n.in[0], at, -1), t), b = as(emit(n.in[1], at, -1), t);
        int c = static_cast<int>(out.carries.size());
        out.carries.push_back({t, n.number("init")});
        out.phases[static_cast<std::size_t>(phase)].carries.push_back(c);
        Value carry{.what = What::carry, .dtype = t, .in = {}, .index = c};
        carry.varies_outer = carry.varies_last = !out.outer.empty(), carry.varies_inner = true;
        Val state = put(carry, body_scope());
        auto advance = [&](Val x) { return arith(Op::add, arith(Op::mul, a, x, t), b, t); };
        int mode = n.integer("mode");
        Val result = mode == 0 ? advance(state) : mode == 1 ? state : arith(Op::add, state, b, t);
        Val next = mode == 0 ? result : mode == 1 ? advance(state) : arith(Op::mul, a, result, t);
        effect({.what = What::carry_step, .dtype = t, .in = {next}, .index = c}, body_scope());
        return memo_[{r.id, at, -1}] = as(result, computed(n.type.dtype));
    }

    // ---- values
    Val emit(Id id, const Index& at, Val predicate) {
        if (never(predicate)) return literal(0, computed(g_.type(id).dtype));
        if (auto it = position_.find(id); it != position_.end()) {
            const Root& r = roots_[it->second];
            if (g_[id].kind() == Kind::scatter || r.binding.accumulates) throw Unfusable("reads an accumulated value of its own nest");
            if (g_[id].kind() == Kind::fold && !is_small_fold(g_, id)) {
                auto f = finished_.find({id, at, -1});
                if (f == finished_.end()) throw Unfusable("reads a fold of its own nest at another point");
                return f->second;
            }
            if (g_[id].is(Op::scan)) {
                if (auto m = memo_.find({id, at, -1}); m != memo_.end() && visible(m->second)) return m->second;
                if (r.phase == phase || !p_.is_stored(id)) throw Unfusable("reads a scan of its own nest at another place");
                if (!same_point(r, at)) throw Unfusable("reads a scan of another point");
                return load(id, at, predicate, after_scope(r.phase));
            }
            // a pointwise root is computed again where another phase needs it
        } else if (p_.is_stored(id)) {
            return load(id, at, predicate, kUniform);
        }
        Key key{id, at, predicate};
        if (auto m = memo_.find(key); m != memo_.end() && visible(m->second)) return m->second;
        if (out.values.size() > most_) throw TooLarge(dividing());
        if (depth_ > most_ && g_[id].kind() == Kind::map) throw TooLarge(id);
        std::size_t before = out.values.size();
        ++depth_;
        Val v = compute(id, at, predicate);
        --depth_;
        if (most_ != kAny) {
            Share& s = shares_[id];
            ++s.times, s.statements += out.values.size() - before;
        }
        return memo_[key] = v;
    }
    // The value that in memory would leave the larger of its own nest and this one smallest.
    Id dividing() const {
        Id best = -1;
        std::size_t least = kAny;
        for (const auto& [id, s] : shares_) {
            if (g_[id].kind() == Kind::view || g_[id].kind() == Kind::leaf) continue;
            std::size_t larger = std::max(s.statements / s.times, out.values.size() + s.times - std::min(s.statements, out.values.size()));
            if (larger < least) least = larger, best = id;
        }
        return best;
    }
    bool same_point(const Root& r, const Index& at) const {
        for (std::size_t k = 0; k < at.size(); ++k)
            if (r.binding.axes[k] >= 0) {
                const Value& v = at_(at[k]);
                if (v.what != What::outer || v.index != r.binding.axes[k]) return false;
            }
        return true;
    }
    // Does the index lie in 0..size whatever the point? Then a load needs no predicate, and is the same load under each.
    bool in_range(Val i, const Dim& size) const {
        auto at_most = [&](const Dim& extent, std::int64_t shift) {
            Dim left = size - extent - shift;
            return shift >= 0 && left.is_const() && left.value() >= 0;
        };
        if (auto c = known(i)) return at_most(1, *c);
        std::int64_t shift = 0;
        if (const Value& v = at_(i); v.what == What::map && v.op == Op::add)
            for (int k : {0, 1})
                if (auto c = known(v.in[static_cast<std::size_t>(k)])) shift = *c, i = v.in[static_cast<std::size_t>(1 - k)];
        if (at_(i).what == What::inner) return at_most(out.phases[static_cast<std::size_t>(phase)].extent, shift);
        auto it = std::find(point_.begin(), point_.end(), i);
        return it != point_.end() && at_most(n_.outer[static_cast<std::size_t>(it - point_.begin())], shift);
    }
    Val load(Id id, const Index& at, Val predicate, int after) {
        const Type& t = g_.type(id);
        Val address = linear(at, t.shape);
        Value v{.what = What::load, .dtype = computed(t.dtype), .in = {address}, .index = buffer(id, false, false)};
        bool there = true;
        for (std::size_t k = 0; k < at.size(); ++k) there &= in_range(at[k], t.shape[k]);
        if (predicate >= 0 && !there) v.in.push_back(predicate);
        v.name = hint(id);
        return value(v, after);
    }
    Val compute(Id id, const Index& at, Val predicate) {
        const Node& n = g_[id];
        DType t = computed(n.type.dtype);
        auto moved = [&](std::size_t axis, Val to) {
            Index j = at;
            j[axis] = to;
            return j;
        };
        here = n.loc;
        switch (n.op) {  // lists ops: how each view moves an index, in terms of the nest being lowered
            case Op::constant: return literal(n.number("value"), t);
            case Op::size: return as(dim(n.dim("dim")), t);
            case Op::iota: return as(at[static_cast<std::size_t>(n.integer("axis"))], t);
            case Op::stop_grad:
            case Op::realize: return emit(n.in[0], at, predicate);
            case Op::expand: {
                auto axes = n.ints("axes");
                Index j;
                for (std::size_t k = 0; k < at.size(); ++k)
                    if (!std::binary_search(axes.begin(), axes.end(), static_cast<int>(k))) j.push_back(at[k]);
                return emit(n.in[0], j, predicate);
            }
            case Op::permute: {
                auto axes = n.ints("axes");
                Index j(at.size());
                for (std::size_t k = 0; k < at.size(); ++k) j[static_cast<std::size_t>(axes[k])] = at[k];
                return emit(n.in[0], j, predicate);
            }
            case Op::reshape: return emit(n.in[0], reshaped(at, n.type.shape, g_.type(n.in[0]).shape), predicate);
            case Op::slice: {
                auto a = static_cast<std::size_t>(n.integer("axis"));
                return emit(n.in[0], moved(a, plus(at[a], dim(n.dim("start")))), predicate);
            }
            case Op::flip: {
                auto a = static_cast<std::size_t>(n.integer("axis"));
                return emit(n.in[0], moved(a, minus(dim(n.type.shape[a] - 1), at[a])), predicate);
            }
            case Op::pad: {
                auto a = static_cast<std::size_t>(n.integer("axis"));
                const Dim& size = g_.type(n.in[0]).shape[a];
                Val i = minus(at[a], dim(n.dim("lo"))), inside = -1;
                if (!(n.dim("lo") == 0)) inside = compare(Op::ge, at[a], dim(n.dim("lo")));
                if (!(n.dim("hi") == 0)) inside = both(inside, compare(Op::lt, at[a], dim(n.dim("lo") + size)));
                if (inside >= 0 && at_(inside).what == What::constant) {
                    if (never(inside)) return literal(0, t);
                    inside = -1;
                }
                Val x = emit(n.in[0], moved(a, i), both(predicate, inside));
                here = n.loc;
                return inside < 0 ? x : choose(inside, x, literal(0, t), t);
            }
            case Op::blocks: {
                const Dim &size = g_.type(n.in[0]).shape[0], &width = n.type.shape[1];
                Val i = plus(times(at[0], dim(width)), at[1]);
                Val inside = size.divided_by(width) && *size.divided_by(width) == n.type.shape[0] ? -1 : compare(Op::lt, i, dim(size));
                Val x = emit(n.in[0], {i}, both(predicate, inside));
                return choose(inside, x, literal(0, t), t);
            }
            case Op::concat: return concat(n, at, predicate, t);
            case Op::gather: {
                std::size_t k = n.in.size() - 1, s = g_.type(n.in[1]).shape.size();
                Index index_at(at.begin(), at.begin() + static_cast<std::ptrdiff_t>(s)), j;
                for (std::size_t q = 1; q <= k; ++q) j.push_back(as(emit(n.in[q], index_at, predicate), DType::i64));
                j.insert(j.end(), at.begin() + static_cast<std::ptrdiff_t>(s), at.end());
                return emit(n.in[0], j, predicate);
            }
            default: break;
        }
        if (n.kind() == Kind::fold) return small_fold(id, at, predicate, t);
        if (n.kind() != Kind::map) throw Unfusable(fmt::format("{} is not computed in place", n.def().name));
        Value v{.what = What::map, .op = n.op, .dtype = t, .in = {}};
        for (Id i : n.in) v.in.push_back(emit(i, at, predicate));
        if (n.is(Op::cast)) {
            Val x = as(v.in[0], t);
            // Who asks for a narrow float gets its rounding; what's computed in one is rounded where it's stored. A narrow value that is loaded has it.
            const bool narrows = n.type.dtype != t && g_.type(n.in[0]).dtype != n.type.dtype;
            return narrows ? as(value({.what = What::map, .op = Op::cast, .dtype = n.type.dtype, .in = {x}}, kUniform), t) : x;
        }
        here = n.loc;
        v.name = hint(id);
        return value(v, kUniform);
    }
    Val concat(const Node& n, const Index& at, Val predicate, DType t) {
        auto a = static_cast<std::size_t>(n.integer("axis"));
        std::vector<Dim> ends;
        for (Id i : n.in) ends.push_back((ends.empty() ? Dim(0) : ends.back()) + g_.type(i).shape[a]);
        auto piece = [&](std::size_t k, Val only) {
            Index j = at;
            if (k > 0) j[a] = minus(at[a], dim(ends[k - 1]));
            return emit(n.in[k], j, both(predicate, only));
        };
        if (auto c = known(at[a]))
            for (std::size_t k = 0; k < ends.size() && ends[k].is_const(); ++k)
                if (*c < ends[k].value()) return piece(k, -1);
        Val result = -1;
        for (std::size_t k = ends.size(); k-- > 0;) {  // from the back: select(i < end0, x0, select(i < end1, x1, x2))
            Val below = k + 1 < ends.size() ? compare(Op::lt, at[a], dim(ends[k])) : -1;
            Val from = k > 0 ? compare(Op::ge, at[a], dim(ends[k - 1])) : -1;
            Val only = both(from, below);
            Val x = never(only) ? literal(0, t) : piece(k, only);
            result = result < 0 ? x : choose(below, x, result, t);
        }
        return result;
    }
    Val small_fold(Id id, const Index& at, Val predicate, DType t) {
        const Node& n = g_[id];
        const Shape& s = g_.type(n.in[0]).shape;
        auto axes = n.ints("axes");
        auto count = constant_product(s, axes);
        if (!is_small_fold(g_, id)) throw Unfusable("a fold is not computed in place");
        Val sum = -1;
        for (std::int64_t c = 0; c < *count; ++c) {
            Index j;
            std::int64_t rest = c;
            auto next = at.rbegin();
            for (std::size_t k = s.size(); k-- > 0;) {
                if (std::binary_search(axes.begin(), axes.end(), static_cast<int>(k))) {
                    j.insert(j.begin(), integer(rest % s[k].value()));
                    rest /= s[k].value();
                } else {
                    j.insert(j.begin(), *next++);
                }
            }
            Val x = emit(n.in[0], j, predicate);
            if (sum < 0) sum = x;
            else sum = value({.what = What::map, .op = combine(n.op, t), .dtype = t, .in = {sum, x}}, kUniform);
        }
        return sum < 0 ? literal(initial(n.def().init, t), t) : sum;
    }

    std::string hint(Id id) const { return g_[id].is(Op::input) ? g_[id].text("name") : ""; }
    int buffer(Id id, bool written, bool accumulated) {
        id = p_.memory_of(id);
        for (std::size_t k = 0; k < out.buffers.size(); ++k)
            if (out.buffers[k].id == id) {
                out.buffers[k].written |= written, out.buffers[k].accumulated |= accumulated;
                return static_cast<int>(k);
            }
        std::string name;
        for (char c : hint(id)) name += std::isalnum(static_cast<unsigned char>(c)) ? c : '_';
        name = name.empty() || std::isdigit(static_cast<unsigned char>(name[0])) ? fmt::format("v{}{}", id, name.empty() ? "" : "_" + name) : name;
        for (const Buffer& b : out.buffers)
            if (b.name == name) name += fmt::format("_{}", id);
        const bool places = g_[id].is(Op::compact);  // of a mask
        out.buffers.push_back({id, g_.type(id).dtype, written, accumulated, name, numel(g_.type(id).shape), places ? numel(g_.type(g_[id].in[0]).shape) : Dim(0)});
        return static_cast<int>(out.buffers.size()) - 1;
    }

    const Program& p_;
    const Graph& g_;
    const heddle::Nest& n_;
    const int flat_;
    const std::size_t most_;         // statements
    struct Share {
        std::size_t times = 0, statements = 0;
    };
    std::map<Id, Share> shares_;     // of what is pulled in, with all that this needs: how often, and what it took
    std::size_t depth_ = 0;
    std::vector<Val> point_;         // its indices, one per axis of the nest as given
    std::vector<Root> roots_;
    std::map<Id, std::size_t> position_;
    std::vector<char> directed_;
    std::unordered_map<Key, Val, Key::Hash> memo_, finished_;
    std::map<Val, Val> sums_;        // of the root being written: address -> what is added there
};

}  // namespace

std::optional<Nest> lower_flat(const Program& p, const heddle::Nest& n, std::size_t most) {
    for (int k = 0; k + 1 < static_cast<int>(n.outer.size()); ++k) try {
            return Lowering(p, n, k, most).run();
        } catch (const TooLarge&) {
            throw;
        } catch (const Unfusable&) {
        }
    return {};
}
Nest lower(const Program& p, const heddle::Nest& n, std::size_t most) {
    if (auto flat = lower_flat(p, n, most)) return std::move(*flat);
    return Lowering(p, n, -1, most).run();
}

}  // namespace heddle::loop
