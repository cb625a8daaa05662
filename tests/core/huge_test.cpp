// More than 2^31 elements, by index arithmetic: buffers are zero pages, and only the first and the last points of each nest are computed.
// Law: every form of addressing is here, on LLVM and as CUDA text on the CPU; what is written has a closed form.
#include <fmt/format.h>

#include <set>

#include "codegen/cuda/cuda.h"
#include "passes/pipeline.h"
#include "tests/core/arrays.h"
#include "tests/core/nest_builder.h"

namespace heddle {
namespace {

constexpr std::int64_t kN = (std::int64_t{1} << 31) + 11, kHalf = (std::int64_t{1} << 30) + 3;  // both prime
constexpr std::int64_t kWindow = 4096;  // elements at either end of an input that aren't zero

double x_at(std::int64_t i) { return static_cast<double>(i % 1009) * 0.5; }
// What the index inputs hold: rows at both ends, one of them twice.
std::int64_t row_at(std::int64_t k, std::int64_t rows) { return k == 5 ? rows - 1 : k % 2 == 0 ? rows - 1 - k : k; }

struct Form {
    const char* name;
    std::int64_t n;
    V (*of)(Graph&, Dim n);
    double (*want)(std::int64_t i, std::int64_t n);  // element i of the result
    std::vector<std::int64_t> between = {};          // places to look at besides the first and the last
};
void PrintTo(const Form& f, std::ostream* out) { *out << f.name; }
V vector(Graph& g, Shape s) { return g.value(g.input({DType::f32, std::move(s)}, "x" + std::to_string(g.inputs.size()))); }
V places(Graph& g) { return g.value(g.input({DType::i64, {8}}, "index")); }

const Form kForms[] = {
    {"map", kN, [](Graph& g, Dim n) { return vector(g, {n}) * 2 + 1; }, [](std::int64_t i, std::int64_t) { return x_at(i) * 2 + 1; }},
    {"flip", kN, [](Graph& g, Dim n) { return flip(vector(g, {n}), 0) + 1; }, [](std::int64_t i, std::int64_t n) { return x_at(n - 1 - i) + 1; }},
    {"pad", kN, [](Graph& g, Dim n) { return pad(vector(g, {n}), 0, 3, 5) + 1; }, [](std::int64_t i, std::int64_t n) { return i < 3 || i >= n + 3 ? 1 : x_at(i - 3) + 1; }, {3, kN + 2}},
    {"slice", kN, [](Graph& g, Dim n) { return slice(vector(g, {n}), 0, 7, n) + 1; }, [](std::int64_t i, std::int64_t) { return x_at(i + 7) + 1; }},
    {"neighbours", kN, [](Graph& g, Dim n) {
        V x = vector(g, {n});
        return slice(x, 0, 1, n) - slice(x, 0, 0, n - 1);
    }, [](std::int64_t i, std::int64_t) { return x_at(i + 1) - x_at(i); }},
    {"concat", kHalf, [](Graph& g, Dim n) {
        V x = vector(g, {n});
        return concat({x, x * 2}, 0) + 1;
    }, [](std::int64_t i, std::int64_t n) { return i < n ? x_at(i) + 1 : x_at(i - n) * 2 + 1; }},
    {"columns", kHalf, [](Graph& g, Dim n) { return permute(vector(g, {n, 2}), {1, 0}) + 1; }, [](std::int64_t i, std::int64_t n) { return x_at(2 * (i % n) + i / n) + 1; }},
    {"broadcast", kHalf, [](Graph& g, Dim n) {
        const Shape s{n, 3};
        V x = vector(g, {n});
        return expand(x, {1}, s) + expand(vector(g, {3}), {0}, s);
    }, [](std::int64_t i, std::int64_t) { return x_at(i / 3) + x_at(i % 3); }},
    {"reshape", kHalf, [](Graph& g, Dim n) { return permute(reshape(vector(g, {n * 3}), {n, 3}), {1, 0}) + 1; }, [](std::int64_t i, std::int64_t n) { return x_at(3 * (i % n) + i / n) + 1; }},
    {"sum of rows", kN / 40 + 2, [](Graph& g, Dim n) { return sum(vector(g, {n, 40}) * 2, {1}); }, [](std::int64_t i, std::int64_t) {
        double s = 0;
        for (int k = 0; k < 40; ++k) s += 2 * x_at(40 * i + k);
        return s;
    }},
    {"scan of rows", kHalf, [](Graph& g, Dim n) {
        V x = vector(g, {n, 3});
        return scan(like(x, 1), x, 1, 0, false, 0);
    }, [](std::int64_t i, std::int64_t) {
        double s = 0;
        for (std::int64_t k = i / 3 * 3; k <= i; ++k) s += x_at(k);
        return s;
    }},
    {"gather", kN, [](Graph& g, Dim n) {
        V x = vector(g, {n});
        return gather(x, {places(g)});
    }, [](std::int64_t i, std::int64_t n) { return x_at(row_at(i, n)); }, {1, 2, 3, 4, 5, 6}},
    {"gather of rows", kHalf, [](Graph& g, Dim n) {
        V x = vector(g, {n, 3});
        return gather(x, {places(g)});
    }, [](std::int64_t i, std::int64_t n) { return x_at(row_at(i / 3, n) * 3 + i % 3); }, {1, 2, 3, 4, 5, 6, 7, 8, 16, 17}},
    {"scatter add", kN, [](Graph& g, Dim n) {
        V v = vector(g, {8});
        return scatter_add({DType::f32, {n}}, {places(g)}, v);
    }, [](std::int64_t i, std::int64_t n) {
        double s = 0;
        for (int k = 0; k < 8; ++k) s += row_at(k, n) == i ? x_at(k) : 0;
        return s;
    }, {1, 3, kN - 1, kN - 3, kN - 5, kN - 7}},
};

class Huge : public testing::TestWithParam<Form> {
protected:
    // Buffers of a launch, each in a span of address space.
    struct Buffer {
        DType dtype;
        std::int64_t elements;
        char* data;
    };
    void SetUp() override {
        const Form& f = GetParam();
        sizes_ = {{"N", f.n}};
        graph_.name = f.name;
        graph_.outputs = {f.of(graph_, Dim::symbol("N")).id};
        plan_ = plan(graph_);
        ASSERT_EQ(plan_.loops.size(), 1u);
        for (const loop::Nest& n : plan_.loops[0]) {
            ASSERT_EQ(n.stage, 0);
            for (const loop::Buffer& b : n.buffers) add(b);
        }
    }
    void add(const loop::Buffer& b) {
        if (buffers_.contains(b.id)) return;
        const std::int64_t n = numel(plan_.program.graph.type(b.id).shape).eval(sizes_);
        Buffer& buffer = buffers_[b.id] = {b.dtype, n, nullptr};
        order_.push_back(b.id);
        place(buffer, order_.size() - 1);
        if (b.written || b.accumulated) {
            output_ = b.id;
            return;
        }
        for (std::int64_t i = 0; i < n; i = i + 1 == std::min(n, kWindow) && n > 2 * kWindow ? n - kWindow : i + 1) {
            if (b.dtype == DType::i64) reinterpret_cast<std::int64_t*>(buffer.data)[i] = row_at(i, GetParam().n);
            else reinterpret_cast<float*>(buffer.data)[i] = static_cast<float>(x_at(i));
        }
    }
    static void place(Buffer& b, std::size_t k) {
        const auto size = static_cast<std::size_t>(b.elements * bytes(b.dtype));
        b.data = cuda_on_cpu::place(k, size);
        cuda_on_cpu::forget(k, size);
    }
    void expect_result() const {
        const Buffer& out = buffers_.at(output_);
        std::vector<std::int64_t> at = GetParam().between;
        at.insert(at.end(), {0, out.elements - 1});
        for (std::int64_t i : at) EXPECT_EQ(static_cast<double>(reinterpret_cast<const float*>(out.data)[i]), GetParam().want(i, GetParam().n)) << "element " << i << " of " << out.elements;
    }
    Graph graph_;
    Plan plan_;
    Sizes sizes_;
    std::map<Id, Buffer> buffers_;
    std::vector<Id> order_;
    Id output_ = -1;
};
INSTANTIATE_TEST_SUITE_P(Forms, Huge, testing::ValuesIn(kForms), [](const auto& i) {
    std::string s = i.param.name;
    std::replace(s.begin(), s.end(), ' ', '_');
    return s;
});

TEST_P(Huge, OnLlvm) {
    NEEDS_LLVM();
    const auto& nests = plan_.loops[0];
    const auto functions = load_cpu_backend(nullptr)->compile("huge", nests, nullptr);
    for (std::size_t k = 0; k < nests.size(); ++k) {
        std::vector<void*> pointers;
        std::vector<std::int64_t> values, outer;
        for (const loop::Buffer& b : nests[k].buffers) pointers.push_back(buffers_.at(b.id).data);
        for (const auto& s : nests[k].sizes) values.push_back(sizes_.at(s));
        for (const Dim& d : nests[k].outer) outer.push_back(d.eval(sizes_));
        const std::int64_t all = units(nests[k], outer.data());
        functions[k](pointers.data(), values.data(), 0, 1);
        if (all > 1) functions[k](pointers.data(), values.data(), std::max<std::int64_t>(1, all - 2), all);
    }
    expect_result();
}
TEST_P(Huge, AsCudaText) {
    const CudaSource s = cuda_text("huge", plan_.loops[0], {.wide_index = true});
    bool narrow = s.fits_narrow(sizes_);
    for (const auto& [id, b] : buffers_) narrow &= b.elements < std::int64_t{1} << 31;
    EXPECT_FALSE(narrow) << "32-bit indices would run";
    std::vector<cuda_on_cpu::Buffer> buffers;
    for (std::size_t k = 0; k < s.buffers.size(); ++k) {  // in the order of arguments, where the machine looks for them
        ASSERT_EQ(s.buffers[k], order_[k]);
        const Buffer& b = buffers_.at(s.buffers[k]);
        buffers.push_back({fmt::format("b{}", k), b.dtype, b.data, static_cast<std::size_t>(b.elements * bytes(b.dtype))});
    }
    std::vector<std::int64_t> values;
    for (const auto& name : s.sizes) values.push_back(sizes_.at(name));
    cuda_on_cpu::Grid grid{static_cast<unsigned>(s.blocks(sizes_)), static_cast<unsigned>(s.threads)};
    std::int64_t first = 0;
    for (std::size_t k = 0; k < plan_.loops[0].size(); ++k) {
        const std::int64_t n = s.blocks(sizes_, k);
        for (std::int64_t b : std::set{std::int64_t{0}, std::max<std::int64_t>(0, n - 2), n - 1}) grid.only.push_back(static_cast<unsigned>(first + b));
        first += n;
    }
    cuda_on_cpu::run(*cuda_on_cpu::compile({{s.kernel, s.text}})[0], grid, buffers, values, 1);
    expect_result();
}

}  // namespace
}  // namespace heddle
