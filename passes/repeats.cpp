// Two questions to a value, by what it is made of: is it the same along an axis, and what is it without that axis.
#include "passes/repeats.h"

#include <algorithm>
#include <map>
#include <optional>

namespace heddle {

namespace {
constexpr std::int64_t kColumns = 32;  // that repeat, from which a product of their own costs less than its sum with the other

Shape without(Shape s, int axis) {
    s.erase(s.begin() + axis);
    return s;
}
// Axes of a list once `axis`, which is not among them, is gone.
std::vector<int> without(std::vector<int> axes, int axis) {
    for (int& a : axes) a -= a > axis;
    return axes;
}
bool contains(const std::vector<int>& axes, int axis) { return std::find(axes.begin(), axes.end(), axis) != axes.end(); }

// The axis of a node's operand that is this axis of the node; -1: none is.
int below(const Node& n, const Shape& operand, int axis) {
    switch (n.op) {  // lists ops: where axes come from
        case Op::expand: {
            const auto axes = n.ints("axes");
            return contains(axes, axis) ? -1 : axis - static_cast<int>(std::count_if(axes.begin(), axes.end(), [&](int a) { return a < axis; }));
        }
        case Op::permute: return n.ints("axes")[static_cast<std::size_t>(axis)];
        case Op::reshape: {
            auto before = [](const Shape& s, std::size_t k) { return numel(Shape(s.begin(), s.begin() + static_cast<std::ptrdiff_t>(k))); };
            const auto k = static_cast<std::size_t>(axis);
            for (std::size_t a = 0; a < operand.size(); ++a)
                if (operand[a] == n.type.shape[k] && before(operand, a) == before(n.type.shape, k)) return static_cast<int>(a);
            return -1;
        }
        case Op::slice:
        case Op::pad:
        case Op::flip:
        case Op::concat: return n.integer("axis") == axis ? -1 : axis;
        case Op::stop_grad:
        case Op::realize: return axis;
        default: break;
    }
    if (n.kind() == Kind::map) return axis;
    if (n.kind() != Kind::fold) return -1;
    for (int a : n.ints("axes")) axis += a <= axis;
    return axis;
}

class Repeats {
public:
    explicit Repeats(const Graph& g) : g_(g) {}
    Graph run() {
        out_.name = g_.name;
        std::vector<Id> at(g_.nodes.size(), -1);
        for (Id i : g_.inputs) at[static_cast<std::size_t>(i)] = out_.input(g_.type(i), g_[i].text("name"));
        for (Id id = 0; id < g_.size(); ++id) {
            if (g_[id].is(Op::input)) continue;
            Node n = g_[id];
            for (Id& i : n.in) i = at[static_cast<std::size_t>(i)];
            out_.here = n.loc;
            at[static_cast<std::size_t>(id)] = one(std::move(n)).id;
        }
        out_.here.clear();
        for (Id i : g_.outputs) out_.outputs.push_back(at[static_cast<std::size_t>(i)]);
        return live(out_);
    }

private:
    struct Part {                   // some columns of the left operand
        V rows, wide;               // [M, K]; the same as [.., K], if it is a reshape of that
        Dim from;                   // the first of these columns
        std::vector<int> axes;      // of `wide`, along which it is the same
        Dim columns() const { return rows.type().shape[1]; }
        Shape lead() const { return Shape(wide.type().shape.begin(), wide.type().shape.end() - 1); }
    };
    using Parts = std::vector<Part>;

    V one(Node n) {
        if (n.is(Op::dot) && n.type.rank() == 2)
            if (V v = product(out_.value(n.in[0]), out_.value(n.in[1]))) return v;
        if (n.is(Op::reshape))  // of what was reshaped for a product
            if (const Node& m = out_[n.in[0]]; m.is(Op::reshape) && out_.type(m.in[0]).shape == n.type.shape) return out_.value(m.in[0]);
        return out_.value(out_.add(std::move(n)));
    }

    // ---- along an axis
    bool same(V v, int axis) {
        const Node& n = v.node();
        if (n.type.shape[static_cast<std::size_t>(axis)] == 1) return false;  // nothing is gained
        auto [it, fresh] = same_.try_emplace({v.id, axis}, false);
        if (!fresh) return it->second;
        bool all = n.is(Op::constant) || n.is(Op::size) || (n.is(Op::iota) && n.integer("axis") != axis) || (n.is(Op::expand) && contains(n.ints("axes"), axis));
        if (!all && !n.in.empty()) {
            const int a = below(n, out_.type(n.in[0]).shape, axis);
            all = a >= 0 && std::all_of(n.in.begin(), n.in.end(), [&](Id i) { return same(out_.value(i), a); });
        }
        return same_[{v.id, axis}] = all;
    }
    // A value that is the same along an axis, without it.
    V once(V v, int axis) {
        auto it = once_.find({v.id, axis});
        if (it == once_.end()) it = once_.emplace(std::pair(v.id, axis), made_once(v, axis)).first;
        return it->second;
    }
    V made_once(V v, int axis) {
        Node n = v.node();
        auto set = [&](const std::string& name, Attr value) {
            for (auto& [k, old] : n.attrs)
                if (k == name) old = std::move(value);
        };
        auto list = [](const std::vector<int>& axes) { return std::vector<Dim>(axes.begin(), axes.end()); };
        const Shape shape = without(n.type.shape, axis);
        if (n.is(Op::expand)) {
            auto axes = n.ints("axes");
            const int a = below(n, out_.type(n.in[0]).shape, axis);
            std::erase(axes, axis);
            V x = out_.value(n.in[0]);
            return expand(a < 0 ? x : once(x, a), without(axes, axis), shape);
        }
        const int a = n.in.empty() ? -1 : below(n, out_.type(n.in[0]).shape, axis);
        if (n.is(Op::reshape)) return reshape(once(out_.value(n.in[0]), a), shape);
        if (n.is(Op::permute)) {
            auto axes = n.ints("axes");
            axes.erase(axes.begin() + axis);
            return permute(once(out_.value(n.in[0]), a), without(axes, a));
        }
        for (Id& i : n.in) i = once(out_.value(i), a).id;
        if (n.has("axis")) set("axis", Dim(n.integer("axis") - (n.integer("axis") > axis)));
        if (n.kind() == Kind::fold) set("axes", list(without(n.ints("axes"), a)));
        n.type.shape = shape;
        return out_.value(out_.add(std::move(n)));
    }

