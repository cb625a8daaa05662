// grid_sample in two and three dimensions: corners are gathered as channels-last rows and weighed.
// Law: no index leaves the input, whatever the grid holds; corners outside weigh nothing (padding zeros).
#include "frontends/aten_rules.h"

namespace heddle::aten {

namespace {
enum Interpolation { kBilinear, kNearest };
enum Padding { kZeros, kBorder, kReflection };

// One coordinate in pixels. Gradients as PyTorch's: none where a coordinate was clipped.
V pixels(V g, const Dim& size, bool corners, std::int64_t padding) {
    Type t = g.type();
    V n = number(*g.graph, t, size), last = number(*g.graph, t, size - 1);
    V x = corners ? (g + 1) * 0.5 * last : ((g + 1) * n - 1) * 0.5;
    if (padding == kReflection) {
        V low = corners ? zeros_like(x) : like(x, -0.5), span = corners ? last : n;
        if (corners && size == 1) return zeros_like(x);
        V d = abs(x - low), flips = floor(d / span), rest = d - flips * span;
        V odd = ne(mod(flips, like(flips, 2)), zeros_like(flips));
        x = select(odd, span - rest + low, rest + low);
    }
    if (padding == kZeros) return x;
    return select(le(x, zeros_like(x)), zeros_like(x), select(ge(x, last), last, x));
}
// A whole number in floating point as an index inside [0, size).
V index_of(V at, const Dim& size) {
    V last = number(*at.graph, at.type(), size - 1);
    return cast(stop_grad(clamp_max(clamp_min(select(ne(at, at), zeros_like(at), at), zeros_like(at)), last)), DType::i32);
}
V inside(V at, const Dim& size) { return and_(ge(at, zeros_like(at)), le(at, number(*at.graph, at.type(), size - 1))); }

Results grid_sampler(const Call& c) {
    V x = c.tensor("input"), grid = to(c.tensor("grid"), c.type().dtype);
    Dim mode = c.dim("interpolation_mode"), padding = c.dim("padding_mode");
    if (!(mode == kBilinear || mode == kNearest)) return {};
    const Shape s = x.type().shape;
    const int d = static_cast<int>(s.size()) - 2;
    Shape points = grid.type().shape;
    points.pop_back();
    // Channels last; the batch is an index unless there is only one.
    bool batch = !(s[0] == 1);
    std::vector<int> order{0};
    for (int k = 0; k < d; ++k) order.push_back(2 + k);
    order.push_back(1);
    V rows = permute(x, order);
    if (!batch) rows = reshape(rows, Shape(rows.type().shape.begin() + 1, rows.type().shape.end()));
    Shape at = points;
    if (!batch) at.erase(at.begin());
    Shape spread = at;
    spread.push_back(s[1]);
    std::vector<V> coordinates;  // of spatial axis k; the grid's last axis runs the other way
    for (int k = 0; k < d; ++k) {
        int from = d - 1 - k;
        V g = reshape(slice(grid, d + 1, from, from + 1), at);
        coordinates.push_back(pixels(g, s[static_cast<std::size_t>(2 + k)], c.flag("align_corners"), padding.value()));
    }
    std::vector<V> first;
    if (batch) first.push_back(heddle::iota(c.g, {DType::i32, at}, 0));
    auto corner = [&](const std::vector<V>& position, V weight) {
        std::vector<V> index = first;
        for (int k = 0; k < d; ++k) {
            const Dim& size = s[static_cast<std::size_t>(2 + k)];
            index.push_back(index_of(position[static_cast<std::size_t>(k)], size));
            if (padding == kZeros) weight = select(inside(position[static_cast<std::size_t>(k)], size), weight, zeros_like(weight));
        }
        return gather(rows, index) * expand(weight, {static_cast<int>(at.size())}, spread);
    };
    V total;
    if (mode == kNearest) {
        std::vector<V> position;
        for (V v : coordinates) position.push_back(round(v));
        total = corner(position, lift(c.g, {c.type().dtype, at}, 1));
    } else {
        for (int bits = 0; bits < 1 << d; ++bits) {
            std::vector<V> position;
            V weight;
            for (int k = 0; k < d; ++k) {
                V v = coordinates[static_cast<std::size_t>(k)], low = floor(v), high = v - low;
                bool up = (bits >> (d - 1 - k) & 1) != 0;
                position.push_back(up ? low + 1 : low);
                V w = up ? high : 1 - high;
                weight = weight ? weight * w : w;
            }
            V part = corner(position, weight);
            total = total ? total + part : part;
        }
    }
    if (!batch) total = unsqueeze(total, 0);
    return {move_axis(total, d + 1, 1)};
}
}  // namespace

std::vector<Row> sample_rows() {
    return {
        {"aten.grid_sampler_2d.default", grid_sampler}, {"aten.grid_sampler_3d.default", grid_sampler}, {"aten.grid_sampler.default", grid_sampler},
    };
}

}  // namespace heddle::aten
