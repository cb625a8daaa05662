// Fibers, barriers, blocks; see machine.h.
#include "tests/cuda_on_cpu/machine.h"

#include <fmt/format.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <deque>
#include <random>

#include "tests/cuda_on_cpu/shadow.h"

namespace heddle::cuda_on_cpu {

namespace {

constexpr std::size_t kStack = 64 << 10;

// Stacks are kept: a kernel has up to 1024 threads a block, and tests have many kernels.
struct Stacks {
    std::vector<char*> free;
    char* take() {
        if (free.empty()) {
            void* p = mmap(nullptr, kStack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            if (p == MAP_FAILED) throw std::runtime_error("no memory for a thread's stack");
            return static_cast<char*>(p);
        }
        char* p = free.back();
        return free.pop_back(), p;
    }
    static Stacks& get() {
        static Stacks s;
        return s;
    }
};

struct Block;
struct Meeting {                       // of lanes of one warp
    const char* what;
    int line;
    unsigned warp, mask, arrived = 0, left = 0;
    bool orders_memory, over = false;
    Word brought[32];
};
struct Fiber {
    Block* block;
    unsigned thread;
    ucontext_t context;
    char* stack = nullptr;
    bool done = false;
    std::uint32_t fenced = 0;          // what it did before this epoch of its block is ordered by a fence
    const char* waits_at = nullptr;
    int line = 0;
    Word seen[32];                     // what the lanes of its last meeting brought
    std::map<std::uint32_t, std::uint32_t> read;  // blocks whose releases it has read; ordered by a fence
};
struct Block {
    unsigned index = 0;
    std::uint32_t epoch = 0;
    std::vector<std::uint32_t> warp_epoch;
    std::vector<Fiber> fibers;
    std::vector<unsigned> ready, met;  // threads that can go on; that wait at the block's barrier
    std::deque<Meeting> meetings;
    std::size_t left = 0;
    std::map<std::uint32_t, std::uint32_t> seen, acquired;  // blocks that came before; from the next barrier on
    std::vector<char> shared;          // while another block runs
    Cells shared_cells;
};

struct Machine {
    Host host{};
    const Object& code;
    Grid grid;
    std::span<Buffer> buffers;
    std::vector<Cells> cells;
    std::vector<char*> memory;
    std::vector<Sums> added;           // per buffer
    std::vector<void*> arguments;
    std::map<const void*, std::map<std::uint32_t, std::uint32_t>> released;  // by address: blocks that came before who reads it
    std::vector<std::unique_ptr<Block>> resident, spare;
    Block* in = nullptr;               // whose shared memory is in place
    Fiber* now = nullptr;
    ucontext_t main{};
    std::mt19937 random;
    unsigned seed;
    std::string failure;
    std::uint64_t idle = 0;            // switches since anything changed
    bool slept = false;
    static inline Machine* self = nullptr;
    static inline std::uint32_t lives = 0;

    Machine(const Object& o, const Grid& g, std::span<Buffer> b, unsigned s) : code(o), grid(g), buffers(b), cells(b.size()), added(b.size() + 1), random(s), seed(s) {
        host.threads = {g.threads, 1, 1}, host.blocks = {g.blocks, 1, 1};
        host.access = [](const void* p, unsigned n, How how, const void* from) { self->access(static_cast<const char*>(p), n, how, from); };
        host.float_atomic = [](const void* p, const void* before, unsigned width) {
            const auto* c = static_cast<const char*>(p);
            const bool shared = c >= self->code.shared_first() && c < self->code.shared_last();
            const std::size_t k = shared ? self->buffers.size() : Arena::get().span(p);
            if (k >= self->added.size()) return;
            Added& a = self->added[k][static_cast<std::size_t>(c - (shared ? self->code.shared_first() : self->memory[k])) / width];
            const DType t = !shared ? self->buffers[k].dtype : width == 8 ? DType::f64 : width == 4 ? DType::f32 : DType::f16;
            a.count += 1, a.sum += std::abs(number(t, p) - number(t, before));
        };
        host.meet_block = [](int line) { self->meet_block(line); };
        host.meet_lanes = [](const char* what, int line, unsigned mask, Word mine, bool orders) { return self->meet_lanes(what, line, mask, mine, orders); };
        host.fence = [] { self->fence(); };
        host.sleep = [] { self->sleep(); };
        host.pause = [] { self->pause(); };
        host.fail = [](const char* what, int line) { self->fail(fmt::format("{} {} in {}", self->me(), what, self->code.line(line))); };
        for (std::size_t k = 0; k < b.size(); ++k) {
            memory.push_back(Arena::get().place(k, b[k].bytes));
            cells[k].resize(b[k].bytes / width(k));
            cells[k].life = ++lives, cells[k].initialised = b[k].initialised;
            if (b[k].data == memory[k]) continue;
            if (b[k].initialised) std::copy_n(static_cast<const char*>(b[k].data), b[k].bytes, memory[k]);
            else std::memset(memory[k], 0x7b, b[k].bytes);
        }
        for (char*& m : memory) arguments.push_back(&m);
        code.start(&host);
    }
    std::size_t width(std::size_t k) const { return static_cast<std::size_t>(bytes(buffers[k].dtype)); }

