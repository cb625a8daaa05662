// Text of the prelude. Law: float maths calls the accurate f-suffixed functions; no approximate intrinsic appears anywhere.
#include "codegen/cuda/prelude.h"

#include "codegen/cuda/ordered.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cctype>
#include <cmath>

namespace heddle::cuda {

namespace {

// The closed vocabulary of C(...) (ir/op.cpp). First what CUDA has under the same name, with an f for float.
constexpr std::array kMaths1 = {"acos", "asin", "atan", "ceil",  "cos", "cosh", "erf", "erfc", "exp",  "expm1", "fabs", "floor",
                                "log",  "log1p", "rint", "sin",  "sinh", "sqrt", "tan", "tanh", "trunc"};
constexpr std::array kMaths2 = {"pow", "atan2"};
// Then what has to be said. Division and remainder round down, as in Python; the float forms give what PyTorch gives.
struct Word {
    const char *name, *text;
};
constexpr Word kWords[] = {
    {"fabs", R"(HD i64 fabs(i64 a) { return a < 0 ? -a : a; }
HD int fabs(int a) { return a < 0 ? -a : a; }
HD bool fabs(bool a) { return a; }
)"},
    {"select", R"(template <class A, class B> HD auto select(bool c, A a, B b) { return c ? a : b; }
)"},
    {"sign_", R"(template <class T> HD T sign_(T a) { return a > 0 ? T(1) : a < 0 ? T(-1) : T(0); }
)"},
    {"mod_", R"(template <class T> HD T mod_(T a, T b) { T r = a % b; return r != 0 && (r < 0) != (b < 0) ? r + b : r; }
HD float mod_(float a, float b) { float r = ::fmodf(a, b); return r != 0 && (r < 0) != (b < 0) ? r + b : r; }
HD double mod_(double a, double b) { double r = ::fmod(a, b); return r != 0 && (r < 0) != (b < 0) ? r + b : r; }
)"},
    {"floordiv_", R"(template <class T> HD T floordiv_(T a, T b) {
  T q = a / b, r = a % b;
  return r != 0 && (r < 0) != (b < 0) ? q - 1 : q;
}
template <class T> HD T floordiv_real(T a, T b, T r) {  // r: the remainder of a / b
  if (b == 0) return a / b;
  T q = (a - r) / b;
  if (r != 0 && (r < 0) != (b < 0)) q -= 1;
  if (q == 0) return ::copysign(T(0), a / b);
  T whole = ::floor(q);
  return q - whole > T(0.5) ? whole + 1 : whole;
}
HD float floordiv_(float a, float b) { return floordiv_real(a, b, ::fmodf(a, b)); }
HD double floordiv_(double a, double b) { return floordiv_real(a, b, ::fmod(a, b)); }
)"},
};

bool word_char(char c) { return std::isalnum(static_cast<unsigned char>(c)) || c == '_'; }

// Calls f(token) for every identifier, g(text) for what is between them.
template <class F, class G>
void tokens(std::string_view s, F f, G g) {
    for (std::size_t i = 0; i < s.size();) {
        std::size_t j = i;
        bool word = word_char(s[i]);
        while (j < s.size() && word_char(s[j]) == word) ++j;
        word ? f(s.substr(i, j - i)) : g(s.substr(i, j - i));
        i = j;
    }
}
bool uses_word(std::string_view text, std::string_view word) {
    bool hit = false;
    tokens(text, [&](std::string_view t) { hit |= t == word; }, [](std::string_view) {});
    return hit;
}
std::string own_function(const OpDef& d) { return fmt::format("{}_", d.name); }
int operands(const OpDef& d) { return d.kind == Kind::fold ? 2 : d.arity; }  // a fold steps over two

constexpr char kF16[] = R"(HD float from_f16(unsigned short h) { float f; asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(h)); return f; }
HD unsigned short to_f16(float f) { unsigned short h; asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(f)); return h; }
)";
constexpr char kBf16[] = R"(HD float from_bf16(unsigned short h) { return __uint_as_float((unsigned)h << 16); }
HD unsigned short to_bf16(float f) {  // to nearest, ties to even
  unsigned u = __float_as_uint(f);
  return (u & 0x7fffffff) > 0x7f800000 ? 0x7fff : (unsigned short)((u + 0x7fff + ((u >> 16) & 1)) >> 16);
}
)";

