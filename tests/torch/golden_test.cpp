// HexPlane's parts, captured and lowered, are what tests/golden/hexplane/ says; tests/core/golden_test.cpp goes on from there.
// HEDDLE_REWRITE_GOLDEN=1 torch_tests --gtest_filter='Golden*' writes the lowered graphs anew, and then core_tests the same the programs.
#include "tests/core/golden.h"

#include <ATen/ATen.h>
#include <torch/version.h>

#include "frontends/aten.h"
#include "frontends/capture/capture.h"
#include "ir/text.h"
#include "models/hexplane/parts.h"

namespace heddle::testing {
namespace {

class GoldenLowered : public ::testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(HexPlane, GoldenLowered, ::testing::Values("sample_rays", "density_feature", "volume_rendering", "loss_block"), [](const auto& i) { return i.param; });

TEST_P(GoldenLowered, IsWhatTheFileHolds) {
    if (TORCH_VERSION_MAJOR != 2 || TORCH_VERSION_MINOR != 11) GTEST_SKIP() << "which calls PyTorch makes is another version's matter";
    at::manual_seed(0);
    auto model = std::make_shared<models::HexPlane>(models::hexplane_config("tiny"));
    models::thicken(*model, 0);
    const auto parts = models::hexplane_parts(model, 0);
    const auto part = std::find_if(parts.begin(), parts.end(), [](const auto& p) { return p.name == GetParam(); });
    ASSERT_NE(part, parts.end());
    CaptureOptions options;
    options.name = part->name;
    for (const auto& s : part->sizes) options.dynamic.push_back({.input = s.input, .tensor = {}, .dim = s.dim, .name = s.name});
    options.host_read = HostRead::guard;
    Graph g = live(lower_aten(capture(part->run, part->inputs, options).graph));
    for (Node& n : g.nodes) n.loc.clear();
    const std::string name = "hexplane/" + part->name + ".hir", was = golden::contents(golden::kFolder / name);
    const auto at = was.find("# lowered\n") + 10, end = was.find("\n# ", at);
    golden::expect(name, was.substr(0, at) + print(g) + (end == std::string::npos ? "" : was.substr(end)));
}

}  // namespace
}  // namespace heddle::testing
