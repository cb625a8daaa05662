// How near a fused result must be to eager's. Law: one function, from dtype and the length of the longest reduction; nothing is tuned by hand.
#pragma once
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

namespace heddle::testing {

// Rounding errors of n additions grow like sqrt(n) where they are random; 16 leaves room for a chain of ops around them.
inline double tolerance(at::ScalarType t, std::int64_t reduction = 1) {
    double eps = t == at::kDouble ? 2.2e-16 : t == at::kFloat ? 1.2e-7 : t == at::kBFloat16 ? 7.8e-3 : t == at::kHalf ? 9.8e-4 : 0;
    return 16 * eps * std::sqrt(static_cast<double>(std::max<std::int64_t>(1, reduction)));
}
// `want` is eager's in float64 (or exact, for integers and bools); got may be narrower.
inline void expect_near(const at::Tensor& got, const at::Tensor& want, std::int64_t reduction, const std::string& what) {
    ASSERT_EQ(got.defined(), want.defined()) << what << ": None in one, not in the other";
    if (!got.defined()) return;
    ASSERT_EQ(got.sizes(), want.sizes()) << what;
    if (got.numel() == 0) return;
    if (!at::isFloatingType(got.scalar_type())) {
        EXPECT_TRUE(at::equal(got.to(at::kLong), want.to(at::kLong))) << what << "\ngot " << got << "\nwant " << want;
        return;
    }
    at::Tensor a = got.detach().to(at::kDouble), b = want.detach().to(at::kDouble);
    double scale = std::max(1e-30, b.abs().nan_to_num(0, 0, 0).max().item<double>()), rtol = tolerance(got.scalar_type(), reduction);
    EXPECT_TRUE(at::allclose(a, b, rtol, rtol * scale, true)) << what << "\ngot  " << a << "\nwant " << b << "\nlargest difference " << (a - b).abs().max().item<double>();
}

}  // namespace heddle::testing
