// Schema in hand, each argument is turned from an attribute into what the op takes.
#include "frontends/torch/ops_host.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/clone.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <c10/core/InferenceMode.h>
#include <fmt/format.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <optional>

#include "frontends/torch/host.h"

namespace heddle {

namespace {
c10::OperatorHandle handle_of(const std::string& name) {
    auto dot = name.find('.'), last = name.find('.', dot + 1);
    std::string op = name.substr(0, dot) + "::" + name.substr(dot + 1, last - dot - 1), overload = last == name.npos ? "" : name.substr(last + 1);
    if (overload == "default") overload.clear();
    auto h = c10::Dispatcher::singleton().findSchema({op, overload});
    if (!h) throw Error(fmt::format("{}: this PyTorch has no such op", name));
    return *h;
}
c10::TypePtr inner(c10::TypePtr t) {
    if (auto optional = t->cast<c10::OptionalType>()) return optional->getElementType();
    return t;
}
c10::TypeKind element(const c10::TypePtr& t) {
    auto list = t->cast<c10::ListType>();
    return list ? list->getElementType()->kind() : c10::TypeKind::AnyType;
}
// Arguments that hold no operand. Named sizes take their values from `sizes`.
c10::IValue boxed(const c10::Argument& arg, const Attr& a, const Sizes& sizes) {
    c10::TypePtr type = inner(arg.type()), real = inner(arg.real_type());
    if (auto* s = std::get_if<std::string>(&a)) {
        if (type->kind() == c10::TypeKind::StringType) return *s;
        if (type->kind() == c10::TypeKind::DeviceObjType) return c10::Device(*s);
        if (auto t = dtype_named(*s); t && real->kind() == c10::TypeKind::ScalarTypeType) return static_cast<std::int64_t>(scalar_type(*t));
        if (arg.type()->kind() == c10::TypeKind::OptionalType) return {};  // layouts and memory formats: results are made dense anyway
        throw Error(fmt::format("argument {}: \"{}\" has no meaning here", arg.name(), *s));
    }
    auto list = [&]<class T>(T, const auto& values, auto value) {
        c10::List<T> v;
        v.reserve(values.size());
        for (const auto& x : values) v.push_back(static_cast<T>(value(x)));
        return c10::IValue(std::move(v));
    };
    if (auto* dims = std::get_if<std::vector<Dim>>(&a)) {
        auto value = [&](const Dim& d) { return d.eval(sizes); };
        if (element(type) == c10::TypeKind::FloatType) return list(double(), *dims, value);
        if (element(type) == c10::TypeKind::BoolType) return list(bool(), *dims, value);
        return list(std::int64_t(), *dims, value);
    }
    if (auto* reals = std::get_if<std::vector<double>>(&a)) return list(double(), *reals, [](double x) { return x; });
    if (auto* d = std::get_if<Dim>(&a)) {
        std::int64_t v = d->eval(sizes);
        if (type->kind() == c10::TypeKind::FloatType) return static_cast<double>(v);
        if (type->kind() == c10::TypeKind::BoolType) return v != 0;
        if (type->kind() == c10::TypeKind::ListType) return list(std::int64_t(), std::vector<std::int64_t>{v}, [](std::int64_t x) { return x; });
        return v;
    }
    if (auto* v = std::get_if<double>(&a)) return *v;
    if (auto* b = std::get_if<bool>(&a)) return *b;
    return {};
}
bool has_names(const Attr& a) {
    if (auto* d = std::get_if<Dim>(&a)) return !d->is_const();
    if (auto* v = std::get_if<std::vector<Dim>>(&a)) return std::any_of(v->begin(), v->end(), [](const Dim& d) { return !d.is_const(); });
    return false;
}
// An op's results, of this node's dtypes and in memory of their own. One that the op leaves undefined is zeros.
void settle(std::vector<at::Tensor>& results, const Node& n, const std::vector<at::Tensor>& operands, const Sizes& sizes) {
    for (std::size_t k = 0; k < results.size() && k <= n.more.size(); ++k) {
        at::Tensor& t = results[k];
        const Type& want = k == 0 ? n.type : n.more[k - 1];
        if (!t.defined()) {
            std::vector<std::int64_t> shape;
            for (const Dim& d : want.shape) shape.push_back(d.eval(sizes));
            t = at::zeros(shape, scalar_type(want.dtype));
        }
        if (t.scalar_type() != scalar_type(want.dtype)) t = t.to(scalar_type(want.dtype));
        if (std::any_of(operands.begin(), operands.end(), [&](const at::Tensor& o) { return o.defined() && t.is_alias_of(o); })) t = t.clone();
    }
}
at::Tensor literal(const Node& n, const Sizes& sizes) {
    std::vector<std::int64_t> shape;
    for (const Dim& d : n.type.shape) shape.push_back(d.eval(sizes));
    at::Tensor t;
    if (auto* reals = std::get_if<std::vector<double>>(n.find("values"))) {
        t = at::empty(shape, at::kDouble);
        std::copy(reals->begin(), reals->end(), t.data_ptr<double>());
    } else {
        t = at::empty(shape, at::kLong);
        std::int64_t* p = t.data_ptr<std::int64_t>();
        for (const Dim& d : std::get<std::vector<Dim>>(*n.find("values"))) *p++ = d.value();
    }
    return t.to(scalar_type(n.type.dtype));
}
}  // namespace

struct PreparedCall::Parts {
    Node node;
    std::optional<c10::OperatorHandle> op;            // none: heddle.tensor; of heddle.vjp, the op it differentiates
    bool vjp = false;
    bool in_place = false;                            // draws into its first operand: into a copy
    std::vector<std::int64_t> order, back;            // how that lies in memory, if not row by row
    torch::jit::Stack stack;                          // arguments that stay
    struct Late {
        std::size_t at;
        const Attr* attr;                             // of `node`
        const c10::Argument* argument;
        bool optional_list;
    };
    std::vector<Late> late;                           // operands, lists of operands, named sizes

