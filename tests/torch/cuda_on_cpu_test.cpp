// HexPlane's kernels as CUDA text on the CPU, every access checked: parts of a step, forward and backward, equal LLVM's results and eager's.
#include <ATen/ATen.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "frontends/aten.h"
#include "frontends/capture/capture.h"
#include "frontends/torch/host.h"
#include "ir/verify.h"
#include "models/hexplane/parts.h"
#include "passes/pipeline.h"
#include "runtime/executable.h"
#include "tests/cuda_on_cpu/launcher.h"

namespace heddle::testing {
namespace {

using Tensors = std::vector<at::Tensor>;

Tensors run(const Executable& e, const Tensors& in, const Sizes& sizes) {
    auto host = torch_host(at::kCPU);
    std::vector<Array> arrays;
    for (std::size_t k = 0; k < in.size(); ++k) arrays.push_back(array_of(in[k], at::kCPU, "input", k));
    Sizes bound = sizes;
    Tensors out;
    for (const Array& a : e.run(*host, arrays, bound)) out.push_back(tensor_of(a));
    return out;
}
void expect_near(const at::Tensor& want, const at::Tensor& got, double tolerance, const std::string& what) {
    ASSERT_EQ(want.sizes(), got.sizes()) << what;
    if (want.numel() == 0) return;
    at::Tensor a = want.to(at::kDouble), b = got.to(at::kDouble);
    double scale = std::max(1e-6, a.abs().max().item<double>());
    EXPECT_LE((a - b).abs().max().item<double>(), tolerance * scale) << what;
}

class CudaOnCpu : public ::testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(HexPlane, CudaOnCpu, ::testing::Values("sample_rays", "density_feature", "volume_rendering", "colour", "loss_block", "iteration"), [](const auto& i) { return i.param; });

TEST_P(CudaOnCpu, EqualsLlvmAndEager) {
    at::manual_seed(0);
    auto model = std::make_shared<models::HexPlane>(models::hexplane_config("tiny"));
    models::thicken(*model, 0);
    const auto parts = models::hexplane_parts(model, 0);
    const auto part = std::find_if(parts.begin(), parts.end(), [](const auto& p) { return p.name == GetParam(); });
    ASSERT_NE(part, parts.end());
    CaptureOptions options;
    for (const auto& s : part->sizes) options.dynamic.push_back({.input = s.input, .tensor = {}, .dim = s.dim, .name = s.name});
    options.host_read = HostRead::guard;
    Captured c = capture(part->run, part->inputs, options);
    Tensors in = part->inputs;
    in.insert(in.end(), c.implicit.begin(), c.implicit.end());
    std::vector<char> wants;
    for (const auto& t : in) wants.push_back(t.requires_grad());
    at::manual_seed(1);
    Tensors eager = part->run(part->inputs), differentiable, seeds;
    Graph graph = lower_aten(c.graph);
    graph.outputs.resize(eager.size());
    graph.name = part->name;
    Sizes sizes = c.rows;
    for (const auto& s : part->sizes) sizes[s.name] = part->inputs[static_cast<std::size_t>(s.input)].size(s.dim);
    struct Directions {
        Pair pair;
        Plan forward, backward;
    };
    auto planned = [&](Machine machine) {
        Directions d{forward_and_backward(live(graph), wants, {.sizes = sizes, .rows = c.rows, .positive = {}, .machine = machine}), {}, {}};
        d.forward = plan(d.pair.split.forward, {}, {.machine = machine});
        if (d.pair.has_backward) d.backward = plan(d.pair.split.backward, {}, {.machine = machine});
        return d;
    };
    const Directions on_cpu = planned(Machine::cpu), on_cuda = planned(Machine::cuda);
    if (part->name == "iteration") {  // on a GPU one mask is computed at all places, of the other one rows are found: they go through products
        EXPECT_EQ(std::count_if(on_cuda.pair.masks.begin(), on_cuda.pair.masks.end(), [](const std::string& note) { return note.find(": dense: ") != std::string::npos; }), 1);
        EXPECT_EQ(on_cuda.pair.masks.size(), 2u);
    }
    cuda_on_cpu::compile_ahead({&on_cuda.forward, &on_cuda.backward});
    Tensors detached, first, gradients;
    for (const auto& t : in) detached.push_back(t.detach());
    auto before = cuda_on_cpu::count();
    for (const Target& target : {Target{}, cuda_on_cpu::target()}) {
        const bool cuda = target.launcher != nullptr;
        const auto& [pair, forward, backward] = cuda ? on_cuda : on_cpu;
        SCOPED_TRACE(cuda ? "CUDA on the CPU" : "LLVM");
        at::manual_seed(1);
        Tensors out = run(Executable(forward, target), detached, {});
        for (std::size_t k = 0; k < eager.size(); ++k) expect_near(eager[k].detach(), out[k], 2e-4, fmt::format("output {} against eager", k));
        for (std::size_t k = 0; cuda && k < eager.size(); ++k) expect_near(first[k], out[k], 2e-5, fmt::format("value {} against LLVM", k));
        if (!cuda) first = out;
        if (!pair.has_backward) continue;
        if (seeds.empty())
            for (const auto& t : eager) seeds.push_back(t.is_floating_point() ? at::randn_like(t.detach()) : at::zeros_like(t));
        Tensors arguments;
        for (const auto& s : pair.split.backward_inputs) {
            auto i = static_cast<std::size_t>(s.index);
            arguments.push_back(s.from == Split::Source::From::input ? detached[i] : s.from == Split::Source::From::saved ? out[eager.size() + i] : seeds[i]);
        }
        Tensors grads = run(Executable(backward, target), arguments, {});
        Tensors roots, ways, leaves;
        for (std::size_t k = 0; k < eager.size(); ++k)
            if (eager[k].requires_grad()) roots.push_back(eager[k]), ways.push_back(seeds[k]);
        for (const auto& t : in)
            if (t.requires_grad()) leaves.push_back(t);
        Tensors want = torch::autograd::grad(roots, leaves, ways, true, false, true);
        for (std::size_t i = 0, k = 0; i < in.size(); ++i) {
            if (!wants[i]) continue;
            const at::Tensor& expected = want[k++];
            ASSERT_EQ(pair.gradients[i] >= 0, expected.defined()) << "input " << i;
            if (expected.defined()) expect_near(expected, grads[static_cast<std::size_t>(pair.gradients[i])], 1e-3, fmt::format("gradient {} against eager", i));
        }
        for (std::size_t k = 0; cuda && k < gradients.size(); ++k) expect_near(gradients[k], grads[k], 1e-4, fmt::format("gradient {} against LLVM", k));
        gradients = grads;
    }
    auto after = cuda_on_cpu::count();
    fmt::print("{}: {} kernels in {} runs\n", part->name, after.kernels - before.kernels, after.runs - before.runs);
    EXPECT_GT(after.kernels, before.kernels);
}

}  // namespace
}  // namespace heddle::testing
