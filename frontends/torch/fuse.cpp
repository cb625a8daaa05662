// Capture, plan, compile; then one autograd node per call.
#include "frontends/torch/fuse.h"

#include <ATen/Context.h>
#include <ATen/Functions.h>
#include <c10/core/DeviceGuard.h>
#include <fmt/format.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/utils.h>
#include <torch/csrc/autograd/saved_variable.h>

#include <mutex>

#include "frontends/aten.h"
#include "frontends/torch/host.h"
#include "frontends/torch/variant.h"

namespace heddle {

struct Fused::State : std::enable_shared_from_this<Fused::State> {
    Callable callable;
    FuseOptions options;
    std::mutex mutex;                                  // variants and the report
    std::vector<std::shared_ptr<Variant>> variants;    // by the values of guards, most recent first
    Report report;

    std::shared_ptr<Variant> capture_for(const Tensors& in);
    Tensors run(const std::shared_ptr<Variant>&, const Tensors& in);
};

namespace {
// The CPU is no device that can be current.
std::optional<at::Device> on_device(at::Device d) { return d.is_cpu() ? std::nullopt : std::optional(d); }

// Forward, backward or both may draw random numbers; a plan that turns out not to hold gives them back.
class RandomState {
public:
    RandomState(bool needed, at::Device where) {
        if (!needed) return;
        for (at::Device d : {at::Device(at::kCPU), where})
            if (states_.empty() || !d.is_cpu()) states_.emplace_back(d, at::globalContext().defaultGenerator(d).get_state());
    }
    void restore() {
        for (auto& [d, state] : states_) {
            at::Generator g = at::globalContext().defaultGenerator(d);
            g.set_state(state);
        }
    }

private:
    std::vector<std::pair<at::Device, at::Tensor>> states_;
};

// One region's derivative. Source of the protocol: torch::autograd::Node.
class RegionBackward final : public torch::autograd::Node {
public:
    std::shared_ptr<Fused::State> state;
    std::shared_ptr<Variant> variant;
    std::vector<torch::autograd::SavedVariable> inputs;  // those that the backward reads, else empty
    std::vector<Array> saved;
    std::vector<std::vector<std::int64_t>> output_sizes;
    Sizes sizes;
    Tensors all_inputs;                                  // only for a second derivative
    std::mutex release;