    torch::jit::Stack filled(const std::vector<at::Tensor>& in, const Sizes&) const;
    std::vector<at::Tensor> call(const std::vector<at::Tensor>& operands, const Sizes&) const;
    std::vector<at::Tensor> gradients(const std::vector<at::Tensor>& operands, const Sizes&) const;
    std::vector<at::Tensor> laid(const std::vector<at::Tensor>& operands) const;
};

PreparedCall::PreparedCall(const Node& n) : parts_(std::make_unique<Parts>()) {
    Parts& p = *parts_;
    p.node = n;
    if (n.text("name") == "heddle.tensor") return;
    p.vjp = n.text("name") == "heddle.vjp";
    p.op = handle_of(n.text(p.vjp ? "of" : "name"));
    const auto& arguments = p.op->schema().arguments();
    p.in_place = !arguments.empty() && arguments[0].alias_info() && arguments[0].alias_info()->isWrite();
    if (p.node.has("order")) {
        std::vector<int> order = p.node.ints("order"), back = inverse(order);
        p.order.assign(order.begin(), order.end()), p.back.assign(back.begin(), back.end());
    }
    for (const c10::Argument& arg : arguments) {
        const Attr* a = p.node.find(arg.name());
        if (!a) {
            if (arg.default_value()) p.stack.push_back(*arg.default_value());
            else if (arg.type()->kind() == c10::TypeKind::OptionalType) p.stack.emplace_back();
            else throw Error(fmt::format("{}: argument {} is missing", n.text("name"), arg.name()));
        } else if (std::holds_alternative<Ref>(*a) || std::holds_alternative<std::vector<Ref>>(*a) || has_names(*a)) {
            auto list = inner(arg.type())->cast<c10::ListType>();
            p.late.push_back({p.stack.size(), a, &arg, list && list->getElementType()->kind() == c10::TypeKind::OptionalType});
            p.stack.emplace_back();
        } else {
            p.stack.push_back(boxed(arg, *a, {}));
        }
    }
}
PreparedCall::PreparedCall(PreparedCall&&) noexcept = default;
PreparedCall::~PreparedCall() = default;
bool PreparedCall::is(const Node& n) const { return parts_->node.op == n.op && parts_->node.attrs == n.attrs && parts_->node.type == n.type; }

torch::jit::Stack PreparedCall::Parts::filled(const std::vector<at::Tensor>& in, const Sizes& sizes) const {
    torch::jit::Stack all = this->stack;
    auto operand = [&](Ref r) { return in.at(static_cast<std::size_t>(r.operand)); };
    for (const Late& late : this->late) {
        c10::IValue& v = all[late.at];
        if (auto* r = std::get_if<Ref>(late.attr)) {
            if (r->operand >= 0) v = operand(*r);
        } else if (auto* refs = std::get_if<std::vector<Ref>>(late.attr)) {
            if (late.optional_list) {
                c10::List<std::optional<at::Tensor>> list;
                for (Ref x : *refs) list.push_back(x.operand < 0 ? std::nullopt : std::optional(operand(x)));
                v = std::move(list);
            } else {
                c10::List<at::Tensor> list;
                for (Ref x : *refs) list.push_back(operand(x));
                v = std::move(list);
            }
        } else {
            v = boxed(*late.argument, *late.attr, sizes);
        }
    }
    return all;
}

at::Tensor PreparedCall::view(const at::Tensor& t, const Sizes& sizes) const {
    c10::AutoGradMode grad(c10::GradMode::is_enabled() && !parts_->node.flag("no_grad"));
    torch::jit::Stack stack = parts_->filled({t}, sizes);
    parts_->op->callBoxed(stack);
    return stack.at(0).toTensor();
}

std::vector<at::Tensor> PreparedCall::Parts::call(const std::vector<at::Tensor>& in, const Sizes& sizes) const {
    torch::jit::Stack args = filled(in, sizes);
    op->callBoxed(args);
    std::vector<at::Tensor> results;
    for (const c10::IValue& v : args) {
        if (v.isTensor()) results.push_back(v.toTensor());
        else if (v.isTensorList())
            for (const at::Tensor& t : v.toTensorVector()) results.push_back(t);
    }
    return results;
}
// The op once more, now seen by autograd whatever the caller's modes are, and its derivative: undefined where none flows.
std::vector<at::Tensor> PreparedCall::Parts::gradients(const std::vector<at::Tensor>& in, const Sizes& sizes) const {
    c10::InferenceMode normal(false);
    auto keys = c10::impl::tls_local_dispatch_key_set();
    c10::impl::ForceDispatchKeyGuard seen(keys.included_, (keys.excluded_ - c10::autograd_dispatch_keyset_with_ADInplaceOrView) | c10::autocast_dispatch_keyset);
    at::AutoGradMode on(true);
    std::vector<at::Tensor> fed, wanted, outs, seeds;
    for (const at::Tensor& t : in) fed.push_back(t.is_inference() ? t.clone() : t.detach());
    for (Ref r : std::get<std::vector<Ref>>(*node.find("wanted"))) wanted.push_back(fed[static_cast<std::size_t>(r.operand)].requires_grad_());
    auto results = call(fed, sizes);
    const auto& incoming = std::get<std::vector<Ref>>(*node.find("incoming"));
    for (std::size_t k = 0; k < incoming.size(); ++k)
        if (incoming[k].operand >= 0 && results.at(k).requires_grad())
            outs.push_back(results[k]), seeds.push_back(in[static_cast<std::size_t>(incoming[k].operand)].to(results[k].scalar_type()));
    if (outs.empty()) return std::vector<at::Tensor>(wanted.size());
    return torch::autograd::grad(outs, wanted, seeds, false, false, true);
}

std::vector<at::Tensor> PreparedCall::Parts::laid(const std::vector<at::Tensor>& in) const {
    std::vector<at::Tensor> all = in;
    if (order.empty()) all[0] = all[0].clone();
    else all[0] = all[0].permute(order).clone(at::MemoryFormat::Contiguous).permute(back);
    return all;
}

std::vector<at::Tensor> PreparedCall::operator()(const std::vector<at::Tensor>& in, const Sizes& sizes) const {
    const Parts& p = *parts_;
    at::AutoDispatchBelowADInplaceOrView below;
    c10::impl::ExcludeDispatchKeyGuard cast(c10::autocast_dispatch_keyset);  // casts are calls of their own
    if (!p.op) return {literal(p.node, sizes)};
    auto results = p.vjp ? p.gradients(in, sizes) : p.call(p.in_place || !p.order.empty() ? p.laid(in) : in, sizes);
    settle(results, p.node, in, sizes);
    return results;
}

std::vector<at::Tensor> CallCache::run(const Node& n, const std::vector<at::Tensor>& in, const Sizes& sizes) {
    std::shared_ptr<const PreparedCall> call;
    {
        std::lock_guard lock(mutex_);
        auto& known = calls_[&n];
        if (!known || !known->is(n)) known = std::make_shared<PreparedCall>(n);
        call = known;
    }
    return (*call)(in, sizes);
}
std::vector<at::Tensor> run_call(const Node& n, const std::vector<at::Tensor>& in, const Sizes& sizes) { return PreparedCall(n)(in, sizes); }

}  // namespace heddle
