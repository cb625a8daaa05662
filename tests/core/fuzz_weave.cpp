// Random well-typed graphs, drawn from the table of ops. Law: a graph is a function of its seed.
// Ops whose operands have a range get them there, so that values stay finite and differences of smooth graphs make sense. Narrow floats and
// what a call returns decide nothing that has a jump, so that their rounding stays small: they are inputs, smooth arithmetic and outputs.
#include <array>
#include <random>

#include "tests/core/fuzz.h"

namespace heddle::fuzz {

namespace {

class Weaver {
public:
    explicit Weaver(unsigned seed) : rng_(seed), f_(pick(2) ? DType::f64 : DType::f32) {
        g.name = "fuzz" + std::to_string(seed);
        int symbols = 1 + pick(3);
        for (int k = 0; k < symbols; ++k) symbols_.push_back(Dim::symbol(std::string(1, static_cast<char>('A' + k))));
        for (int k = 1 + pick(3); k > 0; --k) all_.push_back(input({f_, shape(1 + pick(3))}));
        if (pick(4) == 0) others_.push_back(input({std::array{DType::b1, DType::i32, DType::i64}[static_cast<std::size_t>(pick(3))], shape(1 + pick(2))}));
        if (pick(6) == 0) half_ = pick(2) ? DType::f16 : DType::bf16, halves_.push_back(input({half_, shape(1 + pick(2))}));
        int steps = 3 + pick(14);
        for (int k = 0; k < steps; ++k) step();
        for (; !halves_.empty() && pick(3); halves_.pop_back()) g.outputs.push_back(halves_.back().id);
        for (int k = 1 + pick(3); k > 0; --k) g.outputs.push_back(value().id);
        g.outputs.push_back(all_.back().id);
        if (!others_.empty() && pick(2)) g.outputs.push_back(other().id);
        g = live(g);
    }
    Graph g;
    int pick(int n) { return static_cast<int>(rng_() % static_cast<unsigned>(n)); }

private:
    std::mt19937 rng_;
    DType f_, half_ = DType::f16;
    std::vector<Dim> symbols_;
    std::vector<V> all_;     // of f_
    std::vector<V> others_;  // masks and integers
    std::vector<V> halves_;  // of half_, where there is an input of it
    int masks_ = 0;

