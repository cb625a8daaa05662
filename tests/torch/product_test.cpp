// Products of matrices by other libraries than ATen's: the same numbers, whatever the layout, whichever library takes them.
// Law: float64 decides; an error is at most that of float32 sums in any order.
#include "frontends/torch/product.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>

namespace heddle::testing {
namespace {

using at::Tensor;

struct Shape {
    std::int64_t batch, m, k, n;  // batch 0: matrices
};
// Below and above what it takes for another library; sides that are short, and not multiples of a vector; nothing at all.
const std::vector<Shape> kShapes = {{0, 3000, 70, 64}, {0, 2048, 64, 129}, {0, 64, 4000, 33}, {0, 4100, 300, 8}, {0, 4100, 300, 3}, {0, 1, 1500, 900},
                                    {0, 7, 5, 3}, {0, 0, 64, 64}, {0, 64, 0, 64}, {200, 33, 17, 21}, {40, 3, 2048, 3}, {64, 128, 4, 128}, {0, 512, 512, 16}};

Tensor made(const Shape& s, bool left, int layout) {  // 0: row-major, 1: transposed, 2: every second column, so neither
    std::vector<std::int64_t> sizes = left ? std::vector{s.m, s.k} : std::vector{s.k, s.n};
    if (layout == 1) std::swap(sizes[0], sizes[1]);
    if (layout == 2) sizes[1] *= 2;
    if (s.batch > 0) sizes.insert(sizes.begin(), s.batch);
    const Tensor t = at::rand(sizes).sub_(0.5);
    return layout == 0 ? t : layout == 1 ? t.transpose(-1, -2) : t.slice(-1, 0, sizes.back(), 2);
}
void near(const Tensor& got, const Tensor& a, const Tensor& b, const Tensor& exact, const std::string& what) {
    // |error| <= K eps sum |a||b| (Higham 2002, section 3.5), and the last rounding.
    const Tensor bound = at::matmul(a.to(at::kDouble).abs(), b.to(at::kDouble).abs()) * (static_cast<double>(a.size(-1)) + 2) * 6e-8 + 1e-7;
    EXPECT_TRUE(((got.to(at::kDouble) - exact).abs() <= bound).all().item<bool>()) << what;
}

TEST(Products, AreTheSameWhoeverMakesThem) {
    at::manual_seed(1);
    for (const Shape& s : kShapes)
        for (auto [left, right] : {std::pair(0, 0), {0, 1}, {1, 0}, {2, 2}}) {
            const Tensor a = made(s, true, left), b = made(s, false, right);
            Tensor y = at::full(s.batch > 0 ? std::vector{s.batch, s.m, s.n} : std::vector{s.m, s.n}, NAN);
            product(y, a, b);
            near(y, a, b, at::matmul(a.to(at::kDouble), b.to(at::kDouble)), fmt::format("{} x [{}, {}] x [{}, {}], layouts {} {}", s.batch, s.m, s.k, s.k, s.n, left, right));
        }
}
TEST(Products, WithARowAndRelu) {
    at::manual_seed(2);
    for (const Shape& s : kShapes) {
        if (s.batch > 0) continue;
        for (bool relu : {false, true}) {
            const Tensor a = made(s, true, 0), b = made(s, false, 1), row = at::rand({s.n}).sub_(0.5);
            Tensor y = at::full({s.m, s.n}, NAN), exact = at::matmul(a.to(at::kDouble), b.to(at::kDouble)) + row;
            linear(y, row, a, b, relu);
            near(y, a, b, relu ? at::relu(exact) : exact, fmt::format("[{}, {}] x [{}, {}], relu {}", s.m, s.k, s.k, s.n, relu));
        }
    }
}
TEST(Products, KeepWhatIsNotANumber) {
    Tensor a = at::ones({3000, 64}), b = at::ones({64, 64}), row = at::zeros({64}), y = at::empty({3000, 64});
    a[1700][3] = NAN, a[5][5] = INFINITY, a[6][6] = -INFINITY;
    linear(y, row, a, b, true);
    EXPECT_TRUE(y[1700].isnan().all().item<bool>());
    EXPECT_TRUE((y[5] == INFINITY).all().item<bool>());
    EXPECT_TRUE((y[6] == 0).all().item<bool>());
    EXPECT_EQ(y.isnan().sum().item<std::int64_t>(), 64);
}
TEST(Products, HaveTheSameRowsOnAnyNumberOfThreads) {
    const int before = at::get_num_threads();
    const Tensor a = at::rand({5000, 96}), b = at::rand({96, 80}), row = at::rand({80});
    Tensor one = at::empty({5000, 80}), two = at::empty({5000, 80});
    at::set_num_threads(1);
    linear(one, row, a, b, true);
    at::set_num_threads(2);
    linear(two, row, a, b, true);
    at::set_num_threads(before);
    EXPECT_TRUE(at::equal(one, two));
}

}  // namespace
}  // namespace heddle::testing
