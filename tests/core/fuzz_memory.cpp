// A plan takes no more memory than the graph it was made of, run op by op, each op a kernel of its own, as the same runtime places it.
// Law: every value of the plan is counted, those of a single launch too; outputs are memory of the caller's in both. All that a plan may hold
// besides is what sums in parts promise (scratch) and, rarely, what its launches hold together: ops one by one free values between them and
// make them when they are read.
#include <algorithm>

#include "passes/memory.h"
#include "tests/core/fuzz.h"

namespace heddle::fuzz {

namespace {
auto at(Id id) { return static_cast<std::size_t>(id); }
bool is_output(const Graph& g, Id id) { return std::find(g.outputs.begin(), g.outputs.end(), id) != g.outputs.end(); }
std::int64_t bytes_of(const Type& t, const Sizes& sizes) { return numel(t.shape).eval(sizes) * bytes(t.dtype); }
std::int64_t aligned(std::int64_t n) { return (n + kAlign - 1) / kAlign * kAlign; }
}  // namespace

Planned planned(const Plan& plan, const Sizes& sizes) {
    const Program& p = plan.program;
    std::vector<int> written(p.graph.nodes.size(), -1);
    for (std::size_t k = 0; k < p.steps.size(); ++k) {
        const Step& s = p.steps[k];
        if (!s.reads.empty()) continue;
        if (s.launch < 0) {
            written[at(s.call)] = static_cast<int>(k);
            continue;
        }
        for (const Nest& n : p.launches[static_cast<std::size_t>(s.launch)].nests)
            for (Id r : n.roots)
                if (p.is_stored(r) && written[at(r)] < 0) written[at(r)] = static_cast<int>(k);
    }
    std::vector<Slot> slots;
    for (Id id = 0; id < p.graph.size(); ++id)
        if (const int first = written[at(id)]; first >= 0 && !is_output(p.graph, id)) slots.push_back({id, first, std::max(first, p.last_use[at(id)]), bytes_of(p.graph.type(id), sizes)});
    std::vector<std::int64_t> held(p.steps.size());  // at each step: what its launch uses up, and what only waits for later steps
    for (const Slot& s : slots)
        for (int k = s.first; k <= s.last; ++k)
            if (k == s.last ? p.steps[static_cast<std::size_t>(k)].launch >= 0 : k > s.first) held[static_cast<std::size_t>(k)] += aligned(s.bytes);
    return {place(slots), held.empty() ? 0 : *std::max_element(held.begin(), held.end())};
}

// Views share memory with what they view, but a library reads dense operands; leaves take none.
std::int64_t unfused(const Graph& g, const Sizes& sizes) {
    std::vector<Id> base(g.nodes.size());
    std::vector<int> last(g.nodes.size(), -1);
    for (Id id = 0; id < g.size(); ++id) {
        const Node& n = g[id];
        const bool view = n.kind() == Kind::view && !n.is(Op::pad) && !n.is(Op::flip) && !n.is(Op::realize);
        base[at(id)] = view ? base[at(n.in[0])] : id;
        last[at(base[at(id)])] = id;
        for (Id i : n.in) last[at(base[at(i)])] = id;
    }
    std::vector<Slot> slots;
    for (Id id = 0; id < g.size(); ++id)
        if (g[id].is(Op::dot))
            for (Id i : g[id].in)
                if (const Id dense = library_operand(g, i).base;
                    base[at(dense)] != dense || (g[dense].kind() == Kind::leaf && !g[dense].is(Op::input))) slots.push_back({dense, id, id, bytes_of(g.type(dense), sizes)});
    for (Id id = 0; id < g.size(); ++id)
        if (base[at(id)] == id && g[id].kind() != Kind::leaf && !is_output(g, id)) slots.push_back({id, id, last[at(id)], bytes_of(g.type(id), sizes)});
    return place(slots);
}

// What a fold may hold besides its result: the result once more in the type it is added up in, and of several axes folded one by one what
// is left after each. A scatter of narrow types adds up in a wider one.
std::int64_t scratch(const Graph& g, const Sizes& sizes) {
    std::int64_t sum = 0;
    for (const Node& n : g.nodes) {
        if (n.is(Op::scatter_add) && bytes(n.type.dtype) < 4) sum += aligned(numel(n.type.shape).eval(sizes) * 4);
        if (n.kind() != Kind::fold) continue;
        sum += aligned(numel(n.type.shape).eval(sizes) * 8);
        Type part = g.type(n.in[0]);
        const auto axes = n.ints("axes");
        for (std::size_t k = axes.size(); k-- > 1;) {
            part.shape.erase(part.shape.begin() + axes[k]);
            sum += aligned(bytes_of(part, sizes));
        }
    }
    return sum;
}

}  // namespace heddle::fuzz
