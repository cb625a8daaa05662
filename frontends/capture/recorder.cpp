// The fallback and what it does with each op: describe, run, name the results.
// Law: an op runs once, below autograd, on real tensors; what is recorded is what ran.
#include "frontends/capture/recorder.h"

#include <ATen/autocast_mode.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/enum_tag.h>
#include <c10/core/GradMode.h>
#include <ATen/ops/clone.h>
#include <fmt/format.h>
#include <torch/csrc/autograd/variable.h>

#include <algorithm>
#include <cstring>
#include <numeric>

#include "frontends/capture/describe.h"
#include "frontends/capture/recorder_class.h"

namespace heddle {

namespace {
thread_local Recorder* current = nullptr;
thread_local std::string scope;
constexpr auto kMode = c10::DispatchKey::TESTING_ONLY_GenericMode;
constexpr unsigned char kBlank = 0xA5;  // what empty memory is filled with, to see whether the host wrote into it

// Ops that PyTorch composes of others but that lower better as a whole.
constexpr std::string_view kWhole[] = {"aten::linear", "aten::matmul", "aten::reshape", "aten::layer_norm", "aten::one_hot", "aten::l1_loss", "aten::group_norm"};
// Their result's size is read from values in a way that u0.. can't follow.
constexpr std::string_view kUnsized[] = {"aten::_unique", "aten::_unique2", "aten::unique_dim", "aten::unique_consecutive", "aten::unique_dim_consecutive", "aten::bincount"};
constexpr std::string_view kBlankMakers[] = {"aten::empty.memory_format", "aten::empty_like", "aten::new_empty", "aten::empty_strided", "aten::new_empty_strided", "aten::empty_permuted"};
template <std::size_t N>
bool among(const std::string_view (&names)[N], std::string_view name) {
    return std::find(std::begin(names), std::end(names), name) != std::end(names);
}

void fallback(const c10::OperatorHandle& op, c10::DispatchKeySet keys, torch::jit::Stack* stack) {
    if (!current) return op.redispatchBoxed(keys.remove(kMode), stack);
    current->call(op, keys, *stack);
}
// Registered once, at the first capture; the key is used by nothing else in this process.
void install() {
    static auto handle = c10::Dispatcher::singleton().registerFallback(kMode, c10::KernelFunction::makeFromBoxedFunction<&fallback>(), "heddle capture");
}
struct Below {
    c10::impl::ExcludeDispatchKeyGuard mode{kMode};
    at::AutoDispatchBelowADInplaceOrView autograd;
};
// Axes of a dense tensor as they lie in memory; {} for row-major ones and for those with gaps or overlaps.
std::vector<int> memory_order(const at::Tensor& t) {
    if (t.dim() < 2 || t.is_contiguous() || !t.is_non_overlapping_and_dense()) return {};
    std::vector<int> order(static_cast<std::size_t>(t.dim()));
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return t.stride(a) > t.stride(b); });
    return order;
}
// Random by its tag, unless all that is random about it is switched off.
bool draws(const c10::OperatorHandle& op, const std::vector<c10::IValue>& args) {
    auto p = op.schema().argumentIndexWithName("dropout_p");
    return op.hasTag(at::Tag::nondeterministic_seeded) && !(p && args[static_cast<std::size_t>(*p)].isDouble() && args[static_cast<std::size_t>(*p)].toDouble() == 0);
}
bool hooked(const at::Tensor& t) {
    auto* meta = torch::autograd::impl::get_autograd_meta(t);
    return meta && (!meta->hooks_.empty() || meta->post_acc_grad_hooks_);
}
// What is drawn follows memory, not axes: the call tells how its first operand lies.
void tell_order(Node& n, const std::vector<c10::IValue>& args, bool in_place) {
    if (args.empty() || !args[0].isTensor() || !args[0].toTensor().defined()) return;
    const at::Tensor& t = args[0].toTensor();
    std::vector<int> order = memory_order(t);
    if (in_place && order.empty() && !t.is_contiguous()) throw Error(fmt::format("{}: {}: draws into memory with gaps; draw into a tensor of its own", place(), n.text("name")));
    if (!order.empty()) n.attrs.emplace_back("order", std::vector<Dim>(order.begin(), order.end()));
}
// Where an index counts from, and whether it's beyond the end: what it means follows from that. Returns its place, counted from the front.
std::int64_t decide_index(std::int64_t i, std::int64_t size) {
    const bool behind = decide(Choice::Of::less, i, 0) != 0;
    const bool beyond = decide(Choice::Of::less, size, behind ? -i : i) != 0;
    return behind ? (beyond ? 0 : size + i) : (beyond ? size : i);
}
void decide_range(std::string_view name, std::vector<c10::IValue>& args) {
    const bool slice = name == "aten::slice.Tensor";
    if ((!slice && name != "aten::select.int") || args[0].toTensor().dim() == 0) return;
    const std::int64_t size = args[0].toTensor().size(args[1].toInt());
    auto given = [&](std::size_t k) { return args[k].isInt() && args[k].toInt() < (std::int64_t{1} << 62) - 1; };
    auto place = [&](std::size_t k) {
        const std::int64_t at = decide_index(args[k].toInt(), size);
        args[k] = at;
        return at;
    };
    const std::int64_t from = given(2) ? place(2) : 0;
    if (!slice) decide(Choice::Of::less, from, size);
    else decide(Choice::Of::less, given(3) ? place(3) : size, from);  // then it's empty
}
bool writes(const c10::Argument& a) { return a.alias_info() && a.alias_info()->isWrite(); }
std::vector<at::Tensor> tensors_in(const c10::IValue& v) {
    if (v.isTensor()) return {v.toTensor()};
    if (v.isTensorList()) return v.toTensorVector();
    return {};
}
}  // namespace

