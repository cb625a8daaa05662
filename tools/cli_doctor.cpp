// heddle doctor: what this machine has of what heddle uses, where it was found, and what to do about what is missing.
// Law: fails only where not even the CPU backend works; a line ends with what to do or says nothing of it.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/Version.h>
#include <dlfcn.h>
#include <fmt/format.h>
#include <torch/csrc/autograd/autograd.h>

#include <chrono>
#include <cstdio>
#include <regex>

#include "frontends/torch/fuse.h"
#include "models/error.h"
#include "runtime/cpu_backend.h"
#include "runtime/device.h"
#include "runtime/disk_cache.h"
#include "runtime/nvrtc.h"
#include "tools/cli.h"

namespace heddle {
namespace {

using Clock = std::chrono::steady_clock;

void line(const char* mark, const std::string& what, const std::string& found, const std::string& todo = "") {
    std::printf("%-8s %-12s %s\n", mark, what.c_str(), found.c_str());
    if (!todo.empty()) std::printf("%-8s %-12s -> %s\n", "", "", todo.c_str());
}
void ok(const std::string& what, const std::string& found) { line("ok", what, found); }
void missing(const std::string& what, const std::string& why, const std::string& todo) {
    line("missing", what, why, todo);
}

// The version of the library that runs, which may be another than that of the headers.
std::string torch_version() {
    const std::string config = at::show_config();
    std::smatch m;
    return std::regex_search(config, m, std::regex("TORCH_VERSION=([\\w.+]+)")) ? m[1].str() : "of unknown version";
}
std::string file_of(const void* symbol) {
    Dl_info info{};
    return dladdr(symbol, &info) && info.dli_fname ? info.dli_fname : "?";
}

const char* what_to_do(const std::string& tool) {
    if (tool == "nvrtc")
        return "install PyTorch's CUDA wheel in .venv, or set HEDDLE_NVRTC; needed for CUDA kernels only";
    if (tool == "ptxas" || tool == "cuobjdump")
        return "comes with the triton wheel or a CUDA toolkit; needed for looking at kernels only";
    if (tool == "libcuda") return "install NVIDIA's driver; needed to run on a GPU only";
    return "apt-get install llvm-19-dev, then build again; needed for the CPU backend";
}

Tensors example(const at::Tensor& x, const at::Tensor& w) {
    return {(at::sigmoid(x * w) * x.exp()).sum(-1).log1p(), ((x - w).pow(2) + 1e-6).sqrt().mean()};
}
// Values and gradients against eager on a device; the largest relative difference.
double check(const Fused& fused, at::Device device) {
    const auto options = at::TensorOptions().device(device);
    const auto x = at::linspace(-2, 2, 37 * 24, options).reshape({37, 24}).requires_grad_(),
               w = at::linspace(0, 1, 24, options).requires_grad_();
    auto run = [&](const Callable& f) {
        Tensors all = f({x, w});
        const auto grads = torch::autograd::grad({all[0].sum() + all[1]}, {x, w});
        all.insert(all.end(), grads.begin(), grads.end());
        return all;
    };
    const auto got = run([&](const Tensors&in) { return fused(in); }),
               want = run([](const Tensors&in) { return example(in[0], in[1]); });
    double worst = 0;
    for (size_t k = 0; k < want.size(); ++k)
        worst = std::max(worst, ((got[k] - want[k]).norm() / want[k].norm()).item<double>());
    return worst;
}
Fused fuse_example(at::Device device) {
    const auto options = at::TensorOptions().device(device);
    return fuse([](const Tensors& in) { return example(in[0], in[1]); },
                {at::rand({5, 24}, options).requires_grad_(), at::rand({24}, options).requires_grad_()},
                {.dynamic = {{.input = 0, .tensor = {}, .dim = 0, .name = "B"}},
                 .name = "doctor",
                 .eager_if_uncapturable = false});
}
// Prints its line; true if it holds.
bool self_test(const std::string& what, const std::function<std::string()>& f) {
    const auto start = Clock::now();
    try {
        const std::string found = f();
        ok(what, fmt::format("{}; {:.0f} ms", found,
                             std::chrono::duration<double, std::milli>(Clock::now() - start).count()));
        return true;
    } catch (const std::exception& e) {
        line("FAILED", what, e.what());
        return false;
    }
}
std::string equal_to_eager(const Fused& fused, at::Device device) {
    const double error = check(fused, device);
    if (!(error < 1e-5)) throw Error(fmt::format("fused differs from eager by {:.1e} (relative)", error));
    return fmt::format("{} forward and {} backward kernels equal eager PyTorch, relative difference {:.1e}",
                       fused.report().launches_forward, fused.report().launches_backward, error);
}

void run() {
    ok("torch", fmt::format("{} ({}), {}", torch_version(), file_of(reinterpret_cast<const void*>(&at::show_config)),
                            at::hasCUDA() ? "with CUDA" : "sees no CUDA device"));
    for (const Tool& t : find_tools()) {
        if (t.path.empty()) missing(t.name, t.version, what_to_do(t.name));
        else ok(t.name, t.version.empty() ? t.path : fmt::format("{} ({})", t.version, t.path));
    }
    const bool gpu = cuda_available();
    if (!gpu)
        missing("device", cuda_why_not(),
                "nothing, if you want the CPU; kernels are still compiled for CUDA by heddle dump");
    for (int k = 0; k < device_count(); ++k) {
        const DeviceInfo d = device_info(k);
        ok("device",
           fmt::format("{}: {}, {}, {} multiprocessors, {} KiB shared memory a block, driver {}.{}", k, d.name, d.arch,
                       d.multiprocessors, d.shared_per_block / 1024, d.driver / 1000, d.driver % 1000 / 10));
    }
    std::string why_not;
    CpuBackend* cpu = load_cpu_backend(&why_not);
    cpu ? ok("CPU backend", cpu->describe()) : missing("CPU backend", why_not, what_to_do("LLVM 19"));
    ok("threads", fmt::format("{} of PyTorch's intra-op pool, {}", at::get_num_threads(), at::get_cpu_capability()));
    if (const DiskCache* cache = disk_cache()) ok("disk cache", cache->folder());
    else line("off", "disk cache", "binaries are kept in memory, for the life of the process");
    if (const char* chosen = std::getenv("HEDDLE_NVRTC")) ok("variable", std::string("HEDDLE_NVRTC=") + chosen);
    if (const char* chosen = std::getenv("HEDDLE_LLVM_BACKEND"))
        ok("variable", std::string("HEDDLE_LLVM_BACKEND=") + chosen);
    if (const char* chosen = std::getenv("HEDDLE_CACHE")) ok("variable", std::string("HEDDLE_CACHE=") + chosen);

    const bool works = cpu && self_test("test CPU", [] { return equal_to_eager(fuse_example(at::kCPU), at::kCPU); });
    if (!find_tools().front().path.empty() && works)
        self_test("test NVRTC", [] {
            Nvrtc nvrtc;
            int kernels = 0, registers = 0;
            const Fused fused = fuse_example(at::kCPU);
            for (const auto& [name, text] : fused.cuda_kernels())
                for (const char* arch : {"sm_75", "sm_80", "sm_90"}) {
                    const auto binary = nvrtc.compile(CudaText{name, text}, arch);
                    ++kernels, registers = std::max(registers, binary->resources ? binary->resources->registers : 0);
                }
            return fmt::format("{} kernels compile for sm_75, sm_80 and sm_90, {} registers at most", kernels / 3,
                               registers);
        });
    if (gpu && at::hasCUDA())
        self_test("test CUDA", [] {
            const at::Device device(at::kCUDA, 0);
            return equal_to_eager(fuse_example(device), device);
        });
    if (!works) throw models::Error("doctor", "the CPU backend doesn't run here", "see the lines above");
}

}  // namespace

void add_doctor(CLI::App& app) {
    app.add_subcommand("doctor", "Say what was found on this machine, and test it")->callback(run);
}

}  // namespace heddle
