// Random well-typed graphs through every oracle (fuzz_check.cpp); ./test checks 2,100 of them, tools/fuzz as many as minutes allow.
// Law: what fails is made as small as it gets, written to out/fuzz/SEED.hir, and told with the command that runs it again.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <deque>
#include <filesystem>
#include <fstream>
#include <future>
#include <iterator>
#include <map>
#include <mutex>

#include "ir/mutant.h"
#include "ir/text.h"
#include "passes/compact.h"
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
    return fmt::format("{} graphs of {} nodes: gradients of {}, {} against differences, memory of {} plans ({} took more for what launches hold), {} compiled for the CPU, {} as CUDA text on the CPU; {} runs with an empty input, {} values not compared (not finite, or over 1e5), {} at jumps; {} updates, {} of them in place; {} bounded plans",
                       t.graphs, t.nodes, t.gradients, t.differences, t.memory, t.memory_more, t.llvm, t.cuda, t.empty, t.not_finite, t.jumps, t.updates, t.in_place, t.bounded);
}
struct Small {
    Graph graph;
    std::string what, file;
};
Small made_small(const Graph& g, const Failure& failure, By by) {
    // The interpreter's own properties need no compiler when the graph is made smaller.
    const bool compiled = failure.oracle == "compiled" || failure.oracle == "exception", cuda = failure.oracle == "CUDA on the CPU";
    const By with = cuda ? By::all : compiled && by != By::interpreter ? By::llvm : By::interpreter;
    Small s{{}, failure.what, fmt::format("out/fuzz/{}.hir", seed_of(g))};
    s.graph = shrink(g, [&](const Graph& h) {
        Tally unused;
        auto f = check(h, with, unused);
        // An exception that is another one is another failure.
        const bool same = f && f->oracle == failure.oracle && (f->oracle != "exception" || f->what.substr(0, 12) == failure.what.substr(0, 12));
        if (same) s.what = f->what;
        return same;
    }, 60);
    std::filesystem::create_directories("out/fuzz");
    std::ofstream(s.file) << print(s.graph);
    return s;
}
Graph read(const std::string& file) {
    std::ifstream in(file);
    if (!in) throw Error("can't read " + file);
    return parse(std::string(std::istreambuf_iterator<char>(in), {}));
}
void report(const Graph& g, const Failure& failure, By by) {
    const Small s = made_small(g, failure, by);
    ADD_FAILURE() << failure.oracle << ": " << s.what << "\n" << print(s.graph) << "seed " << seed_of(g) << "; run it again:\n  HEDDLE_REPLAY=" << s.file
                  << " build/full/core_tests --gtest_filter=Fuzz.RandomGraphs";
}
struct Seeds {
    unsigned from, count;
    By by;
};
// All of them, on two threads: CUDA text on one, which takes from the rest when it is done. Stops at the first that fails.
bool check_all(const std::vector<Seeds>& seeds, Tally& tally) {
    std::vector<std::pair<unsigned, By>> rest;
    std::vector<unsigned> cuda;
    for (const Seeds& s : seeds)
        for (unsigned seed = s.from; seed < s.from + s.count; ++seed)
            if (s.by == By::all) cuda.push_back(seed);
            else rest.emplace_back(seed, s.by);
    std::mutex mutex;
    std::map<unsigned, std::pair<Failure, By>> failures;
    std::atomic<bool> failed = false;
    std::atomic<std::size_t> next = 0;
    auto one = [&](unsigned seed, By by, Tally& mine) {
        if (auto failure = check(weave(seed), by, mine)) {
            std::lock_guard lock(mutex);
            failures.emplace(seed, std::pair(*failure, by)), failed = true;
        }
    };
    auto take = [&] {
        Tally mine;
        for (std::size_t k; !failed && (k = next++) < rest.size();) one(rest[k].first, rest[k].second, mine);
        return mine;
    };
    auto other = std::async(std::launch::async, take);
    std::deque<Woven> ahead;  // one run of a compiler for many kernels
    std::vector<const Plan*> plans;
    for (unsigned seed : cuda) {
        try {
            const Woven& w = ahead.emplace_back(weave(seed));
            plans.push_back(&w.forward), plans.push_back(&w.backward);
        } catch (const std::exception&) {  // reported below
        }
    }
    cuda_on_cpu::compile_ahead(plans);
    for (unsigned seed : cuda)
        if (!failed) one(seed, By::all, tally);
    tally += take();
    tally += other.get();
    if (failures.empty()) return true;
    const auto& [seed, failure] = *failures.begin();
    report(weave(seed), failure.first, failure.second);
    return false;
}
// The law of memory allows what a launch uses up; were it often taken, fusion would cost memory.
void expect_rare(const Tally& t) {
    EXPECT_LE(t.memory_more * 200, t.memory) << "plans take more memory than their ops one by one, for what launches hold together";
    EXPECT_GE(t.in_place * 4, t.updates) << "hardly any input is written over";
    EXPECT_LE(t.jumps * 200, t.graphs) << "graphs jump, where somebody disagrees";
}
void check_for(double minutes, unsigned seed) {
    const auto start = Clock::now();
    Tally tally;
    fmt::print("fuzz: {} minutes from seed {}\n", minutes, seed);
    for (double shown = 0; since(start) < minutes * 60; seed += 100) {
        if (!check_all({{seed, 5, By::all}, {seed + 5, 20, By::llvm}, {seed + 25, 75, By::interpreter}}, tally)) break;
        if (since(start) - shown < 10) continue;
        shown = since(start);
        fmt::print("{:5.0f} s, seeds up to {}: {}\n", shown, seed + 99, told(tally));
        std::fflush(stdout);
    }
    fmt::print("fuzz: {}\n", told(tally));
    if (tally.graphs >= 1000) expect_rare(tally);
}