std::string atomics_of(DType t) {
    switch (t) {
        case DType::b1: return "HD void add_to(bool* p, bool v) { if (v) *(volatile bool*)p = true; }\n";
        case DType::i64: return "HD void add_to(i64* p, i64 v) { atomicAdd((unsigned long long*)p, (unsigned long long)v); }\n";
        case DType::f16:
        case DType::bf16:
            return fmt::format(R"(HD void add_to_{0}(unsigned short* p, float v) {{
  unsigned short old = *(volatile unsigned short*)p, seen;
  while ((seen = atomicCAS(p, old, to_{0}(from_{0}(old) + v))) != old) old = seen;
}}
)", name(t));
        default: return fmt::format("HD void add_to({0}* p, {0} v) {{ atomicAdd(p, v); }}\n", type(t));
    }
}

// What a block wrote is seen by those that waited for it: the barrier orders its threads, the fence its first thread and the world.
constexpr char kStages[] = R"(// All threads of the block call these.
HD void count_off(unsigned* done) {
  __syncthreads();
  if (threadIdx.x != 0) return;
  __threadfence();
  atomicAdd(done, 1u);
}
HD void await(unsigned* done, unsigned blocks) {
  if (threadIdx.x == 0) {
    while (*(volatile unsigned*)done < blocks) __nanosleep(64);
    __threadfence();
  }
  __syncthreads();
}
)";

// Nests that have `blocks` blocks each take turns, so many at a time that what all of them read is still near when the next one does.
constexpr char kTurns[] = R"(// Which of n nests a block is of; the block's index becomes that within it.
HD int take_turn(index_t& block, index_t blocks, int n) {
  const index_t each = 1024, round = block / (n * each), rest = block % (n * each), first = round * each;
  const index_t now = blocks - first < each ? blocks - first : each;
  block = first + rest % now;
  return rest / now;
}
)";
// Neighbouring elements. What is added to memory has 16 or 8 bytes at a time where the device can.
constexpr char kVectors[] = R"(#define EACH(n) _Pragma("unroll") for (int e = 0; e < n; ++e)
template <class T, int N> struct alignas(sizeof(T) * N < 16 ? sizeof(T) * N : 16) Vec {
  T part[N];
  __device__ __forceinline__ T& operator[](int e) { return part[e]; }
  __device__ __forceinline__ const T& operator[](int e) const { return part[e]; }
};
template <int N, class T> HD Vec<T, N> load(const T* p) { return *(const Vec<T, N>*)p; }
template <int N, class T> HD void store(T* p, const Vec<T, N>& v) { *(Vec<T, N>*)p = v; }
template <class P, class T, int N> HD void add_to(P p, const Vec<T, N>& v) { EACH(N) add_to(p + e, v[e]); }
)";
constexpr char kVectorAdds[] = R"(#if __CUDA_ARCH__ >= 900
HD void add_to(float* p, const Vec<float, 4>& v) {
  asm volatile("red.global.add.v4.f32 [%0], {%1, %2, %3, %4};" :: "l"(p), "f"(v.part[0]), "f"(v.part[1]), "f"(v.part[2]), "f"(v.part[3]) : "memory");
}
HD void add_to(float* p, const Vec<float, 2>& v) {
  asm volatile("red.global.add.v2.f32 [%0], {%1, %2};" :: "l"(p), "f"(v.part[0]), "f"(v.part[1]) : "memory");
}
#endif
)";
// Points in a row.
constexpr char kRuns[] = R"(// Points that a group walks, and in how many runs all are.
HD index_t run_of(index_t points, int group, int most, int full) {
  const index_t run = points * group / full;
  return run < 1 ? 1 : run > most ? most : run;
}
HD index_t runs(index_t points, int group, int most, int full) {
  const index_t run = run_of(points, group, most, full);
  return (points + run - 1) / run;
}
// What goes to one address, until another follows.
template <class T, int N> struct Run {
  index_t to = -1;
  Vec<T, N> sum = {};
  template <class P> __device__ __forceinline__ void add(P p, index_t at, const Vec<T, N>& v) {
    if (at != to) {
      end(p);
      to = at, sum = v;
    } else {
      EACH(N) sum[e] = sum[e] + v[e];
    }
  }
  template <class P> __device__ __forceinline__ void end(P p) {
    if (to >= 0) add_to(p + to, sum);
  }
};
// What all points add to: threads of the block that have the same elements add up first. All threads of the block must call this.
template <int G, int THREADS, class P, class T, int N> HD void add_together(P p, Vec<T, N> sum, bool mine) {
#pragma unroll
  for (int d = 16; d >= G; d /= 2)
    EACH(N) sum[e] = sum[e] + __shfl_xor_sync(0xffffffffu, sum[e], d);
  if constexpr (THREADS > 32) {
    __shared__ Vec<T, N> part[THREADS / 32][G];
    __syncthreads();  // part may still be read from the time before
    if (threadIdx.x % 32 < G) part[threadIdx.x / 32][threadIdx.x % 32] = sum;
    __syncthreads();
    for (int w = 1; w < THREADS / 32 && threadIdx.x < G; ++w)
      EACH(N) sum[e] = sum[e] + part[w][threadIdx.x][e];
  }
  if (mine && threadIdx.x < G) add_to(p, sum);
}
)";

