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
    std::shared_ptr<const StepPlan> instead;  // of which it is; gone once this one is made
    WholeStep step;                           // inputs: of the loss, f64[general.numbers] if there are any, then what Adam adds
    std::vector<std::string> masks;           // what became of each
    bool bounded = false;
    std::string waits;                        // why it isn't, where that was wanted
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
bool knows_plan(const std::string& name);  // of any loss of that name
// A plan to be, for this capture and others that differ from it in sizes and numbers only: those that plans of the same key were made from; or
// `other`, if there is one. Nothing if they differ in anything else.
std::shared_ptr<StepPlan> draft_with_known(const std::string& key, const Variant&);
std::shared_ptr<StepPlan> draft(const std::string& key, const Variant&, const Variant* other = nullptr);
// `compile` fills in `step` and `executable`. The plan is kept for find_plan.
FoundPlan make_plan(const std::shared_ptr<StepPlan>&, const Variant&, const std::function<void(StepPlan&, const Pair&)>& compile);
// Its directions as they are for a machine.
Pair pair_for(const StepPlan&, const Variant&, const Binding&, Machine);
// For a capture elsewhere: spatial sizes of tensors that the callable holds and samples by coordinates, as others; `arguments` (the first ones of
// `all`) get other sizes too. Sizes that are equal stay so, `apart` only among arguments, what is trained and what isn't. Nothing if it samples nothing.
struct OtherSizes {
    std::vector<CaptureOptions::Size> held;
    Tensors arguments;
};
OtherSizes other_sizes(const Variant&, at::TensorList all, std::size_t arguments, bool apart);

}  // namespace heddle