    // ---- words
    std::string me() const { return thread(now->block->index, now->thread); }
    static std::string thread(unsigned block, unsigned thread) { return fmt::format("thread {} of block {}", thread, block); }
    [[noreturn]] void fail(const std::string& what) {
        failure = what;
        setcontext(&main);
        __builtin_unreachable();
    }

    // ---- memory
    void access(const char* p, unsigned n, How how, const void* from) {
        if (p >= now->stack && p < now->stack + kStack) return;
        const char* verb = how == How::read || how == How::relaxed_read ? "reads" : how == How::atomic ? "adds to" : "writes";
        std::string name;
        auto words = [&](const std::string& what) { return fmt::format("{}: {} {} {} in {}", what, me(), verb, name, code.line(from)); };
        Cells* c;
        std::size_t first, last;
        Block& b = *now->block;
        if (p >= code.shared_first() && p < code.shared_last()) {
            c = &b.shared_cells, first = static_cast<std::size_t>(p - code.shared_first()), last = first + n;
            name = "__shared__ memory";
        } else {
            std::size_t k = Arena::get().span(p);
            if (k >= buffers.size()) {
                name = fmt::format("{} bytes at {}", n, static_cast<const void*>(p));
                fail(words("out of bounds of every buffer"));
            }
            auto offset = p - memory[k];
            auto w = static_cast<std::ptrdiff_t>(width(k));
            if (offset < 0 || offset + n > static_cast<std::ptrdiff_t>(buffers[k].bytes)) {
                name = fmt::format("{}[{}], which has {} elements,", buffers[k].name, (offset < 0 ? offset - w + 1 : offset) / w, cells[k].size());
                fail(words("out of bounds"));
            }
            c = &cells[k], first = static_cast<std::size_t>(offset / w), last = static_cast<std::size_t>((offset + n + w - 1) / w);
        }
        Clock clock{b.index, b.epoch, b.warp_epoch[now->thread / 32], static_cast<std::uint16_t>(now->thread), &b.seen};
        auto named = [&](std::size_t k) {
            if (c != &b.shared_cells) name = fmt::format("{}[{}]", buffers[static_cast<std::size_t>(c - cells.data())].name, k);
        };
        if (n <= 16 && reinterpret_cast<std::uintptr_t>(p) % n != 0) named(first), fail(words("misaligned"));
        for (std::size_t k = first; k < last; ++k) {
            Cells::Conflict x = c->touch(k, clock, how, code.offset(from));
            if (!x.what) continue;
            named(k);
            if (!x.with.set) fail(words(x.what));
            fail(fmt::format("{}, and {} {} it in {} with nothing between that orders them", words(x.what), thread(x.with.block, x.with.thread),
                             x.wrote ? "wrote" : "read", code.line(code.address(x.with.from))));
        }
        if (how == How::write || how == How::relaxed_write || how == How::atomic) idle = 0;
        if (how == How::atomic && now->fenced > 0) {  // a release
            auto& to = released[p];
            for (auto [block, epoch] : b.seen) to[block] = std::max(to[block], epoch);
            to[b.index] = std::max(to[b.index], now->fenced);
        }
        if (how == How::relaxed_read) sleep();  // somebody else may write it before it is read
        if (how == How::atomic || how == How::relaxed_read)
            if (auto it = released.find(p); it != released.end())
                for (auto [block, epoch] : it->second) now->read[block] = std::max(now->read[block], epoch);
    }
    void fence() {
        now->fenced = now->block->epoch;
        for (auto [block, epoch] : now->read) now->block->acquired[block] = std::max(now->block->acquired[block], epoch);
    }

