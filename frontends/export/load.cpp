// The file's tensors, the interpreter over them as a callable, and that callable fused.
#include "frontends/export/load.h"

#include <ATen/ops/scalar_tensor.h>
#include <c10/core/GradMode.h>
#include <fmt/format.h>

#include <cctype>
#include <filesystem>
#include <mutex>

#include "frontends/export/interpret.h"
#include "frontends/export/signature.h"

namespace heddle {

namespace {
using Of = ExportInput::Of;

void flatten(const c10::IValue& v, std::vector<c10::IValue>& out) {
    if (v.isTuple()) {
        for (const auto& x : v.toTupleRef().elements()) flatten(x, out);
    } else if (v.isList()) {
        for (const c10::IValue& x : v.toListRef()) flatten(x, out);
    } else if (v.isGenericDict()) {
        for (const auto& e : v.toGenericDict()) flatten(e.value(), out);
    } else {
        out.push_back(v);
    }
}
}  // namespace

struct Exported::State {
    struct Core;
    State(ExportArchive, const std::string& path, LoadOptions);
    const Fused& fused(const Tensors& in);

    ExportArchive archive;
    std::string path;
    FuseOptions options;
    std::shared_ptr<const Core> core;
    NamedTensors parameters, buffers;
    std::vector<Argument> arguments;
    std::vector<Output> outputs;
    std::mutex mutex;
    std::optional<Fused> captured;
    std::string without_names;                   // why sizes have none
};

// What a call needs. The callable holds it, and by it the weights.
struct Exported::State::Core {
    ExportProgram program;
    std::vector<c10::IValue> bound;              // per input of the graph: a weight, or what was passed at export
    std::vector<int> given;                      // per input of the graph: which input of a call it is, or -1
    std::vector<c10::IValue> targets;            // per output: the tensor that takes it, or which input of a call does; none: a result
    std::optional<ExportSignature> signature;
    std::unique_ptr<Interpreter> run;

