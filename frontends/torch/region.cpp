// First derivatives run the compiled backward; with create_graph the callable is run again under PyTorch's own autograd.
#include "frontends/torch/region.h"

#include <ATen/Context.h>
#include <ATen/Functions.h>
#include <c10/core/DeviceGuard.h>
#include <fmt/format.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/functions/accumulate_grad.h>

#include <algorithm>
#include <unordered_set>

#include "frontends/torch/host.h"

namespace heddle {

namespace {
using torch::autograd::variable_list;

bool defined(const variable_list& grads, int slot) { return slot >= 0 && grads[static_cast<std::size_t>(slot)].defined(); }

// Does the history of `from` lead to `to`?
bool depends(const at::Tensor& from, const at::Tensor& to) {
    if (!from.grad_fn()) return false;
    std::vector<torch::autograd::Node*> open{from.grad_fn().get()};
    std::unordered_set<torch::autograd::Node*> seen;
    while (!open.empty()) {
        auto* n = open.back();
        open.pop_back();
        if (!n || !seen.insert(n).second) continue;
        if (auto* leaf = dynamic_cast<torch::autograd::AccumulateGrad*>(n); leaf ? leaf->variable.is_same(to) : n == to.grad_fn().get()) return true;
        for (const auto& e : n->next_edges()) open.push_back(e.function.get());
    }
    return false;
}

// The default generator and the values of written tensors, as they were before the forward; afterwards as they are now.
class Rewound {
public:
    explicit Rewound(const Rerun& r) : rerun_(r) {
        at::NoGradGuard no_grad;
        if (r.random.defined()) {
            at::Generator g = generator();
            state_ = g.get_state();
            g.set_state(r.random);
        }
        for (std::size_t k = r.users; k < r.inputs.size(); ++k)
            if (r.overwritten(k).defined()) {
                now_.push_back(r.inputs[k].clone());
                r.inputs[k].detach().copy_(r.overwritten(k));
            }
    }
    ~Rewound() {
        at::NoGradGuard no_grad;
        if (at::Generator g = generator(); state_.defined()) g.set_state(state_);
        std::size_t i = 0;
        for (std::size_t k = rerun_.users; k < rerun_.inputs.size(); ++k)
            if (rerun_.overwritten(k).defined()) rerun_.inputs[k].detach().copy_(now_[i++]);
    }

private:
    at::Generator generator() const { return at::globalContext().defaultGenerator(rerun_.device); }
    const Rerun& rerun_;
    at::Tensor state_;
    Tensors now_;
};
}  // namespace

std::uint32_t version_of(const at::Tensor& t) { return t.is_inference() ? 0 : static_cast<std::uint32_t>(t._version()); }

void Kept::watch(const at::Tensor& t) {
    TORCH_CHECK(!t.is_inference(), "Inference tensors cannot be saved for backward. Please do not use Tensors created in inference mode in computation tracked by "
                                   "autograd: make a clone, or use torch.no_grad() instead of torch.inference_mode().");
    counter_ = t.unsafeGetTensorImpl()->version_counter();
    version_ = counter_.current_version();
}
void Kept::pack() {
    packed_ = std::make_unique<torch::autograd::SavedVariable>(tensor_of(array_), false);
    array_.owner.reset();
}
Array Kept::read(at::Device where) const {
    if (counter_.enabled() && counter_.current_version() != version_)
        throw std::runtime_error(fmt::format("one of the variables needed for gradient computation has been modified by an inplace operation: [{} {}] is at version {}; "
                                             "expected version {} instead",
                                             c10::toString(scalar_type(array_.dtype)), c10::str(at::IntArrayRef(array_.sizes.data(), array_.sizes.size())),
                                             counter_.current_version(), version_));
    return packed_ ? array_of(packed_->unpack(), where, "saved tensor", 0) : array_;
}

variable_list RegionBackward::apply(variable_list&& grads) {
    std::lock_guard lock(mutex_);
    const Split& split = variant->pair.split;
    if (released_) {
        bool reads = std::any_of(split.backward_inputs.begin(), split.backward_inputs.end(), [](const auto& s) { return s.from != Split::Source::From::seed; });
        if (reads || at::GradMode::is_enabled()) throw std::runtime_error(torch::autograd::ERR_BACKWARD_TWICE);
    }
    if (at::GradMode::is_enabled()) return again(grads, true);
    c10::SmallVector<char, 16> reached(variant->wants.size());
    bool any = false;
    for (std::size_t k = 0; k < slot.size(); ++k)
        if (defined(grads, slot[k]))
            for (std::size_t i : variant->reaches[k]) reached[i] = any = true;
    for (std::size_t k = 0; k < reached.size(); ++k) reached[k] = reached[k] && task_should_compute_output(k);
    variable_list result(reached.size());
    if (variant->pair.has_backward && any) {
        try {
            variant->backward();
        } catch (const std::exception& e) {  // it can't be compiled
            calls->eager("backward: " + first_line(e));
            at::AutoGradMode on(true);
            return again(grads, false);
        }
        run(grads, result, reached);
    }
    for (std::size_t k = 0; k < reached.size(); ++k) {
        if (!reached[k] || variant->pair.gradients[k] >= 0) continue;
        // There is a path, and rewriting found that nothing flows on it: zeros, as eager would have.
        auto s = variant->forward().input_sizes(k, sizes);
        result[k] = at::zeros(at::IntArrayRef(s.data(), s.size()), at::TensorOptions().dtype(scalar_type(variant->input_type(k).dtype)).device(variant->device));
    }
    return result;
}
void RegionBackward::release_variables() {
    std::lock_guard lock(mutex_);
    kept.clear();
    rerun = {};
    released_ = true;
}

void RegionBackward::note_versions() {
    for (const at::Tensor& t : rerun.inputs) rerun.versions.push_back(version_of(t));
}

void RegionBackward::run(const variable_list& grads, variable_list& result, at::ArrayRef<char> wanted) {
    const Split& split = variant->pair.split;
    const Executable& backward = variant->backward();
    c10::OptionalDeviceGuard on_device(variant->device.is_cpu() ? std::nullopt : std::optional(variant->device));
    SizeValues bound = sizes;
    bound.resize(backward.names().list().size(), kUnknown);
    c10::SmallVector<Array, 8> in, out(split.backward.outputs.size());
    c10::SmallVector<at::Tensor, 8> seeds(split.backward_inputs.size());
    for (std::size_t k = 0; k < split.backward_inputs.size(); ++k) {
        const auto& s = split.backward_inputs[k];
        if (s.from != Split::Source::From::seed) {
            in.push_back(kept[k].read(variant->device));
            continue;
        }
        auto i = static_cast<std::size_t>(s.index);
        auto type = scalar_type(split.backward.type(split.backward.inputs[k]).dtype);
        if (defined(grads, slot[i])) {
            const at::Tensor& g = grads[static_cast<std::size_t>(slot[i])];
            seeds[k] = g.scalar_type() == type ? g : g.to(type);
        } else {
            auto shape = backward.input_sizes(k, bound);
            seeds[k] = at::zeros(at::IntArrayRef(shape.data(), shape.size()), at::TensorOptions().dtype(type).device(variant->device));
        }
        in.push_back(array_of(seeds[k], variant->device, "gradient", i));
    }
    backward.run(*variant->host, std::span(in.begin(), in.end()), std::span(out.begin(), out.end()), bound);
    calls->backward(variant, bound);
    // Gradients that are one value are one tensor: whoever accumulates them keeps a tensor that nobody else has.
    c10::SmallVector<at::Tensor, 8> made(out.size());
    for (std::size_t k = 0; k < wanted.size(); ++k) {
        int g = variant->pair.gradients[k];
        if (g < 0 || !wanted[k]) continue;
        auto first = backward.first_same(static_cast<std::size_t>(g));
        if (!made[first].defined()) {
            int from = backward.same_input(first);
            if (from < 0) made[first] = tensor_of(out[first]);
            else made[first] = seeds[static_cast<std::size_t>(from)].defined() ? seeds[static_cast<std::size_t>(from)] : tensor_of(out[first]).clone();
        }
        result[k] = made[first];
    }
}

variable_list RegionBackward::again(const variable_list& grads, bool differentiable) {
    const Rerun& r = rerun;
    auto wants = [&](std::size_t k) { return next_edge(k).is_valid(); };  // did the input need a gradient when the call was made?
    for (std::size_t k = 0; k < r.inputs.size(); ++k) {
        if (version_of(r.inputs[k]) != r.versions[k])
            throw std::runtime_error(fmt::format("one of the variables needed for gradient computation has been modified by an inplace operation: input {} of {}", k, name()));
        for (std::size_t j = 0; wants(k) && k >= r.users && j < r.inputs.size(); ++j)
            if (j != k && !r.inputs[j].is_same(r.inputs[k]) && depends(r.inputs[j], r.inputs[k]))
                throw std::runtime_error("create_graph: a tensor that the fused callable holds also leads to one of its inputs: pass it as an input");
    }
    // Inputs are seen through views, so that the derivative in one input doesn't run on into another that it was computed from; those that the
    // callable writes through copies of what they held.
    Tensors ends, fed, wanted, used, seeds;
    for (std::size_t k = 0; k < r.users; ++k) {
        bool written = r.overwritten(k).defined();
        ends.push_back(written ? r.overwritten(k).detach().requires_grad_(wants(k)) : wants(k) ? r.inputs[k].view_as(r.inputs[k]) : r.inputs[k]);
        fed.push_back(written ? ends.back().clone() : ends.back());
    }
    Tensors outs;
    {
        Rewound rewound(r);
        CastAgain cast(variant->guard.ambient());
        outs = (*r.callable)(fed);
    }
    for (const auto& w : variant->captured.writes) outs.push_back(static_cast<std::size_t>(w.input) < r.users ? fed[static_cast<std::size_t>(w.input)] : at::Tensor());
    for (std::size_t k = 0; k < outs.size(); ++k)
        if (outs[k].defined() && defined(grads, slot[k]) && outs[k].requires_grad()) used.push_back(outs[k]), seeds.push_back(grads[static_cast<std::size_t>(slot[k])]);
    variable_list result(r.inputs.size());
    if (used.empty()) return result;
    std::vector<std::size_t> where;
    for (std::size_t k = 0; k < r.inputs.size(); ++k)
        if (wants(k)) wanted.push_back(k < r.users ? ends[k] : r.inputs[k]), where.push_back(k);
    auto got = torch::autograd::grad(used, wanted, seeds, differentiable, differentiable, true);
    for (std::size_t k = 0; k < where.size(); ++k) result[where[k]] = got[k];
    return result;
}

}  // namespace heddle
