// heddle::load computes what Python computes with the module that was exported, and trains it as Python does.
#include "frontends/export/load.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

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

constexpr const char* kCases[] = {"mlp", "batch_norm", "masks", "planes", "regions", "arguments", "convolutions", "sizes", "pairs", "writes", "ties", "integers", "branches", "draws", "attention"};
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
    }
}

}  // namespace
}  // namespace heddle::testing
