// One mask at a time, the last first: what it selects from may itself be rows of another.
#include "passes/masks.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

namespace heddle {

namespace {
struct Kept : std::runtime_error {
    using std::runtime_error::runtime_error;
};

bool mentions(const Dim& d, const std::string& name) {
    std::vector<std::string> names;
    d.names(names);
    return std::find(names.begin(), names.end(), name) != names.end();
}
bool mentions(const Attr& a, const std::string& name) {
    if (auto* d = std::get_if<Dim>(&a)) return mentions(*d, name);
    if (auto* list = std::get_if<std::vector<Dim>>(&a)) return std::any_of(list->begin(), list->end(), [&](const Dim& d) { return mentions(d, name); });
    return false;
}

// Measured on the CPU: at 84 % HexPlane's steps take 9 to 13 % less time at all points, look-ups alone (bench/masks.py) up to 10 % more, and break even
// above 90 %. On a GPU taken from the bytes that kernels move (bench/static.py): there finding rows takes stages that wait for each other, and places
// that go through memory in both directions.
constexpr double kDenseOnCpu = 0.8, kDenseOnGpu = 0.5;

// The share of its places at which a mask held in the example; nothing: not known.
std::optional<double> share(const Graph& g, Id call, const Example& example) {
    const auto rows = example.rows.find(print(g.type(call).shape[0]));
    if (rows == example.rows.end()) return {};
    const Dim all = numel(g.type(g[call].in[0]).shape);
    Sizes sizes = example.sizes;
    for (const auto& [name, n] : example.rows) sizes[name] = n;
    std::vector<std::string> names;
    all.names(names);
    if (!std::all_of(names.begin(), names.end(), [&](const auto& n) { return sizes.contains(n); }) || all.eval(sizes) <= 0) return {};
    return static_cast<double>(rows->second) / static_cast<double>(all.eval(sizes));
}

class Predicates {
public:
    Predicates(const Graph& g, Id call, const Example& example)
        : g_(g), call_(call), example_(example), rows_(print(g.type(call).shape[0])), at_(g.nodes.size()), column_(g.nodes.size(), -1), is_dense_(share(g, call, example).value_or(0) >= dense_from(example.machine)) {}
    bool by_share() const { return by_share_; }  // it decided

    Graph run() {
        out_.name = g_.name;
        for (const auto& ends : {g_.inputs, g_.outputs})
            for (Id i : ends)
                if (rows_axis(i) >= 0) throw Kept("its rows are a result");
        for (Id i : g_.inputs) set(i, out_.value(out_.input(g_.type(i), g_[i].text("name"))));
        for (Id id = 0; id < g_.size(); ++id) {
            if (g_[id].is(Op::input)) continue;
            out_.here = g_[id].loc;
            if (id == call_) mask_of(g_[id]);
            else if (!column(id)) set(id, one(id));
        }
        out_.here.clear();
        for (Id i : g_.outputs) out_.outputs.push_back(at(i).id);
        return live(out_);
    }

private:
    V at(Id id) const {
        const auto& v = at_[static_cast<std::size_t>(id)];
        if (!v) throw Kept("its rows are used as numbers");
        return V{const_cast<Graph*>(&out_), v.id};
    }
    void set(Id id, V v) { at_[static_cast<std::size_t>(id)] = v; }

    void mask_of(const Node& n) {
        V m = at(n.in[0]);
        mask_ = m.type().dtype == DType::b1 ? m : ne(m, zeros_like(m));
        axes_ = mask_.type().shape;
        if (axes_.empty()) throw Kept("the mask is one number");
    }
    int rank() const { return static_cast<int>(axes_.size()); }

