// Plans compiled for CUDA: compiling takes no device; where there is one, runs give the values of the interpreter.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "ir/eval.h"
#include "ir/text.h"
#include "passes/pipeline.h"
#include "runtime/device.h"
#include "runtime/executable.h"
#include "runtime/nvrtc.h"

namespace heddle::test {
namespace {

// Rows gathered, summed up per row and over all; backward they are scattered.
Pair example() {
    Graph g;
    g.name = "example";
    Dim M = Dim::symbol("M"), H = Dim::symbol("H");
    V plane = g.value(g.input({DType::f32, {24, H, 5}}, "plane")), x = g.value(g.input({DType::f32, {M}}, "x"));
    V i = cast(floor(x * size(g, Type(x.type()), H - 1)), DType::i64), j = cast(floor(x * 4), DType::i64);
    V rows = gather(permute(plane, {1, 2, 0}), {i, j}) * expand(x, {1}, {M, 24});
    g.outputs = {sum(rows, {1}).id, sum(rows * rows, {0, 1}).id};
    return forward_and_backward(g, {1, 1}, {});
}

class DeviceHost final : public Host {
public:
    bool cuda() const override { return true; }
    Array allocate(DType t, const Extents& sizes) override {
        Array a{nullptr, t, sizes, false, {}};
        a.owner = make_owned<DeviceMemory>(static_cast<std::size_t>(a.bytes()));
        a.data = static_cast<DeviceMemory*>(a.owner.get())->data();
        return a;
    }
    void dot(const std::vector<Array>&, const Array&, bool) override { throw Error("dot: no library here"); }
    std::vector<Array> call(const Node& n, const std::vector<Array>&, const Sizes&) override { throw Error("call " + n.text("name") + ": no library here"); }
};
template <class T>
Array upload_as(Host& host, const Tensor& t) {
    std::unique_ptr<T[]> values(new T[t.data.size() + 1]);  // a vector<bool> has no elements to point to
    std::copy(t.data.begin(), t.data.end(), values.get());
    Array a = host.allocate(t.dtype, t.sizes);
    static_cast<DeviceMemory*>(a.owner.get())->upload(values.get());
    return a;
}
Array upload(Host& host, const Tensor& t) {
    return t.dtype == DType::b1 ? upload_as<bool>(host, t) : t.dtype == DType::i64 ? upload_as<std::int64_t>(host, t) : upload_as<float>(host, t);
}
template <class T>
std::vector<double> download_as(const Array& a) {
    std::unique_ptr<T[]> values(new T[static_cast<std::size_t>(a.numel()) + 1]);
    static_cast<DeviceMemory*>(a.owner.get())->download(values.get());
    return {values.get(), values.get() + a.numel()};
}
std::vector<double> download(const Array& a) {
    return a.dtype == DType::b1 ? download_as<bool>(a) : a.dtype == DType::i64 ? download_as<std::int64_t>(a) : download_as<float>(a);
}

bool no_nvrtc() { return !Nvrtc().available(); }

TEST(CudaExecutable, CompilesWithoutADevice) {
    if (no_nvrtc()) GTEST_SKIP() << "no NVRTC";
    Executable e(plan(example().split.backward, {}, {.machine = Machine::cuda}), {.arch = "sm_90"});
    ASSERT_FALSE(e.texts().empty());
    for (const auto& [file, text] : e.texts()) {
        EXPECT_THAT(file, testing::EndsWith(".cu"));
        EXPECT_THAT(text, testing::HasSubstr("__global__"));
    }
}
TEST(CudaExecutable, RefusesMemoryOfTheCpu) {
    if (no_nvrtc()) GTEST_SKIP() << "no NVRTC";
    Executable e(plan(example().split.forward, {}, {.machine = Machine::cuda}), {.arch = "sm_90"});
    auto host = plain_host();
    Sizes sizes;
    try {
        e.run(*host, {host->allocate(DType::f32, {24, 2, 5}), host->allocate(DType::f32, {1})}, sizes);
        FAIL() << "ran";
    } catch (const Error& error) {
        EXPECT_THAT(error.what(), testing::HasSubstr("compiled for sm_90, but the host's memory isn't on a CUDA device"));
    }
}
TEST(CudaExecutable, EqualsTheInterpreter) {
    if (!cuda_available()) GTEST_SKIP() << cuda_why_not();
    Target target{device_info().arch, 0};
    Pair pair = example();
    Executable forward(plan(pair.split.forward, {}, {.machine = Machine::cuda}), target), backward(plan(pair.split.backward, {}, {.machine = Machine::cuda}), target);
    for (const Sizes& sizes : {Sizes{{"M", 3000}, {"H", 6}}, Sizes{{"M", 1}, {"H", 2}}, Sizes{{"M", 0}, {"H", 4}}}) {
        DeviceHost host;
        std::mt19937 rng(3);
        std::uniform_real_distribution<float> u(0.1f, 0.9f);
        auto random = [&](const Type& t) {
            Tensor r{t.dtype, {}, {}};
            for (const Dim& d : t.shape) r.sizes.push_back(d.eval(sizes));
            for (std::int64_t k = 0; k < r.numel(); ++k) r.data.push_back(u(rng));
            return r;
        };
        auto run = [&](Executable& e, const Graph& g, const std::vector<Tensor>& in) {
            std::vector<Array> arrays;
            for (const Tensor& t : in) arrays.push_back(upload(host, t));
            auto want = evaluate(g, in);
            Sizes bound;
            auto got = e.run(host, arrays, bound);
            for (std::size_t k = 0; k < want.size(); ++k) {
                double scale = 1;
                for (double v : want[k].data) scale = std::max(scale, std::abs(v));
                auto values = download(got[k]);
                for (std::size_t i = 0; i < values.size(); ++i) EXPECT_NEAR(want[k].data[i], values[i], 1e-5 * scale) << g.name << " output " << k << " element " << i;
            }
            return want;
        };
        std::vector<Tensor> in, back;
        const Graph& f = pair.split.forward;
        for (Id i : f.inputs) in.push_back(random(f.type(i)));
        auto out = run(forward, f, in);
        for (const auto& s : pair.split.backward_inputs) {
            auto i = static_cast<std::size_t>(s.index);
            if (s.from == Split::Source::From::input) back.push_back(in[i]);
            else if (s.from == Split::Source::From::saved) back.push_back(out[out.size() - pair.split.saved + i]);
            else back.push_back(random(f.type(f.outputs[i])));
        }
        run(backward, pair.split.backward, back);
    }
}

}  // namespace
}  // namespace heddle::test
