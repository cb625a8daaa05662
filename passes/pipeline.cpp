// The pipeline as a list.
#include "passes/pipeline.h"

#include "ir/verify.h"
#include "passes/bounded.h"
#include "passes/compact.h"
#include "passes/epilogue.h"
#include "passes/masks.h"
#include "passes/prepare.h"
#include "passes/repeats.h"
#include "passes/simplify.h"

namespace heddle {

namespace {
struct Pass {
    std::string_view name;
    Graph (*run)(const Graph&);
};
// Before the derivative: the smaller the forward, the smaller both directions; layouts are fixed here so that gradients scatter into
// the same rows that the forward gathers, and products of rows that repeat are made one before they have gradients.
constexpr Pass kBefore[] = {{"simplify", simplify}, {"products_once", products_once}, {"rows_contiguous", rows_contiguous}};
// After the derivative: gradients share what they are made of, and what belongs to the rows of a mask (masks_to_predicates, which is told of the
// example); rows that stay are found once, for both directions.
constexpr Pass kBeforeMasks[] = {{"without_stop_grads", without_stop_grads}, {"simplify", simplify}};
constexpr Pass kAfterMasks[] = {{"simplify", simplify}, {"compact_rows", compact_rows}, {"simplify", simplify}};
// After the cut: the derivative's sums and scatters take the forms that nests have; what that leaves is simplified once more. Then it's known what
// a library reads, and so what it had best write.
constexpr Pass kAfter[] = {{"without_stop_grads", without_stop_grads}, {"simplify", simplify}, {"lower_folds", lower_folds}, {"simplify", simplify}, {"epilogues", epilogues}};

template <std::size_t N>
Graph through(const Pass (&passes)[N], Graph g, const Watch& watch) {
    for (const Pass& p : passes) {
        g = p.run(g);
        verify(g, p.name);
        if (watch) watch(p.name, g);
    }
    return g;
}
}  // namespace

Joint joint(const Graph& graph, const std::vector<char>& wants, const Example& example, const Watch& watch, std::vector<std::string>* masks) {
    verify(graph, "capture");
    Joint j = differentiate(through(kBefore, graph, watch), wants);
    verify(j.graph, "differentiate");
    if (watch) watch("differentiate", j.graph);
    Masked m = masks_to_predicates(through(kBeforeMasks, j.graph, watch), example);
    verify(m.graph, "masks_to_predicates");
    if (watch) watch("masks_to_predicates", m.graph);
    if (masks) *masks = std::move(m.notes);
    j.graph = through(kAfterMasks, std::move(m.graph), watch);
    return j;
}

Pair forward_and_backward(const Graph& graph, const std::vector<char>& wants, const Example& example, const Watch& watch, double budget) {
    Pair pair;
    const Joint joint = heddle::joint(graph, wants, example, watch, &pair.masks);
    pair.split = partition(joint, example.sizes, budget);
    verify(pair.split.forward, "partition");
    verify(pair.split.backward, "partition");
    for (int k : joint.seeds) pair.differentiable.push_back(k >= 0);
    for (int k : joint.gradients) {
        pair.gradients.push_back(k < 0 ? -1 : k - static_cast<int>(joint.forward_outputs));
        pair.has_backward |= k >= 0;
    }
    return pair;
}

Plan plan(const Graph& graph, const Watch& watch, const PlanOptions& options) {
    Graph g = through(kAfter, graph, watch);
    Bounded b;
    if (options.bounded) {
        b = bounded(g, options.updates);
        g = std::move(b.graph);
        verify(g, "bounded");
        if (watch) watch("bounded", g);
    }
    Plan p = fuse(g, options.machine, options.updates);
    p.bounds = std::move(b.bounds), p.check = b.check;
    p.deterministic = options.deterministic;
    for (std::size_t k = 0; k < p.loops.size() && options.machine == Machine::cuda; ++k)
        for (std::size_t i = 0; i < p.loops[k].size(); ++i)
            p.program.launches[k].nests[i].schedule = p.loops[k][i].schedule = with_adds(p.loops[k][i], options.deterministic);
    verify(p.program, "fuse");
    return p;
}

}  // namespace heddle
