// The CUDA text, read and run on the CPU. Law: every schedule form gives what plain loops in double give, in any thread order.
#include "codegen/cuda/cuda.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>

#include "codegen/cuda/index.h"
#include "codegen/cuda/prelude.h"
#include "tests/core/cuda_cases.h"
#include "tests/cuda_on_cpu/launcher.h"

namespace heddle::test {
namespace {

int occurrences(const std::string& s, const std::string& of) {
    int n = 0;
    for (std::size_t i = s.find(of); i != std::string::npos; i = s.find(of, i + 1)) ++n;
    return n;
}

// Runs a case's kernel and compares each written buffer with what the case expects.
void check(const Case& c, CudaSource s, bool wide_index, unsigned seed) {
    std::vector<std::string> memory;
    std::vector<cuda_on_cpu::Memory> arguments;
    for (Id id : s.buffers) {
        const Data& d = c.data.at(id);
        auto width = static_cast<std::size_t>(bytes(d.dtype));
        std::string& m = memory.emplace_back(d.start.size() * width, '\0');
        for (std::size_t i = 0; i < d.start.size(); ++i) cuda_on_cpu::put_number(d.dtype, m.data() + i * width, d.start[i]);
    }
    for (std::string& m : memory) arguments.push_back({m.data(), m.size()});
    ASSERT_TRUE(wide_index || s.fits_narrow(c.sizes)) << s.text;
    cuda_on_cpu::run(s, c.nests, arguments, c.sizes, seed, true);
    for (std::size_t b = 0; b < memory.size(); ++b) {
        const Data& d = c.data.at(s.buffers[b]);
        auto width = static_cast<std::size_t>(bytes(d.dtype));
        const auto& want = d.end.empty() ? d.start : d.end;
        for (std::size_t i = 0; i < want.size(); ++i) {
            double got = cuda_on_cpu::number(d.dtype, memory[b].data() + i * width), slack = c.tolerance * (1 + std::abs(want[i]));
            ASSERT_TRUE(got == want[i] || std::abs(got - want[i]) <= slack || (std::isnan(got) && std::isnan(want[i])))
                << c.name << ": buffer " << b << "[" << i << "]: got " << got << ", expected " << want[i] << "\n" << s.text;
        }
    }
}

void check(const Case& c, const CudaOptions& options, unsigned seed) { check(c, cuda_text(c.name, c.nests, options), options.wide_index, seed); }

struct EveryCase : testing::TestWithParam<Case> {};
INSTANTIATE_TEST_SUITE_P(Forms, EveryCase, testing::ValuesIn(cases()), [](const auto& i) { return i.param.name; });

TEST_P(EveryCase, NarrowIndicesGiveWhatLoopsGive) { check(GetParam(), {.wide_index = false}, 1); }
TEST_P(EveryCase, WideIndicesGiveWhatLoopsGive) { check(GetParam(), {.wide_index = true}, 2); }
TEST_P(EveryCase, TextIsDeterministicAndIncludesNothing) {
    const Case& c = GetParam();
    std::string text = cuda_text(c.name, c.nests).text;
    EXPECT_EQ(text, cuda_text(c.name, c.nests).text);
    EXPECT_EQ(occurrences(text, "#include"), 0);
    EXPECT_EQ(occurrences(text, "extern \"C\" __global__ void"), 1);
    EXPECT_EQ(text.substr(0, 3), "// ");
}

TEST(CudaRows, GiveWhatTheTableGives) {
    for (DType t : {DType::f32, DType::f64}) check(every_row(t), {}, 3);
}

// Texts without their barriers, or without their bounds: none goes unnoticed. (Single barriers may be spare: one orders what the next would.)
TEST(CudaMutants, AreReported) {
    int mutants = 0;
    for (const Case& c : cases())
        for (const char* line : {"__syncthreads();", "__syncwarp();", "if (point >= "}) {
            if (c.sizes.contains("R") && c.sizes.at("R") == 0) continue;  // nothing runs
            if (c.name.find("_64") == std::string::npos && c.name != "pointwise" && c.name != "read_back_8") continue;
            CudaSource s = cuda_text(c.name, c.nests);
            bool mutated = false;
            for (std::size_t at = s.text.find(line); at != std::string::npos; at = s.text.find(line, at + 3), mutated = true) s.text.insert(at, "//");
            if (!mutated) continue;
            ++mutants;
            EXPECT_THROW(check(c, s, false, 1), cuda_on_cpu::Report) << c.name << " without " << line << "\n" << s.text;
        }
    EXPECT_GE(mutants, 5);
}

// To the nearest, ties to even; NaN stays NaN and what is too large is infinite. Bits from the formats' definitions.
TEST(CudaNarrow, RoundsToNearestEven) {
    struct Rounded {
        DType to;
        float from;
        std::uint16_t bits;
    };
    const float nan_of_low_bits = std::bit_cast<float>(0x7f800001u);
    const Rounded all[] = {{DType::bf16, 1, 0x3f80}, {DType::bf16, 1 + 0x1p-8f, 0x3f80}, {DType::bf16, 1 + 3 * 0x1p-8f, 0x3f82}, {DType::bf16, 1 + 0x1p-8f + 0x1p-20f, 0x3f81},
                           {DType::bf16, -1 - 0x1p-8f, 0xbf80}, {DType::bf16, 1 + 0x1p-9f, 0x3f80}, {DType::bf16, 3.4028234e38f, 0x7f80}, {DType::bf16, -INFINITY, 0xff80},
                           {DType::bf16, 0x1p-133f, 0x0001}, {DType::bf16, 1.5f * 0x1p-133f, 0x0002}, {DType::bf16, -0.0f, 0x8000}, {DType::bf16, nan_of_low_bits, 0x7fff},
                           {DType::f16, 1 + 0x1p-11f, 0x3c00}, {DType::f16, 1 + 3 * 0x1p-11f, 0x3c02}, {DType::f16, 1 + 0x1p-11f + 0x1p-20f, 0x3c01}, {DType::f16, 65520, 0x7c00},
                           {DType::f16, 65519, 0x7bff}, {DType::f16, 0x1p-24f, 0x0001}, {DType::f16, -0.0f, 0x8000}};
    for (DType to : {DType::bf16, DType::f16}) {
        std::vector<float> from;
        std::vector<std::uint16_t> want;
        for (const Rounded& r : all)
            if (r.to == to) from.push_back(r.from), want.push_back(r.bits);
        Build b({Dim(static_cast<int>(from.size()))});
        int x = b.buffer(0, DType::f32, "x"), y = b.buffer(1, to, "y", true);
        b.store(y, b.outer(0), b.load(x, b.outer(0)));
        std::vector<std::uint16_t> got(want.size());
        std::vector<loop::Nest> nests{b.n};
        cuda_on_cpu::run(cuda_text("narrow", nests), nests, {{from.data(), from.size() * 4}, {got.data(), got.size() * 2}}, {});
        for (std::size_t i = 0; i < want.size(); ++i) EXPECT_EQ(got[i], want[i]) << name(to) << " of " << from[i];
    }
}

TEST(CudaLiterals, ReadBackBitEqual) {
    std::vector<double> values = {0.0, -0.0, 1, -1, 0.1, 1.0 / 3, 1e-45, -1e-40, 3.4028234e38, 1e20, 16777217, kInf, -kInf, std::nan(""),
                                  5e-324, 2.2e-308, 1.7976931348623157e308, 123456789.123456789};
    Build f({Dim(1)}), d({Dim(1)});
    int bf = f.buffer(0, DType::f32, "float", true), bd = d.buffer(1, DType::f64, "double", true);  // names that C++ has taken
    for (std::size_t i = 0; i < values.size(); ++i) {
        auto at = static_cast<double>(i);
        f.store(bf, f.constant(DType::i64, at), f.constant(DType::f32, values[i]));
        d.store(bd, d.constant(DType::i64, at), d.constant(DType::f64, values[i]));
    }
    std::vector<float> floats(values.size());
    std::vector<double> doubles(values.size());
    std::vector<loop::Nest> nests{f.n, d.n};
    cuda_on_cpu::run(cuda_text("literals", nests), nests, {{floats.data(), floats.size() * 4}, {doubles.data(), doubles.size() * 8}}, {});
    for (std::size_t i = 0; i < values.size(); ++i) {
        EXPECT_EQ(std::bit_cast<std::uint32_t>(floats[i]), std::bit_cast<std::uint32_t>(static_cast<float>(values[i]))) << values[i];
        EXPECT_EQ(std::bit_cast<std::uint64_t>(doubles[i]), std::bit_cast<std::uint64_t>(values[i])) << values[i];
    }
    EXPECT_EQ(cuda::literal(DType::f32, 0.1), "0.1f");
    EXPECT_EQ(cuda::literal(DType::f32, -2), "(-2.0f)");
    EXPECT_EQ(cuda::literal(DType::i64, 0x1p63), "9223372036854775807LL");
}

// A hash of an index is data even where it ends in an address: remainders need all its bits.
TEST(CudaIndex, WhatMayWrapStaysWide) {
    Build b({Dim::symbol("N")});
    int x = b.buffer(0, DType::f32, "x"), y = b.buffer(1, DType::f32, "y", true);
    auto i = b.outer(0), prime = b.constant(DType::i64, 73856093), size = b.constant(DType::i64, 1000);
    auto hash = b.map(Op::mul, DType::i64, {i, prime}), slot = b.map(Op::mod, DType::i64, {hash, size});
    b.store(y, i, b.load(x, slot));
    cuda::Index index = cuda::index_types(b.n);
    ASSERT_EQ(index.limits.size(), 1u);  // narrow only as long as N * 73856093 < 2^31
    EXPECT_EQ(index.limits[0], Dim::symbol("N") * Dim(73856093));
    CudaSource s = cuda_text("hash", {b.n});
    EXPECT_TRUE(s.fits_narrow({{"N", 29}}));
    EXPECT_FALSE(s.fits_narrow({{"N", 30}}));

    Build w({Dim::symbol("N")});  // the same from data
    int k = w.buffer(0, DType::i64, "key"), out = w.buffer(1, DType::f32, "out", true), table = w.buffer(2, DType::f32, "table");
    auto key = w.load(k, w.outer(0)), by = w.constant(DType::i64, 73856093), n = w.constant(DType::i64, 1000);
    auto big = w.map(Op::mul, DType::i64, {key, by});
    w.store(out, w.outer(0), w.load(table, w.map(Op::mod, DType::i64, {big, n})));
    EXPECT_FALSE(cuda::index_types(w.n).narrow[static_cast<std::size_t>(big)]);
    EXPECT_NE(cuda_text("hash", {w.n}).text.find("* 73856093LL"), std::string::npos);
}

TEST(CudaText, ReadsLikeWritten) {
    Build b({Dim::symbol("R"), Dim(3)}, {.threads = 64});
    int x = b.buffer(4, DType::f32, "rays"), y = b.buffer(7, DType::f32, "v7", true);
    auto at = b.at({b.outer(0), b.outer(1)}, {-1, b.constant(DType::i64, 3)});
    auto v = b.map(Op::sigmoid, DType::f32, {b.load(x, at, -1, "ray")}, "alpha", "render.py:7");
    b.store(y, at, v);
    CudaSource s = cuda_text("shade", {b.n});
    EXPECT_EQ(s.text, R"(// shade: one nest, 64 threads a block, 32-bit indices.
//   points [R, 3], one thread each
namespace heddle {
#define HD static __device__ __forceinline__
typedef long long i64;
typedef int index_t;
HD float exp(float a) { return ::expf(a); }
HD double exp(double a) { return ::exp(a); }

extern "C" __global__ void __launch_bounds__(64) shade(const float* __restrict__ rays, float* __restrict__ v7, index_t R) {
  const index_t block = blockIdx.x;
  const index_t point = block * 64 + (int)threadIdx.x;
  if (point >= 3 * R) return;
  const index_t i1 = point % 3;
  const index_t i0 = point / 3;
  const index_t v6 = i0 * 3 + i1;
  const float ray_7 = rays[v6];
  const float alpha_8 = 1 / (1 + exp(-ray_7));  // render.py:7
  v7[v6] = alpha_8;
}
}  // namespace heddle
)");
    EXPECT_EQ(s.buffers, (std::vector<Id>{4, 7}));
    EXPECT_EQ(s.sizes, std::vector<std::string>{"R"});
    EXPECT_EQ(s.blocks({{"R", 43}}), 3);
    EXPECT_EQ(s.blocks({{"R", 43}}), blocks(b.n, {{"R", 43}}, 64));
    EXPECT_EQ(s.blocks({{"R", 0}}), 0);
}

// 1024 blocks each at a time: here two rounds and a short one.
TEST(CudaText, NestsThatReadTheSameTakeTurns) {
    Case c{"turns", {}, {{"N", 32 * 2100 + 5}}, {}};
    const auto n = static_cast<std::size_t>(c.sizes.at("N"));
    c.data[0] = {DType::f32, std::vector<double>(n, 3), {}};
    for (int k = 1; k <= 3; ++k) {
        Build b({Dim::symbol("N")});
        int x = b.buffer(0, DType::f32, "x"), y = b.buffer(k, DType::f32, "y" + std::to_string(k), true);
        b.store(y, b.outer(0), b.map(Op::mul, DType::f32, {b.load(x, b.outer(0)), b.constant(DType::f32, k)}));
        b.n.schedule.threads = 32;
        c.nests.push_back(b.n);
        c.data[k] = {DType::f32, std::vector<double>(n), std::vector<double>(n, 3 * k)};
    }
    EXPECT_NE(cuda_text(c.name, c.nests).text.find("take_turn(block, blocks_2, 3)"), std::string::npos);
    check(c, {}, 7);
}

TEST(CudaText, RefusesGroupsThatCannotBe) {
    Build scan({Dim(4)}, grouped(32));
    scan.phase(Dim(8));
    int c = scan.carry(DType::f32, 0);
    scan.carry_step(c, scan.carried(c));
    EXPECT_THROW(cuda_text("scan", {scan.n}), Bug);
    EXPECT_THROW(cuda_text("odd", {Build({Dim(4)}, {.lanes_inner = true, .group = 24, .threads = 128}).n}), Bug);
    EXPECT_THROW(cuda_text("odd", {Build({Dim(4)}, {.threads = 100}).n}), Bug);
}

}  // namespace
}  // namespace heddle::test
