// Chaos is told from error by float64: what float32 does to eager's own losses is the measure of what it may do to the fused ones.
#include "tools/bench_training.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <torch/optim/adam.h>

#include <cstdio>
#include <ctime>
#include <optional>
#include <set>

#include "frontends/torch/train_step.h"
#include "models/error.h"

namespace heddle {
namespace {

struct Run {
  Subject subject;
  torch::optim::Adam adam;
  std::vector<double> rates;
  std::vector<std::vector<double>> losses = {};
  std::vector<double> ms = {};

  explicit Run(Subject s) : subject(std::move(s)), adam(groups(subject.task)) {
    for (const auto& g : subject.task.groups()) rates.push_back(g.rate);
  }
  static std::vector<torch::optim::OptimizerParamGroup> groups(const models::Task& task) {
    std::vector<torch::optim::OptimizerParamGroup> all;
    for (const auto& g : task.groups())
      all.emplace_back(g.parameters, std::make_unique<torch::optim::AdamOptions>(torch::optim::AdamOptions(g.rate).betas({task.betas[0], task.betas[1]})));
    return all;
  }
  std::vector<at::Tensor> eager(const std::vector<at::Tensor>& inputs) {
    adam.zero_grad();
    auto out = subject.task.loss(inputs);
    out[0].backward();
    adam.step();
    return out;
  }
  // One iteration by `step`; true where another phase begins after it.
  bool go(int64_t iteration, const models::StepFn& step) {
    const double factor = subject.task.rate_factor(iteration);
    for (std::size_t k = 0; k < rates.size(); ++k) adam.param_groups()[k].options().set_lr(rates[k] * factor);
    const auto inputs = subject.inputs(iteration);
    const auto start = std::clock();
    const auto out = step(inputs);
    ms.push_back(1e3 * static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC);
    losses.emplace_back();
    for (const auto& t : out) losses.back().push_back(t.item<double>());
    return subject.task.after(iteration) != models::Change::none;
  }
};

// Sizes that vary, by name, of one step's inputs.
std::map<std::string, int64_t> sizes_of(const models::Task& task, const std::vector<at::Tensor>& inputs) {
  std::map<std::string, int64_t> all;
  for (const auto& s : task.sizes) all[s.name] = inputs[static_cast<std::size_t>(s.input)].size(s.dim);
  return all;
}

// The largest relative difference of two runs' losses in the first `steps` steps.
double apart(const Run& a, const Run& b, std::size_t steps) {
  double worst = 0;
  for (std::size_t k = 0; k < std::min(steps, b.losses.size()); ++k) worst = std::max(worst, std::abs(a.losses[k][0] - b.losses[k][0]) / std::abs(b.losses[k][0]));
  return worst;
}
// || a - b || / || b || over all parameters.
double distance(const Run& a, const Run& b) {
  double off = 0, all = 0;
  const auto x = a.subject.module->parameters(), y = b.subject.module->parameters();
  for (std::size_t k = 0; k < x.size(); ++k) {
    off += (x[k].detach().to(at::kDouble) - y[k].detach().to(at::kDouble)).pow(2).sum().item<double>();
    all += y[k].detach().to(at::kDouble).pow(2).sum().item<double>();
  }
  return std::sqrt(off / all);
}
double median(std::vector<double> v) {
  std::sort(v.begin(), v.end());
  return v[v.size() / 2];
}

}  // namespace

nlohmann::json bench_training(const std::function<Subject(at::ScalarType)>& make, int64_t steps) {
  Run exact(make(at::kDouble)), eager(make(at::kFloat)), fused(make(at::kFloat));
  const auto& task = fused.subject.task;
  std::optional<TrainStep> step;
  nlohmann::json phases = nlohmann::json::array();
  std::set<std::map<std::string, int64_t>> shapes;
  int compiles_late = 0, host_reads = 0, compiles_first = 0;
  int64_t first = 0;
  const auto end_phase = [&](int64_t last) {
    const auto r = step->report();
    phases.push_back({{"first", first}, {"last", last}, {"captures", r.captures}, {"compiles", r.compiles}, {"compiles_first_step", compiles_first}, {"host_reads", host_reads},
                      {"kernels", r.launches}, {"library_calls", r.calls}, {"in_place", r.in_place}, {"capture_s", r.capture_seconds}, {"plan_s", r.plan_seconds}});
    compiles_late += r.compiles - compiles_first;
    std::printf("steps %ld to %ld: %d captures, %d compile%s, %d kernels, %d library calls, %d host reads\n", first, last, r.captures, r.compiles, r.compiles == 1 ? "" : "s",
                r.launches, r.calls, host_reads);
    std::fflush(stdout);
    step.reset(), first = last + 1, host_reads = 0;
  };
  for (int64_t k = 0; k < steps; ++k) {
    exact.go(k, [&](const auto& in) { return exact.eager(in); });
    eager.go(k, [&](const auto& in) { return eager.eager(in); });
    const bool began = !step;
    if (!step) {
      FuseOptions options;
      options.name = "step";
      for (const auto& s : task.sizes) options.dynamic.push_back({.input = s.input, .tensor = {}, .dim = s.dim, .name = s.name});
      step.emplace(task.loss, fused.adam, options, StepOptions{.bounded = true});  // as on CUDA: what a step checks of its inputs is read behind it
    }
    const bool another = fused.go(k, [&](const std::vector<at::Tensor>& in) {
      shapes.insert(sizes_of(task, in));
      return (*step)(in);
    });
    if (!step->eager_reason().empty()) throw models::Error(fmt::format("step {}", k), step->eager_reason(), "this step doesn't fuse");
    host_reads += step->report().host_reads;
    if (began) compiles_first = step->report().compiles;
    if (another && k + 1 < steps) end_phase(k);
  }
  end_phase(steps - 1);
  nlohmann::json curves;
  for (const auto& [name, run] : {std::pair{"float64", &exact}, {"eager", &eager}, {"fused", &fused}}) curves[name] = run->losses;
  const auto n = static_cast<std::size_t>(steps);
  const nlohmann::json differences = {{"fused_from_eager", apart(fused, eager, n)}, {"fused_from_float64", apart(fused, exact, n)}, {"eager_from_float64", apart(eager, exact, n)},
                                      {"parameters_fused_from_float64", distance(fused, exact)}, {"parameters_eager_from_float64", distance(eager, exact)}};
  std::printf("%ld steps of %zu different sizes; %d compiles after a phase's first step\nlosses apart, relative, at most: fused from eager %.1e; from float64: fused %.1e, eager %.1e\n"
              "parameters off float64's in the end: fused %.1e, eager %.1e\na step, CPU ms, median: eager %.2f, fused %.2f\n",
              steps, shapes.size(), compiles_late, apart(fused, eager, n), apart(fused, exact, n), apart(eager, exact, n), distance(fused, exact), distance(eager, exact),
              median(eager.ms), median(fused.ms));
  return {{"steps", steps}, {"sizes", shapes.size()}, {"terms", task.terms}, {"losses", curves}, {"apart", differences}, {"phases", phases}, {"compiles_after_first", compiles_late},
          {"eager_cpu_ms", median(eager.ms)}, {"fused_cpu_ms", median(fused.ms)}};
}

}  // namespace heddle
