// heddle replay FILE: compiles a dumped graph (any .hir but a program) from where it stands, runs it on random inputs and compares with the
// interpreter. Law: what differs by more than rounding is an error; calls are run by PyTorch on both sides.
#include <ATen/ATen.h>
#include <fmt/format.h>

#include <chrono>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <random>
#include <sstream>

#include "frontends/aten.h"
#include "frontends/torch/host.h"
#include "ir/eval.h"
#include "ir/text.h"
#include "models/error.h"
#include "models/files.h"
#include "passes/pipeline.h"
#include "runtime/executable.h"
#include "tools/cli.h"

namespace heddle {
namespace {

struct ReplayCommand {
    std::string file, out;
    std::vector<std::string> given;
    Sizes sizes;
    std::int64_t size = 16;
    double low = 0.1, high = 0.9;
    unsigned seed = 1;
    int runs = 20;
    bool backward = false;
};

std::string read(const std::string& file) {
    std::ifstream in(file);
    if (!in) throw models::Error("heddle replay", "can't read " + file, "give a .hir that heddle dump wrote");
    std::stringstream text;
    text << in.rdbuf();
    if (text.str().starts_with("program")) throw models::Error("heddle replay", file + " holds a program, which is planned already", "give the forward.hir or backward.hir before it");
    return text.str();
}
at::Tensor tensor(const Tensor& t) { return at::tensor(t.data, at::kDouble).reshape(t.sizes).to(scalar_type(t.dtype)); }
Tensor plain(const at::Tensor& t, DType dtype) {
    const at::Tensor d = t.to(at::kDouble).contiguous();
    return {dtype, d.sizes().vec(), {d.const_data_ptr<double>(), d.const_data_ptr<double>() + d.numel()}};
}
Sizes sizes_of(const ReplayCommand& c, const Graph& g) {  // of all names
    Sizes sizes = c.sizes;
    for (const std::string& n : g.symbols()) sizes.emplace(n, c.size);
    return sizes;
}
Array array(const Tensor& t) { return array_of(tensor(t), at::kCPU, "input", 0); }

class Replay {
public:
    Replay(const ReplayCommand& c, const Graph& g) : c_(c), g_(g), sizes_(sizes_of(c, g)), random_(c.seed), host_(torch_host(at::kCPU)) {}

    bool run() {
        for (Id i : g_.inputs) in_.push_back(random(g_.type(i)));
        auto call = [&](const Node& n, const std::vector<Tensor>& in, Sizes& sizes) {
            std::vector<Array> operands;
            for (const Tensor& t : in) operands.push_back(array(t));
            std::vector<Tensor> out;
            for (const Array& a : host_->call(n, operands, sizes)) out.push_back(plain(tensor_of(a), a.dtype));
            const Shape& shape = n.type.shape;  // rows that only the call knows
            if (!out.empty()) bind_sizes(shape, out[0].sizes, sizes, "call");
            return out;
        };
        const auto want = evaluate(g_, in_, call);
        const Executable e(plan(g_));
        std::vector<Array> arrays;
        for (const Tensor& t : in_) arrays.push_back(array(t));
        Sizes bound;
        const auto got = e.run(*host_, arrays, bound);
        std::vector<double> times;
        for (int k = 0; k < c_.runs; ++k) {
            const auto start = std::chrono::steady_clock::now();
            bound.clear();
            e.run(*host_, arrays, bound);
            times.push_back(std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count());
        }
        std::sort(times.begin(), times.end());
        std::printf("%s: %zu kernels, compiled in %.0f ms; %.3f ms a run (median of %d)\n", g_.name.c_str(), e.plan().program.launches.size(), e.compile_seconds() * 1e3,
                    times.empty() ? 0 : times[times.size() / 2], c_.runs);
        if (!c_.out.empty())
            for (const auto& [name, text] : e.texts()) models::replace_file(c_.out + "/" + name, text);
        bool right = true;
        for (std::size_t k = 0; k < want.size(); ++k) right &= same(want[k], plain(tensor_of(got[k]), want[k].dtype), k);
        return right;
    }

private:
    Tensor random(const Type& t) {
        Tensor x{t.dtype, {}, {}};
        for (const Dim& d : t.shape) x.sizes.push_back(d.eval(sizes_));
        std::uniform_real_distribution<double> u(c_.low, c_.high);
        for (std::int64_t i = 0; i < x.numel(); ++i) {
            const double v = u(random_);
            x.data.push_back(is_float(t.dtype) ? v : t.dtype == DType::b1 ? v > (c_.low + c_.high) / 2 : std::floor(v));
        }
        return plain(tensor(x), t.dtype);  // rounded to the type
    }
    bool same(const Tensor& want, const Tensor& got, std::size_t k) const {
        double scale = 0, worst = 0;
        for (double v : want.data)
            if (std::isfinite(v)) scale = std::max(scale, std::fabs(v));
        for (std::size_t i = 0; i < want.data.size() && want.sizes == got.sizes; ++i) {
            const double d = std::fabs(want.data[i] - got.data[i]);
            if (!(want.data[i] == got.data[i] || (std::isnan(want.data[i]) && std::isnan(got.data[i])))) worst = std::isnan(d) ? INFINITY : std::max(worst, d);
        }
        // The interpreter computes in double: what's left is the rounding of the element type, which adds up over a reduction.
        std::size_t most = 1;
        for (const Tensor& t : in_) most = std::max(most, t.data.size());
        const double rounding = want.dtype == DType::f64 ? 1e-15 : want.dtype == DType::f32 ? 1.2e-7 : want.dtype == DType::bf16 ? 8e-3 : want.dtype == DType::f16 ? 1e-3 : 0;
        const double allowed = 16 * rounding * std::sqrt(static_cast<double>(most)) * scale;
        const bool right = want.sizes == got.sizes && worst <= allowed;
        std::printf("  output %zu: %s[%s]  largest difference %.3g, allowed %.3g%s\n", k, std::string(name(want.dtype)).c_str(), fmt::format("{}", fmt::join(want.sizes, ", ")).c_str(), worst, allowed,
                    right ? "" : "  WRONG");
        return right;
    }

