// CUDA's words as C++, included before a generated text. Law: what isn't here doesn't compile; overloads are those that CUDA has.
//
//   Memory      g++ -fsanitize=thread calls __tsan_readN, __tsan_writeN before each access: these ask the machine, no sanitizer is linked
//   __shared__  a static variable: all between __bss_start and _end is the running block's
//   asm         compile.cpp turns asm("red.global.add.f32 [%0], %1;" :: "l"(p), "f"(x)) into ptx::red_global_add_f32(p, x)
#pragma once
#include "tests/cuda_on_cpu/host.h"

#define UNCHECKED __attribute__((no_sanitize("thread"), visibility("hidden")))
#define OUTSIDE UNCHECKED inline __attribute__((noinline))  // its return address is a line of the text

extern "C" UNCHECKED heddle::cuda_on_cpu::Host* cuda_on_cpu_host = reinterpret_cast<heddle::cuda_on_cpu::Host*>(1);  // in .data, not in .bss
#define HOST cuda_on_cpu_host

extern "C" {
UNCHECKED extern char __bss_start, _end;
__attribute__((no_sanitize("thread"), visibility("default"))) void cuda_on_cpu_start(heddle::cuda_on_cpu::Host* h, char** first, char** last) {
    HOST = h;
    *first = &__bss_start;
    *last = &_end;
}
UNCHECKED void __tsan_init() {}
UNCHECKED void __tsan_func_entry(void*) {}
UNCHECKED void __tsan_func_exit(void*) {}
#define ACCESS(name, bytes, how) \
    UNCHECKED void __tsan_##name(void* p) { HOST->access(p, bytes, heddle::cuda_on_cpu::How::how, __builtin_return_address(0)); }
#define ACCESSES(n)                                                                                \
    ACCESS(read##n, n, read) ACCESS(write##n, n, write)                                            \
    ACCESS(volatile_read##n, n, relaxed_read) ACCESS(volatile_write##n, n, relaxed_write)
#define UNALIGNED(n) ACCESS(unaligned_read##n, n, read) ACCESS(unaligned_write##n, n, write)
ACCESSES(1) ACCESSES(2) ACCESSES(4) ACCESSES(8) ACCESSES(16)
UNALIGNED(2) UNALIGNED(4) UNALIGNED(8) UNALIGNED(16)
UNCHECKED void __tsan_read_range(void* p, unsigned long n) { HOST->access(p, n, heddle::cuda_on_cpu::How::read, __builtin_return_address(0)); }
UNCHECKED void __tsan_write_range(void* p, unsigned long n) { HOST->access(p, n, heddle::cuda_on_cpu::How::write, __builtin_return_address(0)); }

// The mathematics that CUDA declares for every text.
#define MATHS1(name) float name##f(float) noexcept; double name(double) noexcept;
#define MATHS2(name) float name##f(float, float) noexcept; double name(double, double) noexcept;
MATHS1(acos) MATHS1(asin) MATHS1(atan) MATHS1(ceil) MATHS1(cos) MATHS1(cosh) MATHS1(erf) MATHS1(erfc) MATHS1(exp) MATHS1(exp2) MATHS1(expm1) MATHS1(fabs)
MATHS1(floor) MATHS1(log) MATHS1(log2) MATHS1(log10) MATHS1(log1p) MATHS1(rint) MATHS1(round) MATHS1(sin) MATHS1(sinh) MATHS1(sqrt) MATHS1(tan) MATHS1(tanh)
MATHS1(trunc) MATHS1(cbrt) MATHS1(lgamma) MATHS1(tgamma) MATHS2(pow) MATHS2(atan2) MATHS2(fmod) MATHS2(copysign) MATHS2(fmax) MATHS2(fmin) MATHS2(hypot)
float fmaf(float, float, float) noexcept;
double fma(double, double, double) noexcept;
}
UNCHECKED inline float rsqrtf(float a) { return 1 / sqrtf(a); }
UNCHECKED inline double rsqrt(double a) { return 1 / sqrt(a); }

#define __CUDA_ARCH__ 900
#define __global__
#define __device__
#define __host__
#define __constant__ const
#define __shared__ static
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define threadIdx (cuda_on_cpu::thread())
#define blockIdx (cuda_on_cpu::block())
#define blockDim (cuda_on_cpu::threads())
#define gridDim (cuda_on_cpu::blocks())
#define warpSize 32

namespace cuda_on_cpu {

using heddle::cuda_on_cpu::How, heddle::cuda_on_cpu::Index, heddle::cuda_on_cpu::Word;
OUTSIDE Index thread() { return HOST->thread; }
OUTSIDE Index block() { return HOST->block; }
OUTSIDE Index threads() { return HOST->threads; }
OUTSIDE Index blocks() { return HOST->blocks; }
template <class To, class From> UNCHECKED To bits(From v) {
    To r{};
    __builtin_memcpy(&r, &v, sizeof v < sizeof r ? sizeof v : sizeof r);
    return r;
}
OUTSIDE void block_barrier(int line) { HOST->meet_block(line); }
OUTSIDE void warp_barrier(int line, unsigned mask = 0xffffffffu) { HOST->meet_lanes("__syncwarp", line, mask, 0, true); }

UNCHECKED inline unsigned lane() { return HOST->thread.x % 32; }
template <class T> UNCHECKED T from_lane(const char* what, int line, unsigned mask, T v, int lane_of) {
    if ((mask >> lane() & 1) && lane_of < 32 && !(mask >> lane_of & 1)) HOST->fail("reads a lane that its mask leaves out", line);
    const Word* all = HOST->meet_lanes(what, line, mask, bits<Word>(v), false);
    return lane_of < 32 ? bits<T>(all[lane_of]) : v;
}
UNCHECKED inline int beside(int me, int target, int width, bool stays) {  // the lane read, or one's own where that is in another segment
    int first = me / width * width;
    return stays && (target < first || target >= first + width) ? me : target;
}
#define SHUFFLES(T)                                                                                                                          \
    UNCHECKED inline T shfl(int line, unsigned mask, T v, int from, int width = 32) {                                                                \
        return from_lane("__shfl_sync", line, mask, v, int(lane()) / width * width + (from & (width - 1)));                                   \
    }                                                                                                                                        \
    UNCHECKED inline T shfl_up(int line, unsigned mask, T v, unsigned d, int width = 32) {                                                           \
        return from_lane("__shfl_up_sync", line, mask, v, beside(int(lane()), int(lane()) - int(d), width, true));                            \
    }                                                                                                                                        \
    UNCHECKED inline T shfl_down(int line, unsigned mask, T v, unsigned d, int width = 32) {                                                         \
        return from_lane("__shfl_down_sync", line, mask, v, beside(int(lane()), int(lane()) + int(d), width, true));                          \
    }                                                                                                                                        \
    UNCHECKED inline T shfl_xor(int line, unsigned mask, T v, int d, int width = 32) {                                                               \
        int to = int(lane()) ^ d;                                                                                                            \
        return from_lane("__shfl_xor_sync", line, mask, v, to >= (int(lane()) / width + 1) * width ? int(lane()) : to);                       \
    }
SHUFFLES(int) SHUFFLES(unsigned) SHUFFLES(long) SHUFFLES(unsigned long) SHUFFLES(long long) SHUFFLES(unsigned long long) SHUFFLES(float) SHUFFLES(double)

template <class F> UNCHECKED unsigned gather(const char* what, int line, unsigned mask, Word v, F f) {  // f(sum so far, lane, its word)
    const Word* all = HOST->meet_lanes(what, line, mask, v, false);
    unsigned r = 0;
    bool first = true;
    for (unsigned l = 0; l < 32; ++l)
        if (mask >> l & 1) r = f(r, l, all[l], first), first = false;
    return r;
}
UNCHECKED inline unsigned ballot(int line, unsigned mask, int p) {
    return gather("__ballot_sync", line, mask, p != 0, [](unsigned r, unsigned l, Word w, bool) UNCHECKED { return r | unsigned(w) << l; });
}
UNCHECKED inline unsigned match_any(int line, unsigned mask, Word v) {
    return gather("__match_any_sync", line, mask, v, [v](unsigned r, unsigned l, Word w, bool) UNCHECKED { return r | unsigned(w == v) << l; });
}
#define REDUCE(name, T, expression)                                                                                                          \
    UNCHECKED inline T reduce_##name(int line, unsigned mask, T v) {                                                                          \
        return T(gather("__reduce_" #name "_sync", line, mask, unsigned(v), [](unsigned r, unsigned, Word w, bool first) UNCHECKED {          \
            T a = T(r), b = T(unsigned(w));                                                                                                  \
            return unsigned(first ? b : expression);                                                                                         \
        }));                                                                                                                                 \
    }
REDUCE(add, unsigned, a + b) REDUCE(min, unsigned, a < b ? a : b) REDUCE(max, unsigned, a > b ? a : b) REDUCE(add, int, int(unsigned(a) + unsigned(b)))
REDUCE(min, int, a < b ? a : b) REDUCE(max, int, a > b ? a : b) REDUCE(and, unsigned, a & b) REDUCE(or, unsigned, a | b) REDUCE(xor, unsigned, a ^ b)

template <class T> constexpr bool kFloat = T(1) / 2 != 0;
template <class T, class F> UNCHECKED T rmw(T* p, F f, bool floats, const void* from) {
    HOST->access(p, sizeof(T), How::atomic, from);
    T old = *p;
    *p = f(old);
    if (floats) HOST->float_atomic(p, &old, sizeof(T));
    return old;
}
}  // namespace cuda_on_cpu

