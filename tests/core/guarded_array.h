// Storage of any element type, seen as double. Law: it ends where memory ends, so that touching one element more is a fault.
#pragma once
#include <sys/mman.h>

#include <cstring>
#include <random>

#include "ir/type.h"

namespace heddle {

struct GuardedArray {
    DType t;
    std::size_t size, mapped;
    char* pages;
    char* first;
    GuardedArray(DType t, std::size_t size) : t(t), size(size) {
        constexpr std::size_t page = 4096;
        std::size_t used = size * static_cast<std::size_t>(bytes(t));
        mapped = (used + page - 1) / page * page + page;
        pages = static_cast<char*>(mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
        mprotect(pages + mapped - page, page, PROT_NONE);
        first = pages + mapped - page - used;
    }
    GuardedArray(const GuardedArray&) = delete;
    ~GuardedArray() { munmap(pages, mapped); }
    void* data() { return first; }
    template <class T> T& as(std::size_t i) { return reinterpret_cast<T*>(first)[i]; }
    double get(std::size_t i) {
        switch (t) {
            case DType::b1: return as<std::uint8_t>(i);
            case DType::i32: return as<std::int32_t>(i);
            case DType::i64: return static_cast<double>(as<std::int64_t>(i));
            case DType::f16: return static_cast<double>(as<_Float16>(i));
            case DType::bf16: return bfloat(as<std::uint16_t>(i));
            case DType::f32: return as<float>(i);
            default: return as<double>(i);
        }
    }
    void set(std::size_t i, double x) {
        switch (t) {
            case DType::b1: as<std::uint8_t>(i) = x != 0; break;
            case DType::i32: as<std::int32_t>(i) = static_cast<std::int32_t>(x); break;
            case DType::i64: as<std::int64_t>(i) = static_cast<std::int64_t>(x); break;
            case DType::f16: as<_Float16>(i) = static_cast<_Float16>(static_cast<float>(x)); break;
            case DType::bf16: as<std::uint16_t>(i) = to_bfloat(static_cast<float>(x)); break;
            case DType::f32: as<float>(i) = static_cast<float>(x); break;
            default: as<double>(i) = x;
        }
    }
    static double bfloat(std::uint16_t bits) {
        std::uint32_t wide = std::uint32_t{bits} << 16;
        float f;
        std::memcpy(&f, &wide, 4);
        return f;
    }
    static std::uint16_t to_bfloat(float f) {
        std::uint32_t bits;
        std::memcpy(&bits, &f, 4);
        return static_cast<std::uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
    }
    double rounded(double x) const {
        static GuardedArray ones[] = {{DType::b1, 1}, {DType::i32, 1}, {DType::i64, 1}, {DType::f16, 1}, {DType::bf16, 1}, {DType::f32, 1}, {DType::f64, 1}};
        GuardedArray& one = ones[static_cast<int>(t)];
        one.set(0, x);
        return one.get(0);
    }
    // Small integers, so that sums are exact in every type but for the narrow ones' range.
    void fill(unsigned seed, int lo = -4, int hi = 4) {
        std::mt19937 random(seed);
        std::uniform_int_distribution<int> draw(lo, hi);
        for (std::size_t i = 0; i < size; ++i) set(i, draw(random));
    }
};

}  // namespace heddle
