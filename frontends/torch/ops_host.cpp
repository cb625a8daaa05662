// Schema in hand, each argument is turned from an attribute into what the op takes.
#include "frontends/torch/ops_host.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/mm.h>
#include <fmt/format.h>

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
c10::IValue scalar_value(const Attr& a, const Sizes& sizes) {
    if (auto* d = std::get_if<Dim>(&a)) return d->eval(sizes);
    if (auto* v = std::get_if<double>(&a)) return *v;
    if (auto* b = std::get_if<bool>(&a)) return *b;
    return {};
}
c10::IValue argument(const c10::Argument& arg, const Attr& a, const std::vector<at::Tensor>& in, const Sizes& sizes) {
    c10::TypePtr type = arg.type();
    if (auto optional = type->cast<c10::OptionalType>()) {
        if (std::holds_alternative<None>(a)) return {};
        type = optional->getElementType();
    }
    if (auto* r = std::get_if<Ref>(&a)) return r->operand < 0 ? c10::IValue() : c10::IValue(in.at(static_cast<std::size_t>(r->operand)));
    if (auto* refs = std::get_if<std::vector<Ref>>(&a)) {
        auto list = type->cast<c10::ListType>();
        if (list && list->getElementType()->kind() == c10::TypeKind::OptionalType) {
            c10::List<std::optional<at::Tensor>> v;
            for (const Ref& r : *refs) v.push_back(r.operand < 0 ? std::nullopt : std::optional(in.at(static_cast<std::size_t>(r.operand))));
            return v;
        }
        c10::List<at::Tensor> v;
        for (const Ref& r : *refs) v.push_back(in.at(static_cast<std::size_t>(r.operand)));
        return v;
    }
    if (auto* s = std::get_if<std::string>(&a)) {
        if (type->kind() == c10::TypeKind::StringType) return *s;
        if (type->kind() == c10::TypeKind::DeviceObjType) return c10::Device(*s);
        if (auto t = dtype_named(*s)) return static_cast<std::int64_t>(scalar_type(*t));
        return {};  // layouts, memory formats and generators: the op's own choice
    }
    if (auto* dims = std::get_if<std::vector<Dim>>(&a)) {
        auto list = type->cast<c10::ListType>();
        if (list && list->getElementType()->kind() == c10::TypeKind::FloatType) {
            c10::List<double> v;
            for (const Dim& d : *dims) v.push_back(static_cast<double>(d.eval(sizes)));
            return v;
        }
        if (list && list->getElementType()->kind() == c10::TypeKind::BoolType) {
            c10::List<bool> v;
            for (const Dim& d : *dims) v.push_back(d.eval(sizes) != 0);
            return v;
        }
        c10::List<std::int64_t> v;
        for (const Dim& d : *dims) v.push_back(d.eval(sizes));
        return v;
    }
    if (auto* reals = std::get_if<std::vector<double>>(&a)) {
        c10::List<double> v;
        for (double x : *reals) v.push_back(x);
        return v;
    }
    c10::IValue v = scalar_value(a, sizes);
    if (type->kind() == c10::TypeKind::FloatType && v.isInt()) return static_cast<double>(v.toInt());
    if (type->kind() == c10::TypeKind::BoolType && v.isInt()) return v.toInt() != 0;
    return v;
}
}  // namespace

std::vector<at::Tensor> run_call(const Node& n, const std::vector<at::Tensor>& in, const Sizes& sizes) {
    if (n.is(Op::dot)) return {n.type.rank() == 3 ? at::bmm(in[0], in[1]) : at::mm(in[0], in[1])};
    auto op = handle_of(n.text("name"));
    torch::jit::Stack stack;
    for (const c10::Argument& arg : op.schema().arguments()) {
        if (const Attr* a = n.find(arg.name())) stack.push_back(argument(arg, *a, in, sizes));
        else if (arg.default_value()) stack.push_back(*arg.default_value());
        else if (arg.type()->kind() == c10::TypeKind::OptionalType) stack.emplace_back();
        else throw Error(fmt::format("{}: argument {} is missing", n.text("name"), arg.name()));
    }
    op.callBoxed(stack);
    std::vector<at::Tensor> results;
    for (const c10::IValue& v : stack) {
        if (v.isTensor()) results.push_back(v.toTensor());
        else if (v.isTensorList())
            for (const at::Tensor& t : v.toTensorVector()) results.push_back(t);
    }
    return results;
}

}  // namespace heddle