#define __syncthreads() cuda_on_cpu::block_barrier(__LINE__)
#define __syncwarp(...) cuda_on_cpu::warp_barrier(__LINE__ __VA_OPT__(,) __VA_ARGS__)
#define __shfl_sync(...) cuda_on_cpu::shfl(__LINE__, __VA_ARGS__)
#define __shfl_up_sync(...) cuda_on_cpu::shfl_up(__LINE__, __VA_ARGS__)
#define __shfl_down_sync(...) cuda_on_cpu::shfl_down(__LINE__, __VA_ARGS__)
#define __shfl_xor_sync(...) cuda_on_cpu::shfl_xor(__LINE__, __VA_ARGS__)
#define __ballot_sync(...) cuda_on_cpu::ballot(__LINE__, __VA_ARGS__)
#define __any_sync(...) (cuda_on_cpu::ballot(__LINE__, __VA_ARGS__) != 0)
#define __all_sync(mask, p) (cuda_on_cpu::ballot(__LINE__, mask, !(p)) == 0)
#define __match_any_sync(...) cuda_on_cpu::match_any(__LINE__, __VA_ARGS__)
#define __reduce_add_sync(...) cuda_on_cpu::reduce_add(__LINE__, __VA_ARGS__)
#define __reduce_min_sync(...) cuda_on_cpu::reduce_min(__LINE__, __VA_ARGS__)
#define __reduce_max_sync(...) cuda_on_cpu::reduce_max(__LINE__, __VA_ARGS__)
#define __reduce_and_sync(...) cuda_on_cpu::reduce_and(__LINE__, __VA_ARGS__)
#define __reduce_or_sync(...) cuda_on_cpu::reduce_or(__LINE__, __VA_ARGS__)
#define __reduce_xor_sync(...) cuda_on_cpu::reduce_xor(__LINE__, __VA_ARGS__)
OUTSIDE void __threadfence() { HOST->fence(); }
OUTSIDE void __nanosleep(unsigned) { HOST->sleep(); }

