// Schemas read: boxed values to attributes, in-place names to functional ones.
#include "frontends/capture/describe.h"

#include <ATen/core/jit_type.h>
#include <fmt/format.h>

#include "frontends/torch/host.h"

namespace heddle {

Type type_of(const at::Tensor& t) {
    if (t.layout() != at::kStrided) throw Error("capture: a sparse tensor: only dense ones are known");
    Type type{dtype_of(t.scalar_type()), {}};
    for (auto d : t.sizes()) type.shape.emplace_back(d);
    return type;
}
std::string dotted(const c10::OperatorHandle& op) {
    std::string name = op.schema().name();
    if (auto at = name.find("::"); at != name.npos) name.replace(at, 2, ".");
    return name + "." + (op.schema().overload_name().empty() ? "default" : op.schema().overload_name());
}

namespace {
c10::TypeKind kind_of(const c10::Argument& a) {
    auto t = a.real_type();
    if (t->kind() == c10::TypeKind::OptionalType) t = t->castRaw<c10::OptionalType>()->getElementType();
    return t->kind();
}
template <class L>
std::vector<Dim> dims(const L& v) {
    std::vector<Dim> out;
    for (const auto& x : v) out.emplace_back(static_cast<std::int64_t>(x));
    return out;
}
}  // namespace

Attr attr_of(const c10::Argument& a, const c10::IValue& v, Node& n, const std::function<Id(const at::Tensor&)>& id_of, const std::string& place) {
    auto ref = [&](const at::Tensor& t) {
        if (!t.defined()) return Ref{};
        n.in.push_back(id_of(t));
        return Ref{static_cast<int>(n.in.size()) - 1};
    };
    if (v.isNone()) return None{};
    if (v.isTensor()) {
        Ref r = ref(v.toTensor());
        return r.operand < 0 ? Attr(None{}) : Attr(r);
    }
    if (v.isTensorList()) {
        std::vector<Ref> refs;
        for (const auto& t : v.toTensorVector()) refs.push_back(ref(t));
        return refs;
    }
    if (v.isOptionalTensorList()) {
        std::vector<Ref> refs;
        for (const std::optional<at::Tensor>& t : v.toOptionalTensorVector()) refs.push_back(t ? ref(*t) : Ref{});
        return refs;
    }
    if (v.isBool()) return v.toBool();
    if (v.isInt()) switch (kind_of(a)) {
            case c10::TypeKind::ScalarTypeType: return std::string(name(dtype_of(static_cast<at::ScalarType>(v.toInt()))));
            case c10::TypeKind::LayoutType:
                if (static_cast<at::Layout>(v.toInt()) != at::kStrided) break;
                return std::string("strided");
            case c10::TypeKind::MemoryFormatType:
                switch (static_cast<at::MemoryFormat>(v.toInt())) {
                    case at::MemoryFormat::Contiguous: return std::string("contiguous_format");
                    case at::MemoryFormat::Preserve: return std::string("preserve_format");
                    case at::MemoryFormat::ChannelsLast: return std::string("channels_last");
                    default: return std::string("channels_last_3d");
                }
            default:
                if (v.toInt() >= (std::int64_t{1} << 62) - 1) return None{};  // how a slice says: to the end
                return Dim(v.toInt());
        }
    if (v.isSymInt() && !v.toSymInt().is_symbolic()) return Dim(v.toSymInt().expect_int());
    if (v.isDouble()) return v.toDouble();
    if (v.isString()) return v.toStringRef();
    if (v.isDevice()) return v.toDevice().str();
    if (v.isIntList()) return dims(v.toIntVector());
    if (v.isSymIntList()) {
        std::vector<Dim> out;
        for (const auto& x : v.toList()) out.emplace_back(static_cast<const c10::IValue&>(x.get()).isInt() ? x.get().toInt() : x.get().toSymInt().expect_int());
        return out;
    }
    if (v.isDoubleList()) return v.toDoubleVector();
    if (v.isBoolList()) return dims(v.toBoolList());
    if (v.isGenerator()) throw Error(fmt::format("{}: argument {}: a generator of its own; only the default generator is known", place, a.name()));
    throw Error(fmt::format("{}: argument {}: no word for a {}", place, a.name(), v.tagKind()));
}
Node describe(const c10::OperatorHandle& op, const std::vector<c10::IValue>& args, const std::function<Id(const at::Tensor&)>& id_of, const std::string& place) {
    Node n{.op = Op::call, .in = {}, .attrs = {{"name", dotted(op)}}, .type = {}, .more = {}, .loc = {}};
    for (std::size_t i = 0; i < args.size(); ++i) {
        const auto& a = op.schema().arguments()[i];
        n.attrs.emplace_back(a.name(), attr_of(a, args[i], n, id_of, place + ": " + dotted(op)));
    }
    return n;
}
Attr move_operands(const Attr& v, const Node& from, Node& to) {
    auto move = [&](Ref r) {
        if (r.operand < 0) return r;
        to.in.push_back(from.in[static_cast<std::size_t>(r.operand)]);
        return Ref{static_cast<int>(to.in.size()) - 1};
    };
    if (auto* r = std::get_if<Ref>(&v)) return move(*r);
    if (auto* list = std::get_if<std::vector<Ref>>(&v)) {
        std::vector<Ref> out;
        for (Ref r : *list) out.push_back(move(r));
        return out;
    }
    return v;
}
void drop_own_device(Node& n, const std::vector<c10::IValue>& args, const at::Tensor& result) {
    for (const auto& v : args)
        if (v.isTensor() && v.toTensor().defined() && v.toTensor().device() != result.device()) return;
    if (n.in.empty()) return;
    for (auto& [k, v] : n.attrs)
        if (k == "device") v = None{};
}

std::optional<Functional> functional_form(const c10::OperatorHandle& op) {
    static const std::pair<std::string_view, c10::OperatorName> kSpecial[] = {
        {"aten::_index_put_impl_", {"aten::index_put", ""}}};
    const auto& s = op.schema();
    auto& all = c10::Dispatcher::singleton();
    std::string full = s.name() + (s.overload_name().empty() ? "" : "." + s.overload_name());
    std::optional<c10::OperatorHandle> found;
    for (const auto& [from, to] : kSpecial)
        if (full == from) found = all.findSchema(to);
    if (!found && s.name().back() == '_') found = all.findSchema({s.name().substr(0, s.name().size() - 1), s.overload_name()});
    if (!found) found = all.findSchema({s.name() + "_functional", ""});
    if (!found)  // x.out(.., out): the op of that name with the other arguments
        for (const auto& candidate : all.getAllOpNames()) {
            if (candidate.name != s.name() || candidate == op.operator_name()) continue;
            auto h = all.findSchema(candidate);
            if (!h || h->schema().is_mutable()) continue;
            std::size_t same = 0, kept = 0;
            for (const auto& a : s.arguments()) {
                if (a.alias_info()) continue;
                ++kept;
                if (auto at = h->schema().argumentIndexWithName(a.name()); at && *h->schema().arguments()[static_cast<std::size_t>(*at)].type() == *a.type()) ++same;
            }
            if (same == kept && kept > 0) found = h;
        }
    if (!found || found->schema().is_mutable()) return {};
    Functional f{dotted(*found), found, {}, found->schema().returns().size()};
    for (const auto& a : found->schema().arguments()) f.arguments.push_back(a.name());
    return f;
}
std::string view_of_inplace(const c10::OperatorHandle& op) {
    const auto& s = op.schema();
    if (!op.hasTag(at::Tag::inplace_view) || s.name().back() != '_') return "";
    auto found = c10::Dispatcher::singleton().findSchema({s.name().substr(0, s.name().size() - 1), s.name() == "aten::transpose_" ? "int" : s.overload_name()});
    bool view = found && !found->schema().returns().empty() && found->schema().returns()[0].alias_info() && !found->schema().is_mutable();
    return view && s.name() != "aten::as_strided_" ? dotted(*found) : "";
}

}  // namespace heddle