// One butterfly among the lanes of a warp; groups of several warps then meet in shared memory.
std::string group_of(const OpDef& d, int threads) {
    std::string step = apply(d, "v", "__shfl_xor_sync(0xffffffffu, v, d)"), join = apply(d, "v", "part[first + w]");
    if (!in_place(d)) step = apply(d, "v", "T(__shfl_xor_sync(0xffffffffu, v, d))");
    std::string s = fmt::format(R"(// The {0} over the G neighbouring threads of a group; each of them gets it. All threads of the block must call this.
template <int G, class T> HD T all_{0}(T v) {{
#pragma unroll
  for (int d = (G < 32 ? G : 32) / 2; d > 0; d /= 2)
    v = {1};
)", d.name, step);
    if (threads > 32)
        s += fmt::format(R"(  if constexpr (G > 32) {{
    __shared__ T part[32];
    const int warp = threadIdx.x / 32, first = warp / (G / 32) * (G / 32);
    __syncthreads();  // part may still be read from the time before
    if (threadIdx.x % 32 == 0) part[warp] = v;
    __syncthreads();
    v = part[first];
    for (int w = 1; w < G / 32; ++w)
      v = {};
  }}
)", join);
    return s + "  return v;\n}\n";
}

// A carry that goes from lane to lane of a group, by doubling. Source: Hillis and Steele 1986. What a product that leaves the range of floats says of a
// state that is 0 is nothing: then one by one, as in codegen/llvm/scan.cpp.
constexpr char kLanes[] = R"(// Each thread of a group gets a carry as it is before its own step, which follows those of the threads before it; the carry becomes what it is
// after all of them. The G threads must call this together.
template <int G> HD unsigned lanes_of() { return 0xffffffffu >> (32 - G) << (threadIdx.x % 32 / G * G); }
template <int G, class T> HD T before_own(T after, T& carry) {
  const T up = T(__shfl_up_sync(lanes_of<G>(), after, 1, G)), before = threadIdx.x % G == 0 ? carry : up;
  carry = T(__shfl_sync(lanes_of<G>(), after, G - 1, G));
  return before;
}
)";
struct Scan {
    const char *name, *text;
};
constexpr Scan kScans[] = {
    {"sum_before", R"(template <int G, class T> HD T sum_before(T b, T& carry) {  // a step: + b
#pragma unroll
  for (int d = 1; d < G; d *= 2) {
    const T up = __shfl_up_sync(lanes_of<G>(), b, d, G);
    if (threadIdx.x % G >= d) b = up + b;
  }
  return before_own<G>(carry + b, carry);
}
)"},
    {"product_before", R"(template <int G, class T> HD T product_before(T a, T& carry) {  // a step: * a
  T all = a;
#pragma unroll
  for (int d = 1; d < G; d *= 2) {
    const T up = __shfl_up_sync(lanes_of<G>(), all, d, G);
    if (threadIdx.x % G >= d) all = up * all;
  }
  T state = all * carry;
  if (__any_sync(lanes_of<G>(), !(all - all == 0))) {
    T now = carry;
    for (int k = 0; k < G; ++k) {
      now = __shfl_sync(lanes_of<G>(), a, k, G) * now;
      if (threadIdx.x % G == k) state = now;
    }
  }
  return before_own<G>(state, carry);
}
)"},
    {"state_before", R"(template <int G, class T> HD T state_before(T a, T b, T& carry) {  // a step: * a, + b
  T all = a, sum = b;
#pragma unroll
  for (int d = 1; d < G; d *= 2) {
    const T up = __shfl_up_sync(lanes_of<G>(), all, d, G), more = __shfl_up_sync(lanes_of<G>(), sum, d, G);
    if (threadIdx.x % G >= d) sum = all * more + sum, all = up * all;
  }
  T state = all * carry + sum;
  if (__any_sync(lanes_of<G>(), !(all - all == 0))) {
    T now = carry;
    for (int k = 0; k < G; ++k) {
      now = __shfl_sync(lanes_of<G>(), a, k, G) * now + __shfl_sync(lanes_of<G>(), b, k, G);
      if (threadIdx.x % G == k) state = now;
    }
  }
  return before_own<G>(state, carry);
}
)"}};

