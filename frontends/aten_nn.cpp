// Rows: matrix products. A product is library work; what is added to it fuses with what follows.
#include "frontends/aten_table.h"

namespace heddle::aten {

namespace {
V scaled(V x, double by) { return by == 1 ? x : x * by; }
std::optional<V> product(Call& c, const char* a, const char* b) {
    V x = cast(c.tensor(a), c.type().dtype), y = cast(c.tensor(b), c.type().dtype);
    auto r = x.type().rank(), q = y.type().rank();
    if (!is_float(c.type().dtype)) return {};
    if (r == q && (r == 2 || r == 3) && (r == 2 || x.type().shape[0] == y.type().shape[0])) return dot(x, y);
    if (r == 2 && q == 1) return reshape(dot(x, reshape(y, {y.type().shape[0], 1})), c.type().shape);
    if (r == 1 && q == 2) return reshape(dot(reshape(x, {1, x.type().shape[0]}), y), c.type().shape);
    if (r == 1 && q == 1) return sum(x * y, {0});
    if (r > 2 && q == 2) {
        Dim inner = x.type().shape.back(), rows = 1;
        for (int k = 0; k + 1 < r; ++k) rows = rows * x.type().shape[static_cast<std::size_t>(k)];
        return reshape(dot(reshape(x, {rows, inner}), y), c.type().shape);
    }
    return {};
}
std::optional<V> add_product(Call& c, const char* a, const char* b) {
    auto p = product(c, a, b);
    if (!p) return {};
    return scaled(c.operand("self", c.type().dtype, c.type().shape), c.number("beta", 1)) + scaled(*p, c.number("alpha", 1));
}
std::optional<V> linear(Call& c) {
    V x = c.tensor("input"), w = c.tensor("weight");
    if (x.type().rank() < 2 || w.type().rank() != 2 || x.type().dtype != w.type().dtype) return {};
    Dim rows = 1;
    for (int k = 0; k + 1 < x.type().rank(); ++k) rows = rows * x.type().shape[static_cast<std::size_t>(k)];
    V y = reshape(dot(reshape(x, {rows, x.type().shape.back()}), transpose(w)), c.type().shape);
    if (auto b = c.maybe("bias")) y = y + broadcast(*b, c.type().shape);
    return y;
}
}  // namespace

const Table& nn_rows() {
    static const Table rows = {
        {"mm", [](Call& c) { return product(c, "self", "mat2"); }},
        {"bmm", [](Call& c) { return product(c, "self", "mat2"); }},
        {"mv", [](Call& c) { return product(c, "self", "vec"); }},
        {"dot", [](Call& c) { return product(c, "self", "tensor"); }},
        {"matmul", [](Call& c) { return product(c, "self", "other"); }},
        {"addmm", [](Call& c) { return add_product(c, "mat1", "mat2"); }},
        {"baddbmm", [](Call& c) { return add_product(c, "batch1", "batch2"); }},
        {"linear", linear},
    };
    return rows;
}

}  // namespace heddle::aten
