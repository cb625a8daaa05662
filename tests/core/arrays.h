// Between the interpreter's tensors and a host's arrays, for tests that compare the two.
// Law: random tensors hold what their dtype can; integers and bools compare exactly, floats relative to the largest element.
#pragma once
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "ir/eval.h"
#include "runtime/host.h"

namespace heddle {

inline Tensor random_tensor(const Type& t, const Sizes& sizes, std::mt19937& rng, double lo, double hi) {
    Tensor x{t.dtype, {}, {}};
    for (const Dim& d : t.shape) x.sizes.push_back(d.eval(sizes));
    std::uniform_real_distribution<double> u(lo, hi);
    for (std::int64_t i = 0; i < x.numel(); ++i) {
        double v = u(rng);
        x.data.push_back(t.dtype == DType::f32 ? static_cast<double>(static_cast<float>(v)) : t.dtype == DType::f64 ? v : t.dtype == DType::b1 ? v > 0.5 : std::floor(v));
    }
    return x;
}
template <class T>
void copy_in(void* to, const std::vector<double>& from) {
    for (std::size_t i = 0; i < from.size(); ++i) static_cast<T*>(to)[i] = static_cast<T>(from[i]);
}
template <class T>
void copy_out(std::vector<double>& to, const void* from) {
    for (std::size_t i = 0; i < to.size(); ++i) to[i] = static_cast<double>(static_cast<const T*>(from)[i]);
}
inline Array to_array(Host& h, const Tensor& t) {
    Array a = h.allocate(t.dtype, t.sizes);
    switch (t.dtype) {
        case DType::f32: copy_in<float>(a.data, t.data); break;
        case DType::f64: copy_in<double>(a.data, t.data); break;
        case DType::i64: copy_in<std::int64_t>(a.data, t.data); break;
        case DType::i32: copy_in<std::int32_t>(a.data, t.data); break;
        default: copy_in<std::uint8_t>(a.data, t.data); break;
    }
    return a;
}
inline Tensor to_tensor(const Array& a) {
    Tensor t{a.dtype, {a.sizes.begin(), a.sizes.end()}, std::vector<double>(static_cast<std::size_t>(a.numel()))};
    switch (a.dtype) {
        case DType::f32: copy_out<float>(t.data, a.data); break;
        case DType::f64: copy_out<double>(t.data, a.data); break;
        case DType::i64: copy_out<std::int64_t>(t.data, a.data); break;
        case DType::i32: copy_out<std::int32_t>(t.data, a.data); break;
        default: copy_out<std::uint8_t>(t.data, a.data); break;
    }
    return t;
}
inline void expect_near(const Tensor& want, const Tensor& got, const std::string& what) {
    ASSERT_EQ(want.sizes, got.sizes) << what;
    double scale = 1e-6;
    for (double v : want.data)
        if (std::isfinite(v)) scale = std::max(scale, std::fabs(v));
    double tolerance = want.dtype == DType::f64 ? 1e-12 : 2e-6;
    for (std::size_t i = 0; i < want.data.size(); ++i) {
        if (want.dtype < DType::f16) ASSERT_EQ(want.data[i], got.data[i]) << what << " element " << i;
        else ASSERT_NEAR(want.data[i], got.data[i], tolerance * scale * 4) << what << " element " << i;
    }
}

}  // namespace heddle
