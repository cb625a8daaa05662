// What NVRTC makes of the generated text, with no GPU. Law: every form compiles for every architecture and spills nothing.
#include "runtime/nvrtc.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstring>

#include "codegen/cuda/cuda.h"
#include "runtime/device.h"
#include "ir/text.h"
#include "passes/pipeline.h"
#include "tests/core/cuda_cases.h"
#include "tests/core/golden.h"

namespace heddle::test {
namespace {

constexpr const char* kArchs[] = {"sm_75", "sm_80", "sm_90"};

Nvrtc& nvrtc() {
    static Nvrtc n;  // shared by the tests for its cache
    return n;
}
#define NEED_NVRTC() \
    if (!nvrtc().available()) GTEST_SKIP() << nvrtc().why_not()

std::vector<Case> all() {
    std::vector<Case> c = cases();
    c.push_back(every_row(DType::f32)), c.push_back(every_row(DType::f64));
    return c;
}
struct EveryKernel : testing::TestWithParam<Case> {};
INSTANTIATE_TEST_SUITE_P(Forms, EveryKernel, testing::ValuesIn(all()), [](const auto& i) { return i.param.name; });

TEST_P(EveryKernel, CompilesWithoutSpills) {
    NEED_NVRTC();
    for (bool wide : {false, true}) {
        CudaSource s = cuda_text(GetParam().name, GetParam().nests, {.wide_index = wide});
        for (const char* arch : kArchs) {
            if (wide && arch != kArchs[2]) continue;
            auto binary = nvrtc().compile({s.kernel, s.text}, arch);
            EXPECT_EQ(binary->image.substr(1, 3), "ELF");
            EXPECT_EQ(binary->log.find("warning"), std::string::npos) << binary->log << "\n" << s.text;
            ASSERT_TRUE(binary->resources) << binary->log;
            EXPECT_EQ(binary->resources->spill_stores + binary->resources->spill_loads, 0) << binary->log;
            EXPECT_GT(binary->resources->registers, 0);
        }
    }
}

CudaText softmax() {
    CudaSource s = cuda_text("softmax", cases()[3].nests);
    return {s.kernel, s.text};
}

TEST(Nvrtc, InputsGoThroughTheReadOnlyPathAndSumsAreReductions) {
    NEED_NVRTC();
    for (const Case& c : cases()) {
        if (c.name != "gather_scatter_f32") continue;
        CudaSource s = cuda_text(c.name, c.nests);
        std::string ptx = nvrtc().compile({s.kernel, s.text}, "compute_90")->image;
        EXPECT_NE(ptx.find("ld.global.nc"), std::string::npos) << ptx;
        EXPECT_EQ(ptx.find("ld.global.f32"), std::string::npos) << ptx;
        EXPECT_TRUE(ptx.find("red.global.add.f32") != std::string::npos || ptx.find("atom.global.add.f32") != std::string::npos) << ptx;
    }
}
// The planes of HexPlane's density: texels move as 128 bits, sums go to memory as such, and half of all threads fit on a multiprocessor.
TEST(Nvrtc, PlanesTakeVectorsAndFewRegisters) {
    NEED_NVRTC();
    const Graph g = parse(golden::section(golden::contents(golden::kFolder / "hexplane/density_feature.hir"), "lowered"));
    std::vector<char> wants(g.inputs.size(), 1);
    wants[0] = wants[1] = 0;  // where the points are, and when
    const Pair pair = forward_and_backward(g, wants, {});
    auto occurrences = [](const std::string& s, const std::string& of) {
        int n = 0;
        for (std::size_t i = s.find(of); i != std::string::npos; i = s.find(of, i + 1)) ++n;
        return n;
    };
    for (const Graph* half : {&pair.split.forward, &pair.split.backward}) {
        const Plan p = plan(*half, {}, {.machine = Machine::cuda});
        ASSERT_EQ(p.loops.size(), 1u);
        const CudaSource s = cuda_text(p.program.launches[0].name, p.loops[0]);
        for (const char* arch : kArchs) {
            const auto r = nvrtc().compile({s.kernel, s.text}, arch)->resources;
            ASSERT_TRUE(r);
            EXPECT_LE(r->registers, 64) << s.kernel << " on " << arch;
            EXPECT_EQ(r->spill_stores + r->spill_loads, 0) << s.kernel << " on " << arch;
        }
        const std::string ptx = nvrtc().compile({s.kernel, s.text}, "compute_90")->image;
        EXPECT_GE(occurrences(ptx, "ld.global.v4.f32") + occurrences(ptx, "ld.global.nc.v4.f32"), 24) << s.kernel;  // the corners in six planes
        if (half == &pair.split.forward) continue;
        EXPECT_EQ(occurrences(ptx, "red.global.add.v4.f32"), 48);  // where an address changes and where a run ends
        EXPECT_EQ(occurrences(ptx, "red.global.add.f32") + occurrences(ptx, "atom.global.add.f32"), 0);
        EXPECT_EQ(occurrences(ptx, "red.global.add.f64") + occurrences(ptx, "atom.global.add.f64"), 12);  // of a block, for four channels of three bases
        int walked = 0;
        for (const loop::Nest& n : p.loops[0])
            if (loop::run(n) > 1) {
                ++walked;
                EXPECT_EQ(n.schedule.vector, 4) << print(n.schedule);
            }
        EXPECT_EQ(walked, 9);
    }
}
TEST(Nvrtc, CompilesOnceInParallelAndInOrder) {
    NEED_NVRTC();
    std::vector<CudaText> texts;
    for (int i = 0; i < 6; ++i) {
        CudaText t = softmax();
        t.text += fmt::format("// {}\n", i % 3);
        texts.push_back(t);
    }
    auto first = nvrtc().compile(texts, "sm_86"), again = nvrtc().compile(texts, "sm_86");
    for (std::size_t i = 0; i < texts.size(); ++i) {
        EXPECT_EQ(first[i], again[i]);
        EXPECT_EQ(first[i], first[(i + 3) % 6]);
    }
    EXPECT_NE(first[0], nvrtc().compile(texts[0], "sm_86", {.line_info = true}));
}
TEST(Nvrtc, AnErrorNamesTheKernelAndCarriesTheLog) {
    NEED_NVRTC();
    try {
        nvrtc().compile(std::vector<CudaText>{softmax(), {"broken", "extern \"C\" __global__ void broken() { nonsense(); }"}}, "sm_80");
        FAIL();
    } catch (const Error& e) {
        std::string what = e.what();
        EXPECT_EQ(what.substr(0, what.find('\n')), "broken: nvrtcCompileProgram for sm_80: NVRTC_ERROR_COMPILATION");
        EXPECT_NE(what.find("broken.cu(1): error: identifier \"nonsense\" is undefined"), std::string::npos) << what;
    }
}
TEST(Nvrtc, AWrongWishIsAnError) {
    setenv("HEDDLE_NVRTC", "/nowhere", 1);
    EXPECT_THROW(Nvrtc(), Error);
    unsetenv("HEDDLE_NVRTC");
}
TEST(Nvrtc, ReadsWhatPtxasSays) {
    EXPECT_EQ(parse_ptxas("nothing"), std::nullopt);
    EXPECT_EQ(parse_ptxas("ptxas . 8 bytes stack frame, 16 bytes spill stores, 24 bytes spill loads\nUsed 40 registers, used 1 barriers, 256 bytes smem"),
              (Resources{.registers = 40, .spill_stores = 16, .spill_loads = 24, .stack = 8, .shared = 256}));
}
TEST(Tools, AreAllNamed) {
    std::vector<std::string> names;
    for (const Tool& t : find_tools()) names.push_back(t.name);
    EXPECT_EQ(names, (std::vector<std::string>{"nvrtc", "ptxas", "cuobjdump", "libcuda", "LLVM 19", "cpu"}));
}

TEST(Device, IsHarmlessWithoutADriver) {
    if (cuda_available()) GTEST_SKIP() << "there is one";
    EXPECT_FALSE(cuda_why_not().empty());
    EXPECT_THROW(device_info(), Error);
    EXPECT_THROW(Kernel("", "k"), Error);
    EXPECT_THROW(DeviceMemory(4), Error);
    EXPECT_NO_THROW(clear_async(nullptr, 0, nullptr));
    EXPECT_NO_THROW(Kernel().launch(0, 32, 0, nullptr, nullptr));
}
// The same cases that run on the CPU launch on a device: here only that they do; values are compared by the harness to come.
TEST(Device, RunsWhatNvrtcMade) {
    if (!cuda_available()) GTEST_SKIP() << cuda_why_not();
    NEED_NVRTC();
    std::string arch = device_info().arch;
    for (const Case& c : cases()) {
        if (c.name != "pointwise") continue;
        CudaSource s = cuda_text(c.name, c.nests);
        Kernel k(nvrtc().compile({s.kernel, s.text}, arch)->image, s.kernel);
        std::vector<DeviceMemory> memory;
        std::vector<void*> pointers, args;
        for (Id id : s.buffers) {
            const Data& d = c.data.at(id);
            std::vector<float> host(d.start.begin(), d.start.end());
            memory.emplace_back(host.size() * sizeof(float));
            memory.back().upload(host.data());
            pointers.push_back(memory.back().data());
        }
        std::int64_t rows = c.sizes.at("R");
        for (void*& p : pointers) args.push_back(&p);
        args.push_back(&rows);
        k.launch(s.blocks(c.sizes), s.threads, 0, nullptr, args.data());
        synchronize(nullptr);
        for (std::size_t b = 0; b < s.buffers.size(); ++b) {
            const Data& d = c.data.at(s.buffers[b]);
            std::vector<float> host(d.start.size());
            memory[b].download(host.data());
            const auto& want = d.end.empty() ? d.start : d.end;
            for (std::size_t i = 0; i < want.size(); ++i) EXPECT_NEAR(host[i], want[i], 1e-5);
        }
    }
}

}  // namespace
}  // namespace heddle::test
