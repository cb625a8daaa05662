// Every kind of op into every other, and beside it: values and gradients of LLVM and of CUDA text on the CPU are the interpreter's, and
// how many kernels and stages each pair takes stands in a golden file.
// Law: a kind of op that is new in ir/ops.def gets a part in kinds.h; a pair that stops fusing shows in the diff.
#include <fmt/format.h>

#include <set>

#include "tests/core/golden.h"
#include "tests/core/kinds.h"
#include "tests/core/nest_builder.h"

namespace heddle {
namespace {

using namespace kinds;

// Compiled, after all passes: what the graph means before any.
void check(const std::vector<Graph>& graphs) {
    std::vector<Planned> all(graphs.begin(), graphs.end());
    std::vector<const Plan*> plans;
    for (const Planned& p : all) plans.push_back(&p.cuda);
    cuda_on_cpu::compile_ahead(plans);
    for (const Planned& p : all) {
        const cuda_on_cpu::Runner llvm(p.plan, {}), cuda(p.cuda, cuda_on_cpu::target(1));
        for (const Sizes& sizes : {Sizes{{"B", 5}, {"N", 7}}, Sizes{{"B", 1}, {"N", 2}}, Sizes{{"B", 0}, {"N", 3}}}) {
            SCOPED_TRACE(fmt::format("{} at B = {}", p.graph.name, sizes.at("B")));
            std::mt19937 rng(11);
            std::vector<Tensor> in;
            for (Id i : p.graph.inputs) in.push_back(random_tensor(p.graph.type(i), sizes, rng, 0.3, 0.9));
            const auto want = evaluate(p.graph, in, {}, sizes);
            ASSERT_NO_FATAL_FAILURE(cuda_on_cpu::expect_same(want, llvm(in, sizes), "LLVM, output"));
            ASSERT_NO_FATAL_FAILURE(cuda_on_cpu::expect_same(want, cuda(in, sizes), "CUDA on the CPU, output"));
        }
    }
}

class FusionMatrix : public testing::TestWithParam<std::size_t> {};
INSTANTIATE_TEST_SUITE_P(Kinds, FusionMatrix, testing::Range<std::size_t>(0, kCount), [](const auto& i) { return name_of(i.param); });
TEST_P(FusionMatrix, IntoEachOther) {
    NEEDS_LLVM();
    std::vector<Graph> graphs;
    for (const Part& b : kParts) graphs.push_back(into(kParts[GetParam()], b));
    check(graphs);
}
TEST_P(FusionMatrix, BesideEachOther) {
    NEEDS_LLVM();
    std::vector<Graph> graphs;
    for (std::size_t k = GetParam(); k < kCount; ++k) graphs.push_back(beside(kParts[GetParam()], kParts[k]));
    check(graphs);
}
TEST(FusionMatrix, HasAllKinds) {
    std::set<Op> there;
    for (const Part& p : kParts) there.insert(p.op);
    for (int k = 0; k < kOps; ++k) {
        const OpDef& d = def(static_cast<Op>(k));
        const bool of_many = d.kind == Kind::map || d.kind == Kind::fold || d.kind == Kind::leaf || d.kind == Kind::call;
        EXPECT_TRUE(of_many || there.contains(static_cast<Op>(k))) << d.name;
    }
}

// Steps of a direction, and the stages of its launches in all where some wait for others.
std::string kernels(const Graph& half) {
    const Plan p = plan(half);
    std::size_t stages = 0;
    for (const Launch& l : p.program.launches) stages += static_cast<std::size_t>(l.nests.back().stage) + 1;
    const std::size_t steps = p.program.steps.size();
    return stages > p.program.launches.size() ? fmt::format("{}:{}", steps, stages + steps - p.program.launches.size()) : fmt::format("{}", steps);
}
std::string both_ways(const Graph& g) {
    const Pair pair = forward_and_backward(g, {1}, {});
    return kernels(pair.split.forward) + "/" + (pair.has_backward ? kernels(pair.split.backward) : "0");
}
TEST(GoldenFusionMatrix, ComesBack) {
    std::string now = "# Kernels and library calls, forward/backward; 1:3 is one kernel in three stages. What stands left computes x and what stands above reads it; or both read x.\n";
    for (const auto& [title, of] : {std::pair{"into", &into}, {"beside", &beside}}) {
        now += fmt::format("\n# {}\n{:<14}", title, "");
        for (const Part& b : kParts) now += fmt::format("{:>13}", b.name);
        for (const Part& a : kParts) {
            now += fmt::format("\n{:<14}", a.name);
            for (const Part& b : kParts) now += fmt::format("{:>13}", &b < &a && of == &beside ? "" : both_ways(of(a, b, Last::three)));
        }
        now += "\n";
    }
    golden::expect("fusion_matrix.txt", now);
}

}  // namespace
}  // namespace heddle
