// Node by node: same op, same operands, same literals; integers that differ become expressions.
#include "frontends/capture/merge.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/equal.h>
#include <fmt/format.h>

#include <algorithm>

namespace heddle {

namespace {
constexpr std::int64_t kLiteral = 64;  // elements up to which a constant tensor is written into the graph

class Merge {
public:
    Merge(const std::vector<Recording>& runs, const std::vector<Sizes>& sizes) : runs_(runs), sizes_(sizes), fit_(runs.size()) {
        for (const auto& [n, v] : sizes[0]) {
            Fit::Values values;
            for (const auto& s : sizes) values.push_back(s.at(n));
            fit_.name(n, values);
        }
    }
    Captured run(std::size_t arguments, const std::string& name);

private:
    const Node& node(std::size_t run, Id id) const { return runs_[run].nodes[static_cast<std::size_t>(id)]; }
    std::string where(Id id) const {
        const Node& n = node(0, id);
        std::string op = n.is(Op::input) ? n.text("name") : n.is(Op::result) ? "result" : n.text("name");
        return (n.loc.empty() ? "capture" : n.loc) + ": " + op;
    }
    std::string sizes_text() const {
        std::string s;
        for (const auto& m : sizes_) {
            std::string one;
            for (const auto& [k, v] : m) one += fmt::format("{}{}={}", one.empty() ? "" : " ", k, v);
            s += (s.empty() ? "" : "; ") + one;
        }
        return s;
    }
    Dim fit(Id id, std::string_view what, const Fit::Values& v) {
        if (auto d = fit_(v)) return *d;
        throw Error(fmt::format("{}: {}: is {} at sizes {}: expected a polynomial in the named sizes; name the size it comes from in CaptureOptions::dynamic",
                                where(id), what, fmt::join(v, ", "), sizes_text()));
    }
    Type type(Id id, int result) {
        Type t = result == 0 ? node(0, id).type : node(0, id).more[static_cast<std::size_t>(result - 1)];
        for (std::size_t k = 0; k < t.shape.size(); ++k) {
            Fit::Values v;
            for (std::size_t r = 0; r < runs_.size(); ++r) {
                const Node& n = node(r, id);
                const Type& u = result == 0 ? n.type : n.more[static_cast<std::size_t>(result - 1)];
                if (u.dtype != t.dtype || u.rank() != t.rank()) differ(id, "rank or element type");
                v.push_back(u.shape[k].value());
            }
            t.shape[k] = fit(id, fmt::format("size of dimension {}", k), v);
        }
        return t;
    }
    [[noreturn]] void differ(Id id, const std::string& what) const {
        throw Error(fmt::format("{}: {} depends on sizes or values: expected the same ops at all sizes; branch on tensors with torch::where, and on sizes outside", where(id), what));
    }
    // Where all runs agree the capture holds as long as a call agrees with them. A quotient or remainder that differs is a size like others.
    void decide(std::size_t k, std::vector<Choice>& all) {
        const Choice& d = runs_[0].choices[k];
        Fit::Values lhs, rhs;
        bool agree = true;
        for (const auto& r : runs_) {
            lhs.push_back(r.choices[k].lhs.value()), rhs.push_back(r.choices[k].rhs.value());
            agree &= r.choices[k].outcome == d.outcome;
        }
        if (!agree && (d.of == Choice::Of::mod || d.of == Choice::Of::div)) return;
        auto a = fit_(lhs), b = fit_(rhs);
        if (!agree || !a || !b) throw Error(fmt::format("{}: Python decides by a size that changes: it's {} at sizes {}", runs_[0].places[k], fmt::join(lhs, ", "), sizes_text()));
        if (!a->is_const() || !b->is_const()) all.push_back({d.of, *a, *b, d.outcome});
    }
    Attr attr(Id id, std::size_t k) {
        const auto& [name, first] = node(0, id).attrs[k];
        auto at = [&](std::size_t r) -> const Attr& { return node(r, id).attrs[k].second; };
        for (std::size_t r = 1; r < runs_.size(); ++r) {
            if (node(r, id).attrs.size() != node(0, id).attrs.size() || node(r, id).attrs[k].first != name || at(r).index() != first.index()) differ(id, "argument " + name);
            if (auto* d = std::get_if<double>(&first); d && print(first) != print(at(r)))
                throw Error(fmt::format("{}: argument {}: is {} and {}: a number that changes is no constant; pass it as a tensor of no dimensions", where(id), name, print(first), print(at(r))));
        }
        if (std::holds_alternative<Dim>(first)) {
            Fit::Values v;
            for (std::size_t r = 0; r < runs_.size(); ++r) v.push_back(std::get<Dim>(at(r)).value());
            return fit(id, "argument " + name, v);
        }
        if (auto* list = std::get_if<std::vector<Dim>>(&first)) {
            std::vector<Dim> out;
            for (std::size_t i = 0; i < list->size(); ++i) {
                Fit::Values v;
                for (std::size_t r = 0; r < runs_.size(); ++r) {
                    const auto& l = std::get<std::vector<Dim>>(at(r));
                    if (l.size() != list->size()) differ(id, "argument " + name);
                    v.push_back(l[i].value());
                }
                out.push_back(fit(id, "argument " + name, v));
            }
            return out;
        }
        for (std::size_t r = 1; r < runs_.size(); ++r)
            if (print(at(r)) != print(first)) differ(id, "argument " + name);
        return first;
    }
    // An input that is another tensor in each run was made by the callable, not by ops: a constant if its values agree.
    bool is_constant(std::size_t k) const {
        const at::Tensor& t = runs_[0].tensors[k];
        bool same = true;
        for (const auto& r : runs_) same &= r.tensors[k].is_same(t);
        if (same) return false;
        at::AutoDispatchBelowADInplaceOrView below;
        for (const auto& r : runs_)
            if (r.tensors[k].sizes() != t.sizes() || r.tensors[k].scalar_type() != t.scalar_type() || !at::equal(r.tensors[k], t))
                throw Error(fmt::format("{}: a tensor made by other means than PyTorch's ops has other values each time: make it outside and pass it as an argument", where(runs_[0].inputs[k])));
        return true;
    }
    Id literal(Graph& g, const at::Tensor& given, const Type& type) {
        at::AutoDispatchBelowADInplaceOrView below;
        at::Tensor t = given.detach().to(at::kCPU).to(is_float(type.dtype) ? at::kDouble : at::kLong).contiguous();
        Node n{.op = Op::call, .in = {}, .attrs = {{"name", "heddle.tensor"}}, .type = type, .more = {}, .loc = {}};
        if (is_float(type.dtype)) n.attrs.emplace_back("values", std::vector<double>(t.data_ptr<double>(), t.data_ptr<double>() + t.numel()));
        else n.attrs.emplace_back("values", std::vector<Dim>(t.data_ptr<std::int64_t>(), t.data_ptr<std::int64_t>() + t.numel()));
        return g.add(std::move(n));
    }