bool capturing() { return current != nullptr; }
std::string place() { return scope.empty() ? "capture" : scope; }
std::int64_t decided(Choice::Of of, std::int64_t a, std::int64_t b) {
    if (of == Choice::Of::less) return a < b;
    if (of == Choice::Of::equal) return a == b;
    if (of == Choice::Of::value || b == 0) return a;
    std::int64_t q = a / b - (a % b != 0 && (a < 0) != (b < 0));
    return of == Choice::Of::div ? q : a - q * b;
}
std::int64_t decide(Choice::Of of, std::int64_t lhs, std::int64_t rhs) {
    std::int64_t outcome = decided(of, lhs, rhs);
    if (current) current->decided({of, Dim(lhs), Dim(rhs), outcome});
    return outcome;
}
void set_place(std::string where) { scope = std::move(where); }
Scope::Scope(std::string name) : outer_(scope) { scope = scope.empty() ? std::move(name) : scope + "." + name; }
Scope::~Scope() { scope = outer_; }

Recorder::Recorder(HostRead host_read, const std::vector<char>& integers, const Recording* first, int extra, int more)
    : random_(random_state({})), host_read_(host_read), integers_(integers), first_(first), extra_(extra), more_(more) {}

Id Recorder::emit(std::string name, Attrs attrs, std::vector<Id> in, Type type, std::vector<Type> more, bool pure) {
    bool on = c10::GradMode::is_enabled(), any = false, marked = name == "aten.detach.default";
    Node n{.op = Op::call, .in = std::move(in), .attrs = {{"name", name}}, .type = std::move(type), .more = std::move(more), .loc = scope};
    std::size_t key = std::hash<std::string>{}(name);
    for (auto& [k, v] : attrs) {
        key = key * 1099511628211u ^ std::hash<std::string>{}(print(v));
        marked |= k == "no_grad";
        n.attrs.emplace_back(k, std::move(v));
    }
    if ((!on || marked) && !n.has("no_grad")) n.attrs.emplace_back("no_grad", true);
    for (Id i : n.in) {
        any |= grad_[static_cast<std::size_t>(i)] != 0;
        key = key * 1099511628211u ^ key_[static_cast<std::size_t>(i)];
    }
    const bool grad = on && !marked && any;
    const std::vector<int> ended = n.has("ended") ? n.ints("ended") : std::vector<int>{};
    auto extra = n.more;
    if (!pure) key = 0x9e3779b97f4a7c15u * (rec_.nodes.size() + 1);
    auto push = [&](Node x, std::size_t k) {
        int result = x.is(Op::result) ? x.integer("index") : 0;
        rec_.nodes.push_back(std::move(x));
        grad_.push_back(grad && is_float(rec_.nodes.back().type.dtype) && std::find(ended.begin(), ended.end(), result) == ended.end());
        key_.push_back(k);
        return static_cast<Id>(rec_.nodes.size()) - 1;
    };
    Id id = push(std::move(n), key);
    for (std::size_t i = 0; i < extra.size(); ++i)
        push({.op = Op::result, .in = {id}, .attrs = {{"index", Dim(static_cast<std::int64_t>(i) + 1)}}, .type = extra[i], .more = {}, .loc = {}}, key + i + 1);
    return id;
}
Id Recorder::new_input(const at::Tensor& t, const Type& type, std::string name) {
    rec_.nodes.push_back({.op = Op::input, .in = {}, .attrs = {{"name", std::move(name)}}, .type = type, .more = {}, .loc = {}});
    Id id = static_cast<Id>(rec_.nodes.size()) - 1;
    grad_.push_back(t.requires_grad());
    key_.push_back(0x9e3779b97f4a7c15u * rec_.nodes.size());
    rec_.inputs.push_back(id);
    rec_.tensors.push_back(t);
    return id;
}
Alias* Recorder::adopt(const at::Tensor& t, const std::string& name) {
    Type type = type_of(t);
    auto base = std::make_shared<Base>();
    base->input = static_cast<int>(rec_.inputs.size());
    base->handle = t;
    base->value = new_input(t, type, name);
    return aliases_.add(t, base, nullptr, {}, type, base->value);
}
void Recorder::argument(const at::Tensor& t, int k) {
    if (!aliases_.find(t)) adopt(t, fmt::format("in{}", k));
    else new_input(t, type_of(t), fmt::format("in{}", k));  // the same tensor twice: one value, an unused argument
}

