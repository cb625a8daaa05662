// Plans of whole steps that hold for other sizes and numbers than those they were made at: planes that grow compile nothing.
// Law: a plan answers a capture only if the capture is that plan's graph, node by node, at sizes and numbers that are then given to its runs
// (passes/generalise.h), and if everything around it is the same (StepPlan::key). Whether a plan is found changes when code is compiled, never
// what is computed.
#pragma once
#include "frontends/torch/variant.h"
#include "passes/generalise.h"
#include "passes/step.h"

namespace heddle {

struct StepPlan {
    std::string key;
    std::vector<Graph> captures;              // that it was made from
    General general;
    WholeStep step;                           // inputs: of the loss, f64[general.numbers] if there are any, then what Adam adds
    std::shared_ptr<const Executable> executable;  // first names: the capture's integers and quotients, then general.given
};
// One capture's way to a plan.
struct FoundPlan {
    std::shared_ptr<const StepPlan> plan;
    Binding binding;
    explicit operator bool() const { return plan != nullptr; }
    // The numbers that runs take, or an undefined tensor.
    at::Tensor numbers(at::Device) const;
    void give(SizeValues&, std::size_t first) const;  // sizes, from this slot on
};

std::string step_key(const Variant&, const std::vector<Trained>&, const FuseOptions&);
FoundPlan find_plan(const std::string& key, const Variant&);
// One that may serve others too: together with captures of the same key that differ in sizes and numbers only; or with one `elsewhere`, which is
// called if there is none. `compile` fills `step` and `executable` of the plan for such a graph. The plan is kept for find_plan.
FoundPlan make_plan(const std::string& key, const Variant&, const std::function<std::shared_ptr<Variant>()>& elsewhere,
                    const std::function<void(StepPlan&, const Pair&)>& compile);
// For a capture elsewhere: the spatial sizes of tensors that the callable holds and samples by coordinates, as others. Sizes that are equal stay so.
std::vector<CaptureOptions::Size> sampled_elsewhere(const Variant&, at::TensorList all);

}  // namespace heddle
