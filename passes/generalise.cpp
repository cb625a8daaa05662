// Graphs are walked side by side from their outputs, so that nodes which one graph shares and another doesn't are still told apart.
#include "passes/generalise.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>

namespace heddle {

namespace {
using Values = std::vector<std::int64_t>;  // one per graph
using Ids = std::vector<Id>;
struct Side {
    const std::deque<Node>& nodes;
    const std::vector<Id>&inputs, &outputs;
    const Node& operator[](Id id) const { return nodes[static_cast<std::size_t>(id)]; }
};
Side side(const Graph& g) { return {g.nodes, g.inputs, g.outputs}; }

bool equal_numbers(double a, double b) { return std::isnan(a) ? std::isnan(b) : a == b && std::signbit(a) == std::signbit(b); }

// The same but for sizes and the values of constants. What an input is called says nothing.
bool alike(const Attr& a, const Attr& b) {
    if (a.index() != b.index()) return false;
    if (std::holds_alternative<Dim>(a)) return true;
    if (auto* v = std::get_if<std::vector<Dim>>(&a)) return v->size() == std::get<std::vector<Dim>>(b).size();
    return print(a) == print(b);
}
bool alike(const Type& a, const Type& b) { return a.dtype == b.dtype && a.rank() == b.rank(); }
bool alike(const Node& a, const Node& b) {
    if (a.op != b.op || a.in.size() != b.in.size() || a.more.size() != b.more.size() || a.attrs.size() != b.attrs.size() || !alike(a.type, b.type)) return false;
    for (std::size_t k = 0; k < a.more.size(); ++k)
        if (!alike(a.more[k], b.more[k])) return false;
    for (std::size_t k = 0; k < a.attrs.size(); ++k) {
        if (a.attrs[k].first != b.attrs[k].first) return false;
        if (!a.is(Op::input) && !a.is(Op::constant) && !alike(a.attrs[k].second, b.attrs[k].second)) return false;
    }
    return true;
}
bool apart(const Node& n) { return n.is(Op::input) || n.flag("random"); }  // is one thing, however often it's used

// Nodes that belong together, operands first. Nothing where the graphs differ.
std::optional<std::vector<Ids>> together(const std::vector<Side>& sides) {
    std::set<Ids> seen;
    std::vector<Ids> open;
    std::size_t most = 0;
    for (const Side& s : sides) {
        if (s.inputs.size() != sides[0].inputs.size() || s.outputs.size() != sides[0].outputs.size()) return {};
        most = std::max(most, 4 * s.nodes.size() + 64);
    }
    auto meet = [&](auto id_in) {
        Ids ids;
        for (const Side& s : sides) ids.push_back(id_in(s));
        for (std::size_t k = 1; k < sides.size(); ++k)
            if (!alike(sides[0][ids[0]], sides[k][ids[k]])) return false;
        if (seen.insert(ids).second) open.push_back(std::move(ids));
        return seen.size() <= most;
    };
    for (std::size_t k = 0; k < sides[0].inputs.size(); ++k)
        if (!meet([&](const Side& s) { return s.inputs[k]; })) return {};
    for (std::size_t k = 0; k < sides[0].outputs.size(); ++k)
        if (!meet([&](const Side& s) { return s.outputs[k]; })) return {};
    while (!open.empty()) {
        const Ids ids = std::move(open.back());
        open.pop_back();
        for (std::size_t k = 0; k < sides[0][ids[0]].in.size(); ++k) {
            std::size_t s = 0;
            if (!meet([&](const Side& g) { return g[ids[s++]].in[k]; })) return {};
        }
    }
    // What is one thing in one graph is one in all, and random numbers are drawn in one order.
    std::vector<Ids> all(seen.begin(), seen.end());
    for (std::size_t k = 0; k < sides.size(); ++k) {
        std::set<Id> met;
        Id last = -1;
        for (const Ids& ids : all) {
            const Node& n = sides[k][ids[k]];
            if (!apart(n)) continue;
            if (!met.insert(ids[k]).second) return {};
            if (n.is(Op::input)) continue;
            if (ids[k] < last) return {};
            last = ids[k];
        }
    }
    return all;
}

struct Differ {};  // thrown

// The sizes of several graphs as expressions in names.
class Names {
public:
    explicit Names(const std::vector<const Graph*>& graphs) {
        for (const Graph* g : graphs)
            for (const std::string& s : g->symbols()) taken_.insert(s);
    }
    using Known = std::vector<std::pair<Values, Dim>>;
    // `sizes` has one per graph; a coefficient that differs is found among those `near` it, which it may be next to, then among all that are known,
    // or is named.
    Dim operator()(const std::vector<const Dim*>& sizes, const Known& near, bool fresh = false) {
        if (std::all_of(sizes.begin(), sizes.end(), [&](const Dim* d) { return *d == *sizes[0]; })) return *sizes[0];
        std::vector<std::vector<std::string>> monomials;
        for (const Dim* d : sizes)
            for (const auto& t : d->terms())
                if (std::find(monomials.begin(), monomials.end(), t.names) == monomials.end()) monomials.push_back(t.names);
        Dim all;
        for (const auto& names : monomials) {
            Values v;
            for (const Dim* d : sizes) {
                v.push_back(0);
                for (const auto& t : d->terms())
                    if (t.names == names) v.back() = t.coef;
            }
            Dim product = coefficient(v, near, fresh);
            for (const std::string& n : names) product = product * Dim::symbol(n);
            all = all + product;
        }
        return all;
    }
    std::optional<Dim> known(const Values& v) const {
        if (same(v)) return Dim(v[0]);
        for (const auto& [values, d] : known_)
            if (values == v) return d;
        return {};
    }
    void know(const Values& v, const Dim& d) {
        if (!same(v) && !known(v)) known_.emplace_back(v, d);
    }
    std::vector<std::string> names, given;

private:
    static bool same(const Values& v) { return std::all_of(v.begin(), v.end(), [&](std::int64_t x) { return x == v[0]; }); }
    static std::optional<Dim> beside(const Known& all, const Values& v, std::int64_t most) {
        for (std::int64_t far = 0; far <= most; ++far)
            for (const auto& [values, d] : all) {
                const std::int64_t off = v[0] - values[0];
                bool same = std::abs(off) == far;
                for (std::size_t k = 0; k < v.size(); ++k) same &= v[k] - values[k] == off;
                if (same) return d + Dim(off);
            }
        return {};
    }
    Dim coefficient(const Values& v, const Known& near, bool fresh) {
        if (same(v)) return Dim(v[0]);
        if (auto d = beside(near, v, kOff)) return *d;
        if (auto d = known(v)) return *d;
        if (!fresh)
            if (auto d = search(v)) {
                know(v, *d);
                return *d;
            }
        if (std::any_of(v.begin(), v.end(), [](std::int64_t x) { return x < 0; })) throw Differ();
        std::string name;
        do name = fmt::format("s{}", next_++);
        while (taken_.count(name));
        names.push_back(name);
        if (!fresh) given.push_back(name);
        know(v, Dim::symbol(name));
        return known_.back().second;
    }
    // What sizes of a program usually are: one off another, a multiple of one, a product of two.
    std::optional<Dim> search(const Values& v) const {
        auto multiple = [&](const Values& of) -> std::optional<std::int64_t> {
            if (of[0] == 0 || v[0] % of[0] != 0) return {};
            const std::int64_t a = v[0] / of[0];
            for (std::size_t k = 0; k < v.size(); ++k)
                if (a == 0 || a * of[k] != v[k]) return {};
            return a;
        };
        if (auto d = beside(known_, v, kOff)) return d;
        for (const auto& [values, d] : known_)
            if (auto a = multiple(values)) return Dim(*a) * d;
        for (std::size_t i = 0; i < known_.size(); ++i)
            for (std::size_t j = i; j < known_.size(); ++j) {
                Values product;
                for (std::size_t k = 0; k < v.size(); ++k) product.push_back(known_[i].first[k] * known_[j].first[k]);
                if (auto a = multiple(product)) return Dim(*a) * known_[i].second * known_[j].second;
            }
        return {};
    }
    static constexpr std::int64_t kOff = 8;
    Known known_;
    std::set<std::string> taken_;
    int next_ = 0;
};

class Maker {
public:
    explicit Maker(const std::vector<const Graph*>& graphs) : graphs_(graphs), names_(graphs) {}
    General run(const std::vector<Ids>& all, const std::function<bool(std::size_t, std::size_t)>& varies);

private:
    const Node& node(const Ids& ids, std::size_t g) const { return (*graphs_[g])[ids[g]]; }
    template <class F>
    Dim dim(const Ids& ids, F f, bool fresh = false) {
        std::vector<const Dim*> each;
        for (std::size_t g = 0; g < graphs_.size(); ++g) each.push_back(&f(node(ids, g)));
        return names_(each, near_, fresh);
    }
    // One size in all graphs, where it's a number in each.
    template <class F>
    std::optional<Values> values(const Ids& ids, F f) const {
        Values v;
        for (std::size_t g = 0; g < graphs_.size(); ++g) {
            const Dim& d = f(node(ids, g));
            if (!d.is_const()) return {};
            v.push_back(d.value());
        }
        return v;
    }
    Type type(const Ids& ids, std::size_t result) {
        auto of = [&](const Node& n) -> const Type& { return result == 0 ? n.type : n.more[result - 1]; };
        Type t = of(node(ids, 0));
        for (std::size_t d = 0; d < t.shape.size(); ++d) t.shape[d] = dim(ids, [&](const Node& n) -> const Dim& { return of(n).shape[d]; });
        return t;
    }
    void attributes(const Ids& ids, Node& n) {
        for (std::size_t k = 0; k < n.attrs.size(); ++k) {
            Attr& a = n.attrs[k].second;
            if (std::holds_alternative<Dim>(a)) a = dim(ids, [&](const Node& m) -> const Dim& { return std::get<Dim>(m.attrs[k].second); });
            if (auto* list = std::get_if<std::vector<Dim>>(&a))
                for (std::size_t i = 0; i < list->size(); ++i) (*list)[i] = dim(ids, [&](const Node& m) -> const Dim& { return std::get<std::vector<Dim>>(m.attrs[k].second)[i]; });
        }
    }
    // Sizes that an op states, where its operands give some of them.
    Type stated(const Ids& ids, const Node& n, const Graph& g) {
        const Type& x = n.in.empty() ? n.type : g.type(n.in[0]);
        if (n.is(Op::expand)) {
            Type t = n.type;
            const auto axes = n.ints("axes");
            std::size_t from = 0;
            for (std::size_t d = 0; d < t.shape.size(); ++d)
                t.shape[d] = std::find(axes.begin(), axes.end(), static_cast<int>(d)) == axes.end() ? x.shape.at(from++) : dim(ids, [&](const Node& m) -> const Dim& { return m.type.shape[d]; });
            return t;
        }
        if (n.is(Op::reshape)) {  // one size that isn't known follows from the others
            Type t = n.type;
            int open = -1;
            Dim rest = 1;
            for (std::size_t d = 0; d < t.shape.size(); ++d) {
                const auto v = values(ids, [&](const Node& m) -> const Dim& { return m.type.shape[d]; });
                auto found = v ? names_.known(*v) : std::nullopt;
                if (!found && open < 0) {
                    open = static_cast<int>(d);
                    continue;
                }
                t.shape[d] = found ? *found : dim(ids, [&](const Node& m) -> const Dim& { return m.type.shape[d]; });
                rest = rest * t.shape[d];
            }
            if (open >= 0) {
                auto found = numel(x.shape).divided_by(rest);
                const auto d = static_cast<std::size_t>(open);
                t.shape[d] = found ? *found : dim(ids, [&](const Node& m) -> const Dim& { return m.type.shape[d]; });
            }
            return t;
        }
        const bool given = n.kind() == Kind::leaf || n.is(Op::blocks) || n.is(Op::scatter_add) || n.is(Op::compact) || n.is(Op::call);
        return given ? type(ids, 0) : n.type;  // else its rule says
    }
    bool differs(const Ids& ids) const {
        for (std::size_t g = 1; g < graphs_.size(); ++g)
            if (!equal_numbers(node(ids, g).number("value"), node(ids, 0).number("value"))) return true;
        return false;
    }
    const std::vector<const Graph*>& graphs_;
    Names names_;
    Names::Known near_;  // sizes of the operands of the node at hand, along its axis if it has one
};

V number_of(V numbers, int k, const Type& t) {
    V one = cast(reshape(slice(numbers, 0, k, k + 1), {}), t.dtype);
    return expand(one, axes_from_to(0, t.rank()), t.shape);
}

General Maker::run(const std::vector<Ids>& all, const std::function<bool(std::size_t, std::size_t)>& varies) {
    General r;
    Graph& g = r.graph;
    const Graph& first = *graphs_[0];
    g.name = first.name;
    std::vector<Id> made(all.size());
    auto position = [&](const Ids& ids) { return static_cast<Id>(std::lower_bound(all.begin(), all.end(), ids) - all.begin()); };
    auto place = [&](auto id_in) {
        Ids ids;
        for (const Graph* h : graphs_) ids.push_back(id_in(*h));
        return position(ids);
    };
    for (std::size_t k = 0; k < first.inputs.size(); ++k) {
        const Id at = place([&](const Graph& h) { return h.inputs[k]; });
        const Ids& ids = all[static_cast<std::size_t>(at)];
        Type t = node(ids, 0).type;
        for (std::size_t d = 0; d < t.shape.size(); ++d) {
            const Dim size = dim(ids, [&](const Node& n) -> const Dim& { return n.type.shape[d]; }, true);
            if (!(size == t.shape[d]) && !varies(k, d)) throw Differ();
            t.shape[d] = size;
        }
        made[static_cast<std::size_t>(at)] = g.input(t, node(ids, 0).text("name"));
        r.inputs.push_back(at);
    }
    for (const Ids& ids : all) {
        if (!node(ids, 0).is(Op::constant) || !differs(ids)) continue;
        const DType t = node(ids, 0).type.dtype;
        if (t != DType::f32 && t != DType::f64 && !is_int(t)) throw Differ();
        ++r.numbers;
    }
    V numbers = r.numbers == 0 ? none() : g.value(g.input({DType::f64, {static_cast<std::int64_t>(r.numbers)}}, "numbers"));
    int next = 0;
    for (std::size_t at = 0; at < all.size(); ++at) {
        const Ids& ids = all[at];
        Node n = node(ids, 0);
        Ids operands;
        for (std::size_t k = 0; k < n.in.size(); ++k) {
            std::size_t s = 0;
            operands.push_back(place([&](const Graph& h) { return h[ids[s++]].in[k]; }));
            n.in[k] = made[static_cast<std::size_t>(operands.back())];
        }
        near_.clear();
        for (std::size_t k = 0; k < operands.size(); ++k) {
            const Ids& from = all[static_cast<std::size_t>(operands[k])];
            const Shape& shape = g.type(n.in[k]).shape;
            for (std::size_t d = 0; d < shape.size(); ++d)
                if (n.has("axis") && n.integer("axis") != static_cast<int>(d)) continue;
                else if (const auto v = values(from, [&](const Node& m) -> const Dim& { return m.type.shape[d]; }); v && !shape[d].is_const()) near_.emplace_back(*v, shape[d]);
        }
        r.number.push_back(-1);
        if (n.is(Op::constant) && differs(ids)) {
            r.number.back() = next;
            n.type = type(ids, 0);
            made[at] = number_of(numbers, next++, n.type).id;
        } else if (!n.is(Op::input)) {
            attributes(ids, n);
            n.type = stated(ids, n, g);
            for (std::size_t k = 0; k < n.more.size(); ++k) n.more[k] = type(ids, k + 1);
            made[at] = g.add(n);
        }
        n.in = std::move(operands);
        n.type = g.type(made[at]);
        for (std::size_t d = 0; d < n.type.shape.size(); ++d) {
            if (const auto v = values(ids, [&](const Node& m) -> const Dim& { return m.type.shape[d]; })) names_.know(*v, n.type.shape[d]);
        }
        r.nodes.push_back(std::move(n));
    }
    for (std::size_t k = 0; k < first.outputs.size(); ++k) {
        r.outputs.push_back(place([&](const Graph& h) { return h.outputs[k]; }));
        g.outputs.push_back(made[static_cast<std::size_t>(r.outputs.back())]);
    }
    r.names = names_.names, r.given = names_.given;
    return r;
}

// Values of names, told from one graph's sizes.
class Bound {
public:
    explicit Bound(const std::vector<std::string>& names) : open_(names.begin(), names.end()) {}
    // Where `general` has one name without a value, that is what makes it equal to `size`.
    void learn(const Dim& general, const Dim& size) {
        if (open_.empty() || general == size) return;
        const Dim d = general.substitute(values_);
        std::vector<std::string> used, mine;
        d.names(used);
        for (const auto& n : used)
            if (open_.count(n)) mine.push_back(n);
        if (mine.size() != 1) return;
        for (const auto& t : d.terms()) {
            if (std::count(t.names.begin(), t.names.end(), mine[0]) != 1) continue;
            std::vector<std::string> others = t.names;
            others.erase(std::find(others.begin(), others.end(), mine[0]));
            const std::int64_t rest = coefficient(size, others) - coefficient(d, others);
            if (rest % t.coef != 0 || rest / t.coef < 0) return;
            values_.emplace(mine[0], Dim(rest / t.coef));
            open_.erase(mine[0]);
            return;
        }
    }
    bool equal(const Dim& general, const Dim& size) const { return general == size || general.substitute(values_) == size; }
    bool complete() const { return open_.empty(); }
    Sizes sizes() const {
        Sizes s;
        for (const auto& [name, value] : values_) s[name] = value.value();
        return s;
    }

private:
    static std::int64_t coefficient(const Dim& d, const std::vector<std::string>& names) {
        for (const auto& t : d.terms())
            if (t.names == names) return t.coef;
        return 0;
    }
    std::map<std::string, Dim> values_;
    std::set<std::string> open_;
};

// Calls f(general size, size) for all of a node.
template <class F>
void each_size(const Node& a, const Node& b, F f) {
    auto shapes = [&](const Shape& s, const Shape& t) {
        for (std::size_t d = 0; d < s.size(); ++d) f(s[d], t[d]);
    };
    shapes(a.type.shape, b.type.shape);
    for (std::size_t k = 0; k < a.more.size(); ++k) shapes(a.more[k].shape, b.more[k].shape);
    for (std::size_t k = 0; k < a.attrs.size() && !a.is(Op::constant) && !a.is(Op::input); ++k) {
        const Attr &x = a.attrs[k].second, &y = b.attrs[k].second;
        if (auto* d = std::get_if<Dim>(&x)) f(*d, std::get<Dim>(y));
        if (auto* l = std::get_if<std::vector<Dim>>(&x)) shapes(*l, std::get<std::vector<Dim>>(y));
    }
}
}  // namespace

std::optional<Binding> bind(const General& general, const Graph& g) {
    const Side of{general.nodes, general.inputs, general.outputs};
    const auto all = together({of, side(g)});
    if (!all) return {};
    std::vector<std::string> names = general.names;  // and others that have a number in `g`
    const auto theirs = g.symbols();
    for (const std::string& n : general.graph.symbols())
        if (std::find(theirs.begin(), theirs.end(), n) == theirs.end()) names.push_back(n);
    Bound bound(names);
    for (std::size_t k = 0; k < g.inputs.size(); ++k) each_size(of[general.inputs[k]], g[g.inputs[k]], [&](const Dim& d, const Dim& size) { bound.learn(d, size); });
    for (const Ids& ids : *all) each_size(of[ids[0]], g[ids[1]], [&](const Dim& d, const Dim& size) { bound.learn(d, size); });
    if (!bound.complete()) return {};
    Binding b;
    std::vector<std::optional<double>> numbers(general.numbers);
    for (const Ids& ids : *all) {
        bool same = true;
        each_size(of[ids[0]], g[ids[1]], [&](const Dim& d, const Dim& size) { same = same && bound.equal(d, size); });
        if (!same) return {};
        if (!of[ids[0]].is(Op::constant)) continue;
        const double value = g[ids[1]].number("value");
        const int k = general.number[static_cast<std::size_t>(ids[0])];
        std::optional<double> known = k < 0 ? of[ids[0]].number("value") : numbers[static_cast<std::size_t>(k)];
        if (known && !equal_numbers(*known, value)) return {};
        if (k >= 0) numbers[static_cast<std::size_t>(k)] = value;
    }
    b.sizes = bound.sizes();
    if (std::any_of(general.names.begin(), general.names.end(), [&](const auto& n) { return b.sizes.at(n) < 1; })) return {};
    for (const auto& n : numbers) b.numbers.push_back(n.value_or(0));
    return b;
}

std::optional<General> generalise(const std::vector<const Graph*>& graphs, const std::function<bool(std::size_t, std::size_t)>& varies) {
    std::vector<Side> sides;
    for (const Graph* g : graphs) sides.push_back(side(*g));
    const auto all = together(sides);
    if (!all) return {};
    try {
        General r = Maker(graphs).run(*all, varies);
        for (const Graph* g : graphs)
            if (!bind(r, *g)) return {};
        return r;
    } catch (const Differ&) {
        return {};
    } catch (const Error&) {  // sizes that were found don't fit together
        return {};
    }
}

}  // namespace heddle
