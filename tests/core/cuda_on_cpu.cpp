// The shim: CUDA's words as C++, barriers and shuffles as fiber switches. Law: one operating system thread, so atomics are plain.
#include "tests/core/cuda_on_cpu.h"

#include <dlfcn.h>
#include <fmt/format.h>
#include <ucontext.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <random>

#ifndef HEDDLE_CXX
#define HEDDLE_CXX "g++"
#endif

namespace heddle::test {

namespace {

// Shared with the compiled text, field by field.
struct Host {
    struct { unsigned x; } thread, block;
    void (*barrier)(bool whole_block);
    void (*sleep)();
    alignas(8) char slot[1024][8];
};

constexpr char kShim[] = R"(
#include <cmath>
#include <cstring>
#include <utility>
#define __device__
#define __global__
#define __shared__ static
#define __forceinline__ inline
#define __launch_bounds__(...)
struct Host { struct { unsigned x; } thread, block; void (*barrier)(bool); void (*sleep)(); alignas(8) char slot[1024][8]; };
static Host* host;
#define threadIdx (host->thread)
#define blockIdx (host->block)
static void __syncthreads() { host->barrier(true); }
static void __syncwarp() { host->barrier(false); }
static void __threadfence() {}
static void __nanosleep(unsigned) { host->sleep(); }
template <class T> static T __shfl_xor_sync(unsigned, T v, int d) {
  unsigned me = threadIdx.x;
  memcpy(host->slot[me], &v, sizeof v);
  host->barrier(false);
  memcpy(&v, host->slot[me ^ d], sizeof v);
  host->barrier(false);
  return v;
}
template <class T> static T atomicAdd(T* p, T v) { T old = *p; *p += v; return old; }
template <class T> static T atomicCAS(T* p, T seen, T v) { T old = *p; if (old == seen) *p = v; return old; }
template <class To, class From> static To bits(From v) { To r; memcpy(&r, &v, sizeof r); return r; }
static float __uint_as_float(unsigned u) { return bits<float>(u); }
static unsigned __float_as_uint(float f) { return bits<unsigned>(f); }
static double __longlong_as_double(long long u) { return bits<double>(u); }
namespace heddle {
static float from_f16(unsigned short h) { return bits<_Float16>(h); }
static unsigned short to_f16(float f) { return bits<unsigned short>((_Float16)f); }
}
template <class... A, std::size_t... I> void call(void (*k)(A...), void** a, std::index_sequence<I...>) { k(*(std::decay_t<A>*)a[I]...); }
template <class... A> void call(void (*k)(A...), void** a) { call(k, a, std::index_sequence_for<A...>()); }
)";

struct Library {
    explicit Library(const CudaSource& s) {
        static int count = 0;  // a path of its own: the loader takes an equal path for the same library
        auto base = std::filesystem::temp_directory_path() / fmt::format("heddle_{}_{}_{}", getpid(), count++, s.kernel);
        std::string cpp = base.string() + ".cpp", so = base.string() + ".so", log = base.string() + ".log";
        std::ofstream(cpp) << kShim << s.text << fmt::format(
            "extern \"C\" void run(Host* h, void** a) {{ host = h; call(heddle::{}, a); }}\n", s.kernel);
        int rc = std::system(fmt::format(HEDDLE_CXX " -std=c++20 -O0 -w -ffp-contract=off -shared -fPIC -o {} {} > {} 2>&1", so, cpp, log).c_str());
        std::string words((std::istreambuf_iterator<char>(std::ifstream(log).rdbuf())), {});
        if (rc == 0) handle = dlopen(so.c_str(), RTLD_NOW | RTLD_LOCAL);
        for (const std::string& f : {cpp, so, log}) std::filesystem::remove(f);
        if (!handle) throw std::runtime_error(words + "\n" + s.text);
        run = reinterpret_cast<void (*)(Host*, void**)>(dlsym(handle, "run"));
    }
    ~Library() { dlclose(handle); }
    void* handle = nullptr;
    void (*run)(Host*, void**) = nullptr;
};

// Barriers count arrivals; a fiber that waits hands over until its barrier's round is over.
struct Machine {
    Host host{};
    const Library& lib;
    void** args;
    unsigned threads;
    struct Fiber { ucontext_t context; std::unique_ptr<char[]> stack; bool done = false; };
    std::vector<Fiber> fibers;
    std::vector<unsigned> arrived, round;  // per warp, then of the block
    ucontext_t main{};
    unsigned now = 0;
    bool moved = false;
    static inline Machine* self = nullptr;