    // ---- waiting
    void leave() { swapcontext(&now->context, &main); }
    void sleep() {
        now->block->ready.push_back(now->thread);
        slept = true;
        leave();
    }
    void pause() {
        if (random() % 4 != 0) return;
        now->block->ready.push_back(now->thread);
        leave();
    }
    void meet_block(int line) {
        Block& b = *now->block;
        now->waits_at = "__syncthreads", now->line = line;
        if (!b.met.empty()) {
            const Fiber& other = b.fibers[b.met[0]];
            if (other.line != line) fail(fmt::format("divergent barrier: {} waits in {}, {} in {}", me(), code.line(line), thread(b.index, other.thread), code.line(other.line)));
        }
        b.met.push_back(now->thread);
        if (b.met.size() < b.fibers.size()) return leave();
        ++b.epoch;
        for (auto& e : b.warp_epoch) ++e;
        for (auto [block, epoch] : b.acquired) b.seen[block] = std::max(b.seen[block], epoch);
        b.acquired.clear();
        go_on(b.met);
    }
    // All of these wait no longer; the one that runs lines up too, so that any may be first.
    void go_on(std::vector<unsigned>& threads) {
        for (unsigned t : threads) now->block->ready.push_back(t), now->block->fibers[t].waits_at = nullptr;
        threads.clear();
        idle = 0;
        leave();
    }
    const Word* meet_lanes(const char* what, int line, unsigned mask, Word mine, bool orders_memory) {
        Block& b = *now->block;
        unsigned warp = now->thread / 32, lane = now->thread % 32;
        if (!(mask >> lane & 1)) fail(fmt::format("{} calls {} with a mask {:#x} that leaves it out, in {}", me(), what, mask, code.line(line)));
        auto it = std::find_if(b.meetings.begin(), b.meetings.end(), [&](const Meeting& m) { return m.warp == warp && m.mask == mask && !m.over && !(m.arrived >> lane & 1); });
        if (it == b.meetings.end()) {
            b.meetings.push_back({what, line, warp, mask, 0, 0, orders_memory, false, {}});
            it = b.meetings.end() - 1;
        }
        Meeting& m = *it;
        if (m.line != line || std::strcmp(m.what, what) != 0)
            fail(fmt::format("divergent lanes: {} calls {} in {}, others of its warp {} in {}", me(), what, code.line(line), m.what, code.line(m.line)));
        now->waits_at = what, now->line = line;
        m.brought[lane] = mine, m.arrived |= 1u << lane;
        if (m.arrived != mask) {
            leave();
            return now->seen;
        }
        m.over = true;
        if (orders_memory && mask == 0xffffffffu) ++b.warp_epoch[warp];
        std::vector<unsigned> lanes;
        for (unsigned l = 0; l < 32; ++l)
            if (mask >> l & 1) {
                lanes.push_back(warp * 32 + l);
                std::copy(m.brought, m.brought + 32, b.fibers[lanes.back()].seen);
            }
        b.meetings.erase(it);
        go_on(lanes);
        return now->seen;
    }

