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
#include "frontends/torch/fuse.h"

namespace heddle {
namespace {

Tensors call_python(std::int64_t function, const Tensors& in) {
    static auto op = c10::Dispatcher::singleton().findSchemaOrThrow("heddle::python", "").typed<Tensors(std::int64_t, at::TensorList, bool)>();
    return op.call(function, in, capturing());
}

// Regions by number: what the hot path takes. A number is never used again.
class Regions {
public:
    std::int64_t add(Fused f) {
        std::unique_lock lock(mutex_);
        all_.push_back(std::make_shared<Fused>(std::move(f)));
        return static_cast<std::int64_t>(all_.size()) - 1;
    }
    std::shared_ptr<Fused> get(std::int64_t id) {
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
    std::vector<std::shared_ptr<Fused>> all_;
};
Regions& regions() {
    static auto* r = new Regions;  // outlives every tensor with a gradient
    return *r;
}

// A fused Python function.
struct Region final : torch::CustomClassHolder {
    std::int64_t id;
    // options: {"name": .., "dynamic": [{"input": 0, "dim": 0, "name": "N"}, ..], "earlier": [[[4, 3], [3]], ..], "recapture": .., "deterministic": .., "strict": ..}
    Region(std::int64_t function, const std::string& options) {
        auto j = nlohmann::json::parse(options);
        FuseOptions o;
        o.name = j.value("name", "f");
        o.recapture = j.value("recapture", true);
        o.deterministic = j.value("deterministic", false);
        o.eager_if_uncapturable = !j.value("strict", false);
        o.earlier = j.value("earlier", o.earlier);
        for (const auto& v : j.value("dynamic", nlohmann::json::array())) o.dynamic.push_back({v.at("input"), {}, v.at("dim"), v.at("name")});
        id = regions().add(fuse([function](const Tensors& in) { return call_python(function, in); }, std::move(o)));
    }
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
    std::vector<std::string> kernels() const {  // name, text, name, text, ..
        std::vector<std::string> all;
        for (auto& [name, text] : fused().cuda_kernels()) all.push_back(std::move(name)), all.push_back(std::move(text));
        return all;
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
Tensors run_with_numbers(std::int64_t region, at::TensorList in, at::IntArrayRef integers, at::ArrayRef<double> floats) {
    Tensors all = in.vec();
    for (std::int64_t i : integers) all.push_back(at::scalar_tensor(i, at::kLong));
    for (double f : floats) all.push_back(at::scalar_tensor(f, at::kDouble));
    return (*regions().get(region))(all);
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
        .def("kernels", [](const c10::intrusive_ptr<Region>& r) { return r->kernels(); });
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
