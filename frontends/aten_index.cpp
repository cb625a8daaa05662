// Indexing by tensors as gather and scatter. Law: an index that may be negative is wrapped; a scatter has unique rows or one value.
#include <algorithm>
#include <set>

#include "frontends/aten_rules.h"

namespace heddle::aten {

namespace {
V self(const Call& c) { return to(c.tensor("self"), c.type().dtype); }
Dim size_of(V v, int axis) { return v.type().shape[static_cast<std::size_t>(axis)]; }

// The columns of the nonzero of a mask. `rows` is the size the caller knows it by.
std::vector<V> columns(V mask, const Dim& rows) {
    Graph& g = *mask.graph;
    int r = mask.type().rank();
    Node n{.op = Op::call, .in = {mask.id}, .attrs = {{"name", "aten.nonzero.default"}, {"self", Ref{0}}}, .type = {DType::i64, {rows, r}}, .more = {}, .loc = {}};
    V all = g.value(g.add(std::move(n)));
    std::vector<V> out;
    for (int k = 0; k < r; ++k) out.push_back(reshape(slice(all, 1, k, k + 1), {rows}));
    return out;
}
// x[.., indices, ..]: which axes are indexed, with what, of one shape.
struct Indexed {
    std::vector<int> axes;     // of x, ascending
    std::vector<V> given;      // as they came
    std::vector<V> index;      // of one shape, in range
    Shape shape;               // of the indices
    std::vector<int> front;    // permutation of x that brings the indexed axes to the front
    int place = 0;             // where the index dimensions stand in the result

