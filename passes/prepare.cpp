// Layout of gathered tensors; forms of folds and scatters.
#include "passes/prepare.h"

#include <algorithm>
#include <functional>

#include "passes/loop.h"
#include "passes/simplify.h"

namespace heddle {

namespace {
Graph rebuild(const Graph& g, const std::function<V(Graph&, const Node&, const std::vector<V>&)>& f) {
    Graph out;
    out.name = g.name;
    std::vector<V> at(g.nodes.size());
    for (Id i : g.inputs) at[static_cast<std::size_t>(i)] = out.value(out.input(g.type(i), g[i].text("name")));
    for (Id id = 0; id < g.size(); ++id) {
        if (g[id].is(Op::input)) continue;
        Node n = g[id];
        std::vector<V> in;
        for (Id& i : n.in) in.push_back({&out, at[static_cast<std::size_t>(i)].id}), i = in.back().id;
        out.here = n.loc;
        V v = f(out, n, in);
        at[static_cast<std::size_t>(id)] = v ? v : out.value(out.add(std::move(n)));
    }
    out.here.clear();
    for (Id i : g.outputs) out.outputs.push_back(at[static_cast<std::size_t>(i)].id);
    return live(out);
}

// Is the last axis of this view chain another axis of the memory below it?
bool strided_rows(V x) {
    for (;; x = x.graph->value(x.node().in[0])) {
        const Node& n = x.node();
        if (n.is(Op::permute)) {
            auto axes = n.ints("axes");
            return axes.back() != n.type.rank() - 1 && !(n.type.shape.back() == 1);
        }
        if (!n.is(Op::reshape) && !n.is(Op::slice)) return false;
    }
}

V sum_f64(V x, const std::vector<int>& axes) {
    DType t = x.type().dtype;
    if (!is_float(t)) return sum(x, axes);
    return cast(sum(cast(x, DType::f64), axes), t);
}
// A sum of whole numbers over all axes. What is made of a scan is summed up along it first, where it's at hand and not in memory yet.
V count(V x, std::vector<int> axes) {
    std::vector<char> seen(static_cast<std::size_t>(x.graph->size()));
    auto scanned = [&](auto& self, Id id) -> bool {
        const Node& n = (*x.graph)[id];
        if (std::exchange(seen[static_cast<std::size_t>(id)], 1)) return false;
        if (n.is(Op::scan)) return n.integer("axis") == axes.back();
        return n.kind() == Kind::map && std::any_of(n.in.begin(), n.in.end(), [&](Id i) { return self(self, i); });
    };
    if (axes.size() < 2 || !scanned(scanned, x.id)) return sum(x, axes);
    const int along = axes.back();
    axes.pop_back();
    return sum(sum(x, {along}), axes);
}
}  // namespace

Graph rows_contiguous(const Graph& g) {
    std::map<Id, V> laid_out;
    return rebuild(g, [&](Graph&, const Node& n, const std::vector<V>& in) -> V {
        if (!n.is(Op::gather) || static_cast<int>(in.size()) - 1 >= in[0].type().rank() || !strided_rows(in[0])) return {};
        auto [it, fresh] = laid_out.try_emplace(in[0].id);
        if (fresh) it->second = realize(in[0]);
        return gather(it->second, {in.begin() + 1, in.end()});
    });
}

std::vector<std::vector<int>> better_orders(const Graph& graph) {
    const Graph g = simplify(graph);
    std::vector<std::vector<int>> orders(g.inputs.size());
    std::vector<char> several(g.inputs.size());
    for (const Node& n : g.nodes) {
        if (!n.is(Op::gather)) continue;
        V x{const_cast<Graph*>(&g), n.in[0]};
        if (static_cast<int>(n.in.size()) - 1 >= x.type().rank() || !strided_rows(x)) continue;
        // From the view down to the input: which axis of the input each axis longer than 1 is.
        std::vector<std::vector<int>> permutations;
        while (x.node().is(Op::permute) || x.node().is(Op::reshape)) {
            const Node& m = x.node();
            x = x.graph->value(m.in[0]);
            auto longer = [](const Shape& s) {
                std::vector<int> axes;
                for (std::size_t k = 0; k < s.size(); ++k)
                    if (!(s[k] == 1)) axes.push_back(static_cast<int>(k));
                return axes;
            };
            const auto from = longer(x.type().shape), to = longer(m.type.shape);
            std::vector<int> p;
            if (m.is(Op::permute)) {
                for (int a : to) p.push_back(static_cast<int>(std::find(from.begin(), from.end(), m.ints("axes")[static_cast<std::size_t>(a)]) - from.begin()));
            } else {
                bool same = from.size() == to.size();
                for (std::size_t k = 0; same && k < from.size(); ++k) same = x.type().shape[static_cast<std::size_t>(from[k])] == m.type.shape[static_cast<std::size_t>(to[k])];
                if (!same) break;
                p = axes_from_to(0, static_cast<int>(from.size()));
            }
            permutations.push_back(p);
        }
        const auto at = std::find(g.inputs.begin(), g.inputs.end(), x.id);
        if (at == g.inputs.end() || permutations.empty()) continue;
        std::vector<int> order, rest;
        for (int k = 0; k < x.type().rank(); ++k) (x.type().shape[static_cast<std::size_t>(k)] == 1 ? order : rest).push_back(k);
        for (auto p = permutations.rbegin(); p != permutations.rend(); ++p) {
            std::vector<int> next;
            for (int a : *p) next.push_back(rest[static_cast<std::size_t>(a)]);
            rest = next;
        }
        order.insert(order.end(), rest.begin(), rest.end());
        const auto k = static_cast<std::size_t>(at - g.inputs.begin());
        several[k] |= !orders[k].empty() && orders[k] != order;
        orders[k] = order;
    }
    for (std::size_t k = 0; k < orders.size(); ++k)
        if (several[k] || orders[k] == axes_from_to(0, static_cast<int>(orders[k].size()))) orders[k].clear();
    return orders;
}
Graph in_memory_order(const Graph& g, const std::vector<std::vector<int>>& orders) {
    Graph out;
    out.name = g.name;
    std::vector<Id> at(g.nodes.size(), -1);
    for (std::size_t k = 0; k < g.inputs.size(); ++k) {
        Type t = g.type(g.inputs[k]);
        const std::string& name = g[g.inputs[k]].text("name");
        V v;
        if (k >= orders.size() || orders[k].empty()) {
            v = out.value(out.input(t, name));
        } else {
            Type lies{t.dtype, {}};
            for (int a : orders[k]) lies.shape.push_back(t.shape[static_cast<std::size_t>(a)]);
            v = permute(out.value(out.input(lies, name)), inverse(orders[k]));
        }
        at[static_cast<std::size_t>(g.inputs[k])] = v.id;
    }
    for (Id id = 0; id < g.size(); ++id) {
        if (g[id].is(Op::input)) continue;
        Node n = g[id];
        for (Id& i : n.in) i = at[static_cast<std::size_t>(i)];
        at[static_cast<std::size_t>(id)] = out.add(std::move(n));
    }
    for (Id i : g.outputs) out.outputs.push_back(at[static_cast<std::size_t>(i)]);
    return out;
}

Graph without_stop_grads(const Graph& g) {
    return rebuild(g, [](Graph&, const Node& n, const std::vector<V>& in) -> V {
        if (n.is(Op::surrogate)) return in[0];
        return n.is(Op::stop_grad) && !in[0].node().is(Op::input) ? in[0] : V{};  // an output is a value of its own
    });
}

Graph lower_folds(const Graph& g) {
    return rebuild(g, [](Graph&, const Node& n, const std::vector<V>& in) -> V {
        // Threads add up copies of their own, in types that add.
        if (DType t = n.type.dtype; n.is(Op::scatter_add) && !n.flag("unique") && (t == DType::b1 || t == DType::f16 || t == DType::bf16)) {
            DType wide = t == DType::b1 ? DType::i32 : DType::f32;
            std::vector<V> operands = in;
            for (std::size_t k = 0; k < operands.size(); ++k)
                if (k % (static_cast<std::size_t>(n.integer("k")) + 1) == static_cast<std::size_t>(n.integer("k"))) operands[k] = cast(operands[k], wide);
            return cast(apply(Op::scatter_add, operands, Attrs(n.attrs), {wide, n.type.shape}), t);
        }
        if (n.kind() != Kind::fold) return {};
        V x = in[0];
        auto axes = n.ints("axes");
        const Shape& s = x.type().shape;
        Dim few = 1;
        for (int a : axes) few = few * s[static_cast<std::size_t>(a)];
        if (few.is_const() && few.value() <= loop::kSmallFold) return {};
        if (x.type().dtype == DType::b1 && n.type.rank() == 0) {  // any and all of a whole mask: counted
            if (n.is(Op::amax)) return gt(count(cast(x, DType::i64), axes), constant(*x.graph, {DType::i64, {}}, 0));
            if (n.is(Op::amin)) return eq(count(cast(not_(x), DType::i64), axes), constant(*x.graph, {DType::i64, {}}, 0));
        }
        // A row fold keeps its points and runs inside each. Everything else leaves its points: accumulated where that is a sum.
        bool leading = axes.back() == static_cast<int>(axes.size()) - 1;  // folds axes 0..k
        bool whole = n.type.rank() == 0;
        if (n.is(Op::sum) && whole && is_int(n.type.dtype)) return count(x, axes);
        if (n.is(Op::sum) && leading) {
            Dim kept = numel(n.type.shape);
            if (whole || (kept.is_const() && kept.value() <= 4096)) return x.type().dtype == DType::f64 && axes.size() == 1 && !whole ? V{} : sum_f64(x, axes);
        }
        // So does a sum over all of many points that keeps a few numbers, whichever axes they are.
        Dim kept = numel(n.type.shape);
        if (n.is(Op::sum) && kept.is_const() && kept.value() <= 64 && (!few.is_const() || few.value() >= 4096)) return sum_f64(x, axes);
        if (axes.size() == 1) return {};
        V y = x;
        for (std::size_t k = axes.size(); k-- > 0;) y = apply(n.op, {y}, {{"axes", std::vector<Dim>{axes[k]}}});
        return y;
    });
}

}  // namespace heddle
