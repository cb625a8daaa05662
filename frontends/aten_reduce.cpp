// Reductions, scans, normalisations and losses. Law: gradients at ties, zeros and empty slices are PyTorch's.
#include <cmath>

#include "frontends/aten_rules.h"

namespace heddle::aten {

namespace {
// A fold over `axes` in the result's dtype, given back in the result's shape (keepdim or not).
struct Over {
    V x;
    std::vector<int> axes;
    Shape before;
    explicit Over(const Call& c, std::string_view dims = "dim") : x(to(c.tensor("self"), c.type().dtype)), axes(c.axes(dims, x.type().rank())), before(x.type().shape) {}
    V all(V folded) const { return back(folded, axes, before); }
};
Results sum_(const Call& c) {
    Over o(c);
    return {reshape(sum(o.x, o.axes), c.shape())};
}
V mean_of(V x, const std::vector<int>& axes) {
    V s = sum(x, axes), n = count(x, axes);
    return s / broadcast(n, s.type().shape);
}
Results mean_(const Call& c) {
    Over o(c);
    return {reshape(mean_of(o.x, o.axes), c.shape())};
}
Results prod_(const Call& c) {
    V x = to(c.tensor("self"), c.type().dtype);
    if (!c.given("dim") || x.type().rank() == 0) x = reshape(x, {numel(x.type().shape)});
    return {reshape(prod(x, {c.given("dim") ? c.axis("dim", x.type().rank()) : 0}), c.shape())};
}
template <V (*fold)(V, std::vector<int>)>
Results extremum_(const Call& c) {
    Over o(c);
    if (c.type().dtype == DType::b1) return {reshape(to(fold(cast(o.x, DType::i32), o.axes), DType::b1), c.shape())};
    return {reshape(fold(o.x, o.axes), c.shape())};
}
// The gradient of an extremum, shared by the elements that reach it; where it is a NaN, by the NaNs.
V shared_evenly(V x, V top, const std::vector<int>& axes) {
    V hit = or_(eq(x, back(top, axes, x.type().shape)), ne(x, x));
    return sum(select(hit, x, zeros_like(x)), axes) / stop_grad(sum(cast(hit, x.type().dtype), axes));
}
// Over all elements.
template <V (*fold)(V, std::vector<int>)>
Results extremum_of_all(const Call& c) {
    V x = c.tensor("self");
    auto axes = axes_from_to(0, x.type().rank());
    if (!is_float(x.type().dtype) || axes.empty()) return extremum_<fold>(c);
    V top = fold(x, axes);
    return {surrogate(top, shared_evenly(x, top, axes))};
}
Results aminmax_(const Call& c) {
    V x = c.tensor("self");
    if (x.type().dtype == DType::b1) return {};
    auto axes = x.type().rank() == 0 ? std::vector<int>{} : c.given("dim") ? std::vector<int>{c.axis("dim", x.type().rank())} : axes_from_to(0, x.type().rank());
    return {reshape(amin(x, axes), c.shape()), reshape(amax(x, axes), c.shape())};
}
Results nansum_(const Call& c) {
    V given = c.tensor("self");
    if (is_float(given.type().dtype)) given = sloped(select(ne(given, given), zeros_like(given), given), given, cast(eq(given, given), given.type().dtype));
    return {reshape(sum(to(given, c.type().dtype), c.axes("dim", given.type().rank())), c.shape())};
}
// The first place along an axis where the extremum stands; NaN counts as one.
V place_of(V x, V top, int axis) {
    V hit = eq(x, back(top, {axis}, x.type().shape));
    if (is_float(x.type().dtype)) hit = or_(hit, ne(x, x));
    V at = iota(*x.graph, DType::i64, x.type().shape, axis), none_here = number(*x.graph, at.type(), x.type().shape[static_cast<std::size_t>(axis)]);
    return amin(select(hit, at, none_here), {axis});
}
template <V (*fold)(V, std::vector<int>)>
Results place_(const Call& c) {
    V x = stop_grad(c.tensor("self"));
    if (x.type().rank() == 0) return {lift(c.g, c.type(), 0)};
    if (x.type().dtype == DType::b1) x = cast(x, DType::i32);
    int axis = c.given("dim") ? c.axis("dim", x.type().rank()) : 0;
    if (!c.given("dim")) x = reshape(x, {numel(x.type().shape)});
    return {reshape(place_of(x, fold(x, {axis}), axis), c.shape())};
}
// Values and places. The gradient goes to the place alone.
template <V (*fold)(V, std::vector<int>)>
Results extremum_dim(const Call& c) {
    V x = c.tensor("self");
    if (x.type().rank() == 0) return {x, lift(c.g, c.type(1), 0)};
    int axis = c.axis("dim", x.type().rank());
    V y = stop_grad(x.type().dtype == DType::b1 ? cast(x, DType::i32) : x), at = place_of(y, fold(y, {axis}), axis);
    Shape one = x.type().shape;
    one[static_cast<std::size_t>(axis)] = 1;
    std::vector<V> places;
    for (int a = 0; a < x.type().rank(); ++a) places.push_back(a == axis ? reshape(at, one) : iota(c.g, DType::i64, one, a));
    return {reshape(gather(x, places), c.shape()), reshape(at, c.shape())};
}
template <bool every>
Results any_(const Call& c) {
    V x = to(c.tensor("self"), DType::b1);
    V hits = sum(cast(every ? not_(x) : x, DType::i32), c.axes("dim", x.type().rank()));
    V zero = zeros_like(hits);
    return {reshape(every ? eq(hits, zero) : gt(hits, zero), c.shape())};
}
Results count_nonzero_(const Call& c) {
    V x = to(c.tensor("self"), DType::b1);
    return {sum(cast(x, DType::i64), c.axes("dim", x.type().rank()))};
}
V norm_of(V x, const std::vector<int>& axes, double p) {
    const Shape before = x.type().shape;
    Dim terms = 1;
    for (int a : axes) terms = terms * before[static_cast<std::size_t>(a)];
    const bool one = terms == 1 && p != 0;  // then it is |x|, also where a power over- or underflows
    V size = abs(x);
    if (p == 1) return sum(size, axes);
    if (p == 0) return sum(to(ne(x, zeros_like(x)), x.type().dtype), axes);
    if (p == 2 && !one) return root(sum(x * x, axes));
    if (std::isinf(p)) {
        V top = p > 0 ? amax(size, axes) : amin(size, axes);
        return surrogate(top, shared_evenly(size, top, axes));
    }
    V s = one ? none() : sum(pow(size, like(x, p)), axes), norm = one ? sum(size, axes) : pow(s, like(s, 1 / p)), zero = zeros_like(norm), absent = eq(x, zeros_like(x));
    if (p == 2) return surrogate(norm, sum(x * stop_grad(select(absent, zeros_like(x), x / back(norm, axes, before))), axes));
    // Its powers over the norm's.
    V slope = p < 1 ? select(absent, zeros_like(x), sign(x) * pow(size, like(x, p - 1))) : p < 2 ? sign(x) * pow(size, like(x, p - 1)) : x * pow(size, like(x, p - 2));
    V path = sum(x * stop_grad(slope), axes);
    if (p < 1) return surrogate(norm, path * stop_grad(pow(norm, like(norm, 1 - p))));
    return surrogate(norm, path / stop_grad(select(eq(norm, zero), like(norm, kInf), pow(norm, like(norm, p - 1)))));
}
Results norm_(const Call& c) {
    Over o(c);
    if (!is_float(c.type().dtype)) return {};
    double p = c.number("p", c.number("ord", 2));
    if (o.axes.empty()) return {p == 0 ? to(ne(o.x, zeros_like(o.x)), c.type().dtype) : abs(o.x)};
    return {reshape(norm_of(o.x, o.axes, p), c.shape())};
}
V var_of(V x, const std::vector<int>& axes, double correction) {
    Shape before = x.type().shape;
    V d = x - back(mean_of(x, axes), axes, before), n = count(x, axes);
    n = broadcast(clamp_min(n - correction, like(n, 0)), sum(d, axes).type().shape);
    return surrogate(sum(d * d, axes) / n, sum(x * stop_grad(d), axes) * stop_grad(2 / n));
}
double correction(const Call& c) { return c.given("unbiased") ? c.flag("unbiased") : c.number("correction", 1); }
Results var_(const Call& c) {
    Over o(c);
    return {reshape(var_of(o.x, o.axes, correction(c)), c.shape())};
}
Results std_(const Call& c) {
    Over o(c);
    return {reshape(root(var_of(o.x, o.axes, correction(c))), c.shape())};
}
Results std_mean_(const Call& c) {
    Over o(c);
    return {reshape(root(var_of(o.x, o.axes, correction(c))), c.shape()), reshape(mean_of(o.x, o.axes), c.shape())};
}
Results var_mean_(const Call& c) {
    Over o(c);
    return {reshape(var_of(o.x, o.axes, correction(c)), c.shape()), reshape(mean_of(o.x, o.axes), c.shape())};
}
Results logsumexp_(const Call& c) {
    Over o(c);
    V top = stop_grad(amax(o.x, o.axes));
    top = select(eq(abs(top), like(top, kInf)), zeros_like(top), top);
    V y = top + log(sum(exp(o.x - o.all(top)), o.axes));
    return {reshape(surrogate(y, sum(o.x * stop_grad(exp(o.x - o.all(y))), o.axes)), c.shape())};
}

// ---- scans
template <bool product>
Results cumulative(const Call& c) {
    V x = to(c.tensor("self"), c.type().dtype);
    if (x.type().rank() == 0) return {x};
    int axis = c.axis("dim", x.type().rank());
    return {product ? scan(x, zeros_like(x), axis, 0, false, 1) : scan(like(x, 1), x, axis, 0, false, 0)};
}

// ---- normalisations
// What a softmax y of x passes back: y * g - y * sum(y * g); parts of it by the chain rule wouldn't cancel where y is nearly 1.
V of_softmax(V y, V x, int axis) {
    V d = stop_grad(y);
    return surrogate(y, (x - back(sum(d * x, {axis}), {axis}, x.type().shape)) * d);
}
V softmax_of(V x, int axis, bool log_of) {
    if (x.type().rank() == 0) return log_of ? zeros_like(x) : like(x, 1);
    Shape s = x.type().shape;
    V shifted = x - back(stop_grad(amax(x, {axis})), {axis}, s), e = exp(shifted), total = sum(e, {axis});
    return log_of ? shifted - back(log(total), {axis}, s) : of_softmax(e / back(total, {axis}, s), x, axis);
}
template <bool log_of>
Results softmax_(const Call& c) {
    V x = to(c.tensor("self"), c.type().dtype);
    return {softmax_of(x, c.axis("dim", x.type().rank()), log_of)};
}
// A row of nothing but -inf gives zeros.
Results safe_softmax_(const Call& c) {
    V x = to(c.tensor("self"), c.type().dtype);
    if (x.type().rank() == 0) return {};
    const int axis = c.axis("dim", x.type().rank());
    const Shape s = x.type().shape;
    V top = stop_grad(amax(x, {axis}));
    top = select(eq(top, like(top, -kInf)), zeros_like(top), top);
    V e = exp(x - back(top, {axis}, s)), total = sum(e, {axis});
    return {of_softmax(e / back(select(eq(total, zeros_like(total)), like(total, 1), total), {axis}, s), x, axis)};
}
V affine(V x, V weight, V bias) {
    if (weight) x = x * as(weight, x.type());
    if (bias) x = x + as(bias, x.type());
    return x;
}
// Mean, 1/deviation and the normalised value over `axes`.
struct Normalised {
    V mean, rstd, y;
    Normalised(V x, const std::vector<int>& axes, double eps) {
        Shape s = x.type().shape;
        mean = mean_of(x, axes);
        V d = x - back(mean, axes, s), v = mean_of(d * d, axes);
        rstd = rsqrt(v + eps);
        y = d * back(rstd, axes, s);
    }
};
DType wide(DType t) { return t < DType::f32 ? DType::f32 : t; }
std::vector<Results> layer_norm_of(const Call& c) {
    V x = cast(c.tensor("input"), wide(c.type().dtype));
    int r = x.type().rank(), k = static_cast<int>(c.dims("normalized_shape").size());
    auto axes = axes_from_to(r - k, r);
    Shape s = x.type().shape;
    Normalised n(x, axes, c.number("eps", 1e-5));
    V y = cast(affine(n.y, c.tensor("weight"), c.tensor("bias")), c.type().dtype);
    return {{y}, {y, keep(n.mean, axes, s), keep(n.rstd, axes, s)}};
}
Results layer_norm_(const Call& c) { return layer_norm_of(c)[0]; }
Results native_layer_norm_(const Call& c) { return layer_norm_of(c)[1]; }
// weight or bias [C] of x [N, C, ..]
V per_channel(V w, V x) {
    if (!w) return w;
    Shape s(static_cast<std::size_t>(x.type().rank()), Dim(1));
    s[1] = x.type().shape[1];
    return broadcast(reshape(cast(w, x.type().dtype), s), x.type().shape);
}
V channel_affine(V y, V weight, V bias) { return affine(y, per_channel(weight, y), per_channel(bias, y)); }
Results group_norm_(const Call& c) {
    V x = cast(c.tensor("input"), wide(c.type().dtype));
    Shape s = x.type().shape;
    Dim groups = c.dim("num_groups");
    auto per = s[1].divided_by(groups);
    if (!per) return {};
    Shape split{s[0], groups, *per};
    split.insert(split.end(), s.begin() + 2, s.end());
    V y = reshape(Normalised(reshape(x, split), axes_from_to(2, static_cast<int>(split.size())), c.number("eps", 1e-5)).y, s);
    return {cast(channel_affine(y, c.tensor("weight"), c.tensor("bias")), c.type().dtype)};
}
// The same over [N, C, HxW] whatever the shape, with the statistics [N, groups].
Results native_group_norm_(const Call& c) {
    V x = cast(c.tensor("input"), wide(c.type().dtype));
    Shape s = x.type().shape;
    Dim groups = c.dim("group");
    auto per = c.dim("C").divided_by(groups);
    if (!per || s.size() < 2 || s[0] != c.dim("N") || s[1] != c.dim("C")) return {};
    Normalised n(reshape(x, {s[0], groups, *per * c.dim("HxW")}), {2}, c.number("eps", 1e-5));
    return {cast(channel_affine(reshape(n.y, s), c.tensor("weight"), c.tensor("bias")), c.type().dtype), n.mean, n.rstd};
}
std::vector<int> all_but_channel(V x) {
    auto axes = axes_from_to(0, x.type().rank());
    axes.erase(axes.begin() + 1);
    return axes;
}
Results batch_norm_eval(const Call& c) {
    if (c.type().rank() < 2) return {};
    V x = cast(c.tensor("input"), wide(c.type().dtype)), var = c.tensor("running_var");
    V y = (x - per_channel(c.tensor("running_mean"), x)) * per_channel(rsqrt(var + c.number("eps", 1e-5)), x);
    Results r{cast(channel_affine(y, c.tensor("weight"), c.tensor("bias")), c.type().dtype)};
    for (std::size_t k = 1; k <= c.n.more.size(); ++k) r.push_back(lift(c.g, c.type(k), 0));
    return r;
}
Results batch_norm_train(const Call& c) {
    if (c.type().rank() < 2 || (c.given("running_mean") && !c.flag("training"))) return {};
    V x = cast(c.tensor("input"), wide(c.type().dtype));
    auto axes = all_but_channel(x);
    Normalised n(x, axes, c.number("eps", 1e-5));
    Results r{cast(channel_affine(n.y, c.tensor("weight"), c.tensor("bias")), c.type().dtype), n.mean, n.rstd};
    if (c.n.more.size() == 4) {
        double m = c.number("momentum", 0.1);
        V mean = c.tensor("running_mean"), var = c.tensor("running_var"), now = stop_grad(var_of(x, axes, 1));
        r.push_back(mean * (1 - m) + cast(stop_grad(n.mean), mean.type().dtype) * m);
        r.push_back(var * (1 - m) + cast(now, var.type().dtype) * m);
    }
    return r;
}

// ---- losses
V reduced(V loss, const Call& c) {
    if (c.dim("reduction", 1) == 0) return loss;
    auto axes = axes_from_to(0, loss.type().rank());
    return c.dim("reduction", 1) == 1 ? mean_of(loss, axes) : sum(loss, axes);
}
// self and target in one type and shape.
std::pair<V, V> both(const Call& c) {
    V a = c.tensor("self"), b = c.tensor("target");
    Type t{c.type().dtype, broadcast_shape(a.type().shape, b.type().shape)};
    return {as(a, t), as(b, t)};
}
Results mse_loss_(const Call& c) {
    auto [a, b] = both(c);
    V d = a - b;
    return {reduced(sloped(d * d, d, d * 2), c)};
}
Results l1_loss_(const Call& c) {
    auto [a, b] = both(c);
    return {reduced(abs(a - b), c)};
}
// -1 up to -bound, 1 from bound on, `near` between.
V between(V e, double bound, V near) { return select(le(e, like(e, -bound)), like(e, -1), select(ge(e, like(e, bound)), like(e, 1), near)); }
Results smooth_l1_loss_(const Call& c) {
    auto [a, b] = both(c);
    double beta = c.number("beta", 1);
    V e = a - b, d = abs(e);
    if (beta == 0) return {reduced(d, c)};
    return {reduced(sloped(select(lt(d, like(d, beta)), d * d * (0.5 / beta), d - 0.5 * beta), e, between(e, beta, e / beta)), c)};
}
Results huber_loss_(const Call& c) {
    auto [a, b] = both(c);
    double delta = c.number("delta", 1);
    V e = a - b, d = abs(e);
    return {reduced(sloped(select(le(d, like(d, delta)), d * d * 0.5, (d - 0.5 * delta) * delta), e, between(e, delta, e / delta) * delta), c)};
}
// The loss times its weight, if it has one, with gradients of these slopes times that.
V weighted(V loss, V x, V slope, V t, V slope_of_t, const Call& c) {
    if (V w = c.tensor("weight")) {
        w = as(w, loss.type());
        loss = loss * w, x = x * stop_grad(w), t = t * stop_grad(w);
    }
    return surrogate(loss, x * stop_grad(slope) + t * stop_grad(slope_of_t));
}
Results binary_cross_entropy_(const Call& c) {
    auto [x, t] = both(c);
    auto at_least = [](V v, double bound) { return clamp_min(v, like(v, bound)); };
    V loss = (t - 1) * at_least(log1p(-x), -100) - t * at_least(log(x), -100), slope = (x - t) / at_least((1 - x) * x, static_cast<double>(1e-12f));
    return {reduced(weighted(loss, x, slope, t, log(1 - x) - log(x), c), c)};
}
Results binary_cross_entropy_with_logits_(const Call& c) {
    auto [x, t] = both(c);
    V low = select(lt(x, zeros_like(x)), x, zeros_like(x)), more = log1p(exp(-abs(x))), log_sigmoid = low - more, s = sigmoid(x);
    V p = c.tensor("pos_weight");
    if (!p) return {reduced(weighted((1 - t) * x - log_sigmoid, x, s - t, t, -x, c), c)};
    p = as(p, t.type());
    V of_minus_x = select(lt(x, zeros_like(x)), zeros_like(x), -x) - more;
    return {reduced(weighted((1 - t) * x - ((p - 1) * t + 1) * log_sigmoid, x, (p * t + 1 - t) * s - p * t, t, of_minus_x - log_sigmoid * p, c), c)};
}
Results soft_margin_loss_(const Call& c) {
    auto [x, t] = both(c);
    V z = exp(-(t * x));
    return {reduced(sloped(log1p(z), x, -(t * z) / (z + 1)), c)};
}
Results kl_div_(const Call& c) {
    auto [x, t] = both(c);
    if (c.flag("log_target")) return {reduced(exp(t) * (t - x), c)};
    return {reduced(xlogy(t, t) - t * x, c)};
}
Results trace_(const Call& c) {
    V x = to(c.tensor("self"), c.type().dtype);
    V hit = eq(iota(c.g, DType::i64, x.type().shape, 0), iota(c.g, DType::i64, x.type().shape, 1));
    return {sum(select(hit, x, zeros_like(x)), {0, 1})};
}
Results dist_(const Call& c) {
    V a = c.tensor("self"), b = c.tensor("other");
    Type t{c.type().dtype, broadcast_shape(a.type().shape, b.type().shape)};
    V d = as(a, t) - as(b, t);
    return {norm_of(d, axes_from_to(0, t.rank()), c.number("p", 2))};
}
}  // namespace

std::vector<Row> reduce_rows() {
    return {
        {"aten.sum.default", sum_}, {"aten.sum.dim_IntList", sum_}, {"aten.mean.default", mean_}, {"aten.mean.dim", mean_},
        {"aten.prod.default", prod_}, {"aten.prod.dim_int", prod_}, {"aten.amax.default", extremum_<amax>}, {"aten.amin.default", extremum_<amin>},
        {"aten.argmax.default", place_<amax>}, {"aten.argmin.default", place_<amin>}, {"aten.max.dim", extremum_dim<amax>}, {"aten.min.dim", extremum_dim<amin>},
        {"aten.max.default", extremum_of_all<amax>}, {"aten.min.default", extremum_of_all<amin>}, {"aten.any.default", any_<false>}, {"aten.any.dim", any_<false>},
        {"aten.any.dims", any_<false>}, {"aten.all.default", any_<true>}, {"aten.all.dim", any_<true>}, {"aten.all.dims", any_<true>},
        {"aten.count_nonzero.default", count_nonzero_}, {"aten.count_nonzero.dim_IntList", count_nonzero_},
        {"aten.norm.Scalar", norm_}, {"aten.norm.ScalarOpt_dim", norm_}, {"aten.norm.ScalarOpt_dtype", norm_}, {"aten.norm.ScalarOpt_dim_dtype", norm_},
        {"aten.linalg_vector_norm.default", norm_}, {"aten.var.correction", var_}, {"aten.var.dim", var_}, {"aten.var.default", var_},
        {"aten.std.correction", std_}, {"aten.std.dim", std_}, {"aten.std.default", std_}, {"aten.var_mean.correction", var_mean_}, {"aten.std_mean.correction", std_mean_},
        {"aten.logsumexp.default", logsumexp_}, {"aten.cumsum.default", cumulative<false>}, {"aten.cumprod.default", cumulative<true>},
        {"aten.softmax.int", softmax_<false>}, {"aten._softmax.default", softmax_<false>}, {"aten.log_softmax.int", softmax_<true>}, {"aten._log_softmax.default", softmax_<true>},
        {"aten.layer_norm.default", layer_norm_}, {"aten.native_layer_norm.default", native_layer_norm_}, {"aten.group_norm.default", group_norm_},
        {"aten.native_group_norm.default", native_group_norm_},
        {"aten._native_batch_norm_legit_no_training.default", batch_norm_eval}, {"aten._native_batch_norm_legit.no_stats", batch_norm_train},
        {"aten._native_batch_norm_legit_functional.default", batch_norm_train},
        {"aten.mse_loss.default", mse_loss_}, {"aten.l1_loss.default", l1_loss_}, {"aten.smooth_l1_loss.default", smooth_l1_loss_}, {"aten.huber_loss.default", huber_loss_},
        {"aten.binary_cross_entropy.default", binary_cross_entropy_}, {"aten.binary_cross_entropy_with_logits.default", binary_cross_entropy_with_logits_},
        {"aten.kl_div.default", kl_div_}, {"aten.soft_margin_loss.default", soft_margin_loss_}, {"aten._safe_softmax.default", safe_softmax_},
        {"aten.aminmax.default", aminmax_}, {"aten.nansum.default", nansum_},
        {"aten.trace.default", trace_}, {"aten.dist.default", dist_},
    };
}

}  // namespace heddle::aten
