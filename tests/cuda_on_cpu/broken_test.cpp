// Kernels that break a rule, one each: the machine must say which, where, who. Law: each has a sound twin that passes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/cuda_on_cpu/machine.h"
#include "tests/cuda_on_cpu/ptx.h"

namespace heddle::cuda_on_cpu {
namespace {

using testing::AllOf, testing::HasSubstr;
constexpr char kArguments[] = "(const float* __restrict__ x, float* __restrict__ y, int n)";

// Runs `body` over x and y, both of `elements` floats; the report, or nothing.
std::string report(const std::string& body, const Grid& grid, std::size_t elements, const std::string& before = "", const std::string& arguments = kArguments, bool whole = true) {
    std::string text = before + "extern \"C\" __global__ void broken" + arguments + " {\n  const int i = blockIdx.x * " + std::to_string(grid.threads) +
                       " + threadIdx.x;\n" + body + "\n}\n";
    std::vector<float> x(elements), y(elements);
    for (std::size_t k = 0; k < elements; ++k) x[k] = static_cast<float>(k % 7);
    Buffer buffers[] = {{"x", DType::f32, x.data(), 4 * elements}, {"y", DType::f32, y.data(), 4 * elements, !whole, whole}};
    std::int64_t n[] = {static_cast<std::int64_t>(elements)};
    auto object = compile({{"broken", text}})[0];
    try {
        run_twice(*object, grid, buffers, n, 1);
    } catch (const Report& e) {
        EXPECT_EQ(std::string(e.what()).find('\n'), std::string::npos) << e.what();
        return e.what();
    }
    return "";
}

TEST(Broken, OutOfBounds) {
    EXPECT_THAT(report("y[i] = x[i + 1];", {2, 32}, 64), AllOf(HasSubstr("broken, seed "), HasSubstr("out of bounds: thread 31 of block 1 reads x[64], which has 64 elements, in broken.cu:3 `y[i] = x[i + 1];`")));
    EXPECT_THAT(report("y[i - 1] = 2;", {1, 32}, 32), HasSubstr("out of bounds: thread 0 of block 0 writes y[-1], which has 32 elements,"));
    EXPECT_THAT(report("y[i] = x[(long long)i * 100000000];", {1, 32}, 32), HasSubstr("reads x["));  // far, and of no other buffer
    EXPECT_THAT(report("y[i] = x[(long long)i << 42];", {1, 32}, 32), HasSubstr("out of bounds of every buffer"));
    EXPECT_THAT(report("atomicAdd(y + n, x[i]);", {1, 32}, 32, "", kArguments, false), HasSubstr("adds to y[32]"));
    EXPECT_EQ(report("if (i < n) y[i] = x[i];", {2, 64}, 100), "");
}
TEST(Broken, Misaligned) { EXPECT_THAT(report("y[i] = i == 5 ? *(const float*)((const char*)x + 6) : x[i];", {1, 32}, 32), HasSubstr("misaligned: thread 5 of block 0 reads x[1]")); }
TEST(Broken, Uninitialised) {
    EXPECT_THAT(report("y[i] += x[i];", {1, 32}, 32), HasSubstr("uninitialised: thread "));
    EXPECT_THAT(report("__shared__ float part[64];\n part[i] = x[i];\n __syncthreads();\n y[i] = part[i + 32];", {1, 32}, 32),
                AllOf(HasSubstr("uninitialised: thread "), HasSubstr("reads __shared__ memory in broken.cu:6 `y[i] = part[i + 32];`")));
    EXPECT_THAT(report("if (i != 40) y[i] = x[i];", {2, 32}, 64), HasSubstr("uninitialised: no thread writes y[40] of 64"));
    // What the block before left in shared memory is nobody's.
    EXPECT_THAT(report("__shared__ float part[32];\n if (blockIdx.x == 0 || threadIdx.x != 3) part[threadIdx.x] = x[i];\n __syncthreads();\n y[i] = part[threadIdx.x];", {2, 32}, 64),
                HasSubstr("uninitialised: thread 3 of block 1 reads __shared__ memory"));
    EXPECT_EQ(report("y[i] = x[i]; y[i] += 1;", {1, 32}, 32), "");
    EXPECT_THROW(report("float v;\n y[i] = v * x[i];", {1, 32}, 32), std::runtime_error);
}
TEST(Broken, SharedRace) {
    const char* across = "__shared__ float part[64];\n part[i] = x[i];\n%s\n y[i] = part[63 - i];";
    auto with = [&](const std::string& barrier) { return report(std::string(across).replace(std::string(across).find("%s"), 2, barrier), {1, 64}, 64); };
    EXPECT_THAT(with(""), AllOf(HasSubstr("__shared__ memory in broken.cu:"), testing::AnyOf(HasSubstr("race: thread "), HasSubstr("uninitialised: thread "))));
    EXPECT_THAT(with("__syncwarp();"), testing::AnyOf(HasSubstr("race: thread "), HasSubstr("uninitialised: thread ")));
    EXPECT_EQ(with("__syncthreads();"), "");
    // Read, then written again with no barrier between: the other order.
    EXPECT_THAT(report("__shared__ float part[64];\n part[i] = x[i];\n __syncthreads();\n y[i] = part[63 - i];\n part[i] = 0;", {1, 64}, 64),
                AllOf(HasSubstr("race: thread "), HasSubstr("with nothing between that orders them")));
    // Lanes of a warp: a barrier of the warp will do, a shuffle won't.
    const char* lanes = "__shared__ float part[32];\n part[i] = x[i];\n%s\n y[i] = part[31 - i];";
    auto in_warp = [&](const std::string& barrier) { return report(std::string(lanes).replace(std::string(lanes).find("%s"), 2, barrier), {1, 32}, 32); };
    EXPECT_EQ(in_warp("__syncwarp();"), "");
    EXPECT_THAT(in_warp("const float v = __shfl_xor_sync(0xffffffffu, x[i], 1);"), HasSubstr("race: thread "));
}
TEST(Broken, GlobalRace) {
    EXPECT_THAT(report("y[i / 2] = i;", {1, 64}, 32), AllOf(HasSubstr("race: thread "), HasSubstr(" writes y["), HasSubstr(" wrote it in broken.cu:3 `y[i / 2] = i;`")));
    EXPECT_THAT(report("y[threadIdx.x] = 1;", {2, 32}, 32), AllOf(HasSubstr("of block 0"), HasSubstr("of block 1"), HasSubstr("race: ")));
    EXPECT_THAT(report("y[i] = x[i];\n if (i == 40) y[3] = 1;\n", {2, 32}, 64), HasSubstr("race: thread "));
    EXPECT_THAT(report("y[0] += x[i];", {1, 32}, 32, "", "(const float* x, float* y, int n)", false), testing::AnyOf(HasSubstr("race: thread "), HasSubstr("uninitialised: ")));  // should have been atomic
    EXPECT_EQ(report("atomicAdd(y, x[i]);", {4, 32}, 128, "", kArguments, false), "");
    EXPECT_THAT(report("atomicAdd(y, x[i]);\n if (i == 70) y[1] = y[0];", {4, 32}, 128, "", kArguments, false), AllOf(HasSubstr("race: "), HasSubstr("y[0]")));
}
TEST(Broken, Barriers) {
    EXPECT_THAT(report("if (i < 7) __syncthreads();\n y[i] = x[i];", {1, 64}, 64),
                AllOf(HasSubstr("divergent barrier: of the threads of block 0"), HasSubstr("57 (such as"), HasSubstr("have returned"), HasSubstr("7 (such as"),
                      HasSubstr("wait at __syncthreads in broken.cu:3 `if (i < 7) __syncthreads();`")));
    EXPECT_THAT(report("if (i < 7) __syncthreads();\n else __syncthreads();\n y[i] = x[i];", {1, 64}, 64), AllOf(HasSubstr("divergent barrier: thread "), HasSubstr("broken.cu:3"), HasSubstr("broken.cu:4")));
    EXPECT_THAT(report("if (i == 5) return;\n y[i] = __shfl_xor_sync(0xffffffffu, x[i], 1);", {1, 32}, 32), HasSubstr("wait at __shfl_xor_sync in broken.cu:4"));
    EXPECT_THAT(report("y[i] = i < 9 ? __shfl_xor_sync(0xfu, x[i], 1) : 0;", {1, 32}, 32), HasSubstr("with a mask 0xf that leaves it out"));
    EXPECT_THAT(report("y[i] = i < 8 ? __shfl_xor_sync(0xffu, x[i], 8) : 0;", {1, 32}, 32), HasSubstr("reads a lane that its mask leaves out"));
    EXPECT_EQ(report("y[i] = i < 8 ? __shfl_xor_sync(0xffu, x[i], 4) : 0;", {1, 32}, 32), "");
}
TEST(Broken, DependsOnTheOrder) {
    EXPECT_THAT(report("y[i] = atomicAdd(y, 0.0f) + atomicAdd((int*)x, 1);", {1, 32}, 32, "", "(float* __restrict__ x, float* __restrict__ y, int n)", false), HasSubstr("race"));
    EXPECT_THAT(report("y[i] = atomicAdd((int*)x, 1);", {1, 64}, 64, "", "(float* __restrict__ x, float* __restrict__ y, int n)"),
                AllOf(HasSubstr("depends on the order of threads: y["), HasSubstr("with seed 1")));
    EXPECT_THAT(report("atomicExch(y, (float)i);", {4, 32}, 1, "", kArguments, false), HasSubstr("depends on the order of threads: y[0]"));
}
// Blocks that wait for blocks: a fence before the count, a fence behind the wait, and that there is a wait.
TEST(Broken, BlocksThatWait) {
    const char* body = R"(  __shared__ int unused;
  if (blockIdx.x < 3) {
    y[i] = x[i] * 2;
    %barrier
    if (threadIdx.x == 0) { %release atomicAdd(done, 1u); }
  } else {
    if (threadIdx.x == 0) { while (%wait) __nanosleep(64); %acquire }
    __syncthreads();
    y[i] = y[i - 96] + y[95 - i % 32];
  })";
    auto with = [&](const std::string& barrier, const std::string& release, const std::string& wait, const std::string& acquire) {
        std::string b = body;
        for (const auto& [from, to] : {std::pair<std::string, std::string>{"%barrier", barrier}, {"%release", release}, {"%wait", wait}, {"%acquire", acquire}}) b.replace(b.find(from), from.size(), to);
        return report(b, {6, 32, true, true}, 192, "", "(const float* __restrict__ x, float* __restrict__ y, int n, unsigned* done)");
    };
    const char *barrier = "__syncthreads();", *fence = "__threadfence();", *wait = "*(volatile unsigned*)done < 3";
    EXPECT_EQ(with(barrier, fence, wait, fence), "");
    auto bad = testing::AnyOf(HasSubstr("race: thread "), HasSubstr("uninitialised: thread "));
    EXPECT_THAT(with("", fence, wait, fence), bad);
    EXPECT_THAT(with(barrier, "", wait, fence), bad);
    EXPECT_THAT(with(barrier, fence, "false", fence), bad);
    EXPECT_THAT(with(barrier, fence, "*(volatile unsigned*)done < 2", fence), bad);
    EXPECT_THAT(with(barrier, fence, "*done < 3", fence), HasSubstr("race: thread "));
    EXPECT_THAT(with(barrier, fence, wait, ""), bad);
    EXPECT_THAT(with(barrier, fence, "*(volatile unsigned*)done < 4", fence), HasSubstr("waits for ever"));
}
TEST(Broken, UnknownWordsDoNotCompile) {
    auto words = [](const std::string& body) -> std::string {
        try {
            report(body, {1, 32}, 32);
        } catch (const Report& e) {
            return std::string("ran: ") + e.what();
        } catch (const std::runtime_error& e) {
            return e.what();
        }
        return "ran";
    };
    EXPECT_THAT(words("y[i] = __frobnicate(x[i]);"), AllOf(HasSubstr("broken.cu:3"), HasSubstr("__frobnicate")));
    EXPECT_THAT(words("y[i] = atomicAdd((long long*)x, 1LL);"), HasSubstr("broken.cu:3"));  // CUDA has none either
    EXPECT_THAT(words("asm(\"bar.sync 0;\");"), HasSubstr("broken.cu:3: asm: `bar.sync 0` has more than numbered operands"));
    EXPECT_THAT(words("asm volatile(\"membar.gl;\" ::: \"memory\");"), HasSubstr("membar_gl"));
    EXPECT_THAT(words("asm(\"add.f32 %0, %1, %1; neg.f32 %0, %0;\" : \"=f\"(y[i]) : \"f\"(x[i]));"), HasSubstr("several instructions"));
}
TEST(Ptx, AsmBecomesACall) {
    EXPECT_EQ(without_asm("a; // asm(\nasm volatile(\n\"red.global.add.v2.f32 [%0], {%2, %1};\"\n :: \"l\"(p + f(1)), \"f\"(x), \"f\"(y) : \"memory\"); b", "k"),
              "a; // asm(\nptx::red_global_add_v2_f32((p + f(1)), (y), (x))\n\n; b");
    EXPECT_EQ(report("asm volatile(\"red.global.add.v4.f32 [%0], {%1, %2, %3, %4};\" :: \"l\"(y + i % 2 * 4), \"f\"(x[i]), \"f\"(1.0f), \"f\"(2.0f), \"f\"(3.0f) : \"memory\");", {2, 32}, 64, "", kArguments, false), "");
    EXPECT_THAT(report("asm volatile(\"red.global.add.v4.f32 [%0], {%1, %1, %1, %1};\" :: \"l\"(y + 2), \"f\"(1.0f));", {1, 32}, 32, "", kArguments, false), HasSubstr("misaligned"));
    EXPECT_THAT(report("asm volatile(\"red.global.add.v4.f32 [%0], {%1, %1, %1, %1};\" :: \"l\"(y + 28 + i / 31 * 4), \"f\"(1.0f));", {1, 32}, 32, "", kArguments, false), HasSubstr("adds to y[32]"));
}
// What lanes get, against what they should.
TEST(Shim, WordsOfWarps) {
    const char* body = R"(  int v = 0;
  const int l = i % 32;
  if (__shfl_sync(~0u, i, 5) != i - l + 5) v |= 1;
  if (__shfl_up_sync(~0u, i, 3) != (l < 3 ? i : i - 3)) v |= 2;
  if (__shfl_down_sync(~0u, l, 4, 8) != (l % 8 < 4 ? l + 4 : l)) v |= 4;
  if (__shfl_xor_sync(~0u, (double)l, 9) != (double)(l ^ 9)) v |= 8;
  if (__ballot_sync(~0u, l & 1) != 0xaaaaaaaau || !__any_sync(~0u, l == 7) || __all_sync(~0u, l < 31) || !__all_sync(~0u, l < 32)) v |= 16;
  if (__reduce_add_sync(~0u, l) != 496 || __reduce_max_sync(~0u, 5 - l) != 5 || __reduce_min_sync(~0u, (unsigned)l + 3) != 3u) v |= 32;
  if (__match_any_sync(~0u, l % 4) != 0x11111111u << l % 4) v |= 64;
  if (__popc(__umulhi(0xdeadbeefu, 0xD2511F53u)) != 17 || __ldg(x + i) != x[i] || __float_as_uint(__uint_as_float(77u)) != 77u) v |= 128;
  y[i] = 1.0f / (v == 0 ? 1.0f : 0.0f * v);
  if (v != 0) y[n + v] = 0;)";
    EXPECT_EQ(report(body, {2, 64}, 128), "");
}

}  // namespace
}  // namespace heddle::cuda_on_cpu
