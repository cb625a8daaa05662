// The golden files of HexPlane's parts begin with what a capture of them lowers to today: core_tests go on from there without PyTorch.
// HEDDLE_REWRITE_GOLDEN=1 torch_tests --gtest_filter='GoldenCapture*', then the same of core_tests with 'Golden*', writes them anew.
#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/utils.h>

#include "frontends/torch/fuse.h"
#include "ir/text.h"
#include "models/hexplane/parts.h"
#include "tests/core/golden.h"

namespace heddle::testing {
namespace {

Graph unlocated(Graph g) {
    for (Node& n : g.nodes) n.loc.clear();
    return g;
}

TEST(GoldenCapture, OfHexPlanesParts) {
    torch::manual_seed(0);
    auto model = std::make_shared<models::HexPlane>(models::hexplane_config("tiny"));
    models::thicken(*model, 0);
    const golden::fs::path dumps = golden::fs::path(HEDDLE_BUILD) / "golden";
    int compared = 0;
    for (const auto& p : models::hexplane_parts(model, 0)) {
        const std::string name = "hexplane/" + p.name + ".hir";
        if (!golden::fs::exists(golden::kFolder / name)) continue;  // of library calls for the most part, or of all the others
        SCOPED_TRACE(name);
        FuseOptions options{.name = p.name, .eager_if_uncapturable = false};
        for (const auto& s : p.sizes) options.dynamic.push_back({.input = s.input, .tensor = {}, .dim = s.dim, .name = s.name});
        fuse(p.run, p.inputs, options).dump((dumps / p.name).string());
        const Graph now = unlocated(parse(golden::contents(dumps / p.name / "01-lower_aten.hir")));
        const std::string was = golden::contents(golden::kFolder / name), title = "# lowered\n";
        const std::string lowered = golden::section(was, "lowered");
        std::string all = was;
        all.replace(was.find(title) + title.size(), lowered.size(), print(now));
        golden::expect(name, all);
        ++compared;
    }
    EXPECT_EQ(compared, static_cast<int>(std::distance(golden::fs::directory_iterator(golden::kFolder / "hexplane"), golden::fs::directory_iterator())));
}

}  // namespace
}  // namespace heddle::testing
