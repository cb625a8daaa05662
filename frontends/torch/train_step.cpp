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
std::int64_t write(std::unique_ptr<torch::optim::OptimizerParamState>& to, const AdamParameter& p, bool count) {
    if (!to) to = std::make_unique<State>();
    auto& s = static_cast<State&>(*to);
    if (count) s.step(p.step.item<std::int64_t>());
    s.exp_avg(p.exp_avg), s.exp_avg_sq(p.exp_avg_sq), s.max_exp_avg_sq(p.max_exp_avg_sq);
    return s.step();
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
    const auto& before = step_.parameters();
    for (std::size_t k = 0; k < optimiser_.param_groups().size(); ++k)
        for (const at::Tensor& t : optimiser_.param_groups()[k].params()) {
            AdamParameter p;
            p.parameter = t, p.group = k;
            if (auto s = optimiser_.state().find(t.unsafeGetTensorImpl()); s != optimiser_.state().end())
                decoupled(optimiser_) ? read<torch::optim::AdamWParamState>(*s->second, p) : read<torch::optim::AdamParamState>(*s->second, p);
            const std::size_t i = all.size();
            if (capturable_ && i < before.size() && before[i].parameter.is_same(t) && before[i].exp_avg.is_same(p.exp_avg) &&
                (p.step.defined() ? p.step.item<std::int64_t>() : 0) == (i < noted_.size() ? noted_[i] : 0))
                p.step = before[i].step;  // the device has counted on
            all.push_back(std::move(p));
        }
    return all;
}
void TrainStep::note(bool count) {
    noted_.resize(step_.parameters().size());
    for (std::size_t k = 0; k < noted_.size(); ++k) {
        const AdamParameter& p = step_.parameters()[k];
        if (!p.exp_avg.defined()) continue;
        auto& state = optimiser_.state()[p.parameter.unsafeGetTensorImpl()];
        noted_[k] = decoupled(optimiser_) ? write<torch::optim::AdamWParamState>(state, p, count) : write<torch::optim::AdamParamState>(state, p, count);
    }
}

TrainStep::TrainStep(Callable loss, torch::optim::Optimizer& optimiser, FuseOptions options, StepOptions form)
    : loss_(std::move(loss)), optimiser_(optimiser), capturable_(form.capturable), step_(loss_, {}, std::move(options), form) {}

Tensors TrainStep::operator()(at::TensorList inputs, bool wait) {
    reason_ = adam(optimiser_) ? "" : "the optimiser is neither torch::optim::Adam nor AdamW";
    if (reason_.empty()) {
        // States may have been replaced since the last step, by a checkpoint that was loaded or an eager step.
        step_.parameters(parameters());
        if (auto results = step_(inputs, groups(), wait)) {
            note(!capturable_);
            return std::move(*results);
        }
        reason_ = step_.report().eager_reason;
    }
    if (!wait) throw Error("TrainStep: can't be recorded: " + reason_);
    if (capturable_) note();
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
