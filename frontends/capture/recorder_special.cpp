// Ops the recorder treats in a way of its own: reads by the host, masks, and batch_norm, whose writes its schema doesn't show.
#include <ATen/Context.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/_native_batch_norm_legit.h>
#include <ATen/ops/_native_batch_norm_legit_no_training.h>
#include <ATen/ops/all.h>
#include <ATen/ops/broadcast_tensors.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/eq.h>
#include <ATen/ops/index.h>
#include <ATen/ops/nonzero.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include <cstring>
#include <map>
#include <mutex>

#include "frontends/capture/describe.h"
#include "frontends/capture/recorder_class.h"

namespace heddle {

namespace {
struct Below {
    c10::impl::ExcludeDispatchKeyGuard mode{c10::DispatchKey::TESTING_ONLY_GenericMode};
    at::AutoDispatchBelowADInplaceOrView autograd;
};
c10::IValue pop(torch::jit::Stack& s) {
    auto v = std::move(s.back());
    s.pop_back();
    return v;
}
bool is_mask(const at::Tensor& t) { return t.defined() && (t.scalar_type() == at::kBool || t.scalar_type() == at::kByte); }
}  // namespace

// A guard's value is the first run's in every run, so that all take the same way.
void Recorder::host_read(const std::string& name, torch::jit::Stack& stack) {
    bool equal = name == "aten::equal";
    std::string called = equal ? "aten.equal" : "aten.item";
    at::Tensor t = pop(stack).toTensor();
    if (Alias* a = aliases_.find(t); a && !a->parent && a->base->input >= 0 && static_cast<std::size_t>(a->base->input) < integers_.size() &&
                                     integers_[static_cast<std::size_t>(a->base->input)] && !a->base->before.defined()) {
        Below below;
        stack.emplace_back(t.item<std::int64_t>());
        return;
    }
    if (host_read_ == HostRead::error)
        throw Error(fmt::format("{}: {}: the host reads a value of {}: keep it a tensor (torch::where for a branch), or capture with HostRead::guard", place(), called, print(type_of(t))));
    if (equal) {
        at::Tensor other = pop(stack).toTensor();
        if (other.sizes() != t.sizes()) {
            stack.emplace_back(false);
            return;
        }
        t = at::eq(other, t).all();
    }
    if (at::isFloatingType(t.scalar_type()))
        throw Error(fmt::format("{}: {}: the host reads a {}: a guard holds a bool or an integer; keep it a tensor", place(), called, heddle::name(type_of(t).dtype)));
    Id operand = id_of(t);
    std::int64_t value = 0;
    if (first_) {
        if (rec_.guards.size() >= first_->guards.size()) throw Error(fmt::format("{}: {}: read at some sizes only", place(), called));
        const Attr& v = *first_->nodes[static_cast<std::size_t>(first_->guards[rec_.guards.size()])].find("value");
        value = std::holds_alternative<bool>(v) ? std::get<bool>(v) : std::get<Dim>(v).value();
    } else {
        Below below;
        value = t.scalar_type() == at::kBool ? t.item<bool>() : t.item<std::int64_t>();
    }
    bool flag = t.scalar_type() == at::kBool;
    rec_.guards.push_back(emit("heddle.guard", {{"self", Ref{0}}, {"value", flag ? Attr(value != 0) : Attr(Dim(value))}}, {operand}, type_of(t), {}, false));
    if (flag) stack.emplace_back(value != 0);
    else stack.emplace_back(value);
}

void Recorder::nonzero(const c10::OperatorHandle& op, torch::jit::Stack& stack) {
    at::Tensor mask = stack.back().toTensor();
    Id operand = id_of(mask);
    std::size_t key = key_[static_cast<std::size_t>(operand)];
    if (auto it = nonzero_.find(key); it != nonzero_.end()) {
        stack.back() = it->second;
        return;
    }
    at::Tensor rows;
    {
        Below below;
        op.callBoxed(&stack);
        rows = stack.back().toTensor();
        const auto extra = extra_ + more_ * static_cast<std::int64_t>(rec_.counted.size());
        if (extra > 0 && mask.numel() > 0 && mask.dim() > 0)
            rows = at::cat({rows, (rows.size(0) > 0 ? rows.slice(0, 0, 1) : at::zeros({1, mask.dim()}, rows.options())).expand({extra, mask.dim()})});
    }
    Id id = emit("aten.nonzero.default", {{"self", Ref{0}}}, {operand}, type_of(rows));
    rec_.counted.push_back(id);
    result(rows, id, false);
    nonzero_.emplace(key, rows);
    stack.back() = rows;
}

// index and index_put take masks as the columns of their nonzero, so that equal masks have one size.
void Recorder::masks_to_indices(torch::jit::Stack& stack, std::size_t from, bool writes) {
    const auto given = stack[from + 1].toOptionalTensorVector();
    if (writes && given.size() == 1 && stack[from + 2].toTensor().numel() == 1) return;  // one value for all: a select, whose size is known
    std::vector<std::optional<at::Tensor>> indices;
    bool masks = false;
    const at::Tensor self = stack[from].toTensor();
    for (const std::optional<at::Tensor>& t : given) {
        if (!t || !is_mask(*t)) {
            indices.push_back(t);
            continue;
        }
        const auto axis = static_cast<std::int64_t>(indices.size());
        for (std::int64_t k = 0; k < t->dim() && axis + k < self.dim(); ++k)
            TORCH_CHECK_INDEX(t->size(k) == self.size(axis + k), "The shape of the mask ", t->sizes(), " at index ", k, " does not match the shape of the indexed tensor ", self.sizes(), " at index ", axis + k);
        masks = true;
        at::Tensor rows = at::nonzero(*t);
        for (std::int64_t k = 0; k < t->dim(); ++k) indices.emplace_back(rows.select(1, k));
    }
    if (masks) stack[from + 1] = c10::List<std::optional<at::Tensor>>(c10::ArrayRef<std::optional<at::Tensor>>(indices));
}
void Recorder::masked_select(torch::jit::Stack& stack) {
    at::Tensor mask = pop(stack).toTensor(), self = pop(stack).toTensor();
    auto both = at::broadcast_tensors({self, mask});
    if (both[0].dim() == 0)  // a mask without dimensions has no columns
        for (at::Tensor& t : both) t = t.unsqueeze(0);
    c10::List<std::optional<at::Tensor>> indices;
    indices.push_back(both[1]);
    stack.emplace_back(at::index(both[0], indices));
}

namespace {
at::Generator generator(const std::vector<c10::IValue>& args) {
    at::Device device = at::kCPU;
    for (const c10::IValue& v : args) {
        if (v.isDevice()) device = v.toDevice();
        if (v.isTensor() && v.toTensor().defined() && device.is_cpu()) device = v.toTensor().device();
    }
    return at::globalContext().defaultGenerator(device);
}
std::vector<at::Tensor> all_tensors(c10::ArrayRef<c10::IValue> values) {
    std::vector<at::Tensor> all;
    for (const c10::IValue& v : values) {
        if (v.isTensor()) all.push_back(v.toTensor());
        else if (v.isTensorList())
            for (const at::Tensor& t : v.toTensorVector()) all.push_back(t);
        else if (v.isOptionalTensorList())
            for (const std::optional<at::Tensor>& t : v.toOptionalTensorVector()) all.push_back(t.value_or(at::Tensor()));
    }
    return all;
}
}  // namespace

at::Tensor random_state(const std::vector<c10::IValue>& args) { return generator(args).get_state(); }
void Recorder::not_seeded_here(const std::vector<c10::IValue>& args) {
    at::Tensor now = random_state(args);
    bool same = now.nbytes() == random_.nbytes() && std::memcmp(now.data_ptr(), random_.data_ptr(), now.nbytes()) == 0;
    if (!same && now.nbytes() == random_.nbytes()) throw Error(place() + ": the random generator is seeded inside the captured function: seed it outside");
}

void mark_ended(Node& n, const c10::OperatorHandle& op, const std::vector<c10::IValue>& args, const std::vector<at::Tensor>& results) {
    static std::mutex mutex;
    static std::map<std::string, std::vector<char>> known;  // per result: is it a float without a gradient?
    std::string key = dotted(op);
    for (const at::Tensor& t : all_tensors(args)) key += !t.defined() ? " ." : t.requires_grad() ? " g" : " -";
    for (const at::Tensor& t : results) key += t.defined() && at::isFloatingType(t.scalar_type()) ? " f" : " i";
    if (key.find('f', key.find(' ')) == key.npos) return;
    std::lock_guard lock(mutex);
    auto it = known.find(key);
    if (it == known.end()) {
        at::Generator random = generator(args);
        at::Tensor state = op.hasTag(at::Tag::nondeterministic_seeded) ? random.get_state() : at::Tensor();
        torch::jit::Stack stack(args.begin(), args.end());
        {
            c10::impl::ExcludeDispatchKeyGuard mode{c10::DispatchKey::TESTING_ONLY_GenericMode};
            op.callBoxed(&stack);
        }
        if (state.defined()) random.set_state(state);
        std::vector<char> ended;
        for (const at::Tensor& t : all_tensors(stack)) ended.push_back(t.defined() && at::isFloatingType(t.scalar_type()) && !t.requires_grad());
        it = known.emplace(key, ended).first;
    }
    std::vector<Dim> ended;
    bool all = true;
    for (std::size_t k = 0; k < results.size() && k < it->second.size(); ++k) {
        if (it->second[k]) ended.emplace_back(static_cast<std::int64_t>(k));
        else all &= !results[k].defined() || !at::isFloatingType(results[k].scalar_type());
    }
    if (all) n.attrs.emplace_back("no_grad", true);
    else if (!ended.empty()) n.attrs.emplace_back("ended", ended);
}

void Recorder::batch_norm(torch::jit::Stack& stack) {
    pop(stack);  // cudnn_enabled
    double eps = pop(stack).toDouble(), momentum = pop(stack).toDouble();
    bool training = pop(stack).toBool();
    auto optional = [&]() -> at::Tensor {
        auto v = pop(stack);
        return v.isTensor() ? v.toTensor() : at::Tensor();
    };
    at::Tensor var = optional(), mean = optional(), bias = optional(), weight = optional(), x = optional();
    if (!training) {
        stack.emplace_back(std::get<0>(at::_native_batch_norm_legit_no_training(x, weight, bias, mean, var, momentum, eps)));
    } else if (!mean.defined()) {
        stack.emplace_back(std::get<0>(at::_native_batch_norm_legit(x, weight, bias, true, momentum, eps)));
    } else {
        auto r = at::_native_batch_norm_legit_functional(x, weight, bias, mean, var, true, momentum, eps);
        c10::AutoGradMode off(false);
        mean.copy_(std::get<3>(r));
        var.copy_(std::get<4>(r));
        stack.emplace_back(std::get<0>(r));
    }
}

}  // namespace heddle
