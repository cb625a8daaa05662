// Views, joins and pads as index arithmetic. Law: sizes come from the call's own type; only positions come from its arguments.
#include "frontends/aten_rules.h"

namespace heddle::aten {

namespace {
constexpr std::int64_t kPieces = 16;  // slices put side by side instead of a gather
V self(const Call& c) { return to(c.tensor("self"), c.type().dtype); }
Dim size_of(V v, int axis) { return v.type().shape[static_cast<std::size_t>(axis)]; }
// A position as written: from the end if negative, at most the size.
Dim position(const Dim& at, const Dim& size) {
    if (!at.is_const()) return at;
    std::int64_t v = at.value();
    if (v < 0) {
        Dim from_end = size + Dim(v);
        return from_end.is_const() && from_end.value() < 0 ? Dim(0) : from_end;
    }
    return size.is_const() && v > size.value() ? size : at;
}
V steps(Graph& g, const Dim& n, const Dim& start, const Dim& step) {
    Type t{DType::i64, {n}};
    V i = iota(g, DType::i64, {n}, 0);
    if (!(step == 1)) i = i * number(g, t, step);
    return start == 0 ? i : i + number(g, t, start);
}

Results reshape_(const Call& c) { return {reshape(self(c), c.shape())}; }
Results expand_(const Call& c) { return {broadcast(self(c), c.shape())}; }
Results permute_(const Call& c) {
    V x = self(c);
    std::vector<int> axes;
    for (const Dim& d : c.dims("dims")) axes.push_back(static_cast<int>(d.value() < 0 ? d.value() + x.type().rank() : d.value()));
    return {permute(x, axes)};
}
V swapped(V x, int a, int b) {
    auto axes = axes_from_to(0, x.type().rank());
    if (!axes.empty()) std::swap(axes[static_cast<std::size_t>(a)], axes[static_cast<std::size_t>(b)]);
    return permute(x, axes);
}
Results transpose_(const Call& c) {
    V x = self(c);
    int r = x.type().rank();
    return {swapped(x, c.axis("dim0", r), c.axis("dim1", r))};
}
Results t_(const Call& c) {
    V x = self(c);
    return {x.type().rank() < 2 ? x : transpose(x)};
}
Results movedim_(const Call& c) {
    V x = self(c);
    int r = x.type().rank();
    return {move_axis(x, c.axis("source", r), c.axis("destination", r))};
}
Results select_(const Call& c) {
    V x = self(c);
    int axis = c.axis("dim", x.type().rank());
    Dim at = c.dim("index").is_const() && c.dim("index").value() < 0 ? size_of(x, axis) + c.dim("index") : c.dim("index");
    return {reshape(slice(x, axis, at, at + 1), c.shape())};
}
Results slice_(const Call& c) {
    V x = self(c);
    int axis = c.axis("dim", x.type().rank());
    Dim n = c.shape()[static_cast<std::size_t>(axis)], start = position(c.dim("start"), size_of(x, axis)), step = c.dim("step", 1);
    if (n == size_of(x, axis) && step == 1) return {x};
    if (n == 0) start = 0;
    if (step == 1) return {slice(x, axis, start, start + n)};
    if (n.is_const() && n.value() <= kPieces && start.is_const() && step.is_const()) {  // a few: side by side
        std::vector<V> parts;
        for (std::int64_t k = 0; k < n.value(); ++k) parts.push_back(slice(x, axis, start + Dim(k) * step, start + Dim(k) * step + 1));
        return {concat(parts, axis)};
    }
    return {take(x, axis, steps(c.g, n, start, step))};
}
Results narrow_(const Call& c) {
    V x = self(c);
    int axis = c.axis("dim", x.type().rank());
    Dim start = position(c.dim("start"), size_of(x, axis));
    return {slice(x, axis, start, start + c.dim("length"))};
}
Results flip_(const Call& c) {
    V x = self(c);
    if (c.dims("dims").empty()) return {x};
    for (int a : c.axes("dims", x.type().rank())) x = flip(x, a);
    return {x};
}
Results cat_(const Call& c) {
    int axis = c.axis("dim", c.type().rank());
    std::vector<V> parts;
    for (V v : c.tensors("tensors"))
        if (v.type().rank() == c.type().rank()) parts.push_back(to(v, c.type().dtype));
    if (parts.empty()) return {lift(c.g, c.type(), 0)};
    return {concat(parts, axis)};
}
Results stack_(const Call& c) {
    int axis = c.axis("dim", c.type().rank());
    std::vector<V> parts;
    for (V v : c.tensors("tensors")) parts.push_back(unsqueeze(to(v, c.type().dtype), axis));
    return {concat(parts, axis)};
}
// One result after the other along dim.
Results split_(const Call& c) {
    V x = self(c);
    int axis = c.axis("dim", x.type().rank());
    Results r;
    Dim at;
    for (std::size_t i = 0; i <= c.n.more.size(); ++i) {
        Dim end = at + c.type(i).shape[static_cast<std::size_t>(axis)];
        r.push_back(slice(x, axis, at, end));
        at = end;
    }
    return r;
}
Results unbind_(const Call& c) {
    V x = self(c);
    int axis = c.axis("dim", x.type().rank());
    Results r;
    for (std::size_t i = 0; i <= c.n.more.size(); ++i) r.push_back(reshape(slice(x, axis, static_cast<int>(i), static_cast<int>(i) + 1), c.shape()));
    return r;
}
Results pad_(const Call& c) {
    V x = self(c), inside;
    auto pads = c.dims("pad");
    double value = c.number("value", 0);
    if (value != 0 || std::signbit(value)) inside = constant(c.g, {DType::b1, x.type().shape}, 1);
    for (std::size_t k = 0; k < pads.size() / 2; ++k) {
        int axis = x.type().rank() - 1 - static_cast<int>(k);
        Dim lo = pads[2 * k], hi = pads[2 * k + 1];
        auto cut = [](const Dim& d) { return d.is_const() && d.value() < 0 ? -d.value() : 0; };
        for (V* v : {&x, &inside}) {
            if (!*v) continue;
            *v = slice(*v, axis, cut(lo), size_of(*v, axis) - Dim(cut(hi)));
            *v = pad(*v, axis, cut(lo) > 0 ? Dim(0) : lo, cut(hi) > 0 ? Dim(0) : hi);
        }
    }
    return {inside ? select(inside, x, lift(c.g, x.type(), value)) : x};
}
// Reflection and replication: pieces of x, turned around or repeated, at both ends of each axis. The last axis comes first in `padding`.
template <bool reflect>
Results pad_by_itself(const Call& c) {
    V x = self(c);
    auto pads = c.dims("padding");
    for (std::size_t k = 0; k < pads.size() / 2; ++k) {
        int axis = x.type().rank() - 1 - static_cast<int>(k);
        const Dim n = size_of(x, axis);
        Dim sides[] = {pads[2 * k], pads[2 * k + 1]};
        if (!sides[0].is_const() || !sides[1].is_const()) return {};
        std::vector<V> parts;
        for (int side = 0; side < 2; ++side) {
            Dim by = sides[side], edge = side == 0 ? Dim(0) : n - 1;
            if (side == 1) parts.push_back(slice(x, axis, std::max<std::int64_t>(0, -sides[0].value()), n - Dim(std::max<std::int64_t>(0, -by.value()))));
            if (by.value() <= 0) continue;
            if (reflect) {
                parts.push_back(flip(side == 0 ? slice(x, axis, 1, by + 1) : slice(x, axis, n - 1 - by, n - 1), axis));
            } else {
                V one = slice(x, axis, edge, edge + 1);
                Shape s = x.type().shape;
                s[static_cast<std::size_t>(axis)] = by;
                parts.push_back(broadcast(one, s));
            }
        }
        x = concat(parts, axis);
    }
    return {x};
}
Results repeat_(const Call& c) {
    V x = self(c);
    auto times = c.dims("repeats");
    int lead = static_cast<int>(times.size()) - x.type().rank();
    Shape pairs, from = x.type().shape;
    std::vector<int> inserted;
    for (std::size_t k = 0; k < times.size(); ++k) {
        if (static_cast<int>(k) < lead || !(times[k] == 1)) {
            inserted.push_back(static_cast<int>(pairs.size()));
            pairs.push_back(times[k]);
        }
        if (static_cast<int>(k) >= lead) pairs.push_back(from[k - static_cast<std::size_t>(lead)]);
    }
    return {reshape(expand(x, inserted, pairs), c.shape())};
}
Results repeat_interleave_(const Call& c) {
    V x = self(c);
    if (!c.given("dim")) x = reshape(x, {numel(x.type().shape)});
    int axis = c.axis("dim", x.type().rank());
    Shape s = x.type().shape;
    s.insert(s.begin() + axis + 1, c.dim("repeats"));
    return {reshape(expand(x, {axis + 1}, s), c.shape())};
}
Results roll_(const Call& c) {
    V x = self(c);
    auto shifts = c.dims("shifts"), dims = c.dims("dims");
    Shape shape = x.type().shape;
    if (dims.empty()) {
        x = reshape(x, {numel(shape)});
        dims = {0};
    }
    for (std::size_t k = 0; k < dims.size(); ++k) {
        int axis = static_cast<int>(dims[k].value() < 0 ? dims[k].value() + x.type().rank() : dims[k].value());
        Dim n = size_of(x, axis), by = shifts[k];
        if (n == 0) continue;
        if (by.is_const() && n.is_const()) by = ((by.value() % n.value()) + n.value()) % n.value();
        if (by == 0) continue;
        Dim cut = by.is_const() && by.value() < 0 ? Dim(-by.value()) : n - by;  // |shift| <= size
        x = concat({slice(x, axis, cut, n), slice(x, axis, 0, cut)}, axis);
    }
    return {reshape(x, shape)};
}
// Positions along a diagonal of n elements.
std::vector<V> diagonal_index(Graph& g, const Dim& n, const Dim& offset) {
    bool up = !offset.is_const() || offset.value() >= 0;
    return {steps(g, n, up ? Dim(0) : Dim(0) - offset, 1), steps(g, n, up ? offset : Dim(0), 1)};
}
V diagonal_front(V x, int a, int b) {  // [a, b, rest]
    x = move_axis(x, a, 0);
    return move_axis(x, b > a ? b : b + 1, 1);
}
Results diagonal_(const Call& c) {
    V x = self(c);
    int r = x.type().rank();
    V rows = gather(diagonal_front(x, c.axis("dim1", r, 0), c.axis("dim2", r, 1)), diagonal_index(c.g, c.shape().back(), c.dim("offset")));
    return {move_axis(rows, 0, rows.type().rank() - 1)};
}
Results diag_embed_(const Call& c) {
    const int r = c.type().rank(), a = c.axis("dim1", r, -2), b = c.axis("dim2", r, -1);
    const Dim offset = c.dim("offset"), size = c.shape()[static_cast<std::size_t>(a)];
    if (!offset.is_const()) return {};
    V x = self(c);
    x = pad(x, r - 2, 0, size - size_of(x, r - 2));
    Shape s = x.type().shape;
    s.push_back(size);
    V row = iota(c.g, DType::i64, s, r - 2), column = iota(c.g, DType::i64, s, r - 1);
    x = expand(x, {offset.value() >= 0 ? r - 1 : r - 2}, s);  // along columns, or rows, its elements in the order of the diagonal
    x = select(eq(column - row, like(row, static_cast<double>(offset.value()))), x, zeros_like(x));
    std::vector<int> order(static_cast<std::size_t>(r));
    order[static_cast<std::size_t>(a)] = r - 2, order[static_cast<std::size_t>(b)] = r - 1;
    for (int k = 0, from = 0; k < r; ++k)
        if (k != a && k != b) order[static_cast<std::size_t>(k)] = from++;
    return {permute(x, order)};
}
Results block_diag_(const Call& c) {
    std::vector<V> rows;
    Dim before;
    for (V v : c.tensors("tensors")) {
        v = to(v, c.type().dtype);
        if (v.type().rank() > 2) return {};
        if (v.type().rank() < 2) v = reshape(v, {1, numel(v.type().shape)});
        rows.push_back(pad(v, 1, before, c.shape()[1] - before - size_of(v, 1)));
        before = before + size_of(v, 1);
    }
    return {concat(rows, 0)};
}
Results rot90_(const Call& c) {
    V x = self(c);
    const int r = x.type().rank();
    auto dims = c.dims("dims");
    if (dims.empty()) dims = {0, 1};
    auto wrapped = [&](const Dim& d) { return static_cast<int>(d.value() < 0 ? d.value() + r : d.value()); };
    const int a = wrapped(dims[0]), b = wrapped(dims[1]);
    switch (((c.dim("k", 1).value() % 4) + 4) % 4) {
        case 1: return {swapped(flip(x, b), a, b)};
        case 2: return {flip(flip(x, a), b)};
        case 3: return {swapped(flip(x, a), a, b)};
        default: return {x};
    }
}
V replaced(V x, int axis, const Dim& start, V src) {
    Dim end = start + size_of(src, axis), size = size_of(x, axis);
    std::vector<V> parts;
    if (!(start == 0)) parts.push_back(slice(x, axis, 0, start));
    parts.push_back(src);
    if (!(end == size)) parts.push_back(slice(x, axis, end, size));
    return concat(parts, axis);
}
Results select_scatter_(const Call& c) {
    V x = self(c);
    int axis = c.axis("dim", x.type().rank());
    Dim at = position(c.dim("index"), size_of(x, axis));
    return {replaced(x, axis, at, unsqueeze(to(c.tensor("src"), c.type().dtype), axis))};
}
Results slice_scatter_(const Call& c) {
    V x = self(c), src = to(c.tensor("src"), c.type().dtype);
    int axis = c.axis("dim", x.type().rank());
    Dim start = position(c.dim("start"), size_of(x, axis)), step = c.dim("step", 1), n = size_of(src, axis);
    if (n == 0) return {x};
    if (step == 1) return {replaced(x, axis, start, src)};
    return {move_axis(scatter(move_axis(x, axis, 0), {steps(c.g, n, start, step)}, move_axis(src, axis, 0)), 0, axis)};
}
Results diagonal_scatter_(const Call& c) {
    V x = self(c), src = to(c.tensor("src"), c.type().dtype);
    int r = x.type().rank(), a = c.axis("dim1", r, 0), b = c.axis("dim2", r, 1);
    if (a != 0 || b != 1) return {};
    Dim n = src.type().shape.back();
    return {scatter(x, diagonal_index(c.g, n, c.dim("offset")), move_axis(src, src.type().rank() - 1, 0))};
}
Results unfold_(const Call& c) {
    V x = self(c);
    if (x.type().rank() == 0) return {slice(reshape(x, {1}), 0, 0, c.dim("size"))};
    int axis = c.axis("dimension", x.type().rank());
    Dim n = c.shape()[static_cast<std::size_t>(axis)], size = c.dim("size");
    V at = iota(c.g, DType::i64, {n, size}, 0) * number(c.g, {DType::i64, {n, size}}, c.dim("step")) + iota(c.g, DType::i64, {n, size}, 1);
    return {move_axis(take(x, axis, at), axis + 1, x.type().rank())};
}
Results pixel_shuffle_(const Call& c) {
    V x = self(c);
    Shape s = x.type().shape;
    auto r = s.size();
    Dim f = c.dim("upscale_factor");
    auto channels = s[r - 3].divided_by(f * f);
    if (!channels) return {};
    Shape split(s.begin(), s.end() - 3);
    int k = static_cast<int>(split.size());
    split.insert(split.end(), {*channels, f, f, s[r - 2], s[r - 1]});
    auto order = axes_from_to(0, k);
    for (int a : {0, 3, 1, 4, 2}) order.push_back(k + a);
    return {reshape(permute(reshape(x, split), order), c.shape())};
}
Results pixel_unshuffle_(const Call& c) {
    V x = self(c);
    Shape s = x.type().shape;
    auto r = s.size();
    Dim f = c.dim("downscale_factor");
    auto rows = s[r - 2].divided_by(f), columns = s[r - 1].divided_by(f);
    if (!rows || !columns) return {};
    Shape split(s.begin(), s.end() - 2);
    int k = static_cast<int>(split.size());
    split.insert(split.end(), {*rows, f, *columns, f});
    auto order = axes_from_to(0, k);
    for (int a : {1, 3, 0, 2}) order.push_back(k + a);
    return {reshape(permute(reshape(x, split), order), c.shape())};
}
Results channel_shuffle_(const Call& c) {
    V x = self(c);
    Shape s = x.type().shape;
    auto per = s[1].divided_by(c.dim("groups"));
    if (!per) return {};
    Shape split = s;
    split[1] = *per;
    split.insert(split.begin() + 1, c.dim("groups"));
    return {reshape(swapped(reshape(x, split), 1, 2), s)};
}
}  // namespace

std::vector<Row> view_rows() {
    return {
        {"aten.view.default", reshape_}, {"aten.reshape.default", reshape_}, {"aten._unsafe_view.default", reshape_}, {"aten.flatten.using_ints", reshape_},
        {"aten.unflatten.int", reshape_}, {"aten.view_as.default", reshape_}, {"aten.reshape_as.default", reshape_}, {"aten._reshape_alias.default", reshape_},
        {"aten.unsqueeze.default", reshape_}, {"aten.squeeze.default", reshape_}, {"aten.squeeze.dim", reshape_}, {"aten.squeeze.dims", reshape_},
        {"aten.ravel.default", reshape_}, {"aten.view_copy.default", reshape_}, {"aten.expand.default", expand_}, {"aten.expand_as.default", expand_},
        {"aten.broadcast_to.default", expand_}, {"aten.expand_copy.default", expand_}, {"aten.permute.default", permute_}, {"aten.permute_copy.default", permute_},
        {"aten.transpose.int", transpose_}, {"aten.swapaxes.default", transpose_}, {"aten.swapdims.default", transpose_}, {"aten.t.default", t_},
        {"aten.numpy_T.default", t_}, {"aten.mT.default", t_}, {"aten.movedim.int", movedim_}, {"aten.select.int", select_},
        {"aten.slice.Tensor", slice_}, {"aten.narrow.default", narrow_}, {"aten.flip.default", flip_}, {"aten.cat.default", cat_},
        {"aten.concat.default", cat_}, {"aten.stack.default", stack_}, {"aten.split.Tensor", split_}, {"aten.split_with_sizes.default", split_},
        {"aten.chunk.default", split_}, {"aten.unsafe_chunk.default", split_}, {"aten.unsafe_split.Tensor", split_}, {"aten.unbind.int", unbind_},
        {"aten.constant_pad_nd.default", pad_},
        {"aten.reflection_pad1d.default", pad_by_itself<true>}, {"aten.reflection_pad2d.default", pad_by_itself<true>}, {"aten.reflection_pad3d.default", pad_by_itself<true>},
        {"aten.replication_pad1d.default", pad_by_itself<false>}, {"aten.replication_pad2d.default", pad_by_itself<false>}, {"aten.replication_pad3d.default", pad_by_itself<false>},
        {"aten.repeat.default", repeat_}, {"aten.tile.default", repeat_}, {"aten.repeat_interleave.self_int", repeat_interleave_},
        {"aten.roll.default", roll_}, {"aten.diagonal.default", diagonal_}, {"aten.diag_embed.default", diag_embed_}, {"aten.select_scatter.default", select_scatter_},
        {"aten.slice_scatter.default", slice_scatter_}, {"aten.diagonal_scatter.default", diagonal_scatter_}, {"aten.unfold.default", unfold_},
        {"aten.pixel_shuffle.default", pixel_shuffle_}, {"aten.pixel_unshuffle.default", pixel_unshuffle_}, {"aten.channel_shuffle.default", channel_shuffle_},
        {"aten.block_diag.default", block_diag_}, {"aten.rot90.default", rot90_},
        {"aten.unsqueeze_copy.default", reshape_}, {"aten.squeeze_copy.default", reshape_}, {"aten.squeeze_copy.dim", reshape_}, {"aten.squeeze_copy.dims", reshape_},
        {"aten.transpose_copy.int", transpose_}, {"aten.t_copy.default", t_}, {"aten.select_copy.int", select_}, {"aten.slice_copy.Tensor", slice_},
        {"aten.narrow_copy.default", narrow_}, {"aten.split_copy.Tensor", split_}, {"aten.split_with_sizes_copy.default", split_}, {"aten.unbind_copy.int", unbind_},
        {"aten.diagonal_copy.default", diagonal_}, {"aten.unfold_copy.default", unfold_},
    };
}

}  // namespace heddle::aten
