// Index arithmetic of nests; see loop_index.h.
#include "passes/loop_index.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace heddle::loop {

namespace {
bool is_body(int scope) { return scope >= 2 && scope % 2 == 0; }
// What makes two statements the same.
std::size_t hash(const Value& v) {
    std::size_t h = std::bit_cast<std::uint64_t>(v.imm);
    for (int x : {int(v.what), int(v.op), int(v.dtype), v.index}) mix(h, x);
    for (Val i : v.in) mix(h, i);
    return h;
}
bool same(const Value& a, const Value& b) {
    return a.what == b.what && a.op == b.op && a.dtype == b.dtype && a.index == b.index && a.in == b.in && std::bit_cast<std::uint64_t>(a.imm) == std::bit_cast<std::uint64_t>(b.imm);
}
}  // namespace

bool IndexBuilder::visible(Val v) const {
    int s = scope_[static_cast<std::size_t>(v)];
    return !is_body(s) || (phase >= 0 && s == body_scope());
}
Val IndexBuilder::put(Value v, int scope) {
    if (v.loc.empty()) v.loc = here;
    out.values.push_back(std::move(v));
    scope_.push_back(scope);
    Val id = static_cast<Val>(out.values.size()) - 1;
    if (scope == kUniform) out.uniform.push_back(id);
    else if (scope == kPoint) out.prologue.push_back(id);
    else {
        Phase& ph = out.phases[static_cast<std::size_t>((scope - 2) / 2)];
        (is_body(scope) ? ph.body : ph.after).push_back(id);
    }
    return id;
}
Val IndexBuilder::value(Value v, int at_least) {
    int scope = at_least;
    for (Val i : v.in) scope = std::max(scope, scope_[static_cast<std::size_t>(i)]);
    std::vector<Val>& alike = shared_[hash(v)];
    // The after of a phase that is still running is not there yet: what is needed now and depends on nothing later stays put.
    for (Val old : alike)
        if (same(v, at_(old)) && visible(old) && scope_[static_cast<std::size_t>(old)] >= at_least) return old;
    bool integer_map = v.what == What::map && is_int(v.dtype);
    for (Val i : v.in) {
        v.varies_outer |= at_(i).varies_outer, v.varies_last |= at_(i).varies_last, v.varies_inner |= at_(i).varies_inner;
        if (v.what == What::load) break;  // a predicate changes no address
    }
    // What memory holds has no known step, whatever its address does.
    for (Val i : v.in)
        if (v.what == What::map && at_(i).what == What::load && (at_(i).varies_last || at_(i).varies_inner)) integer_map = false;
    for (auto [step, varies] : {std::pair{&Value::step_last, v.varies_last}, std::pair{&Value::step_inner, v.varies_inner}}) {
        if (!varies) {
            v.*step = 0;
        } else if (v.what == What::load) {
            v.*step = at_(v.in[0]).*step;
        } else if (integer_map && (v.op == Op::add || v.op == Op::sub)) {
            if (at_(v.in[0]).*step && at_(v.in[1]).*step) v.*step = *(at_(v.in[0]).*step) + (v.op == Op::add ? 1 : -1) * *(at_(v.in[1]).*step);
        } else if (integer_map && v.op == Op::mul) {
            for (int k : {0, 1})
                if (auto c = known(v.in[static_cast<std::size_t>(k)]); c && at_(v.in[static_cast<std::size_t>(1 - k)]).*step)
                    v.*step = *c * *(at_(v.in[static_cast<std::size_t>(1 - k)]).*step);
        }
    }
    if (v.what == What::load && v.in.size() > 1)
        v.varies_outer |= at_(v.in[1]).varies_outer, v.varies_last |= at_(v.in[1]).varies_last, v.varies_inner |= at_(v.in[1]).varies_inner;
    Val id = put(std::move(v), scope);
    alike.push_back(id);
    return id;
}
void IndexBuilder::effect(Value v) {
    int scope = phase >= 0 ? body_scope() : kPoint;
    for (Val i : v.in) scope = std::max(scope, scope_[static_cast<std::size_t>(i)]);
    effect(std::move(v), scope);
}
void IndexBuilder::effect(Value v, int scope) {
    for (Val i : v.in) v.varies_outer |= at_(i).varies_outer, v.varies_last |= at_(i).varies_last, v.varies_inner |= at_(i).varies_inner;
    if (!v.in.empty() && v.what != What::fold_step && v.what != What::carry_step) v.step_last = at_(v.in[0]).step_last, v.step_inner = at_(v.in[0]).step_inner;
    put(std::move(v), std::max(scope, kPoint));
}
Val IndexBuilder::literal(double x, DType t) {
    Value v{.what = What::constant, .dtype = t, .in = {}};
    v.imm = t == DType::f32 ? static_cast<double>(static_cast<float>(x)) : x;
    std::string keep = std::exchange(here, "");
    Val id = value(v, kUniform);
    here = keep;
    return id;
}
std::optional<std::int64_t> IndexBuilder::known(Val v) const {
    if (at_(v).what != What::constant || !is_int(at_(v).dtype)) return {};
    return static_cast<std::int64_t>(at_(v).imm);
}
Val IndexBuilder::dim(const Dim& d) {
    Val sum = integer(0);
    for (const auto& t : d.terms()) {
        Val product = integer(t.coef);
        for (const auto& n : t.names) {
            auto it = std::find(out.sizes.begin(), out.sizes.end(), n);
            int k = static_cast<int>(it - out.sizes.begin());
            if (it == out.sizes.end()) out.sizes.push_back(n);
            product = times(product, value({.what = What::size, .dtype = DType::i64, .in = {}, .index = k}, kUniform));
        }
        sum = plus(sum, product);
    }
    return sum;
}
Val IndexBuilder::as(Val v, DType t) {
    if (at_(v).dtype == t) return v;
    if (at_(v).what == What::constant) {
        double x = at_(v).imm;
        return literal(is_int(t) ? std::trunc(x) : t == DType::b1 ? x != 0 : x, t);
    }
    return value({.what = What::map, .op = Op::cast, .dtype = t, .in = {v}}, kUniform);
}
Val IndexBuilder::arith(Op op, Val a, Val b, DType t) {
    auto is = [&](Val v, double c) { return at_(v).what == What::constant && at_(v).imm == c; };
    bool exact = !is_float(t);  // x + 0 and x * 0 are not always x and 0 for floats
    if (op == Op::add) {
        if (is(a, 0) && (exact || !std::signbit(at_(b).imm) || at_(b).what != What::constant)) return b;
        if (is(b, 0)) return a;
    } else {
        if (is(a, 1)) return b;
        if (is(b, 1)) return a;
        if (exact && (is(a, 0) || is(b, 0))) return literal(0, t);
    }
    if (auto x = known(a), y = known(b); exact && x && y) return literal(static_cast<double>(op == Op::add ? *x + *y : *x * *y), t);
    if (exact && a > b) std::swap(a, b);
    return value({.what = What::map, .op = op, .dtype = t, .in = {a, b}}, kUniform);
}
Val IndexBuilder::minus(Val a, Val b) {
    if (auto y = known(b)) return plus(a, integer(-*y));
    if (a == b) return integer(0);
    return value({.what = What::map, .op = Op::sub, .dtype = DType::i64, .in = {a, b}}, kUniform);
}
Val IndexBuilder::compare(Op op, Val a, Val b) {
    if (auto x = known(a), y = known(b); x && y) return literal(op == Op::lt ? *x < *y : *x >= *y, DType::b1);
    return value({.what = What::map, .op = op, .dtype = DType::b1, .in = {a, b}}, kUniform);
}
Val IndexBuilder::both(Val a, Val b) {
    if (a < 0 || b < 0 || a == b) return a < 0 ? b : a;
    for (auto [x, other] : {std::pair{a, b}, std::pair{b, a}})
        if (at_(x).what == What::constant) return at_(x).imm != 0 ? other : x;
    return value({.what = What::map, .op = Op::and_, .dtype = DType::b1, .in = {a, b}}, kUniform);
}
Val IndexBuilder::choose(Val c, Val a, Val b, DType t) {
    if (c < 0 || a == b) return a;
    if (at_(c).what == What::constant) return at_(c).imm != 0 ? a : b;
    return value({.what = What::map, .op = Op::select, .dtype = t, .in = {c, a, b}}, kUniform);
}

