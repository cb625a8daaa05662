// Between the interpreter's tensors and a host's arrays, for tests that compare the two.
// Law: random tensors hold what their dtype can; integers and bools compare exactly, floats relative to the largest element.
#pragma once
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "ir/eval.h"
#include "runtime/host.h"
#include "tests/cuda_on_cpu/machine.h"

namespace heddle {

// Uniform in lo..hi; integers are whole, and bools of a range above zero are true.
inline Tensor random_tensor(const Type& t, const Sizes& sizes, std::mt19937& rng, double lo = -1, double hi = 1) {
    Tensor x{t.dtype, {}, {}};
    for (const Dim& d : t.shape) x.sizes.push_back(d.eval(sizes));
    std::uniform_real_distribution<double> u(lo, hi);
    char element[8];
    for (std::int64_t i = 0; i < x.numel(); ++i) {
        const double v = u(rng);
        cuda_on_cpu::put_number(t.dtype, element, t.dtype == DType::b1 ? lo > 0 || v > (lo + hi) / 2 : is_int(t.dtype) ? std::floor(v) : v);
        x.data.push_back(cuda_on_cpu::number(t.dtype, element));
    }
    return x;
}
// Coordinates of the elements that aren't 0, in row-major order: i64[n, rank].
inline Tensor nonzero_of(const Tensor& m) {
    Tensor out{DType::i64, {0, static_cast<std::int64_t>(m.sizes.size())}, {}};
    for (std::int64_t i = 0; i < m.numel(); ++i) {
        if (m.data[static_cast<std::size_t>(i)] == 0) continue;
        std::vector<double> at(m.sizes.size());
        std::int64_t rest = i;
        for (std::size_t a = m.sizes.size(); a-- > 0; rest /= m.sizes[a]) at[a] = static_cast<double>(rest % m.sizes[a]);
        out.data.insert(out.data.end(), at.begin(), at.end());
        ++out.sizes[0];
    }
    return out;
}
inline Array to_array(Host& h, const Tensor& t) {
    Array a = h.allocate(t.dtype, Extents(t.sizes.begin(), t.sizes.end()));
    for (std::size_t i = 0; i < t.data.size(); ++i) cuda_on_cpu::put_number(t.dtype, static_cast<char*>(a.data) + i * static_cast<std::size_t>(bytes(t.dtype)), t.data[i]);
    return a;
}
inline Tensor to_tensor(const Array& a) {
    Tensor t{a.dtype, {a.sizes.begin(), a.sizes.end()}, {}};
    for (std::int64_t i = 0; i < a.numel(); ++i) t.data.push_back(cuda_on_cpu::number(a.dtype, static_cast<const char*>(a.data) + i * bytes(a.dtype)));
    return t;
}
inline void expect_near(const Tensor& want, const Tensor& got, const std::string& what) {
    ASSERT_EQ(want.sizes, got.sizes) << what;
    double scale = 1e-6;
    for (double v : want.data)
        if (std::isfinite(v)) scale = std::max(scale, std::fabs(v));
    double tolerance = want.dtype == DType::f64 ? 1e-12 : 2e-6;
    for (std::size_t i = 0; i < want.data.size(); ++i) {
        if (!is_float(want.dtype) || std::isinf(want.data[i])) ASSERT_EQ(want.data[i], got.data[i]) << what << " element " << i;
        else ASSERT_NEAR(want.data[i], got.data[i], tolerance * scale * 4) << what << " element " << i;
    }
}

}  // namespace heddle