TEST(Fuzz, RandomGraphs) {
    if (const char* file = std::getenv("HEDDLE_REPLAY")) {
        const Graph g = read(file);
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
        check_all({{seed, static_cast<unsigned>(variable("HEDDLE_SEEDS", 1)), By::all}}, tally);
    } else {
        check_all({{1, 100, By::all}, {101, 500, By::llvm}, {601, 1500, By::interpreter}}, tally);
        EXPECT_GE(tally.graphs, 2000);
        expect_rare(tally);
    }
    RecordProperty("fuzz_graphs", tally.graphs);
    RecordProperty("summary", fmt::format("fuzz: {}", told(tally)));
    fmt::print("fuzz: seeds from {}: {}; {:.0f} s\n", seed, told(tally), since(start));
}

// Every row of the table is drawn, and every element type is that of an input and of something computed.
TEST(Fuzz, EveryRowIsWoven) {
    std::vector<int> rows(kOps);
    std::map<DType, int> inputs, computed;
    for (unsigned seed = 1; seed <= 2000; ++seed)
        for (const Node& n : compact_rows(weave(seed)).nodes) {  // as masks that stay rows become
            ++rows[static_cast<std::size_t>(n.op)];
            if (n.is(Op::input)) ++inputs[n.type.dtype];
            if (n.kind() == Kind::map) ++computed[n.type.dtype];
        }
    std::string all;
    for (int k = 0; k < kOps; ++k) {
        const std::string_view row = def(static_cast<Op>(k)).name;
        EXPECT_GE(rows[static_cast<std::size_t>(k)], 20) << row;
        all += fmt::format(" {} {}", row, rows[static_cast<std::size_t>(k)]);
    }
    for (DType t : {DType::b1, DType::i32, DType::i64, DType::f16, DType::bf16, DType::f32, DType::f64}) {
        EXPECT_GE(inputs[t], 20) << name(t);
        EXPECT_GE(computed[t], 20) << name(t);
        all += fmt::format(" {} {}+{}", name(t), inputs[t], computed[t]);
    }
    fmt::print("fuzz: rows of 2000 graphs:{}\n", all);
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

// A wrong derivative is found, ends as a few ops in a file, and what the file holds fails again, but no more once the row is right.
TEST(Fuzz, APlantedBugIsFoundShrunkAndReplayed) {
    struct Planted {
        OpDef& row = mutant::row(Op::sigmoid);
        decltype(row.vjp) right = row.vjp;
        Planted() { row.vjp = [](const std::vector<V>&, V out, V g, const Node&) -> std::vector<V> { return {g * out}; }; }
        ~Planted() { row.vjp = right; }
    };
    Tally tally;
    std::optional<Small> small;
    {
        Planted bug;
        for (unsigned seed = 1; seed < 300 && !small; ++seed)
            if (auto failure = check(weave(seed), By::interpreter, tally)) {
                EXPECT_EQ(failure->oracle, "differences");
                small = made_small(weave(seed), *failure, By::interpreter);
            }
        ASSERT_TRUE(small);
        EXPECT_LE(small->graph.size(), 3) << print(small->graph);
        const auto again = check(read(small->file), By::interpreter, tally);
        ASSERT_TRUE(again);
        EXPECT_EQ(again->what, small->what);
    }
    EXPECT_FALSE(check(read(small->file), By::interpreter, tally));
}

}  // namespace
}  // namespace heddle::fuzz
