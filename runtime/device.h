// The CUDA driver: modules, launches, memory for tests. Law: the only file that calls the driver; without one everything here is
// harmless and cuda_available() is false. Errors are "cuLaunchKernel: <kernel>: <text>".
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "ir/type.h"

namespace heddle {

using Stream = void*;  // CUstream, which a cudaStream_t is too; nullptr is the legacy default

bool cuda_available();              // a driver and at least one device
std::string cuda_why_not();         // one line; empty if available
struct DeviceInfo {
    std::string name, arch;         // arch as NVRTC takes it: "sm_90"
    int multiprocessors = 0;
    int driver = 0;                 // 13000 is 13.0
    std::size_t shared_per_block = 0;  // bytes, with opt-in
};
DeviceInfo device_info(int device = 0);  // throws Error
int device_count();                      // 0 without a driver
// A thread that has no context gets the primary one of `device`; another stays. Throws Error.
void enter_device(int device);

// A loaded cubin and its kernel. It belongs to the context that was current when it was made, or else to the primary context of
// `device`, which is then made current.
class Kernel {
public:
    Kernel() = default;
    Kernel(const std::string& cubin, const std::string& name, int device = 0);  // throws Error
    explicit operator bool() const { return function_ != nullptr; }
    const std::string& name() const { return name_; }
    int registers() const;
    // args: the address of each argument. A grid of 0 does nothing. Throws Error; asynchronous faults show at a later call.
    void launch(std::int64_t grid, int block, std::size_t shared_bytes, Stream, void** args) const;

private:
    std::shared_ptr<void> module_;
    void* function_ = nullptr;
    std::string name_;
};

void clear_async(void* device_memory, std::size_t bytes, Stream);  // to zero
void download_async(void* to, const void* device_memory, std::size_t bytes, Stream);  // `to` is pinned; there once the stream is done
void synchronize(Stream);
// Memory of the host's that a device writes without a copy of the driver's. Kept for the next that asks, by thread.
class PinnedMemory {
public:
    explicit PinnedMemory(std::size_t bytes);
    void* data() const { return data_; }

private:
    void* data_ = nullptr;
};

// Device memory of one's own, for tests and tools; the runtime takes its memory from the host program.
class DeviceMemory {
public:
    explicit DeviceMemory(std::size_t bytes, int device = 0);
    DeviceMemory(DeviceMemory&&) noexcept;
    DeviceMemory& operator=(DeviceMemory&&) = delete;
    ~DeviceMemory();
    void* data() const { return data_; }
    void upload(const void* from);  // all bytes, synchronous
    void download(void* to) const;

private:
    void* data_ = nullptr;
    std::size_t bytes_ = 0;
};

}  // namespace heddle