    Machine(const Library& l, void** a, unsigned n) : lib(l), args(a), threads(n), fibers(n), arrived(n / 32 + 1), round(n / 32 + 1) {
        host.barrier = [](bool whole) { self->wait(whole); };
        host.sleep = [] { swapcontext(&self->fibers[self->now].context, &self->main); };
        for (Fiber& f : fibers) f.stack = std::make_unique<char[]>(kStack);
    }
    static constexpr std::size_t kStack = 65536;

    void wait(bool whole) {
        std::size_t b = whole ? threads / 32 : now / 32;
        unsigned mine = round[b];
        moved = true;
        if (++arrived[b] == (whole ? threads : 32)) arrived[b] = 0, ++round[b];
        while (round[b] == mine) swapcontext(&fibers[now].context, &main);
    }
    static void start() {
        self->lib.run(&self->host, self->args);
        self->fibers[self->now].done = self->moved = true;
        swapcontext(&self->fibers[self->now].context, &self->main);
    }
    [[gnu::noinline]] static void prepare(Fiber& f) {
        f.done = false;
        getcontext(&f.context);
        f.context.uc_stack = {.ss_sp = f.stack.get(), .ss_size = kStack};
        makecontext(&f.context, start, 0);
    }
    void block(unsigned index, std::mt19937& random) {
        if (std::size_t left = try_block(index, random)) throw std::runtime_error(fmt::format("block {}: {} threads wait for others for ever", index, left));
    }
    // How many threads wait for ever; 0: all are done.
    std::size_t try_block(unsigned index, std::mt19937& random) {
        self = this;
        std::fill(arrived.begin(), arrived.end(), 0);
        host.block.x = index;
        std::vector<unsigned> left(threads);
        for (unsigned t = 0; t < threads; ++t) left[t] = t, prepare(fibers[t]);
        while (!left.empty()) {
            std::shuffle(left.begin(), left.end(), random);
            moved = false;
            for (unsigned t : left) {
                now = host.thread.x = t;
                swapcontext(&main, &fibers[t].context);
            }
            std::erase_if(left, [&](unsigned t) { return fibers[t].done; });
            if (!moved) break;
        }
        return left.size();
    }
};

}  // namespace

void run_on_cpu(const CudaSource& s, const std::vector<void*>& buffers, const Sizes& sizes, unsigned seed) {
    static std::map<std::string, Library> compiled;  // by text: a test runs one kernel at several sizes
    const Library& lib = compiled.try_emplace(s.text, s).first->second;
    std::vector<void*> pointers = buffers;
    std::vector<std::int64_t> values;
    for (const std::string& name : s.sizes) values.push_back(sizes.at(name));
    std::vector<void*> args;
    for (void*& p : pointers) args.push_back(&p);
    for (std::int64_t& v : values) args.push_back(&v);
    unsigned done = 0, *counter = &done;
    if (s.staged()) args.push_back(&counter);
    Machine machine(lib, args.data(), static_cast<unsigned>(s.threads));
    std::mt19937 random(seed);
    unsigned first = 0;
    for (std::size_t i = 0; i < s.points.size(); ++i) {  // none of a later stage goes on before those of the first are done
        if (s.stages[i] > 0 && s.blocks(sizes, i) > 0 && first > 0 && s.stages[0] == 0 && machine.try_block(first, random) != static_cast<std::size_t>(s.threads))
            throw std::runtime_error(fmt::format("block {} doesn't wait for the stages before it\n{}", first, s.text));
        first += static_cast<unsigned>(s.blocks(sizes, i));
    }
    first = 0;
    for (std::size_t i = 0; i < s.points.size();) {  // blocks of a stage, in any order
        std::vector<unsigned> order;
        for (int stage = s.stages[i]; i < s.points.size() && s.stages[i] == stage; ++i)
            for (std::int64_t b = s.blocks(sizes, i); b > 0; --b) order.push_back(first++);
        std::shuffle(order.begin(), order.end(), random);
        for (unsigned b : order) machine.block(b, random);
    }
}

}  // namespace heddle::test
