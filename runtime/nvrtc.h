// CUDA text to cubin through NVRTC, which is dlopen'd: no CUDA toolkit at build time, no GPU at any time.
// Law: an error names the kernel and carries NVRTC's log; the same text, architecture and options are compiled once,
// on this machine if there is a disk cache.
#pragma once
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "ir/type.h"

namespace heddle {

// What ptxas says of a kernel (of the largest, if a text has several). Bytes, but for registers.
struct Resources {
    int registers = 0, spill_stores = 0, spill_loads = 0, stack = 0, shared = 0;
    bool operator==(const Resources&) const = default;
};
// Read from the words that ptxas -v prints; nullopt if there are none.
std::optional<Resources> parse_ptxas(const std::string& log);

struct Binary {
    std::string image;    // cubin, or PTX for an architecture compute_XX
    std::string log;      // warnings and what ptxas says
    std::optional<Resources> resources;  // not for PTX
    double milliseconds = 0;
};
struct NvrtcOptions {
    bool line_info = false;           // for profilers
    int max_registers = 0;            // 0: as many as the launch bounds allow
    std::vector<std::string> extra;   // passed on as they are
};
struct CudaText {
    std::string kernel, text;
};

class Nvrtc {
public:
    // Looks for the library: $HEDDLE_NVRTC (a file or folder; it is an error if that one doesn't load); already loaded; the folder
    // `hint`; the wheels of a .venv here or above, or of $VIRTUAL_ENV; the loader's own path; /usr/local/cuda*.
    explicit Nvrtc(const std::string& hint = "");
    Nvrtc(const Nvrtc&) = delete;
    bool available() const { return api_ != nullptr; }
    const std::string& path() const { return path_; }
    const std::string& why_not() const { return why_not_; }  // one line; empty if available
    std::string version() const;                             // "13.0"

    // arch: "sm_90" gives a cubin, "compute_90" PTX. Thread-safe. Throws Error.
    std::shared_ptr<const Binary> compile(const CudaText&, const std::string& arch, const NvrtcOptions& = {});
    // In parallel, in any order; results in the order of the texts. Throws the first Error.
    std::vector<std::shared_ptr<const Binary>> compile(const std::vector<CudaText>&, const std::string& arch, const NvrtcOptions& = {},
                                                       int threads = 0);  // 0: as many as cores

private:
    struct Api;
    std::shared_ptr<const Api> api_;  // of a library that stays loaded for the life of the process
    std::string path_, why_not_, compiler_;  // compiler_: version and build, empty where they are unknown
    std::mutex mutex_;
    std::unordered_map<std::string, std::shared_ptr<const Binary>> cache_;  // by architecture, options and text
};

// Machine-readable parts of `heddle doctor`.
struct Tool {
    std::string name, path, version;  // path empty: not found, and version says why
};
std::vector<Tool> find_tools(const std::string& hint = "");
std::vector<std::string> site_packages();  // of the .venv here or above, and of $VIRTUAL_ENV

}  // namespace heddle