// Where the parenthesis that opens at i closes.
std::size_t closing(const std::string& s, std::size_t i) {
    for (int depth = 0; i < s.size(); ++i) {
        depth += s[i] == '(' ? 1 : s[i] == ')' ? -1 : 0;
        if (depth == 0) return i;
    }
    return s.size();
}
std::string without_parentheses(const std::string& s) {
    return s.starts_with('(') && closing(s, 0) + 1 == s.size() ? s.substr(1, s.size() - 2) : s;
}

}  // namespace

bool is_atom(const std::string& s) {
    std::size_t i = 0;
    while (i < s.size() && (word_char(s[i]) || s[i] == '.')) ++i;
    if (s.substr(i) == "[e]") return true;  // an element of several
    return i == s.size() || (s[i] == '(' && closing(s, i) + 1 == s.size());  // a name, a number, or f(...)
}

bool in_place(const OpDef& d) {
    int count[3] = {};
    tokens(d.scalar.text, [&](std::string_view t) {
        if (t.size() == 1 && t[0] >= 'a' && t[0] <= 'c') ++count[t[0] - 'a'];
    }, [](std::string_view) {});
    return std::all_of(count, count + 3, [](int n) { return n <= 1; });
}

std::string apply(const OpDef& d, const std::string& a, const std::string& b, const std::string& c) {
    const std::string* by[3] = {&a, &b, &c};
    constexpr const char* kCall[] = {"", "(a)", "(a, b)", "(a, b, c)"};
    std::string text = in_place(d) ? std::string(d.scalar.text) : own_function(d) + kCall[operands(d)], out;
    std::size_t at = 0;
    auto argument = [&](std::size_t n) {  // the whole of an argument of a call needs no parentheses
        std::size_t before = text.find_last_not_of(' ', at == 0 ? 0 : at - 1), after = at + n;
        return at > 0 && after < text.size() && (text[before] == '(' || text[before] == ',') && (text[after] == ')' || text[after] == ',');
    };
    tokens(text, [&](std::string_view t) {
        bool operand = t.size() == 1 && t[0] >= 'a' && t[0] <= 'c';
        const std::string& s = operand ? *by[t[0] - 'a'] : "";
        out += !operand ? std::string(t) : argument(1) ? without_parentheses(s) : s;
        at += t.size();
    }, [&](std::string_view t) { out += t, at += t.size(); });
    return out;
}

std::string type(DType t) {
    switch (t) {
        case DType::b1: return "bool";
        case DType::i32: return "int";
        case DType::i64: return "i64";
        case DType::f64: return "double";
        default: return "float";
    }
}
std::string stored(DType t) { return t == DType::f16 || t == DType::bf16 ? "unsigned short" : type(t); }
std::string from_stored(DType t, const std::string& e) {
    return t == DType::f16 || t == DType::bf16 ? fmt::format("from_{}({})", name(t), e) : e;
}
std::string to_stored(DType t, const std::string& v) {
    return t == DType::f16 || t == DType::bf16 ? fmt::format("to_{}({})", name(t), v) : v;
}