    // `rows`: the size by which the selection of a mask is known, if there is a mask.
    Indexed(const Call& c, V x, const std::optional<Dim>& rows) {
        int axis = 0;
        for (V v : c.tensors("indices")) {
            if (!v) {
                ++axis;
            } else if (v.type().dtype == DType::b1) {
                if (!rows) throw Error("a mask selects a number of rows that nothing names");
                for (V column : columns(v, *rows)) add(column, axis++);
            } else {
                add(v, axis++);
            }
        }
        given = index;
        for (V v : index) shape = broadcast_shape(shape, v.type().shape);
        bool narrow = std::all_of(index.begin(), index.end(), [](V v) { return v.type().dtype == DType::i32; });
        for (std::size_t k = 0; k < index.size(); ++k) index[k] = broadcast(c.place(cast(index[k], narrow ? DType::i32 : DType::i64), size_of(x, axes[k]), true), shape);
        front = axes;
        for (int a = 0; a < x.type().rank(); ++a)
            if (!std::count(axes.begin(), axes.end(), a)) front.push_back(a);
        bool together = axes.back() - axes.front() + 1 == static_cast<int>(axes.size());
        place = together ? axes.front() : 0;
    }
    // [S, rest] to the order of the result.
    std::vector<int> order(int rank) const {
        int s = static_cast<int>(shape.size());
        std::vector<int> o;
        for (int i = 0; i < place; ++i) o.push_back(s + i);
        for (int i = 0; i < s; ++i) o.push_back(i);
        for (int i = s + place; i < rank; ++i) o.push_back(i);
        return o;
    }
    // Every place is written once: all columns of one nonzero, or indices that are known and differ.
    bool unique() const {
        auto literal = given.size() == 1 ? literal_ints(given[0]) : std::nullopt;
        if (literal) return std::set<std::int64_t>(literal->begin(), literal->end()).size() == literal->size();
        if (given.size() == 1 && given[0].node().is(Op::iota)) return true;
        Id rows = -1;
        std::set<std::int64_t> seen;
        for (V v : given) {
            std::int64_t column = 0;
            while (v.node().is(Op::reshape) || v.node().is(Op::slice) || v.node().is(Op::permute)) {
                const Node n = v.node();
                if (n.is(Op::slice)) {
                    bool whole_rows = n.integer("axis") == 1 && n.dim("start").is_const();
                    if (!whole_rows) return false;
                    column = n.dim("start").value();
                }
                v = v.graph->value(n.in[0]);
            }
            const Node n = v.node();
            if (!n.is(Op::call) || n.text("name") != "aten.nonzero.default" || (rows >= 0 && rows != v.id)) return false;
            rows = v.id;
            seen.insert(column);
        }
        return rows >= 0 && static_cast<int>(seen.size()) == given[0].graph->type((*given[0].graph)[rows].in[0]).rank();
    }

private:
    void add(V v, int axis) {
        index.push_back(v);
        axes.push_back(axis);
    }
};

// Known indices along one axis: a slice, or slices side by side.
V take_literal(V x, int axis, const std::vector<std::int64_t>& at) {
    std::vector<V> parts;
    for (std::size_t i = 0; i < at.size();) {
        std::size_t j = i + 1;
        while (j < at.size() && at[j] == at[j - 1] + 1) ++j;
        Dim start = at[i] < 0 ? size_of(x, axis) + Dim(at[i]) : Dim(at[i]);
        if (at[i] < 0 && at[j - 1] >= 0) j = i + 1;  // a run across zero wraps
        parts.push_back(slice(x, axis, start, start + Dim(static_cast<std::int64_t>(j - i))));
        i = j;
    }
    return concat(parts, axis);
}
constexpr std::size_t kPieces = 16;

Results index_(const Call& c) {
    V x = self(c);
    auto given = c.tensors("indices");
    int at = -1, count = 0;
    bool mask = false;
    for (std::size_t k = 0; k < given.size(); ++k)
        if (given[k]) at = static_cast<int>(k), ++count, mask |= given[k].type().dtype == DType::b1;
    if (count == 0) return {x};
    if (count == 1 && !mask)
        if (auto known = literal_ints(given[static_cast<std::size_t>(at)]); known && !known->empty() && known->size() <= kPieces)
            return {reshape(take_literal(x, at, *known), c.shape())};
    // Without a mask's columns the rows of the result follow the axes before them.
    std::optional<Dim> rows;
    if (mask && count == 1) rows = c.shape()[static_cast<std::size_t>(at)];
    else if (mask) return {};
    Indexed i(c, x, rows);
    V r = gather(permute(x, i.front), i.index);
    return {permute(r, i.order(r.type().rank()))};
}
Results index_put_(const Call& c) {
    V x = self(c), v = to(c.tensor("values"), c.type().dtype);
    bool accumulate = c.flag("accumulate");
    auto given = c.tensors("indices");
    std::optional<Dim> rows;
    bool mask = std::any_of(given.begin(), given.end(), [](V i) { return i && i.type().dtype == DType::b1; });
    if (mask) {
        if (given.size() != 1) return {};
        int r = given[0].type().rank(), rest = x.type().rank() - r;
        if (v.type().rank() <= rest || v.type().shape[static_cast<std::size_t>(v.type().rank() - rest - 1)] == 1) {  // one value for all rows
            if (v.type().rank() > rest) v = reshape(v, Shape(v.type().shape.end() - rest, v.type().shape.end()));
            V hit = broadcast(reshape(given[0], [&] {
                Shape s = given[0].type().shape;
                s.insert(s.end(), static_cast<std::size_t>(rest), Dim(1));
                return s;
            }()), c.shape());
            V value = broadcast(v, c.shape());
            return {select(hit, accumulate ? x + value : value, x)};
        }
        rows = v.type().shape[0];
    }
    Indexed i(c, x, rows);
    // values broadcast to x[indices], then [S, rest]
    V base = permute(x, i.front);
    Shape target = i.shape;
    target.insert(target.end(), base.type().shape.begin() + static_cast<std::ptrdiff_t>(i.axes.size()), base.type().shape.end());
    auto order = i.order(static_cast<int>(target.size()));
    Shape written(target.size());
    for (std::size_t k = 0; k < order.size(); ++k) written[k] = target[static_cast<std::size_t>(order[k])];
    bool one_value = i.place == 0 && v.type().rank() <= static_cast<int>(target.size() - i.shape.size());
    one_value |= numel(v.type().shape) == 1;
    V rows_of_v = permute(broadcast(v, written), inverse(order));
    if (accumulate) return {permute(base + scatter_add(base.type(), i.index, rows_of_v), inverse(i.front))};
    if (!one_value && !i.unique()) return {};
    return {permute(scatter(base, i.index, rows_of_v), inverse(i.front))};
}
// Every axis indexed: positions along all axes but one, an index along that.
std::vector<V> along(const Call& c, V index, int axis, const Dim& size) {
    std::vector<V> all;
    Type t = index.type();
    for (int a = 0; a < t.rank(); ++a) all.push_back(a == axis ? c.place(index, size, false) : iota(c.g, t.dtype, t.shape, a));
    return all;
}
Results gather_(const Call& c) {
    V x = self(c), i = c.tensor("index");
    if (x.type().rank() == 0 || i.type().rank() == 0) return {};
    int axis = c.axis("dim", x.type().rank());
    return {gather(x, along(c, i, axis, size_of(x, axis)))};
}
V cut(V v, const Shape& s) {
    for (int a = 0; a < v.type().rank(); ++a) v = slice(v, a, 0, s[static_cast<std::size_t>(a)]);
    return v;
}
Results scatter_add_(const Call& c) {
    V x = self(c), i = c.tensor("index"), src = to(c.tensor("src"), c.type().dtype);
    if (x.type().rank() == 0) return {};
    int axis = c.axis("dim", x.type().rank());
    return {x + scatter_add(x.type(), along(c, i, axis, size_of(x, axis)), cut(src, i.type().shape))};
}
// Sums alone: what else a scatter may do with several values for one place is a library call.
Results scatter_reduce_(const Call& c) {
    if (c.text("reduce") != "sum" || !c.flag("include_self", true)) return {};
    return scatter_add_(c);
}
Results scatter_value(const Call& c) {
    V x = self(c), i = c.tensor("index");
    if (x.type().rank() == 0 || c.given("reduce")) return {};
    int axis = c.axis("dim", x.type().rank());
    return {scatter(x, along(c, i, axis, size_of(x, axis)), c.scalar("value", {c.type().dtype, i.type().shape}))};
}
Results index_select_(const Call& c) {
    V x = self(c), i = c.tensor("index");
    if (x.type().rank() == 0) return {};
    int axis = c.axis("dim", x.type().rank());
    if (auto known = literal_ints(i); known && !known->empty() && known->size() <= kPieces) return {reshape(take_literal(x, axis, *known), c.shape())};
    return {reshape(take(x, axis, c.place(reshape(i, {numel(i.type().shape)}), size_of(x, axis), false)), c.shape())};
}
Results index_add_(const Call& c) {
    V x = self(c), i = c.tensor("index"), src = to(c.tensor("source"), c.type().dtype);
    if (x.type().rank() == 0) return {};
    int axis = c.axis("dim", x.type().rank());
    if (c.number("alpha", 1) != 1) src = src * c.scalar("alpha", src.type());
    V front = move_axis(x, axis, 0);
    i = reshape(i, {numel(i.type().shape)});
    V sum = scatter_add(front.type(), {c.place(i, size_of(x, axis), false)}, move_axis(src, axis, 0));
    return {x + move_axis(sum, 0, axis)};
}
Results index_fill_(const Call& c) {
    V x = self(c), i = c.tensor("index");
    if (x.type().rank() == 0) return {};
    int axis = c.axis("dim", x.type().rank());
    V front = move_axis(x, axis, 0);
    i = reshape(i, {numel(i.type().shape)});
    Shape s = front.type().shape;
    s[0] = numel(i.type().shape);
    return {move_axis(scatter(front, {c.place(i, size_of(x, axis), true)}, c.operand("value", {c.type().dtype, s})), 0, axis)};
}
Results embedding_(const Call& c) {
    V weight = to(c.tensor("weight"), c.type().dtype), i = c.place(c.tensor("indices"), size_of(weight, 0), false), rows = gather(weight, {i});
    if (c.given("padding_idx") && !(c.dim("padding_idx") == -1)) {  // that row has no gradient
        V hit = eq(i, number(c.g, i.type(), c.dim("padding_idx")));
        rows = select(broadcast(unsqueeze(hit, hit.type().rank()), c.shape()), stop_grad(rows), rows);
    }
    return {rows};
}
Results take_(const Call& c) {
    V x = self(c), i = c.tensor("index");
    Dim n = numel(x.type().shape);
    return {gather(reshape(x, {n}), {c.place(i, n, true)})};
}
Results one_hot_(const Call& c) {
    V i = c.tensor("self"), at = iota(c.g, i.type().dtype, c.shape(), c.type().rank() - 1);
    c.check(or_(lt(i, zeros_like(i)), ge(i, number(c.g, i.type(), c.shape().back()))));
    return {eq(broadcast(unsqueeze(i, i.type().rank()), c.shape()), at)};
}
// self [N, C, ..] or [C], target [N, ..] or []: minus the picked log-probability, and the total weight.
Results nll_loss_(const Call& c) {
    V x = to(c.tensor("self"), c.type().dtype), t = c.tensor("target"), w = c.tensor("weight");
    const Shape shape = t.type().shape;
    if (x.type().rank() == 1) x = unsqueeze(x, 0);
    const int r = x.type().rank();
    if (r < 2 || !(t.type().rank() == r - 1 || r == 2)) return {};
    x = move_axis(x, 1, r - 1);  // [N, .., C]
    const Dim classes = x.type().shape.back(), all = numel(shape);
    x = reshape(x, {all, classes});
    t = reshape(t, {all});
    V skip = eq(t, number(c.g, t.type(), c.dim("ignore_index", -100))), at = c.place(select(skip, zeros_like(t), t), classes, false);
    V picked = gather(x, {iota(c.g, t.type().dtype, {all}, 0), at});
    V weight = select(skip, zeros_like(picked), w ? gather(cast(w, c.type().dtype), {at}) : like(picked, 1));
    V loss = select(skip, zeros_like(picked), -(picked * weight)), total = sum(weight, {0});
    Dim reduction = c.dim("reduction", 1);
    if (reduction == 0) return {reshape(loss, c.shape()), lift(c.g, c.type(1), 0)};
    V s = sum(loss, {0});
    return {reduction == 1 ? s / total : s, total};
}
// Values of a small graph of constants, as integers; nothing if they aren't known.
std::optional<std::vector<std::int64_t>> known(V v, int depth) {
    const Node n = v.node();
    Dim size = numel(n.type.shape);
    if (depth > 8 || !size.is_const() || size.value() > 4096 || !is_int(n.type.dtype)) return {};
    auto count = static_cast<std::size_t>(size.value());
    auto operand = [&](std::size_t k) { return known(v.graph->value(n.in[k]), depth + 1); };
    if (n.is(Op::constant)) return std::vector<std::int64_t>(count, static_cast<std::int64_t>(n.number("value")));
    if (n.is(Op::iota) && n.type.rank() == 1) {
        std::vector<std::int64_t> out(count);
        for (std::size_t i = 0; i < count; ++i) out[i] = static_cast<std::int64_t>(i);
        return out;
    }
    if (n.is(Op::cast) || n.is(Op::reshape)) return operand(0);
    if (n.is(Op::concat) && n.type.rank() == 1) {
        std::vector<std::int64_t> out;
        for (std::size_t k = 0; k < n.in.size(); ++k) {
            auto part = operand(k);
            if (!part) return {};
            out.insert(out.end(), part->begin(), part->end());
        }
        return out;
    }
    if (n.is(Op::slice) && n.type.rank() == 1 && n.dim("start").is_const()) {
        auto x = operand(0);
        auto start = n.dim("start").value();
        if (!x) return {};
        return std::vector<std::int64_t>(x->begin() + start, x->begin() + start + static_cast<std::ptrdiff_t>(count));
    }
    if (n.is(Op::add) || n.is(Op::mul)) {
        auto a = operand(0), b = operand(1);
        if (!a || !b) return {};
        for (std::size_t i = 0; i < count; ++i) (*a)[i] = n.is(Op::add) ? (*a)[i] + (*b)[i] : (*a)[i] * (*b)[i];
        return a;
    }
    return {};
}
}  // namespace

std::optional<std::vector<std::int64_t>> literal_ints(V v) { return known(v, 0); }

std::vector<Row> index_rows() {
    return {
        {"aten.index.Tensor", index_}, {"aten.index_put.default", index_put_}, {"aten._unsafe_index.Tensor", index_}, {"aten.gather.default", gather_},
        {"aten.scatter_add.default", scatter_add_}, {"aten.scatter_reduce.two", scatter_reduce_}, {"aten.scatter.value", scatter_value}, {"aten.index_select.default", index_select_},
        {"aten.index_add.default", index_add_}, {"aten.index_fill.int_Scalar", index_fill_}, {"aten.embedding.default", embedding_},
        {"aten.take.default", take_}, {"aten.one_hot.default", one_hot_}, {"aten.nll_loss_forward.default", nll_loss_}, {"aten.nll_loss2d_forward.default", nll_loss_},
    };
}

}  // namespace heddle::aten
