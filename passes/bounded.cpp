// One walk: capacities for numbers of rows where libraries see them.
#include "passes/bounded.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

namespace heddle {

namespace {
class Bounding {
public:
    explicit Bounding(const Graph& g) : g_(g), at_(g.nodes.size(), -1) {
        for (Id id = 0; id < g_.size(); ++id)
            if (g_[id].is(Op::compact)) rows_.insert(print(g_.type(id).shape[0]));
    }
    Bounded run(const std::vector<Update>& updates) {
        out_.name = g_.name;
        for (Id i : g_.outputs)
            if (std::string u = rows_in(g_.type(i).shape); !u.empty())
                throw Error(fmt::format("{}: a result has {} rows, a number that stays in memory: reduce it, or let the host wait", g_.name, u));
        for (Id i : g_.inputs) at_[at(i)] = out_.input(g_.type(i), g_[i].text("name"));
        for (Id id = 0; id < g_.size(); ++id) {
            if (g_[id].is(Op::input)) continue;
            out_.here = g_[id].loc;
            at_[at(id)] = one(id).id;
        }
        out_.here.clear();
        for (Id i : g_.outputs) out_.outputs.push_back(at_[at(i)]);
        Graph g = in_order(updates);
        return {std::move(g), std::move(bounds_), fails_ ? static_cast<int>(g_.outputs.size()) : -1};
    }

private:
    static std::size_t at(Id id) { return static_cast<std::size_t>(id); }
    V now(Id id) { return out_.value(at_[at(id)]); }
    static Dim capacity(const std::string& rows) { return Dim::symbol(rows + "_max"); }
    // The name of a number of rows that a shape has; "" if none.
    std::string rows_in(const Shape& s) const {
        std::vector<std::string> names;
        for (const Dim& d : s) d.names(names);
        auto it = std::find_if(names.begin(), names.end(), [&](const auto& n) { return rows_.contains(n); });
        return it == names.end() ? "" : *it;
    }

    V one(Id id) {
        const Node& n = g_[id];
        if (n.is(Op::compact)) return places(n);
        if (is_guard(n)) return guard(n);
        if (n.is(Op::dot)) return product(n);
        if (n.is(Op::call) || n.is(Op::result)) call(n);
        Node m = n;
        for (Id& i : m.in) i = at_[at(i)];
        return out_.value(out_.add(std::move(m)));
    }
    V places(const Node& n) {
        const std::string u = print(n.type.shape[0]);
        V all = now(n.in[2]);
        Attrs attrs = n.attrs;
        attrs.emplace_back("bounded", true);
        for (std::size_t k = 0; k < bounds_.size(); ++k)
            if (bounds_[k].size == u) {  // captured where two masks have as many rows: where they haven't, nothing holds
                const Counted& c = counted_[k];
                fails_if(ne(all, out_.value(c.all)));
                attrs.emplace_back("cleared", true);
                return apply(Op::compact, {now(n.in[0]), now(n.in[1]), out_.value(c.rows)}, std::move(attrs), Type(n.type));
            }
        V room = size(out_, all.type(), capacity(u)), count = min(all, room);
        const Node& mask = g_[n.in[0]];
        bounds_.push_back({u, u + "_max", numel(mask.is(Op::blocks) ? g_.type(mask.in[0]).shape : mask.type.shape)});
        counted_.push_back({all.id, count.id});
        fails_if(gt(all, room));
        return apply(Op::compact, {now(n.in[0]), now(n.in[1]), count}, std::move(attrs), Type(n.type));
    }

    // ---- what may fail
    void fails_if(V flag) { fails_ = fails_ ? or_(fails_, flag) : flag; }
    V guard(const Node& n) {
        V held = now(n.in[0]), value = cast(held, DType::i64);
        fails_if(ne(value, constant(out_, value.type(), n.number("value"))));
        return held;
    }

    void call(const Node& n) {
        std::string u = rows_in(n.type.shape);
        for (Id i : n.in)
            if (u.empty()) u = rows_in(g_.type(i).shape);
        for (const auto& name : names_in(n))
            if (rows_.contains(name)) u = name;
        const std::string who = n.is(Op::call) ? n.text("name") : "a call";
        if (!u.empty()) throw Error(fmt::format("{}: {} is given {} rows, a number that stays in memory", g_.name, who, u));
    }

