// A compiled plan: inputs in, outputs out.
// Law: a run reads inputs, writes fresh outputs, and touches no other memory that the host didn't give it for the run.
#pragma once
#include "runtime/launch.h"

namespace heddle {

struct Stats {                        // of the last run
    int launches = 0, calls = 0;
    std::int64_t bytes = 0;           // that launches must move: every buffer read or written once
    std::int64_t arena = 0;           // bytes of intermediate memory
};

class Executable {
public:
    // Compiles, for this machine's CPU or for a CUDA device (which it takes a driver to run on, not to compile for). Throws Error.
    explicit Executable(Plan, const Target& = {});
    ~Executable();
    // Outputs for inputs in argument order; `sizes` may bind names beforehand and gets those that calls bind. Throws Error
    // "input name: size ..., expected ..." where sizes disagree with the capture.
    std::vector<Array> run(Host&, const std::vector<Array>& inputs, Sizes& sizes);
    const Plan& plan() const { return plan_; }
    const Stats& stats() const { return stats_; }
    double compile_seconds() const { return compile_seconds_; }
    // Text of each launch: (name.cu or name.ll, what was compiled).
    const std::vector<std::pair<std::string, std::string>>& texts() const { return texts_; }

private:
    Plan plan_;
    std::unique_ptr<Launcher> launcher_;
    std::vector<int> writer_;         // per node: step that writes it
    std::vector<std::pair<std::string, std::string>> texts_;
    Stats stats_;
    double compile_seconds_ = 0;
};

}  // namespace heddle