Val IndexBuilder::linear(const std::vector<Val>& index, const Shape& shape) {
    if (index.empty()) return integer(0);
    if (auto one = std::find(shape.begin(), shape.end(), Dim(1)); one != shape.end() && shape.size() > 1) {  // says nothing
        std::vector<Val> i = index;
        Shape s = shape;
        i.erase(i.begin() + (one - shape.begin()));
        s.erase(s.begin() + (one - shape.begin()));
        return linear(i, s);
    }
    std::vector<Dim> stride(shape.size(), Dim(1));
    for (std::size_t k = shape.size(); k-- > 1;) stride[k - 1] = stride[k] * shape[k];
    std::vector<std::pair<int, Val>> terms;  // outer scopes first, so that what is constant in a loop is added outside it
    auto term = [&](Val v, const Dim& by) { terms.emplace_back(scope_[static_cast<std::size_t>(v)], times(v, dim(by))); };
    for (std::size_t k = 0; k < index.size();) {
        auto [split, shift] = parts(index, shape, k);
        if (!split) {
            term(index[k], stride[k]), ++k;
            continue;
        }
        if (shift >= 0) term(shift, stride[k]);
        k += split->shape.size();
        term(split->address, stride[k - 1]);
    }
    std::stable_sort(terms.begin(), terms.end(), [](auto& a, auto& b) { return a.first < b.first; });
    Val sum = integer(0);
    for (auto& [scope, v] : terms) sum = plus(sum, v);
    return sum;
}
// Indices from k on that split() made of one address are that address again: the longest such run. The first may be shifted (a slice), and
// its size says nothing.
std::pair<const IndexBuilder::Split*, Val> IndexBuilder::parts(const std::vector<Val>& index, const Shape& shape, std::size_t k) const {
    const Split* best = nullptr;
    Val first = index[k], shift = -1;
    if (const Value& v = at_(first); v.what == What::map && v.op == Op::add)
        for (int i : {0, 1})
            if (Val by = v.in[static_cast<std::size_t>(1 - i)]; scope_[static_cast<std::size_t>(by)] == kUniform && splits_.count(v.in[static_cast<std::size_t>(i)])) {
                first = v.in[static_cast<std::size_t>(i)], shift = by;
                break;
            }
    auto it = splits_.find(first);
    if (it == splits_.end()) return {nullptr, -1};
    for (const Split& s : it->second) {
        std::size_t m = s.shape.size();
        bool all = s.position == 0 && m > 1 && k + m <= index.size() && visible(s.address) && (!best || best->shape.size() < m);
        for (std::size_t i = 1; i < m && all; ++i) {
            auto jt = splits_.find(index[k + i]);
            all = jt != splits_.end() && s.shape[i] == shape[k + i] &&
                  std::any_of(jt->second.begin(), jt->second.end(), [&](const Split& q) { return q.address == s.address && q.shape == s.shape && q.position == i; });
        }
        if (all) best = &s;
    }
    return {best, best ? shift : -1};
}
std::vector<Val> IndexBuilder::split(Val address, const Shape& shape) {
    if (shape.empty()) return {};
    if (auto one = std::find(shape.begin(), shape.end(), Dim(1)); one != shape.end() && shape.size() > 1) {
        Shape s = shape;
        s.erase(s.begin() + (one - shape.begin()));
        std::vector<Val> index = split(address, s);
        index.insert(index.begin() + (one - shape.begin()), integer(0));
        return index;
    }
    std::vector<Val> index(shape.size());
    Val rest = address;
    for (std::size_t k = shape.size(); k-- > 1;) {
        if (shape[k] == 1) {
            index[k] = integer(0);
            continue;
        }
        Val size = dim(shape[k]);
        auto x = known(rest), y = known(size);
        if (x && y && *y > 0) {
            index[k] = integer(*x % *y), rest = integer(*x / *y);
        } else {
            index[k] = value({.what = What::map, .op = Op::mod, .dtype = DType::i64, .in = {rest, size}}, kUniform);
            rest = value({.what = What::map, .op = Op::floordiv, .dtype = DType::i64, .in = {rest, size}}, kUniform);
        }
    }
    index[0] = rest;
    for (std::size_t k = 0; k < shape.size(); ++k) splits_[index[k]].push_back({address, shape, k});
    return index;
}
std::vector<Val> IndexBuilder::reshaped(const std::vector<Val>& index, const Shape& from, const Shape& to) {
    // Cut both shapes into the smallest groups of equal size; a group of one axis each needs no arithmetic.
    std::vector<Val> result;
    std::size_t i = 0, j = 0;
    while (i < from.size() || j < to.size()) {
        std::size_t i0 = i, j0 = j;
        // Symbolic sizes can't be ordered, so look for the nearest pair of ends with equal products.
        bool found = false;
        for (std::size_t total = 1; !found && total <= (from.size() - i0) + (to.size() - j0); ++total)
            for (std::size_t a = total + 1; a-- > 0 && !found;) {
                std::size_t b = total - a;
                if (i0 + a > from.size() || j0 + b > to.size()) continue;
                Dim x = 1, y = 1;
                for (std::size_t k = 0; k < a; ++k) x = x * from[i0 + k];
                for (std::size_t k = 0; k < b; ++k) y = y * to[j0 + k];
                bool last = i0 + a == from.size() && j0 + b == to.size();
                // A group of only ones is taken alone; any other needs both sides.
                if (x == y && ((a > 0 && b > 0) || x == 1 || last)) i = i0 + a, j = j0 + b, found = true;
            }
        HEDDLE_CHECK(found, "reshape " + print(from) + " to " + print(to));
        std::vector<Val> part(index.begin() + static_cast<std::ptrdiff_t>(i0), index.begin() + static_cast<std::ptrdiff_t>(i));
        Shape a(from.begin() + static_cast<std::ptrdiff_t>(i0), from.begin() + static_cast<std::ptrdiff_t>(i));
        Shape b(to.begin() + static_cast<std::ptrdiff_t>(j0), to.begin() + static_cast<std::ptrdiff_t>(j));
        if (a == b) result.insert(result.end(), part.begin(), part.end());
        else
            for (Val v : split(linear(part, a), b)) result.push_back(v);
    }
    return result;
}

