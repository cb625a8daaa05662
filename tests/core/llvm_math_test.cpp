// The scalars of the CPU backend against the table's own double: every MAP row over its range and at special values; the
// vector maths over all magnitudes, in ulp. Law: at most 2 ulp, and the same in every lane and at every width.
#include <fmt/format.h>

#include <cmath>
#include <cstring>

#include "tests/core/nest_builder.h"

namespace heddle {
namespace {

// out[i] = op(in0[i], ..) for all i, in lanes of `width`.
template <class T> std::vector<T> apply_row(Op op, const std::vector<std::vector<T>>& in, int width) {
    DType t = sizeof(T) == 4 ? DType::f32 : DType::f64;
    bool compares = def(op).type && op >= Op::lt && op <= Op::ne;
    NestBuilder k({Dim::symbol("N")}, false, width, 4096);
    int out = k.buffer(compares ? DType::b1 : t, true);
    k.prologue();
    loop::Val i = k.outer(0);
    std::vector<loop::Val> x;
    for (const auto& v : in) (void)v, x.push_back(k.load(k.buffer(t), i));
    k.store(out, i, k.map(op, x, compares ? DType::b1 : t));
    std::size_t size = in[0].size();
    std::vector<T> result(size);
    std::vector<std::uint8_t> bools(size);
    std::vector<void*> buffers{compares ? static_cast<void*>(bools.data()) : result.data()};
    for (const auto& v : in) buffers.push_back(const_cast<T*>(v.data()));
    run(k.n, buffers, {{"N", static_cast<std::int64_t>(size)}});
    if (compares) std::copy(bools.begin(), bools.end(), result.begin());
    return result;
}
template <class T> double ulp_of(double x) {
    T a = std::fabs(static_cast<T>(x));
    if (!std::isfinite(a)) a = std::numeric_limits<T>::max();
    T next = std::nextafter(a, std::numeric_limits<T>::infinity());
    return std::isfinite(next) ? static_cast<double>(next - a) : static_cast<double>(a - std::nextafter(a, T(0)));
}
// In ulp; infinite if one is NaN, infinite or of another sign of zero where the other is not.
template <class T> double error(T got, double want) {
    T rounded = static_cast<T>(want);
    if (std::isnan(got) || std::isnan(rounded)) return std::isnan(got) && std::isnan(rounded) ? 0 : kInf;
    if (got == rounded) return got == 0 && std::signbit(got) != std::signbit(rounded) ? kInf : 0;
    if (std::isinf(got) || (std::isinf(rounded) && std::isinf(want))) return kInf;
    return std::fabs(static_cast<double>(got) - want) / ulp_of<T>(want);
}
template <class T> std::vector<T> specials() {
    using limits = std::numeric_limits<T>;
    std::vector<T> s{0, limits::denorm_min(), limits::min() / 3, limits::min(), limits::epsilon(), T(0.5), T(0.75), 1, 1.5, 2, 10, 88, 89, 103.5, 700, 709.5, 745, 1e10, limits::max(), limits::infinity()};
    for (std::size_t i = 0, n = s.size(); i < n; ++i) s.push_back(-s[i]);
    s.push_back(limits::quiet_NaN());
    return s;
}

// 1 / (1 + exp(-x)) is 0 where exp overflows, as it is in PyTorch, though it might be denormal.
template <class T> bool overflows(Op op, T x) { return op == Op::sigmoid && std::isinf(std::exp(-x)); }

std::vector<Op> map_rows() {
    std::vector<Op> rows;
    for (int i = 0; i < kOps; ++i)
        if (const OpDef& d = def(Op(i)); d.kind == Kind::map && d.scalar.eval) rows.push_back(Op(i));
    return rows;
}
struct EveryMap : testing::TestWithParam<Op> {};
INSTANTIATE_TEST_SUITE_P(Table, EveryMap, testing::ValuesIn(map_rows()), [](const auto& p) { return std::string(def(p.param).name); });

template <class T> void check_row(Op op, int width) {
    const OpDef& d = def(op);
    bool logical = op == Op::not_ || op == Op::and_ || op == Op::or_ || op == Op::xor_ || op == Op::select;
    if (logical) return;  // EveryBool
    std::mt19937 random(1);
    std::uniform_real_distribution<double> draw(d.range.lo, d.range.hi);
    std::vector<std::vector<T>> in(static_cast<std::size_t>(d.arity), std::vector<T>(1003));
    for (auto& v : in)
        for (T& x : v) x = static_cast<T>(draw(random));
    for (T a : specials<T>())
        for (T b : d.arity == 2 ? specials<T>() : std::vector<T>{0}) {
            in[0].push_back(a);
            if (d.arity == 2) in[1].push_back(b);
        }
    auto got = apply_row<T>(op, in, width);
    double limit = sizeof(T) == 8 ? 4 : op == Op::sigmoid || op == Op::rsqrt || op == Op::erfc ? 3 : 2;  // erfc is libm's
    for (std::size_t i = 0; i < got.size(); ++i) {
        double a = in[0][i], b = d.arity == 2 ? in[1][i] : 0, want = d.scalar.eval(a, b, 0);
        if (overflows(op, in[0][i])) want = 0;
        if (op == Op::add || op == Op::sub || op == Op::mul || op == Op::div) want = static_cast<T>(want);
        ASSERT_LE(error<T>(got[i], want), limit) << d.name << "(" << a << ", " << b << ") in lanes of " << width << ": got " << got[i] << ", expected " << want;
    }
}
TEST_P(EveryMap, FloatIsTheTablesDouble) {
    NEEDS_LLVM();
    for (int width : {1, 8, 16, 32}) check_row<float>(GetParam(), width);
}
TEST_P(EveryMap, DoubleIsTheTablesDouble) {
    NEEDS_LLVM();
    for (int width : {1, 8, 16, 32}) check_row<double>(GetParam(), width);
}

// ---- ulp
using Exact = long double (*)(long double);
struct Function { const char* name; Op op; Exact exact; };
const Function kFunctions[] = {
    {"exp", Op::exp, [](long double x) { return std::exp(x); }},     {"expm1", Op::expm1, [](long double x) { return std::expm1(x); }},
    {"log", Op::log, [](long double x) { return std::log(x); }},     {"log1p", Op::log1p, [](long double x) { return std::log1p(x); }},
    {"sin", Op::sin, [](long double x) { return std::sin(x); }},     {"cos", Op::cos, [](long double x) { return std::cos(x); }},
    {"tanh", Op::tanh, [](long double x) { return std::tanh(x); }},
    {"erf", Op::erf, [](long double x) { return std::erf(x); }},
    {"sigmoid", Op::sigmoid, [](long double x) { return 1 / (1 + std::exp(-x)); }},
};
struct EveryFunction : testing::TestWithParam<Function> {};
INSTANTIATE_TEST_SUITE_P(Maths, EveryFunction, testing::ValuesIn(kFunctions), [](const auto& p) { return std::string(p.param.name); });

template <class T> T from_bits(std::uint64_t bits) {
    T x;
    std::memcpy(&x, &bits, sizeof x);
    return x;
}
template <class T> double worst(const Function& f, const std::vector<T>& x, T* where) {
    double most = 0;
    auto got = apply_row<T>(f.op, {x}, 16);
    for (std::size_t i = 0; i < x.size(); ++i) {
        bool f32 = sizeof(T) == 4;  // against double, which is faster and exact enough
        if (overflows(f.op, x[i])) continue;
        double want = f32 ? def(f.op).scalar.eval(x[i], 0, 0) : 0, e;
        if (f32) e = error<T>(got[i], want);
        else {
            long double exact = f.exact(x[i]);
            double rounded = static_cast<double>(exact);
            e = error<T>(got[i], rounded);
            if (e > 0 && e < kInf) e = static_cast<double>(std::fabs(got[i] - exact) / ulp_of<T>(rounded));
        }
        if (e > most) most = e, *where = x[i];
    }
    return most;
}
TEST_P(EveryFunction, WithinTwoUlp) {
    NEEDS_LLVM();
    const Function& f = GetParam();
    double limit = f.op == Op::sigmoid ? 3 : 2;  // three roundings
    std::vector<float> x;
    for (std::uint64_t b = 0; b < (std::uint64_t{1} << 32); b += 8191) x.push_back(from_bits<float>(b));  // all magnitudes
    std::mt19937_64 random(3);
    for (double reach : {1.0, 20.0, 100.0, 1e5}) {
        std::uniform_real_distribution<float> draw(static_cast<float>(-reach), static_cast<float>(reach));
        for (int i = 0; i < 50000; ++i) x.push_back(draw(random));
    }
    float where = 0;
    double e = worst(f, x, &where);
    EXPECT_LE(e, limit) << f.name << " f32 at " << where;
    RecordProperty("ulp_f32", fmt::format("{:.2f}", e));

    std::vector<double> y;
    for (int i = 0; i < 100000; ++i) y.push_back(from_bits<double>(random()));
    for (double reach : {1.0, 20.0, 700.0, 1e9}) {
        std::uniform_real_distribution<double> draw(-reach, reach);
        for (int i = 0; i < 25000; ++i) y.push_back(draw(random));
    }
    double at = 0, d = worst(f, y, &at);
    EXPECT_LE(d, limit) << f.name << " f64 at " << at;
    RecordProperty("ulp_f64", fmt::format("{:.2f}", d));
    if (std::getenv("HEDDLE_ULP")) fmt::print("{:8} f32 {:.2f} ulp at {}, f64 {:.2f} ulp at {}\n", f.name, e, where, d, at);
}

}  // namespace
}  // namespace heddle
