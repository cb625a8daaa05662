// The pass: looks each call up, coerces what its row gives to the call's own type, and ends gradients where PyTorch does.
#include "frontends/aten.h"

#include <fmt/format.h>

#include <algorithm>
#include <unordered_map>
#include <unordered_set>

#include "frontends/aten_rules.h"
#include "passes/grad.h"

namespace heddle {

namespace {
using aten::Call;
using aten::Results;

// Rows whose op is PyTorch's one to one, from the column .aten of ops.def.
Results one_to_one(const OpDef& d, const Call& c) {
    Type t = c.type();
    if (d.kind != Kind::map || d.arity > 2 || static_cast<int>(c.in.size()) != d.arity) return {};
    bool logical = d.name == "not_" || d.name == "and_" || d.name == "or_" || d.name == "xor_";
    if (!logical && t.dtype == DType::b1) return {};
    std::vector<V> operands;
    for (V v : c.in) operands.push_back(aten::as(v, t));
    return {apply(static_cast<Op>(&d - &def(Op{})), operands)};
}

const std::unordered_map<std::string_view, aten::Rule>& table() {
    static const auto* rows = [] {
        auto* m = new std::unordered_map<std::string_view, aten::Rule>;
        for (auto list : {aten::pointwise_rows, aten::activation_rows, aten::view_rows, aten::reduce_rows, aten::index_rows, aten::make_rows, aten::nn_rows, aten::sample_rows})
            for (const auto& r : list()) HEDDLE_CHECK(m->emplace(r.name, r.rule).second, "two lowerings of " + std::string(r.name));
        return m;
    }();
    return *rows;
}
const std::unordered_map<std::string, const OpDef*>& direct() {
    static const auto* ops = [] {
        auto* m = new std::unordered_map<std::string, const OpDef*>;
        for (int i = 0; i < kOps; ++i)
            if (const OpDef& d = def(static_cast<Op>(i)); !d.aten.empty() && d.kind == Kind::map) m->emplace("aten." + std::string(d.aten) + ".default", &d);
        return m;
    }();
    return *ops;
}

class Lower {
public:
    explicit Lower(const Graph& in) : in_(in), at_(in.nodes.size()), ended_(in.nodes.size()) {
        out_.name = in.name;
    }
    Graph run() {
        for (Id id = 0; id < in_.size(); ++id) {
            const Node& n = in_[id];
            out_.here = n.loc;
            try {
                lower(id, n);
            } catch (const Error& e) {
                std::string what = n.is(Op::call) ? n.text("name") : std::string(n.def().name), line = n.loc.empty() ? "" : n.loc + ": ", text = e.what();
                if (!line.empty() && text.rfind(line, 0) == 0) text = text.substr(line.size());
                throw Error(line + what + ": " + text);
            }
        }
        out_.here.clear();
        for (Id id : in_.inputs) out_.inputs.push_back(at_[static_cast<std::size_t>(id)].id);
        for (Id id : in_.outputs) out_.outputs.push_back(differentiable(id).id);
        return live(out_);
    }

private:
    // The value as a consumer with gradients may take it.
    V differentiable(Id id) {
        auto k = static_cast<std::size_t>(id);
        return ended_[k] && is_float(at_[k].type().dtype) ? stop_grad(at_[k]) : at_[k];
    }
    void lower(Id id, const Node& n) {
        auto k = static_cast<std::size_t>(id);
        bool no_grad = n.flag("no_grad") || (n.is(Op::call) && n.text("name") == "aten.detach.default");
        std::vector<V> operands;
        for (Id i : n.in) operands.push_back(no_grad ? at_[static_cast<std::size_t>(i)] : differentiable(i));
        if (n.is(Op::result)) {
            auto& results = results_.at(n.in[0]);
            at_[k] = results.at(static_cast<std::size_t>(n.integer("index")));
            ended_[k] = ends_.count(n.in[0]) != 0 || (reached_.count(n.in[0]) != 0 && ended(in_[n.in[0]], n.integer("index")));
            return;
        }
        if (n.is(Op::input)) {
            at_[k] = out_.value(out_.add(n));  // run() lists the inputs
            return;
        }
        if (!n.is(Op::call)) {
            Node copy = n;
            for (std::size_t i = 0; i < n.in.size(); ++i) copy.in[i] = operands[i].id;
            at_[k] = out_.value(out_.add(std::move(copy)));
            return;
        }
        Results r = expand_call(n, operands);
        // A value that no operand with gradient reaches has none to end.
        bool reached = false;
        for (std::size_t i = 0; i < n.in.size(); ++i) reached |= is_float(operands[i].type().dtype) && !operands[i].node().is(Op::constant);
        if (reached) reached_.insert(id);
        if (no_grad && reached) ends_.insert(id);
        ended_[k] = reached && (no_grad || ended(n, 0));
        at_[k] = r[0];
        if (!n.more.empty()) results_.emplace(id, std::move(r));
    }
    Results expand_call(const Node& n, const std::vector<V>& operands) {
        Call call{out_, n, operands};
        std::string name = n.text("name");
        Results r;
        if (auto it = table().find(name); it != table().end()) r = it->second(call);
        else if (auto d = direct().find(name); d != direct().end()) r = one_to_one(*d->second, call);
        if (!r.empty()) {
            HEDDLE_CHECK(r.size() == n.more.size() + 1, name + ": lowering gives another number of results");
            for (std::size_t i = 0; i < r.size(); ++i) r[i] = coerce(r[i], call.type(i));
            return r;
        }
        Node copy = n;
        for (std::size_t i = 0; i < operands.size(); ++i) copy.in[i] = operands[i].id;
        std::erase_if(copy.attrs, [](const auto& a) { return a.first == "no_grad" || a.first == "ended"; });
        Id c = out_.add(std::move(copy));
        r.push_back(out_.value(c));
        for (std::size_t i = 0; i < n.more.size(); ++i)
            r.push_back(out_.value(out_.add({.op = Op::result, .in = {c}, .attrs = {{"index", Dim(static_cast<std::int64_t>(i) + 1)}}, .type = {}, .more = {}, .loc = {}})));
        return r;
    }
    static V coerce(V v, const Type& t) {
        v = aten::to(v, t.dtype);
        if (v.type().shape == t.shape) return v;
        throw Error(fmt::format("its operands give {}, expected {}", print(v.type()), print(t)));
    }

    const Graph& in_;
    Graph out_;
    std::vector<V> at_;
    std::vector<char> ended_;
    std::unordered_set<Id> reached_, ends_;  // calls that take a value with a gradient; of these, those that pass none on
    std::unordered_map<Id, Results> results_;
};
}  // namespace

Graph lower_aten(const Graph& g) { return Lower(g).run(); }

std::vector<std::string> unlowered(const Graph& g) {
    std::vector<std::string> names;
    for (const Node& n : g.nodes)
        if (n.is(Op::call) && std::find(names.begin(), names.end(), n.text("name")) == names.end()) names.push_back(n.text("name"));
    return names;
}

std::vector<std::string> lowered_names() {
    std::vector<std::string> names;
    for (const auto& [name, rule] : table()) names.emplace_back(name);
    for (const auto& [name, op] : direct())
        if (!table().count(name)) names.push_back(name);
    std::sort(names.begin(), names.end());
    return names;
}

}  // namespace heddle
