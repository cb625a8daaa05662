// heddle dump MODEL: what becomes of a model's step at every stage: graphs, programs, loops, LLVM IR, CUDA text.
#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/utils.h>

#include <cstdio>

#include "frontends/torch/fuse.h"
#include "models/error.h"
#include "models/hexplane/parts.h"
#include "tools/cli.h"

namespace heddle {
namespace {

struct DumpCommand {
  std::string model, scale = "tiny", out = "dump", part;
  bool thick = true, explain = false;
};

void run(const DumpCommand& c) {
  if (c.model != "hexplane") throw models::Error("unknown model", c.model, "choose hexplane");
  torch::manual_seed(0);
  auto model = std::make_shared<models::HexPlane>(models::hexplane_config(c.scale));
  if (c.thick) models::thicken(*model, 0);
  bool found = false;
  for (const auto& p : models::hexplane_parts(model, 0)) {
    if (!c.part.empty() && p.name != c.part) continue;
    found = true;
    FuseOptions options;
    options.name = p.name;
    options.eager_if_uncapturable = false;
    for (const auto& s : p.sizes) options.dynamic.push_back({.input = s.input, .tensor = {}, .dim = s.dim, .name = s.name});
    const Fused fused = fuse(p.run, p.inputs, options);
    const auto files = fused.dump(c.out + "/" + p.name);
    std::printf("%s: %zu files in %s/%s\n", p.name.c_str(), files.size(), c.out.c_str(), p.name.c_str());
    if (c.explain) std::printf("%s", fused.explain().c_str());
  }
  if (!found) throw models::Error("unknown part", c.part, "leave --part out to dump all");
}

}  // namespace

void add_dump(CLI::App& app) {
  auto c = std::make_shared<DumpCommand>();
  auto* sub = app.add_subcommand("dump", "Write every stage of a model's parts as readable text");
  sub->add_option("model", c->model, "hexplane")->required();
  sub->add_option("--out", c->out, "Folder")->capture_default_str();
  sub->add_option("--part", c->part, "One part: sample_rays, density_feature, volume_rendering, colour, loss_block, iteration");
  sub->add_option("--scale", c->scale, "full, demo, tiny or a number up to 1")->capture_default_str();
  sub->add_flag("--explain", c->explain, "Also print why each value did or didn't fuse");
  sub->add_flag("!--thin", c->thick, "Planes as initialised");
  sub->callback([c] { run(*c); });
}

}  // namespace heddle
