// A call of a PyTorch op: looked up once, its constants boxed once, its values put in at each run.
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/scalar_tensor.h>
#include <fmt/format.h>

#include <algorithm>

#include "frontends/capture/recorder.h"
#include "frontends/export/steps.h"

namespace heddle {

namespace {
using Number = ExportArg::Number;

// Asserted by the exporter about the device and type of what it traced: the door checks inputs, and devices may be others.
constexpr std::string_view kSkipped[] = {"aten::_assert_tensor_metadata"};
// Hold for the export's sizes and values, not for the ones a capture tries; they have no result.
constexpr std::string_view kAssertions[] = {"aten::_assert_async", "aten::_assert_scalar", "aten::sym_constrain_range", "aten::sym_constrain_range_for_size"};
// Ops that are done another way, to the same effect. False: not these arguments.
constexpr struct {
    std::string_view name;
    bool (*call)(torch::jit::Stack&);
} kInstead[] = {
    {"aten::copy", [](torch::jit::Stack& s) {  // PyTorch knows no derivative of it
        s = {s[0].toTensor().clone().copy_(s[1].toTensor())};
        return true;
    }},
    {"aten::detach_", [](torch::jit::Stack& s) {  // of a tensor that is detached: a constant, as the exporter writes it
        return !s[0].toTensor().requires_grad();
    }},
};
template <std::size_t N>
bool among(const std::string_view (&names)[N], const std::string& name) {
    return std::find(std::begin(names), std::end(names), name) != std::end(names);
}

c10::OperatorName name_of(const std::string& target) {  // "torch.ops.aten.mul.Tensor"
    const auto space = target.find('.', 10), overload = target.rfind('.');
    if (space == target.npos || overload <= space) throw Error(fmt::format("{}: is no op", target));
    std::string last = target.substr(overload + 1);
    return {target.substr(10, space - 10) + "::" + target.substr(space + 1, overload - space - 1), last == "default" ? "" : last};
}
const ExportArg* find(const ExportNode& n, const std::string& name) {
    for (const ExportArg& a : n.args)
        if (a.name == name) return &a;
    return nullptr;
}
bool is(const c10::Argument& a, c10::TypeKind kind) { return a.type()->kind() == kind; }

// mul.Tensor of a number, which Python makes a tensor on the way, is mul.Scalar, where there is one.
c10::OperatorHandle with_numbers(const c10::OperatorHandle& op, const ExportNode& n) {
    const auto& schema = op.schema();
    bool any = false;
    for (const auto& a : schema.arguments())
        if (auto* given = find(n, a.name())) any |= given->number == Number::whole && is(a, c10::TypeKind::TensorType);
    if (!any) return op;
    std::string overload = schema.overload_name();
    if (overload.empty()) overload = "Scalar";
    else if (overload.starts_with("Tensor")) overload.replace(0, 6, "Scalar");
    auto other = c10::Dispatcher::singleton().findSchema({schema.name(), overload});
    if (!other || other->schema().arguments().size() != schema.arguments().size()) return op;
    for (const auto& a : other->schema().arguments()) {
        auto* given = find(n, a.name());
        if (!schema.argumentIndexWithName(a.name()) || (given && given->number == Number::whole && is(a, c10::TypeKind::TensorType))) return op;
    }
    return *other;
}

// As a tensor of no dimensions that doesn't widen what it's combined with, as Python's numbers don't.
at::Tensor python_number(const c10::IValue& number) {
    at::Tensor t = number.isTensor() ? number.toTensor().detach() : as_tensor(number);
    t.unsafeGetTensorImpl()->set_wrapped_number(true);
    return t;
}
c10::IValue boxed(const c10::IValue& v, const c10::TypePtr& type) {
    switch (type->kind()) {
        case c10::TypeKind::TensorType:
            if (v.isNone()) return at::Tensor();
            return v.isTensor() ? v : python_number(v);
        case c10::TypeKind::FloatType: return v.isTensor() ? v.toTensor().item<double>() : v.toScalar().toDouble();
        case c10::TypeKind::IntType:
        case c10::TypeKind::SymIntType: return v.isTensor() ? v.toTensor().item<std::int64_t>() : v.isBool() ? static_cast<std::int64_t>(v.toBool()) : v;
        case c10::TypeKind::BoolType: return v.isTensor() ? v.toTensor().item<bool>() : v.isInt() ? v.toInt() != 0 : v;
        case c10::TypeKind::NumberType: return v.isTensor() ? c10::IValue(v.toTensor().item()) : v;
        default: return v;
    }
}
c10::IValue boxed(const ExportArg& a, const c10::Argument& argument, c10::TypePtr type, const ExportValues& v) {
    const bool list = a.kind == ExportArg::Kind::list;
    if (auto optional = type->cast<c10::OptionalType>()) {
        if (!list && value_of(a, v).isNone()) return {};
        type = optional->getElementType();
    }
    auto items = type->cast<c10::ListType>();
    if (list != (items != nullptr) && !items) throw Error(fmt::format("argument {}: got a list, expected {}", argument.name(), type->str()));
    if (!items && a.number == Number::real && type->kind() == c10::TypeKind::TensorType) return python_number(value_of(a, v));
    if (!items) return boxed(value_of(a, v), type);
    c10::TypePtr element = items->getElementType();
    c10::impl::GenericList out(element->kind() == c10::TypeKind::SymIntType ? c10::TypePtr(c10::IntType::get()) : element);
    if (list)
        for (const ExportArg& x : a.list) out.push_back(boxed(x, argument, element, v));
    else
        for (int k = 0; k < argument.N().value_or(1); ++k) out.push_back(boxed(a, argument, element, v));
    return out;
}
bool constant(const ExportArg& a) {
    if (a.kind == ExportArg::Kind::list) return std::all_of(a.list.begin(), a.list.end(), constant);
    return a.kind == ExportArg::Kind::constant;
}
// A number that becomes a tensor does so at each run: tensors are made where the graph runs.
bool makes_tensor(const ExportArg& a, const c10::Argument& argument) {
    return a.number == Number::whole && argument.type()->isSubtypeOf(*c10::OptionalType::ofTensor());
}
}  // namespace

at::Tensor as_tensor(const c10::IValue& number) {
    const at::Scalar s = number.toScalar();
    return at::scalar_tensor(s, s.isBoolean() ? at::kBool : s.isIntegral(false) ? at::kLong : s.isComplex() ? at::kComplexDouble : at::kDouble);
}

ExportStep dispatched(const ExportNode& n, std::optional<at::Device> elsewhere) {
    const c10::OperatorName name = name_of(n.target);
    if (among(kSkipped, name.name)) return [](const ExportValues&) { return std::vector<c10::IValue>{}; };
    auto found = c10::Dispatcher::singleton().findSchema(name);
    if (!found) throw Error(fmt::format("{}: this PyTorch has no such op", n.target));
    const c10::OperatorHandle op = with_numbers(*found, n);
    struct Late {
        std::size_t at;
        const ExportArg* arg;
        const c10::Argument* argument;
    };
    std::vector<c10::IValue> arguments;
    std::vector<Late> late;
    for (const c10::Argument& a : op.schema().arguments()) {
        const ExportArg* given = find(n, a.name());
        arguments.emplace_back();
        if (!given) {
            if (a.default_value()) arguments.back() = *a.default_value();
            else if (a.type()->kind() != c10::TypeKind::OptionalType) throw Error(fmt::format("{}: argument {} is missing", n.target, a.name()));
        } else if (given->kind == ExportArg::Kind::graph) {
            throw Error(fmt::format("{}: argument {} is a graph", n.target, a.name()));
        } else if (!constant(*given) || makes_tensor(*given, a)) {
            late.push_back({arguments.size() - 1, given, &a});
        } else {
            arguments.back() = boxed(*given, a, a.type(), {});
            if (elsewhere && arguments.back().isDevice()) arguments.back() = *elsewhere;
        }
    }
    for (const ExportArg& a : n.args)
        if (!op.schema().argumentIndexWithName(a.name)) throw Error(fmt::format("{}: has no argument {} in this PyTorch", n.target, a.name));
    const bool assertion = among(kAssertions, name.name);
    auto instead = std::find_if(std::begin(kInstead), std::end(kInstead), [&](const auto& row) { return row.name == name.name; });
    auto other = instead == std::end(kInstead) ? nullptr : instead->call;
    return [=](const ExportValues& v) {
        std::vector<c10::IValue> results;
        if (assertion && capturing()) return results;
        torch::jit::Stack stack = arguments;
        for (const Late& l : late) stack[l.at] = boxed(*l.arg, *l.argument, l.argument->type(), v);
        if (!other || !other(stack)) op.callBoxed(stack);
        for (c10::IValue& x : stack) {
            if (!x.isTensorList()) results.push_back(std::move(x));
            else
                for (const at::Tensor& t : x.toTensorVector()) results.emplace_back(t);
        }
        return results;
    };
}

}  // namespace heddle
