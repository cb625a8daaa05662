// heddle dump MODEL: what becomes of a model's step at every stage: graphs, programs, loops, LLVM IR, CUDA text and what ptxas makes of it.
#include <ATen/ATen.h>
#include <fmt/format.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/jit/serialization/pickle.h>
#include <torch/utils.h>

#include <cstdio>

#include "frontends/torch/fuse.h"
#include "models/dynibar/parts.h"
#include "models/error.h"
#include "models/files.h"
#include "models/hexplane/parts.h"
#include "runtime/nvrtc.h"
#include "tools/cli.h"
#include "tools/subject.h"

namespace heddle {
namespace {

struct DumpCommand {
    std::string model, scale = "tiny", out = "dump", part, values;
    bool thick = true, explain = false, cuda = false;
};

constexpr const char* kArchs[] = {"sm_75", "sm_80", "sm_90"};

// resources.txt, and a cubin per kernel for the newest of the architectures.
size_t write_resources(Nvrtc& nvrtc, const std::vector<std::pair<std::string, std::string>>& kernels,
                       const std::string& folder) {
    std::vector<CudaText> texts;
    for (const auto& [name, text] : kernels) texts.push_back({name, text});
    std::string table = fmt::format(
        "# Kernels as NVRTC {} compiles them. Bytes, but for registers; ms of one core.\n{:<28} {:<6} {:>9} {:>7} "
        "{:>7} {:>7} {:>7} {:>8} {:>7}\n",
        nvrtc.version(), "kernel", "arch", "registers", "spilled", "loaded", "stack", "shared", "cubin", "ms");
    size_t files = 1;
    for (const std::string arch : kArchs) {
        const auto binaries = nvrtc.compile(texts, arch);
        double total = 0;
        for (size_t k = 0; k < texts.size(); ++k) {
            const Resources r = binaries[k]->resources.value_or(Resources{});
            total += binaries[k]->milliseconds;
            table += fmt::format("{:<28} {:<6} {:>9} {:>7} {:>7} {:>7} {:>7} {:>8} {:>7.0f}\n", texts[k].kernel, arch,
                                 r.registers, r.spill_stores, r.spill_loads, r.stack, r.shared,
                                 binaries[k]->image.size(), binaries[k]->milliseconds);
            if (arch != kArchs[2]) continue;
            models::replace_file(folder + "/" + texts[k].kernel + "." + arch + ".cubin", binaries[k]->image);
            ++files;
        }
        table += fmt::format("{:<28} {:<6} {:>63.0f}\n", "all", arch, total);
    }
    models::replace_file(folder + "/resources.txt", table);
    return files;
}

// What another program of the model is compared with, in float64: parameters, a step's inputs, and for each form of a step its losses and the
// gradients of the first. As torch.load reads it; a gradient that is None is missing.
struct Values {
    c10::impl::GenericDict all{c10::StringType::get(), c10::TensorType::get()};

