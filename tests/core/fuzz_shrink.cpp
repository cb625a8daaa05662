// A smaller graph of the same failure: outputs are dropped, nodes give way to an operand, a new input or a constant.
#include <chrono>

#include "tests/core/fuzz.h"

namespace heddle::fuzz {

namespace {
// `victim` becomes a value of its type: operand k >= 0 of its own, an input (-1) or a constant (-2).
Graph without(const Graph& g, Id victim, int by) {
    Graph h;
    h.name = g.name;
    std::vector<Id> at(g.nodes.size(), -1);
    for (Id i : g.inputs) at[static_cast<std::size_t>(i)] = h.input(g.type(i), g[i].text("name"));
    if (by == -1) at[static_cast<std::size_t>(victim)] = h.input(g.type(victim), "v" + std::to_string(victim));
    for (Id i = 0; i < g.size(); ++i) {
        Id& to = at[static_cast<std::size_t>(i)];
        if (i == victim && by >= 0) to = at[static_cast<std::size_t>(g[i].in[static_cast<std::size_t>(by)])];
        else if (i == victim && by == -2) to = constant(h, g.type(i), 1).id;
        if (to >= 0) continue;
        Node n = g[i];
        for (Id& j : n.in) j = at[static_cast<std::size_t>(j)];
        to = h.add(std::move(n));
    }
    for (Id o : g.outputs) h.outputs.push_back(at[static_cast<std::size_t>(o)]);
    return h;
}
Graph without_unused(const Graph& all) {
    const Graph g = live(all);
    const auto users = g.users();
    Graph h;
    h.name = g.name;
    std::vector<Id> at(g.nodes.size(), -1);
    for (Id i : g.inputs)
        if (!users[static_cast<std::size_t>(i)].empty() || std::find(g.outputs.begin(), g.outputs.end(), i) != g.outputs.end())
            at[static_cast<std::size_t>(i)] = h.input(g.type(i), g[i].text("name"));
    for (Id i = 0; i < g.size(); ++i) {
        if (g[i].is(Op::input)) continue;
        Node n = g[i];
        for (Id& j : n.in) j = at[static_cast<std::size_t>(j)];
        at[static_cast<std::size_t>(i)] = h.add(std::move(n));
    }
    for (Id o : g.outputs) h.outputs.push_back(at[static_cast<std::size_t>(o)]);
    return h;
}
std::vector<Graph> smaller(const Graph& g) {
    std::vector<Graph> all;
    auto add = [&](Id victim, int by) {
        try {
            all.push_back(without_unused(without(g, victim, by)));
        } catch (const Error&) {  // other results of a call need it
        }
    };
    for (std::size_t k = 0; g.outputs.size() > 1 && k < g.outputs.size(); ++k) {
        Graph h = g;
        h.outputs.erase(h.outputs.begin() + static_cast<std::ptrdiff_t>(k));
        all.push_back(without_unused(h));
    }
    for (Id i = g.size() - 1; i >= 0; --i) {
        if (g.outputs.size() == 1 && g.outputs[0] == i)  // its operand as the output instead
            for (Id j : g[i].in) {
                Graph h = g;
                h.outputs = {j};
                all.push_back(without_unused(h));
            }
        if (g[i].kind() == Kind::leaf) continue;
        for (std::size_t k = 0; k < g[i].in.size(); ++k)
            if (g.type(g[i].in[k]) == g.type(i)) add(i, static_cast<int>(k));
        for (int by : {-2, -1}) add(i, by);
    }
    return all;
}
}  // namespace

Graph shrink(Graph g, const std::function<bool(const Graph&)>& fails, double seconds) {
    const auto start = std::chrono::steady_clock::now();
    auto late = [&] { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() > seconds; };
    for (bool went = true; went && !late();) {
        went = false;
        for (Graph& h : smaller(g)) {
            if (late()) break;
            // Fewer nodes, or as many of which more are leaves: so it ends.
            auto weight = [](const Graph& x) {
                int w = 0;
                for (const Node& n : x.nodes) w += n.kind() == Kind::leaf ? 2 - (n.is(Op::constant) ? 1 : 0) : 4;
                return w + static_cast<int>(x.outputs.size());
            };
            if (weight(h) >= weight(g) || !fails(h)) continue;
            g = std::move(h);
            went = true;
            break;
        }
    }
    return g;
}

}  // namespace heddle::fuzz
