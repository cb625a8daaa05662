// The table's rows: indexing, sampling, masks, writes and aliases.
#include <ATen/ATen.h>
#include <ATen/TensorIndexing.h>
#include <ATen/core/grad_mode.h>

#include "tests/frontends_cases.h"

namespace heddle::testing {

namespace {
using at::indexing::Slice;
using T = at::Tensor;
using X = const Tensors&;
const std::vector<std::pair<int, int>> kOne{{0, 0}}, kTwo{{0, 0}, {1, 0}};
template <class F>
Callable map(F f) {
    return [=](X x) { return Tensors{f(x[0])}; };
}
template <class F>
Callable zip(F f) {
    return [=](X x) { return Tensors{f(x[0], x[1])}; };
}
auto one() {
    return [](std::int64_t n) { return Tensors{real({n, 3})}; };
}
auto two() {
    return [](std::int64_t n) { return Tensors{real({n, 3}), real({n, 3})}; };
}
auto rows() {  // x [B, 3], integers in [0, B): at B >= 4
    return [](std::int64_t n) { return Tensors{real({n, 3}), whole({6}, -4, 4)}; };
}
Case sample(const char* name, int mode, int padding, bool corners, std::int64_t batch = 1) {
    return {name, [=](std::int64_t n) { return Tensors{real({batch, 2, 4, 5}), real({batch, n, 1, 2}, -1.4, 1.4, mode == 0)}; },
            zip([=](T x, T g) { return at::grid_sampler_2d(x, g, mode, padding, corners); }), {{1, 1}}};
}
Case sample3(const char* name, int padding, bool corners) {
    return {name, [](std::int64_t n) { return Tensors{real({1, 2, 3, 4, 5}), real({1, n, 1, 1, 3}, -1.4, 1.4)}; },
            zip([=](T x, T g) { return at::grid_sampler_3d(x, g, 0, padding, corners); }), {{1, 1}}};
}
}  // namespace

std::vector<Case> index_cases() {
    return {
        {"index_rows", rows(), zip([](T x, T i) { return x.index({i}) * 2; }), kOne},
        {"index_two", rows(), zip([](T x, T i) { return x.index({i, i.remainder(3)}) + x.index({Slice(), i.remainder(3)}).sum(); }), kOne},
        {"index_apart", [](std::int64_t n) { return Tensors{real({n, 3, 4}), whole({6}, 0, 3)}; }, zip([](T x, T i) { return x.index({i, Slice(), i}); }), kOne},
        {"index_lists", one(), map([](T x) { return x.index({Slice(), at::tensor({0, 1})}) * x.index({"...", at::tensor({2, 0})}) + x.index({Slice(), at::tensor(std::vector<std::int64_t>{1})}); }), kOne},
        {"index_broadcast", rows(), zip([](T x, T i) { return x.index({i.unsqueeze(1), at::arange(3)}); }), kOne},
        {"index_select", rows(), zip([](T x, T i) { return x.index_select(0, i.abs()) + x.index_select(1, i.remainder(3)).sum(); }), kOne},
        {"gather", [](std::int64_t n) { return Tensors{real({n, 3}), whole({n, 2}, 0, 3)}; }, zip([](T x, T i) { return x.gather(1, i) + at::take_along_dim(x, i, 1); }), kTwo},
        {"scatter_add", [](std::int64_t n) { return Tensors{real({n, 3}), whole({n, 3}, 0, 3), real({n, 3})}; }, [](X x) { return Tensors{x[0].scatter_add(1, x[1], x[2]), x[0].scatter(1, x[1], 0.5)}; }, {{0, 0}, {1, 0}, {2, 0}}},
        {"scatter_reduce", [](std::int64_t n) { return Tensors{real({n, 3}), whole({n, 3}, 0, 3), real({n, 3})}; }, [](X x) { return Tensors{x[0].scatter_reduce(1, x[1], x[2], "sum"), x[0].scatter_reduce(1, x[1], x[2], "amax"), x[0].scatter(1, std::get<1>(x[1].sort(1)), x[2])}; }, {{0, 0}, {1, 0}, {2, 0}}, 3},
        {"index_add", rows(), zip([](T x, T i) { return x.index_add(0, i.abs(), at::ones({6, 3}, at::kDouble), 2) + x.index_fill(1, at::tensor(std::vector<std::int64_t>{1}), 3); }), kOne},
        {"embedding", [](std::int64_t n) { return Tensors{real({5, 3}), whole({n}, 0, 5)}; }, zip([](T w, T i) { return at::embedding(w, i) + at::embedding(w, i, 2); }), {{1, 0}}},
        {"take_one_hot", rows(), zip([](T x, T i) { return x.take(i) * at::one_hot(i.abs(), 5).sum(1); }), kOne},
        {"mask_select", two(), zip([](T x, T y) { return x.index({y > 0}) * y.index({y > 0}).exp(); }), kTwo, 1},
        {"mask_rows", two(), zip([](T x, T y) { T m = y.select(1, 0) > 0; return (x.index({m}) * y.index({m})).sum(1); }), kTwo, 1},
        {"masked_select", two(), zip([](T x, T y) { return x.masked_select(y > 0).sum(); }), kTwo, 1},
        {"mask_assign", two(), zip([](T x, T y) { T m = y > 0; T out = at::zeros_like(x); out.index_put_({m}, at::softplus(x.index({m}) - 10)); return out * y; }), kTwo, 1},
        {"mask_assign_rows", two(), zip([](T x, T y) { T m = y.select(1, 0) > 0; T out = at::zeros_like(x); out.index_put_({m}, x.index({m}) * 2); return out; }), kTwo, 1},
        {"mask_assign_value", two(), zip([](T x, T y) { T out = x * 1; out.index_put_({y > 0}, at::scalar_tensor(0.5, at::kDouble)); return out; }), kTwo},
        {"mask_in_place", two(), zip([](T x, T y) { T v = x > 0; T inner = v.index({v}); v.index_put_({v.clone()}, inner.logical_and(y.index({v}) > 0)); return v * x; }), kTwo, 1},
        {"index_put_add", rows(), zip([](T x, T i) { return x.index_put({i}, at::ones({6, 3}, at::kDouble), true); }), kOne},
        {"index_put_value", rows(), zip([](T x, T i) { return x.index_put({i}, at::scalar_tensor(2.0, at::kDouble)) + x.index_put({at::arange(4)}, x.slice(0, 0, 4) * 2); }), kOne},
        {"nonzero", two(), zip([](T x, T y) { T i = (y > 0).nonzero(); return x.index({i.select(1, 0), i.select(1, 1)}).sum(); }), kTwo, 1},
        sample("sample", 0, 0, true), sample("sample_half", 0, 0, false), sample("sample_border", 0, 1, true), sample("sample_border_half", 0, 1, false),
        sample("sample_reflect", 0, 2, true), sample("sample_reflect_half", 0, 2, false), sample("sample_nearest", 1, 0, true), sample("sample_nearest_border", 1, 1, false),
        sample("sample_batch", 0, 0, true, 3), sample3("sample3", 0, true), sample3("sample3_half", 0, false), sample3("sample3_border", 1, true),
        {"sample_planes", [](std::int64_t n) { return Tensors{real({1, 2, n, 4}), real({1, 7, 1, 2}, -1, 1, false)}; }, zip([](T x, T g) { return at::grid_sampler(x, g, 0, 0, true); }), {{0, 2}}},
    };
}

std::vector<Case> write_cases() {
    return {
        {"in_place", two(), zip([](T x, T y) { T a = x * 1; a += y; a.mul_(2).relu_(); a = a * 1; a.sub_(0.5).div_(y.exp()); return a; }), kTwo},
        {"alias", two(), zip([](T x, T y) { T a = x * 1; T b = a; b += y; return a * 2; }), kTwo},
        {"loss_grows", two(), [](X x) { T l = (x[0] - x[1]).abs().mean(); T named = l; l += x[0].pow(2).sum() * 0.1; return Tensors{l, named}; }, kTwo},
        {"view_of_view", two(), zip([](T x, T y) { T a = x * 1; T v = a.t().select(0, 1); v.mul_(y.select(1, 0)); a.slice(1, 0, 2).slice(1, 1, 2).add_(3); return a + v.unsqueeze(1); }), kTwo},
        {"columns_zeroed", one(), map([](T x) { T a = x * 2; a.index({Slice(), Slice(-2)}) *= 0.0; return a; }), kOne},
        {"fill_slices", one(), map([](T x) { T a = at::empty_like(x); a.select(1, 0).copy_(x.select(1, 2)); a.slice(1, 1, 3).fill_(4); a.select(1, 2).zero_(); return a * x; }), kOne},
        {"index_assign", one(), map([](T x) { T a = x * 1; a.index_put_({Slice(), 1}, x.index({Slice(), 0})); a.index_put_({"...", Slice(2, 3)}, 7); return a; }), kOne},
        {"write_flat", one(), map([](T x) { T a = x * 1; T flat = a.view({-1}); flat.slice(0, 0, 3).neg_(); flat += 1; return a; }), kOne},
        {"read_after_write", one(), map([](T x) { T a = x * 1; T v = a.select(1, 0); T before = v * 1; a.add_(1); return v * before; }), kOne},
        {"write_twice", one(), map([](T x) { T a = x * 1; T v = a.select(1, 0), w = a.select(1, 1); v.copy_(w); w.add_(v); return a; }), kOne},
        {"diagonal_write", [](std::int64_t n) { return Tensors{real({3, 3, n})}; }, map([](T x) { T a = x * 1; a.diagonal(0, 0, 1).fill_(1); return a; }), {{0, 2}}},
        {"broadcast_copy", one(), map([](T x) { T a = at::zeros({x.size(0), 3}, at::kDouble); a.copy_(x.select(1, 0).unsqueeze(1)); return a; }), kOne},
        {"masked_fill_", two(), zip([](T x, T y) { T a = x * 1; a.masked_fill_(y > 0, 0.25); a.clamp_(-1, 1); return a; }), kTwo},
        {"step_slices", [](std::int64_t n) { return Tensors{real({n, 6})}; }, map([](T x) { T a = x * 1; a.slice(1, 0, 6, 2).mul_(3); return a; }), kOne},
        {"split_write", one(), map([](T x) { T a = x.detach() * 1; auto p = a.unbind(1); p[0].add_(p[1]); auto q = a.split(2, 1); q[0].mul_(2); return a; }), kOne},
        {"no_grad_write", one(), map([](T x) { T a = x * 3; { at::NoGradGuard g; a.clamp_min_(0.5); a.select(1, 0).mul_(2); } return a * a; }), kOne},
        {"out_form", two(), zip([](T x, T y) { T a = at::empty_like(x.detach()); at::add_out(a, x.detach(), y.detach()); return a * x; }), kTwo},
        {"in_place_cast", two(), zip([](T x, T y) { T a = x.to(at::kFloat); a.add_(y); return a; }), kTwo},
        {"reshape_copies", one(), map([](T x) { T a = x * 1; T b = a.t().reshape({-1}); b.add_(1); return a.sum() + b; }), kOne},
    };
}

}  // namespace heddle::testing
