// Nests by hand and the same in plain loops. Law: the loops here share nothing with the generator but the case's numbers.
#include "tests/core/cuda_cases.h"

#include <fmt/format.h>

#include <cmath>

namespace heddle::test {

namespace {

using loop::Val;
const Dim R = Dim::symbol("R"), S = Dim::symbol("S");

std::vector<double> numbers(std::size_t n, double lo, double hi) {  // spread over [lo, hi], exact in float
    std::vector<double> v(n);
    for (std::size_t i = 0; i < n; ++i) v[i] = static_cast<float>(lo + (hi - lo) * static_cast<double>((i * 2654435761u) % 1009) / 1009);
    return v;
}
std::size_t u(std::int64_t i) { return static_cast<std::size_t>(i); }

// y = sigmoid(x) * w + x over [R, 5], where column 0 of x is padding
Case pointwise() {
    Build b({R, Dim(5)});
    int x = b.buffer(0, DType::f32, "x"), w = b.buffer(1, DType::f32, "w"), y = b.buffer(2, DType::f32, "y", true);
    auto i = b.outer(0), j = b.outer(1), one = b.constant(DType::i64, 1), zero = b.constant(DType::i64, 0);
    auto k = b.map(Op::sub, DType::i64, {j, one});
    auto inside = b.map(Op::ge, DType::b1, {k, zero}, "inside");
    auto v = b.load(x, b.at({i, k}, {-1, b.constant(DType::i64, 4)}), inside);
    auto s = b.map(Op::mul, DType::f32, {b.map(Op::sigmoid, DType::f32, {v}, "alpha", "a.py:1"), b.load(w, j)}, "", "a.py:2");
    b.store(y, b.at({i, j}, {-1, b.constant(DType::i64, 5)}), b.map(Op::add, DType::f32, {s, v}));
    Case c{"pointwise", {b.n}, {{"R", 77}}, {{0, {DType::f32, numbers(77 * 4, -3, 3)}}, {1, {DType::f32, numbers(5, 0, 1)}}}};
    Data out{DType::f32, std::vector<double>(77 * 5, 9), {}};
    for (std::size_t r = 0; r < 77; ++r)
        for (std::size_t q = 0; q < 5; ++q) {
            double a = q == 0 ? 0 : c.data[0].start[r * 4 + q - 1];
            out.end.push_back(1 / (1 + std::exp(-a)) * c.data[1].start[q] + a);
        }
    c.data[2] = out;
    return c;
}

// softmax over S of x [R, S], the row's sum of x, and the count of positives: three phases, stores in body and after
Case softmax(int group, int threads, std::int64_t rows, std::int64_t width) {
    Build b({R}, grouped(group, threads));
    int x = b.buffer(0, DType::f32, "x"), y = b.buffer(1, DType::f32, "y", true), sums = b.buffer(2, DType::f32, "sums", true);
    int positives = b.buffer(3, DType::i64, "positives", true), any = b.buffer(4, DType::b1, "any", true);
    auto r = b.outer(0), s = b.size(S);
    auto base = b.map(Op::mul, DType::i64, {r, s});
    auto element = [&] { return b.load(x, b.map(Op::add, DType::i64, {base, b.inner()})); };
    b.phase(S);
    int top = b.fold(Op::amax, DType::f32, -kInf), some = b.fold(Op::amax, DType::b1, 0);
    auto e = element();
    b.fold_step(top, e);
    b.fold_step(some, b.map(Op::gt, DType::b1, {e, b.constant(DType::f32, 0)}));
    b.after();
    auto m = b.folded(top);
    b.store(any, r, b.folded(some));
    b.phase(S);
    int total = b.fold(Op::sum, DType::f32, 0), plain = b.fold(Op::sum, DType::f32, 0), count = b.fold(Op::sum, DType::i64, 0);
    e = element();
    b.fold_step(total, b.map(Op::exp, DType::f32, {b.map(Op::sub, DType::f32, {e, m})}));
    b.fold_step(plain, e);
    b.fold_step(count, b.map(Op::cast, DType::i64, {b.map(Op::gt, DType::b1, {e, b.constant(DType::f32, 0)})}));
    b.after();
    auto z = b.folded(total);
    b.store(sums, r, b.folded(plain));
    b.store(positives, r, b.folded(count));
    b.phase(S, true);
    e = element();
    b.store(y, b.map(Op::add, DType::i64, {base, b.inner()}),
            b.map(Op::div, DType::f32, {b.map(Op::exp, DType::f32, {b.map(Op::sub, DType::f32, {e, m})}), z}));
    Case c{fmt::format("softmax_{}_of_{}_width_{}", group, threads, width), {b.n}, {{"R", rows}, {"S", width}},
           {{0, {DType::f32, numbers(u(rows * width), -4, 3)}}}};
    Data out{DType::f32, std::vector<double>(u(rows * width)), {}}, sum{DType::f32, std::vector<double>(u(rows)), {}};
    Data pos{DType::i64, sum.start, {}}, some_pos{DType::b1, sum.start, {}};
    for (std::int64_t i = 0; i < rows; ++i) {
        double biggest = -kInf, exps = 0, all = 0, n = 0;
        auto at = [&](std::int64_t j) { return c.data[0].start[u(i * width + j)]; };
        for (std::int64_t j = 0; j < width; ++j) biggest = std::max(biggest, at(j));
        for (std::int64_t j = 0; j < width; ++j) exps += std::exp(at(j) - biggest), all += at(j), n += at(j) > 0;
        for (std::int64_t j = 0; j < width; ++j) out.end.push_back(std::exp(at(j) - biggest) / exps);
        sum.end.push_back(all), pos.end.push_back(n), some_pos.end.push_back(n > 0);
    }
    c.data[1] = out, c.data[2] = sum, c.data[3] = pos, c.data[4] = some_pos;
    c.tolerance = 1e-4;
    return c;
}

// Two recurrences at once, from the end: t = t * a, and the previous t; the second reads the first's old value
Case recurrence() {
    Build b({R}, {.threads = 32});
    int a = b.buffer(0, DType::f64, "a"), y = b.buffer(1, DType::f64, "y", true);
    auto base = b.map(Op::mul, DType::i64, {b.outer(0), b.constant(DType::i64, 6)});
    b.phase(Dim(6), true);
    int t = b.carry(DType::f64, 1), last = b.carry(DType::f64, 0.5);
    auto address = b.map(Op::add, DType::i64, {base, b.inner()});
    auto now = b.carried(t), before = b.carried(last);
    auto next = b.map(Op::mul, DType::f64, {now, b.load(a, address)});
    b.store(y, address, b.map(Op::sub, DType::f64, {next, before}));
    b.carry_step(t, next);
    b.carry_step(last, now);
    Case c{"recurrence", {b.n}, {{"R", 40}}, {{0, {DType::f64, numbers(240, 0.2, 1.2)}}}, 1e-14};
    Data out{DType::f64, std::vector<double>(240), std::vector<double>(240)};
    for (std::size_t r = 0; r < 40; ++r)
        for (double i = 5, now_is = 1, before_is = 0.5; i >= 0; --i) {
            std::size_t k = r * 6 + static_cast<std::size_t>(i);
            double to = now_is * c.data[0].start[k];
            out.end[k] = to - before_is, before_is = now_is, now_is = to;
        }
    c.data[1] = out;
    return c;
}

// A product, a sum and both at once along rows of [R, S], as each element finds them, and the sum of the products: by lanes of a group.
Case recurrences(int group, std::int64_t rows, std::int64_t width, bool reverse, double first = 1, double scale = 1) {
    Build b({R}, grouped(group));
    int a = b.buffer(0, DType::f64, "a"), c0 = b.buffer(1, DType::f64, "products", true), c1 = b.buffer(2, DType::i64, "sums", true);
    int c2 = b.buffer(3, DType::f64, "states", true), all = b.buffer(4, DType::f64, "all", true), added = b.buffer(5, DType::f64, "added", false, true);
    auto r = b.outer(0), base = b.map(Op::mul, DType::i64, {r, b.size(S)});
    b.phase(S, reverse);
    int product = b.carry(DType::f64, first), sum = b.carry(DType::i64, 3), state = b.carry(DType::f64, 0.5), f = b.fold(Op::sum, DType::f64, 0);
    auto address = b.map(Op::add, DType::i64, {base, b.inner()});
    auto v = b.load(a, address), n = b.map(Op::cast, DType::i64, {b.map(Op::gt, DType::b1, {v, b.constant(DType::f64, 0.5)})});
    auto p = b.carried(product), q = b.carried(sum), x = b.carried(state);
    b.store(c0, address, p), b.store(c1, address, q), b.store(c2, address, x);
    b.accumulate(added, address, p);
    b.fold_step(f, p);
    b.carry_step(product, b.map(Op::mul, DType::f64, {p, v}));
    b.carry_step(sum, b.map(Op::add, DType::i64, {q, n}));
    b.carry_step(state, b.map(Op::add, DType::f64, {b.map(Op::mul, DType::f64, {x, v}), v}));
    b.after();
    b.store(all, r, b.folded(f));
    Case c{fmt::format("recurrences_{}_{}_{}{}", group, rows, width, reverse ? "_reverse" : first == 0 ? "_endless" : ""), {b.n}, {{"R", rows}, {"S", width}}, {}, 1e-13};
    std::vector<double> in = numbers(u(rows * width), 0.2, 1.2);
    for (double& e : in) e *= scale;
    const std::vector<double> none(u(rows * width));
    Data products{DType::f64, none, none}, sums{DType::i64, none, none}, states{DType::f64, none, none}, totals{DType::f64, std::vector<double>(u(rows)), {}};
    for (std::int64_t k = 0; k < rows; ++k) {
        double product_is = first, sum_is = 3, state_is = 0.5, total = 0;
        for (std::int64_t j = 0; j < width; ++j) {
            const std::size_t at = u(k * width + (reverse ? width - 1 - j : j));
            products.end[at] = product_is, sums.end[at] = sum_is, states.end[at] = state_is;
            total += product_is, product_is *= in[at], sum_is += in[at] > 0.5, state_is = state_is * in[at] + in[at];
        }
        totals.end.push_back(total);
    }
    c.data = {{0, {DType::f64, in, {}}}, {1, products}, {2, sums}, {3, states}, {4, totals}, {5, products}};
    return c;
}

// y[r, c] = x[index[r], c] and its reverse: total[index[r], c] += x[r, c], in the type t
Case gather_scatter(DType t) {
    Build b({R, Dim(4)});
    int index = b.buffer(0, DType::i64, "index"), x = b.buffer(1, t, "x"), y = b.buffer(2, t, "y", true), z = b.buffer(3, t, "total", false, true);
    auto r = b.outer(0), col = b.outer(1), four = b.constant(DType::i64, 4);
    auto k = b.load(index, r, -1, "row");
    auto here = b.at({r, col}, {-1, four});
    b.store(y, here, b.load(x, b.at({k, col}, {-1, four})));
    b.accumulate(z, b.at({k, col}, {-1, four}), b.load(x, here));
    Case c{fmt::format("gather_scatter_{}", name(t)), {b.n}, {{"R", 50}}, {}, 1e-6};
    Data i{DType::i64, {}, {}}, from{t, {}, {}}, to{t, std::vector<double>(200), {}}, sum{t, std::vector<double>(200), std::vector<double>(200)};
    for (int q = 0; q < 50; ++q) i.start.push_back(q * 7 % 13);
    for (int q = 0; q < 200; ++q) from.start.push_back(t == DType::b1 ? q % 52 % 3 == 0 && q % 7 != 0 : q % 9 - 4);
    for (std::size_t q = 0; q < 200; ++q) {
        std::size_t other = u(static_cast<std::int64_t>(i.start[q / 4])) * 4 + q % 4;
        to.end.push_back(from.start[other]);
        sum.end[other] = t == DType::b1 ? sum.end[other] != 0 || from.start[q] != 0 : sum.end[other] + from.start[q];
    }
    c.data = {{0, i}, {1, from}, {2, to}, {3, sum}};
    return c;
}

// total += x[r] for all r, and column[j] += x[r] * j inside a loop: addresses that all points share
Case shared_sums(int group, DType t) {
    Build b({R}, grouped(group));
    int x = b.buffer(0, t, "x"), total = b.buffer(1, t, "total", false, true), column = b.buffer(2, t, "column", false, true);
    auto v = b.load(x, b.outer(0));
    b.accumulate(total, b.constant(DType::i64, 0), v);
    b.phase(Dim(3));
    auto j = b.inner();
    b.accumulate(column, j, b.map(Op::mul, t, {v, b.map(Op::cast, t, {j})}));
    Case c{fmt::format("shared_sums_{}_{}", group, name(t)), {b.n}, {{"R", 300}}, {{0, {t, {}, {}}}}, 1e-5};
    double sum = 0;
    for (int i = 0; i < 300; ++i) c.data[0].start.push_back(i % 17 - 5), sum += i % 17 - 5;
    c.data[1] = {t, {0}, {sum}}, c.data[2] = {t, {0, 0, 0}, {0, sum, 2 * sum}};
    return c;
}

// Narrow floats: loaded, computed in float, rounded by a cast, stored
Case narrow_floats() {
    Build b({R});
    int h = b.buffer(0, DType::f16, "h"), g = b.buffer(1, DType::bf16, "g"), oh = b.buffer(2, DType::f16, "oh", true);
    int og = b.buffer(3, DType::bf16, "og", true), of = b.buffer(4, DType::f32, "of", true);
    auto i = b.outer(0), p = b.load(h, i), q = b.load(g, i);
    auto s = b.map(Op::add, DType::f32, {p, q});
    b.store(oh, i, s), b.store(og, i, s);
    b.store(of, i, b.map(Op::cast, DType::f16, {b.map(Op::mul, DType::f32, {p, b.constant(DType::f32, 1.0009765625)})}));
    Case c{"narrow_floats", {b.n}, {{"R", 40}}, {}, 0};
    for (Id id : {0, 1, 2, 3, 4}) c.data[id] = {id == 4 ? DType::f32 : id == 0 || id == 2 ? DType::f16 : DType::bf16, {}, {}};
    for (int k = 0; k < 40; ++k) {
        double x = k - 20 + 0.25, y = 1.5 * (k % 5);
        c.data[0].start.push_back(x), c.data[1].start.push_back(y);
        for (Id id : {2, 3, 4}) c.data[id].start.push_back(0);
        c.data[2].end.push_back(x + y), c.data[3].end.push_back(x + y);  // exact in both
        c.data[4].end.push_back(static_cast<double>(static_cast<_Float16>(x * 1.0009765625)));
    }
    return c;
}

// y = 2 x, then z = y backwards and one value per row read by all: what other threads of the group stored
Case read_back(int group) {
    Build b({R}, grouped(group));
    int x = b.buffer(0, DType::f32, "x"), y = b.buffer(1, DType::f32, "y", true);
    int z = b.buffer(2, DType::f32, "z", true), f = b.buffer(3, DType::f32, "first", true);
    auto r = b.outer(0), base = b.map(Op::mul, DType::i64, {r, b.constant(DType::i64, 90)});
    auto at = [&](Val j) { return b.map(Op::add, DType::i64, {base, j}); };
    b.store(f, r, b.load(x, base));
    b.phase(Dim(90));
    b.store(y, at(b.inner()), b.map(Op::mul, DType::f32, {b.load(x, at(b.inner())), b.constant(DType::f32, 2)}));
    b.phase(Dim(90));
    auto back = b.map(Op::sub, DType::i64, {b.constant(DType::i64, 89), b.inner()});
    b.store(z, at(b.inner()), b.map(Op::add, DType::f32, {b.load(y, at(back)), b.load(f, r)}));
    Case c{fmt::format("read_back_{}", group), {b.n}, {{"R", 11}}, {{0, {DType::f32, numbers(990, -1, 1)}}}};
    for (Id id : {1, 2, 3}) c.data[id] = {DType::f32, std::vector<double>(id == 3 ? 11 : 990), {}};
    const auto& in = c.data[0].start;
    for (std::size_t q = 0; q < 990; ++q) {
        c.data[1].end.push_back(2 * in[q]), c.data[2].end.push_back(2 * in[q / 90 * 90 + 89 - q % 90] + in[q / 90 * 90]);
        if (q % 90 == 0) c.data[3].end.push_back(in[q]);
    }
    return c;
}

// y[r] = x[(r - 3) mod R] + x[(r + 2) mod R]: indices that wrap around below zero
Case neighbours() {
    Build b({R});
    int x = b.buffer(0, DType::f32, "x"), y = b.buffer(1, DType::f32, "y", true);
    auto r = b.outer(0), size = b.size(R);
    auto before = b.map(Op::mod, DType::i64, {b.map(Op::sub, DType::i64, {r, b.constant(DType::i64, 3)}), size});
    auto behind = b.map(Op::mod, DType::i64, {b.map(Op::add, DType::i64, {r, b.constant(DType::i64, 2)}), size});
    b.store(y, r, b.map(Op::add, DType::f32, {b.load(x, before), b.load(x, behind)}));
    Case c{"neighbours", {b.n}, {{"R", 50}}, {{0, {DType::f32, numbers(50, -1, 1)}}, {1, {DType::f32, std::vector<double>(50), {}}}}};
    for (std::size_t q = 0; q < 50; ++q) c.data[1].end.push_back(c.data[0].start[(q + 47) % 50] + c.data[0].start[(q + 2) % 50]);
    return c;
}

// Two nests side by side that share an input and a size, one of them in groups
Case side_by_side(std::int64_t rows, std::int64_t width) {
    Case a = softmax(32, 128, rows, width);
    Build b({R, S}, {.threads = 64});
    int x = b.buffer(0, DType::f32, "x"), y = b.buffer(9, DType::f32, "y", true);  // the name y twice
    auto at = b.at({b.outer(0), b.outer(1)}, {-1, b.size(S)});
    b.store(y, at, b.map(Op::max, DType::f32, {b.load(x, at), b.constant(DType::f32, 0.5)}));
    a.name = fmt::format("side_by_side_{}", rows);
    a.nests.push_back(b.n);
    a.data[9] = {DType::f32, std::vector<double>(u(rows * width)), {}};
    for (double v : a.data[0].start) a.data[9].end.push_back(std::max(v, 0.5));
    return a;
}

}  // namespace

Case every_row(DType t) {
    Case c{fmt::format("every_row_{}", name(t)), {}, {{"R", 20}}, {}, t == DType::f32 ? 1e-5 : 1e-13};
    Id id = 0;
    for (int o = 0; o < kOps; ++o) {
        const OpDef& d = def(static_cast<Op>(o));
        if (d.kind != Kind::map || !d.scalar.eval) continue;
        // A row says by its types which operands it takes: those it refuses are tried as bool.
        Graph g;
        bool first_bool = false, all_bool = false, gives_bool = false;
        auto takes = [&](DType a, DType rest) {
            try {
                Graph probe;
                std::vector<V> in;
                for (int k = 0; k < d.arity; ++k) in.push_back(probe.value(probe.input({k == 0 ? a : rest, {R}}, fmt::format("x{}", k))));
                gives_bool = apply(static_cast<Op>(o), in).type().dtype == DType::b1;
                return true;
            } catch (const Error&) { return false; }
        };
        if (!takes(t, t)) (first_bool = takes(DType::b1, t)) || (all_bool = takes(DType::b1, DType::b1));
        Build b({R});
        auto i = b.outer(0);
        std::vector<Val> in;
        std::vector<std::vector<double>> values;
        for (int k = 0; k < d.arity; ++k) {
            DType of = all_bool || (first_bool && k == 0) ? DType::b1 : t;
            int buffer = b.buffer(id, of, fmt::format("{}_{}", d.name, k));
            std::vector<double> v = numbers(20 + u(k), d.range.lo, d.range.hi);
            v.erase(v.begin(), v.begin() + k);
            for (std::size_t q = 0; q < v.size(); ++q)
                if (of == DType::b1) v[q] = (q >> k) & 1;
            values.push_back(v);
            c.data[id++] = {of, v, {}};
            in.push_back(b.load(buffer, i));
        }
        DType to = gives_bool ? DType::b1 : t;
        int out = b.buffer(id, to, fmt::format("{}_out", d.name), true);
        b.store(out, i, b.map(static_cast<Op>(o), to, in));
        Data result{to, std::vector<double>(20), {}};
        for (std::size_t q = 0; q < 20; ++q)
            result.end.push_back(d.scalar.eval(values[0][q], d.arity > 1 ? values[1][q] : 0, d.arity > 2 ? values[2][q] : 0));
        c.data[id++] = result;
        c.nests.push_back(b.n);
    }
    return c;
}

std::vector<Case> cases() {
    return {pointwise(), softmax(1, 128, 40, 9), softmax(8, 64, 21, 13), softmax(32, 128, 9, 70), softmax(64, 128, 5, 150), softmax(256, 256, 3, 300),
            softmax(32, 128, 3, 1), softmax(32, 128, 0, 5), recurrence(), recurrences(32, 9, 70, false), recurrences(32, 7, 70, true), recurrences(8, 21, 13, false), recurrences(16, 5, 32, true),
            recurrences(32, 3, 1, false), recurrences(32, 0, 5, false), recurrences(8, 5, 20, false, 0, 1e300), gather_scatter(DType::f32), gather_scatter(DType::f64),
            gather_scatter(DType::i32), gather_scatter(DType::i64), gather_scatter(DType::f16), gather_scatter(DType::bf16), gather_scatter(DType::b1),
            shared_sums(1, DType::f32), shared_sums(8, DType::f32), shared_sums(64, DType::f64), shared_sums(1, DType::i64), narrow_floats(), neighbours(),
            read_back(1), read_back(8), read_back(64),
            side_by_side(7, 33), side_by_side(0, 4)};
}

}  // namespace heddle::test
