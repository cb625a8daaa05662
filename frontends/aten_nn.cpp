// Products of matrices as `dot`, whose operands have two dimensions, or three with one batch. Law: integers stay calls.
#include "frontends/aten_rules.h"

namespace heddle::aten {

namespace {
V arg(const Call& c, std::string_view name) { return to(c.tensor(name), c.type().dtype); }
// a [.., M, K] x b [K, N] or [.., K, N], as torch.matmul; `shape` is the result's.
V matmul(V a, V b, const Shape& shape) {
    int ra = a.type().rank(), rb = b.type().rank();
    if (ra == 1 && rb == 1) return sum(a * b, {0});
    if (ra == 1) return reshape(matmul(unsqueeze(a, 0), b, [&] {
        Shape s = shape;
        s.insert(s.end() - 1, Dim(1));
        return s;
    }()), shape);
    if (rb == 1) return reshape(matmul(a, unsqueeze(b, 1), [&] {
        Shape s = shape;
        s.push_back(1);
        return s;
    }()), shape);
    Shape sa = a.type().shape, sb = b.type().shape;
    if (rb == 2) {
        Dim rows = 1;
        for (int i = 0; i < ra - 1; ++i) rows = rows * sa[static_cast<std::size_t>(i)];
        return reshape(dot(reshape(a, {rows, sa.back()}), b), shape);
    }
    Shape batch(shape.begin(), shape.end() - 2);
    auto whole = [&](V v, const Shape& s) {
        Shape t = batch;
        t.insert(t.end(), s.end() - 2, s.end());
        return reshape(broadcast(v, t), {numel(batch), s[s.size() - 2], s.back()});
    };
    return reshape(dot(whole(a, sa), whole(b, sb)), shape);
}
Results matmul_(const Call& c) {
    if (!is_float(c.type().dtype)) return {};
    return {matmul(arg(c, "self"), c.n.has("mat2") ? arg(c, "mat2") : c.n.has("vec") ? arg(c, "vec") : c.n.has("tensor") ? arg(c, "tensor") : arg(c, "other"), c.shape())};
}
// beta * self + alpha * product
Results plus_product(const Call& c, V product) {
    double beta = c.number("beta", 1), alpha = c.number("alpha", 1);
    V x = as(c.tensor("self"), c.type());
    if (alpha != 1) product = product * alpha;
    if (beta == 0) return {product};
    return {(beta == 1 ? x : x * beta) + product};
}
Results addmm_(const Call& c) {
    if (!is_float(c.type().dtype)) return {};
    return plus_product(c, matmul(arg(c, "mat1"), arg(c, "mat2"), c.shape()));
}
Results baddbmm_(const Call& c) {
    if (!is_float(c.type().dtype)) return {};
    return plus_product(c, matmul(arg(c, "batch1"), arg(c, "batch2"), c.shape()));
}
Results addmv_(const Call& c) {
    if (!is_float(c.type().dtype)) return {};
    return plus_product(c, matmul(arg(c, "mat"), arg(c, "vec"), c.shape()));
}
Results addbmm_(const Call& c) {
    if (!is_float(c.type().dtype)) return {};
    Shape each = c.shape();
    each.insert(each.begin(), c.tensor("batch1").type().shape[0]);
    return plus_product(c, sum(matmul(arg(c, "batch1"), arg(c, "batch2"), each), {0}));
}
Results addr_(const Call& c) {
    if (!is_float(c.type().dtype)) return {};
    V a = arg(c, "vec1"), b = arg(c, "vec2");
    return plus_product(c, broadcast(unsqueeze(a, 1), c.shape()) * broadcast(b, c.shape()));
}
Results linear_(const Call& c) {
    if (!is_float(c.type().dtype)) return {};
    V w = arg(c, "weight"), x = arg(c, "input");
    V y = matmul(x, w.type().rank() == 2 ? transpose(w) : w, c.shape());
    return {c.given("bias") ? y + as(c.tensor("bias"), c.type()) : y};
}
Results outer_(const Call& c) {
    V a = arg(c, "self"), b = arg(c, "vec2");
    return {broadcast(unsqueeze(a, 1), c.shape()) * broadcast(b, c.shape())};
}
Results cross_(const Call& c) {
    V a = as(c.tensor("self"), c.type()), b = as(c.tensor("other"), c.type());
    int axis = c.axis("dim", c.type().rank(), -1);
    auto part = [&](V v, int k) { return slice(v, axis, k, k + 1); };
    std::vector<V> parts;
    for (int k = 0; k < 3; ++k) {
        int p = (k + 1) % 3, q = (k + 2) % 3;
        parts.push_back(part(a, p) * part(b, q) - part(a, q) * part(b, p));
    }
    return {concat(parts, axis)};
}
}  // namespace

std::vector<Row> nn_rows() {
    return {
        {"aten.mm.default", matmul_}, {"aten.bmm.default", matmul_}, {"aten.matmul.default", matmul_}, {"aten.mv.default", matmul_},
        {"aten.dot.default", matmul_}, {"aten.addmm.default", addmm_}, {"aten.baddbmm.default", baddbmm_}, {"aten.addmv.default", addmv_}, {"aten.vdot.default", matmul_},
        {"aten.addbmm.default", addbmm_}, {"aten.addr.default", addr_},
        {"aten.linear.default", linear_}, {"aten.outer.default", outer_}, {"aten.ger.default", outer_}, {"aten.linalg_cross.default", cross_},
    };
}

}  // namespace heddle::aten
