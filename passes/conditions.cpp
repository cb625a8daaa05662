// Paths from each input forwards, as sums of products of names.
#include "passes/conditions.h"

#include <algorithm>

#include "passes/compact.h"
#include "passes/grad.h"

namespace heddle {

namespace {
// Numbers of rows of masks that a branch asked for.
std::set<std::string> guarded(const Graph& g) {
    std::set<Id> masks;
    for (const Node& n : g.nodes)
        if (n.is(Op::call) && n.text("name") == "heddle.guard" && n.number("value") == 1)
            if (const Id mask = any_of(g, n.in[0]); mask >= 0) masks.insert(mask);
    std::set<std::string> names;
    for (const Node& n : g.nodes)
        if (n.is(Op::call) && n.text("name") == "aten.nonzero.default" && masks.contains(n.in[0])) names.insert(print(n.type.shape[0]));
    return names;
}
// One more way; what asks for more than another way adds nothing.
void add(Condition& c, const std::set<std::string>& way) {
    auto within = [](const auto& a, const auto& b) { return std::includes(b.begin(), b.end(), a.begin(), a.end()); };
    if (std::any_of(c.begin(), c.end(), [&](const auto& old) { return within(old, way); })) return;
    std::erase_if(c, [&](const auto& old) { return within(way, old); });
    c.push_back(way);
}
}  // namespace

std::vector<Condition> conditions(const Graph& g, const std::vector<char>& wants) {
    const std::set<std::string> names = guarded(g);
    std::vector<Condition> all(g.inputs.size());
    for (std::size_t k = 0; k < g.inputs.size(); ++k) {
        if (!wants[k]) continue;
        std::vector<char> from(g.inputs.size());
        from[k] = 1;
        const auto on_the_way = reached(g, from);
        std::vector<Condition> ways(g.nodes.size());
        ways[static_cast<std::size_t>(g.inputs[k])] = {{}};
        for (Id id = 0; id < g.size(); ++id) {
            const Node& n = g[id];
            if (!on_the_way[static_cast<std::size_t>(id)] || n.is(Op::input)) continue;
            std::set<std::string> mine;
            std::vector<std::string> sizes;
            for (const Dim& d : n.type.shape) d.names(sizes);
            for (const auto& s : sizes)
                if (names.contains(s)) mine.insert(s);
            for (Id i : n.in)
                for (std::set<std::string> way : ways[static_cast<std::size_t>(i)]) {
                    way.insert(mine.begin(), mine.end());
                    add(ways[static_cast<std::size_t>(id)], way);
                }
        }
        for (Id o : g.outputs)
            for (const auto& way : ways[static_cast<std::size_t>(o)]) add(all[k], way);
    }
    return all;
}

}  // namespace heddle
