// Every form of loop on the CPU backend against plain C++: all element types, sizes around the number of lanes, both ways that
// lanes walk. Law: the expected values come from loops written here, never from the emitter.
#include <array>
#include <cmath>
#include <future>

#include "tests/core/guarded_array.h"
#include "tests/core/nest_builder.h"

namespace heddle {
namespace {

using loop::Val;

constexpr DType kTypes[] = {DType::b1, DType::i32, DType::i64, DType::f16, DType::bf16, DType::f32, DType::f64};
constexpr int kSizes[] = {0, 1, 15, 16, 17, 24, 67};

// Runs `check(size, dim)` with the size as a symbol and as a constant.
template <class F> void at_all_sizes(F check) {
    for (int size : kSizes) {
        SCOPED_TRACE(testing::Message() << "size " << size);
        check(size, Dim::symbol("N"));
        check(size, Dim(size));
    }
}
constexpr std::size_t operator""_z(unsigned long long x) { return x; }
std::size_t z(std::int64_t x) { return static_cast<std::size_t>(x); }

constexpr const char* kForms[] = {"Inner", "Last", "LastWidth1", "LastWidth8", "InnerWidth32", "LastWidth32"};
struct Forms : testing::TestWithParam<int> {
    void SetUp() override { NEEDS_LLVM(); }
    bool rows() const { return GetParam() == 0 || GetParam() == 4; }  // lanes walk the inner index
    int width() const { return std::array{16, 16, 1, 8, 32, 32}[z(GetParam())]; }
};
INSTANTIATE_TEST_SUITE_P(Lanes, Forms, testing::Range(0, 6), [](const auto& p) { return std::string(kForms[p.param]); });

TEST_P(Forms, MapOfEveryType) {
    if (rows()) return;
    for (DType t : kTypes)
        at_all_sizes([&](int size, Dim n) {
            NestBuilder k({3, n}, false, width());
            int a = k.buffer(t), b = k.buffer(t), out = k.buffer(t, true), less = k.buffer(DType::b1, true);
            k.prologue();
            DType c = k.type(a);
            Val i = k.outer(0), j = k.outer(1), at = k.at_index(i, k.n.outer_sizes[1], j);
            Val x = k.load(a, at), y = k.load(b, i);  // y is the same in all lanes
            k.store(out, at, t == DType::b1 ? k.map(Op::xor_, {x, y}, c) : k.map(Op::add, {k.map(Op::mul, {x, y}, c), x}, c));
            k.store(less, at, k.map(Op::lt, {x, y}, DType::b1));
            GuardedArray va(t, 3 * z(size)), vb(t, 3), vo(t, 3 * z(size)), vl(DType::b1, 3 * z(size));
            va.fill(1), vb.fill(2);
            run(k.n, {va.data(), vb.data(), vo.data(), vl.data()}, {{"N", size}});
            for (std::size_t p = 0; p < va.size; ++p) {
                double u = va.get(p), v = vb.get(p / z(size));
                ASSERT_EQ(vo.get(p), t == DType::b1 ? u != v : vo.rounded(u * v + u)) << name(t) << " at " << p;
                ASSERT_EQ(vl.get(p), u < v) << name(t);
            }
        });
}

TEST_P(Forms, FoldOfEveryType) {
    for (DType t : {DType::i32, DType::i64, DType::f16, DType::f32, DType::f64})
        for (Op op : {Op::sum, Op::amax, Op::prod}) {
            if (op == Op::prod && t != DType::f32) continue;
            at_all_sizes([&](int size, Dim n) {
                NestBuilder k({Dim::symbol("R")}, rows(), width());
                int a = k.buffer(t), out = k.buffer(t, true);
                double init = op == Op::amax ? (is_int(t) ? -2147483648.0 : -kInf) : op == Op::sum ? 3 : 1;
                k.prologue();
                Val i = k.outer(0);
                auto& phase = k.phase(n);
                Val x = k.load(a, k.at_index(i, phase.size, k.inner()));
                int f = k.fold(op, k.type(a), init, x);
                k.after();
                k.store(out, i, k.folded(f));
                GuardedArray va(t, 21_z * z(size)), vo(t, 21);
                va.fill(1, op == Op::prod ? 1 : -4, op == Op::prod ? 1 : 4);
                run(k.n, {va.data(), vo.data()}, {{"R", 21}, {"N", size}});
                for (std::size_t r = 0; r < 21; ++r) {
                    double want = init;
                    for (std::size_t j = 0; j < z(size); ++j) want = op == Op::sum ? want + va.get(r * z(size) + j) : op == Op::prod ? want * va.get(r * z(size) + j) : std::max(want, va.get(r * z(size) + j));
                    ASSERT_EQ(vo.get(r), vo.rounded(want)) << name(t) << " row " << r;
                }
            });
        }
}

TEST_P(Forms, FoldKeepsNaN) {
    NestBuilder k({2}, rows(), width());
    int a = k.buffer(DType::f32), out = k.buffer(DType::f32, true);
    k.prologue();
    Val i = k.outer(0);
    auto& phase = k.phase(37);
    int f = k.fold(Op::amax, DType::f32, -kInf, k.load(a, k.at_index(i, phase.size, k.inner())));
    k.after();
    k.store(out, i, k.folded(f));
    GuardedArray va(DType::f32, 74), vo(DType::f32, 2);
    va.fill(1);
    va.set(5, NAN);
    run(k.n, {va.data(), vo.data()});
    EXPECT_TRUE(std::isnan(vo.get(0)));
    EXPECT_FALSE(std::isnan(vo.get(1)));
}

TEST_P(Forms, ScanBothWays) {
    for (DType t : {DType::i64, DType::bf16, DType::f32})
        for (bool reverse : {false, true})
            at_all_sizes([&](int size, Dim n) {
                NestBuilder k({Dim::symbol("R")}, rows(), width());
                int a = k.buffer(t), out = k.buffer(t, true);
                k.prologue();
                Val i = k.outer(0);
                auto& phase = k.phase(n, reverse);
                Val at = k.at_index(i, phase.size, k.inner()), x = k.load(a, at);
                Val next = k.map(Op::add, {k.carry(k.type(a), 2), x}, k.type(a));
                k.store(out, at, next);
                k.carry_step(next);
                GuardedArray va(t, 19_z * z(size)), vo(t, 19_z * z(size));
                va.fill(4);
                run(k.n, {va.data(), vo.data()}, {{"R", 19}, {"N", size}});
                for (std::size_t r = 0; r < 19; ++r) {
                    double c = 2;
                    for (std::size_t q = 0; q < z(size); ++q) {
                        std::size_t p = r * z(size) + (reverse ? z(size) - 1 - q : q);
                        c += va.get(p);
                        ASSERT_EQ(vo.get(p), vo.rounded(c)) << name(t);
                    }
                }
            });
}

// softmax: three phases, and a value of an earlier phase's fold in a later body.
TEST_P(Forms, PhasesFollowEachOther) {
    at_all_sizes([&](int size, Dim n) {
        NestBuilder k({Dim::symbol("R")}, rows(), width());
        int a = k.buffer(DType::f32), out = k.buffer(DType::f32, true);
        k.prologue();
        Val i = k.outer(0);
        auto exponential = [&](Val most) {
            Val x = k.load(a, k.at_index(i, k.n.phases.back().size, k.inner()));
            return most < 0 ? x : k.map(Op::exp, {k.map(Op::sub, {x, most})});
        };
        k.phase(n);
        int f = k.fold(Op::amax, DType::f32, -kInf, exponential(-1));
        k.after();
        Val most = k.folded(f);
        k.phase(n);
        int s = k.fold(Op::sum, DType::f32, 0, exponential(most));
        k.after();
        Val total = k.folded(s);
        k.phase(n);
        k.store(out, k.at_index(i, k.n.phases.back().size, k.inner()), k.map(Op::div, {exponential(most), total}));
        GuardedArray va(DType::f32, 23_z * z(size)), vo(DType::f32, 23_z * z(size));
        va.fill(6);
        run(k.n, {va.data(), vo.data()}, {{"R", 23}, {"N", size}});
        for (std::size_t r = 0; r < 23; ++r) {
            double sum = 0;
            for (std::size_t j = 0; j < z(size); ++j) sum += std::exp(va.get(r * z(size) + j));
            for (std::size_t j = 0; j < z(size); ++j) ASSERT_NEAR(vo.get(r * z(size) + j), std::exp(va.get(r * z(size) + j)) / sum, 1e-6);
        }
    });
}

// out[p, c] = table[index[p], c] where index[p] is even, and the same rows added up again: gather, predicate, scatter.
TEST_P(Forms, GatherAndAccumulateRows) {
    for (DType t : {DType::i32, DType::f16, DType::f32, DType::f64})
        at_all_sizes([&](int size, Dim n) {
            NestBuilder k({Dim::symbol("P")}, rows(), width());
            int table = k.buffer(t), index = k.buffer(DType::i64), out = k.buffer(t, true), sum = k.buffer(t, false, true), count = k.buffer(DType::i32, false, true);
            k.prologue();
            Val p = k.outer(0), row = k.load(index, p);
            Val even = k.map(Op::eq, {k.map(Op::mod, {row, k.index(2)}, DType::i64), k.index(0)}, DType::b1);
            k.accumulate(count, k.index(0), k.constant(1, DType::i32));
            auto& phase = k.phase(n);
            Val c = k.inner(), from = k.at_index(row, phase.size, c);
            Val x = k.load(table, from, even);
            k.store(out, k.at_index(p, phase.size, c), x);
            k.accumulate(sum, from, x);
            GuardedArray vt(t, 9_z * z(size)), vi(DType::i64, 41), vo(t, 41_z * z(size)), vs(t, 9_z * z(size)), vc(DType::i32, 1);
            vt.fill(8), vi.fill(9, 0, 8);
            std::vector<double> want(9_z * z(size));
            run(k.n, {vt.data(), vi.data(), vo.data(), vs.data(), vc.data()}, {{"P", 41}, {"N", size}});
            for (std::size_t q = 0; q < 41; ++q)
                for (std::size_t j = 0; j < z(size); ++j) {
                    std::size_t r = z(static_cast<std::int64_t>(vi.get(q))) * z(size) + j;
                    double v = vi.as<std::int64_t>(q) % 2 == 0 ? vt.get(r) : 0;
                    ASSERT_EQ(vo.get(q * z(size) + j), v) << name(t);
                    want[r] += v;
                }
            for (std::size_t r = 0; r < want.size(); ++r) ASSERT_EQ(vs.get(r), want[r]) << name(t);
            ASSERT_EQ(vc.get(0), 41);
        });
}

// A window that reaches over both ends reads zeros there; flipped and strided reads.
TEST_P(Forms, PredicatesAndSteps) {
    for (DType t : {DType::b1, DType::bf16, DType::f32, DType::i64})
        at_all_sizes([&](int size, Dim n) {
            NestBuilder k({2, n}, rows(), width());
            int a = k.buffer(t), shifted = k.buffer(t, true), flipped = k.buffer(t, true), spread = k.buffer(t, true);
            k.prologue();
            Val i = k.outer(0), j = rows() ? -1 : k.outer(1);
            Val last = k.map(Op::sub, {k.n.outer_sizes[1], k.index(1)}, DType::i64);
            if (rows()) {
                k.n.outer.pop_back(), k.n.outer_sizes.pop_back();
                k.phase(n);
                j = k.inner();
            }
            Val wide = k.map(Op::add, {last, k.index(1)}, DType::i64);
            Val from = k.map(Op::sub, {j, k.index(2)}, DType::i64), base = k.map(Op::mul, {i, wide}, DType::i64);
            Val x = k.load(a, k.map(Op::add, {base, from}, DType::i64), k.map(Op::ge, {from, k.index(0)}, DType::b1));
            Val at = k.map(Op::add, {base, j}, DType::i64);
            k.store(shifted, at, x);
            Val back = k.map(Op::sub, {last, j}, DType::i64);
            k.store(flipped, k.map(Op::add, {base, back}, DType::i64), k.load(a, at));
            k.store(spread, k.map(Op::mul, {at, k.index(3)}, DType::i64), k.load(a, k.map(Op::add, {base, back}, DType::i64)));
            GuardedArray va(t, 2 * z(size)), v1(t, 2 * z(size)), v2(t, 2 * z(size)), v3(t, 6 * z(size));
            va.fill(3);
            run(k.n, {va.data(), v1.data(), v2.data(), v3.data()}, {{"N", size}});
            for (std::size_t r = 0; r < 2; ++r)
                for (std::size_t q = 0; q < z(size); ++q) {
                    std::size_t p = r * z(size) + q, mirror = r * z(size) + z(size) - 1 - q;
                    ASSERT_EQ(v1.get(p), q < 2 ? 0 : va.get(p - 2)) << name(t) << " " << p;
                    ASSERT_EQ(v2.get(mirror), va.get(p));
                    ASSERT_EQ(v3.get(3 * p), va.get(mirror));
                }
        });
}

// All elements between a lane's and the next one's are read and written too, in any order: memory is walked once.
TEST_P(Forms, StridesWithoutAGap) {
    for (DType t : {DType::b1, DType::f16, DType::f32, DType::f64, DType::i64})
        for (int step : {2, 3, 4})
            at_all_sizes([&](int size, Dim n) {
                NestBuilder k(rows() ? Shape{2} : Shape{2, n}, rows(), width());
                const int a = k.buffer(t), b = k.buffer(t), turned = k.buffer(t, true), some = k.buffer(t, true);
                const Val length = k.dim(n);
                k.prologue();
                const Val first = k.map(Op::mul, {k.map(Op::mul, {k.outer(0), length}, DType::i64), k.index(step)}, DType::i64);
                if (rows()) k.phase(n);
                const Val j = rows() ? k.inner() : k.outer(1);
                const Val base = k.map(Op::mul, {j, k.index(step)}, DType::i64);
                auto at = [&](int e) { return k.map(Op::add, {first, k.map(Op::add, {base, k.index(e)}, DType::i64)}, DType::i64); };
                std::vector<Val> x;
                for (int e = step; e-- > 0;) x.push_back(k.load(a, at(e)));  // x[q] is element step - 1 - q
                for (int e : {1, 0, 2, 3})
                    if (e < step) k.store(turned, at(e), x[static_cast<std::size_t>(e)]);
                k.store(some, at(step - 1), k.load(b, at(1)));  // leaves gaps
                EXPECT_EQ(loop::stretches(k.n, rows() ? k.n.phases[0].body : k.n.prologue, rows()).size(), 2u);
                const std::size_t count = 2 * z(size) * z(step);
                GuardedArray va(t, count), vb(t, count), v1(t, count), v2(t, count);
                va.fill(5), vb.fill(6);
                run(k.n, {va.data(), vb.data(), v1.data(), v2.data()}, {{"N", size}});
                for (std::size_t p = 0; p < count; ++p) {
                    const std::size_t e = p % z(step), row = p - e;
                    ASSERT_EQ(v1.get(p), va.get(row + z(step) - 1 - e)) << name(t) << " by " << step << " at " << p;
                    if (e + 1 == z(step)) {
                        ASSERT_EQ(v2.get(p), vb.get(row + 1)) << name(t) << " by " << step << " at " << p;
                    }
                }
            });
}

// Lanes that meet at one address, and all lanes at one address.
TEST_P(Forms, CollidingLanes) {
    if (rows()) return;
    at_all_sizes([&](int size, Dim n) {
        NestBuilder k({n}, false, width());
        int index = k.buffer(DType::i32), bins = k.buffer(DType::f32, false, true), total = k.buffer(DType::f64, false, true);
        k.prologue();
        Val bin = k.map(Op::cast, {k.load(index, k.outer(0))}, DType::i64);
        k.accumulate(bins, bin, k.map(Op::cast, {bin}));
        k.accumulate(total, k.index(0), k.map(Op::cast, {bin}, DType::f64));
        GuardedArray vi(DType::i32, z(size)), vb(DType::f32, 4), vt(DType::f64, 1);
        vi.fill(5, 0, 3);
        run(k.n, {vi.data(), vb.data(), vt.data()}, {{"N", size}});
        double sum = 0, want[4] = {};
        for (std::size_t i = 0; i < vi.size; ++i) sum += vi.get(i), want[vi.as<int>(i)] += vi.get(i);
        for (std::size_t b = 0; b < 4; ++b) ASSERT_EQ(vb.get(b), want[b]);
        ASSERT_EQ(vt.get(0), sum);
    });
}

// floordiv and mod round down, as in Python; div towards 0, as in C.
TEST_P(Forms, IntegersDivide) {
    if (rows()) return;
    for (DType t : {DType::i32, DType::i64})
        for (std::int64_t by : {0, 1, 2, 8, 7, -3, -1, 1000003}) {
            std::size_t count = 1000;
            NestBuilder k({static_cast<int>(count)}, false, width());
            int a = k.buffer(t), b = k.buffer(t), q = k.buffer(t, true), r = k.buffer(t, true), c = k.buffer(t, true);
            k.prologue();
            Val i = k.outer(0), x = k.load(a, i), y = by ? k.constant(static_cast<double>(by), t) : k.load(b, i);
            k.store(q, i, k.map(Op::floordiv, {x, y}, t));
            k.store(r, i, k.map(Op::mod, {x, y}, t));
            k.store(c, i, k.map(Op::div, {x, y}, t));
            GuardedArray va(t, count), vb(t, count), vq(t, count), vr(t, count), vc(t, count);
            std::mt19937_64 random(11);
            std::int64_t reach = t == DType::i32 ? (1LL << 31) - 1 : (1LL << 51);
            for (std::size_t p = 0; p < count; ++p) {
                std::int64_t v = std::uniform_int_distribution<std::int64_t>(-reach, reach)(random) >> (p % 40), w = std::uniform_int_distribution<std::int64_t>(-reach, reach)(random) >> (p % 50 % 31);
                w = w == 0 ? 5 : w;
                if (t == DType::i32) va.as<std::int32_t>(p) = static_cast<std::int32_t>(v), vb.as<std::int32_t>(p) = static_cast<std::int32_t>(w);
                else va.as<std::int64_t>(p) = v, vb.as<std::int64_t>(p) = w;
            }
            run(k.n, {va.data(), vb.data(), vq.data(), vr.data(), vc.data()});
            for (std::size_t p = 0; p < count; ++p) {
                auto v = static_cast<__int128>(va.get(p)), w = by ? static_cast<__int128>(by) : static_cast<__int128>(vb.get(p));
                auto quotient = v / w, rest = v % w;
                ASSERT_EQ(vc.get(p), static_cast<double>(quotient)) << name(t) << " " << va.get(p) << " over " << static_cast<double>(w);
                if (rest != 0 && (rest < 0) != (w < 0)) --quotient, rest += w;
                ASSERT_EQ(vq.get(p), static_cast<double>(quotient)) << name(t) << " " << va.get(p) << " by " << static_cast<double>(w);
                ASSERT_EQ(vr.get(p), static_cast<double>(rest)) << name(t);
            }
        }
}

// Columns as the quotient and the remainder of an index: vectors of either, or one for all lanes, as the divisor lies to the width and to the chunk.
TEST_P(Forms, IndicesAreTakenApart) {
    for (int by : {3, 16, 32, 48})
        for (int chunk : {8, 64})
            at_all_sizes([&](int size, Dim n) {
                const std::size_t rows_there = 5, width_there = z(size) / z(by) + 1;
                NestBuilder k(rows() ? Shape{Dim::symbol("R")} : Shape{Dim::symbol("R"), n}, rows(), width(), chunk);
                int a = k.buffer(DType::f32), b = k.buffer(DType::f32), out = k.buffer(DType::f32, true);
                Val columns = rows() ? k.dim(n) : k.n.outer_sizes[1];
                k.prologue();
                Val i = k.outer(0), j;
                if (rows()) k.phase(n), j = k.inner();
                else j = k.outer(1);
                auto part = [&](Op op) { return k.map(op, {j, k.index(by)}, DType::i64); };
                Val x = k.load(a, k.at_index(i, k.index(static_cast<std::int64_t>(width_there)), part(Op::floordiv))), y = k.load(b, part(Op::mod));
                k.store(out, k.at_index(i, columns, j), k.map(Op::sub, {x, y}));
                GuardedArray va(DType::f32, rows_there * width_there), vb(DType::f32, z(by)), vo(DType::f32, rows_there * z(size));
                va.fill(1), vb.fill(2);
                run(k.n, {va.data(), vb.data(), vo.data()}, {{"R", 5}, {"N", size}});
                for (std::size_t r = 0; r < rows_there; ++r)
                    for (std::size_t c = 0; c < z(size); ++c)
                        ASSERT_EQ(vo.get(r * z(size) + c), vo.rounded(va.get(r * width_there + c / z(by)) - vb.get(c % z(by)))) << by << ", " << chunk << ": " << r << ", " << c;
            });
}

// As torch.remainder and torch.floor_divide, from fmod.
TEST_P(Forms, FloatRemainderIsPyTorchs) {
    if (rows()) return;
    std::vector<float> values{0, 1, -1, 0.1f, -0.3f, 2.5f, -7, 1e10f, -3e20f, INFINITY, -INFINITY, NAN};
    std::size_t n = values.size() * values.size();
    NestBuilder k({static_cast<int>(n)}, false, width());
    int a = k.buffer(DType::f32), b = k.buffer(DType::f32), out = k.buffer(DType::f32, true);
    k.prologue();
    Val i = k.outer(0);
    k.store(out, i, k.map(Op::mod, {k.load(a, i), k.load(b, i)}));
    GuardedArray va(DType::f32, n), vb(DType::f32, n), vo(DType::f32, n);
    for (std::size_t p = 0; p < n; ++p) va.as<float>(p) = values[p / values.size()], vb.as<float>(p) = values[p % values.size()];
    run(k.n, {va.data(), vb.data(), vo.data()});
    for (std::size_t p = 0; p < n; ++p) {
        float x = va.as<float>(p), y = vb.as<float>(p), r = std::fmod(x, y);
        if (r != 0 && (y < 0) != (r < 0)) r += y;
        if (std::isnan(r)) ASSERT_TRUE(std::isnan(vo.get(p))) << x << " mod " << y;
        else ASSERT_FLOAT_EQ(vo.as<float>(p), r) << x << " mod " << y;
    }
}

TEST_P(Forms, CastsBetweenAllTypes) {
    if (rows()) return;
    for (DType from : kTypes)
        for (DType to : kTypes) {
            NestBuilder k({67}, false, width());
            int a = k.buffer(from), out = k.buffer(to, true);
            k.prologue();
            Val i = k.outer(0);
            k.store(out, i, k.map(Op::cast, {k.load(a, i)}, k.type(out)));
            GuardedArray va(from, 67), vo(to, 67);
            for (std::size_t p = 0; p < 67; ++p) va.set(p, (static_cast<double>(p) - 33) * (is_int(from) ? 1 : 0.375));
            run(k.n, {va.data(), vo.data()});
            for (std::size_t p = 0; p < 67; ++p) {
                double x = va.get(p), want = to == DType::b1 ? x != 0 : is_int(to) ? std::trunc(x) : vo.rounded(x);
                ASSERT_EQ(vo.get(p), want) << name(from) << " to " << name(to);
            }
        }
}

// An index computed from one that is loaded: the loaded one's address has a step, the index has none.
TEST(CpuBackend, IndexFromMemoryHasNoStep) {
    NEEDS_LLVM();
    Program p;
    V table = p.graph.value(p.graph.input({DType::f32, {9}}, "table"));
    V index = p.graph.value(p.graph.input({DType::i64, {Dim::symbol("N")}}, "index"));
    V rows = gather(table, {add(index, like(index, 1))});
    p.graph.outputs = {rows.id};
    p.stored.assign(p.graph.nodes.size(), 0);
    for (Id id : {table.id, index.id, rows.id}) p.stored[z(id)] = 1;
    Nest nest;
    nest.outer = {Dim::symbol("N")}, nest.roots = {rows.id};
    loop::Nest n = loop::lower(p, nest);
    GuardedArray vt(DType::f32, 9), vi(DType::i64, 50), vo(DType::f32, 50);
    vt.fill(1), vi.fill(2, 0, 7);
    std::vector<void*> buffers;
    for (const auto& b : n.buffers) buffers.push_back(b.id == table.id ? vt.data() : b.id == index.id ? vi.data() : vo.data());
    run(n, buffers, {{"N", 50}});
    for (std::size_t i = 0; i < 50; ++i) EXPECT_EQ(vo.get(i), vt.get(vi.as<std::size_t>(i) + 1));
}

TEST(CpuBackend, CompilesInParallelAndOnce) {
    NEEDS_LLVM();
    auto nest = [](int c) {
        NestBuilder k({Dim::symbol("N")}, false);
        int out = k.buffer(DType::f32, true);
        k.prologue();
        Val i = k.outer(0);
        k.store(out, i, k.map(Op::exp, {k.constant(c)}));
        return k.n;
    };
    std::vector<std::future<CpuFn>> all;
    for (int c = 0; c < 8; ++c) all.push_back(std::async(std::launch::async, [&, c] { return compiled(nest(c)); }));
    for (int c = 0; c < 8; ++c) {
        CpuFn f = all[z(c)].get();
        GuardedArray v(DType::f32, 5);
        void* p = v.data();
        std::int64_t n = 5;
        f(&p, &n, 0, 1);
        EXPECT_FLOAT_EQ(static_cast<float>(v.get(4)), std::exp(static_cast<float>(c)));
        EXPECT_EQ(compiled(nest(c)), f);
    }
}

}  // namespace
}  // namespace heddle