// A host that fills empty memory makes a constant of it.
void Recorder::look_for_host_writes(const at::Tensor& t, Base& base) {
    base.blank = false;
    const auto* bytes = static_cast<const unsigned char*>(t.storage().data());
    std::size_t n = t.storage().nbytes();
    if (std::all_of(bytes, bytes + n, [](unsigned char c) { return c == kBlank; })) return;
    Alias* whole = aliases_.find(t);
    while (whole->parent) whole = whole->parent;
    auto live = whole->tensor.lock();
    at::Tensor filled = t;
    if (live) filled = at::Tensor::wrap_tensor_impl(std::move(live));
    Below below;
    base.value = new_input(filled.clone(), whole->type, fmt::format("host{}", rec_.inputs.size()));
    ++base.version;
}
Alias* Recorder::alias_of(const at::Tensor& t) {
    Alias* a = aliases_.find(t);
    if (!a && t.unsafeGetTensorImpl()->is_wrapped_number()) return number(t);
    if (!a) {
        if (Alias* twin = aliases_.same_place(t); twin && twin->base->input < 0)  // .data(): the same memory, no gradient
            a = aliases_.add(t, twin->base, twin, {.op = Op::call, .in = {}, .attrs = {{"name", "aten.detach.default"}, {"self", Ref{0}}, {"no_grad", true}}}, twin->type,
                             emit("aten.detach.default", {{"self", Ref{0}}}, {aliases_.value(*twin, emitter())}, twin->type));
        else
            a = adopt(t, fmt::format("p{}", rec_.inputs.size()));
    } else if (a->base->input < 0 && t.grad_fn()) {
        throw Error(place() + ": an autograd Function of its own: its derivative can't be seen; write it with PyTorch's ops, or leave it out of the captured function");
    }
    if (a->base->input < 0 && hooked(t)) throw Error(place() + ": a hook on a tensor made inside: what it does to gradients can't be seen");
    if (a->base->blank) look_for_host_writes(t, *a->base);
    return a;
}
// A number of the host that PyTorch made a tensor of on the way to an op that takes tensors.
Alias* Recorder::number(const at::Tensor& t) {
    Below below;
    Attr value = is_float(type_of(t).dtype) ? Attr(t.item<double>()) : t.scalar_type() == at::kBool ? Attr(t.item<bool>()) : Attr(Dim(t.item<std::int64_t>()));
    auto base = std::make_shared<Base>();
    base->value = emit("aten.scalar_tensor.default", {{"s", value}, {"dtype", std::string(name(type_of(t).dtype))}}, {}, type_of(t));
    return aliases_.add(t, base, nullptr, {}, type_of(t), base->value);
}
Id Recorder::id_of(const at::Tensor& t) { return aliases_.value(*alias_of(t), emitter()); }
Emit Recorder::emitter() {
    return [this](std::string name, Attrs attrs, std::vector<Id> in, const Type& t) { return emit(std::move(name), std::move(attrs), std::move(in), t); };
}