    // ---- blocks
    static void start() {
        self->code(self->arguments.data());
        Fiber& f = *self->now;
        f.done = true, --f.block->left, self->idle = 0;
        self->leave();
    }
    [[gnu::noinline]] static void prepare(Fiber& f) {
        getcontext(&f.context);
        f.context.uc_stack = {.ss_sp = f.stack, .ss_size = kStack};
        makecontext(&f.context, start, 0);
    }
    void open(unsigned index) {
        auto size = static_cast<std::size_t>(code.shared_last() - code.shared_first());
        if (spare.empty()) {
            spare.push_back(std::make_unique<Block>());
            spare.back()->fibers.resize(grid.threads);
            spare.back()->shared_cells.resize(size);
            for (Fiber& f : spare.back()->fibers) f.stack = Stacks::get().take();
        }
        Block& b = *resident.emplace_back(std::move(spare.back()));
        spare.pop_back();
        b.index = index, b.epoch = 0, b.left = grid.threads;
        b.warp_epoch.assign((grid.threads + 31) / 32, 0);
        b.seen.clear(), b.acquired.clear();
        b.shared.assign(size, '\x7b');
        b.shared_cells.life = ++lives;
        for (unsigned t = 0; t < grid.threads; ++t) {
            Fiber& f = b.fibers[t];
            f.block = &b, f.thread = t, f.done = false, f.fenced = 0, f.read.clear();
            prepare(f);
            b.ready.push_back(t);
        }
    }
    void close(std::size_t k) {
        if (in == resident[k].get()) in = nullptr;
        spare.push_back(std::move(resident[k]));
        resident.erase(resident.begin() + static_cast<std::ptrdiff_t>(k));
    }
    ~Machine() {
        for (auto& b : spare)
            for (Fiber& f : b->fibers) Stacks::get().free.push_back(f.stack);
    }
    void enter(Block& b) {
        if (in == &b) return;
        if (in) std::copy(code.shared_first(), code.shared_last(), in->shared.begin());
        std::copy(b.shared.begin(), b.shared.end(), code.shared_first());
        in = &b;
        host.block = {b.index, 0, 0};
    }
    // Until the block ends, or nobody in it goes on but by waiting for memory to change.
    void go(Block& b) {
        enter(b);
        for (std::uint64_t rest = 0; !b.ready.empty() && rest <= 2 * b.ready.size();) {
            std::size_t k = random() % b.ready.size();
            unsigned t = b.ready[k];
            b.ready[k] = b.ready.back(), b.ready.pop_back();
            now = &b.fibers[t];
            host.thread = {t, 0, 0};
            slept = false;
            // Where a fiber fails it jumps to the context saved here; nothing of this frame changes between.
            swapcontext(&main, &now->context);
            if (!failure.empty()) throw Report(fmt::format("{}, seed {}: {}", code.kernel(), seed, failure));
            ++idle;
            rest = slept ? rest + 1 : 0;
        }
        if (b.ready.empty() && b.left > 0) stuck(b);
    }
    [[noreturn]] void stuck(const Block& b) {
        std::map<std::string, std::pair<unsigned, unsigned>> waiting;  // where: how many, and one of them
        for (const Fiber& f : b.fibers) {
            auto& [count, one] = waiting[f.done ? "have returned" : fmt::format("wait at {} in {}", f.waits_at, code.line(f.line))];
            ++count, one = f.thread;
        }
        std::string all;
        for (const auto& [where, who] : waiting) all += fmt::format("{}{} (such as {}) {}", all.empty() ? "" : ", ", who.first, who.second, where);
        throw Report(fmt::format("{}, seed {}: divergent barrier: of the threads of block {} {}", code.kernel(), seed, b.index, all));
    }
    void run() {
        self = this;
        std::vector<unsigned> order = grid.only;
        for (unsigned i = 0; order.size() < grid.blocks && grid.only.empty(); ++i) order.push_back(i);
        if (!grid.in_order) std::shuffle(order.begin(), order.end(), random);
        std::size_t at_once = grid.in_order ? 1 + random() % 4 : 1;
        for (std::size_t next = 0; next < order.size() || !resident.empty();) {
            while (resident.size() < at_once && next < order.size()) open(order[next++]);
            std::size_t k = random() % resident.size();
            go(*resident[k]);
            if (resident[k]->left == 0) close(k);
            else if (idle > 1'000'000) throw Report(fmt::format("{}, seed {}: block {} waits for ever for memory to change", code.kernel(), seed, resident[k]->index));
        }
    }
    void finish() {
        for (std::size_t k = 0; k < buffers.size(); ++k) {
            if (buffers[k].data != memory[k]) std::copy_n(memory[k], buffers[k].bytes, static_cast<char*>(buffers[k].data));
            if (!buffers[k].whole || buffers[k].initialised) continue;
            for (std::size_t i = 0; i < cells[k].size(); ++i)
                if (const Cell* c = cells[k].at(i); !c || !c->initialised)
                    throw Report(fmt::format("{}, seed {}: uninitialised: no thread writes {}[{}] of {}", code.kernel(), seed, buffers[k].name, i, cells[k].size()));
        }
    }
};

}  // namespace

std::vector<Sums> run(const Object& o, const Grid& grid, std::span<Buffer> given, std::span<const std::int64_t> sizes, unsigned seed) {
    std::vector<Buffer> buffers(given.begin(), given.end());
    std::uint32_t done = 0;
    if (grid.counts) buffers.push_back({"done", DType::i32, &done, sizeof done});
    Machine m(o, grid, buffers, seed);
    void* counter = nullptr;
    if (grid.counts) counter = m.arguments.back(), m.arguments.pop_back();
    std::vector<std::int64_t> values(sizes.begin(), sizes.end());
    for (std::int64_t& v : values) m.arguments.push_back(&v);
    if (grid.counts) m.arguments.push_back(counter);
    m.run();
    m.finish();
    return std::move(m.added);
}

}  // namespace heddle::cuda_on_cpu
