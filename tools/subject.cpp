// The list of models that have parts. Their tasks, which the trainer takes, are in cli_train.cpp.
#include "tools/subject.h"

#include <fmt/format.h>
#include <torch/utils.h>

#include "models/dynibar/parts.h"
#include "models/dynibar/task.h"
#include "models/error.h"
#include "models/hexplane/parts.h"
#include "models/hexplane/task.h"

namespace heddle {

Subject make_subject(const std::string& model, const std::string& scale, uint64_t seed, bool midst, at::ScalarType dtype) {
  torch::manual_seed(seed);
  if (model == "hexplane") {
    const auto m = std::make_shared<models::HexPlane>(models::hexplane_config(scale));
    if (midst) models::thicken(*m, seed);
    m->to(dtype);
    const auto task = models::hexplane_task(m);
    return {m, models::hexplane_parts(m, seed, dtype), task.groups(), task.betas, fmt::format("{} rays x {} samples", m->config().rays, m->samples())};
  }
  if (model == "dynibar") {
    const auto m = std::make_shared<models::Dynibar>(models::dynibar_config(scale));
    if (midst) models::stir(*m, seed);
    m->to(dtype);
    const auto task = models::dynibar_task(m);
    const auto& c = m->config();
    return {m, models::dynibar_parts(m, seed, dtype), task.groups(), task.betas, fmt::format("{} rays x {} samples, pictures of {} x {}", c.rays, c.samples, c.width, c.height)};
  }
  throw models::Error("unknown model", model, fmt::format("choose {}", kModels));
}

}  // namespace heddle
