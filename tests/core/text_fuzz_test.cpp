// The parser of graphs against text that is no graph: bytes of real texts are changed, cut, doubled, mixed, and what the grammar knows put in.
// Law: an Error of one line, or a graph that the verifier accepts and that prints back to itself; never a crash, a hang, or memory without bound.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <chrono>
#include <cstdlib>
#include <random>

#include "ir/text.h"
#include "ir/verify.h"
#include "tests/core/fuzz.h"
#include "tests/core/op_graphs.h"

namespace heddle {
namespace {

std::vector<std::string> corpus() {
    std::vector<std::string> all;
    for (int k = 0; k < kOps; ++k)
        if (Graph g = op_graph(static_cast<Op>(k), DType::f32); g.size() > 0) all.push_back(print(g));
    for (unsigned seed = 1; seed <= 20; ++seed) {
        const fuzz::Woven w(fuzz::weave(seed));
        for (const Graph* g : {&w.graph, &w.pair.split.forward, &w.pair.split.backward}) all.push_back(print(*g));
    }
    all.push_back("graph @f(%0 \"in0\": f32[B, 41]) {\n  %1 = aten.cat.default %0, %0, tensors=[$0, $1], dim=-1 : f32[B, 82]  # file.py:3\n"
                  "  %2 = aten.max.dim %1, self=$0, dim=1, keepdim=false, s=\"a\\\"b\", l=[1.0, -0.0], n=none : f32[B], i64[B]\n  %3 = result %2, index=1 : i64[B]\n  return %2, %3\n}\n");
    return all;
}
constexpr const char* kWords[] = {"[", "]", "[[", "(", "{", "}", "%", "%-1", "%0", "%99999999999", ":", "$", "$-1", "$7", ",", "=", "\"", "\\", "#", "\n", "none", "true", "nan", "-inf", "1e999", "-0.0",
                                  "0x1p3", "-1", "2147483648", "999999999999999999", "*999999999999999999", "9223372036854775808", "*B*B*B*B", "f32[", "f32[-3]", "b1[]", "axis=-1", "axis=4294967296", "axes=[0, 0]",
                                  "k=-1", "k=0", "index=-1", "gather", "concat", "scatter_add", "iota", "size", "result", "input", "call", "return", "graph", "\x00", "\xff\xfe", "aten.x", ".", "name=\"a.b\"",
                                  "f32[A+C, D+E, F+G, H+I, J+K, L+M, O+P, Q+R, S+T, U+V, W+X, Y+Z, a+b, c+d, e+f, g+h, i+j]"};

std::string mutated(const std::vector<std::string>& from, std::mt19937& rng) {
    auto pick = [&](std::size_t n) { return n ? rng() % n : 0; };
    std::string s = from[pick(from.size())];
    for (std::size_t changes = pick(2) ? 1 : 1 + pick(4); changes > 0; --changes) {
        const std::size_t at = pick(s.size() + 1), n = std::min(s.size() - at, pick(2) ? pick(8) : pick(120));
        switch (pick(7)) {
            case 0: s.insert(at, kWords[pick(std::size(kWords))]); break;
            case 1: s.replace(at, n, kWords[pick(std::size(kWords))]); break;
            case 2: s.erase(at, n); break;
            case 3: s.insert(at, s.substr(at, n)); break;
            case 4: if (at < s.size()) s[at] = static_cast<char>(rng()); break;
            case 5: {
                const std::string& other = from[pick(from.size())];
                const std::size_t cut = pick(other.size());
                s = s.substr(0, at) + other.substr(cut, pick(200));
                break;
            }
            default: {  // lines change places
                const std::size_t end = s.find('\n', at);
                if (end == s.npos) break;
                const std::string moved = s.substr(at, end - at + 1);
                s.erase(at, moved.size());
                s.insert(pick(s.size() + 1), moved);
            }
        }
    }
    return s;
}
// What became of it: the error, or "" for a graph.
std::string read(const std::string& text) {
    try {
        const Graph g = parse(text);
        verify(g, "parse");
        const std::string again = print(g);
        if (parse(again) != g) throw std::runtime_error("prints to another graph:\n" + again);
        return "";
    } catch (const Error& e) {
        const std::string what = e.what();
        if (what.empty() || what.find('\n') != what.npos) throw std::runtime_error("not one line: " + what);
        return what;
    }
}
long peak_kib() {
    rusage use{};
    getrusage(RUSAGE_SELF, &use);
    return use.ru_maxrss;
}

TEST(TextFuzz, AnErrorOfOneLineOrAGraph) {
    auto variable = [](const char* name, long otherwise) { return std::getenv(name) ? std::atol(std::getenv(name)) : otherwise; };
    const long first = variable("HEDDLE_SEED", 1), count = variable("HEDDLE_SEEDS", 20000);
    const auto from = corpus();
    const long before = peak_kib();
    long errors = 0, graphs = 0;
    double slowest = 0;
    for (long seed = first; seed < first + count; ++seed) {
        std::mt19937 rng(static_cast<unsigned>(seed));
        const std::string text = mutated(from, rng);
        const auto start = std::chrono::steady_clock::now();
        try {
            read(text).empty() ? ++graphs : ++errors;
        } catch (const std::exception& e) {
            FAIL() << "input " << seed << ": " << e.what() << "\n" << text.substr(0, 4000) << "\nrun it again:\n  HEDDLE_SEED=" << seed
                   << " HEDDLE_SEEDS=1 build/full/core_tests --gtest_filter=TextFuzz.AnErrorOfOneLineOrAGraph";
        }
        slowest = std::max(slowest, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
    }
    fmt::print("text: {} inputs from seed {}: {} errors, {} graphs, slowest {:.3f} s, {} MiB more memory\n", count, first, errors, graphs, slowest, (peak_kib() - before) / 1024);
    if (count >= 1000) {
        EXPECT_GT(errors, count / 4);
        EXPECT_GT(graphs, count / 100) << "too few get past the parser";
    }
    EXPECT_LT(slowest, 2);
    EXPECT_LT(peak_kib() - before, 256 * 1024);
}

// The smallest cases of what was found, each with what it is told.
struct Bad {
    const char* name;
    std::string line, error;
};
std::ostream& operator<<(std::ostream& o, const Bad& b) { return o << b.name; }
struct BadLine : ::testing::TestWithParam<Bad> {};
TEST_P(BadLine, IsAnError) {
    const std::string text = "graph @f(%0 \"x\": f32[B, 3], %1 \"i\": i64[B]) {\n  " + GetParam().line + "\n  return %0\n}\n";
    EXPECT_EQ(read(text), GetParam().error) << text.substr(0, 400);
}
std::string sums(int n) {
    std::string s;
    for (int k = 0; k < n; ++k) s += fmt::format("{}A{}+B{}", k ? ", " : "", k, k);
    return s;
}
INSTANTIATE_TEST_SUITE_P(TextFuzz, BadLine, ::testing::Values(
    Bad{"NestedLists", "%2 = neg %0, a=" + std::string(1 << 20, '[') + " : f32[B, 3]", "2:19: expected sizes, reals or operands in this list"},
    Bad{"NoGroups", "%2 = scatter_add %1, %0, k=-1 : f32[B, 3]", "2:3: scatter_add: k is at least 1"},
    Bad{"NothingGathered", "%2 = gather : f32[B, 3]", "2:3: gather: expected x and indices"},
    Bad{"AxisOutside", "%2 = iota axis=1 : i64[B]", "2:3: iota: axis 1 is outside i64[B]"},
    Bad{"AxisOver32Bits", "%2 = flip %0, axis=4294967296 : f32[B, 3]", "2:3: flip: attribute axis is 4294967296, expected an integer"},
    Bad{"NoValue", "%2 = constant : f32[]", "2:3: constant: attribute value is missing"},
    Bad{"NegativeSize", "%2 = constant value=1.0 : f32[-3]", "2:3: constant: size -3 of f32[-3] is negative"},
    Bad{"SizeOver64Bits", "%2 = constant value=1.0 : f32[999999999999999999*999999999999999999]", "2:33: expected a size"},
    Bad{"NumelOver64Bits", "%2 = reshape %0 : f32[999999999999, 999999999999]", "2:3: a size is over 64 bits"},
    Bad{"ManyTerms", "%2 = reshape %0 : f32[" + sums(40) + "]", "2:3: a size has too many terms"},
    Bad{"Twice", "%2 = aten.x.y %0, name=\"a.b\" : f32[B]", "2:21: expected an attribute other than name, which is given"},
    Bad{"NegativeOperand", "%2 = aten.x.y %0, self=$-3 : f32[B]", "2:29: expected the number of an operand"},
    Bad{"MixedList", "%2 = aten.x.y %0, self=[$0, 3] : f32[B]", "2:33: expected operands only in this list"}),
    [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace heddle
