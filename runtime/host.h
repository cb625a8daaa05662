// What the runtime asks of whoever embeds it: memory, threads, library calls, the stream. PyTorch's is in frontends/torch.
// Law: the runtime has no allocator, thread pool or library of its own.
#pragma once
#include <atomic>
#include <functional>
#include <memory>
#include <span>

#include "ir/graph.h"
#include "runtime/small.h"

namespace heddle {

using Extents = Small<std::int64_t, 5>;

// A reference to whatever keeps memory alive, counted by its maker: a host's own handles are held with no memory of ours.
class Owner {
public:
    struct Ways {
        void (*retain)(void*);
        void (*release)(void*);
        bool (*alone)(void*);  // is there one reference?
    };
    Owner() = default;
    Owner(void* object, const Ways& ways) : object_(object), ways_(&ways) {}  // takes one reference over
    Owner(const Owner& o) : object_(o.object_), ways_(o.ways_) {
        if (object_) ways_->retain(object_);
    }
    Owner(Owner&& o) noexcept : object_(std::exchange(o.object_, nullptr)), ways_(o.ways_) {}
    Owner& operator=(Owner o) noexcept {
        std::swap(object_, o.object_);
        std::swap(ways_, o.ways_);
        return *this;
    }
    ~Owner() { reset(); }
    void reset() {
        if (void* o = std::exchange(object_, nullptr)) ways_->release(o);
    }
    bool alone() const { return object_ && ways_->alone(object_); }
    void* get() const { return object_; }
    explicit operator bool() const { return object_ != nullptr; }

private:
    void* object_ = nullptr;
    const Ways* ways_ = nullptr;
};
// An object of its own that lives as long as its owners; get() is a T*.
template <class T, class... Args>
Owner make_owned(Args&&... args) {
    struct Counted final : T {
        explicit Counted(Args&&... a) : T(std::forward<Args>(a)...) {}
        std::atomic<int> count{1};
        static Counted& of(void* p) { return *static_cast<Counted*>(static_cast<T*>(p)); }
    };
    static constexpr Owner::Ways ways = {[](void* p) { Counted::of(p).count.fetch_add(1, std::memory_order_relaxed); },
                                         [](void* p) {
                                             if (Counted::of(p).count.fetch_sub(1, std::memory_order_acq_rel) == 1) delete &Counted::of(p);
                                         },
                                         [](void* p) { return Counted::of(p).count.load(std::memory_order_acquire) == 1; }};
    return {static_cast<T*>(new Counted(std::forward<Args>(args)...)), ways};
}

// Dense row-major memory on the host's device. `transposed`: the last two axes are swapped in memory (sizes are as read).
struct Array {
    void* data = nullptr;
    DType dtype = DType::f32;
    Extents sizes;
    bool transposed = false;
    Owner owner;                  // keeps data alive; the host knows what it is
    std::int64_t numel() const {
        std::int64_t n = 1;
        for (auto s : sizes) n *= s;
        return n;
    }
    std::int64_t bytes() const { return numel() * heddle::bytes(dtype); }
};

// A guard's value was another than at capture, or two masks that had as many rows as each other have not: the plan doesn't hold for these inputs.
struct GuardFailed {};

class Host {
public:
    virtual ~Host() = default;
    virtual bool cuda() const { return false; }
    virtual void* stream() const { return nullptr; }                       // of the calling thread's device, when cuda()
    virtual Array allocate(DType, const Extents& sizes) = 0;               // not cleared; aligned to 64 bytes
    virtual int threads() const { return 1; }
    virtual std::int64_t grain() const { return 1; }                       // operations on one element that are worth a thread
    virtual void parallel(int tasks, const std::function<void(int)>& f) {  // f(0..tasks-1), returns when all are done
        for (int i = 0; i < tasks; ++i) f(i);
    }
    // Numbers of one element, as they are once all that was asked for before is done: one wait for all of them.
    virtual void read(std::span<const Array> numbers, std::span<double> values);
    // The matrix product of two operands of rank 2, or 3 with a batch, into memory that overlaps none. A third operand is added to each row; with
    // `relu`, less than 0 is then 0.
    virtual void dot(const std::vector<Array>& operands, const Array& result, bool relu) = 0;
    // Results of a call node for its operands, dense and row-major, one per result. Names in the node's attributes have values in Sizes.
    // Both may be called from several threads.
    virtual std::vector<Array> call(const Node&, const std::vector<Array>& operands, const Sizes&) = 0;
};

// A host with malloc and one thread and no library: for tests and for use without PyTorch. dot is done in plain loops.
std::unique_ptr<Host> plain_host(int threads = 1);

// A host that keeps what it allocates for the next run of the same work: the k-th piece that a run asks for is the k-th that the last one had,
// where that is large enough and nobody holds it any more. One run at a time.
class KeepingHost : public Host {
public:
    virtual void begin() = 0;                          // a run
    virtual std::int64_t allocations() const = 0;      // that were asked of the host below, so far
};
std::unique_ptr<KeepingHost> keeping_host(Host& below); // which outlives it

}  // namespace heddle