void Recorder::result(const at::Tensor& t, Id id, bool blank) {
    if (!t.defined() || aliases_.find(t)) return;
    auto base = std::make_shared<Base>();
    base->value = id;
    base->blank = blank;
    aliases_.add(t, base, nullptr, {}, type_of(t), id);
    if (grad_[static_cast<std::size_t>(id)]) t.set_requires_grad(true);
}

void Recorder::call(const c10::OperatorHandle& op, c10::DispatchKeySet keys, torch::jit::Stack& stack) {
    const auto& schema = op.schema();
    std::string name = schema.name() + (schema.overload_name().empty() ? "" : "." + schema.overload_name());
    const std::size_t count = schema.arguments().size(), from = stack.size() - count;
    for (auto cast : {c10::DispatchKey::AutocastCPU, c10::DispatchKey::AutocastCUDA})  // its casts and the op in the narrow type come back here
        if (keys.has(cast) && op.hasKernelForDispatchKey(cast)) return op.redispatchBoxed(keys.remove(kMode), &stack);
    if (name == "aten::batch_norm" && decide(Choice::Of::equal, stack[from].toTensor().numel(), 0) == 0) return batch_norm(stack);  // of nothing, it's a copy
    if (op.hasKernelForDispatchKey(c10::DispatchKey::CompositeImplicitAutograd) && !among(kWhole, name)) {
        if (name == "aten::_backward") throw Error(place() + ": backward inside the captured function: call it on the captured result");
        return op.redispatchBoxed(keys.remove(kMode), &stack);
    }
    if (name == "aten::_local_scalar_dense" || name == "aten::equal") return host_read(name, stack);
    if (name == "aten::masked_select") return masked_select(stack);
    if (name == "aten::nonzero") return nonzero(op, stack);
    if (among(kUnsized, name)) throw Error(fmt::format("{}: {}: the size of its result depends on values; leave it out of the captured function", place(), dotted(op)));
    if (std::string as = view_of_inplace(op); !as.empty()) return view_in_place(op, as, stack, from);
    if (op.hasTag(at::Tag::inplace_view) || name == "aten::resize_" || name == "aten::set_.source_Tensor" || name == "aten::set_data")
        throw Error(fmt::format("{}: {}: changes the shape of a tensor in place; use the form that returns a new one", place(), dotted(op)));
    if (name == "aten::index.Tensor" || name == "aten::index_put" || name == "aten::index_put_" || name == "aten::_index_put_impl_") masks_to_indices(stack, from, name != "aten::index.Tensor");

    bool has_tensor_result = std::any_of(schema.returns().begin(), schema.returns().end(), [](const c10::Argument& r) { return r.type()->isSubtypeOf(*c10::TensorType::get()) || r.type()->kind() == c10::TypeKind::ListType; });
    bool mutates = std::any_of(schema.arguments().begin(), schema.arguments().end(), writes);
    if (!has_tensor_result && !mutates) {  // questions about types and shapes
        Below below;
        return op.callBoxed(&stack);
    }
    std::vector<c10::IValue> args(stack.begin() + static_cast<std::ptrdiff_t>(from), stack.end());
    decide_range(name, args);
    Node n = describe(op, args, [this](const at::Tensor& t) { return id_of(t); }, place());
    if (mutates) return write(op, std::move(n), args, stack);
    const bool random = draws(op, args);
    if (random) not_seeded_here(args);
    {
        Below below;
        op.callBoxed(&stack);
    }
    if (random) random_ = random_state(args);
    std::vector<at::Tensor> results;
    for (std::size_t i = from; i < stack.size(); ++i)
        for (auto& t : tensors_in(stack[i])) results.push_back(t);
    if (schema.returns().size() > 0 && schema.returns()[0].alias_info() && args[0].isTensor() && view(name, n, args[0].toTensor(), results)) return;
    if (results.empty()) return;

    drop_own_device(n, args, results[0]);
    const bool blank = among(kBlankMakers, name) && results[0].is_cpu();
    if (random) n.attrs.emplace_back("random", true), tell_order(n, args, false);
    if (c10::GradMode::is_enabled() && std::any_of(n.in.begin(), n.in.end(), [this](Id i) { return grad_[static_cast<std::size_t>(i)] != 0; })) mark_ended(n, op, args, results);
    std::vector<Type> types;
    for (auto& t : results) types.push_back(t.defined() ? type_of(t) : Type{DType::f32, {0}});
    if (blank && results[0].storage().nbytes() > 0) std::memset(results[0].storage().mutable_data(), kBlank, results[0].storage().nbytes());
    Type first = types[0];
    types.erase(types.begin());
    Id id = emit(n.text("name"), Attrs(n.attrs.begin() + 1, n.attrs.end()), n.in, first, types, !random && !blank);
    for (std::size_t i = 0; i < results.size(); ++i) result(results[i], id + static_cast<Id>(i), blank);
}