    std::string name() const override { return "HeddleBackward"; }
    torch::autograd::variable_list apply(torch::autograd::variable_list&& grads) override {
        std::lock_guard lock(mutex_);
        if (at::GradMode::is_enabled()) return eagerly(grads);
        if (saved.size() != variant->pair.split.saved) throw std::runtime_error("Trying to backward through the graph a second time: pass retain_graph=True the first time");
        std::vector<Array> in;
        const Split& split = variant->pair.split;
        for (std::size_t k = 0; k < split.backward_inputs.size(); ++k) {
            const auto& s = split.backward_inputs[k];
            auto i = static_cast<std::size_t>(s.index);
            if (s.from == Split::Source::From::saved) in.push_back(saved[i]);
            else if (s.from == Split::Source::From::input) in.push_back(array_of(inputs[i].unpack(getptr_()), variant->device, "input", i));
            else {
                DType t = split.backward.type(split.backward.inputs[k]).dtype;
                const at::Tensor& seed = grads[seed_slot(i)];
                in.push_back(array_of(seed.defined() ? seed.to(scalar_type(t)) : at::zeros(output_sizes[i], at::TensorOptions().dtype(scalar_type(t)).device(variant->device)), variant->device, "gradient", i));
            }
        }
        Sizes bound = sizes;
        c10::OptionalDeviceGuard guard_device(on_device(variant->device));
        auto out = variant->backward().run(*variant->host, in, bound);
        {
            std::lock_guard guard(state->mutex);
            note_backward(state->report, *variant);
        }
        torch::autograd::variable_list result;
        for (std::size_t k = 0; k < variant->pair.gradients.size(); ++k) {
            int g = variant->pair.gradients[k];
            result.push_back(g >= 0 && task_should_compute_output(k) ? tensor_of(out[static_cast<std::size_t>(g)]) : at::Tensor());
        }
        return result;
    }
    void release_variables() override {
        std::lock_guard lock(mutex_);
        inputs.clear();
        saved.clear();
        saved.shrink_to_fit();
        all_inputs.clear();
        released_ = true;
    }

private:
    std::shared_ptr<torch::autograd::Node> getptr_() { return shared_from_this(); }
    // Incoming gradients come per differentiable output.
    std::size_t seed_slot(std::size_t output) const { return static_cast<std::size_t>(variant->slot[output]); }
    // A second derivative: the region is run again by PyTorch, under its own autograd.
    torch::autograd::variable_list eagerly(const torch::autograd::variable_list& grads) {
        if (released_) throw std::runtime_error("Trying to backward through the graph a second time: pass retain_graph=True the first time");
        std::size_t users = all_inputs.size() - variant->captured.implicit.size();
        Tensors outs = state->callable({all_inputs.begin(), all_inputs.begin() + static_cast<std::ptrdiff_t>(users)});
        Tensors used, seeds, wanted;
        for (std::size_t k = 0; k < outs.size(); ++k)
            if (variant->slot[k] >= 0 && grads[seed_slot(k)].defined()) used.push_back(outs[k]), seeds.push_back(grads[seed_slot(k)]);
        std::vector<std::size_t> where;
        for (std::size_t k = 0; k < all_inputs.size(); ++k)
            if (all_inputs[k].requires_grad()) wanted.push_back(all_inputs[k]), where.push_back(k);
        auto got = torch::autograd::grad(used, wanted, seeds, true, true, true);
        torch::autograd::variable_list result(all_inputs.size());
        for (std::size_t k = 0; k < where.size(); ++k) result[where[k]] = got[k];
        return result;
    }
    bool released_ = false;
};
}  // namespace

std::shared_ptr<Variant> Fused::State::capture_for(const Tensors& in) {
    auto v = make_variant(callable, in, options.dynamic, options.name);
    report.compile_seconds += v->compile_seconds();
    variants.insert(variants.begin(), v);
    if (variants.size() > 16) variants.pop_back();
    return v;
}

Tensors Fused::State::run(const std::shared_ptr<Variant>& v, const Tensors& user) {
    Tensors all = user;
    for (const at::Tensor& t : v->captured.implicit) {
        if (t.use_count() == 1)
            throw Error(fmt::format("{}: a tensor that the callable held at capture ({}) is gone; fuse again after replacing parameters", options.name, c10::str(t.sizes())));
        all.push_back(t);
    }
    c10::OptionalDeviceGuard guard_device(on_device(v->device));
    std::vector<Array> in;
    {
        at::NoGradGuard no_grad;
        for (std::size_t k = 0; k < all.size(); ++k) in.push_back(array_of(all[k], v->device, "input", k));
    }
    bool any = false;
    for (std::size_t k = 0; k < all.size(); ++k) any |= all[k].requires_grad();
    bool differentiate = any && at::GradMode::is_enabled();
    v->check_wants(all, differentiate, options.name);
    Sizes sizes;
    std::vector<Array> out;
    {
        at::NoGradGuard no_grad;
        at::AutoDispatchBelowADInplaceOrView below;
        out = v->forward().run(*v->host, in, sizes);
    }
    Tensors results;
    std::size_t n = v->outputs;
    for (std::size_t k = 0; k < n; ++k) {
        at::Tensor t = tensor_of(out[k]);
        for (const at::Tensor& i : all)
            if (t.is_same(i)) t = i.alias();
        results.push_back(t);
    }
    {
        at::NoGradGuard no_grad;  // what the callable wrote into its inputs
        for (const auto& w : v->captured.writes) all[static_cast<std::size_t>(w.input)].copy_(tensor_of(out[static_cast<std::size_t>(w.output)]));
    }
    {
        std::lock_guard guard(mutex);
        note_forward(report, *v, out);
    }
    if (differentiate && v->pair.has_backward) {
        auto node = std::shared_ptr<RegionBackward>(new RegionBackward(), torch::autograd::deleteNode);
        node->state = shared_from_this();
        node->variant = v;
        node->sizes = std::move(sizes);
        node->all_inputs = all;
        node->inputs.resize(all.size());
        for (const auto& s : v->pair.split.backward_inputs)
            if (s.from == Split::Source::From::input) node->inputs[static_cast<std::size_t>(s.index)] = torch::autograd::SavedVariable(all[static_cast<std::size_t>(s.index)], false);
        for (std::size_t k = 0; k < v->pair.split.saved; ++k) node->saved.push_back(out[v->forward_outputs + k]);
        for (const at::Tensor& t : results) node->output_sizes.push_back(t.sizes().vec());
        node->set_next_edges(torch::autograd::collect_next_edges(all));
        for (std::size_t k = 0; k < n; ++k)
            if (v->slot[k] >= 0) torch::autograd::set_history(results[k], node);
    }
    return results;
}

Fused::Fused(std::shared_ptr<State> s) : state_(std::move(s)) {}

Tensors Fused::operator()(const Tensors& inputs) const {
    State& s = *state_;
    if (!s.report.eager_reason.empty()) return s.callable(inputs);
    std::vector<std::shared_ptr<Variant>> known;
    {
        std::lock_guard guard(s.mutex);
        known = s.variants;
    }
    for (const auto& v : known) {
        if (common_device(inputs) != v->device && common_device(v->captured.implicit) != v->device) continue;  // captured on another device
        RandomState random(v->guarded && v->random, v->device);
        try {
            Tensors out = s.run(v, inputs);
            if (v != known.front()) {
                std::lock_guard guard(s.mutex);
                std::erase(s.variants, v);
                s.variants.insert(s.variants.begin(), v);
            }
            return out;
        } catch (const GuardFailed&) {
            random.restore();
        }
    }
    std::shared_ptr<Variant> v;
    {
        std::lock_guard guard(s.mutex);
        v = s.capture_for(inputs);
    }
    return s.run(v, inputs);
}

const Report& Fused::report() const { return state_->report; }
std::vector<std::string> Fused::dump(const std::string& folder) const { return dump_variants(state_->variants, folder); }
std::string Fused::explain() const {
    std::string text = state_->report.eager_reason.empty() ? "" : "runs eagerly: " + state_->report.eager_reason + "\n";
    for (const auto& v : state_->variants) text += explain_variant(*v);
    return text;
}
std::vector<std::pair<std::string, std::string>> Fused::cuda_kernels() const {
    std::vector<std::pair<std::string, std::string>> all;
    for (const auto& v : state_->variants)
        for (auto& k : cuda_texts(*v)) all.push_back(std::move(k));
    return all;
}

Fused fuse(Callable callable, const Tensors& example, FuseOptions options) {
    auto s = std::make_shared<Fused::State>();
    s->callable = std::move(callable);
    s->options = std::move(options);
    try {
        s->capture_for(example);
    } catch (const Error& e) {
        if (!s->options.eager_if_uncapturable) throw;
        s->report.eager_reason = e.what();
    }
    return Fused(s);
}

}  // namespace heddle