    // ---- where the rows are
    // The axis of a value's type that counts rows, or -1.
    int rows_axis(Id id) const {
        int found = -1, all = 0;
        const Shape& s = g_.type(id).shape;
        for (std::size_t k = 0; k < s.size(); ++k)
            if (mentions(s[k], rows_)) found = s[k] == Dim::symbol(rows_) ? static_cast<int>(k) : -2, ++all;
        if (all > 1 || found == -2) throw Kept("its rows are mixed with another axis");
        return found;
    }
    // An axis of a type whose rows are at `rows`, in the type that has the mask's axes there.
    int moved(int axis, int rows) const { return rows >= 0 && axis > rows ? axis + rank() - 1 : axis; }
    std::vector<int> moved(const std::vector<int>& axes, int rows) const {
        std::vector<int> m;
        for (int a : axes) {
            if (a != rows) m.push_back(moved(a, rows));
            else
                for (int k = 0; k < rank(); ++k) m.push_back(a + k);
        }
        return m;
    }
    Type dense(const Type& t, int rows) const {
        Type d = t;
        if (rows < 0) return d;
        d.shape.erase(d.shape.begin() + rows);
        d.shape.insert(d.shape.begin() + rows, axes_.begin(), axes_.end());
        return d;
    }
    // The mask in the shape of a value that has its axes at `rows`.
    V holds(const Shape& s, int rows) {
        std::vector<int> others;
        for (int k = 0; k < static_cast<int>(s.size()); ++k)
            if (k < rows || k >= rows + rank()) others.push_back(k);
        return expand(mask_, others, s);
    }
    // `v` where the mask holds, else c.
    V where(V v, int rows, double c) { return select(holds(v.type().shape, rows), v, like(v, c)); }

    // Columns of the call itself: the mask's coordinates.
    bool column(Id id) {
        const Node& n = g_[id];
        if (n.in.size() != 1) return false;
        int before = column_[static_cast<std::size_t>(n.in[0])], found = -1;
        bool of_call = n.in[0] == call_;
        if (of_call && n.is(Op::slice) && n.integer("axis") == 1 && n.dim("start").is_const() && n.dim("end") == n.dim("start") + 1) found = static_cast<int>(n.dim("start").value());
        else if (of_call && rank() == 1 && n.is(Op::reshape)) found = 0;
        else if (before >= 0 && (n.is(Op::reshape) || (n.is(Op::cast) && is_int(n.type.dtype)))) found = before;
        else return false;
        column_[static_cast<std::size_t>(id)] = found;
        if (n.type.rank() == 1) set(id, iota(out_, {n.type.dtype, axes_}, found));
        return true;
    }
    // Are operands [from, from + k) all the coordinates, in order?
    bool coordinates(const Node& n, std::size_t from, std::size_t k) const {
        bool all = static_cast<int>(k) == rank();
        for (std::size_t i = 0; i < k; ++i) all = all && column_[static_cast<std::size_t>(n.in[from + i])] == static_cast<int>(i) && g_.type(n.in[from + i]).rank() == 1;
        return all;
    }
    bool starts_with_mask(const Shape& s) const { return static_cast<int>(s.size()) >= rank() && std::equal(axes_.begin(), axes_.end(), s.begin()); }
    bool any_rows(const Node& n) const {
        return std::any_of(n.in.begin(), n.in.end(), [&](Id i) { return rows_axis(i) >= 0; });
    }

