// The table's rows: pointwise, views, reductions, products.
#include "tests/frontends_cases.h"

#include <ATen/ATen.h>
#include <ATen/TensorIndexing.h>
#include <ATen/core/grad_mode.h>

namespace heddle::testing {

namespace {
using at::indexing::Slice;
using T = at::Tensor;
using X = const Tensors&;
constexpr double kPi = 3.14159265358979323846;

auto one(double low = -2, double high = 2) {
    return [=](std::int64_t n) { return Tensors{real({n, 3}, low, high)}; };
}
auto two(double low = -2, double high = 2) {
    return [=](std::int64_t n) { return Tensors{real({n, 3}, low, high), real({n, 3}, low, high)}; };
}
template <class F>
Callable map(F f) {
    return [=](X x) { return Tensors{f(x[0])}; };
}
template <class F>
Callable zip(F f) {
    return [=](X x) { return Tensors{f(x[0], x[1])}; };
}
const std::vector<std::pair<int, int>> kOne{{0, 0}}, kTwo{{0, 0}, {1, 0}};
}  // namespace

at::Tensor real(std::vector<std::int64_t> sizes, double low, double high, bool grad) {
    return (at::rand(sizes, at::kDouble) * (high - low) + low).set_requires_grad(grad);
}
at::Tensor whole(std::vector<std::int64_t> sizes, std::int64_t low, std::int64_t high) { return at::randint(low, high, sizes, at::kLong); }

std::vector<Case> pointwise_cases() {
    return {
        {"add", two(), zip([](T a, T b) { return a + b; }), kTwo},
        {"add_alpha", two(), zip([](T a, T b) { return a.add(b, 2); }), kTwo},
        {"sub_broadcast", [](std::int64_t n) { return Tensors{real({n, 3}), real({3})}; }, zip([](T a, T b) { return a - b; }), kOne},
        {"rsub", one(), map([](T a) { return at::rsub(a, 1.5, 2); }), kOne},
        {"scalar_left", one(), map([](T a) { return 1.5 - a; }), kOne},
        {"mul_div", two(0.5, 2), zip([](T a, T b) { return a * b / (a + 3) * 0.25; }), kTwo},
        {"div_floor", two(0.5, 2), zip([](T a, T b) { return a.div(b, "floor") + a.div(b, "trunc"); }), kTwo},
        {"remainder", two(0.5, 2), zip([](T a, T b) { return a.remainder(b) + a.fmod(b) + a.remainder(0.7); }), kTwo},
        {"pow2", one(), map([](T a) { return a.pow(2) + a.pow(3) + a.square(); }), kOne},
        {"pow_half", one(0.2, 2), map([](T a) { return a.pow(0.5) + a.pow(-1) + a.pow(-2) + a.pow(-0.5) + a.pow(1.7); }), kOne},
        {"pow_tensor", two(0.3, 2), zip([](T a, T b) { return a.pow(b) + at::pow(2.0, b); }), kTwo},
        {"pow_zero", one(), map([](T a) { return a.pow(0) + a; }), kOne},
        {"unary", one(0.2, 0.9), map([](T a) { return a.sqrt() + a.exp() + a.log() + a.sin() + a.cos() + a.tan() + a.asin() + a.acos() + a.atan() + a.rsqrt() + a.log1p() + a.expm1(); }), kOne},
        {"inverse_hyperbolic", one(0.2, 0.9), map([](T a) { return a.asinh() + (a + 1).acosh() + a.atanh() + (-a * 4).asinh() - (-a).atanh(); }), kOne},
        {"unary2", one(0.2, 0.9), map([](T a) { return a.abs() + a.neg() + a.sinh() + a.cosh() + a.tanh() + a.erf() + a.erfc() + a.log2() + a.log10() + a.exp2() + a.reciprocal() + a.logit(); }), kOne},
        {"rounding", one(0.1, 0.4), map([](T a) { return a + a.floor() + a.ceil() + a.round() + a.trunc() + a.frac() + a.sign() + a.sgn(); }), kOne},
        {"sigmoid_softplus", one(-30, 30), map([](T a) { return a.sigmoid() + at::softplus(a) + at::softplus(a, 2, 10); }), kOne},
        {"softplus_far", one(-800, 800), map([](T a) { return at::softplus(a - 10); }), kOne},
        {"relu", one(), map([](T a) { return a.relu() + at::relu6(a * 4) + at::leaky_relu(a, 0.1) + at::hardtanh(a); }), kOne},
        {"relu_at_zero", one(), map([](T a) { T z = a * 0; return z.relu() + z.abs() + at::leaky_relu(z) + at::clamp(z, 0, 1) + at::clamp_min(z, 0) + at::hardtanh(z, 0, 1); }), kOne},
        {"elu", one(-800, 800), map([](T a) { return at::elu(a) + at::selu(a) + at::celu(a, 0.5); }), kOne},
        {"silu_gelu", one(), map([](T a) { return at::silu(a) + at::gelu(a) + at::gelu(a, "tanh") + at::mish(a); }), kOne},
        {"hard", one(-5, 5), map([](T a) { return at::hardswish(a) + at::hardsigmoid(a.detach()) + at::softshrink(a) + at::hardshrink(a) + at::threshold(a, 0.3, 2); }), kOne},
        {"log_sigmoid", one(-800, 800), map([](T a) { return at::log_sigmoid(a); }), kOne},
        {"prelu_glu", [](std::int64_t n) { return Tensors{real({n, 4}), real({4})}; }, zip([](T a, T w) { return at::prelu(a, w).sum() + at::glu(a, 1).sum(); }), kOne},
        {"clamp", one(), map([](T a) { return a.clamp(-1, 1) + a.clamp_min(0.3) + a.clamp_max(0.1); }), kOne},
        {"clamp_tensor", two(), zip([](T a, T b) { return at::clamp(a, b, b + 1) + at::clamp_min(a, b); }), kTwo},
        {"max_min", two(), zip([](T a, T b) { return at::maximum(a, b) * at::minimum(a, b) + at::fmax(a, b) + at::fmin(a, b); }), kTwo},
        {"where", two(), zip([](T a, T b) { return at::where(a > b, a, b * 2) + at::where(a > 0, a, 0.5) + at::where(b < 0.2, 1.0, b); }), kTwo},
        {"compare", two(), [](X x) { return Tensors{x[0] > x[1], x[0] <= 0.5, x[0] == x[0], x[0].ne(x[1]), (x[0] < 0).logical_or(x[1] < 0), (x[0] < 0).bitwise_and(x[1] < 0), (x[0] < 0).bitwise_not()}; }, kTwo},
        {"logic", two(), [](X x) { T a = x[0] > 0, b = x[1] > 0; return Tensors{a & b, a | b, a ^ b, ~a, a.logical_not(), x[0].logical_and(x[1]), a == b, a * b, a + b}; }, kTwo},
        {"bool_times_float", two(), zip([](T a, T b) { return (a > 0) * b + (b > 0).to(at::kDouble); }), kTwo},
        {"integers", [](std::int64_t n) { return Tensors{whole({n, 3}, -9, 9), whole({n, 3}, 1, 5)}; }, [](X x) { return Tensors{x[0] + x[1] * 2, x[0].floor_divide(x[1]), x[0].remainder(x[1]), x[0] / x[1], x[0].pow(2), x[0].abs(), x[0].sum(), x[0].to(at::kDouble).mean(), x[0].clamp(-2, 3), x[0] > 0.5, x[0] * 0.5, x[0].floor_divide(-4), x[0].remainder(3), x[0].div(x[1], "trunc"), x[0].fmod(x[1]), x[0].div(-2, "trunc"), x[0].fmod(4)}; }, kTwo},
        {"mixed_types", [](std::int64_t n) { return Tensors{real({n, 3}), real({n, 3}).to(at::kFloat).detach()}; }, [](X x) { return Tensors{x[0] + x[1], x[1] * 0.1, x[1] + x[0].sum().detach(), (x[1] > x[0]), x[1].to(at::kDouble) * x[0]}; }, kTwo},
        {"lerp", two(), zip([](T a, T b) { return a.lerp(b, 0.3) + a.lerp(b, 0.7) + at::lerp(a, b, a); }), kTwo},
        {"addcmul", two(0.5, 2), zip([](T a, T b) { return at::addcmul(a, a, b, 0.5) + at::addcdiv(a, a, b, 2); }), kTwo},
        {"isnan", one(), [](X x) { return Tensors{x[0].isnan(), (x[0] / 0).isinf(), x[0].isfinite(), at::nan_to_num(x[0])}; }, kOne},
        {"masked_fill", two(), zip([](T a, T b) { return a.masked_fill(b > 0, -1e9).softmax(-1) + a.masked_fill(b > 1, 0); }), kTwo},
        {"atan2_hypot", two(0.3, 2), zip([](T a, T b) { return at::atan2(a, b) + at::hypot(a, b) + at::logaddexp(a, b) + at::xlogy(a, b); }), kTwo},
        {"positional", one(), map([](T a) { T f = at::pow(2.0, at::arange(2, a.options().requires_grad(false))); T y = (a.unsqueeze(-1) * f).reshape({a.size(0), -1}); return at::cat({y.sin(), y.cos()}, -1); }), kOne},
        {"trig_scale", one(), map([](T a) { return at::sinc(a) + at::deg2rad(a) * kPi + at::rad2deg(a); }), kOne},
        {"detach", one(), map([](T a) { return a * a.detach() + a.exp().detach(); }), kOne},
        {"no_grad", one(), map([](T a) { T w; { at::NoGradGuard g; w = (a * 2).exp(); } return a * w; }), kOne},
    };
}

std::vector<Case> view_cases() {
    return {
        {"views", one(), map([](T a) { return a.view({-1}).reshape({a.size(0), 3}).permute({1, 0}).transpose(0, 1).t().t().unsqueeze(1).squeeze(1); }), kOne},
        {"expand", one(), map([](T a) { return a.unsqueeze(1).expand({-1, 4, -1}) * a.unsqueeze(0).expand_as(at::ones({a.size(0), a.size(0), 3})).sum(); }), kOne},
        {"select_slice", one(), map([](T a) { return a.select(1, -1) + a.slice(1, 0, 1).squeeze(1) + a.narrow(1, 1, 1).squeeze(1) + a.index({Slice(), 0}); }), kOne},
        {"neighbours", [](std::int64_t n) { return Tensors{real({1, 2, n, 6})}; }, map([](T a) { return (a.slice(2, 1) - a.slice(2, 0, a.size(2) - 1)).pow(2).sum() / ((a.size(2) - 1) * 6) + (a.slice(3, 1) - a.slice(3, 0, -1)).pow(2).sum(); }), {{0, 2}}},
        {"slice_step", one(), map([](T a) { return a.slice(1, 0, 3, 2); }), kOne},
        {"cat_stack", two(), zip([](T a, T b) { return at::cat({a, b * 2, a.slice(1, 0, 2)}, 1).sum(1, true) + at::stack({a, b}, -1).sum(-1); }), kTwo},
        {"cat_rows", two(), zip([](T a, T b) { return at::cat({a, b, at::zeros({1, 3}, at::kDouble)}); }), kTwo},
        {"split", one(), map([](T a) { auto p = a.split(2, 1); auto q = a.chunk(3, 1); auto u = a.unbind(1); return p[0].sum(1) * p[1].sum(1) + q[2].squeeze(1) + u[1]; }), kOne},
        {"flip_roll", one(), map([](T a) { return a.flip({1}) + a.roll(1, 1) + a.roll({1}, {0}) + a.flip({0, 1}); }), kOne},
        {"pad", one(), map([](T a) { return at::constant_pad_nd(a, {1, 2, 0, 1}, 0.5).sum() + at::constant_pad_nd(a, {1, 1}).pow(2).sum() + at::constant_pad_nd(a, {-1, 2}).exp().sum(); }), kOne},
        {"pad_reflect", [](std::int64_t n) { return Tensors{real({n, 4, 5})}; }, map([](T a) { return at::reflection_pad1d(a, {2, 3}).exp().sum() + at::reflection_pad2d(a, {1, 4, 3, 0}); }), kOne},
        {"pad_replicate", [](std::int64_t n) { return Tensors{real({2, 3, n, 5})}; }, map([](T a) { return at::replication_pad2d(a, {2, 3, 1, 0}).exp() + at::replication_pad3d(a, {1, 4, 1, 0, 0, 2}).sum() + at::replication_pad2d(a, {-1, 6, 2, -1}); }), {{0, 2}}},
        {"repeat", one(), map([](T a) { return a.repeat({2, 1, 2}) * a.repeat_interleave(2, 1).sum(); }), kOne},
        {"diagonal", [](std::int64_t n) { return Tensors{real({4, 4, n})}; }, map([](T a) { return a.diagonal(0, 0, 1) + a.diagonal(0, 1, 0) + at::diag_embed(a.select(0, 1).t()).sum(); }), {{0, 2}}},
        {"triangle", [](std::int64_t n) { return Tensors{real({n, 4, 4})}; }, map([](T a) { return a.tril() + a.triu(1) + at::eye(4, at::kDouble); }), kOne},
        {"unfold", one(), map([](T a) { return a.unfold(1, 2, 1); }), kOne},
        {"make", one(), [](X x) { T a = x[0]; std::int64_t n = a.size(0); return Tensors{at::zeros_like(a) + at::ones({n, 1}, at::kDouble), at::full({n}, 2.5, at::kDouble), at::arange(n), at::arange(1, 2 * n, 2), at::linspace(0, 1, n, at::kDouble), at::arange(0.0, 1.0, 0.25, at::kDouble), at::scalar_tensor(3.0, at::kDouble), a.new_full({2, n}, 7), at::full_like(a, 2) * a, a.new_zeros({n}), at::linspace(2, 6, 5, at::kDouble)}; }, kOne},
        {"meshgrid", one(), map([](T a) { auto g = at::meshgrid({at::arange(a.size(0), at::kDouble), at::arange(3, at::kDouble)}, "ij"); return g[0] * a + g[1]; }), kOne},
        {"size_as_value", one(), map([](T a) { return a.sum() / a.size(0) * a.numel() + a / (a.size(0) * 3 - 1); }), kOne},
        {"pixel_shuffle", [](std::int64_t n) { return Tensors{real({n, 8, 2, 3})}; }, map([](T a) { return at::pixel_shuffle(a, 2); }), kOne},
        {"movedim", [](std::int64_t n) { return Tensors{real({n, 2, 3})}; }, map([](T a) { return a.movedim(0, 2).contiguous().flatten(0, 1).unflatten(0, {2, 3}).clone(); }), kOne},
        {"no_views_of_views", one(), map([](T a) { return a.view({a.size(0), 3, 1}).select(2, 0).t().slice(0, 1).reshape({-1}); }), kOne},
    };
}

std::vector<Case> reduce_cases() {
    auto image = [](std::int64_t n) { return Tensors{real({n, 4, 3})}; };
    return {
        {"sum", one(), [](X x) { T a = x[0]; return Tensors{a.sum(), a.sum(0), a.sum(1, true), a.sum(at::IntArrayRef{0, 1}), a.mean(), a.mean(1), (a > 0).sum(), a.sum(at::kFloat)}; }, kOne},
        {"extrema", one(), [](X x) { T a = x[0]; return Tensors{a.amax(1), a.amin(0), a.max(), a.min(), a.amax({0, 1}, true)}; }, kOne},
        {"places", one(), [](X x) { T a = x[0]; return Tensors{a.argmax(), a.argmin(1), a.argmax(0, true), std::get<0>(a.max(1)), std::get<1>(a.max(1)), std::get<0>(a.min(0, true)) * 2, std::get<1>((a > 0).max(1)), std::get<0>((a > 0).max(1))}; }, kOne},
        {"places_tie", one(), [](X x) { T z = x[0].round(); return Tensors{z.argmax(1), std::get<0>((z * x[0] * 0).max(1)), std::get<1>(at::where(z > 0, z, (z - 5).log()).min(1)), z.argmin()}; }, kOne},
        {"chosen", one(), [](X x) { T a = x[0] * 2; return Tensors{std::get<0>(a.sort(0, true)), std::get<0>(a.topk(2, 1)).exp(), std::get<1>(a.topk(2, 1)), std::get<0>(a.kthvalue(2, 0)), std::get<0>(a.median(1)), std::get<0>(a.cummax(0)), std::get<0>(a.sum().sort())}; }, kOne, 6},
        {"ties", one(), map([](T a) { T z = a * 0; return z.amax(1) + z.max() + at::maximum(z, z * 2).sum(1); }), kOne},
        {"any_all", one(), [](X x) { T a = x[0] > 0; return Tensors{a.any(), a.all(), a.any(1), a.all(0), x[0].any(), a.any(1, true), at::count_nonzero(x[0])}; }, kOne},
        {"prod", one(0.5, 1.5), [](X x) { return Tensors{x[0].prod(), x[0].prod(1), x[0].prod(0, true)}; }, kOne},
        {"norms", one(), [](X x) { T a = x[0]; return Tensors{a.norm(), a.norm(2, 1), at::linalg_vector_norm(a, 1, {1}), a.norm(3, {1}, true), at::linalg_vector_norm(a, INFINITY, {0})}; }, kOne},
        {"norm_at_zero", one(), map([](T a) { T z = a * 0; return z.norm(2, -1) + z.std(1) + at::linalg_vector_norm(z); }), kOne},
        {"normalize", one(), map([](T a) { return a / a.norm(2, -1, true).clamp_min(1e-12); }), kOne},
        {"var_std", one(), [](X x) { T a = x[0]; return Tensors{a.var(1), a.std(), a.var({0}, false), std::get<0>(at::var_mean(a, {1}))}; }, kOne},
        {"logsumexp", one(), map([](T a) { return a.logsumexp(1) + a.softmax(1).select(1, 0) + a.log_softmax(-1).sum(1); }), kOne},
        {"scans", one(), map([](T a) { return a.cumsum(1) + a.cumprod(1) + a.flip({1}).cumsum(0); }), kOne},
        {"cumprod_zero", one(), map([](T a) { return at::cat({a, a * 0, a}, 1).cumprod(1); }), kOne},
        {"transmittance", two(0, 1), zip([](T s, T d) { T a = 1 - (-s * d * 25).exp(); T t = at::cumprod(at::cat({at::ones({a.size(0), 1}, a.options().requires_grad(false)), 1 - a + 1e-10}, -1), -1); return a * t.slice(1, 0, -1); }), kTwo},
        {"layer_norm", image, map([](T a) { return at::layer_norm(a, {3}) + at::layer_norm(a, {4, 3}, at::arange(12, at::kDouble).view({4, 3}), at::ones({4, 3}, at::kDouble)); }), kOne},
        {"group_norm", image, map([](T a) { return at::group_norm(a, 2); }), kOne},
        {"native_norms", image, map([](T a) { T w = at::arange(4, at::kDouble); return std::get<0>(at::native_group_norm(a, w, w, a.size(0), 4, 3, 2, 1e-5)) + std::get<0>(at::std_mean(a, at::OptionalIntArrayRef{{1}}, 1, true)); }), kOne},
        {"batch_norm_eval", image, map([](T a) { return at::batch_norm(a, {}, {}, at::ones({4}, at::kDouble), at::full({4}, 2.0, at::kDouble), false, 0.1, 1e-5, false); }), kOne},
        {"batch_norm_no_stats", image, map([](T a) { return at::batch_norm(a, at::arange(4, at::kDouble), {}, {}, {}, true, 0.1, 1e-5, false); }), kOne},
        {"instance_norm", image, map([](T a) { return at::instance_norm(a, {}, {}, {}, {}, true, 0.1, 1e-5, false); }), kOne},
        {"losses", two(), zip([](T a, T b) { return at::mse_loss(a, b) + at::l1_loss(a, b) + at::smooth_l1_loss(a, b) + at::huber_loss(a, b, 1, 0.5) + at::mse_loss(a, b, 2) + at::l1_loss(a, b, 0).sum(); }), kTwo},
        {"bce", two(0.1, 0.9), zip([](T a, T b) { return at::binary_cross_entropy(a, b.detach()) + at::binary_cross_entropy_with_logits(a * 4, b.detach()) + at::kl_div(a.log(), b.detach()); }), kTwo},
        {"dist_trace", two(), zip([](T a, T b) { return at::dist(a, b) + at::trace(at::matmul(a.t(), b)); }), kTwo},
        {"mm", [](std::int64_t n) { return Tensors{real({n, 3}), real({3, 4}), real({4})}; }, [](X x) { return Tensors{at::mm(x[0], x[1]), at::addmm(x[2], x[0], x[1], 0.5, 2), at::linear(x[0], x[1].t(), x[2]), at::matmul(x[0], x[1]), at::mv(x[1], x[2]), at::dot(x[2], x[2])}; }, kOne},
        {"bmm", [](std::int64_t n) { return Tensors{real({n, 2, 3}), real({n, 3, 4}), real({3, 4}), real({3})}; }, [](X x) { return Tensors{at::bmm(x[0], x[1]), at::matmul(x[0], x[1]), at::matmul(x[0], x[2]), at::matmul(x[0], x[3]), at::linear(x[0], x[2].t()), at::baddbmm(at::matmul(x[0], x[1]), x[0], x[1])}; }, {{0, 0}, {1, 0}}},
        {"matmul_batches", [](std::int64_t n) { return Tensors{real({n, 1, 2, 3}), real({4, 3, 2})}; }, zip([](T a, T b) { return at::matmul(a, b); }), kOne},
        {"einsum", [](std::int64_t n) { return Tensors{real({n, 3}), real({n, 4})}; }, zip([](T a, T b) { return at::einsum("bi,bj->bij", {a, b}) + at::einsum("bi,bj->ij", {a, b}); }), kTwo},
        {"outer_cross", two(), zip([](T a, T b) { return at::linalg_cross(a, b).sum() + at::outer(a.select(1, 0), b.select(1, 1)).sum(); }), kTwo},
        {"cosine", two(), zip([](T a, T b) { return at::cosine_similarity(a, b, 1); }), kTwo},
        {"cross_entropy", [](std::int64_t n) { return Tensors{real({n, 4}), whole({n}, 0, 4)}; }, zip([](T a, T t) { return at::cross_entropy_loss(a, t) + at::nll_loss(a.log_softmax(1), t, {}, 2); }), kTwo},
        {"conv", [](std::int64_t n) { return Tensors{real({n, 2, 5, 5}), real({3, 2, 3, 3})}; }, zip([](T a, T w) { return at::relu(at::conv2d(a * 2, w, {}, 1, 1)); }), kOne, 1},
    };
}

}  // namespace heddle::testing