#define ATOMIC(name, T, expression)                                                                                                          \
    OUTSIDE T name(T* p, T v) {                                                                                                              \
        return cuda_on_cpu::rmw(p, [v](T old) UNCHECKED -> T { return expression; }, cuda_on_cpu::kFloat<T>, __builtin_return_address(0));              \
    }
#define ATOMICS(T) ATOMIC(atomicAdd, T, old + v) ATOMIC(atomicExch, T, v)
#define WHOLE(T) ATOMICS(T) ATOMIC(atomicMin, T, old < v ? old : v) ATOMIC(atomicMax, T, old > v ? old : v)                                   \
    ATOMIC(atomicAnd, T, old & v) ATOMIC(atomicOr, T, old | v) ATOMIC(atomicXor, T, old ^ v)
#define SWAP(T)                                                                                                                              \
    OUTSIDE T atomicCAS(T* p, T seen, T v) {                                                                                                 \
        HOST->pause();  /* what was seen may be gone */                                                                                      \
        return cuda_on_cpu::rmw(p, [seen, v](T old) UNCHECKED -> T { return old == seen ? v : old; }, sizeof(T) == 2, __builtin_return_address(0)); \
    }
typedef unsigned long long Long;
WHOLE(int) WHOLE(unsigned) WHOLE(Long) ATOMICS(float) ATOMIC(atomicAdd, double, old + v)
SWAP(int) SWAP(unsigned) SWAP(Long) SWAP(unsigned short)

