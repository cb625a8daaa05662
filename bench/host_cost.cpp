// What a call costs on the host: a region with next to nothing to compute, beside eager and beside an autograd node that does nothing.
// Law: cases run interleaved in one process, each time a batch of calls; medians over batches, in microseconds per call.
// Usage: heddle_bench [--json FILE] [--batches N]
#include <ATen/Functions.h>
#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/functions/utils.h>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <nlohmann/json.hpp>

#include "frontends/torch/fuse.h"
#include "frontends/torch/region.h"

namespace heddle {
namespace {

// The least that a region in C++ can be: a fresh output, a node, edges.
struct Identity final : torch::autograd::Node {
    std::string name() const override { return "IdentityBackward"; }
    torch::autograd::variable_list apply(torch::autograd::variable_list&& grads) override { return {grads[0].expand({1})}; }
};
Tensors identity(const Tensors& in) {
    at::Tensor out;
    {
        at::AutoDispatchBelowADInplaceOrView below;
        out = at::empty({}, in[0].options());
    }
    if (at::GradMode::is_enabled() && in[0].requires_grad()) {
        auto node = make_node<Identity>();
        node->set_next_edges(torch::autograd::collect_next_edges(in));
        torch::autograd::set_history(out, node);
    }
    return {out};
}
Tensors trivial(const Tensors& in) { return {(in[0] * 2).sin().sum()}; }
// Several kernels with memory between them, several inputs, sizes by name.
Tensors several(const Tensors& in) {
    at::Tensor s = at::softmax(in[0] * in[1] + in[2], 1);
    return {(s.cumsum(1) * in[1]).sum(), s.mean(1)};
}

struct Case {
    std::string name;
    std::function<void()> call;
    std::vector<double> us{};
};
double median(std::vector<double> v) {
    std::nth_element(v.begin(), v.begin() + static_cast<std::ptrdiff_t>(v.size() / 2), v.end());
    return v[v.size() / 2];
}

void add(std::vector<Case>& cases, const std::string& name, std::function<Tensors(const Tensors&)> f, const std::vector<Tensors>& arguments) {
    auto next = std::make_shared<std::size_t>(0);
    auto forward = [f, arguments, next]() -> Tensors { return f(arguments[(*next)++ % arguments.size()]); };
    cases.push_back({name + ", no grad", [forward] {
                         at::NoGradGuard no_grad;
                         forward();
                     }});
    cases.push_back({name + ", forward", [forward] { forward(); }});
    cases.push_back({name + ", forward+backward", [forward] {
                         Tensors out = forward();
                         torch::autograd::backward({out[0]}, {});
                     }});
}

}  // namespace
}  // namespace heddle

int main(int argc, char** argv) {
    using namespace heddle;
    std::string json;
    int batches = 400;
    for (int i = 1; i + 1 < argc; i += 2) {
        if (std::string(argv[i]) == "--json") json = argv[i + 1];
        else if (std::string(argv[i]) == "--batches") batches = std::max(1, std::atoi(argv[i + 1]));
    }
    at::set_num_threads(1);
    auto real = [](std::vector<std::int64_t> s) { return at::rand(s, at::kFloat).set_requires_grad(true); };
    std::vector<Case> cases;
    std::vector<Tensors> one{{real({1})}}, rows, changing;
    rows.push_back({real({4, 3}), real({4, 3}), real({4, 3})});
    for (std::int64_t n : {4, 5, 6, 7}) changing.push_back({real({n, 3}), real({n, 3}), real({n, 3})});
    std::vector<Varying> names;
    for (int k = 0; k < 3; ++k) names.push_back({.input = k, .tensor = {}, .dim = 0, .name = "B"});
    Fused a = fuse(trivial, one[0], {.eager_if_uncapturable = false}), b = fuse(several, rows[0], {.dynamic = names, .eager_if_uncapturable = false});
    add(cases, "identity node", identity, one);
    add(cases, "trivial, eager", trivial, one);
    add(cases, "trivial, fused", [&](const Tensors& in) { return a(in); }, one);
    add(cases, "several, eager", several, rows);
    add(cases, "several, fused", [&](const Tensors& in) { return b(in); }, rows);
    add(cases, "several, fused, sizes change", [&](const Tensors& in) { return b(in); }, changing);
    constexpr int kBatch = 50;
    for (int i = -20; i < batches; ++i)
        for (Case& c : cases) {
            auto start = std::chrono::steady_clock::now();
            for (int k = 0; k < kBatch; ++k) c.call();
            if (i >= 0) c.us.push_back(std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - start).count() / kBatch);
        }
    nlohmann::json rows_out = nlohmann::json::array();
    for (const Case& c : cases) {
        double lowest = *std::min_element(c.us.begin(), c.us.end());
        fmt::print("{:48} {:8.2f} us median {:8.2f} us lowest\n", c.name, median(c.us), lowest);
        rows_out.push_back({{"case", c.name}, {"median_us", median(c.us)}, {"lowest_us", lowest}});
    }
    if (!json.empty()) std::ofstream(json) << nlohmann::json{{"threads", 1}, {"batches", batches}, {"batch", kBatch}, {"cases", rows_out}}.dump(2) << "\n";
    return 0;
}
