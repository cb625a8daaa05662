// Reverse mode: walk the nodes backwards, ask each row for its operands' gradients, add up.
#include "passes/grad.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "passes/calls.h"

namespace heddle {

namespace {
// Sums what reached one value. Scatters into the same shape become one scatter with several groups: one buffer, one pass.
V total(const std::vector<V>& parts) {
    V sum;
    std::vector<V> scatters;
    for (V v : parts) {
        bool merged = false;
        if (v.node().is(Op::scatter_add)) {
            for (V& s : scatters) {
                const Node &a = s.node(), &b = v.node();
                auto k = static_cast<std::size_t>(a.integer("k"));
                if (a.attrs != b.attrs || v.graph->type(a.in[k]) != v.graph->type(b.in[k])) continue;
                std::vector<V> in;
                for (const Node* n : {&a, &b})
                    for (Id i : n->in) in.push_back(v.graph->value(i));
                s = apply(Op::scatter_add, in, Attrs(a.attrs), Type(a.type));
                merged = true;
                break;
            }
            if (!merged) scatters.push_back(v);
        } else {
            sum = sum ? sum + v : v;
        }
    }
    for (V s : scatters) sum = sum ? sum + s : s;
    return sum;
}
}  // namespace

std::vector<char> reached(const Graph& g, const std::vector<char>& from) {
    std::vector<char> through(g.nodes.size()), value(g.nodes.size());
    for (std::size_t k = 0; k < g.inputs.size(); ++k) value[static_cast<std::size_t>(g.inputs[k])] = from[k] && is_float(g.type(g.inputs[k]).dtype);
    for (Id id = 0; id < g.size(); ++id) {
        const Node& n = g[id];
        if (n.is(Op::stop_grad) || n.is(Op::input) || n.flag("no_grad")) continue;
        auto at = static_cast<std::size_t>(id);
        for (Id i : n.in) through[at] |= n.is(Op::result) ? through[static_cast<std::size_t>(i)] : value[static_cast<std::size_t>(i)];
        bool ends = n.is(Op::result) ? ended(g[n.in[0]], n.integer("index")) : n.is(Op::call) && ended(n, 0);
        value[at] = through[at] && is_float(n.type.dtype) && !ends;
    }
    return value;
}
bool ended(const Node& call, int result) {
    if (!call.has("ended")) return false;
    auto which = call.ints("ended");
    return std::find(which.begin(), which.end(), result) != which.end();
}

Joint differentiate(const Graph& forward, const std::vector<char>& wants) {
    Joint j{forward, forward.outputs.size(), {}, {}};
    Graph& g = j.graph;
    const int n = forward.size();
    const std::vector<char> active = reached(forward, wants);
    std::vector<std::vector<V>> parts(static_cast<std::size_t>(n));
    for (Id out : forward.outputs) {
        if (!active[static_cast<std::size_t>(out)]) {
            j.seeds.push_back(-1);
            continue;
        }
        j.seeds.push_back(static_cast<int>(g.inputs.size()));
        Id seed = g.input(forward.type(out), fmt::format("grad_{}", j.seeds.size() - 1));
        parts[static_cast<std::size_t>(out)].push_back(g.value(seed));
    }
    std::vector<V> grad(static_cast<std::size_t>(n));
    std::map<Id, std::vector<V>> of_results;  // of calls with several: the gradients of results 1..
    for (Id id = n - 1; id >= 0; --id) {
        auto& mine = parts[static_cast<std::size_t>(id)];
        auto others = of_results.find(id);
        if ((mine.empty() || !active[static_cast<std::size_t>(id)]) && others == of_results.end()) continue;
        g.here = forward[id].loc;
        V out = mine.empty() ? none() : grad[static_cast<std::size_t>(id)] = total(mine);
        const Node node = forward[id];
        if (node.is(Op::input)) continue;
        if (node.is(Op::result)) {
            auto& all = of_results[node.in[0]];
            all.resize(forward[node.in[0]].more.size());
            all[static_cast<std::size_t>(node.integer("index")) - 1] = out;
            continue;
        }
        std::vector<V> grads;
        if (node.is(Op::call)) {
            std::vector<V> incoming{out};
            incoming.resize(1 + node.more.size());
            if (others != of_results.end()) std::copy(others->second.begin(), others->second.end(), incoming.begin() + 1);
            std::vector<char> wanted;
            for (Id i : node.in) wanted.push_back(active[static_cast<std::size_t>(i)]);
            grads = call_vjp(g, id, incoming, wanted);
        } else {
            HEDDLE_CHECK(node.def().vjp, std::string(node.def().name) + " has no derivative");
            std::vector<V> in;
            for (Id i : node.in) in.push_back(g.value(i));
            grads = node.def().vjp(in, g.value(id), out, node);
        }
        for (std::size_t k = 0; k < node.in.size(); ++k)
            if (grads[k] && active[static_cast<std::size_t>(node.in[k])]) parts[static_cast<std::size_t>(node.in[k])].push_back(grads[k]);
    }
    g.here.clear();
    for (Id i : forward.inputs) {
        V v = grad[static_cast<std::size_t>(i)];
        j.gradients.push_back(v ? static_cast<int>(g.outputs.size()) : -1);
        if (v) g.outputs.push_back(v.id);
    }
    return j;
}

}  // namespace heddle