    const ReplayCommand& c_;
    const Graph& g_;
    const Sizes sizes_;
    std::mt19937 random_;
    std::unique_ptr<Host> host_;
    std::vector<Tensor> in_;
};

void run(const ReplayCommand& c) {
    Graph g = lower_aten(parse(read(c.file)));
    bool right = true;
    if (!c.backward) {
        right = Replay(c, g).run();
    } else {
        std::vector<char> wants;
        for (Id i : g.inputs) wants.push_back(is_float(g.type(i).dtype));
        const Pair pair = forward_and_backward(g, wants, {sizes_of(c, g)});
        right = Replay(c, pair.split.forward).run();
        if (pair.has_backward) right &= Replay(c, pair.split.backward).run();
    }
    if (!right) throw models::Error("heddle replay", c.file + ": kernels and interpreter differ", "look at the graphs and kernels that --out writes");
}

}  // namespace

void add_replay(CLI::App& app) {
    auto c = std::make_shared<ReplayCommand>();
    auto* sub = app.add_subcommand("replay", "Compile a dumped graph again, run it and compare with the interpreter");
    sub->add_option("file", c->file, "A .hir of a dump: a graph, before or after any pass")->required();
    sub->add_option("--sizes", c->given, "Sizes by name: --sizes N=4096 B=7")->check(CLI::Validator(
        [](const std::string& s) { return s.find('=') != std::string::npos && CLI::PositiveNumber(s.substr(s.find('=') + 1)).empty() ? "" : s + ": expected NAME=SIZE"; }, "NAME=SIZE"));
    sub->add_option("--size", c->size, "Of other names")->capture_default_str();
    sub->add_option("--low", c->low, "Inputs are drawn from here ..")->capture_default_str();
    sub->add_option("--high", c->high, ".. to here; integers are rounded down")->capture_default_str();
    sub->add_option("--seed", c->seed, "Of the inputs")->capture_default_str();
    sub->add_option("--runs", c->runs, "For the time")->capture_default_str();
    sub->add_option("--out", c->out, "Folder for the kernels");
    sub->add_flag("--backward", c->backward, "Differentiate the graph, and replay both halves, each on inputs of its own");
    sub->callback([c] {
        for (const auto& s : c->given) c->sizes[s.substr(0, s.find('='))] = std::stoll(s.substr(s.find('=') + 1));
        run(*c);
    });
}

}  // namespace heddle