    Tensors operator()(const Tensors& in) const {
        std::vector<c10::IValue> inputs = bound;
        for (std::size_t k = 0; k < inputs.size(); ++k) {
            if (given[k] < 0) continue;
            const at::Tensor& t = in.at(static_cast<std::size_t>(given[k]));
            inputs[k] = program.inputs[k].of == Of::integer ? c10::IValue(t.item<std::int64_t>()) : c10::IValue(t);
        }
        std::vector<c10::IValue> out = (*run)(std::move(inputs));
        Tensors results;
        for (std::size_t k = 0; k < out.size(); ++k) {
            const ExportOutput& o = program.outputs[k];
            if (o.of == ExportOutput::Of::user) {
                if (program.graph->outputs[k].kind == ExportArg::Kind::constant) continue;
                results.push_back(out[k].isTensor() ? out[k].toTensor() : as_tensor(out[k]));
                continue;
            }
            // A buffer holds values, not history; an input that is written has the history of what is written, as in eager.
            at::AutoGradMode mode(o.of == ExportOutput::Of::input && c10::GradMode::is_enabled());
            write_into(k, in).copy_(out[k].toTensor());
        }
        return results;
    }

private:
    at::Tensor write_into(std::size_t k, const Tensors& in) const {
        if (targets[k].isTensor()) return targets[k].toTensor();
        return in.at(static_cast<std::size_t>(targets[k].toInt()));
    }
};

Exported::State::State(ExportArchive a, const std::string& where, LoadOptions o) : archive(std::move(a)), path(where), options(std::move(o.fuse)) {
    auto made = std::make_shared<Core>();
    made->program = archive.program();
    const ExportProgram& p = made->program;
    const NamedTensors weights = archive.weights(o.device), constants = archive.constants(o.device);
    auto find = [&](const NamedTensors& among, const std::string& name) -> at::Tensor {
        for (const auto& [n, t] : among)
            if (n == name) return t;
        return {};
    };
    auto list = [](NamedTensors& into, const std::string& name, const at::Tensor& t) {
        for (const auto& [n, x] : into)
            if (x.is_same(t)) return;
        into.emplace_back(name, t);
    };
    int next = 0;
    for (const ExportInput& in : p.inputs) {
        const bool input = in.of == Of::tensor || in.of == Of::integer;
        made->given.push_back(input ? next++ : -1);
        made->bound.push_back(in.fixed);
        if (input || in.of == Of::fixed) {
            arguments.push_back({in.name, input ? ExportSignature::type(in) : "", input, in.fixed});
            continue;
        }
        at::Tensor t = find(in.of == Of::constant_tensor ? constants : weights, in.name);
        if (!t.defined()) t = find(in.of == Of::constant_tensor ? weights : constants, in.name);
        if (!t.defined()) throw Error(fmt::format("{}: has no tensor {}, which its program reads", path, in.name));
        made->bound.back() = t;
        if (in.of == Of::parameter) list(parameters, in.name, t.set_requires_grad(in.tensor.requires_grad));
        if (in.of == Of::buffer) list(buffers, in.name, t);
    }
    for (std::size_t k = 0; k < p.outputs.size(); ++k) {
        const ExportOutput& out = p.outputs[k];
        const ExportArg& value = p.graph->outputs[k];
        made->targets.emplace_back();
        if (out.of == ExportOutput::Of::user) {
            const bool result = value.kind != ExportArg::Kind::constant;
            outputs.push_back({result, result ? c10::IValue() : value.constant});
            continue;
        }
        for (std::size_t i = 0; i < p.inputs.size(); ++i) {
            const ExportInput& in = p.inputs[i];
            if (in.name != out.name) continue;
            if (out.of == ExportOutput::Of::input && in.of == Of::tensor) made->targets[k] = made->given[i];
            if (out.of == ExportOutput::Of::buffer && in.of == Of::buffer) made->targets[k] = made->bound[i];
            if (out.of == ExportOutput::Of::parameter && in.of == Of::parameter) made->targets[k] = made->bound[i];
        }
        if (made->targets[k].isNone()) throw Error(fmt::format("{}: writes {}, which is no input of its graph", path, out.name));
    }
    try {
        made->run = std::make_unique<Interpreter>(p.graph, o.device);
    } catch (const std::exception& e) {
        throw Error(fmt::format("{}: {}", path, one_line(e)));
    }
    made->signature.emplace(p, path);
    core = std::move(made);
}

// Captured with the inputs of the first call, which are split.
const Fused& Exported::State::fused(const Tensors& in) {
    std::lock_guard lock(mutex);
    if (captured) return *captured;
    Callable callable = [core = core](const Tensors& x) { return (*core)(core->signature->joined(x)); };
    const auto& varying = core->signature->varying();
    FuseOptions named = options, unnamed = options;
    named.dynamic.insert(named.dynamic.end(), varying.begin(), varying.end());
    named.eager_if_uncapturable &= varying.empty();
    named.recapture |= !core->signature->all_named();
    unnamed.recapture = true;
    try {
        return captured.emplace(fuse(callable, in, named));
    } catch (const std::exception& e) {
        if (varying.empty()) throw;
        captured.emplace(fuse(callable, in, unnamed));
        if (captured->report().eager_reason.empty()) without_names = one_line(e);
    }
    return *captured;
}

Exported::Exported(std::shared_ptr<State> s) : state_(std::move(s)) {}
Tensors Exported::operator()(const Tensors& inputs) const {
    state_->core->signature->check(inputs);
    const Tensors split = state_->core->signature->split(inputs);
    return state_->fused(split)(split);
}
Tensors Exported::eagerly(const Tensors& inputs) const {
    state_->core->signature->check(inputs);
    return (*state_->core)(inputs);
}
const NamedTensors& Exported::named_parameters() const { return state_->parameters; }
const NamedTensors& Exported::named_buffers() const { return state_->buffers; }
Tensors Exported::parameters() const {
    Tensors all;
    for (const auto& [name, t] : state_->parameters) all.push_back(t);
    return all;
}
const std::vector<Exported::Argument>& Exported::arguments() const { return state_->arguments; }
const std::vector<Exported::Output>& Exported::outputs() const { return state_->outputs; }
const std::string& Exported::in_spec() const { return state_->core->program.in_spec; }
const std::string& Exported::out_spec() const { return state_->core->program.out_spec; }

Tensors Exported::example() const {
    std::vector<c10::IValue> flat;
    try {
        flatten(state_->archive.example(), flat);
    } catch (const std::exception&) {
        return {};
    }
    if (flat.size() != state_->arguments.size()) return {};
    Tensors in;
    for (std::size_t k = 0; k < flat.size(); ++k) {
        if (!state_->arguments[k].input) continue;
        if (flat[k].isTensor()) in.push_back(flat[k].toTensor());
        else if (flat[k].isInt()) in.push_back(at::scalar_tensor(flat[k].toInt(), at::kLong));
        else return {};
    }
    return in;
}

const Fused& Exported::fused() const {
    std::lock_guard lock(state_->mutex);
    if (!state_->captured) throw Error(fmt::format("{}: is captured at its first call", state_->path));
    return *state_->captured;
}
std::string Exported::explain() const {
    const Fused& f = fused();
    const std::string& why = state_->without_names;
    return (why.empty() ? "" : fmt::format("sizes are captured as they come, as not all can vary in one capture: {}\n", why)) + f.explain();
}

Exported load(const std::string& path, LoadOptions options) {
    if (options.fuse.name.empty()) {
        options.fuse.name = std::filesystem::path(path).stem().string();
        for (char& c : options.fuse.name) c = std::isalnum(static_cast<unsigned char>(c)) ? c : '_';
    }
    ExportArchive archive(path, options.model);
    return Exported(std::make_shared<Exported::State>(std::move(archive), path, std::move(options)));
}

}  // namespace heddle
