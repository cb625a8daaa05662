// What differs between devices: how a launch of a plan becomes code, and how it runs. The executable knows no more of a device.
// Law: compile() may be called from several threads, once per launch, before its first run(); run(), from several threads too,
// changes nothing but buffers.
#pragma once
#include "passes/fuse.h"
#include "runtime/host.h"
#include "runtime/sizes.h"

namespace heddle {

class Launcher;
struct Frame;
// Where a plan runs. No architecture: this machine's CPU.
struct Target {
    std::string arch;   // of a CUDA device, as NVRTC takes it: "sm_90"
    int device = 0;     // its index, as the driver counts
    std::function<std::unique_ptr<Launcher>(const Plan&, const Frame&)> launcher = {};  // another way to run launches, over the host's memory
    bool cuda() const { return !arch.empty(); }
};

// What a run of a plan works on, by number: its sizes by slot, its stored values by buffer.
struct Frame {
    SizeNames names;
    std::vector<int> buffer;          // per node: its number, or -1
    std::vector<SizeExpr> elements;   // per buffer
    std::vector<DType> dtypes;        // per buffer
    int of(Id id) const { return buffer[static_cast<std::size_t>(id)]; }
    std::int64_t bytes(int b, const std::int64_t* sizes) const {
        return elements[static_cast<std::size_t>(b)](sizes) * heddle::bytes(dtypes[static_cast<std::size_t>(b)]);
    }
};

class Launcher {
public:
    virtual ~Launcher() = default;
    virtual void compile(std::size_t index) = 0;  // throws Error
    // Of a compiled launch: the name of a file and the text that is compiled.
    virtual std::pair<std::string, std::string> text(std::size_t index) const = 0;
    // sizes by slot, memory by buffer: those that the launch reads or writes have it. Accumulated buffers are zeroed here.
    virtual void run(Host&, std::size_t index, const std::int64_t* sizes, void* const* memory) = 0;
};

// The plan and the frame outlive their launcher. Throw Error where the backend is missing, and say what to do.
std::unique_ptr<Launcher> cpu_launcher(const Plan&, const Frame&);
std::unique_ptr<Launcher> cuda_launcher(const Plan&, const Frame&, const Target&);

}  // namespace heddle
