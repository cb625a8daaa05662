// Rows: indexing by tensors and masks, gathers, embedding, grid sampling as formulas over gathers.
// Masks: x[m] gathers the rows that nonzero(m) lists, in row-major order, so the result is PyTorch's own; m itself never leaves the graph.
#include <algorithm>

#include "frontends/aten_table.h"

namespace heddle::aten {

namespace {
V wrapped(V i, const Dim& n) {  // negative indices count from the end
    i = cast(i, DType::i64);
    return select(lt(i, zeros_like(i)), i + size(*i.graph, Type(i.type()), n), i);
}
// The columns of nonzero(mask), one [M] tensor per axis. M is a size that only the run knows.
std::vector<V> where_true(V mask, const Dim& rows) {
    Graph& g = *mask.graph;
    int r = mask.type().rank();
    Node n{.op = Op::call, .in = {mask.id}, .attrs = {{"name", std::string("aten.nonzero.default")}, {"self", Ref{0}}, {"pure", true}}, .type = {DType::i64, {rows, r}}, .more = {}, .loc = {}};
    V found = g.value(g.add(std::move(n)));
    std::vector<V> columns;
    for (int k = 0; k < r; ++k) columns.push_back(reshape(slice(found, 1, k, k + 1), {rows}));
    return columns;
}
// Indices of an indexing expression: which axes of self they cover, in order, all broadcast to one shape.
struct Indexed {
    std::vector<V> index;
    std::vector<int> axes;
    Shape shape;
    int at = 0;          // where the indexed axes stand in the result
    bool mask = false;   // made of one mask: rows are unique
};
std::optional<Indexed> indexed(Call& c, const Dim& rows) {
    Indexed r;
    V self = c.tensor("self");
    int axis = 0;
    bool masks = false, others = false;
    std::vector<V> found;
    for (auto v : c.tensors("indices")) {
        if (!v) {
            ++axis;
            continue;
        }
        if (v->type().dtype == DType::b1) {
            if (masks || v->type().rank() == 0) return {};
            masks = true;
            for (V column : where_true(*v, rows)) found.push_back(column), r.axes.push_back(axis++);
        } else {
            others = true;
            found.push_back(wrapped(*v, self.type().shape[static_cast<std::size_t>(axis)]));
            r.axes.push_back(axis++);
        }
    }
    if (found.empty() || (masks && others)) return {};
    r.mask = masks;
    for (V v : found) {  // the shape that all broadcast to
        Shape s = v.type().shape;
        while (r.shape.size() < s.size()) r.shape.insert(r.shape.begin(), 1);
        for (std::size_t k = 0; k < s.size(); ++k) {
            Dim& d = r.shape[r.shape.size() - s.size() + k];
            if (d == 1) d = s[k];
        }
    }
    for (V v : found) r.index.push_back(broadcast(v, r.shape));
    bool adjacent = r.axes.back() - r.axes.front() + 1 == static_cast<int>(r.axes.size());
    r.at = adjacent ? r.axes.front() : 0;
    return r;
}
// self with the indexed axes first.
std::vector<int> front_first(const Indexed& r, int rank) {
    auto order = r.axes;
    for (int k = 0; k < rank; ++k)
        if (std::find(r.axes.begin(), r.axes.end(), k) == r.axes.end()) order.push_back(k);
    return order;
}
// Axes of [S, rest] in the order of the result, where S stands at r.at.
std::vector<int> result_order(const Indexed& r, int rank) {
    int s = static_cast<int>(r.shape.size()), rest = rank - static_cast<int>(r.axes.size());
    std::vector<int> order;
    for (int k = 0; k < r.at; ++k) order.push_back(s + k);
    for (int k = 0; k < s; ++k) order.push_back(k);
    for (int k = r.at; k < rest; ++k) order.push_back(s + k);
    return order;
}
std::optional<V> index(Call& c) {
    // With one mask, its rows are the result's size at the place where the mask stands.
    std::size_t at = 0;
    for (auto v : c.tensors("indices")) {
        if (v) break;
        ++at;
    }
    if (at >= c.type().shape.size()) return {};
    auto r = indexed(c, c.type().shape[at]);
    if (!r) return {};
    V self = c.tensor("self");
    V picked = gather(permute(self, front_first(*r, self.type().rank())), r->index);
    return permute(picked, result_order(*r, self.type().rank()));
}
std::optional<V> index_put(Call& c) {
    V self = c.tensor("self"), values = cast(c.tensor("values"), self.type().dtype);
    auto list = c.tensors("indices");
    int rank = self.type().rank();
    bool accumulate = c.flag("accumulate");
    bool one_mask = list.size() == 1 && list[0] && list[0]->type().dtype == DType::b1;
    Dim few = numel(values.type().shape);
    if (one_mask && few == 1 && !accumulate) {  // a number for every hit: no rows needed
        Shape m = list[0]->type().shape;
        V mask = *list[0];
        for (int k = mask.type().rank(); k < rank; ++k) m.push_back(1);
        return select(broadcast(reshape(mask, m), self.type().shape), broadcast(reshape(values, {}), self.type().shape), self);
    }
    Dim rows = 0;
    if (one_mask) {
        std::size_t tail = static_cast<std::size_t>(rank - list[0]->type().rank());
        if (values.type().shape.size() != tail + 1) return {};
        rows = values.type().shape[0];
    }
    auto r = indexed(c, rows);
    if (!r || (!accumulate && !r->mask)) return {};
    auto order = front_first(*r, rank);
    V base = permute(self, order);
    Shape rows_shape = r->shape;
    for (std::size_t k = r->axes.size(); k < static_cast<std::size_t>(rank); ++k) rows_shape.push_back(base.type().shape[k]);
    // values broadcast to the result of indexing, then rows first
    auto placed = result_order(*r, rank);
    Shape indexed_shape;
    for (int k : placed) indexed_shape.push_back(rows_shape[static_cast<std::size_t>(k)]);
    V v = permute(broadcast(values, indexed_shape), inverse(placed));
    V out = accumulate ? base + scatter_add(base.type(), r->index, v) : scatter(base, r->index, v);
    return permute(out, inverse(order));
}
std::optional<V> index_select(Call& c) {
    V x = c.tensor("self");
    int a = c.axis("dim", x.type().rank());
    if (x.type().rank() == 0 || c.tensor("index").type().rank() != 1) return {};
    auto front = axes_from_to(0, x.type().rank());
    std::rotate(front.begin(), front.begin() + a, front.begin() + a + 1);
    return permute(gather(permute(x, front), {wrapped(c.tensor("index"), x.type().shape[static_cast<std::size_t>(a)])}), inverse(front));
}
std::optional<V> gather_along(Call& c) {
    V x = c.tensor("self"), i = c.tensor("index");
    int rank = x.type().rank(), a = c.axis("dim", rank);
    if (rank == 0 || i.type().rank() != rank) return {};
    std::vector<V> at;
    for (int k = 0; k < rank; ++k) at.push_back(k == a ? cast(i, DType::i64) : iota(c.g, {DType::i64, i.type().shape}, k));
    return gather(x, at);
}

// ---- grid_sample. Source: PyTorch's documentation of torch.nn.functional.grid_sample (padding and corner conventions).
struct Axis {
    V position;      // in texels, after padding
    Dim size;
};
V reflected(V x, double lo2, const Dim& hi2, const Type& t) {  // between lo2/2 and hi2/2, as often as needed
    V low = like(x, lo2 / 2), span = (size(*x.graph, Type(t), hi2) - lo2) * 0.5;
    V d = abs(x - low), flips = stop_grad(floor(d / span)), rest = d - flips * span;
    V even = eq(mod(flips, like(flips, 2)), zeros_like(flips));
    V y = select(even, rest + low, span - rest + low);
    return select(gt(span, zeros_like(span)), y, zeros_like(y));
}
V unnormalised(V x, const Dim& n, bool align, int padding) {
    Type t = x.type();
    V s = align ? (x + 1) * 0.5 * size(*x.graph, Type(t), n - 1) : ((x + 1) * size(*x.graph, Type(t), n) - 1) * 0.5;
    if (padding == 2) s = align ? reflected(s, 0, (n - 1) * 2, t) : reflected(s, -1, n * 2 - 1, t);
    if (padding != 0) {  // the gradient is 0 from the border on
        V last = size(*x.graph, Type(t), n - 1), zero = zeros_like(s);
        s = select(le(s, zero), zero, select(ge(s, last), last, s));
    }
    return s;
}
// input [N, C, D1..Dk], grid [N, S1..Sk, k] with its last axis in the order x, y, (z), that is Dk first.
std::optional<V> grid_sample(Call& c) {
    V x = c.tensor("input"), grid = c.tensor("grid");
    int mode = c.node.integer("interpolation_mode"), padding = c.node.integer("padding_mode");
    bool align = c.flag("align_corners");
    if (mode > 1 || x.type().dtype != grid.type().dtype) return {};
    auto k = static_cast<std::size_t>(x.type().rank() - 2);
    const Shape in = x.type().shape, gs = grid.type().shape;
    bool single = in[0] == 1;
    // Sample points without axes of size 1, and without the batch where there is one image.
    Shape points;
    for (std::size_t a = single ? 1 : 0; a <= k; ++a)
        if (!(gs[a] == 1) || (a == 0 && !single)) points.push_back(gs[a]);
    Type ti{DType::i64, points};
    std::vector<Axis> axes;  // D1 first
    for (std::size_t a = 0; a < k; ++a) {
        int from = static_cast<int>(k - 1 - a);
        V p = reshape(slice(grid, static_cast<int>(k) + 1, from, from + 1), points);
        axes.push_back({unnormalised(p, in[a + 2], align, padding), in[a + 2]});
    }
    // Channels last: [N, D.., C], or [D.., C] for one image.
    auto order = axes_from_to(2, static_cast<int>(k) + 2);
    order.push_back(1);
    V rows;
    if (single) {
        rows = reshape(x, Shape(in.begin() + 1, in.end()));
        for (int& a : order) --a;
    } else {
        rows = x;
        order.insert(order.begin(), 0);
    }
    rows = permute(rows, order);
    std::vector<V> batch;
    if (!single) batch.push_back(iota(c.g, Type(ti), 0));
    Shape wide = points;
    wide.push_back(in[1]);
    std::vector<int> channel = {static_cast<int>(points.size())};
    struct Side {
        V index, weight, inside;
    };
    std::vector<std::vector<Side>> sides;
    for (const Axis& a : axes) {
        auto side = [&](V at, std::optional<V> weight) {
            V last = size(c.g, Type(ti), a.size - 1), zero = constant(c.g, Type(ti), 0);
            V inside = and_(ge(at, zero), le(at, last));
            return Side{max(min(at, last), zero), weight.value_or(V{}), inside};
        };
        if (mode == 1) {
            sides.push_back({side(cast(stop_grad(round(a.position)), DType::i64), {})});
        } else {
            V low = stop_grad(floor(a.position)), fraction = a.position - low;
            V i = cast(low, DType::i64);
            sides.push_back({side(i, 1.0 - fraction), side(i + 1, fraction)});
        }
    }
    V sum;
    for (std::size_t corner = 0; corner < (mode == 1 ? 1u : 1u << k); ++corner) {
        auto at = batch;
        V weight, inside;
        for (std::size_t a = 0; a < k; ++a) {
            const Side& s = sides[a][corner >> a & 1 && mode == 0 ? 1 : 0];
            at.push_back(s.index);
            if (s.weight) weight = weight ? weight * s.weight : s.weight;
            inside = inside ? and_(inside, s.inside) : s.inside;
        }
        V texel = gather(rows, at), w = weight ? select(inside, weight, zeros_like(weight)) : cast(inside, x.type().dtype);
        V term = texel * expand(w, channel, wide);
        sum = sum ? sum + term : term;
    }
    // [points, C] -> [N, C, S..]
    auto back = axes_from_to(0, static_cast<int>(points.size()));
    back.insert(back.begin() + (single ? 0 : 1), static_cast<int>(points.size()));
    return reshape(permute(sum, back), c.type().shape);
}
}  // namespace

const Table& index_rows() {
    static const Table rows = {
        {"index", index}, {"index_put", index_put}, {"_index_put_impl", index_put},
        {"index_select", index_select}, {"gather", gather_along},
        {"embedding", [](Call& c) -> std::optional<V> { return gather(c.tensor("weight"), {cast(c.tensor("indices"), DType::i64)}); }},
        {"grid_sampler", grid_sample}, {"grid_sampler_2d", grid_sample}, {"grid_sampler_3d", grid_sample},
    };
    return rows;
}

}  // namespace heddle::aten
