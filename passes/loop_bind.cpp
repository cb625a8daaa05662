// Where the axes of a root run: along the nest's points, in its inner loop, or written out.
#include <algorithm>

#include "passes/loop.h"

namespace heddle::loop {

namespace {

constexpr std::int64_t kUnrollLimit = 8, kCutLimit = 32;

// Axes of the operand of a view that an axis of its result is made of.
std::vector<int> source_axes(const Graph& g, const Node& n, int axis) {
    const Shape &to = n.type.shape, &from = g.type(n.in[0]).shape;
    if (n.is(Op::permute)) return {n.ints("axes")[static_cast<std::size_t>(axis)]};
    if (n.is(Op::expand)) {
        auto axes = n.ints("axes");
        if (std::binary_search(axes.begin(), axes.end(), axis)) return {};
        return {axis - static_cast<int>(std::lower_bound(axes.begin(), axes.end(), axis) - axes.begin())};
    }
    if (n.is(Op::blocks)) return {0};
    if (!n.is(Op::reshape)) return {axis};
    // The axes of `from` that lie between what is before and what is behind this axis.
    auto product = [](const Shape& s, std::size_t a, std::size_t b) { return numel(Shape(s.begin() + static_cast<std::ptrdiff_t>(a), s.begin() + static_cast<std::ptrdiff_t>(b))); };
    auto at = static_cast<std::size_t>(axis);
    Dim before = product(to, 0, at), behind = product(to, at + 1, to.size());
    std::size_t lo = 0, hi = from.size();
    for (std::size_t k = 0; k <= from.size(); ++k) {
        if (product(from, 0, k) == before) lo = k;
        if (product(from, from.size() - k, from.size()) == behind) hi = from.size() - k;
    }
    std::vector<int> all;
    for (std::size_t k = lo; k < hi; ++k) all.push_back(static_cast<int>(k));
    return all;
}

// Is what `id` computes in place another expression in different parts of an axis? Then each part of a written-out axis is its own.
class Cuts {
public:
    explicit Cuts(const Graph& g) : g_(g) {}
    bool operator()(Id id, int axis) {
        auto [it, fresh] = known_.try_emplace({id, axis}, false);
        if (fresh) known_[{id, axis}] = find(id, axis);
        return known_[{id, axis}];
    }

private:
    bool any(const Node& n, int axis) {
        return std::any_of(n.in.begin(), n.in.end(), [&](Id i) { return (*this)(i, axis); });
    }
    bool any(Id id, const std::vector<int>& axes) {
        return std::any_of(axes.begin(), axes.end(), [&](int a) { return (*this)(id, a); });
    }
    bool find(Id id, int axis) {
        const Node& n = g_[id];
        if (n.is(Op::realize)) return false;
        if (n.kind() == Kind::map) return any(n, axis);
        if (n.kind() == Kind::concat) return axis == n.integer("axis") || any(n, axis);
        if (n.is(Op::pad) && axis == n.integer("axis")) {
            const Dim &all = n.type.shape[static_cast<std::size_t>(axis)], &inside = g_.type(n.in[0]).shape[static_cast<std::size_t>(axis)];
            if (all.is_const() && inside.is_const() && 2 * inside.value() <= all.value()) return true;
        }
        if (n.kind() == Kind::view) return any(n.in[0], source_axes(g_, n, axis));
        if (n.kind() == Kind::fold && is_small_fold(g_, id)) {
            for (int a : n.ints("axes")) axis += a <= axis;
            return (*this)(n.in[0], axis);
        }
        if (n.kind() == Kind::gather) {
            auto indices = static_cast<int>(n.in.size()) - 1, rank = g_.type(n.in[1]).rank();
            if (axis >= rank) return (*this)(n.in[0], axis - rank + indices);
            return std::any_of(n.in.begin() + 1, n.in.end(), [&](Id i) { return (*this)(i, axis); });
        }
        return false;
    }
    const Graph& g_;
    std::map<std::pair<Id, int>, bool> known_;
};

}  // namespace

Shape domain(const Graph& g, Id id, int piece) {
    const Node& n = g[id];
    if (n.is(Op::scatter_add)) return g.type(n.in[static_cast<std::size_t>(n.integer("k"))]).shape;
    bool folds = n.kind() == Kind::fold && !is_small_fold(g, id);
    if (piece >= 0) return g.type(n.in[static_cast<std::size_t>(piece)]).shape;
    return folds || n.is(Op::scan) || n.is(Op::compact) ? g.type(n.in[0]).shape : n.type.shape;
}

bool is_small_fold(const Graph& g, Id id) {
    if (g[id].kind() != Kind::fold) return false;
    std::int64_t n = 1;
    for (int a : g[id].ints("axes")) {
        const Dim& d = g.type(g[id].in[0]).shape[static_cast<std::size_t>(a)];
        if (!d.is_const()) return false;
        n *= d.value();
    }
    return n <= kSmallFold;
}

std::vector<char> cut_axes(const Graph& g, Id id, int piece) {
    const Node& n = g[id];
    Shape s = domain(g, id, piece);
    std::vector<char> cut(s.size());
    if (n.is(Op::scatter_add) || n.is(Op::compact) || (n.is(Op::scatter) && piece > 0)) return cut;
    Cuts cuts(g);
    std::int64_t copies = 1;
    for (std::size_t k = 0; k < s.size(); ++k) {
        if (!s[k].is_const() || s[k].value() < 2 || copies * s[k].value() > kCutLimit) continue;
        auto axis = static_cast<int>(k);
        bool folds = n.kind() == Kind::fold && !is_small_fold(g, id);
        cut[k] = piece >= 0 ? cuts(n.in[static_cast<std::size_t>(piece)], axis)
                 : folds || n.is(Op::scan) ? std::any_of(n.in.begin(), n.in.end(), [&](Id i) { return cuts(i, axis); }) : cuts(id, axis);
        if (cut[k]) copies *= s[k].value();
    }
    return cut;
}

std::optional<Binding> bind_root(const Graph& g, Id id, const Shape& outer, int piece) {
    const Node& n = g[id];
    if (n.kind() == Kind::dot || n.kind() == Kind::call || (n.is(Op::scatter) && piece < 0)) return {};
    Binding b;
    b.domain = domain(g, id, piece);
    if (n.is(Op::scatter_add)) {
        auto k = static_cast<std::size_t>(n.integer("k"));
        b.accumulates = true;
        for (std::size_t q = k; q < n.in.size(); q += k + 1)
            if (g.type(n.in[q]).shape != b.domain) return {};
    }
    std::vector<char> cut;
    // The axis that must be a loop: a scan's, or a fold's when its other axes are the outer ones.
    auto bound = [&](int loop) {
        Binding r = b;
        r.axes.assign(b.domain.size(), kUnroll);
        std::size_t o = 0;
        std::int64_t copies = 1, cut_copies = 1;
        if (loop >= 0) r.axes[static_cast<std::size_t>(loop)] = kInner, r.extent = b.domain[static_cast<std::size_t>(loop)];
        for (std::size_t k = 0; k < b.domain.size(); ++k) {
            if (static_cast<int>(k) == loop) continue;
            const Dim& d = b.domain[k];
            if (o < outer.size() && d == outer[o]) {
                r.axes[k] = static_cast<int>(o++);
                continue;
            }
            if (cut.empty()) cut = cut_axes(g, id, piece);
            if (cut[k] && cut_copies * d.value() <= kCutLimit) {
                cut_copies *= d.value();
            } else if (o < outer.size()) {
                if (r.extent) return std::optional<Binding>();
                r.axes[k] = kInner, r.extent = d;
            } else if (d.is_const() && copies * d.value() <= kUnrollLimit && d.value() > 0) {
                copies *= d.value();
            } else if (!r.extent) {
                r.axes[k] = kInner, r.extent = d;
            } else {
                return std::optional<Binding>();
            }
        }
        return o == outer.size() ? std::optional(r) : std::nullopt;
    };
    if (n.is(Op::scan)) return bound(n.integer("axis"));
    if (n.is(Op::compact)) return bound(1);
    if (n.kind() != Kind::fold || is_small_fold(g, id)) return bound(-1);
    auto axes = n.ints("axes");
    if (axes.size() == 1)
        if (auto r = bound(axes[0])) return r;
    b.accumulates = true;
    auto r = bound(-1);
    if (!r || !n.is(Op::sum) || bytes(n.type.dtype) < 4) return {};  // narrow floats would be rounded at each addition, and threads add none
    for (int a : axes)
        if (r->axes[static_cast<std::size_t>(a)] == kInner) return {};
    return r;
}

}  // namespace heddle::loop