    Dim dim() { return pick(2) ? symbols_[static_cast<std::size_t>(pick(static_cast<int>(symbols_.size())))] : Dim(1 + pick(5)); }
    Shape shape(int rank) {
        Shape s;
        for (int k = 0; k < rank; ++k) s.push_back(dim());
        return s;
    }
    V input(Type t) { return g.value(g.input(std::move(t), "x" + std::to_string(g.inputs.size()))); }
    // Inputs come first in text, so later ones are made of constants and iotas: waves of different phase.
    V wave(const Type& t) {
        V v = constant(g, t, 0.3 + 0.1 * pick(5));
        for (int a = 0; a < t.rank(); ++a) v = v + iota(g, t, a) * (0.37 + 0.2 * pick(3));
        return is_float(t.dtype) ? sin(v) : v;
    }
    V one_of(const std::vector<V>& from) {  // of the last ones rather than of all
        const int n = static_cast<int>(from.size());
        return from[static_cast<std::size_t>(pick(2) ? n - 1 - pick(std::min(3, n)) : pick(n))];
    }
    V value() { return one_of(all_); }
    V other() { return one_of(others_); }
    template <class F>
    Op op_of(F fits) {
        std::vector<Op> ops;
        for (int k = 0; k < kOps; ++k)
            if (fits(def(static_cast<Op>(k)))) ops.push_back(static_cast<Op>(k));
        return ops[static_cast<std::size_t>(pick(static_cast<int>(ops.size())))];
    }
    // Is there a value of the op for operands of this type, and of which type?
    static std::optional<Type> typed(const OpDef& d, DType t) {
        Graph one;
        try {
            std::vector<V> in;
            for (int k = 0; k < d.arity; ++k) in.push_back(one.value(one.input({t, {2}}, std::to_string(k))));
            return apply(static_cast<Op>(&d - &def(Op{})), in).type();
        } catch (const Error&) {
            return {};
        }
    }
    V ranked(int least) {
        for (int k = 0; k < 8; ++k)
            if (V v = value(); v.type().rank() >= least && v.type().rank() <= 4) return v;
        return wave({f_, shape(std::max(1, least))});
    }
    V small(V x, DType t = DType::i64) {  // an integer of a few values, so that what is made of it fits its type
        V y = cast(x, DType::i64);
        return cast(mod(y, like(y, (3 + pick(4)) * (pick(4) ? 1 : -1))), t);
    }
    DType whole_type() { return pick(3) ? DType::i64 : DType::i32; }
    V mate(V x) {  // another value of the same type
        for (int k = 0; k < 6; ++k)
            if (V v = value(); v.type() == x.type() && v.id != x.id) return v;
        for (int k = 0; k < 6; ++k) {  // or one that broadcasts to it
            V v = value();
            const Shape want = x.type().shape, has = v.type().shape;
            if (has.size() >= want.size()) continue;
            std::vector<int> axes;
            std::size_t j = 0;
            for (std::size_t i = 0; i < want.size(); ++i)
                if (j < has.size() && has[j] == want[i]) ++j;
                else axes.push_back(static_cast<int>(i));
            if (j == has.size()) return expand(v, axes, want);
        }
        return wave(x.type());
    }
    V into(V x, double lo, double hi) { return sigmoid(x) * (hi - lo) + lo; }
    std::vector<int> some_axes(int rank, bool one) {
        std::vector<int> axes;
        if (one) return {pick(rank)};
        for (int k = 0; k < rank; ++k)
            if (pick(2)) axes.push_back(k);
        return axes.empty() ? std::vector<int>{pick(rank)} : axes;
    }
    V index(const Shape& s, const Dim& rows, DType type = DType::i64) {  // anything in 0..rows-1, with repetition
        Type t{DType::i64, s};
        V v = constant(g, t, pick(3));
        for (int a = 0; a < t.rank(); ++a) v = v + iota(g, t, a) * static_cast<double>(1 + pick(3));
        if (pick(2)) v = v + cast(floor(into(mate(wave({f_, s})), 0, 3)), DType::i64);
        return cast(mod(v, size(g, t, rows)), type);
    }
    void map1() {
        if (pick(16) == 0) {  // through the other float type
            V x = value();
            return all_.push_back(cast(cast(x, f_ == DType::f64 ? DType::f32 : DType::f64) * 0.75, f_));
        }
        const Op op = op_of([](const OpDef& d) { return d.kind == Kind::map && d.arity == 1 && d.vjp && d.scalar.eval; });
        const OpDef& d = def(op);
        V x = into(value(), d.range.lo, d.range.hi);
        all_.push_back(apply(op, {x}));
    }
    void map2() {
        const Op op = op_of([](const OpDef& d) { return d.kind == Kind::map && d.arity == 2 && d.vjp; });
        const OpDef& d = def(op);
        V x = value(), y = mate(x);
        if (op == Op::mod || op == Op::floordiv) {  // quotients away from whole numbers, where rounding decides
            x = into(x, 2.15, 2.85) * (pick(2) ? 1 : -1), y = into(y, 0.97, 1.03) * (pick(2) ? 1 : -1);
        } else if (d.range.lo > -2 || op == Op::mul) x = into(x, d.range.lo, d.range.hi), y = into(y, d.range.lo, d.range.hi);
        all_.push_back(apply(op, {x, y}));
    }
    V compared(V x, V y) {
        V c = apply(op_of([](const OpDef& d) { return d.kind == Kind::map && d.arity == 2 && typed(d, DType::f64) == Type{DType::b1, {2}}; }), {x, y});
        if (pick(2)) return c;
        V d = gt(y, like(y, 0.2));
        return apply(op_of([](const OpDef& o) { return o.kind == Kind::map && o.arity == 2 && typed(o, DType::b1) == Type{DType::b1, {2}} && !typed(o, DType::f64); }), {pick(2) ? c : not_(c), d});
    }
    void choose() {
        V x = value(), y = mate(x), c = compared(x, y);
        others_.push_back(c);
        all_.push_back(select(c, x, pick(3) ? y * 0.5 : zeros_like(y)));
    }
    void view() {
        V x = ranked(1);
        if (pick(4) == 0) all_.push_back(pick(3) ? concat({x, mate(x)}, pick(x.type().rank())) : x - stop_grad(x) * 0.5);
        else all_.push_back(viewed(x));
    }
    // Of any type; itself where the view it drew doesn't fit.
    V viewed(V x) {
        const Type t = x.type();
        const int rank = t.rank();
        if (rank == 0) return expand(x, {0}, {dim()});
        const int a = pick(rank);
        const Dim n = t.shape[static_cast<std::size_t>(a)];
        Shape s = t.shape;
        switch (pick(10)) {
            case 0:
                if (rank < 4) s.insert(s.begin() + a, dim()), x = expand(x, {a}, s);
                return x;
            case 1: {
                auto axes = axes_from_to(0, rank);
                std::shuffle(axes.begin(), axes.end(), rng_);
                return permute(x, axes);
            }
            case 2:  // two axes become one, or an axis of 1 comes in
                if (a + 1 < rank && pick(3)) {
                    s[static_cast<std::size_t>(a)] = n * s[static_cast<std::size_t>(a) + 1];
                    s.erase(s.begin() + a + 1);
                } else if (rank < 4) s.insert(s.begin() + a, 1);
                return reshape(x, s);
            case 3: {  // one becomes two
                const Dim by = pick(2) ? symbols_[0] : Dim(2 + pick(2));
                if (auto rest = n.divided_by(by); rest && rank < 4) {
                    s[static_cast<std::size_t>(a)] = by;
                    s.insert(s.begin() + a + pick(2), *rest);
                }
                return reshape(x, s);
            }
            case 4:
            case 5:
                if (!n.is_symbol() && !(n.is_const() && n.value() > 2)) return x;
                if (pick(3) == 0) return slice(x, a, n - 1, n);
                if (pick(2)) return slice(x, a, 1, n - pick(2));
                return slice(x, a, 0, n - 1);
            case 6: return pad(x, a, pick(3), pick(2));
            case 7: return flip(x, a);
            case 8: return pick(2) ? realize(x) : concat({slice(x, a, 0, 1), x, slice(x, a, 0, 1)}, a);
            default: return stop_grad(x);
        }
    }
    void fold() {
        V x = ranked(1);
        int rank = x.type().rank();
        switch (pick(6)) {
            case 0: return all_.push_back(prod(into(x, 0.6, 1.3), some_axes(rank, true)));
            case 1: return all_.push_back(amax(x, some_axes(rank, false)));
            case 2: return all_.push_back(amin(x, some_axes(rank, false)));
            case 3: {  // a mask's sum, as a factor
                auto axes = some_axes(rank, false);
                V count = sum(cast(gt(x, mate(x)), DType::i64), axes);
                return all_.push_back(sum(x, axes) / (cast(count, f_) + 1));
            }
            default: return all_.push_back(sum(x, some_axes(rank, false)));
        }
    }
    void recur() {
        V a = ranked(1), b = mate(a);
        all_.push_back(scan(into(a, 0.2, 1.0), b, pick(a.type().rank()), pick(3), pick(2) != 0, pick(2)));
    }
    void indirect() {
        V x = ranked(1);
        const Shape s = x.type().shape;
        int rank = x.type().rank(), k = 1 + pick(std::min(2, rank));
        Shape rest(s.begin() + k, s.end()), at = shape(1 + pick(rank - k < 2 ? 2 : 1));
        std::vector<V> i;
        const DType type = whole_type();
        for (int q = 0; q < k; ++q) i.push_back(index(at, s[static_cast<std::size_t>(q)], type));
        V row = gather(x, i);
        if (pick(2)) return all_.push_back(row);
        if (pick(3)) {
            std::vector<V> groups = i, again = i;
            groups.push_back(row * 0.5);
            if (pick(3) == 0) {  // a second group, of other indices
                again.back() = index(at, s[static_cast<std::size_t>(k - 1)], type);
                groups.insert(groups.end(), again.begin(), again.end()), groups.push_back(row);
            }
            return all_.push_back(apply(Op::scatter_add, groups, {{"k", Dim(k)}}, x.type()));
        }
        Type t{DType::i64, {s[0]}};  // each row once, backwards
        all_.push_back(scatter(x, {size(g, t, s[0] - 1) - iota(g, t, 0)}, mate(x)));
    }
    void product() {
        V a = ranked(2);
        if (a.type().rank() > 3) return;
        if (a.type().rank() == 3) return all_.push_back(dot(a * 0.3, transpose(a)));
        all_.push_back(dot(a * 0.3, pick(2) ? transpose(a) : wave({f_, {a.type().shape[1], dim()}})));
    }
    // Integers and masks: inputs, and made of comparisons and of each other, of small values; they come back as factors.
    void whole() {
        if (others_.empty()) return choose();
        V x = other();
        const Type t = x.type();
        const int a = t.rank() > 0 ? pick(t.rank()) : 0;
        auto add = [&](V v) { others_.push_back(v); };
        auto fits = [](DType d, bool same) {
            return [=](const OpDef& o) { return o.kind == Kind::map && o.arity == 2 && typed(o, d) == Type{same ? d : DType::b1, {2}}; };
        };
        switch (pick(t.rank() > 0 ? 13 : 5)) {
            case 0: return all_.push_back(cast(small(x), f_) * 0.25);
            case 1: return add(small(x, whole_type()));
            case 2: {
                V y = small(x, whole_type()), z = like(y, (1 + pick(3)) * (pick(4) ? 1 : -1));
                return add(apply(op_of(fits(y.type().dtype, pick(3) > 0)), {y, z}));
            }
            case 3: {
                V y = small(x, whole_type());
                return add(apply(op_of([&](const OpDef& d) { return d.kind == Kind::map && d.arity == 1 && typed(d, DType::i64) == Type{DType::i64, {2}}; }), {y}));
            }
            case 4: {
                V y = small(x, whole_type());
                return add(select(gt(y, like(y, 1)), y, like(y, pick(3))));
            }
            case 5: {
                V y = pick(3) ? small(x, whole_type()) : gt(small(x), zeros_like(small(x)));
                const auto axes = some_axes(t.rank(), false);
                return add(y.type().dtype != DType::b1 && pick(2) ? sum(y, axes) : pick(2) ? amax(y, axes) : amin(y, axes));
            }
            case 6:
            case 7: return add(t.rank() <= 4 ? viewed(x) : x);
            case 8: return add(concat({x, x}, a));
            case 9: return t.rank() < 4 ? add(expand(x, {a}, with(t.shape, a, dim()))) : void();
            case 10: {
                V y = small(x, whole_type());
                return add(scan(like(y, 1), y, a, pick(3), pick(2) != 0, 0));
            }
            case 11: {  // added up at places, or each row once, backwards
                V y = small(x, whole_type());
                const Dim rows = t.shape[0];
                if (pick(2)) return add(scatter_add(y.type(), {index({rows}, rows)}, y));
                Type i{DType::i64, {rows}};
                return add(scatter(flip(y, 0), {size(g, i, rows - 1) - iota(g, i, 0)}, y + like(y, 1)));
            }
            default: return add(gather(x, {index(shape(1), t.shape[0])}));
        }
    }
    // Narrow floats: what the input is exactly may become a factor; the rest ends in outputs.
    void narrow() {
        V x = one_of(halves_);
        const Type t = x.type();
        const int rank = t.rank();
        auto add = [&](V v) { halves_.push_back(v); };
        switch (pick(rank > 0 ? 8 : 4)) {
            case 0: return all_.push_back(cast(halves_[0], f_));
            case 1: return add(cast(value() * 0.5, half_));
            case 2: return add(apply(op_of([](const OpDef& d) { return d.kind == Kind::map && d.arity == 1 && d.vjp && d.scalar.eval && smooth(d); }), {sigmoid(x) + 0.5}));
            case 3: return add(pick(2) ? x * sigmoid(x) : sin(x) - cast(cast(x, DType::f32) * 0.5, half_));
            case 4: return add(sum(sigmoid(x), some_axes(rank, false)));
            case 5: return add(gather(x, {index(shape(1), t.shape[0])}));
            case 6: return add(scatter_add(t, {index({t.shape[0]}, t.shape[0])}, x * 0.5));
            default: return add(rank <= 4 ? viewed(x) : x);
        }
    }
    static bool smooth(const OpDef& d) { return d.range.hi >= 1.6 && d.range.lo < 0.5 && d.name != "sign" && d.name != "abs"; }
    // A call of two results, which are of no input that wants gradients: sorted along the last axis, and from where.
    void sorted() {
        V x = stop_grad(ranked(1));
        const V v = {&g, g.add({.op = Op::call, .in = {x.id}, .attrs = {{"name", "aten.sort.default"}, {"self", Ref{0}}}, .type = x.type(), .more = {{DType::i64, x.type().shape}}, .loc = {}})};
        all_.push_back(v);
        others_.push_back({&g, g.add({.op = Op::result, .in = {v.id}, .attrs = {{"index", Dim(1)}}, .type = {DType::i64, x.type().shape}, .more = {}, .loc = {}})});
    }
    static Shape with(Shape s, int at, const Dim& d) { return s.insert(s.begin() + at, d), s; }
    // x[m], as captured: rows of the places where a mask holds, what is made of them, and back.
    void masked() {
        V x = ranked(1), y = mate(x), m = pick(5) ? compared(x, y) : constant(g, {DType::b1, x.type().shape}, pick(2));
        const int r = x.type().rank();
        const Dim rows = Dim::symbol("M" + std::to_string(masks_++));
        V at = {&g, g.add({.op = Op::call, .in = {m.id}, .attrs = {{"name", "aten.nonzero.default"}, {"self", Ref{0}}}, .type = {DType::i64, {rows, r}}, .more = {}, .loc = {}})};
        std::vector<V> columns;
        for (int k = 0; k < r; ++k) columns.push_back(reshape(slice(at, 1, k, k + 1), {rows}));
        V row = gather(x, columns);
        for (int k = pick(3); k > 0; --k) {
            const Op op = op_of([](const OpDef& d) { return d.kind == Kind::map && d.arity == 1 && d.vjp && d.scalar.eval; });
            row = apply(op, {into(row, def(op).range.lo, def(op).range.hi)});
        }
        if (pick(2)) row = row * gather(y, columns);
        if (pick(3) == 0) row = scan(like(row, 0.5), row, 0, pick(3), pick(2), 0);  // their order matters: rows that no predicate gives
        switch (pick(3)) {
            case 0: return all_.push_back(scatter(pick(2) ? y : zeros_like(x), columns, row));
            case 1: return all_.push_back(sum(row, {0}));
            default: {
                V count = size(g, {f_, {}}, rows);
                return all_.push_back(sum(row, {0}) / (count + 1));
            }
        }
    }
    void step() {
        if (!halves_.empty() && pick(3) == 0) return narrow();
        switch (pick(30)) {
            case 0: return sorted();
            case 1: return masked();
            case 2: return product();
            case 3:
            case 4: return recur();
            case 5:
            case 6: return choose();
            case 7:
            case 8:
            case 9: return indirect();
            case 10:
            case 11:
            case 12:
            case 13: return fold();
            case 14:
            case 15:
            case 16:
            case 17: return map1();
            case 18:
            case 19:
            case 20:
            case 21: return map2();
            case 22:
            case 23:
            case 24: return whole();
            default: return view();
        }
    }
};

}  // namespace

Graph weave(unsigned seed) { return Weaver(seed).g; }

}  // namespace heddle::fuzz
