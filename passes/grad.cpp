// Reverse mode: walk the nodes backwards, ask each row for its operands' gradients, add up.
#include "passes/grad.h"

#include <fmt/format.h>

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

Joint differentiate(const Graph& forward, const std::vector<char>& wants) {
    Joint j{forward, forward.outputs.size(), {}, {}};
    Graph& g = j.graph;
    const int n = forward.size();
    std::vector<char> active(static_cast<std::size_t>(n));
    for (std::size_t i = 0; i < forward.inputs.size(); ++i)
        active[static_cast<std::size_t>(forward.inputs[i])] = wants[i] && is_float(forward.type(forward.inputs[i]).dtype);
    for (Id id = 0; id < n; ++id) {
        if (!is_float(forward.type(id).dtype) || forward[id].is(Op::stop_grad)) continue;
        for (Id i : forward[id].in) active[static_cast<std::size_t>(id)] |= active[static_cast<std::size_t>(i)];
    }
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
    for (Id id = n - 1; id >= 0; --id) {
        auto& mine = parts[static_cast<std::size_t>(id)];
        if (mine.empty() || !active[static_cast<std::size_t>(id)]) continue;
        g.here = forward[id].loc;
        V out = grad[static_cast<std::size_t>(id)] = total(mine);
        const Node node = forward[id];
        if (node.is(Op::input)) continue;
        if (!node.def().vjp)
            throw Error(fmt::format("{}{}: its derivative is not known here", node.loc.empty() ? "" : node.loc + ": ", node.is(Op::call) ? node.text("name") : std::string(node.def().name)));
        std::vector<V> in;
        for (Id i : node.in) in.push_back(g.value(i));
        auto grads = node.def().vjp(in, g.value(id), out, node);
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