    // ---- nodes
    V one(Id id) {
        const Node& n = g_[id];
        if (n.is(Op::size) && mentions(n.dim("dim"), rows_)) return number(n, dense(n.type, rows_axis(id)));
        for (const auto& [name, value] : n.attrs)
            if (mentions(value, rows_)) throw Kept(fmt::format("{}: its {} depends on their number", n.def().name, name));
        if (n.is(Op::gather) && coordinates(n, 1, n.in.size() - 1) && rows_axis(n.in[0]) < 0) return gathered(n);
        if (n.is(Op::scatter) && coordinates(n, 1, n.in.size() - 2) && rows_axis(n.in[0]) < 0) return scattered(n);
        if (n.is(Op::scatter_add) && any_rows(n) && rows_axis(id) < 0) return added(n);
        if (n.is(Op::gather) && any_rows(n) && rows_axis(n.in[0]) < 0) return looked_up(n);
        int rows = rows_axis(id);
        if (rows < 0 && !any_rows(n)) return copy(n, n.type, Attrs(n.attrs));
        int from = n.in.empty() ? -1 : rows_axis(n.in[0]);
        Type t = dense(n.type, rows);
        Attrs attrs = n.attrs;
        auto along = [&](int k) {
            if (k == rows) throw Kept(fmt::format("{}: their order matters", n.def().name));
            return Dim(moved(k, rows));
        };
        auto set_attr = [&](const std::string& name, Attr v) {
            for (auto& [k, old] : attrs)
                if (k == name) old = v;
        };
        auto list = [](const std::vector<int>& v) { return std::vector<Dim>(v.begin(), v.end()); };
        switch (n.op) {  // lists ops: how the axes of each are those of its operands
            case Op::constant:
            case Op::size:
            case Op::stop_grad:
            case Op::realize: break;
            case Op::iota:
            case Op::slice:
            case Op::pad:
            case Op::flip:
            case Op::concat: set_attr("axis", along(n.integer("axis"))); break;
            case Op::expand: set_attr("axes", list(moved(n.ints("axes"), rows))); break;
            case Op::permute: {
                std::vector<int> axes;
                for (int a : n.ints("axes"))
                    for (int k : moved(std::vector<int>{a}, from)) axes.push_back(k);
                set_attr("axes", list(axes));
                break;
            }
            case Op::reshape: {
                auto before = [](const Shape& s, int axis) { return numel(Shape(s.begin(), s.begin() + axis)); };
                if (from < 0 || rows < 0 || !(before(g_.type(n.in[0]).shape, from) == before(n.type.shape, rows))) throw Kept("reshape: its rows are mixed with another axis");
                break;
            }
            default:
                if (n.kind() == Kind::fold) return folded(n, from, t, rows);
                if (n.is(Op::scan)) return scanned(n, rows, t);
                if (n.kind() != Kind::map) throw Kept(fmt::format("{} of its rows costs more than arithmetic", n.is(Op::call) ? n.text("name") : std::string(n.def().name)));
        }
        return copy(n, t, std::move(attrs));
    }
    V copy(const Node& n, const Type& t, Attrs attrs) {
        Node m = n;
        m.type = t;
        m.attrs = std::move(attrs);
        for (Id& i : m.in) i = at(i).id;
        return out_.value(out_.add(std::move(m)));
    }
    // A polynomial in sizes, in which the number of rows is how often the mask holds.
    V number(const Node& n, const Type& t) {
        Type scalar{DType::i64, {}};
        V rows = sum(cast(mask_, DType::i64), axes_from_to(0, rank())), total;
        for (const Dim::Term& term : n.dim("dim").terms()) {
            Dim rest = term.coef;
            V product;
            for (const std::string& name : term.names)
                if (name == rows_) product = product ? product * rows : rows;
                else rest = rest * Dim::symbol(name);
            V factor = size(out_, scalar, rest);
            product = product ? product * factor : factor;
            total = total ? total + product : product;
        }
        return expand(cast(total, t.dtype), axes_from_to(0, t.rank()), t.shape);
    }
    V gathered(const Node& n) {
        V x = at(n.in[0]);
        if (x.node().is(Op::realize)) x = out_.value(x.node().in[0]);  // laid out for look-ups
        if (!starts_with_mask(x.type().shape)) throw Kept("gather: the mask has another shape");
        return x;
    }
    // At computed places, as any row is; a place that isn't a row's is 0.
    V looked_up(const Node& n) {
        costs(fmt::format("{} of its rows costs more than arithmetic", n.def().name));
        std::vector<V> places;
        for (std::size_t q = 1; q < n.in.size(); ++q) places.push_back(where(at(n.in[q]), rows_axis(n.in[q]), 0));
        V x = at(n.in[0]);
        has_a_place_0(n, x.type().shape, places.size());
        return gather(x, places);
    }
    void costs(const std::string& what) {
        if (!is_dense_) throw Kept(what);
        by_share_ = true;
    }
    void has_a_place_0(const Node& n, const Shape& table, std::size_t k) const {
        auto positive = [&](const Dim& d) {  // is it a sum of products of what is?
            return !d.terms().empty() && std::all_of(d.terms().begin(), d.terms().end(), [&](const Dim::Term& t) {
                return t.coef > 0 && std::all_of(t.names.begin(), t.names.end(), [&](const auto& name) { return example_.positive.contains(name); });
            });
        };
        if (!std::all_of(table.begin(), table.begin() + static_cast<std::ptrdiff_t>(k), positive)) throw Kept(fmt::format("{}: its table may be empty", n.def().name));
    }
    V scattered(const Node& n) {
        V base = at(n.in[0]), v = at(n.in.back());
        if (!starts_with_mask(base.type().shape)) throw Kept("scatter: the mask has another shape");
        return select(holds(base.type().shape, 0), v, base);
    }
    // Groups at the mask's coordinates are added where it holds; what comes from elsewhere stays a scatter, of rows to computed places too.
    V added(const Node& n) {
        auto k = static_cast<std::size_t>(n.integer("k"));
        std::vector<V> others;
        V total;
        Attrs attrs = n.attrs;
        for (std::size_t q = 0; q < n.in.size(); q += k + 1) {
            if (coordinates(n, q, k) && starts_with_mask(n.type.shape)) {
                V v = where(at(n.in[q + k]), 0, 0);
                total = total ? total + v : v;
                continue;
            }
            for (std::size_t i = q; i <= q + k; ++i) {
                const int rows = rows_axis(n.in[i]);
                if (rows < 0) {
                    others.push_back(at(n.in[i]));
                    continue;
                }
                costs("scatter_add of its rows to computed places costs more than arithmetic");
                has_a_place_0(n, n.type.shape, k);
                others.push_back(where(at(n.in[i]), rows, 0));
                std::erase_if(attrs, [](const auto& a) { return a.first == "unique"; });  // all that isn't a row's is at place 0
            }
        }
        if (others.empty()) return total;
        V rest = apply(Op::scatter_add, others, std::move(attrs), Type(n.type));
        return total ? total + rest : rest;
    }
    // Where rows cost more than arithmetic, a fold within them is 0 where the mask doesn't hold: then nothing needs its loop there.
    V folded(const Node& n, int from, const Type& t, int rows) {
        V x = at(n.in[0]);
        auto axes = n.ints("axes");
        if (std::binary_search(axes.begin(), axes.end(), from)) {
            if (!n.is(Op::sum) && !n.is(Op::prod)) throw Kept(fmt::format("{} of no rows is an error", n.def().name));
            x = where(x, from, n.def().init);
        }
        std::vector<Dim> over;
        for (int a : moved(axes, from)) over.emplace_back(a);
        V all = apply(n.op, {x}, {{"axes", over}}, t);
        return by_share_ && rows >= 0 ? where(all, rows, 0) : all;
    }
    // Along the rows, those that aren't there pass on the state.
    V scanned(const Node& n, int rows, const Type& t) {
        V a = at(n.in[0]), b = at(n.in[1]);
        int axis = n.integer("axis");
        if (axis == rows) {
            if (rank() > 1) throw Kept("scan: their order matters");
            a = where(a, rows, 1), b = where(b, rows, 0);
        }
        Attrs attrs = n.attrs;
        for (auto& [name, v] : attrs)
            if (name == "axis") v = Dim(moved(axis, rows));
        return apply(Op::scan, {a, b}, std::move(attrs), t);
    }

