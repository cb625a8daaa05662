// The list of models that have parts.
#include "tools/subject.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <fmt/format.h>
#include <torch/utils.h>

#include "models/dynibar/parts.h"
#include "models/dynibar/task.h"
#include "models/error.h"
#include "models/hexplane/parts.h"
#include "models/hexplane/task.h"

namespace heddle {
namespace {

Subject hexplane(const std::string& scale, const SubjectOptions& o) {
  auto config = models::hexplane_config(scale);
  if (o.iterations > 0) config.iterations = o.iterations;
  const auto m = std::make_shared<models::HexPlane>(config);
  if (o.midst) models::thicken(*m, o.seed);
  m->to(o.dtype);
  auto inputs = [m, o](int64_t iteration) {
    const auto seed = o.seed + static_cast<uint64_t>(iteration);
    auto in = models::hexplane_step_inputs(*m, seed, o.dtype);
    in.push_back(at::rand({1, m->samples()}, at::make_generator<at::CPUGeneratorImpl>(seed + 1)).to(o.dtype));
    return in;
  };
  return {m, models::hexplane_parts(m, o.seed, o.dtype), models::hexplane_task(m), inputs, fmt::format("{} rays x {} samples", config.rays, m->samples())};
}

Subject dynibar(const std::string& scale, const SubjectOptions& o) {
  auto config = models::dynibar_config(scale);
  if (o.iterations > 0) config.iterations = o.iterations;
  const auto m = std::make_shared<models::Dynibar>(config);
  if (o.midst) models::stir(*m, o.seed);
  m->to(o.dtype);
  auto inputs = [steps = models::dynibar_steps(config, o.seed, o.dtype)](int64_t iteration) { return steps(iteration).list(); };
  auto task = models::dynibar_task(m);
  task.sizes = models::StepInputs::sizes();  // the jitter is given
  return {m, models::dynibar_parts(m, o.seed, o.dtype), task, inputs,
          fmt::format("{} rays x {} samples, pictures of {} x {}", config.rays, config.samples, config.width, config.height)};
}

}  // namespace

Subject make_subject(const std::string& model, const std::string& scale, const SubjectOptions& o) {
  torch::manual_seed(o.seed);
  if (model == "hexplane") return hexplane(scale, o);
  if (model == "dynibar") return dynibar(scale, o);
  throw models::Error("unknown model", model, fmt::format("choose {}", kModels));
}

}  // namespace heddle
