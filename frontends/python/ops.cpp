// The door that Python comes through: ops of the dispatcher and a class of torch, so that one library serves every Python.
// Law: nothing here or below knows Python; a Python function is a number, called through the op heddle::python that Python implements.
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/scalar_tensor.h>
#include <fmt/format.h>
#include <torch/custom_class.h>
#include <torch/library.h>

#include <mutex>
#include <nlohmann/json.hpp>
#include <shared_mutex>

#include "frontends/capture/recorder.h"
#include "frontends/export/load.h"
#include "frontends/torch/adam_step.h"
#include "runtime/traffic.h"

namespace heddle {
namespace {

Tensors call_python(std::int64_t function, const Tensors& in) {
    static auto op = c10::Dispatcher::singleton().findSchemaOrThrow("heddle::python", "").typed<Tensors(std::int64_t, at::TensorList, bool)>();
    return op.call(function, in, capturing());
}

// Regions by number, and steps: what the hot path takes. A number is never used again.
template <class T>
class Numbered {
public:
    std::int64_t add(T f) {
        std::unique_lock lock(mutex_);
        all_.push_back(std::make_shared<T>(std::move(f)));
        return static_cast<std::int64_t>(all_.size()) - 1;
    }
    std::shared_ptr<T> get(std::int64_t id) {
        std::shared_lock lock(mutex_);
        if (id < 0 || static_cast<std::size_t>(id) >= all_.size() || !all_[static_cast<std::size_t>(id)]) throw Error(fmt::format("heddle: there is no region {}", id));
        return all_[static_cast<std::size_t>(id)];
    }
    void drop(std::int64_t id) {
        std::unique_lock lock(mutex_);
        all_[static_cast<std::size_t>(id)].reset();
    }

private:
    std::shared_mutex mutex_;
    std::vector<std::shared_ptr<T>> all_;
};
Numbered<Fused>& regions() {
    static auto* r = new Numbered<Fused>;  // outlives every tensor with a gradient
    return *r;
}
Numbered<AdamStep>& steps() {
    static auto* s = new Numbered<AdamStep>;
    return *s;
}
// {"name": .., "dynamic": [{"input": 0, "dim": 0, "name": "N"}, ..], "earlier": [[[4, 3], [3]], ..], "recapture": .., "deterministic": .., "activation_memory_budget": .., "strict": ..}
FuseOptions options_of(const std::string& text) {
    auto j = nlohmann::json::parse(text);
    FuseOptions o;
    o.name = j.value("name", "f");
    o.recapture = j.value("recapture", true);
    o.deterministic = j.value("deterministic", false);
    o.activation_memory_budget = j.value("activation_memory_budget", 1.0);
    o.eager_if_uncapturable = !j.value("strict", false);
    o.earlier = j.value("earlier", o.earlier);
    for (const auto& v : j.value("dynamic", nlohmann::json::array())) o.dynamic.push_back({v.at("input"), {}, v.at("dim"), v.at("name")});
    return o;
}

// A fused Python function.
struct Region final : torch::CustomClassHolder {
    std::int64_t id;
    Region(std::int64_t function, const std::string& options) : id(regions().add(fuse([function](const Tensors& in) { return call_python(function, in); }, options_of(options)))) {}
    ~Region() override { regions().drop(id); }
    Fused& fused() const { return *regions().get(id); }
    std::string report() const {
        const Report r = fused().report();
        return nlohmann::json{{"launches_forward", r.launches_forward}, {"launches_backward", r.launches_backward},
                              {"calls_forward", r.calls_forward}, {"calls_backward", r.calls_backward},
                              {"bytes_forward", r.bytes_forward}, {"bytes_backward", r.bytes_backward}, {"saved_bytes", r.saved_bytes},
                              {"compile_seconds", r.compile_seconds}, {"library_calls", r.library_calls},
                              {"eager_reason", r.eager_reason}, {"captures", r.captures}}.dump();
    }
};

// The directions, each with its launches.
std::string text_of(const std::vector<Traffic>& all) {
    auto directions = nlohmann::json::array();
    for (const Traffic& t : all) {
        auto launches = nlohmann::json::array();
        for (const Moved& m : t.launches) launches.push_back({{"kernel", m.name}, {"moved", m.moved}, {"least", m.least}});
        directions.push_back({{"kernels", launches}, {"calls", t.calls}, {"moved", t.moved}, {"least", t.least}});
    }
    return directions.dump();
}
std::vector<std::string> flat(std::vector<std::pair<std::string, std::string>> named) {
    std::vector<std::string> all;
    for (auto& [name, text] : named) all.push_back(std::move(name)), all.push_back(std::move(text));
    return all;
}
// A fused training step of a Python function. Tensors that aren't there have no elements here.
struct StepOfAdam final : torch::CustomClassHolder {
    std::int64_t id;
    StepOfAdam(std::int64_t function, const std::string& options)
        : id(steps().add(AdamStep([function](const Tensors& in) { return call_python(function, in); }, {}, options_of(options), form_of(options)))) {}
    // Of "restride", "bounded" (null: as the device wants it) and "capturable".
    static StepOptions form_of(const std::string& text) {
        auto j = nlohmann::json::parse(text);
        StepOptions o{.restride = j.value("restride", true), .bounded = {}, .capturable = j.value("capturable", false)};
        if (auto b = j.find("bounded"); b != j.end() && !b->is_null()) o.bounded = b->get<bool>();
        return o;
    }
    ~StepOfAdam() override { steps().drop(id); }
    AdamStep& step() const { return *steps().get(id); }
    // Per parameter: itself, its number of steps, exp_avg, exp_avg_sq, max_exp_avg_sq; its group.
    void parameters(const Tensors& all, const std::vector<std::int64_t>& groups) const {
        std::vector<AdamParameter> list;
        auto given = [&](std::size_t k) { return all.at(k).numel() > 0 || all[k].dim() > 1 ? all[k] : at::Tensor(); };
        for (std::size_t k = 0; k < groups.size(); ++k)
            list.push_back({all.at(5 * k), all.at(5 * k + 1), given(5 * k + 2), given(5 * k + 3), given(5 * k + 4), static_cast<std::size_t>(groups[k])});
        step().parameters(std::move(list));
    }
    Tensors states() const {  // step, exp_avg, exp_avg_sq, max_exp_avg_sq of each
        Tensors all;
        for (const AdamParameter& p : step().parameters())
            for (const at::Tensor& t : {p.step, p.exp_avg, p.exp_avg_sq, p.max_exp_avg_sq}) all.push_back(t.defined() ? t : at::empty({0}));
        return all;
    }
    std::string report() const {
        const AdamStep::Report r = step().report();
        return nlohmann::json{{"launches", r.launches}, {"calls", r.calls}, {"host_reads", r.host_reads}, {"in_place", r.in_place}, {"copied", r.copied}, {"bytes", r.bytes},
                              {"arena", r.arena}, {"allocations", r.allocations}, {"library_calls", r.library_calls}, {"eager_reason", r.eager_reason}, {"captures", r.captures},
                              {"compiles", r.compiles}, {"capture_seconds", r.capture_seconds}, {"plan_seconds", r.plan_seconds},
                              {"bounded", r.bounded}, {"repeated", r.repeated}, {"waits", r.waits}}.dump();
    }
    at::Tensor failed() const {
        at::Tensor t = step().failed();
        return t.defined() ? t : at::empty({0}, at::kLong);
    }
};

// A .pt2 file. Arguments and results are flat here; Python nests them.
struct Saved final : torch::CustomClassHolder {
    Exported exported;
    Saved(const std::string& path, const std::string& device) : exported(load(path, options(device))) {}
    static LoadOptions options(const std::string& device) {
        LoadOptions o;
        if (!device.empty()) o.device = at::Device(device);
        o.fuse.recapture = true;
        return o;
    }
    static std::string names(const NamedTensors& all) {
        auto j = nlohmann::json::array();
        for (const auto& [name, t] : all) j.push_back(name);
        return j.dump();
    }
    static Tensors tensors(const NamedTensors& all) {
        Tensors list;
        for (const auto& [name, t] : all) list.push_back(t);
        return list;
    }
    // {"arguments": [{"name", "type", "input"}], "results": [whether it is a tensor of a call], "parameters": [name], "buffers": [name], "in": .., "out": ..}
    std::string about() const {
        nlohmann::json j{{"parameters", nlohmann::json::parse(names(exported.named_parameters()))}, {"buffers", nlohmann::json::parse(names(exported.named_buffers()))},
                         {"in", exported.in_spec()}, {"out", exported.out_spec()}, {"arguments", nlohmann::json::array()}, {"results", nlohmann::json::array()}};
        for (const auto& a : exported.arguments()) j["arguments"].push_back({{"name", a.name}, {"type", a.type}, {"input", a.input}});
        for (const auto& r : exported.outputs()) j["results"].push_back(r.result);
        return j.dump();
    }
};

Tensors run(std::int64_t region, at::TensorList in) { return (*regions().get(region))(in); }
// Numbers of the host as tensors without dimensions.
Tensors with_numbers(at::TensorList in, at::IntArrayRef integers, at::ArrayRef<double> floats) {
    Tensors all = in.vec();
    for (std::int64_t i : integers) all.push_back(at::scalar_tensor(i, at::kLong));
    for (double f : floats) all.push_back(at::scalar_tensor(f, at::kDouble));
    return all;
}
Tensors run_with_numbers(std::int64_t region, at::TensorList in, at::IntArrayRef integers, at::ArrayRef<double> floats) {
    return (*regions().get(region))(with_numbers(in, integers, floats));
}
// `groups`: eight numbers each, as AdamGroup has them. False: the step can't be fused, and nothing has changed.
std::tuple<bool, Tensors> step(std::int64_t id, at::TensorList in, at::IntArrayRef integers, at::ArrayRef<double> floats, at::ArrayRef<double> groups, bool wait) {
    std::vector<AdamGroup> all;
    for (std::size_t k = 0; k + 8 <= groups.size(); k += 8)
        all.push_back({groups[k], groups[k + 1], groups[k + 2], groups[k + 3], groups[k + 4], groups[k + 5] != 0, groups[k + 6] != 0, groups[k + 7] != 0});
    auto results = (*steps().get(id))(with_numbers(in, integers, floats), all, wait);
    return {results.has_value(), results ? std::move(*results) : Tensors{}};
}
// From here on this tensor counts like Python's numbers in type promotion. (Returning it would make a Python number of it.)
void mark_number(const at::Tensor& t) {
    if (t.dim() == 0) t.unsafeGetTensorImpl()->set_wrapped_number(true);
}
}  // namespace

TORCH_LIBRARY(heddle, m) {
    m.def("python(int function, Tensor[] inputs, bool captured) -> Tensor[]");
    m.def("run(int region, Tensor[] inputs) -> Tensor[]", torch::dispatch(c10::DispatchKey::CompositeImplicitAutograd, TORCH_FN(run)));
    m.def("run_with_numbers(int region, Tensor[] inputs, int[] integers, float[] floats) -> Tensor[]",
          torch::dispatch(c10::DispatchKey::CompositeImplicitAutograd, TORCH_FN(run_with_numbers)));
    m.def("step(int step, Tensor[] inputs, int[] integers, float[] floats, float[] groups, bool wait) -> (bool, Tensor[])",
          torch::dispatch(c10::DispatchKey::CompositeImplicitAutograd, TORCH_FN(step)));
    m.def("mark_number(Tensor x) -> ()", torch::dispatch(c10::DispatchKey::CompositeImplicitAutograd, TORCH_FN(mark_number)));
    m.def("decide(int of, int lhs, int rhs) -> int", [](std::int64_t of, std::int64_t lhs, std::int64_t rhs) { return decide(static_cast<Choice::Of>(of), lhs, rhs); });
    m.def("place", [](std::string where) {
        if (capturing()) set_place(std::move(where));
    });
    m.class_<Region>("Region")
        .def(torch::init<std::int64_t, std::string>())
        .def("id", [](const c10::intrusive_ptr<Region>& r) { return r->id; })
        .def("report", [](const c10::intrusive_ptr<Region>& r) { return r->report(); })
        .def("explain", [](const c10::intrusive_ptr<Region>& r) { return r->fused().explain(); })
        .def("dump", [](const c10::intrusive_ptr<Region>& r, std::string folder) { return r->fused().dump(folder); })
        .def("kernels", [](const c10::intrusive_ptr<Region>& r) { return flat(r->fused().cuda_kernels()); })  // name, text, name, text, ..
        .def("traffic", [](const c10::intrusive_ptr<Region>& r) { return text_of(r->fused().cuda_traffic()); });
    m.class_<StepOfAdam>("Step")
        .def(torch::init<std::int64_t, std::string>())
        .def("id", [](const c10::intrusive_ptr<StepOfAdam>& s) { return s->id; })
        .def("parameters", [](const c10::intrusive_ptr<StepOfAdam>& s, const Tensors& all, const std::vector<std::int64_t>& groups) { s->parameters(all, groups); })
        .def("failed", [](const c10::intrusive_ptr<StepOfAdam>& s) { return s->failed(); })
        .def("states", [](const c10::intrusive_ptr<StepOfAdam>& s) { return s->states(); })
        .def("report", [](const c10::intrusive_ptr<StepOfAdam>& s) { return s->report(); })
        .def("explain", [](const c10::intrusive_ptr<StepOfAdam>& s) { return s->step().explain(); })
        .def("kernels", [](const c10::intrusive_ptr<StepOfAdam>& s) { return flat(s->step().cuda_kernels()); })
        .def("traffic", [](const c10::intrusive_ptr<StepOfAdam>& s) { return text_of(s->step().cuda_traffic()); });
    m.class_<Saved>("Program")
        .def(torch::init<std::string, std::string>())
        .def("about", [](const c10::intrusive_ptr<Saved>& p) { return p->about(); })
        .def("parameters", [](const c10::intrusive_ptr<Saved>& p) { return Saved::tensors(p->exported.named_parameters()); })
        .def("buffers", [](const c10::intrusive_ptr<Saved>& p) { return Saved::tensors(p->exported.named_buffers()); })
        .def("fixed_argument", [](const c10::intrusive_ptr<Saved>& p, std::int64_t k) { return p->exported.arguments().at(static_cast<std::size_t>(k)).fixed; })
        .def("fixed_result", [](const c10::intrusive_ptr<Saved>& p, std::int64_t k) { return p->exported.outputs().at(static_cast<std::size_t>(k)).fixed; })
        .def("example", [](const c10::intrusive_ptr<Saved>& p) { return p->exported.example(); })
        .def("run", [](const c10::intrusive_ptr<Saved>& p, const Tensors& in) { return p->exported(in); })
        .def("eagerly", [](const c10::intrusive_ptr<Saved>& p, const Tensors& in) { return p->exported.eagerly(in); })
        .def("explain", [](const c10::intrusive_ptr<Saved>& p) { return p->exported.explain(); });
}
TORCH_LIBRARY_IMPL(heddle, FuncTorchBatchedDecomposition, m) {  // under vmap: what they are made of
    m.impl("run", TORCH_FN(run));
    m.impl("run_with_numbers", TORCH_FN(run_with_numbers));
}

}  // namespace heddle
