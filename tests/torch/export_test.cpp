// heddle::load computes what Python computes with the module that was exported, and trains it as Python does.
#include "frontends/export/load.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <random>

#include "tests/torch/exports.h"
#include "tests/torch/fused.h"

namespace heddle::testing {
namespace {

using ::testing::HasSubstr;
using at::Tensor;

Tensors list(const at::IValue& v) {
    Tensors all;
    for (const at::IValue& t : v.toListRef()) all.push_back(t.toTensor());
    return all;
}
std::map<std::string, Tensor> named(const at::IValue& v) {
    std::map<std::string, Tensor> m;
    for (const auto& e : v.toGenericDict()) m[e.key().toStringRef()] = e.value().toTensor();
    return m;
}
Exported loaded(const std::string& file, LoadOptions options = {}) {
    options.fuse.eager_if_uncapturable = false;
    return load((exports() / file).string(), std::move(options));
}

struct Call {
    std::string expected;
    Tensors inputs;
    at::Dict<at::IValue, at::IValue> wanted;
    Tensors tensors(const char* what) const { return list(wanted.at(what)); }
};
std::vector<Call> calls(const std::string& name) {
    std::vector<Call> all;
    const at::IValue rows = unpickled(exports() / (name + ".expected.pt"));
    for (const at::IValue& v : rows.toListRef()) all.push_back({name, list(v.toGenericDict().at("inputs")), v.toGenericDict()});
    return all;
}
// With the outputs that are numbers and depend on nothing, which Python returns too.
Tensors with_constants(const Exported& f, const Tensors& results) {
    Tensors all;
    std::size_t next = 0;
    for (const auto& o : f.outputs()) {
        if (o.result) all.push_back(results.at(next++));
        else if (o.fixed.isScalar()) all.push_back(at::scalar_tensor(o.fixed.toScalar(), at::kDouble));
    }
    EXPECT_EQ(next, results.size());
    return all;
}
// One call, its backward, and everything that either leaves behind.
void expect_as_python(const Exported& f, const Call& call, at::ScalarType type, std::int64_t reduction) {
    Tensors in = leaves(call.inputs, type);
    for (const auto& [name, p] : f.named_parameters()) p.mutable_grad() = Tensor();
    const Tensors results = f(in), want = call.tensors("outputs");
    const Tensors got = with_constants(f, results);
    ASSERT_EQ(got.size(), want.size());
    for (std::size_t k = 0; k < got.size(); ++k) expect_near(got[k], want[k], reduction, "output " + std::to_string(k));
    got[0].backward();
    auto gradients = named(call.wanted.at("gradients"));
    for (const auto& [name, p] : f.named_parameters()) {
        auto g = gradients.find(name);
        ASSERT_EQ(p.grad().defined(), g != gradients.end()) << name;
        if (p.grad().defined()) expect_near(p.grad(), g->second, reduction, "gradient of " + name);
    }
    std::size_t next = 0;
    Tensors input_gradients = call.tensors("input_gradients"), after = call.tensors("after");
    for (const Tensor& t : in)
        if (t.requires_grad()) expect_near(t.grad(), input_gradients.at(next++), reduction, "gradient of an input");
    next = 0;
    for (const Tensor& t : in)
        if (next < after.size()) expect_near(t, after[next++], reduction, "an input, afterwards");
    auto buffers = named(call.wanted.at("buffers"));
    for (const auto& [name, b] : f.named_buffers()) expect_near(b, buffers.at(name), reduction, "buffer " + name);
}

constexpr const char* kCases[] = {"mlp",   "batch_norm", "masks", "planes",   "regions",  "arguments", "convolutions", "sizes",
                                  "pairs", "writes",     "ties",  "integers", "branches", "draws",     "attention",    "strided", "shifted"};
struct EveryExport : ::testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Export, EveryExport, ::testing::ValuesIn(kCases), [](const auto& info) { return std::string(info.param); });

TEST_P(EveryExport, ComputesWhatPythonComputes) {
    const std::string name = GetParam();
    for (const auto& [file, type] : {std::pair(name + ".pt2", at::kFloat), std::pair(name + ".core.pt2", at::kDouble)}) {
        if (!std::filesystem::exists(exports() / file)) continue;
        SCOPED_TRACE(file);
        Exported f = loaded(file);
        int k = 0;
        for (const Call& call : calls(name)) {
            SCOPED_TRACE("call " + std::to_string(k));
            at::manual_seed(200 + static_cast<std::uint64_t>(k++));
            expect_as_python(f, call, type, 256);
        }
        EXPECT_EQ(f.fused().report().eager_reason, "");
        EXPECT_FALSE(f.explain().starts_with("sizes are captured as they come")) << f.explain();
        if (name == "shifted") continue;
        EXPECT_EQ(f.fused().report().captures, name == "branches" ? 2 : 1) << "a new size compiles nothing, a new branch does";
    }
}
TEST_P(EveryExport, EagerlyIsTheSame) {
    const std::string name = GetParam(), file = name + ".pt2";
    Exported fused = loaded(file), eager = loaded(file);
    int k = 0;
    for (const Call& call : calls(name)) {
        auto run = [&](auto f) {
            at::manual_seed(static_cast<std::uint64_t>(k));
            return f(leaves(call.inputs, at::kFloat));
        };
        Tensors got = run(fused), want = run([&](const Tensors& in) { return eager.eagerly(in); });
        ASSERT_EQ(got.size(), want.size());
        for (std::size_t i = 0; i < got.size(); ++i) {
            EXPECT_EQ(got[i].scalar_type(), want[i].scalar_type());
            EXPECT_EQ(got[i].requires_grad(), want[i].requires_grad()) << "output " << i;
            EXPECT_TRUE(got[i].strides() == want[i].strides() || !want[i].is_non_overlapping_and_dense()) << "output " << i;
            EXPECT_TRUE(at::allclose(got[i], want[i], 1e-4, 1e-5)) << "output " << i;
        }
        ++k;
    }
}

std::string one_line_error(const std::function<void()>& f) {
    try {
        f();
    } catch (const Error& e) {
        EXPECT_EQ(std::string(e.what()).find('\n'), std::string::npos) << e.what();
        return e.what();
    }
    return "none";
}
// 20 steps of gradient descent on a shrinking batch, with no Python: every loss is the one that Python saw.
TEST(Export, TrainsAsPythonDoes) {
    Exported loss = loaded("training.pt2");
    auto expected = unpickled(exports() / "training.expected.pt").toGenericDict();
    Tensor x = expected.at("x").toTensor(), y = expected.at("y").toTensor(), losses = expected.at("losses").toTensor();
    const Tensors parameters = loss.parameters();
    for (std::int64_t step = 0; step < losses.numel(); ++step) {
        for (const Tensor& p : parameters) p.mutable_grad() = Tensor();
        Tensor value = loss({x.slice(0, 0, 32 - step), y.slice(0, 0, 32 - step)})[0];
        value.backward();
        expect_near(value, losses[step], 1024, "step " + std::to_string(step));
        at::NoGradGuard no_grad;
        for (const Tensor& p : parameters) p.sub_(p.grad(), 0.2);
    }
    EXPECT_LT(losses[-1].item<double>(), 0.2 * losses[0].item<double>());
    EXPECT_EQ(loss.fused().report().captures, 1);
}

TEST(Export, WhatTheFileSays) {
    Exported ties = loaded("ties.pt2"), arguments = loaded("arguments.pt2"), sizes = loaded("sizes.pt2"), integers = loaded("integers.pt2");
    Exported norm = loaded("batch_norm.pt2");
    auto names = [](const NamedTensors& list) {
        std::vector<std::string> all;
        for (const auto& [name, t] : list) all.push_back(name);
        return all;
    };
    EXPECT_THAT(names(ties.named_parameters()), ::testing::UnorderedElementsAre("encode.weight", "fixed", "decode.bias")) << "decode.weight is encode.weight";
    EXPECT_FALSE(ties.named_parameters()[names(ties.named_parameters())[0] == "fixed" ? 0 : 1].second.requires_grad());
    EXPECT_THAT(names(norm.named_buffers()), ::testing::UnorderedElementsAre("weights", "norm.running_mean", "norm.running_var", "norm.num_batches_tracked"));
    EXPECT_THAT(sizes.arguments()[1].type, ::testing::MatchesRegex("f32\\[2\\*s[0-9]+, 3\\]"));
    EXPECT_FALSE(arguments.arguments()[1].input);
    EXPECT_EQ(arguments.arguments()[1].fixed.toDouble(), 1.5);
    EXPECT_EQ(arguments.outputs().size(), 7u);
    EXPECT_TRUE(arguments.outputs()[2].fixed.isNone());
    EXPECT_EQ(arguments.outputs()[5].fixed.toStringRef(), "sin");
    EXPECT_THAT(arguments.out_spec(), HasSubstr("half"));
    Tensors example = integers.example();
    ASSERT_EQ(example.size(), 2u);
    EXPECT_EQ(example[1].item<std::int64_t>(), 6);
    EXPECT_EQ(integers(example).size(), 2u);
    EXPECT_THAT(integers.explain(), HasSubstr("integers_forward_0"));
    EXPECT_THAT(one_line_error([&] { ties.explain(); }), HasSubstr("ties.pt2: is captured at its first call"));
}
TEST(Export, SeveralProgramsAndOlderWeights) {
    EXPECT_THAT(error_of([] { loaded("several.pt2"); }), HasSubstr("several.pt2: holds ties, mlp: say which in LoadOptions::model"));
    expect_as_python(loaded("several.pt2", {.model = "ties"}), calls("ties")[0], at::kFloat, 256);
    expect_as_python(loaded("pickled.pt2"), calls("mlp")[0], at::kFloat, 256);
}
TEST(Export, ElsewhereThanItWasExported) {
    Exported f = load((exports() / "sizes.pt2").string(), {.device = at::kMeta});  // makes tensors itself
    EXPECT_TRUE(f.parameters()[0].is_meta());
    EXPECT_TRUE(f.eagerly({at::empty({5, 3}, at::kMeta), at::empty({10, 3}, at::kMeta)})[0].is_meta());
}

TEST(Export, OnADevice) {
    if (!at::hasCUDA()) GTEST_SKIP() << "no CUDA device";
    for (const std::string name : {"mlp", "masks", "planes", "sizes", "convolutions"}) {
        SCOPED_TRACE(name);
        Exported f = loaded(name + ".pt2", {.device = at::kCUDA});
        for (const Call& call : calls(name)) {
            auto run = [&](auto g) {
                Tensors in;
                for (const Tensor& t : leaves(call.inputs, at::kFloat)) in.push_back(leaf(t.cuda(), at::kFloat));
                Tensors out = g(in), wanted = f.parameters();
                wanted.erase(std::remove_if(wanted.begin(), wanted.end(), [](const Tensor& t) { return !t.requires_grad(); }), wanted.end());
                for (const Tensor& d : torch::autograd::grad({out[0]}, wanted)) out.push_back(d);
                return out;
            };
            Tensors got = run(f), want = run([&](const Tensors& in) { return f.eagerly(in); });
            for (std::size_t k = 0; k < want.size(); ++k) {
                EXPECT_TRUE(got[k].is_cuda());
                EXPECT_TRUE(at::allclose(got[k], want[k], 1e-3, 1e-4)) << "value " << k;
            }
        }
        EXPECT_GT(f.fused().report().launches_forward, 0);
    }
}

TEST(Export, WrongFiles) {
    for (const auto& [file, what] : std::vector<std::pair<std::string, std::string>>{
             {"missing.pt2", "missing.pt2: no such file"},
             {".", "is no file"},
             {"text.pt2.bad", "text.pt2.bad: isn't a .pt2: "},
             {"empty.pt2.bad", "empty.pt2.bad: isn't a .pt2: "},
             {"format.pt2.bad", "isn't a .pt2 but another archive"},
             {"model.pt2.bad", "holds no exported program"},
             {"newer.pt2.bad", "schema version 99."},
             {"newer.pt2.bad", "written by torch 7.0; this heddle reads 8"},
             {"op.pt2.bad", "torch.ops.aten.weave.default: this PyTorch has no such op"},
             {"number.pt2.bad", "math.cosh: isn't supported"},
             {"weights.pt2.bad", "data/weights/weight_0"},
         }) {
        const std::string path = (exports() / file).string();
        std::string error = one_line_error([&] { load(path); });
        EXPECT_THAT(error, HasSubstr(what));
        EXPECT_THAT(error, ::testing::StartsWith(path));
    }
}
TEST(Export, WrongInputs) {
    Exported f = loaded("sizes.pt2"), pairs = loaded("pairs.pt2"), integers = loaded("integers.pt2");
    auto t = [](std::vector<std::int64_t> s, at::ScalarType type = at::kFloat) { return at::rand(s, at::kDouble).to(type); };
    auto error = [](const Exported& g, const Tensors& in) { return one_line_error([&] { g(in); }); };
    EXPECT_THAT(error(f, {t({4, 3})}), HasSubstr("sizes.pt2: got 1 inputs, expected 2 (x, pairs)"));
    EXPECT_THAT(error(f, {t({4, 3}, at::kDouble), t({8, 3})}), HasSubstr("input x: got f64, expected f32"));
    EXPECT_THAT(error(f, {t({4}), t({8, 3})}), HasSubstr("input x: got 1 dimensions, expected 2"));
    EXPECT_THAT(error(f, {t({4, 5}), t({8, 3})}), HasSubstr("input x: size 1 is 5, expected 3"));
    EXPECT_THAT(error(f, {t({4, 3}), t({9, 3})}), ::testing::ContainsRegex("input pairs: size 0 is 9, expected 2\\*s[0-9]+ = 8"));
    EXPECT_THAT(error(f, {t({65, 3}), t({130, 3})}), ::testing::ContainsRegex("input x: size 0 is 65, expected s[0-9]+ with s[0-9]+ from 0 to 64"));
    EXPECT_THAT(error(f, {t({4, 3}), Tensor()}), HasSubstr("input pairs: is undefined"));
    EXPECT_THAT(error(pairs, {t({9})}), ::testing::ContainsRegex("input x: size 0 is 9, expected 8\\*s[0-9]+"));
    EXPECT_THAT(error(integers, {t({4, 3}), t({1})}), HasSubstr("input shift: got f32, expected i64"));
    EXPECT_EQ(error(f, {t({4, 3}), t({8, 3})}), "none");
}
// Whatever became of a file on its way, it's read or refused in one line.
TEST(Export, DamagedFiles) {
    const std::filesystem::path file = exports() / "damaged.pt2.bad";
    std::ifstream in(exports() / "ties.pt2", std::ios::binary);
    const std::string whole{std::istreambuf_iterator<char>(in), {}};
    std::mt19937 random(7);
    int refused = 0;
    for (int k = 0; k < 300; ++k) {
        std::string bytes = whole;
        if (k % 3 == 0) bytes.resize(random() % bytes.size());
        else
            for (int i = 0; i < (k % 3 == 1 ? 1 : 20); ++i) bytes[random() % bytes.size()] = static_cast<char>(random());
        std::ofstream(file, std::ios::binary) << bytes;
        std::string error = one_line_error([&] { load(file.string()).example(); });
        if (error == "none") continue;
        EXPECT_THAT(error, ::testing::StartsWith(file.string()));
        ++refused;
    }
    EXPECT_GT(refused, 200);
}

}  // namespace
}  // namespace heddle::testing
