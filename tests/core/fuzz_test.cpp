// Random well-typed graphs through every oracle (fuzz_check.cpp); ./test checks 1,130 of them, tools/fuzz as many as minutes allow.
// Law: what fails is made as small as it gets, written to out/fuzz/SEED.hir, and told with the command that runs it again.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cstdlib>
#include <deque>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "ir/text.h"
#include "tests/core/fuzz.h"
#include "tests/cuda_on_cpu/launcher.h"

namespace heddle::fuzz {
namespace {

using Clock = std::chrono::steady_clock;
double since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }
double variable(const char* name, double otherwise) {  // HEDDLE_..: see README.md
    const char* s = std::getenv(name);
    return s ? std::strtod(s, nullptr) : otherwise;
}
std::string told(const Tally& t) {
    return fmt::format("{} graphs of {} nodes: gradients of {}, {} against differences, memory of {} plans, {} compiled for the CPU, {} as CUDA text on the CPU; {} runs with an empty input, {} values not compared (not finite, or over 1e5)",
                       t.graphs, t.nodes, t.gradients, t.differences, t.memory, t.llvm, t.cuda, t.empty, t.not_finite);
}
void report(const Graph& g, const Failure& failure, By by) {
    // The interpreter's own properties need no compiler when the graph is made smaller.
    const bool compiled = failure.oracle == "compiled" || failure.oracle == "exception", cuda = failure.oracle == "CUDA on the CPU";
    const By with = cuda ? By::all : compiled && by != By::interpreter ? By::llvm : By::interpreter;
    std::string what = failure.what;
    const Graph small = shrink(g, [&](const Graph& h) {
        Tally unused;
        auto f = check(h, with, unused);
        // An exception that is another one is another failure.
        const bool same = f && f->oracle == failure.oracle && (f->oracle != "exception" || f->what.substr(0, 12) == failure.what.substr(0, 12));
        if (same) what = f->what;
        return same;
    }, 60);
    const std::string file = fmt::format("out/fuzz/{}.hir", seed_of(g));
    std::filesystem::create_directories("out/fuzz");
    std::ofstream(file) << print(small);
    ADD_FAILURE() << failure.oracle << ": " << what << "\n" << print(small) << "seed " << seed_of(g) << "; run it again:\n  HEDDLE_REPLAY=" << file
                  << " build/full/core_tests --gtest_filter=Fuzz.RandomGraphs";
}
// Seeds from .. from+count-1; stops at the first that fails.
bool check_all(unsigned from, unsigned count, By by, Tally& tally) {
    std::deque<Woven> ahead;  // one run of a compiler for many kernels
    std::vector<const Plan*> plans;
    for (unsigned seed = from; by == By::all && seed < from + count; ++seed) {
        try {
            const Woven& w = ahead.emplace_back(weave(seed));
            plans.push_back(&w.forward), plans.push_back(&w.backward);
        } catch (const std::exception&) {  // reported below
        }
    }
    cuda_on_cpu::compile_ahead(plans);
    for (unsigned seed = from; seed < from + count; ++seed) {
        const Graph g = weave(seed);
        const auto failure = check(g, by, tally);
        if (!failure) continue;
        report(g, *failure, by);
        return false;
    }
    return true;
}
void check_for(double minutes, unsigned seed) {
    const auto start = Clock::now();
    Tally tally;
    fmt::print("fuzz: {} minutes from seed {}\n", minutes, seed);
    for (double shown = 0; since(start) < minutes * 60; seed += 100) {
        if (!check_all(seed, 5, By::all, tally) || !check_all(seed + 5, 20, By::llvm, tally) || !check_all(seed + 25, 75, By::interpreter, tally)) break;
        if (since(start) - shown < 10) continue;
        shown = since(start);
        fmt::print("{:5.0f} s, seeds up to {}: {}\n", shown, seed + 99, told(tally));
        std::fflush(stdout);
    }
    fmt::print("fuzz: {}\n", told(tally));
}

TEST(Fuzz, RandomGraphs) {
    if (const char* file = std::getenv("HEDDLE_REPLAY")) {
        std::ifstream in(file);
        ASSERT_TRUE(in) << "can't read " << file;
        const Graph g = parse(std::string(std::istreambuf_iterator<char>(in), {}));
        Tally tally;
        const auto failure = check(g, By::all, tally);
        if (failure) FAIL() << failure->oracle << ": " << failure->what << "\n" << print(g);
        return;
    }
    const auto seed = static_cast<unsigned>(variable("HEDDLE_SEED", 1));
    if (std::getenv("HEDDLE_FUZZ_MINUTES")) return check_for(variable("HEDDLE_FUZZ_MINUTES", 1), seed);
    const auto start = Clock::now();
    Tally tally;
    if (std::getenv("HEDDLE_SEED")) {
        check_all(seed, static_cast<unsigned>(variable("HEDDLE_SEEDS", 1)), By::all, tally);
    } else {
        check_all(1, 60, By::all, tally) && check_all(61, 140, By::llvm, tally) && check_all(201, 930, By::interpreter, tally);
    }
    fmt::print("fuzz: seeds from {}: {}; {:.0f} s\n", seed, told(tally), since(start));
}

// The shrinker finds the one node that a property is about, and what it writes is text of the same graph.
TEST(Fuzz, FailuresShrink) {
    int shrunk = 0;
    for (unsigned seed = 1; seed < 200 && shrunk < 5; ++seed) {
        auto fails = [](const Graph& g) { return std::any_of(g.nodes.begin(), g.nodes.end(), [](const Node& n) { return n.is(Op::atan2); }); };
        const Graph g = weave(seed);
        if (!fails(g)) continue;
        const Graph small = shrink(g, fails, 20);
        EXPECT_LE(small.size(), 3) << print(small);
        EXPECT_EQ(parse(print(small)), small);
        EXPECT_EQ(seed_of(parse(print(small))), seed);
        ++shrunk;
    }
    EXPECT_EQ(shrunk, 5);
}

}  // namespace
}  // namespace heddle::fuzz
