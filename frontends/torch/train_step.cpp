// libtorch's Adam and AdamW, seen as AdamStep takes them.
#include "frontends/torch/train_step.h"

#include <ATen/Functions.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/optim/adam.h>
#include <torch/optim/adamw.h>

namespace heddle {

namespace {
using torch::optim::Adam, torch::optim::AdamW;

template <class Options>
AdamGroup group_of(const torch::optim::OptimizerParamGroup& g, bool decoupled) {
    const auto& o = static_cast<const Options&>(g.options());
    const auto [beta1, beta2] = o.betas();
    return {o.lr(), beta1, beta2, o.eps(), o.weight_decay(), decoupled, o.amsgrad(), false};
}
template <class State>
void read(const torch::optim::OptimizerParamState& from, AdamParameter& p) {
    const auto& s = static_cast<const State&>(from);
    p.step = at::scalar_tensor(s.step(), at::kLong);
    p.exp_avg = s.exp_avg(), p.exp_avg_sq = s.exp_avg_sq(), p.max_exp_avg_sq = s.max_exp_avg_sq();
}
template <class State>
void write(std::unique_ptr<torch::optim::OptimizerParamState>& to, const AdamParameter& p) {
    if (!to) to = std::make_unique<State>();
    auto& s = static_cast<State&>(*to);
    s.step(p.step.item<std::int64_t>());
    s.exp_avg(p.exp_avg), s.exp_avg_sq(p.exp_avg_sq), s.max_exp_avg_sq(p.max_exp_avg_sq);
}
bool adam(const torch::optim::Optimizer& o) { return dynamic_cast<const Adam*>(&o) || dynamic_cast<const AdamW*>(&o); }
bool decoupled(const torch::optim::Optimizer& o) { return dynamic_cast<const AdamW*>(&o) != nullptr; }
}  // namespace

std::vector<AdamGroup> TrainStep::groups() const {
    std::vector<AdamGroup> all;
    for (const auto& g : optimiser_.param_groups())
        all.push_back(decoupled(optimiser_) ? group_of<torch::optim::AdamWOptions>(g, true) : group_of<torch::optim::AdamOptions>(g, false));
    return all;
}
std::vector<AdamParameter> TrainStep::parameters() const {
    std::vector<AdamParameter> all;
    for (std::size_t k = 0; k < optimiser_.param_groups().size(); ++k)
        for (const at::Tensor& t : optimiser_.param_groups()[k].params()) {
            AdamParameter p;
            p.parameter = t, p.group = k;
            if (auto s = optimiser_.state().find(t.unsafeGetTensorImpl()); s != optimiser_.state().end())
                decoupled(optimiser_) ? read<torch::optim::AdamWParamState>(*s->second, p) : read<torch::optim::AdamParamState>(*s->second, p);
            all.push_back(std::move(p));
        }
    return all;
}
void TrainStep::note() {
    for (const AdamParameter& p : step_.parameters()) {
        if (!p.exp_avg.defined()) continue;
        auto& state = optimiser_.state()[p.parameter.unsafeGetTensorImpl()];
        decoupled(optimiser_) ? write<torch::optim::AdamWParamState>(state, p) : write<torch::optim::AdamParamState>(state, p);
    }
}

TrainStep::TrainStep(Callable loss, torch::optim::Optimizer& optimiser, FuseOptions options) : loss_(std::move(loss)), optimiser_(optimiser), step_(loss_, {}, std::move(options)) {}

Tensors TrainStep::operator()(at::TensorList inputs) {
    reason_ = adam(optimiser_) ? "" : "the optimiser is neither torch::optim::Adam nor AdamW";
    if (reason_.empty()) {
        // States may have been replaced since the last step, by a checkpoint that was loaded or an eager step.
        step_.parameters(parameters());
        if (auto results = step_(inputs, groups())) {
            note();
            return std::move(*results);
        }
        reason_ = step_.report().eager_reason;
    }
    at::AutoGradMode on(true);
    optimiser_.zero_grad();
    Tensors results = loss_(inputs.vec());
    if (results.empty()) throw Error("TrainStep: the function returned no loss");
    torch::autograd::backward({results[0]}, {});
    optimiser_.step();
    for (at::Tensor& r : results) r = r.detach();
    return results;
}
AdamStep::Report TrainStep::report() const {
    AdamStep::Report r = step_.report();
    r.eager_reason = reason_;
    return r;
}

}  // namespace heddle