    const std::vector<Recording>& runs_;
    const std::vector<Sizes>& sizes_;
    Fit fit_;
};

Captured Merge::run(std::size_t arguments, const std::string& name) {
    const Recording& first = runs_[0];
    for (const auto& r : runs_)
        for (std::size_t i = 0; i < std::min(r.nodes.size(), first.nodes.size()); ++i) {
            const Node &a = first.nodes[i], &b = r.nodes[i];
            if (a.op != b.op || a.in != b.in || a.more.size() != b.more.size() || (a.is(Op::call) && a.text("name") != b.text("name"))) differ(static_cast<Id>(i), "what runs from here on");
        }
    for (const auto& r : runs_)
        if (r.choices.size() != first.choices.size() || r.nodes.size() != first.nodes.size() || r.outputs != first.outputs || r.written != first.written || r.guards != first.guards)
            differ(first.outputs.empty() ? 0 : first.outputs[0], "what runs");

    Captured c;
    Graph& g = c.graph;
    g.name = name;
    std::vector<Id> at(first.nodes.size(), -1);
    std::vector<int> position(first.inputs.size(), -1);
    std::vector<std::size_t> constants;
    for (std::size_t k = 0; k < first.inputs.size(); ++k) {
        Id id = first.inputs[k];
        const at::Tensor& t = first.tensors[k];
        bool made_inside = k >= arguments && is_constant(k);
        if (made_inside && t.numel() <= kLiteral) {
            constants.push_back(k);
            continue;
        }
        position[k] = static_cast<int>(g.inputs.size());
        at[static_cast<std::size_t>(id)] = g.input(type(id, 0), node(0, id).text("name"));
        if (k < arguments) continue;
        c.implicit.push_back(t);
        c.implicit_requires_grad.push_back(t.requires_grad());
    }
    for (std::size_t k : constants) at[static_cast<std::size_t>(first.inputs[k])] = literal(g, first.tensors[k], type(first.inputs[k], 0));
    int counted = 0;
    for (Id id = 0; id < static_cast<Id>(first.nodes.size()); ++id) {
        if (node(0, id).is(Op::input)) continue;
        if (std::find(first.counted.begin(), first.counted.end(), id) != first.counted.end()) {
            Fit::Values rows;
            for (std::size_t r = 0; r < runs_.size(); ++r) rows.push_back(node(r, id).type.shape[0].value());
            const std::string name = fmt::format("u{}", counted++);
            c.rows[name] = rows[0];
            fit_.name(name, rows);
        }
        Node n = node(0, id);
        for (Id& i : n.in) i = at[static_cast<std::size_t>(i)];
        for (std::size_t k = 0; k < n.attrs.size(); ++k) n.attrs[k].second = attr(id, k);
        n.type = type(id, 0);
        for (std::size_t k = 0; k < n.more.size(); ++k) n.more[k] = type(id, static_cast<int>(k) + 1);
        at[static_cast<std::size_t>(id)] = g.add(std::move(n));
    }
    auto out = [&](Id id) { g.outputs.push_back(at[static_cast<std::size_t>(id)]); };
    for (Id id : first.outputs) out(id);
    c.results = first.outputs.size();
    for (Captured::Origin o : first.origins) {
        if (o.of == Captured::Origin::Of::input) o.index = position[static_cast<std::size_t>(o.index)];
        if (o.index < 0) o = {};  // of a constant
        for (Id& id : o.views) id = at[static_cast<std::size_t>(id)];
        c.origins.push_back(std::move(o));
    }
    c.order = first.order;
    for (const auto& w : first.writes) {
        if (position[static_cast<std::size_t>(w.input)] < 0) continue;
        c.writes.push_back({position[static_cast<std::size_t>(w.input)], static_cast<int>(g.outputs.size()), w.history});
        out(first.written[static_cast<std::size_t>(w.output)]);
    }
    for (Id id : first.guards) out(id);
    c.guards = first.guards.size();
    for (std::size_t k = 0; k < first.choices.size(); ++k) decide(k, c.choices);
    c.quotients = fit_.quotients();
    return c;
}
}  // namespace

Captured merge(const std::vector<Recording>& runs, const std::vector<Sizes>& sizes, std::size_t arguments, const std::string& name) {
    return Merge(runs, sizes).run(arguments, name);
}

}  // namespace heddle