// True if the results are views of `self`, which then have been named.
bool Recorder::view(const std::string& name, const Node& n, const at::Tensor& self, const std::vector<at::Tensor>& results) {
    if (results.empty() || !results[0].defined()) return results.empty();
    if (std::all_of(results.begin(), results.end(), [&](const at::Tensor& t) { return t.is_same(self); })) return true;
    if (!results[0].is_alias_of(self)) return false;
    Alias* parent = alias_of(self);
    auto add = [&](const at::Tensor& t, std::string view_name, Attrs attrs) {
        if (aliases_.find(t)) return;
        Id id = emit(view_name, attrs, {aliases_.value(*parent, emitter())}, type_of(t));
        attrs.insert(attrs.begin(), {"name", view_name});
        if (!c10::GradMode::is_enabled()) attrs.emplace_back("no_grad", true);
        aliases_.add(t, parent->base, parent, {.op = Op::call, .in = {}, .attrs = attrs}, type_of(t), id);
        if (grad_[static_cast<std::size_t>(id)]) t.set_requires_grad(true);
    };
    if (results.size() == 1 && name.find("split") == name.npos && name != "aten::unbind.int") {
        add(results[0], n.text("name"), Attrs(n.attrs.begin() + 1, n.attrs.end()));
        return true;
    }
    std::int64_t axis = n.dim("dim").value(), at = 0;  // split, split_with_sizes, unbind
    if (axis < 0) axis += self.dim();
    for (const auto& t : results)
        if (name == "aten::unbind.int") {
            add(t, "aten.select.int", {{"self", Ref{0}}, {"dim", Dim(axis)}, {"index", Dim(at++)}});
        } else {
            std::int64_t end = at + t.size(axis);
            add(t, "aten.slice.Tensor", {{"self", Ref{0}}, {"dim", Dim(axis)}, {"start", Dim(at)}, {"end", Dim(end)}, {"step", Dim(1)}});
            at = end;
        }
    return true;
}

namespace {
std::vector<c10::IValue> functional_arguments(const Functional& f, const c10::OperatorHandle& op, const std::vector<c10::IValue>& args) {
    std::vector<c10::IValue> out;
    for (const auto& name : f.arguments) {
        auto at = op.schema().argumentIndexWithName(name);
        out.push_back(at ? args[static_cast<std::size_t>(*at)] : c10::IValue());
    }
    return out;
}
}  // namespace
// x.squeeze_(), x.detach_(): the tensor is a view of what it was.
void Recorder::view_in_place(const c10::OperatorHandle& op, const std::string& as, torch::jit::Stack& stack, std::size_t from) {
    std::vector<c10::IValue> args(stack.begin() + static_cast<std::ptrdiff_t>(from), stack.end());
    const at::Tensor self = args[0].toTensor();
    Node n = describe(op, args, [this](const at::Tensor& t) { return id_of(t); }, place());
    if (Alias* a = alias_of(self); !a->parent && a->base->input >= 0)
        throw Error(fmt::format("{}: {}: changes a tensor from outside in place; use the form that returns a new one", place(), dotted(op)));
    {
        Below below;
        op.callBoxed(&stack);
    }
    Attrs attrs(n.attrs.begin() + 1, n.attrs.end());
    Id id = emit(as, attrs, n.in, type_of(self));
    attrs.insert(attrs.begin(), {"name", as});
    if (!c10::GradMode::is_enabled()) attrs.emplace_back("no_grad", true);
    aliases_.becomes(self, {.op = Op::call, .in = {}, .attrs = std::move(attrs)}, type_of(self), id);
    self.set_requires_grad(grad_[static_cast<std::size_t>(id)] != 0);
}

