// From PyTorch's generated schema to plain data. The only file that includes it: it's 4000 lines, and changes with PyTorch.
#include <c10/util/complex.h>
#include <fmt/format.h>
#include <torch/csrc/utils/generated_serialization_types.h>
#include <torch/version.h>

#include <unordered_map>

#include "frontends/export/program.h"

namespace heddle {

namespace {
namespace schema = torch::_export;
constexpr std::int64_t kMajor = 8;  // what is written below; a file of another major version may mean other things

// The schema's enumerations, by its numbers: PyTorch's own number for each.
at::ScalarType dtype(schema::ScalarType t) {
    if (t == schema::ScalarType::UINT16) return at::kUInt16;
    if (t >= schema::ScalarType::BYTE && t <= schema::ScalarType::BOOL) return static_cast<at::ScalarType>(static_cast<int>(t) - 1);
    if (t == schema::ScalarType::BFLOAT16) return at::kBFloat16;
    throw Error(fmt::format("dtype number {} isn't supported", static_cast<int>(t)));
}
at::Layout layout(schema::Layout l) {
    if (l != schema::Layout::Strided) throw Error("a sparse tensor isn't supported");
    return at::kStrided;
}
at::MemoryFormat memory_format(schema::MemoryFormat f) {
    switch (f) {
        case schema::MemoryFormat::ContiguousFormat: return at::MemoryFormat::Contiguous;
        case schema::MemoryFormat::ChannelsLast: return at::MemoryFormat::ChannelsLast;
        case schema::MemoryFormat::ChannelsLast3d: return at::MemoryFormat::ChannelsLast3d;
        case schema::MemoryFormat::PreserveFormat: return at::MemoryFormat::Preserve;
        default: throw Error(fmt::format("memory format number {} isn't supported", static_cast<int>(f)));
    }
}
at::Device device(const schema::Device& d) {
    at::Device type(d.get_type());
    return d.get_index() ? at::Device(type.type(), static_cast<at::DeviceIndex>(*d.get_index())) : type;
}
ExportSize size(const schema::SymInt& s) {
    if (s.tag() == schema::SymInt::Tag::AS_INT) return {std::to_string(s.get_as_int()), Dim(s.get_as_int())};
    return parse_size(s.get_as_expr().get_expr_str());
}
std::vector<ExportSize> sizes(const std::vector<schema::SymInt>& list) {
    std::vector<ExportSize> out;
    for (const auto& s : list) out.push_back(size(s));
    return out;
}
ExportTensor tensor(const schema::TensorMeta& m) {
    return {dtype(m.get_dtype()), sizes(m.get_sizes()), sizes(m.get_strides()), size(m.get_storage_offset()), m.get_requires_grad(), device(m.get_device()),
            layout(m.get_layout())};
}

// Names of values become numbers, in order of appearance.
class Reader {
    using Number = ExportArg::Number;

public:
    explicit Reader(const schema::Graph& g) : from_(g) {}
    ExportGraph run();
    int find(const std::string& name) const {
        auto it = numbers_.find(name);
        if (it == numbers_.end()) throw Error(fmt::format("value {} is read before it's made", name));
        return it->second;
    }

private:
    int make(const std::string& name) {
        numbers_[name] = out_.values;
        return out_.values++;
    }
    ExportArg value(const std::string& name, Number number = Number::none) const {
        return {.kind = ExportArg::Kind::value, .value = find(name), .number = number};
    }
    template <class Symbol, class Constant>
    ExportArg symbol(const Symbol& s, Constant constant, Number kind = Number::whole) const {
        if (s.tag() == Symbol::Tag::AS_NAME) return value(s.get_as_name(), kind);
        return {.constant = constant(s), .number = Number::whole};
    }
    ExportArg integer(const schema::SymIntArgument& s) const {
        return symbol(s, [](const auto& x) { return c10::IValue(x.get_as_int()); });
    }
    ExportArg real(const schema::SymFloatArgument& s) const {
        return symbol(s, [](const auto& x) { return c10::IValue(x.get_as_float().get()); }, Number::real);
    }
    ExportArg truth(const schema::SymBoolArgument& s) const {
        return symbol(s, [](const auto& x) { return c10::IValue(x.get_as_bool()); });
    }
    ExportArg optional(const schema::OptionalTensorArgument& t) const {
        return t.tag() == schema::OptionalTensorArgument::Tag::AS_NONE ? ExportArg{} : value(t.get_as_tensor().get_name());
    }
    template <class T, class F>
    ExportArg list(const std::vector<T>& items, F f) const {
        ExportArg a{.kind = ExportArg::Kind::list};
        for (const auto& x : items) a.list.push_back(f(x));
        return a;
    }
    ExportArg argument(const schema::Argument&) const;
    void results(const schema::Argument&, ExportNode&);
    ExportNode node(const schema::Node&);

