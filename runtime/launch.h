// What differs between devices: how a launch of a plan becomes code, and how it runs. The executable knows no more of a device.
// Law: compile() may be called from several threads, once per launch, before its first run(); run() changes nothing but buffers.
#pragma once
#include "passes/fuse.h"
#include "runtime/host.h"

namespace heddle {

// Where a plan runs. No architecture: this machine's CPU.
struct Target {
    std::string arch;   // of a CUDA device, as NVRTC takes it: "sm_90"
    int device = 0;     // its index, as the driver counts
    bool cuda() const { return !arch.empty(); }
};

class Launcher {
public:
    virtual ~Launcher() = default;
    // Of launch `index`: the name of a file and the text that was compiled. Throws Error.
    virtual std::pair<std::string, std::string> compile(std::size_t index) = 0;
    // values: per node of the graph; those that the launch reads or writes have memory. Accumulated buffers are zeroed here.
    virtual void run(Host&, std::size_t index, const Sizes&, std::vector<Array>& values) = 0;
};

// The plan outlives its launcher. Throw Error where the backend is missing, and say what to do.
std::unique_ptr<Launcher> cpu_launcher(const Plan&);
std::unique_ptr<Launcher> cuda_launcher(const Plan&, const Target&);

}  // namespace heddle