void Recorder::write(const c10::OperatorHandle& op, Node n, const std::vector<c10::IValue>& args, torch::jit::Stack& stack) {
    const auto& schema = op.schema();
    std::vector<at::Tensor> targets;
    for (std::size_t i = 0; i < args.size(); ++i)
        if (writes(schema.arguments()[i]))
            for (auto& t : tensors_in(args[i])) targets.push_back(t);
    const bool random = draws(op, args), redraws = random && schema.name().back() == '_';  // drawn anew in place, into memory that lies the same
    auto functional = redraws ? std::optional(Functional{dotted(op), {}}) : functional_form(op);
    if (!functional || targets.empty()) throw Error(fmt::format("{}: {}: has no functional form; use the op that returns a new tensor", place(), dotted(op)));
    bool any = false;
    for (Id i : n.in) any |= grad_[static_cast<std::size_t>(i)] != 0;
    for (auto& t : targets) {
        Alias* a = alias_of(t);
        Base& base = *a->base;
        if (base.input >= 0 && !base.before.defined()) {
            if (auto other = aliases_.sharing_input(base)) throw Error(fmt::format("{}: {}: writes memory that two inputs share; clone one of them", place(), dotted(op)));
            Below below;
            base.before = base.handle.clone().set_requires_grad(base.handle.requires_grad());
        }
        base.rebased |= c10::GradMode::is_enabled() && (any || grad_[static_cast<std::size_t>(base.value)] != 0);
    }
    std::vector<Type> types;
    for (auto& t : targets) types.push_back(type_of(t));
    if (random) not_seeded_here(args);
    {
        Below below;
        op.callBoxed(&stack);
    }
    if (random) random_ = random_state(args);
    for (std::size_t i = 0; i < targets.size(); ++i)
        if (type_of(targets[i]) != types[i]) throw Error(fmt::format("{}: {}: resizes its result; use the form that returns a new one", place(), dotted(op)));
    // Arguments of the functional form, by name; `out` falls away.
    Node call = n;
    if (!redraws) call.attrs.assign(1, {"name", functional->name}), call.in.clear();
    for (const auto& argument : functional->arguments)
        for (const auto& [k, v] : n.attrs)
            if (k == argument) call.attrs.emplace_back(k, move_operands(v, n, call));
    if (random) call.attrs.emplace_back("random", true), tell_order(call, args, true);
    std::vector<at::Tensor> fresh;
    for (std::size_t i = stack.size() - schema.returns().size(); i < stack.size(); ++i)
        for (auto& t : tensors_in(stack[i]))
            if (std::none_of(targets.begin(), targets.end(), [&](const at::Tensor& w) { return w.is_same(t); })) fresh.push_back(t);
    if (!fresh.empty() && functional->results != fresh.size() + targets.size()) throw Error(fmt::format("{}: {}: has no functional form; use the op that returns a new tensor", place(), dotted(op)));
    for (std::size_t k = fresh.size(); k-- > 0;) types.insert(types.begin(), type_of(fresh[k]));
    if (any && !fresh.empty() && c10::GradMode::is_enabled()) {
        auto all = fresh;
        all.insert(all.end(), targets.begin(), targets.end());
        mark_ended(call, *functional->op, functional_arguments(*functional, op, args), all);
    }
    Type first = types[0];
    Id id = emit(functional->name, Attrs(call.attrs.begin() + 1, call.attrs.end()), call.in, first, {types.begin() + 1, types.end()}, !random);
    for (const at::Tensor& t : fresh) result(t, id++, false);
    for (std::size_t i = 0; i < targets.size(); ++i) {
        Alias* a = aliases_.find(targets[i]);
        Alias* root = a;
        while (root->parent) root = root->parent;
        Id before = a->base->value;
        aliases_.write(*a, id + static_cast<Id>(i), emitter());
        if (!c10::GradMode::is_enabled() && grad_[static_cast<std::size_t>(before)]) {
            a->base->value = keep_gradient(a->base->value, before, root->type);
            ++a->base->version;
        }
        for (Alias* p = a; p; p = p->parent)
            if (auto live = p->tensor.lock(); live && any && c10::GradMode::is_enabled() && is_float(p->type.dtype)) live->set_requires_grad(true);
    }
}

