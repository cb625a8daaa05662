// A whole model through the front: HexPlane's loss captured, lowered and interpreted equals eager, values and all gradients.
#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "frontends/aten.h"
#include "frontends/capture/capture.h"
#include "frontends/torch/host.h"
#include "frontends/torch/ops_host.h"
#include "ir/eval.h"
#include "ir/verify.h"
#include "models/hexplane/hexplane.h"
#include "ir/text.h"
#include "passes/pipeline.h"
#include "runtime/executable.h"

namespace heddle::testing {
namespace {
using Tensors = std::vector<at::Tensor>;

Tensor plain(const at::Tensor& t) {
    at::Tensor d = t.detach().to(at::kDouble).contiguous();
    return {dtype_of(t.scalar_type()), t.sizes().vec(), {d.data_ptr<double>(), d.data_ptr<double>() + d.numel()}};
}
at::Tensor torch_of(const Tensor& t) { return at::from_blob(const_cast<double*>(t.data.data()), t.sizes, at::kDouble).clone().to(scalar_type(t.dtype)); }
std::vector<Tensor> library(const Node& n, const std::vector<Tensor>& in, Sizes& sizes) {
    Tensors operands;
    for (const auto& t : in) operands.push_back(torch_of(t));
    if (n.text("name") == "heddle.guard") {
        EXPECT_EQ(operands[0].item<bool>(), n.flag("value"));
        return {in[0]};
    }
    std::vector<Tensor> out;
    for (auto& t : run_call(n, operands, sizes)) out.push_back(plain(t));
    return out;
}
Tensors batch(std::int64_t n, std::int64_t samples) {
    at::Tensor origin = at::randn({n, 3}, at::kDouble);
    origin = 4 * origin / origin.norm(2, -1, true);
    at::Tensor direction = at::rand({n, 3}, at::kDouble) - 0.5 - origin;
    auto scalar = [](double v) { return at::scalar_tensor(v, at::kDouble); };
    return {at::cat({origin, direction / direction.norm(2, -1, true)}, 1), at::rand({n, 3}, at::kDouble), at::rand({n, 1}, at::kDouble) * 2 - 1, scalar(1e-2), scalar(2e-2), at::rand({1, samples}, at::kDouble)};
}
void check(bool emptiness) {
    at::manual_seed(1);
    models::HexPlaneConfig config = models::hexplane_config("tiny");
    config.grid_first = 6, config.time_first = 4, config.density_shift = -1;  // dense enough for colours
    models::HexPlane model(config);
    model.to(at::kDouble);
    if (emptiness) model.set_emptiness((at::rand({1, 1, 6, 6, 6}, at::kDouble) > 0.3).to(at::kDouble));
    Callable f = [&](const Tensors& in) { return model.loss(in); };
    CaptureOptions options;
    for (int i : {0, 1, 2}) options.dynamic.push_back({.input = i, .tensor = {}, .dim = 0, .name = "B"});
    options.host_read = HostRead::guard;
    Captured c = capture(f, batch(5, model.samples()), options);
    EXPECT_EQ(c.guards, 2u);
    EXPECT_EQ(c.implicit.size(), emptiness ? 23u : 22u);
    Graph lowered = lower_aten(c.graph);
    verify(lowered, "lower_aten");
    for (const auto& name : unlowered(lowered)) EXPECT_TRUE(name == "heddle.guard" || name == "aten.nonzero.default") << name;

    Tensors in = batch(4, model.samples()), all = in, eager = f(in), wanted;
    all.insert(all.end(), c.implicit.begin(), c.implicit.end());
    std::vector<char> wants;
    std::vector<Tensor> arguments;
    for (const auto& t : all) wants.push_back(t.requires_grad()), arguments.push_back(plain(t));
    lowered.outputs.resize(1);
    Joint joint = differentiate(live(lowered), wants);
    arguments.push_back(plain(at::ones({}, at::kDouble)));
    auto got = evaluate(joint.graph, arguments, library);
    EXPECT_NEAR(got[0].data[0], eager[0].item<double>(), 1e-12);
    for (std::size_t i = 0; i < all.size(); ++i)
        if (wants[i]) wanted.push_back(all[i]);
    auto want = torch::autograd::grad({eager[0]}, wanted, {}, {}, false, true);
    std::size_t k = 0;
    for (std::size_t i = 0; i < all.size(); ++i) {
        if (!wants[i]) continue;
        ASSERT_EQ(joint.gradients[i] >= 0, want[k].defined()) << i;
        if (want[k].defined()) {
            EXPECT_TRUE(at::allclose(torch_of(got[static_cast<std::size_t>(joint.gradients[i])]), want[k], 1e-8, 1e-10)) << "input " << i;
        }
        ++k;
    }

    // Both ways in one plan, compiled: no library call but products; bounded, no step that waits, whatever room is given.
    const Graph whole = live(lower_aten(c.graph));
    const Joint both = heddle::joint(whole, wants);
    auto host = torch_host(at::kCPU);
    for (bool bounded : {false, true}) {
        const Executable e(plan(both.graph, {}, {.bounded = bounded}));
        const Plan& p = e.plan();
        std::size_t reads = 0, calls = 0;
        for (const Step& s : p.program.steps) {
            reads += !s.reads.empty(), calls += s.call >= 0;
            EXPECT_TRUE(s.call < 0 || p.program.graph[s.call].is(Op::dot)) << print(p.program);
        }
        std::printf("  %s: %zu kernels, %zu products, %zu host reads\n", bounded ? "bounded" : "exact", p.program.launches.size(), calls, reads);
        EXPECT_EQ(reads, bounded ? 0u : emptiness ? 3u : 2u);
        EXPECT_EQ(p.bounds.size(), bounded ? 2u : 0u);  // all that is inside isn't empty here: two masks have as many rows
        for (std::int64_t room : {std::int64_t{0}, std::int64_t{4} * model.samples() - 1}) {
            std::vector<Array> arrays;
            for (const auto& t : all) arrays.push_back(array_of(t, at::kCPU, "input", arrays.size()));
            for (std::size_t i = 0; i < both.seeds.size(); ++i)
                if (both.seeds[i] >= 0) arrays.push_back(array_of(i == 0 ? at::ones({}, at::kDouble) : at::zeros({}, at::kDouble), at::kCPU, "seed", i));
            Sizes sizes;
            for (const Bound& b : p.bounds)
                if (room > 0) sizes[b.capacity] = room;
            const auto out = e.run(*host, arrays, sizes);
            EXPECT_NEAR(tensor_of(out[0]).item<double>(), eager[0].item<double>(), 1e-12);
            if (bounded) {
                EXPECT_EQ(tensor_of(out[static_cast<std::size_t>(p.check)])[0].item<std::int64_t>(), 0);
            }
            std::size_t k = 0;
            for (std::size_t i = 0; i < all.size(); ++i) {
                if (!wants[i]) continue;
                if (want[k].defined()) {
                    EXPECT_TRUE(at::allclose(tensor_of(out[static_cast<std::size_t>(both.gradients[i])]), want[k], 1e-8, 1e-10)) << "input " << i << ", bounded " << bounded;
                }
                ++k;
            }
        }
    }
}
TEST(HexPlaneCapture, LossEqualsEager) { check(false); }
TEST(HexPlaneCapture, LossWithEmptinessEqualsEager) { check(true); }
}  // namespace
}  // namespace heddle::testing
