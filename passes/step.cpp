// The forward's graph, the backward's over it, Adam over that.
#include "passes/step.h"

#include <fmt/format.h>

#include <set>

namespace heddle {

namespace {
// The nodes of `g` once more in `out`, where its inputs are known.
void put(const Graph& g, Graph& out, std::vector<V>& at, const std::set<Id>& kept = {}) {
    for (Id id = 0; id < g.size(); ++id) {
        if (g[id].is(Op::input)) continue;
        Node n = g[id];
        for (Id& i : n.in) i = at[static_cast<std::size_t>(i)].id;
        V& v = at[static_cast<std::size_t>(id)] = out.value(out.add(std::move(n)));
        if (kept.contains(id)) v = realize(v);
    }
}
// What one direction computes in place and keeps for the other, rather than what it is made of: so it is kept in a step as well. What the caller
// or a library gets is in memory anyway.
std::set<Id> computed_and_kept(const Graph& g, std::size_t outputs) {
    std::set<Id> kept;
    for (std::size_t k = outputs; k < g.outputs.size(); ++k)
        if (g[g.outputs[k]].kind() == Kind::map) kept.insert(g.outputs[k]);
    for (std::size_t k = 0; k < outputs; ++k) kept.erase(g.outputs[k]);
    for (const Node& n : g.nodes)
        if (n.is(Op::dot) || n.is(Op::call))
            for (Id i : n.in) kept.erase(library_operand(g, i).base);
    return kept;
}

// Does an element of `v` need other elements of `x` than the one at its place, by what isn't in memory anyway?
bool needs_neighbours(const Graph& g, Id v, Id x) {
    std::vector<char> seen(2 * g.nodes.size());
    std::vector<std::pair<Id, bool>> open{{v, false}};  // and whether it is at another place by now
    while (!open.empty()) {
        auto [id, moved] = open.back();
        open.pop_back();
        if (std::exchange(seen[2 * static_cast<std::size_t>(id) + moved], 1)) continue;
        const Node& n = g[id];
        if (id == x && moved) return true;
        const bool fold = n.kind() == Kind::fold;
        if (n.is(Op::input) || n.is(Op::realize) || n.kind() == Kind::scan || n.kind() == Kind::scatter || n.kind() == Kind::dot || n.kind() == Kind::call || (fold && !loop::is_small_fold(g, id))) {
            continue;
        }
        for (Id i : n.in) open.emplace_back(i, moved || n.kind() != Kind::map);
    }
    return false;
}

class Adam {
public:
    Adam(V numbers, std::size_t row, const Shape& shape, DType t) : numbers_(numbers), row_(static_cast<std::int64_t>(row)), shape_(shape), type_(t) {}
    // New parameter, exp_avg, exp_avg_sq (, max_exp_avg_sq).
    std::vector<V> operator()(const AdamForm& f, V p, V gradient, V m, V v, V most) const {
        V g = f.maximize ? -gradient : gradient;
        if (f.weight_decay && f.decoupled) p = p * number(kKept);
        if (f.weight_decay && !f.decoupled) g = g + p * number(kDecay);
        m = m + number(kOneMinusBeta1) * (g - m);
        v = v * number(kBeta2) + number(kOneMinusBeta2) * g * g;
        if (f.amsgrad) most = max(most, v);
        V scale = sqrt(f.amsgrad ? most : v) * number(kScale2) + number(kEps);
        p = p - number(kStepSize) * (m / scale);
        std::vector<V> all{p, m, v};
        if (f.amsgrad) all.push_back(most);
        return all;
    }

private:
    V number(int k) const {
        V one = cast(reshape(slice(slice(numbers_, 0, row_, row_ + 1), 1, k, k + 1), {}), type_);
        return expand(one, axes_from_to(0, static_cast<int>(shape_.size())), shape_);
    }
    V numbers_;
    std::int64_t row_;
    const Shape& shape_;
    DType type_;
};
// The numbers of the steps that follow `steps`, which become those.
V numbers_of(V options, V& steps) {
    const Shape rows = steps.type().shape, column{rows[0], 1};
    auto option = [&](AdamOption k) { return reshape(slice(options, 1, k, k + 1), rows); };
    V after = steps + cast(option(kCounts), DType::f32), t = cast(after, DType::f64), beta1 = option(kFirstBeta), beta2 = option(kSecondBeta), lr = option(kRate), one = like(lr, 1);
    steps = realize(after);  // not what the numbers read
    std::vector<V> all(kAdamNumbers);
    all[kStepSize] = lr / (one - pow(beta1, t));
    all[kScale2] = one / sqrt(one - pow(beta2, t));
    all[kOneMinusBeta1] = one - beta1;
    all[kBeta2] = beta2;
    all[kOneMinusBeta2] = one - beta2;
    all[kEps] = option(kEpsilon);
    all[kDecay] = option(kWeightDecay);
    all[kKept] = one - lr * option(kWeightDecay);
    for (V& v : all) v = reshape(v, column);
    return realize(concat(all, 1));
}
}  // namespace

WholeStep whole_step(const Pair& pair, std::size_t outputs, std::size_t loss, const std::vector<Trained>& trained, std::size_t rows, bool counts) {
    const Graph &f = pair.split.forward, &b = pair.split.backward;
    WholeStep w;
    Graph& g = w.graph;
    g.name = f.name.substr(0, f.name.rfind("_forward")) + "_step";
    std::vector<V> at(f.nodes.size()), back(b.nodes.size());
    for (Id i : f.inputs) at[static_cast<std::size_t>(i)] = g.value(g.input(f.type(i), f[i].text("name")));
    const Dim all = static_cast<std::int64_t>(rows);
    V numbers = g.value(g.input({DType::f64, {all, counts ? int{kAdamOptions} : int{kAdamNumbers}}}, "adam")), steps;
    if (counts) steps = g.value(g.input({DType::f32, {all}}, "steps"));
    w.states = g.inputs.size();
    put(f, g, at, computed_and_kept(f, outputs));
    for (std::size_t k = 0; k < outputs; ++k) g.outputs.push_back(at[static_cast<std::size_t>(f.outputs[k])].id);
    if (counts) {
        numbers = numbers_of(numbers, steps);
        w.updates.push_back({static_cast<int>(g.outputs.size()), static_cast<int>(w.states) - 1});
        g.outputs.push_back(steps.id);
    }
    for (std::size_t k = 0; k < b.inputs.size(); ++k) {
        const auto& s = pair.split.backward_inputs[k];
        const Id i = b.inputs[k];
        V& v = back[static_cast<std::size_t>(i)];
        switch (s.from) {
            case Split::Source::From::input: v = at[static_cast<std::size_t>(f.inputs[static_cast<std::size_t>(s.index)])]; break;
            case Split::Source::From::saved: v = at[static_cast<std::size_t>(f.outputs[outputs + static_cast<std::size_t>(s.index)])]; break;
            case Split::Source::From::seed: v = constant(g, b.type(i), static_cast<std::size_t>(s.index) == loss ? 1 : 0); break;
        }
    }
    put(b, g, back);
    for (std::size_t k = 0; k < trained.size(); ++k) {
        const auto input = static_cast<std::size_t>(trained[k].input);
        if (!trained[k].reached) continue;
        const Id parameter = f.inputs[input];
        const Type& t = f.type(parameter);
        const std::string& name = f[parameter].text("name");
        auto state = [&](std::string_view what) { return g.value(g.input(t, fmt::format("{}_{}", name, what))); };
        V p = at[static_cast<std::size_t>(parameter)], m = state("exp_avg"), v = state("exp_avg_sq"), most = trained[k].form.amsgrad ? state("max_exp_avg_sq") : V{};
        const int found = pair.gradients[input];
        V gradient = found < 0 ? zeros_like(p) : back[static_cast<std::size_t>(b.outputs[static_cast<std::size_t>(found)])];
        if (needs_neighbours(g, gradient.id, p.id)) gradient = realize(gradient);  // in memory before the parameter changes
        auto after = Adam(numbers, trained[k].row, t.shape, t.dtype)(trained[k].form, p, gradient, m, v, most);
        const int states = static_cast<int>(g.inputs.size()) - static_cast<int>(after.size()) + 1;
        for (std::size_t s = 0; s < after.size(); ++s) {
            w.updates.push_back({static_cast<int>(g.outputs.size()), s == 0 ? static_cast<int>(input) : states + static_cast<int>(s) - 1});
            g.outputs.push_back(after[s].id);
        }
        w.updated.push_back(k);
    }
    g = live(g);
    return w;
}

}  // namespace heddle