    void model(const torch::nn::Module& model, const std::vector<at::Tensor>& inputs) {
        for (const auto& p : model.named_parameters()) all.insert("parameter." + p.key(), p.value().detach());
        for (size_t k = 0; k < inputs.size(); ++k) all.insert(fmt::format("input.{}", k), inputs[k]);
    }
    void form(const std::string& name, const torch::nn::Module& model, const std::vector<at::Tensor>& losses) {
        for (size_t k = 0; k < losses.size(); ++k) all.insert(fmt::format("{}.loss.{}", name, k), losses[k].detach());
        const auto parameters = model.named_parameters();
        const auto gradients = torch::autograd::grad({losses[0]}, parameters.values(), {}, false, false, true);
        for (size_t k = 0; k < gradients.size(); ++k)
            if (gradients[k].defined()) all.insert(name + ".gradient." + parameters[k].key(), gradients[k]);
    }
};

// Without an emptiness mask, and with one that leaves half of the cells.
void hexplane_values(const DumpCommand& c, Values& values) {
    auto model = std::make_shared<models::HexPlane>(models::hexplane_config(c.scale));
    if (c.thick) models::thicken(*model, 0);
    model->to(at::kDouble);
    auto inputs = models::hexplane_step_inputs(*model, 0, at::kDouble);
    inputs.push_back(at::rand({1, model->samples()}, at::kDouble));
    values.model(*model, inputs);
    const int64_t r = model->grid();
    const auto emptiness = (at::rand({1, 1, r, r, r}, at::kDouble) > 0.5).to(at::kDouble);
    values.all.insert("emptiness", emptiness);
    values.form("whole", *model, model->loss(inputs));
    model->set_emptiness(emptiness);
    values.form("masked", *model, model->loss(inputs));
}

// In each phase but `decayed`, whose losses `sparse` has too.
void dynibar_values(const DumpCommand& c, Values& values) {
    auto model = std::make_shared<models::Dynibar>(models::dynibar_config(c.scale));
    if (c.thick) models::stir(*model, 0);
    model->to(at::kDouble);
    const auto inputs = models::dynibar_step_inputs(model->config(), 0, at::kDouble).list();
    values.model(*model, inputs);
    for (const auto& [name, phase] : {std::pair{"bootstrap", models::Phase::bootstrap}, {"moving", models::Phase::moving}, {"sparse", models::Phase::sparse}})
        values.form(name, *model, model->loss(inputs, phase));
}

void write_values(const DumpCommand& c) {
    torch::manual_seed(0);
    Values values;
    if (c.model == "hexplane") hexplane_values(c, values);
    else if (c.model == "dynibar") dynibar_values(c, values);
    else throw models::Error("unknown model", c.model, fmt::format("choose {}", kModels));
    const auto& all = values.all;
    const auto bytes = torch::jit::pickle_save(all);
    models::replace_file(c.values, std::string(bytes.begin(), bytes.end()));
    std::printf("%zu tensors in %s\n", all.size(), c.values.c_str());
}

void run(const DumpCommand& c) {
    if (!c.values.empty()) return write_values(c);
    const auto subject = make_subject(c.model, c.scale, {.midst = c.thick});
    std::unique_ptr<Nvrtc> nvrtc;
    if (c.cuda) {
        nvrtc = std::make_unique<Nvrtc>();
        if (!nvrtc->available())
            throw models::Error("--cuda", nvrtc->why_not(), "leave --cuda out to dump without compiling for CUDA");
    }
    bool found = false;
    for (const auto& p : subject.parts) {
        if (!c.part.empty() && p.name != c.part) continue;
        found = true;
        FuseOptions options;
        options.name = p.name;
        options.eager_if_uncapturable = false;
        for (const auto& s : p.sizes)
            options.dynamic.push_back({.input = s.input, .tensor = {}, .dim = s.dim, .name = s.name});
        const Fused fused = fuse(p.run, p.inputs, options);
        const std::string folder = c.out + "/" + p.name;
        size_t files = fused.dump(folder).size();
        if (nvrtc) files += write_resources(*nvrtc, fused.cuda_kernels(), folder);
        std::printf("%s: %zu files in %s\n", p.name.c_str(), files, folder.c_str());
        if (c.explain) std::printf("%s", fused.explain().c_str());
    }
    if (!found) throw models::Error("unknown part", c.part, "leave --part out to dump all");
}

}  // namespace

void add_dump(CLI::App& app) {
    auto c = std::make_shared<DumpCommand>();
    auto* sub = app.add_subcommand("dump", "Write every stage of a model's parts as readable text");
    sub->add_option("model", c->model, kModels)->required();
    sub->add_option("--out", c->out, "Folder")->capture_default_str();
    sub->add_option("--part", c->part, "One part, by the name of its folder (default: all)");
    sub->add_option("--scale", c->scale, kScales)->capture_default_str();
    sub->add_flag(
        "--cuda", c->cuda,
        "Also compile the CUDA text: cubin, PTX, and resources.txt with registers, spills and times per kernel");
    sub->add_option("--values", c->values,
                    "Write no stages, but parameters, inputs, losses and gradients in float64, into this file (torch.load)");
    sub->add_flag("--explain", c->explain, "Also print why each value did or didn't fuse");
    sub->add_flag("!--thin", c->thick, "The model as initialised");
    sub->callback([c] { run(*c); });
}

}  // namespace heddle