// What is written under no_grad into a value with a gradient takes over its gradient.
Id Recorder::keep_gradient(Id value, Id old, const Type& t) {
    c10::AutoGradMode on(true);
    return emit("heddle.surrogate", {{"self", Ref{0}}, {"other", Ref{1}}}, {value, old}, t);
}

void Recorder::finish(const std::vector<at::Tensor>& outputs) {
    for (const auto& t : outputs) {
        if (!t.defined()) throw Error("capture: a result is an undefined tensor");
        rec_.outputs.push_back(id_of(t));
        rec_.order.push_back(memory_order(t));
    }
    std::vector<Alias*> roots;  // of results that are the whole of their memory
    for (const auto& t : outputs) {
        std::vector<Alias*> way;
        Alias* root = aliases_.find(t);
        for (; root->parent; root = root->parent) way.push_back(root);
        Captured::Origin o;
        auto earlier = std::find(roots.begin(), roots.end(), root);
        if (root->base->input >= 0) o = {Captured::Origin::Of::input, root->base->input, {}};
        else if (earlier != roots.end()) o = {Captured::Origin::Of::result, static_cast<int>(earlier - roots.begin()), {}};
        roots.push_back(way.empty() ? root : nullptr);
        Id from = root->base->value;
        for (std::size_t k = way.size(); k-- > 0 && o.of != Captured::Origin::Of::itself;) {
            const Node& v = way[k]->view;
            o.views.push_back(from = emit(v.text("name"), Attrs(v.attrs.begin() + 1, v.attrs.end()), {from}, way[k]->type));
        }
        rec_.origins.push_back(std::move(o));
    }
    aliases_.each_base([&](Base& b) {
        if (b.input < 0 || !b.before.defined()) return;
        rec_.writes.push_back({b.input, static_cast<int>(rec_.written.size()), b.rebased});
        rec_.written.push_back(!b.rebased && grad_[static_cast<std::size_t>(b.value)] != 0 ? emit("aten.detach.default", {{"self", Ref{0}}}, {b.value}, type_of(b.handle)) : b.value);
    });
    restore();
}
void Recorder::restore() {
    aliases_.each_base([&](Base& b) {
        if (!b.before.defined()) return;
        Below below;
        b.handle.copy_(b.before);
        if (b.handle.requires_grad() && !b.before.requires_grad()) b.handle.set_requires_grad(false);
    });
}

Recording record(const Callable& f, const std::vector<at::Tensor>& arguments, const std::vector<char>& integers, HostRead host_read, const Recording* first, int extra, int more) {
    install();
    if (current) throw Error("capture: inside another capture");
    Recorder r(host_read, integers, first, extra, more);
    struct Autocast {  // casts are ops of the graph, each time
        bool cached = at::autocast::is_autocast_cache_enabled();
        std::string outer = scope;
        Autocast() { at::autocast::set_autocast_cache_enabled(false); }
        ~Autocast() {
            at::autocast::set_autocast_cache_enabled(cached);
            scope = outer;
        }
    } autocast;
    for (std::size_t i = 0; i < arguments.size(); ++i) r.argument(arguments[i], static_cast<int>(i));
    struct Current {
        explicit Current(Recorder* r) { current = r; }
        ~Current() { current = nullptr; }
    };
    try {
        std::vector<at::Tensor> outputs;
        Current now(&r);
        {
            c10::impl::IncludeDispatchKeyGuard mode(kMode);
            outputs = f(arguments);
        }
        r.finish(outputs);
    } catch (...) {
        r.restore();
        throw;
    }
    return std::move(r.recording());
}

}  // namespace heddle