    // ---- products
    void parts(V rows, Dim& from, Parts& all) {
        const Node& n = rows.node();
        if (n.is(Op::concat) && n.integer("axis") == 1) {
            for (Id i : n.in) parts(out_.value(i), from, all);
            return;
        }
        Part p{rows, rows, from, {}};
        if (V x = n.in.empty() ? V{} : out_.value(n.in[0]); n.is(Op::reshape) && x.type().rank() > 1 && x.type().shape.back() == n.type.shape[1]) p.wide = x;
        for (int k = 0; k + 1 < p.wide.type().rank(); ++k)
            if (same(p.wide, k)) p.axes.push_back(k);
        from = from + p.columns();
        all.push_back(std::move(p));
    }
    static bool alike(const Part& p, const Part& q) { return p.axes == q.axes && (p.axes.empty() || p.lead() == q.lead()); }
    static Dim columns(const Parts& of) {
        Dim sum;
        for (const Part& p : of) sum = sum + p.columns();
        return sum;
    }
    // The rows of b that parts are multiplied by.
    static V rows_of(V b, const Parts& of) {
        std::vector<V> slices;
        for (std::size_t k = 0; k < of.size();) {
            const Dim begin = of[k].from;
            Dim end = begin;
            for (; k < of.size() && of[k].from == end; ++k) end = end + of[k].columns();
            slices.push_back(slice(b, 0, begin, end));
        }
        return slices.size() == 1 ? slices[0] : concat(slices, 0);
    }
    // [M, N], as the shape that parts have.
    V repeated(V b, const Parts& of) {
        Shape lead = of[0].lead();
        for (std::size_t k = of[0].axes.size(); k-- > 0;) lead = without(lead, of[0].axes[k]);
        std::vector<V> pieces;
        for (const Part& p : of) {
            V x = p.wide;
            for (std::size_t k = p.axes.size(); k-- > 0;) x = once(x, p.axes[k]);
            pieces.push_back(reshape(x, {numel(lead), p.columns()}));
        }
        V y = dot(pieces.size() == 1 ? pieces[0] : concat(pieces, 1), rows_of(b, of));
        const Dim n = y.type().shape[1];
        Shape narrow = lead, wide = of[0].lead();
        narrow.push_back(n), wide.push_back(n);
        return expand(reshape(y, narrow), of[0].axes, wide);
    }
    V product(V a, V b) {
        Parts all;
        Dim from;
        parts(a, from, all);
        std::vector<Parts> groups;  // alike, in the order of their first columns
        for (Part& p : all) {
            auto g = std::find_if(groups.begin(), groups.end(), [&](const Parts& q) { return alike(q[0], p); });
            if (g == groups.end()) g = groups.emplace(g);
            g->push_back(p);
        }
        const Shape whole{a.type().shape[0], b.type().shape[1]};
        if (groups.size() == 1) return all[0].axes.empty() ? V{} : reshape(repeated(b, all), whole);
        if (a.type().dtype != DType::f32 && a.type().dtype != DType::f64) return {};
        Parts rest;
        std::vector<V> sums;
        auto pays = [](const Parts& g) {
            const Dim c = columns(g);
            return !g[0].axes.empty() && (!c.is_const() || c.value() >= kColumns);
        };
        for (const Parts& g : groups)
            if (pays(g)) sums.push_back(repeated(b, g));
        if (sums.empty()) return {};
        for (const Part& p : all)
            if (!pays(*std::find_if(groups.begin(), groups.end(), [&](const Parts& q) { return alike(q[0], p); }))) rest.push_back(p);
        const Shape shape = sums[0].type().shape;
        if (!rest.empty()) {
            std::vector<V> rows;
            for (const Part& p : rest) rows.push_back(p.rows);
            sums.insert(sums.begin(), dot(rows.size() == 1 ? rows[0] : concat(rows, 1), rows_of(b, rest)));
        }
        V total;
        for (V v : sums) total = total ? total + reshape(v, shape) : reshape(v, shape);
        return reshape(total, whole);
    }

    const Graph& g_;
    Graph out_;
    std::map<std::pair<Id, int>, bool> same_;
    std::map<std::pair<Id, int>, V> once_;
};
}  // namespace

Graph products_once(const Graph& g) { return Repeats(g).run(); }

}  // namespace heddle