    const Graph& g_;
    Id call_;
    const Example& example_;
    std::string rows_;              // the name of their number
    Graph out_;
    std::vector<V> at_;             // values of g_ in out_, with the mask's axes for rows
    std::vector<int> column_;       // a column of the call: which
    V mask_;
    Shape axes_;                    // of the mask
    const bool is_dense_;
    bool by_share_ = false;
};

Graph with_reason(const Graph& g, Id call, const std::string& why) {
    Graph out = g;
    out.nodes[static_cast<std::size_t>(call)].attrs.emplace_back("kept", why);
    return out;
}
}  // namespace

double dense_from(Machine machine) { return machine == Machine::cuda ? kDenseOnGpu : kDenseOnCpu; }

Masked masks_to_predicates(const Graph& graph, const Example& example) {
    Graph g = graph;
    std::vector<std::string> notes;
    auto next = [&] {
        for (Id id = g.size(); id-- > 0;)
            if (const Node& n = g[id]; n.is(Op::call) && n.text("name") == "aten.nonzero.default" && !n.has("kept")) return id;
        return -1;
    };
    for (Id call = next(); call >= 0; call = next()) {
        const Node& n = g[call];
        std::string note = fmt::format("mask {}{}: ", print(g.type(n.in[0])), n.loc.empty() ? "" : " of " + n.loc);
        const std::optional<double> held = share(g, call, example);
        const std::string places = held ? fmt::format("{:.3g} % of its places hold", 100 * *held) : "";
        try {
            if (!n.type.shape[0].is_symbol()) throw Kept("their number is known");
            Predicates predicates(g, call, example);
            Graph dense = predicates.run();
            note += predicates.by_share() ? "dense: " + places : "predicates: its rows cost no more than arithmetic" + (held ? ", " + places : "");
            g = std::move(dense);
        } catch (const Kept& why) {
            note += fmt::format("rows are found: {}{}", why.what(), held ? ", " + places : "");
            g = with_reason(g, call, why.what());
        }
        notes.push_back(std::move(note));
    }
    return {std::move(g), std::move(notes)};
}

}  // namespace heddle
