// Runs an exported graph, call by call, through PyTorch's dispatcher on real tensors.
// Law: what a call computes, draws, writes and records for autograd is what it does when Python makes it.
//
// Sizes are integers of the host, so a capture sees them as sizes. Floats that are computed from sizes are tensors of no dimensions,
// so that a capture sees how. Assertions about values and sizes are not captured: they run when the graph runs uncaptured.
#pragma once
#include "frontends/export/steps.h"

namespace heddle {

class Interpreter {
public:
    explicit Interpreter(std::shared_ptr<const ExportGraph>, std::optional<at::Device> elsewhere = {});
    // `inputs` as the graph's; outputs as its outputs.
    std::vector<c10::IValue> operator()(std::vector<c10::IValue> inputs) const;

private:
    std::shared_ptr<const ExportGraph> graph_;
    std::vector<ExportStep> steps_;
    std::vector<std::vector<int>> last_;  // per step: values that nothing reads after it
};

}  // namespace heddle
