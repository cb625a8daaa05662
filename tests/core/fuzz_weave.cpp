// Random well-typed graphs, drawn from the table of ops. Law: a graph is a function of its seed.
// Ops whose operands have a range get them there, so that values stay finite and differences of smooth graphs make sense.
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
        for (int k = 1 + pick(3); k > 0; --k) input({f_, shape(1 + pick(3))});
        int steps = 3 + pick(14);
        for (int k = 0; k < steps; ++k) step();
        for (int k = 1 + pick(3); k > 0; --k) g.outputs.push_back(value().id);
        g.outputs.push_back(all_.back().id);
        if (!others_.empty() && pick(2)) g.outputs.push_back(other().id);
        g = live(g);
    }
    Graph g;
    int pick(int n) { return static_cast<int>(rng_() % static_cast<unsigned>(n)); }

private:
    std::mt19937 rng_;
    DType f_;
    std::vector<Dim> symbols_;
    std::vector<V> all_;     // of f_
    std::vector<V> others_;  // masks and integers
    int masks_ = 0;

    Dim dim() { return pick(2) ? symbols_[static_cast<std::size_t>(pick(static_cast<int>(symbols_.size())))] : Dim(1 + pick(5)); }
    Shape shape(int rank) {
        Shape s;
        for (int k = 0; k < rank; ++k) s.push_back(dim());
        return s;
    }
    V input(Type t) {
        V v = g.value(g.input(std::move(t), "x" + std::to_string(g.inputs.size())));
        all_.push_back(v);
        return v;
    }
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
    V index(const Shape& s, const Dim& rows) {  // anything in 0..rows-1, with repetition
        Type t{DType::i64, s};
        V v = constant(g, t, pick(3));
        for (int a = 0; a < t.rank(); ++a) v = v + iota(g, t, a) * static_cast<double>(1 + pick(3));
        if (pick(2)) v = v + cast(floor(into(mate(wave({f_, s})), 0, 3)), DType::i64);
        return mod(v, size(g, t, rows));
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
        if (d.range.lo > -2 || op == Op::mul) x = into(x, d.range.lo, d.range.hi), y = into(y, d.range.lo, d.range.hi);
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
        const Type t = x.type();
        int rank = t.rank(), a = pick(rank);
        const Dim n = t.shape[static_cast<std::size_t>(a)];
        switch (pick(9)) {
            case 0: {
                if (rank == 4) return;
                Shape s = t.shape;
                int at = pick(rank + 1);
                s.insert(s.begin() + at, dim());
                return all_.push_back(expand(x, {at}, s));
            }
            case 1: {
                auto axes = axes_from_to(0, rank);
                std::shuffle(axes.begin(), axes.end(), rng_);
                return all_.push_back(permute(x, axes));
            }
            case 2: {  // two axes become one, or an axis of 1 comes in
                Shape s = t.shape;
                if (a + 1 < rank && pick(3)) {
                    s[static_cast<std::size_t>(a)] = n * s[static_cast<std::size_t>(a) + 1];
                    s.erase(s.begin() + a + 1);
                } else if (rank < 4) s.insert(s.begin() + a, 1);
                return all_.push_back(reshape(x, s));
            }
            case 3:
                if (n.is_symbol() || (n.is_const() && n.value() > 2)) {
                    int lo = pick(2);
                    all_.push_back(slice(x, a, lo, n - (lo ? pick(2) : 1)));
                }
                return;
            case 4: return all_.push_back(pad(x, a, pick(3), pick(2)));
            case 5: return all_.push_back(flip(x, a));
            case 6: return all_.push_back(concat({x, mate(x)}, a));
            case 7: return all_.push_back(pick(2) ? realize(x) : concat({slice(x, a, 0, 1), x, slice(x, a, 0, 1)}, a));
            default:
                return all_.push_back(pick(2) ? stop_grad(x) : x - stop_grad(x) * 0.5);
        }
    }
    void fold() {
        V x = ranked(1);
        int rank = x.type().rank();
        switch (pick(6)) {
            case 0: return all_.push_back(prod(into(x, 0.6, 1.3), some_axes(rank, true)));
            case 1: return all_.push_back(amax(x, some_axes(rank, false)));
            case 2: return all_.push_back(amin(x, some_axes(rank, true)));
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
        for (int q = 0; q < k; ++q) i.push_back(index(at, s[static_cast<std::size_t>(q)]));
        V row = gather(x, i);
        if (pick(2)) return all_.push_back(row);
        if (pick(3)) {
            std::vector<V> groups = i, again = i;
            groups.push_back(row * 0.5);
            if (pick(3) == 0) {  // a second group, of other indices
                again.back() = index(at, s[static_cast<std::size_t>(k - 1)]);
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
    // Integers and masks: made of comparisons and of each other, of small values; they come back as factors.
    void whole() {
        if (others_.empty()) return choose();
        V x = other();
        const Type t = x.type();
        const int a = t.rank() > 0 ? pick(t.rank()) : 0;
        auto add = [&](V v) { others_.push_back(v); };
        switch (pick(t.rank() > 0 ? 9 : 3)) {
            case 0: return all_.push_back(cast(x, f_) * 0.25);
            case 1: return add(mod(cast(x, DType::i64) * 3 + 1, constant(g, {DType::i64, t.shape}, 2 + pick(4))));
            case 2: {
                V y = cast(x, DType::i64), z = constant(g, y.type(), 1 + pick(3));
                return add(apply(op_of([](const OpDef& d) { return d.kind == Kind::map && d.arity == 2 && typed(d, DType::i64) && d.name != "mul"; }), {y, z}));
            }
            case 3: return add(sum(cast(x, pick(2) ? DType::i64 : DType::i32), some_axes(t.rank(), false)));
            case 4: return add(pick(2) ? pad(x, a, pick(2), 1) : flip(x, a));
            case 5: return add(concat({x, x}, a));
            case 6: return t.rank() < 4 ? add(expand(x, {a}, with(t.shape, a, dim()))) : void();
            case 7: {
                V y = cast(x, DType::i64);
                return add(scan(constant(g, y.type(), 1), y, a, pick(3), pick(2) != 0, 0));
            }
            default: return add(gather(x, {index(shape(1), t.shape[0])}));
        }
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
        switch (pick(15)) {
            case 12:
            case 13: return whole();
            case 14: return masked();
            case 0:
            case 1: return map1();
            case 2:
            case 3: return map2();
            case 4: return choose();
            case 5:
            case 6:
            case 7: return view();
            case 8:
            case 9: return fold();
            case 10: return pick(4) ? recur() : product();
            default: return indirect();
        }
    }
};

}  // namespace

Graph weave(unsigned seed) { return Weaver(seed).g; }

}  // namespace heddle::fuzz
