// heddle bench MODEL: each part of a step eager and fused, in turns, with the errors of outputs and gradients against eager in float64, of the
// fused code in float32 and in float64, and of eager in float32. With --steps: a whole run (bench_training.h).
// Law: a time stands beside the errors of the same run; ratios come from interleaved runs. With one thread times are CPU time of the process, so
// that what else the machine does counts less; else wall time.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/optim/adam.h>
#include <torch/utils.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <nlohmann/json.hpp>

#include "frontends/torch/fuse.h"
#include "frontends/torch/train_step.h"
#include "models/error.h"
#include "models/files.h"
#include "runtime/cpu_backend.h"
#include "runtime/disk_cache.h"
#include "tools/bench_op_counter.h"
#include "tools/bench_training.h"
#include "tools/cli.h"
#include "tools/subject.h"

namespace heddle {
namespace {

using Clock = std::chrono::steady_clock;
double ms_since(Clock::time_point t) { return std::chrono::duration<double, std::milli>(Clock::now() - t).count(); }

// What a run takes, ms.
double timed(const std::function<void()>& run) {
  const auto wall = Clock::now();
  const auto cpu = std::clock();
  run();
  return at::get_num_threads() == 1 ? 1e3 * static_cast<double>(std::clock() - cpu) / CLOCKS_PER_SEC : ms_since(wall);
}

struct BenchCommand {
  std::string model, scale = "demo", part, json;
  int64_t threads = 1, repeats = 9, steps = 0;
  uint64_t seed = 0;
  bool thick = true, start = false;
};

std::vector<Varying> varying(const models::Part& p) {
  std::vector<Varying> v;
  for (const auto& s : p.sizes) v.push_back({.input = s.input, .tensor = {}, .dim = s.dim, .name = s.name});
  return v;
}

// One forward and, where something requires grad, backward with fixed incoming gradients. Gradients of `leaves`.
struct Outcome {
  std::vector<at::Tensor> outputs, gradients;
};
Outcome once(const models::StepFn& f, const std::vector<at::Tensor>& in, const std::vector<at::Tensor>& leaves) {
  torch::manual_seed(1);
  Outcome r;
  r.outputs = f(in);
  std::vector<at::Tensor> roots, seeds;
  for (const auto& o : r.outputs)
    if (o.requires_grad()) {
      roots.push_back(o);
      seeds.push_back(o.dim() == 0 ? at::ones_like(o) : at::sin(at::arange(o.numel(), o.options())).reshape(o.sizes()));
    }
  if (!roots.empty() && !leaves.empty()) r.gradients = torch::autograd::grad(roots, leaves, seeds, false, false, true);
  return r;
}

// ||a - b|| / ||b|| of each of a list; 0 where b is 0 and a is too, or both are None; infinite where one is None. What is zero but for float64's
// rounding, as the gradient of a bias that a softmax takes back, is measured by the list's largest.
std::vector<double> errors(const std::vector<at::Tensor>& a, const std::vector<at::Tensor>& exact) {
  double largest = 0;
  for (const auto& t : exact)
    if (t.defined() && t.is_floating_point()) largest = std::max(largest, t.to(at::kDouble).norm().item<double>());
  std::vector<double> all(exact.size(), 0);
  for (size_t k = 0; k < exact.size(); ++k) {
    if (a[k].defined() != exact[k].defined()) all[k] = INFINITY;
    if (!a[k].defined() || !exact[k].defined() || exact[k].numel() == 0) continue;
    if (!exact[k].is_floating_point()) {
      all[k] = a[k].ne(exact[k]).sum().item<double>() / static_cast<double>(exact[k].numel());
      continue;
    }
    const double norm = exact[k].to(at::kDouble).norm().item<double>(), scale = norm < 1e-13 * largest ? largest : norm, off = (a[k].to(at::kDouble) - exact[k].to(at::kDouble)).norm().item<double>();
    if (!(off == 0)) all[k] = scale > 0 ? off / scale : INFINITY;
  }
  return all;
}
double worst(const std::vector<double>& errors) { return errors.empty() ? 0 : *std::max_element(errors.begin(), errors.end()); }
double error(const std::vector<at::Tensor>& a, const std::vector<at::Tensor>& exact) { return worst(errors(a, exact)); }
double median(std::vector<double> v) {
  std::sort(v.begin(), v.end());
  return v[v.size() / 2];
}

struct Row {
  std::string name;
  int64_t ops = 0;
  int forward = 0, backward = 0, calls = 0;
  int64_t bytes = 0;
  double eager_ms = 0, fused_ms = 0, out = 0, grad = 0, eager_out = 0, eager_grad = 0, grad64 = -1;
  int none = 0;                                     // gradients that are None in eager
  nlohmann::json gradients = nlohmann::json::array();  // of each leaf: its errors
};

// Names of leaves_of().
std::vector<std::string> names_of(const models::Part& p, const Subject& subject) {
  std::vector<std::string> names;
  for (size_t k = 0; k < p.inputs.size(); ++k)
    if (p.inputs[k].requires_grad()) names.push_back(fmt::format("input {}", k));
  for (const auto& t : subject.module->named_parameters()) names.push_back(t.key());
  return names;
}

std::vector<at::Tensor> leaves_of(const models::Part& p, const Subject& subject) {
  std::vector<at::Tensor> leaves;
  for (const auto& t : p.inputs)
    if (t.requires_grad()) leaves.push_back(t);
  for (const auto& t : subject.module->parameters()) leaves.push_back(t);
  return leaves;
}

Row measure(const models::Part& part, const models::Part& exact, const Subject& subject, const Subject& subject64, int64_t repeats, double& cold) {
  Row r;
  r.name = part.name;
  auto leaves = leaves_of(part, subject);
  auto start = Clock::now();
  FuseOptions options;
  options.dynamic = varying(part);
  options.name = part.name;
  const Fused fused = fuse(part.run, part.inputs, options);
  const models::StepFn run = [&](const std::vector<at::Tensor>& in) { return fused(in); };
  const auto got = once(run, part.inputs, leaves);
  cold += ms_since(start) / 1e3;
  if (!fused.report().eager_reason.empty()) throw models::Error(part.name, fused.report().eager_reason, "this part doesn't fuse");
  const auto eager = once(part.run, part.inputs, leaves);
  const auto truth = once(exact.run, exact.inputs, leaves_of(exact, subject64));
  r.out = error(got.outputs, truth.outputs), r.grad = error(got.gradients, truth.gradients);
  r.eager_out = error(eager.outputs, truth.outputs), r.eager_grad = error(eager.gradients, truth.gradients);
  {
    const Fused fused64 = fuse(exact.run, exact.inputs, options);
    const auto got64 = once([&](const std::vector<at::Tensor>& in) { return fused64(in); }, exact.inputs, leaves_of(exact, subject64));
    if (!fused64.report().eager_reason.empty()) throw models::Error(part.name, fused64.report().eager_reason, "this part doesn't fuse in float64");
    const auto e64 = errors(got64.gradients, truth.gradients), e = errors(got.gradients, truth.gradients), eager_e = errors(eager.gradients, truth.gradients);
    const auto names = names_of(part, subject);
    r.grad64 = worst(e64);
    for (size_t k = 0; k < e64.size(); ++k) {
      const bool none = !truth.gradients[k].defined();
      r.none += none;
      nlohmann::json row = {{"of", names[k]}, {"none", none}, {"as_eager", none == !got.gradients[k].defined() && none == !got64.gradients[k].defined()}};
      if (!none) row.update({{"fused_float64", e64[k]}, {"fused", e[k]}, {"eager", eager_e[k]}});
      r.gradients.push_back(row);
    }
  }
  {
    OpCounter counter;
    once(part.run, part.inputs, leaves);
    r.ops = counter.count();
  }
  std::vector<at::Tensor> reached;
  for (size_t k = 0; k < eager.gradients.size(); ++k)
    if (eager.gradients[k].defined()) reached.push_back(leaves[k]);
  leaves = reached;
  std::vector<double> a, b;
  for (int64_t k = 0; k < repeats; ++k) {
    a.push_back(timed([&] { once(part.run, part.inputs, leaves); }));
    b.push_back(timed([&] { once(run, part.inputs, leaves); }));
  }
  r.eager_ms = median(a), r.fused_ms = median(b);
  const auto& report = fused.report();
  r.forward = report.launches_forward, r.backward = report.launches_backward, r.calls = report.calls_forward + report.calls_backward;
  r.bytes = report.bytes_forward + report.bytes_backward;
  return r;
}

// A whole step, Adam included, of two equal models. Results and gradients (from Adam's first average, which is (1 - beta1) of them) against float64's.
Row measure_step(const Subject& a, const Subject& b, const Subject& exact, int64_t repeats, double& cold) {
  auto adam = [](const Subject& m) {
    std::vector<torch::optim::OptimizerParamGroup> groups;
    for (const auto& g : m.task.groups())
      groups.emplace_back(g.parameters, std::make_unique<torch::optim::AdamOptions>(torch::optim::AdamOptions(g.rate).betas({m.task.betas[0], m.task.betas[1]})));
    return torch::optim::Adam(groups);
  };
  auto eager_step = [](const Subject& m, torch::optim::Adam& o) {
    torch::manual_seed(1);
    o.zero_grad();
    auto out = m.parts.back().run(m.parts.back().inputs);
    out[0].backward();
    o.step();
    return out;
  };
  auto averages = [](const Subject& m, torch::optim::Adam& o) {
    std::vector<at::Tensor> all;
    for (const auto& p : m.module->parameters()) {
      auto s = o.state().find(p.unsafeGetTensorImpl());
      all.push_back(s == o.state().end() ? at::Tensor() : static_cast<torch::optim::AdamParamState&>(*s->second).exp_avg());
    }
    return all;
  };
  const models::Part& part = b.parts.back();
  Row r;
  r.name = "train_step";
  auto oa = adam(a), ob = adam(b), oe = adam(exact);
  auto start = Clock::now();
  FuseOptions options;
  options.dynamic = varying(part);
  options.name = r.name;
  TrainStep step(part.run, ob, options);
  torch::manual_seed(1);
  const auto got = step(part.inputs);
  cold += ms_since(start) / 1e3;
  if (!step.eager_reason().empty()) throw models::Error(r.name, step.eager_reason(), "this step doesn't fuse");
  std::vector<at::Tensor> eager;
  {
    OpCounter counter;
    eager = eager_step(a, oa);
    r.ops = counter.count();
  }
  const auto truth = eager_step(exact, oe);
  r.out = error(got, truth), r.eager_out = error(eager, truth);
  r.grad = error(averages(b, ob), averages(exact, oe)), r.eager_grad = error(averages(a, oa), averages(exact, oe));
  std::vector<at::Tensor> begin;
  for (const auto& p : exact.module->parameters()) begin.push_back(p.detach().to(at::kFloat).clone());
  auto reset = [&](const Subject& m) {  // each step does the same work
    const at::NoGradGuard no_grad;
    const auto all = m.module->parameters();
    for (size_t k = 0; k < begin.size(); ++k) at::Tensor(all[k]).copy_(begin[k]);
  };
  std::vector<double> x, y;
  for (int64_t k = 0; k < repeats; ++k) {
    reset(a), reset(b);
    x.push_back(timed([&] { eager_step(a, oa); }));
    torch::manual_seed(1);
    y.push_back(timed([&] { step(part.inputs); }));
  }
  r.eager_ms = median(x), r.fused_ms = median(y);
  const auto report = step.report();
  r.forward = report.launches, r.calls = report.calls, r.bytes = report.bytes;
  return r;
}

// What the first calls of all parts cost a new process: capture (timed by one more), the back end that makes binaries or finds them on
// disk, passes in between, and the first forward and backward themselves.
void start(const BenchCommand& c, const Subject& subject) {
  nlohmann::json rows = nlohmann::json::array();
  double sums[5] = {};
  std::printf("%-18s %10s %10s %10s %10s %10s  (ms)\n", "part", "first call", "capture", "passes", "binaries", "run");
  auto print = [](const std::string& name, const double* t) { std::printf("%-18s %10.1f %10.1f %10.1f %10.1f %10.1f\n", name.c_str(), t[0], t[1], t[2], t[3], t[4]); };
  std::string why_not;
  auto t = Clock::now();
  load_cpu_backend(&why_not);
  const double load = ms_since(t);
  for (const auto& p : subject.parts) {
    if (!c.part.empty() && p.name != c.part) continue;
    FuseOptions options;
    options.dynamic = varying(p);
    options.name = p.name;
    t = Clock::now();
    const Fused fused = fuse(p.run, p.inputs, options);
    const models::StepFn run = [&](const std::vector<at::Tensor>& in) { return fused(in); };
    once(run, p.inputs, leaves_of(p, subject));
    const double all = ms_since(t);
    t = Clock::now();
    once(run, p.inputs, leaves_of(p, subject));
    const double again = ms_since(t);
    t = Clock::now();
    capture(p.run, p.inputs, {.dynamic = options.dynamic, .host_read = HostRead::guard, .name = p.name});
    const double capture = ms_since(t), binaries = fused.report().compile_seconds * 1e3;
    const double row[5] = {all, capture, all - capture - binaries - again, binaries, again};
    for (int k = 0; k < 5; ++k) sums[k] += row[k];
    print(p.name, row);
    rows.push_back({{"name", p.name}, {"first_call_ms", row[0]}, {"capture_ms", row[1]}, {"passes_ms", row[2]}, {"binaries_ms", row[3]}, {"run_ms", row[4]}});
  }
  print("all", sums);
  const auto stats = disk_cache() ? disk_cache()->stats() : DiskCache::Stats{};
  std::printf("loading LLVM %.1f ms; disk cache: %ld hits, %ld misses\n", load, stats.hits, stats.misses);
  if (c.json.empty()) return;
  const nlohmann::json all = {{"model", c.model}, {"scale", c.scale}, {"threads", c.threads}, {"parts", rows}, {"first_call_ms", sums[0]}, {"capture_ms", sums[1]}, {"passes_ms", sums[2]},
                              {"binaries_ms", sums[3]}, {"run_ms", sums[4]}, {"load_llvm_ms", load}, {"hits", stats.hits}, {"misses", stats.misses}};
  models::replace_file(c.json, all.dump(1) + "\n");
}

void run(const BenchCommand& c) {
  at::set_num_threads(static_cast<int>(c.threads));
  auto make = [&](at::ScalarType t) { return make_subject(c.model, c.scale, {.seed = c.seed, .midst = c.thick, .dtype = t, .iterations = c.steps}); };
  const auto subject = make(at::kFloat);
  const auto& parts = subject.parts;
  if (!c.part.empty() && c.part != "train_step" && std::none_of(parts.begin(), parts.end(), [&](const auto& p) { return p.name == c.part; }))
    throw models::Error("unknown part", c.part, "leave --part out to time all");
  if (c.start) return start(c, subject);
  ::setenv("HEDDLE_CACHE", "0", 1);  // cold is cold
  const nlohmann::json head = {{"model", c.model}, {"device", "cpu"}, {"scale", c.scale}, {"threads", c.threads}, {"repeats", c.repeats}, {"time", c.threads == 1 ? "cpu" : "wall"}};
  if (c.steps > 0) {
    std::printf("%s, scale %s, %s, cpu, %ld thread%s\n", c.model.c_str(), c.scale.c_str(), subject.size.c_str(), c.threads, c.threads == 1 ? "" : "s");
    auto all = head;
    all.erase("repeats"), all.update(bench_training(make, c.steps));
    if (!c.json.empty()) models::replace_file(c.json, all.dump(1) + "\n");
    return;
  }
  const auto subject64 = make(at::kDouble);
  std::printf("%s, scale %s, %s, cpu, %ld thread%s; %s time, medians of %ld, eager and fused in turns\n", c.model.c_str(), c.scale.c_str(), subject.size.c_str(), c.threads,
              c.threads == 1 ? "" : "s", c.threads == 1 ? "CPU" : "wall", c.repeats);
  std::printf("%-18s %9s %9s %6s %9s %10s %10s %7s %10s %10s %10s %10s %12s\n", "part", "eager ops", "kernels", "calls", "MB moved", "eager ms", "fused ms", "ratio", "out err", "grad err", "(eager)", "(float64)",
              "None / all");
  double cold = 0;
  nlohmann::json stages = nlohmann::json::array(), iteration, gradients;
  for (size_t k = 0; k <= parts.size(); ++k) {
    if (!c.part.empty() && c.part != (k < parts.size() ? parts[k].name : "train_step")) continue;
    const Row r = k < parts.size() ? measure(parts[k], subject64.parts[k], subject, subject64, c.repeats, cold) : measure_step(subject, make(at::kFloat), subject64, c.repeats, cold);
    std::printf("%-18s %9ld %5d + %-3d %4d %9.1f %10.2f %10.2f %6.2fx %10.1e %10.1e %10.1e", r.name.c_str(), r.ops, r.forward, r.backward, r.calls, static_cast<double>(r.bytes) / 1e6,
                r.eager_ms, r.fused_ms, r.eager_ms / r.fused_ms, r.out, r.grad, r.eager_grad);
    if (r.grad64 >= 0) std::printf(" %10.1e %5d / %zu", r.grad64, r.none, r.gradients.size());
    std::printf("\n");
    std::fflush(stdout);
    stages.push_back({{"name", r.name}, {"ops_eager", r.ops}, {"launches_fused", r.forward + r.backward}, {"launches_forward", r.forward}, {"launches_backward", r.backward},
                      {"library_calls", r.calls}, {"bytes_fused", r.bytes}, {"eager_ms", r.eager_ms}, {"fused_ms", r.fused_ms}, {"max_rel_err_out", r.out}, {"max_rel_err_grad", r.grad},
                      {"eager_rel_err_out", r.eager_out}, {"eager_rel_err_grad", r.eager_grad}});
    if (r.grad64 >= 0) stages.back().update({{"max_rel_err_grad_float64", r.grad64}, {"gradients", r.gradients.size()}, {"gradients_none", r.none}});
    if (k + 1 == parts.size()) gradients = r.gradients;
    if (r.name == "train_step") iteration = {{"eager_ms", r.eager_ms}, {"fused_ms", r.fused_ms}};
  }
  // Warm: the same parts fused again by the same process, with kernels in memory.
  const auto start = Clock::now();
  for (const auto& p : parts) {
    if (!c.part.empty() && p.name != c.part) continue;
    FuseOptions options;
    options.dynamic = varying(p);
    options.name = p.name;
    once([f = fuse(p.run, p.inputs, options)](const std::vector<at::Tensor>& in) { return f(in); }, p.inputs, leaves_of(p, subject));
  }
  const double warm = ms_since(start) / 1e3;
  std::printf("capture, compilation and first run of all parts: %.2f s cold, %.2f s with kernels in memory\n", cold, warm);
  if (!c.json.empty()) {
    auto all = head;
    all.update({{"stages", stages}, {"cold_s", cold}, {"warm_s", warm}, {"iteration", iteration}, {"gradients", gradients}});
    models::replace_file(c.json, all.dump(1) + "\n");
  }
}

}  // namespace

void add_bench(CLI::App& app) {
  auto c = std::make_shared<BenchCommand>();
  auto* sub = app.add_subcommand("bench", "Time each part of a model's step, eager against fused");
  sub->add_option("model", c->model, kModels)->required();
  sub->add_option("--scale", c->scale, kScales)->capture_default_str();
  sub->add_option("--part", c->part, "One part, or train_step: the whole step with Adam (default: all)");
  sub->add_option("--json", c->json, "File for the results");
  sub->add_option("--threads", c->threads, "CPU threads")->check(CLI::PositiveNumber)->capture_default_str();
  sub->add_option("--repeats", c->repeats, "Runs of each")->check(CLI::PositiveNumber)->capture_default_str();
  sub->add_option("--steps", c->steps, "Instead: train so many steps eager, fused and eager in float64; the schedule is that long")->check(CLI::PositiveNumber);
  sub->add_option("--seed", c->seed, "Of planes and rays")->capture_default_str();
  sub->add_flag("!--thin", c->thick, "The model as initialised: HexPlane's planes aren't opaque yet and its colour branch is not taken, DynIBaR's points don't move");
  sub->add_flag("--start", c->start, "Only the first calls: how long each stage takes a new process, with what the disk cache holds");
  sub->callback([c] { run(*c); });
}

}  // namespace heddle
