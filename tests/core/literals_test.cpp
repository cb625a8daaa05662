// Numbers in text: every float that is written into a graph, a CUDA kernel or an LLVM module reads back with the same bits.
// Law: nothing rounds, flushes or loses a sign on the way; a NaN stays a NaN.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <random>

#include "ir/text.h"
#include "passes/pipeline.h"
#include "runtime/executable.h"
#include "tests/core/arrays.h"
#include "tests/cuda_on_cpu/launcher.h"

namespace heddle {
namespace {

template <class F, class Bits>
std::vector<double> numbers(int random) {
    using L = std::numeric_limits<F>;
    std::vector<F> all = {F(0),       F(-0.0),      F(1),        F(-1),      F(0.1),      F(-0.1),       F(1) / 3,          L::infinity(), -L::infinity(), L::quiet_NaN(), L::denorm_min(),
                          -L::denorm_min(), L::min(), -L::min(), L::max(), L::lowest(), L::min() / 2, std::nextafter(L::min(), F(0)), L::epsilon(), F(3.4e38), F(16777216), F(16777217),
                          F(1e10), F(1e15), F(9007199254740993.0), F(2147483648.0), F(9223372036854775808.0), F(-9223372036854775808.0), F(1e-7), F(123456.789), F(1e16), F(1e17)};
    std::mt19937_64 rng(7);
    for (int k = 0; k < random; ++k) all.push_back(std::bit_cast<F>(static_cast<Bits>(rng())));
    return {all.begin(), all.end()};
}
std::vector<double> numbers_of(DType t, int random) { return t == DType::f32 ? numbers<float, std::uint32_t>(random) : numbers<double, std::uint64_t>(random); }
bool same_bits(double a, double b) { return std::isnan(a) ? std::isnan(b) : std::bit_cast<std::uint64_t>(a) == std::bit_cast<std::uint64_t>(b); }

TEST(Literals, GraphTextReadsBackBitEqual) {
    for (DType t : {DType::f32, DType::f64})
        for (double v : numbers_of(t, 3000)) {
            Graph g;
            g.outputs = {constant(g, {t, {2}}, v).id};
            const Graph h = parse(print(g));
            EXPECT_EQ(h, g) << print(g);
            EXPECT_TRUE(same_bits(h[h.outputs[0]].number("value"), v)) << print(g);
        }
}
TEST(Literals, NoDoubleIsAnError) {  // and neither 0 nor inf
    for (const char* text : {"1e400", "-1e400", "1e-400"})
        EXPECT_THROW(parse(fmt::format("graph @f() {{\n  %0 = constant value={} : f64[]\n  return %0\n}}\n", text)), Error) << text;
}
TEST(Literals, ZerosOfEitherSignAreTwoConstants) {
    Graph g;
    V plus = constant(g, {DType::f64, {2}}, 0.0), minus = constant(g, {DType::f64, {2}}, -0.0), nan = constant(g, {DType::f64, {2}}, std::nan("")), again = constant(g, {DType::f64, {2}}, std::nan(""));
    EXPECT_NE(plus.id, minus.id);
    EXPECT_EQ(nan.id, again.id) << "a NaN is shared";
    Graph h = g;
    g.outputs = {plus.id}, h.outputs = {minus.id};
    EXPECT_NE(live(g), live(h));
}

// As outputs of their own and as operands of an expression that must not touch them.
Graph all_of(DType t, const std::vector<double>& values) {
    Graph g;
    V x = g.value(g.input({t, {Dim::symbol("N")}}, "x"));
    V yes = gt(x, like(x, 0));
    for (double v : values) g.outputs.push_back(select(yes, like(x, v), x).id);
    for (double v : values) g.outputs.push_back(constant(g, {t, {}}, v).id);
    return g;
}
void expect_kept(DType t, const std::vector<double>& values, const Target& target, const std::string& what) {
    const Graph g = all_of(t, values);
    const Executable e(plan(g), target);
    auto host = plain_host(1);
    Sizes sizes;
    const Tensor x{t, {19}, std::vector<double>(19, 1.0)};
    const auto out = e.run(*host, {to_array(*host, x)}, sizes);
    for (std::size_t k = 0; k < out.size(); ++k) {
        const double v = values[k % values.size()];
        for (double got : to_tensor(out[k]).data) ASSERT_TRUE(same_bits(got, v)) << fmt::format("{} {}: {} became {}", what, name(t), v, got);
    }
}
TEST(Literals, CompiledKernelsHaveTheirBits) {
    for (DType t : {DType::f32, DType::f64}) expect_kept(t, numbers_of(t, 60), {}, "LLVM");
}
TEST(Literals, CudaTextReadsBackBitEqual) {
    for (DType t : {DType::f32, DType::f64}) expect_kept(t, numbers_of(t, 60), cuda_on_cpu::target(), "CUDA");
}

}  // namespace
}  // namespace heddle
