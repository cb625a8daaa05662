// The walk over the nodes; each value is dropped with its last reader, as in Python.
#include "frontends/export/interpret.h"

#include <fmt/format.h>

#include <algorithm>

#include "frontends/capture/recorder.h"

namespace heddle {

namespace {
template <class F>
void each_value(const ExportArg& a, F f) {
    if (a.kind == ExportArg::Kind::value) f(a.value);
    for (const ExportArg& x : a.list) each_value(x, f);
}
ExportStep step(const ExportNode& n, std::optional<at::Device> elsewhere) {
    if (n.target.starts_with("torch.ops.higher_order.")) return higher_order(n, elsewhere);
    if (n.target.starts_with("torch.ops.")) return dispatched(n, elsewhere);
    return arithmetic(n);
}
}  // namespace

const c10::IValue& value_of(const ExportArg& a, const ExportValues& v) {
    if (a.kind == ExportArg::Kind::value) return v[static_cast<std::size_t>(a.value)];
    return a.constant;
}

Interpreter::Interpreter(std::shared_ptr<const ExportGraph> graph, std::optional<at::Device> elsewhere) : graph_(std::move(graph)) {
    std::vector<std::size_t> reader(static_cast<std::size_t>(graph_->values), 0);
    last_.resize(graph_->nodes.size());
    for (std::size_t k = 0; k < graph_->nodes.size(); ++k) {
        const ExportNode& n = graph_->nodes[k];
        steps_.push_back(step(n, elsewhere));
        for (int r : n.results)
            if (r >= 0) reader[static_cast<std::size_t>(r)] = k;
        for (const ExportArg& a : n.args) each_value(a, [&](int v) { reader[static_cast<std::size_t>(v)] = k; });
    }
    for (const ExportArg& a : graph_->outputs) each_value(a, [&](int v) { reader[static_cast<std::size_t>(v)] = last_.size(); });
    for (std::size_t v = 0; v < reader.size(); ++v)
        if (reader[v] < last_.size()) last_[reader[v]].push_back(static_cast<int>(v));
}

std::vector<c10::IValue> Interpreter::operator()(std::vector<c10::IValue> inputs) const {
    const ExportGraph& g = *graph_;
    if (inputs.size() != g.inputs.size()) throw Error(fmt::format("a graph of {} inputs got {}", g.inputs.size(), inputs.size()));
    ExportValues v(static_cast<std::size_t>(g.values));
    for (std::size_t k = 0; k < inputs.size(); ++k)
        if (g.inputs[k] >= 0) v[static_cast<std::size_t>(g.inputs[k])] = std::move(inputs[k]);
    inputs.clear();
    for (std::size_t k = 0; k < steps_.size(); ++k) {
        const ExportNode& n = g.nodes[k];
        std::optional<Scope> scope;
        if (capturing() && !n.module.empty()) scope.emplace(n.module);
        std::vector<c10::IValue> results = steps_[k](v);
        if (results.size() < n.results.size()) throw Error(fmt::format("{}: gave {} results, expected {}", n.target, results.size(), n.results.size()));
        for (std::size_t i = 0; i < n.results.size(); ++i)
            if (n.results[i] >= 0) v[static_cast<std::size_t>(n.results[i])] = std::move(results[i]);
        for (int dead : last_[k]) v[static_cast<std::size_t>(dead)] = {};
    }
    std::vector<c10::IValue> outputs;
    for (const ExportArg& a : g.outputs) {
        if (a.kind == ExportArg::Kind::list) throw Error("an output that is a list isn't supported");
        outputs.push_back(value_of(a, v));
    }
    return outputs;
}

}  // namespace heddle