std::vector<char> IndexBuilder::drop_unused() {
    std::vector<char> used(out.values.size());
    auto mark = [&](auto& self, Val v) -> void {
        if (v < 0 || std::exchange(used[static_cast<std::size_t>(v)], 1)) return;
        for (Val i : at_(v).in) self(self, i);
    };
    auto effects = [&](const std::vector<Val>& list) {
        for (Val v : list)
            if (What w = at_(v).what; w == What::store || w == What::accumulate || w == What::fold_step || w == What::carry_step) mark(mark, v);
    };
    std::vector<std::vector<Val>*> lists{&out.uniform, &out.prologue};
    for (Phase& p : out.phases) lists.push_back(&p.body), lists.push_back(&p.after), mark(mark, p.size);
    for (Val v : out.outer_sizes) mark(mark, v);
    for (auto* list : lists) effects(*list);
    for (auto* list : lists) std::erase_if(*list, [&](Val v) { return !used[static_cast<std::size_t>(v)]; });
    return used;
}

double IndexBuilder::initial(double init, DType t) {
    if (t == DType::b1) return init > 0;
    if (t == DType::i32) return std::clamp(init, -2147483648.0, 2147483647.0);
    if (t == DType::i64) return std::clamp(init, -0x1p63, 0x1p63);  // stands for the highest
    return init;
}
Op IndexBuilder::combine(Op fold, DType t) {
    if (fold == Op::sum) return t == DType::b1 ? Op::or_ : Op::add;
    if (fold == Op::prod) return t == DType::b1 ? Op::and_ : Op::mul;
    if (t == DType::b1) return fold == Op::amax ? Op::or_ : Op::and_;
    return fold == Op::amax ? Op::max : Op::min;
}

}  // namespace heddle::loop
