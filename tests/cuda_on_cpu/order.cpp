// What two runs in different orders must have in common, and elements as numbers; see machine.h.
#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "tests/cuda_on_cpu/machine.h"

namespace heddle::cuda_on_cpu {

double number(DType t, const void* p) {
    auto as = [&]<class T>(T x) { return std::memcpy(&x, p, sizeof x), static_cast<double>(x); };
    switch (t) {
        case DType::b1: return as(std::uint8_t{});
        case DType::i32: return as(std::int32_t{});
        case DType::i64: return as(std::int64_t{});
        case DType::f16: return as(_Float16{});
        case DType::bf16: {
            std::uint16_t h;
            std::memcpy(&h, p, 2);
            return std::bit_cast<float>(std::uint32_t{h} << 16);
        }
        case DType::f32: return as(0.0f);
        case DType::f64: return as(0.0);
    }
    return 0;
}
void put_number(DType t, void* p, double v) {
    auto as = [&]<class T>(T x) { std::memcpy(p, &x, sizeof x); };
    switch (t) {
        case DType::b1: return as(static_cast<std::uint8_t>(v != 0));
        case DType::i32: return as(static_cast<std::int32_t>(v));
        case DType::i64: return as(static_cast<std::int64_t>(v));
        case DType::f16: return as(static_cast<_Float16>(static_cast<float>(v)));
        case DType::bf16: {  // to nearest, ties to even
            auto bits = std::bit_cast<std::uint32_t>(static_cast<float>(v));
            return as(static_cast<std::uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16));
        }
        case DType::f32: return as(static_cast<float>(v));
        case DType::f64: return as(v);
    }
}

namespace {

double rounding(DType t) { return t == DType::f64 ? 0x1p-53 : t == DType::f32 ? 0x1p-24 : t == DType::f16 ? 0x1p-11 : 0x1p-8; }

// Compares what two seeds gave. Summed in any order, n numbers are off by (n - 1) roundings of the sum of their absolute values at most (Source:
// Higham, Accuracy and Stability, 4.2), so two orders by twice that; nothing else may differ at all. A later stage of the launch reads such
// sums, and may bring cancellation: its bound is a multiple of the coarsest type that was added up, relative to the largest element.
// What blocks added up in shared memory goes to elements that nobody knows here: each may be off by what any of these can be, too.
void same(const Object& code, std::span<const Buffer> a, std::span<const Buffer> b, const std::vector<Sums>& added, bool staged, unsigned seed, unsigned other) {
    auto slack_of = [](DType t) { return t == DType::f64 ? 1e-12 : t == DType::f32 ? 1e-5 : 2e-2; };
    double coarsest = 0;
    Added shared;
    for (const auto& [at, sum] : added.back()) shared.count = std::max(shared.count, sum.count), shared.sum = std::max(shared.sum, sum.sum);
    for (std::size_t k = 0; staged && k < a.size(); ++k)
        if (!added[k].empty()) coarsest = std::max(coarsest, slack_of(a[k].dtype));
    for (std::size_t k = 0; k < a.size(); ++k) {
        const DType t = a[k].dtype;
        auto width = static_cast<std::size_t>(bytes(t));
        double scale = 1e-6;
        for (std::size_t i = 0; coarsest > 0 && i < a[k].bytes; i += width)
            if (double v = std::abs(number(t, static_cast<const char*>(a[k].data) + i)); std::isfinite(v)) scale = std::max(scale, v);
        const double later = coarsest > 0 && is_float(t) ? std::max(slack_of(t), coarsest) * scale : 0;
        for (std::size_t i = 0; i < a[k].bytes; i += width) {
            const char *p = static_cast<const char*>(a[k].data) + i, *q = static_cast<const char*>(b[k].data) + i;
            if (std::memcmp(p, q, width) == 0) continue;
            const auto it = added[k].find(i / width);
            const Added sum = it == added[k].end() ? Added{} : it->second;
            const double of_blocks = it == added[k].end() ? 0 : 2 * (shared.count + sum.count) * rounding(t) * (shared.sum + sum.sum);
            if (std::abs(number(t, p) - number(t, q)) <= std::max({later, 2 * sum.count * rounding(t) * sum.sum, of_blocks})) continue;
            throw Report(fmt::format("{}: depends on the order of threads: {}[{}] is {} with seed {}, {} with seed {}", code.kernel(), a[k].name, i / width,
                                     number(t, p), seed, number(t, q), other));
        }
    }
}

}  // namespace

void run_twice(const Object& o, const Grid& grid, std::span<Buffer> buffers, std::span<const std::int64_t> sizes, unsigned seed) {
    std::vector<Buffer> again(buffers.begin(), buffers.end());
    std::vector<std::vector<char>> memory;
    for (Buffer& b : again) {
        const char* p = static_cast<const char*>(b.data);
        b.data = memory.emplace_back(p, p + b.bytes).data();
    }
    const unsigned other = seed * 2654435761u + 1;
    const auto added = run(o, grid, buffers, sizes, seed);
    run(o, grid, again, sizes, other);
    same(o, buffers, again, added, grid.in_order, seed, other);
}

}  // namespace heddle::cuda_on_cpu
