// What ptxas makes of the kernels of HexPlane: each compiles for every supported architecture and spills no register, and a part
// has no more kernels than planned. Prints registers and milliseconds, a line a kernel.
#include <ATen/ATen.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/utils.h>

#include <set>

#include "frontends/torch/fuse.h"
#include "models/hexplane/parts.h"
#include "runtime/nvrtc.h"

namespace heddle::testing {

namespace {
const std::vector<std::string> kArchs = {"sm_75", "sm_80", "sm_90"};

struct FusedPart {
    std::string name;
    Report report;
    std::vector<CudaText> kernels;
};
// Each part of a step, forward and backward run once. Made once for all tests.
const std::vector<FusedPart>& parts() {
    static const std::vector<FusedPart> all = [] {
        torch::manual_seed(0);
        auto model = std::make_shared<models::HexPlane>(models::hexplane_config("tiny"));
        models::thicken(*model, 0);
        std::vector<FusedPart> made;
        for (const auto& p : models::hexplane_parts(model, 0)) {
            FuseOptions options{.name = p.name, .eager_if_uncapturable = false};
            for (const auto& s : p.sizes) options.dynamic.push_back({.input = s.input, .tensor = {}, .dim = s.dim, .name = s.name});
            Fused fused = fuse(p.run, p.inputs, options);
            Tensors roots, seeds;
            for (const at::Tensor& t : fused(p.inputs))
                if (t.requires_grad()) roots.push_back(t), seeds.push_back(at::ones_like(t));
            if (!roots.empty()) torch::autograd::backward(roots, seeds);
            made.push_back({p.name, fused.report(), {}});
            for (auto& [name, text] : fused.cuda_kernels()) made.back().kernels.push_back({name, text});
        }
        return made;
    }();
    return all;
}
std::vector<std::string> names() { return {"sample_rays", "density_feature", "volume_rendering", "colour", "loss_block", "iteration"}; }

class Kernels : public ::testing::TestWithParam<std::string> {
protected:
    const FusedPart& part() const {
        for (const FusedPart& p : parts())
            if (p.name == GetParam()) return p;
        throw std::logic_error("no part " + GetParam());
    }
};
INSTANTIATE_TEST_SUITE_P(HexPlane, Kernels, ::testing::ValuesIn(names()), [](const auto& i) { return i.param; });

TEST_P(Kernels, CompileAndSpillNothing) {
    Nvrtc nvrtc;
    if (!nvrtc.available()) GTEST_SKIP() << nvrtc.why_not();
    ASSERT_FALSE(part().kernels.empty());
    double total = 0;
    std::vector<std::vector<std::shared_ptr<const Binary>>> made;
    for (const std::string& arch : kArchs) made.push_back(nvrtc.compile(part().kernels, arch));
    for (std::size_t k = 0; k < part().kernels.size(); ++k) {
        std::string line;
        for (std::size_t a = 0; a < kArchs.size(); ++a) {
            const Binary& b = *made[a][k];
            ASSERT_TRUE(b.resources) << part().kernels[k].kernel << ", " << kArchs[a] << ":\n" << b.log;
            line += fmt::format("  {} {:3} regs {:5.0f} ms{}", kArchs[a], b.resources->registers, b.milliseconds,
                                b.resources->spill_stores + b.resources->spill_loads ? fmt::format(" SPILLS {}/{} B", b.resources->spill_stores, b.resources->spill_loads) : "");
            total += b.milliseconds;
            EXPECT_EQ(b.resources->spill_stores, 0) << part().kernels[k].kernel << " on " << kArchs[a];
            EXPECT_EQ(b.resources->spill_loads, 0) << part().kernels[k].kernel << " on " << kArchs[a];
        }
        fmt::print("{:<22}{} \n", part().kernels[k].kernel, line);
    }
    fmt::print("{}: {} kernels, {:.1f} s of one core for {} architectures\n", part().name, part().kernels.size(), total / 1e3, kArchs.size());
}
TEST(KernelCounts, AreThePlanned) {
    struct Most {
        const char* part;
        int forward, backward;
    };
    for (const Most& most : {Most{"loss_block", 3, 3}, Most{"volume_rendering", 2, 2}, Most{"density_feature", 2, 2}})
        for (const FusedPart& p : parts())
            if (p.name == most.part) {
                EXPECT_LE(p.report.launches_forward, most.forward) << p.name;
                EXPECT_LE(p.report.launches_backward, most.backward) << p.name;
            }
    std::set<std::string> known;
    for (const FusedPart& p : parts()) {
        known.insert(p.name);
        fmt::print("{:<18} {} forward and {} backward kernels, {} library calls\n", p.name, p.report.launches_forward, p.report.launches_backward,
                   p.report.calls_forward + p.report.calls_backward);
    }
    auto tested = names();
    EXPECT_EQ(known, std::set<std::string>(tested.begin(), tested.end()));
}

}  // namespace
}  // namespace heddle::testing
