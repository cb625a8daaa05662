// Whatever schedule a nest is given, and whatever its sizes, it computes the same: so a schedule can be chosen by speed alone.
// Law: schedules are put on plans by force, those included that heddle would not choose; 2^31 elements are in huge_test.cpp.
#include <fmt/format.h>

#include "codegen/cuda/cuda.h"
#include "tests/core/kinds.h"
#include "tests/core/nest_builder.h"

namespace heddle {
namespace {

using namespace kinds;

// Empty, one element, primes about the widths of vectors, warps and blocks.
const std::vector<Sizes> kSizes{{{"B", 0}, {"N", 3}}, {{"B", 3}, {"N", 0}}, {{"B", 1}, {"N", 1}}, {{"B", 2}, {"N", 31}}, {{"B", 37}, {"N", 2}}, {{"B", 5}, {"N", 131}}};

// A plan whose nests run so as far as they can: lanes along inner loops where there are any.
Plan scheduled(Plan p, const Schedule& s) {
    for (auto& launch : p.loops)
        for (loop::Nest& n : launch) {
            n.schedule = s;
            n.schedule.lanes_inner &= std::any_of(n.phases.begin(), n.phases.end(), [&](const loop::Phase& phase) { return loop::walkable(n, phase); });
            auto ordered = [](const loop::Phase& phase) { return phase.ordered; };
            if (std::any_of(n.phases.begin(), n.phases.end(), ordered))
                n.schedule.group = std::all_of(n.phases.begin(), n.phases.end(), [&](const loop::Phase& phase) { return loop::walkable(n, phase); }) ? std::min(s.group, 32) : 1;
        }
    return p;
}

class EachKind : public testing::TestWithParam<std::size_t> {
protected:
    // The part, and a fold and its use after it, with its derivative: nests of several phases and, for most parts, of several stages.
    const Planned planned{into(kParts[GetParam()], kParts[14], Last::N)};
    void check(const std::vector<Schedule>& schedules, const Target& target) {
        ASSERT_STREQ(kParts[14].name, "mean back");
        std::vector<Plan> plans;
        for (const Schedule& s : schedules) plans.push_back(scheduled(planned.plan, s));
        if (target.launcher) {
            std::vector<const Plan*> all;
            for (const Plan& p : plans) all.push_back(&p);
            cuda_on_cpu::compile_ahead(all);
        }
        std::vector<std::pair<std::vector<Tensor>, std::vector<Tensor>>> cases;
        for (const Sizes& sizes : kSizes) {
            std::mt19937 rng(5);
            std::vector<Tensor> in;
            for (Id i : planned.graph.inputs) in.push_back(random_tensor(planned.graph.type(i), sizes, rng, 0.6, 1.1));
            auto out = evaluate(planned.graph, in, {}, sizes);
            cases.emplace_back(std::move(in), std::move(out));
        }
        for (std::size_t k = 0; k < plans.size(); ++k) {
            const cuda_on_cpu::Runner run(plans[k], target);
            const Schedule& s = schedules[k];
            for (std::size_t i = 0; i < kSizes.size(); ++i) {
                SCOPED_TRACE(fmt::format("lanes {}, width {}, chunk {}, group {} of {} threads; B = {}, N = {}", s.lanes_inner ? "inner" : "outer", s.width, s.chunk, s.group, s.threads,
                                         kSizes[i].at("B"), kSizes[i].at("N")));
                ASSERT_NO_FATAL_FAILURE(cuda_on_cpu::expect_same(cases[i].second, run(cases[i].first, kSizes[i]), "output"));
            }
        }
    }
};
INSTANTIATE_TEST_SUITE_P(Schedules, EachKind, testing::Range<std::size_t>(0, kCount), [](const auto& i) { return name_of(i.param); });

TEST_P(EachKind, OnLlvm) {
    NEEDS_LLVM();
    std::vector<Schedule> all;
    for (bool inner : {false, true})
        for (int width : {1, 4, 8, 16, 32})
            for (int chunk : inner ? std::vector{1, 8, 32} : std::vector{1, 48, 1024})
                all.push_back({.lanes_inner = inner, .width = width, .chunk = chunk});
    check(all, {});
}
TEST_P(EachKind, AsCudaText) {
    std::vector<Schedule> all;
    for (int threads : {32, 256}) {
        all.push_back({.threads = threads});
        for (int group : {1, 2, 16, 32, threads})
            if (group < 32 || group == threads) all.push_back({.lanes_inner = true, .group = group, .threads = threads});
    }
    check(all, cuda_on_cpu::target(3));
}

}  // namespace
}  // namespace heddle