    const schema::Graph& from_;
    ExportGraph out_;
    std::unordered_map<std::string, int> numbers_;
};

ExportArg Reader::argument(const schema::Argument& a) const {
    using Tag = schema::Argument::Tag;
    auto number = [](auto v) { return ExportArg{.constant = v, .number = Number::whole}; };
    switch (a.tag()) {
        case Tag::AS_NONE: return a.get_as_none(), ExportArg{};
        case Tag::AS_TENSOR: return value(a.get_as_tensor().get_name());
        case Tag::AS_TENSORS: return list(a.get_as_tensors(), [&](const auto& t) { return value(t.get_name()); });
        case Tag::AS_OPTIONAL_TENSOR: return optional(a.get_as_optional_tensor());
        case Tag::AS_OPTIONAL_TENSORS: return list(a.get_as_optional_tensors(), [&](const auto& t) { return optional(t); });
        case Tag::AS_INT: return number(a.get_as_int());
        case Tag::AS_FLOAT: return number(a.get_as_float().get());
        case Tag::AS_BOOL: return number(a.get_as_bool());
        case Tag::AS_COMPLEX: return number(c10::complex<double>(a.get_as_complex().get_real().get(), a.get_as_complex().get_imag().get()));
        case Tag::AS_INTS: return list(a.get_as_ints(), number);
        case Tag::AS_FLOATS: return list(a.get_as_floats(), [&](const auto& f) { return number(f.get()); });
        case Tag::AS_BOOLS: return list(a.get_as_bools(), [&](bool b) { return number(b); });
        case Tag::AS_SYM_INT: return integer(a.get_as_sym_int());
        case Tag::AS_SYM_FLOAT: return real(a.get_as_sym_float());
        case Tag::AS_SYM_BOOL: return truth(a.get_as_sym_bool());
        case Tag::AS_SYM_INTS: return list(a.get_as_sym_ints(), [&](const auto& s) { return integer(s); });
        case Tag::AS_SYM_FLOATS: return list(a.get_as_sym_floats(), [&](const auto& s) { return real(s); });
        case Tag::AS_SYM_BOOLS: return list(a.get_as_sym_bools(), [&](const auto& s) { return truth(s); });
        case Tag::AS_STRING: return {.constant = a.get_as_string()};
        case Tag::AS_STRINGS: return list(a.get_as_strings(), [](const auto& s) { return ExportArg{.constant = s}; });
        case Tag::AS_SCALAR_TYPE: return {.constant = static_cast<std::int64_t>(dtype(a.get_as_scalar_type()))};
        case Tag::AS_LAYOUT: return {.constant = static_cast<std::int64_t>(layout(a.get_as_layout()))};
        case Tag::AS_MEMORY_FORMAT: return {.constant = static_cast<std::int64_t>(memory_format(a.get_as_memory_format()))};
        case Tag::AS_DEVICE: return {.constant = device(a.get_as_device())};
        case Tag::AS_GRAPH: return {.kind = ExportArg::Kind::graph, .graph = std::make_shared<ExportGraph>(Reader(*a.get_as_graph().get_graph()).run())};
        default: throw Error(fmt::format("an argument of kind {} isn't supported", schema::printEnum(a.tag())));
    }
}

void Reader::results(const schema::Argument& a, ExportNode& n) {
    using Tag = schema::Argument::Tag;
    switch (a.tag()) {
        case Tag::AS_NONE: return n.results.push_back(-1);
        case Tag::AS_TENSOR: return n.results.push_back(make(a.get_as_tensor().get_name()));
        case Tag::AS_SYM_INT: return n.results.push_back(make(a.get_as_sym_int().get_as_name()));
        case Tag::AS_SYM_FLOAT: return n.results.push_back(make(a.get_as_sym_float().get_as_name()));
        case Tag::AS_SYM_BOOL: return n.results.push_back(make(a.get_as_sym_bool().get_as_name()));
        case Tag::AS_TENSORS:
            for (const auto& t : a.get_as_tensors()) n.results.push_back(make(t.get_name()));
            return;
        default: throw Error(fmt::format("a result of kind {} isn't supported", schema::printEnum(a.tag())));
    }
}

// "key,path,type;key,path,type": the path of the innermost module, less "L['self']." where there is one.
std::string innermost(const std::unordered_map<std::string, std::string>& metadata) {
    auto it = metadata.find("nn_module_stack");
    if (it == metadata.end()) return {};
    std::string last = it->second.substr(it->second.rfind(';') + 1);
    auto from = last.find(','), to = last.rfind(',');
    if (from == last.npos || to <= from) return {};
    std::string path = last.substr(from + 1, to - from - 1);
    return path.rfind("L['self'].", 0) == 0 ? path.substr(10) : path;
}

ExportNode Reader::node(const schema::Node& from) {
    ExportNode n;
    n.target = from.get_target();
    n.name = from.get_name().value_or("");
    n.module = innermost(from.get_metadata());
    try {
        for (const auto& a : from.get_inputs()) {
            n.args.push_back(argument(a.get_arg()));
            n.args.back().name = a.get_name();
        }
        for (const auto& a : from.get_outputs()) results(a, n);
    } catch (const Error& e) {
        throw Error(fmt::format("{}: {}", n.target, e.what()));
    }
    return n;
}

ExportGraph Reader::run() {
    using Tag = schema::Argument::Tag;
    for (const auto& a : from_.get_inputs()) switch (a.tag()) {
            case Tag::AS_TENSOR: out_.inputs.push_back(make(a.get_as_tensor().get_name())); break;
            case Tag::AS_SYM_INT: out_.inputs.push_back(make(a.get_as_sym_int().get_as_name())); break;
            case Tag::AS_NONE:
            case Tag::AS_INT:
            case Tag::AS_FLOAT:
            case Tag::AS_BOOL:
            case Tag::AS_STRING: out_.inputs.push_back(-1); break;
            default: throw Error(fmt::format("an input of kind {} isn't supported", schema::printEnum(a.tag())));
        }
    for (const auto& n : from_.get_nodes()) out_.nodes.push_back(node(n));
    for (const auto& a : from_.get_outputs()) out_.outputs.push_back(argument(a));
    return std::move(out_);
}

ExportTensor described(const schema::Graph& g, const std::string& name) {
    auto it = g.get_tensor_values().find(name);
    if (it == g.get_tensor_values().end()) throw Error(fmt::format("input {} has no type", name));
    return tensor(it->second);
}
ExportInput input(const schema::Graph& g, const schema::InputSpec& s) {
    using Tag = schema::InputSpec::Tag;
    using Of = ExportInput::Of;
    switch (s.tag()) {
        case Tag::PARAMETER: return {Of::parameter, s.get_parameter().get_parameter_name(), described(g, s.get_parameter().get_arg().get_name()), {}, {}};
        case Tag::BUFFER: return {Of::buffer, s.get_buffer().get_buffer_name(), {}, {}, {}};
        case Tag::TENSOR_CONSTANT: return {Of::constant_tensor, s.get_tensor_constant().get_tensor_constant_name(), {}, {}, {}};
        case Tag::CONSTANT_INPUT: {
            const auto& v = s.get_constant_input().get_value();
            using Of_value = schema::ConstantValue::Tag;
            c10::IValue fixed;
            switch (v.tag()) {
                case Of_value::AS_NONE: break;
                case Of_value::AS_INT: fixed = v.get_as_int(); break;
                case Of_value::AS_FLOAT: fixed = v.get_as_float().get(); break;
                case Of_value::AS_STRING: fixed = v.get_as_string(); break;
                case Of_value::AS_BOOL: fixed = v.get_as_bool(); break;
            }
            return {Of::fixed, s.get_constant_input().get_name(), {}, {}, fixed};
        }
        case Tag::USER_INPUT: {
            const auto& a = s.get_user_input().get_arg();
            if (a.tag() == schema::Argument::Tag::AS_TENSOR) {
                const std::string& name = a.get_as_tensor().get_name();
                return {Of::tensor, name, described(g, name), {}, {}};
            }
            const std::string& name = a.get_as_sym_int().get_as_name();
            auto it = g.get_sym_int_values().find(name);
            return {Of::integer, name, {}, it == g.get_sym_int_values().end() ? ExportSize{name, {}} : size(it->second), {}};
        }
        default: throw Error(fmt::format("an input that is a {} isn't supported", schema::printEnum(s.tag())));
    }
}
ExportOutput output(const schema::OutputSpec& s) {
    using Tag = schema::OutputSpec::Tag;
    using Of = ExportOutput::Of;
    switch (s.tag()) {
        case Tag::USER_OUTPUT:
        case Tag::LOSS_OUTPUT: return {Of::user, ""};
        case Tag::BUFFER_MUTATION: return {Of::buffer, s.get_buffer_mutation().get_buffer_name()};
        case Tag::PARAMETER_MUTATION: return {Of::parameter, s.get_parameter_mutation().get_parameter_name()};
        case Tag::USER_INPUT_MUTATION: return {Of::input, s.get_user_input_mutation().get_user_input_name()};
        case Tag::GRADIENT_TO_PARAMETER:
        case Tag::GRADIENT_TO_USER_INPUT: throw Error("it computes its own gradients; export the forward alone, heddle differentiates it");
        default: throw Error(fmt::format("an output that is a {} isn't supported", schema::printEnum(s.tag())));
    }
}
}  // namespace

ExportProgram parse_export(std::string_view text) {
    auto json = nlohmann::json::parse(text);
    const auto version = json.at("schema_version").get<schema::SchemaVersion>();
    if (version.get_major() != kMajor)
        throw Error(fmt::format("schema version {}.{}, written by torch {}; this heddle reads {}: export it again with a PyTorch near {}",
                                version.get_major(), version.get_minor(), json.value("torch_version", "?"), kMajor, TORCH_VERSION));
    const auto from = json.get<schema::ExportedProgram>();
    json = nullptr;
    ExportProgram p;
    const schema::Graph& g = from.get_graph_module().get_graph();
    const auto& signature = from.get_graph_module().get_signature();
    p.graph = std::make_shared<ExportGraph>(Reader(g).run());
    for (const auto& s : signature.get_input_specs()) p.inputs.push_back(input(g, s));
    for (const auto& s : signature.get_output_specs()) p.outputs.push_back(output(s));
    if (p.inputs.size() != p.graph->inputs.size() || p.outputs.size() != p.graph->outputs.size()) throw Error("its signature and its graph differ");
    for (const auto& [name, r] : from.get_range_constraints()) p.ranges[name] = {r.get_min_val(), r.get_max_val()};
    p.torch_version = from.get_torch_version();
    for (const auto& m : from.get_graph_module().get_module_call_graph())
        if (m.get_fqn().empty() && m.get_signature()) p.in_spec = m.get_signature()->get_in_spec(), p.out_spec = m.get_signature()->get_out_spec();
    return p;
}

std::vector<ExportPayload> parse_payloads(std::string_view text) {
    const auto config = nlohmann::json::parse(text).get<schema::PayloadConfig>();
    std::vector<ExportPayload> out;
    for (const auto& [name, m] : config.get_config()) {
        out.push_back({name, m.get_path_name(), m.get_is_param(), m.get_use_pickle(), {}});
        if (m.get_tensor_meta()) out.back().tensor = tensor(*m.get_tensor_meta());
    }
    return out;
}

}  // namespace heddle
