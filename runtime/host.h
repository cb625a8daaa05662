// What the runtime asks of whoever embeds it: memory, threads, library calls, the stream. PyTorch's is in frontends/torch.
// Law: the runtime has no allocator, thread pool or library of its own.
#pragma once
#include <functional>
#include <memory>

#include "ir/graph.h"

namespace heddle {

// Dense row-major memory on the host's device. `transposed`: the last two axes are swapped in memory (sizes are as read).
struct Array {
    void* data = nullptr;
    DType dtype = DType::f32;
    std::vector<std::int64_t> sizes;
    bool transposed = false;
    std::shared_ptr<void> owner;  // keeps data alive; the host knows what it is
    std::int64_t numel() const {
        std::int64_t n = 1;
        for (auto s : sizes) n *= s;
        return n;
    }
    std::int64_t bytes() const { return numel() * heddle::bytes(dtype); }
};

class Host {
public:
    virtual ~Host() = default;
    virtual bool cuda() const { return false; }
    virtual void* stream() const { return nullptr; }                       // of the calling thread's device, when cuda()
    virtual Array allocate(DType, std::vector<std::int64_t> sizes) = 0;    // not cleared; aligned to 64 bytes
    virtual int threads() const { return 1; }
    virtual void parallel(int tasks, const std::function<void(int)>& f) {  // f(0..tasks-1), returns when all are done
        for (int i = 0; i < tasks; ++i) f(i);
    }
    // Results of a dot or call node for its operands, dense and row-major, one per result.
    virtual std::vector<Array> call(const Node&, const std::vector<Array>& operands, const Sizes&) = 0;
};

// A host with malloc and one thread and no library: for tests and for use without PyTorch. dot is done in plain loops.
std::unique_ptr<Host> plain_host(int threads = 1);

}  // namespace heddle