    // ---- products
    V product(const Node& n) {
        V a = with_room(now(n.in[0])), b = with_room(now(n.in[1]));
        // A sum over rows takes none that there aren't: each is 0 on one side at least.
        if (!rows_in({g_.type(n.in[0]).shape.back()}).empty() && !ends_in_zeros(a) && !ends_in_zeros(b)) b = with_room(now(n.in[1]), true);
        std::vector<V> in{a, b};
        if (n.in.size() == 3) in.push_back(now(n.in[2]));
        V v = apply(Op::dot, in, Attrs(n.attrs));
        for (std::size_t k = 0; k < n.type.shape.size(); ++k)
            if (!(v.type().shape[k] == n.type.shape[k])) v = slice(v, static_cast<int>(k), 0, n.type.shape[k]);
        return v;
    }
    // What a library reads, with rows up to the capacity, in the form that it lies in memory: zeros, or what another product made of zeros.
    V with_room(V x, bool zeros = false) {
        const std::string u = rows_in(x.type().shape);
        if (u.empty()) return x;
        if (x.node().is(Op::permute)) {
            const std::vector<int> axes = x.node().ints("axes");
            return permute(with_room(out_.value(x.node().in[0]), zeros), axes);
        }
        if (V whole = x.node().is(Op::slice) ? out_.value(x.node().in[0]) : V{}; whole && !zeros && whole.node().is(Op::dot) && rows_in(whole.type().shape).empty()) return whole;
        auto [it, fresh] = roomy_.try_emplace(x.id);
        if (!fresh) return it->second;
        V v = filled(x, u);
        return roomy_[x.id] = v;
    }
    // Are rows past those that there are 0?
    bool ends_in_zeros(V x) {
        const Node& n = x.node();
        if (n.is(Op::permute)) return ends_in_zeros(out_.value(n.in[0]));
        return !n.is(Op::dot) || (n.in.size() == 2 && ends_in_zeros(out_.value(n.in[0])) && ends_in_zeros(out_.value(n.in[1])));
    }
    V filled(V x, const std::string& u) const {
        const Node n = x.node();
        const Shape s = n.type.shape;
        auto axis = std::find(s.begin(), s.end(), Dim::symbol(u));
        if (axis == s.end() || !rows_in(Shape(axis + 1, s.end())).empty())
            throw Error(fmt::format("{}: dot is given {}, in which {} is no size by itself", g_.name, print(n.type), u));
        const int k = static_cast<int>(axis - s.begin());
        const Dim rest = capacity(u) - Dim::symbol(u);
        if (!n.is(Op::concat) || n.integer("axis") == k) return pad(x, k, 0, rest);
        std::vector<V> parts;
        for (Id i : n.in) parts.push_back(pad(x.graph->value(i), k, 0, rest));
        return concat(parts, n.integer("axis"));
    }
    // The graph with what may fail first, so that an update is what it was before wherever it's read. Who else reads what a library reads takes it
    // from there: it's computed once.
    Graph in_order(const std::vector<Update>& updates) const {
        std::map<Id, Id> of;     // what a library reads -> what that is made of
        for (const auto& [x, v] : roomy_) of.emplace(v.id, x);
        std::map<Id, Id> before; // of an update
        for (const Update& u : updates) before.emplace(out_.outputs[at(u.output)], out_.inputs[at(u.input)]);
        std::vector<char> checked(out_.nodes.size());
        if (fails_) checked[at(fails_.id)] = 1;
        for (Id id = out_.size(); id-- > 0;)
            for (Id i : out_[id].in) checked[at(i)] |= checked[at(id)];
        Graph g;
        g.name = out_.name;
        std::vector<Id> now(out_.nodes.size(), -1), whole(out_.nodes.size(), -1);
        V failed;
        auto unless_failed = [&](Id id, Id was) {
            V v = g.value(id), x = g.value(now[at(was)]);
            return select(expand(failed, axes_from_to(0, v.type().rank()), v.type().shape), x, v).id;
        };
        auto put = [&](Id id) {
            Node n = out_[id];
            for (Id& i : n.in) i = now[at(i)];
            g.here = n.loc;
            Id& mine = now[at(id)];
            if (auto it = of.find(id); it != of.end()) {
                mine = whole[at(it->second)];
                return;
            }
            mine = g.add(std::move(n));
            if (auto it = before.find(id); it != before.end() && failed) mine = unless_failed(mine, it->second);
            if (!roomy_.contains(id)) return;
            const std::string u = rows_in(out_.type(id).shape);
            V all = filled(g.value(mine), u);
            whole[at(id)] = all.id;
            const Shape s = out_.type(id).shape;
            mine = slice(all, static_cast<int>(std::find(s.begin(), s.end(), Dim::symbol(u)) - s.begin()), 0, Dim::symbol(u)).id;
        };
        for (Id i : out_.inputs) now[at(i)] = g.input(out_.type(i), out_[i].text("name"));
        for (char first : {1, 0}) {
            for (Id id = 0; id < out_.size(); ++id)
                if (!out_[id].is(Op::input) && checked[at(id)] == first) put(id);
            if (first && fails_) failed = realize(g.value(now[at(fails_.id)]));
        }
        g.here.clear();
        for (Id i : out_.outputs) {
            auto it = before.find(i);
            g.outputs.push_back(fails_ && it != before.end() && checked[at(i)] ? unless_failed(now[at(i)], it->second) : now[at(i)]);
        }
        if (!fails_) return live(g);
        std::vector<V> told{reshape(cast(failed, DType::i64), {1})};
        for (const Counted& c : counted_) told.push_back(reshape(cast(g.value(now[at(c.all)]), DType::i64), {1}));
        g.outputs.push_back(concat(told, 0).id);
        for (std::size_t k = 0; k < g_.outputs.size(); ++k)
            if (is_guard(g_[g_.outputs[k]])) g.outputs[k] = g.outputs.back();
        return live(g);
    }

    const Graph& g_;
    std::vector<Bound> bounds_;
    Graph out_;
    std::vector<Id> at_;
    std::set<std::string> rows_;                // names of numbers of rows
    struct Counted {
        Id all, rows;                           // those that there are, and at most the capacity
    };
    std::vector<Counted> counted_;              // per bound
    V fails_;
    std::map<Id, V> roomy_;
};

}  // namespace

Bounded bounded(const Graph& g, const std::vector<Update>& updates) { return Bounding(g).run(updates); }

}  // namespace heddle
