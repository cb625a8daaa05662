// From the second process on, both compilers take their binaries from the disk cache, and nothing else changes: the same results, bit
// by bit, also where the entries are broken.
#include <fmt/format.h>
#include <gmock/gmock.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <functional>
#include <random>
#include <string_view>

#include "codegen/cuda/cuda.h"
#include "passes/pipeline.h"
#include "runtime/disk_cache.h"
#include "runtime/executable.h"
#include "runtime/nvrtc.h"
#include "tests/core/arrays.h"
#include "tests/core/compile_once.h"
#include "tests/core/fuzz.h"
#include "tests/core/op_graphs.h"

namespace heddle::test {

namespace fs = std::filesystem;

// What a process compiles: a few rows of the table for the CPU, run; and as CUDA text through NVRTC, not run.
int compile_once() {
    const std::hash<std::string_view> hash;
    Nvrtc nvrtc;
    int kernels = 0, cubins = 0;
    for (Op op : {Op::exp, Op::pow, Op::sum, Op::scan, Op::mod}) {
        const Graph g = op_graph(op, DType::f32);
        const Plan p = plan(g);
        const Executable e(p);
        auto host = plain_host(1);
        std::mt19937 rng(1);
        const Sizes sizes = fuzz::draw_sizes(g, 0);
        std::vector<Array> in;
        for (Id i : g.inputs) in.push_back(to_array(*host, random_tensor(g.type(i), sizes, rng, 0.1, 0.9)));
        Sizes bound = sizes;
        for (const Array& a : e.run(*host, in, bound)) fmt::print("{} {:016x}\n", g.name, hash({static_cast<const char*>(a.data), static_cast<std::size_t>(a.bytes())}));
        for (std::size_t k = 0; k < p.loops.size(); ++k, ++kernels) {
            if (!nvrtc.available()) continue;
            const CudaSource s = cuda_text(p.program.launches[k].name, p.loops[k]);
            const auto b = nvrtc.compile({s.kernel, s.text}, "sm_90");
            // The log tells the time that compiling took, too.
            fmt::print("{} {:016x}, {} lines of log, {} registers\n", s.kernel, hash(b->image), std::count(b->log.begin(), b->log.end(), '\n'), b->resources->registers);
            ++cubins;
        }
    }
    const auto stats = disk_cache() ? disk_cache()->stats() : DiskCache::Stats{};
    fmt::print("\n{} kernels, {} cubins\n{} hits, {} misses, {} stored\n", kernels, cubins, stats.hits, stats.misses, stats.stored);
    return 0;
}

namespace {

struct Process {
    std::string results, counts, cache;
};
Process start(const std::string& environment) {
    Process p;
    std::string out;
    FILE* pipe = ::popen(fmt::format("{} '{}' --compile-once 2>&1", environment, fs::read_symlink("/proc/self/exe").string()).c_str(), "r");
    char buffer[4096];
    while (std::size_t n = pipe ? std::fread(buffer, 1, sizeof buffer, pipe) : 0) out.append(buffer, n);
    EXPECT_EQ(pipe ? ::pclose(pipe) : -1, 0) << out;
    const auto end = out.find("\n\n"), last = out.find('\n', end + 2);
    if (end == std::string::npos || last == std::string::npos) return {out, "", ""};
    return {out.substr(0, end), out.substr(end + 2, last - end - 2), out.substr(last + 1)};
}

TEST(DiskCacheProcess, TheSecondCompilesNothingAndComputesTheSame) {
    const fs::path folder = fs::path(HEDDLE_BUILD) / "cache_test" / fmt::format("processes-{}", ::getpid());
    fs::remove_all(folder);
    const std::string on = fmt::format("HEDDLE_CACHE=1 HEDDLE_CACHE_DIR='{}'", folder.string());
    const Process without = start("HEDDLE_CACHE=0"), first = start(on), second = start(on);
    EXPECT_EQ(without.cache, "0 hits, 0 misses, 0 stored\n");
    int kernels = 0, cubins = 0;
    ASSERT_EQ(std::sscanf(first.counts.c_str(), "%d kernels, %d cubins", &kernels, &cubins), 2) << first.results;
    EXPECT_GE(kernels, 5);
    EXPECT_EQ(cubins, Nvrtc().available() ? kernels : 0);
    const int all = kernels + cubins;
    EXPECT_EQ(first.cache, fmt::format("0 hits, {} misses, {} stored\n", all, all));
    EXPECT_EQ(second.cache, fmt::format("{} hits, 0 misses, 0 stored\n", all));
    EXPECT_EQ(first.results, without.results);
    EXPECT_EQ(second.results, without.results);

    for (const auto& e : fs::directory_iterator(folder)) {  // one bit of each binary
        std::fstream f(e.path(), std::ios::in | std::ios::out | std::ios::binary);
        const auto at = static_cast<std::streamoff>(e.file_size() - e.file_size() / 8);
        f.seekg(at);
        const int c = f.get();
        f.seekp(at);
        f.put(static_cast<char>(c ^ 4));
    }
    const Process broken = start(on), repaired = start(on);
    EXPECT_EQ(broken.cache, first.cache);
    EXPECT_EQ(broken.results, without.results);
    EXPECT_EQ(repaired.cache, second.cache);
    EXPECT_EQ(repaired.results, without.results);

    const Process elsewhere = start("HEDDLE_CACHE=1 HEDDLE_CACHE_DIR=/proc/none");  // no folder can be made there
    EXPECT_EQ(elsewhere.cache, "0 hits, 0 misses, 0 stored\n");
    EXPECT_THAT(elsewhere.results, testing::HasSubstr("heddle: no disk cache: /proc/none: "));
    EXPECT_EQ(elsewhere.results.find("no disk cache"), elsewhere.results.rfind("no disk cache")) << "said once";
    fs::remove_all(folder);
}

}  // namespace
}  // namespace heddle::test