std::string literal(DType t, double v) {
    if (t == DType::b1) return v != 0 ? "true" : "false";
    if (is_int(t)) {
        if (t == DType::i32 && v == -0x1p31) return "(-2147483647 - 1)";
        if (v >= 0x1p63) return "9223372036854775807LL";
        if (v <= -0x1p63) return "(-9223372036854775807LL - 1)";
        std::string s = fmt::format("{}{}", static_cast<std::int64_t>(v), t == DType::i64 ? "LL" : "");
        return v < 0 ? "(" + s + ")" : s;
    }
    bool wide = t == DType::f64;
    float f = static_cast<float>(v);
    if (wide ? !std::isnormal(v) && v != 0 : !std::isnormal(f) && f != 0) {  // inf, nan, denormals: by their bits
        std::string what = print_number(wide ? v : static_cast<double>(f));
        return wide ? fmt::format("__longlong_as_double({:#x}LL /* {} */)", std::bit_cast<std::uint64_t>(v), what)
                    : fmt::format("__uint_as_float({:#x}u /* {} */)", std::bit_cast<std::uint32_t>(f), what);
    }
    std::string s = wide ? fmt::format("{}", v) : fmt::format("{}", f);
    if (s.find_first_of(".e") == std::string::npos) s += ".0";
    if (!wide) s += "f";
    return std::signbit(v) ? "(" + s + ")" : s;
}

bool is_vocabulary(const std::string& word) {
    auto same = [&](const char* s) { return word == s; };
    return std::any_of(kMaths1.begin(), kMaths1.end(), same) || std::any_of(kMaths2.begin(), kMaths2.end(), same) ||
           std::any_of(std::begin(kWords), std::end(kWords), [&](const Word& w) { return word == w.name; });
}

std::string prelude(const Uses& u, bool wide_index) {
    std::string rows;  // text of all rows, to see which words they use
    std::string functions;
    for (Op op : u.rows) {
        const OpDef& d = def(op);
        rows += std::string(d.scalar.text) + ";";
        if (in_place(d)) continue;
        constexpr const char* kParams[] = {"", "T a", "T a, T b", "bool a, T b, T c"};
        functions += fmt::format("template <class T> HD T {}({}) {{ return {}; }}\n", own_function(d), kParams[operands(d)], d.scalar.text);
    }
    std::string s = fmt::format("#define HD static __device__ __forceinline__\ntypedef long long i64;\ntypedef {} index_t;\n",
                                wide_index ? "long long" : "int");
    for (const char* f : kMaths1)
        if (uses_word(rows, f))
            s += fmt::format("HD float {0}(float a) {{ return ::{0}f(a); }}\nHD double {0}(double a) {{ return ::{0}(a); }}\n", f);
    for (const char* f : kMaths2)
        if (uses_word(rows, f))
            s += fmt::format("HD float {0}(float a, float b) {{ return ::{0}f(a, b); }}\n"
                             "HD double {0}(double a, double b) {{ return ::{0}(a, b); }}\n", f);
    for (const Word& w : kWords)
        if (uses_word(rows, w.name)) s += w.text;
    if (u.converted.contains(DType::f16)) s += kF16;
    if (u.converted.contains(DType::bf16)) s += kBf16;
    s += functions;
    for (auto [op, threads] : u.groups) s += group_of(def(op), threads);
    for (DType t : u.atomics) s += atomics_of(t);
    if (!u.scans.empty()) s += kLanes;
    for (const Scan& scan : kScans)
        if (u.scans.contains(scan.name)) s += scan.text;
    if (u.ordered) s += kOrdered;
    if (u.near) s += kNearText;
    if (u.vectors || u.runs) {
        s += kVectors;
        if (u.atomics.contains(DType::f32)) s += kVectorAdds;
    }
    if (u.runs) s += kRuns;
    if (u.stages) s += kStages;
    if (u.turns) s += kTurns;
    return s;
}

}  // namespace heddle::cuda
