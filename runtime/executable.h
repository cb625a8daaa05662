// A compiled plan: inputs in, outputs out.
// Law: a run reads inputs, writes fresh outputs, and touches no other memory that the host didn't give it for the run.
#pragma once
#include <mutex>

#include "passes/fuse.h"
#include "runtime/host.h"

namespace heddle {

class CpuBackend;

struct Stats {                        // of the last run
    int launches = 0, calls = 0;
    std::int64_t bytes = 0;           // that launches must move: every buffer read or written once
    std::int64_t arena = 0;           // bytes of intermediate memory
};

class Executable {
public:
    // Compiles for the CPU (LLVM) or, when `arch` is given, for CUDA ("sm_90"). Throws Error.
    explicit Executable(Plan, std::string arch = "");
    ~Executable();
    // Outputs for inputs in argument order; `sizes` may bind names beforehand and gets those that calls bind. Throws Error
    // "input name: size ..., expected ..." where sizes disagree with the capture.
    std::vector<Array> run(Host&, const std::vector<Array>& inputs, Sizes& sizes);
    const Plan& plan() const { return plan_; }
    const Stats& stats() const { return stats_; }
    double compile_seconds() const { return compile_seconds_; }
    // Text of each launch: (name.cu or name.ll, text).
    const std::vector<std::pair<std::string, std::string>>& texts() const { return texts_; }

private:
    struct Launched;
    void launch(Host&, int index, const Sizes&, std::vector<Array>& values);
    Plan plan_;
    std::vector<std::unique_ptr<Launched>> launches_;
    std::vector<int> writer_;         // per node: step that writes it
    std::vector<std::pair<std::string, std::string>> texts_;
    Stats stats_;
    double compile_seconds_ = 0;
};

}  // namespace heddle
