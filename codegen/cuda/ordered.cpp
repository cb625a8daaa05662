// See ordered.h. Law: only words that CUDA has without headers.
#include "codegen/cuda/ordered.h"

namespace heddle::cuda {

const char kOrdered[] = R"(// Sums as whole numbers: in whatever order they are added, the bits are the same. First the exponent of each element's largest term.
struct Powers {
  unsigned* power;
  __device__ __forceinline__ Powers operator+(i64 k) const { return {power + k}; }
};
HD unsigned power_of(float v) { return __float_as_uint(v) >> 23 & 255; }
HD unsigned power_of(double v) { return (unsigned)(__double_as_longlong(v) >> 52) & 2047; }
HD void raise(unsigned* p, unsigned power) {
  if (power > *(volatile unsigned*)p) atomicMax(p, power);
}
HD void add_to(Powers p, float v) { raise(p.power, power_of(v)); }
HD void add_to(Powers p, double v) { raise(p.power, power_of(v)); }
// Then words of 64 bits: a term has `room` of them, or twice that in two words. That of a float isn't inlined: it has many callers.
HD int room_for(i64 additions) { return __clzll(additions) - 2; }
template <class T> struct Sums {
  static constexpr int words = sizeof(T) / 4;
  i64* sum;
  unsigned* power;
  int room;
  __device__ __forceinline__ Sums operator+(i64 k) const { return {sum + k * words, power + k, room}; }
};
HD void add_whole(i64* p, i64 v) {
  if (v != 0) atomicAdd((unsigned long long*)p, (unsigned long long)v);
}
HD i64 shifted(i64 m, int by) { return by >= 0 ? m << by : by > -60 ? (m + ((i64)1 << (-by - 1))) >> -by : 0; }
HD int at_least_1(unsigned power) { return power < 1 ? 1 : (int)power; }  // what has no leading bit has the exponent of the least that does
// Infinities are counted, the negative ones from bit 32 on; what isn't a number is one of each.
HD i64 endless(double v) { return v != v ? 0x100000001LL : v > 0 ? 1 : 0x100000000LL; }
HD double sum_of_endless(i64 n) {
  const double infinity = __longlong_as_double(0x7ff0000000000000LL);
  return (unsigned)n == 0 ? -infinity : n >> 32 == 0 ? infinity : __longlong_as_double(0x7ff8000000000000LL);
}
static __device__ __noinline__ void add_to(Sums<float> p, float v) {
  const unsigned power = power_of(v), most = *p.power;
  if (most == 255) return add_whole(p.sum, power == 255 ? endless(v) : 0);
  const i64 m = (__float_as_uint(v) & 0x7fffff) | (power > 0 ? 0x800000 : 0);
  const i64 n = shifted(m, at_least_1(power) - at_least_1(most) + p.room - 24);
  add_whole(p.sum, v < 0 ? -n : n);
}
HD void add_to(Sums<double> p, double v) {
  const unsigned power = power_of(v), most = *p.power;
  if (most == 2047) return add_whole(p.sum, power == 2047 ? endless(v) : 0);
  i64 m = (__double_as_longlong(v) & 0xfffffffffffffLL) | (power > 0 ? 0x10000000000000LL : 0);
  int by = at_least_1(power) - at_least_1(most) + 2 * p.room - 53;
  if (by < 0) m = shifted(m, by), by = 0;
  const i64 high = by >= p.room ? m << (by - p.room) : m >> (p.room - by);
  const i64 low = by >= p.room ? 0 : (i64)((unsigned long long)m << by & ((1ULL << p.room) - 1));
  add_whole(p.sum, v < 0 ? -high : high);
  add_whole(p.sum + 1, v < 0 ? -low : low);
}
// What they came to.
HD double two_to(int k) { return __longlong_as_double((i64)(k + 1023) << 52); }
HD float total(Sums<float> p) {
  if (*p.power == 255) return (float)sum_of_endless(*p.sum);
  return (float)((double)*p.sum * two_to(at_least_1(*p.power) - 126 - p.room));
}
HD double total(Sums<double> p) {
  if (*p.power == 2047) return sum_of_endless(p.sum[0]);
  const i64 half = (i64)1 << (p.room - 1), over = (p.sum[1] + half) >> p.room;  // the low word to at most half a unit of the high one
  const double n = (double)(p.sum[0] + over) * two_to(p.room) + (double)(p.sum[1] - (i64)((unsigned long long)over << p.room));
  const int k = at_least_1(*p.power) - 1022 - 2 * p.room;
  return n * two_to(k / 2) * two_to(k - k / 2);
}
)";

const char kNearText[] = R"(// A block's part of a sum, in shared memory.
template <class T> struct Near {
  T* part;
  __device__ __forceinline__ Near operator+(i64 k) const { return {part + k}; }
};
template <class T> HD void add_to(Near<T> p, T v) { add_to(p.part, v); }
template <int N> HD void clear_near(i64* words, int threads) {
  for (int k = threadIdx.x; k < N; k += threads) words[k] = 0;
  __syncthreads();
}
// All threads of the block must call this.
template <int N, class T> HD void add_near(T* p, Near<T> near, int threads) {
  for (int k = threadIdx.x; k < N; k += threads)
    if (near.part[k] != 0) add_to(p + k, near.part[k]);
}
)";

}  // namespace heddle::cuda