#define VECTOR2(name, T, n) struct alignas(n) name { T x, y; }; UNCHECKED inline name make_##name(T x, T y) { return {x, y}; }
#define VECTOR4(name, T) struct alignas(16) name { T x, y, z, w; }; UNCHECKED inline name make_##name(T x, T y, T z, T w) { return {x, y, z, w}; }
VECTOR2(float2, float, 8) VECTOR2(double2, double, 16) VECTOR2(int2, int, 8) VECTOR2(uint2, unsigned, 8) VECTOR4(float4, float) VECTOR4(int4, int) VECTOR4(uint4, unsigned)

template <class T> inline T __ldg(const T* p) { return *p; }
UNCHECKED inline float __uint_as_float(unsigned u) { return cuda_on_cpu::bits<float>(u); }
UNCHECKED inline float __int_as_float(int u) { return cuda_on_cpu::bits<float>(u); }
UNCHECKED inline unsigned __float_as_uint(float f) { return cuda_on_cpu::bits<unsigned>(f); }
UNCHECKED inline int __float_as_int(float f) { return cuda_on_cpu::bits<int>(f); }
UNCHECKED inline double __longlong_as_double(long long u) { return cuda_on_cpu::bits<double>(u); }
UNCHECKED inline long long __double_as_longlong(double d) { return cuda_on_cpu::bits<long long>(d); }
UNCHECKED inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned((unsigned long long)(a) * b >> 32); }  // what Philox is made of
UNCHECKED inline int __clzll(long long a) { return a ? __builtin_clzll((unsigned long long)(a)) : 64; }
UNCHECKED inline int __popc(unsigned a) { return __builtin_popcount(a); }
UNCHECKED inline int __ffs(int a) { return __builtin_ffs(a); }
UNCHECKED inline int __clz(int a) { return a ? __builtin_clz(unsigned(a)) : 32; }
UNCHECKED inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
UNCHECKED inline float __fadd_rn(float a, float b) { return a + b; }
UNCHECKED inline float __fmul_rn(float a, float b) { return a * b; }

// Instructions, by their names with _ for each dot; operands in the order in which the instruction has them.
namespace ptx {
UNCHECKED inline void cvt_f32_f16(float& to, unsigned short from) { to = cuda_on_cpu::bits<_Float16>(from); }
UNCHECKED inline void cvt_rn_f16_f32(unsigned short& to, float from) { to = cuda_on_cpu::bits<unsigned short>((_Float16)from); }
OUTSIDE void add_floats(float* p, float* v, unsigned n, const void* from) {  // leaves what was there in v
    HOST->access(p, 4 * n, heddle::cuda_on_cpu::How::atomic, from);
    for (unsigned k = 0; k < n; ++k) {
        float old = p[k];
        p[k] += v[k], v[k] = old, HOST->float_atomic(p + k, v + k, sizeof(float));
    }
}
#define RED(name)                                                                                                                            \
    OUTSIDE void name##_f32(float* p, float a) { add_floats(p, &a, 1, __builtin_return_address(0)); }                                         \
    OUTSIDE void name##_v2_f32(float* p, float a, float b) {                                                                                  \
        float v[] = {a, b};                                                                                                                  \
        add_floats(p, v, 2, __builtin_return_address(0));                                                                                    \
    }                                                                                                                                        \
    OUTSIDE void name##_v4_f32(float* p, float a, float b, float c, float d) {                                                                \
        float v[] = {a, b, c, d};                                                                                                            \
        add_floats(p, v, 4, __builtin_return_address(0));                                                                                    \
    }
RED(red_global_add) RED(red_relaxed_gpu_global_add)
}  // namespace ptx
OUTSIDE float2 atomicAdd(float2* p, float2 v) { return ptx::add_floats(&p->x, &v.x, 2, __builtin_return_address(0)), v; }
OUTSIDE float4 atomicAdd(float4* p, float4 v) { return ptx::add_floats(&p->x, &v.x, 4, __builtin_return_address(0)), v; }

// Calls a kernel with what the addresses hold, as the driver does.
namespace cuda_on_cpu {
template <class... A> struct Call {
    UNCHECKED Call(void (*kernel)(A...), A... a) { kernel(a...); }
};
template <class... A> UNCHECKED void call(void (*kernel)(A...), void** a) { Call<A...>{kernel, *static_cast<A*>(*a++)...}; }
}  // namespace cuda_on_cpu
