// Golden files: what each pass makes of small graphs and of HexPlane's parts, as text. Law: a file holds its input first, and all of it comes
// back from that input. HEDDLE_REWRITE_GOLDEN=1 core_tests --gtest_filter='Golden*' writes the files anew; look at the diff before it's kept.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "ir/text.h"
#include "passes/pipeline.h"
#include "tests/core/golden.h"

namespace heddle {
namespace {

using namespace golden;

std::vector<std::string> files(const std::string& folder) {
    std::vector<std::string> all;
    for (const auto& f : fs::directory_iterator(kFolder / folder)) all.push_back(folder + "/" + f.path().filename().string());
    std::sort(all.begin(), all.end());
    return all;
}
std::string test_name(const testing::TestParamInfo<std::string>& i) {
    const std::string s = fs::path(i.param).stem().string();
    return s;
}
Graph unlocated(Graph g) {
    for (Node& n : g.nodes) n.loc.clear();
    return g;
}

// Each stage that differs from the one before, of a graph whose inputs of float type all want gradients; programs at the end.
std::string stages(const Graph& g, bool passes) {
    std::string before = print(g), out;
    auto watch = [&](const char* where) {
        return [&out, &before, where, passes](std::string_view pass, const Graph& now) {
            const std::string text = print(now);
            if (passes && text != before) out += fmt::format("\n# {}{}\n{}", where, pass, text);
            before = text;
        };
    };
    std::vector<char> wants;
    for (Id i : g.inputs) wants.push_back(is_float(g.type(i).dtype));
    const Pair pair = forward_and_backward(g, wants, {}, watch(""));
    auto direction = [&](const char* where, const Graph& half) {
        before = print(half);
        if (passes) out += fmt::format("\n# {}partition\n{}", where, before);
        const Plan p = plan(half, watch(where));
        out += fmt::format("\n# {}fuse\n{}", where, print(p.program));
        if (!passes) out += fmt::format("\n# {}fuse for CUDA\n{}", where, print(plan(half, {}, {.machine = Machine::cuda}).program));
    };
    direction("forward: ", pair.split.forward);
    if (pair.has_backward) direction("backward: ", pair.split.backward);
    return out;
}

class GoldenPasses : public testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(Golden, GoldenPasses, testing::ValuesIn(files("passes")), test_name);
TEST_P(GoldenPasses, ComeBack) {
    const std::string was = contents(kFolder / GetParam()), heading = was.substr(0, was.find('\n') + 1);
    const std::string input = section(was, "input");
    expect(GetParam(), heading + "\n# input\n" + input + stages(parse(input), true));
}

// Lowered graphs as `heddle dump hexplane --scale tiny` writes them, and what becomes of them.
class GoldenModels : public testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(Golden, GoldenModels, testing::ValuesIn(files("hexplane")), test_name);
TEST_P(GoldenModels, ComeBack) {
    const std::string was = contents(kFolder / GetParam()), heading = was.substr(0, was.find('\n') + 1);
    const std::string input = section(was, "lowered");
    expect(GetParam(), heading + "\n# lowered\n" + input + stages(unlocated(parse(input)), false));
}

// The derivative of every library call that passes/calls.def names, and of one that it doesn't.
TEST(GoldenCalls, ComeBack) {
    const std::string name = "calls.hir", was = contents(kFolder / name);
    std::string now = was.substr(0, was.find('\n') + 1);
    std::vector<std::string> covered;
    for (std::size_t at = was.find("\n# call "); at != std::string::npos; at = was.find("\n# call ", at + 1)) {
        const std::string title = was.substr(at + 3, was.find('\n', at + 1) - at - 3);
        const std::string input = section(was, title);
        const Graph g = parse(input);
        std::vector<char> wants;
        for (Id i : g.inputs) wants.push_back(is_float(g.type(i).dtype));
        for (const Node& n : g.nodes)
            if (n.is(Op::call)) covered.push_back(n.text("name"));
        now += fmt::format("\n# {}\n{}\n# derivative\n{}", title, input, print(differentiate(g, wants).graph));
    }
    expect(name, now);
    for (const char* call : {
#define BACKWARD(forward, ...) forward,
#define SELECTS(forward) forward,
#include "passes/calls.def"
#undef BACKWARD
#undef SELECTS
         })
        EXPECT_NE(std::find(covered.begin(), covered.end(), call), covered.end()) << call << " has no graph in tests/golden/" << name;
}

TEST(GoldenDiff, IsUnified) {
    EXPECT_EQ(unified_diff("f", "a\nb\nc\nd\ne\nf\n", "a\nb\nc\nD\ne\nf\n"), "--- tests/golden/f\n+++ now\n@@ -1,6 +1,6 @@\n a\n b\n c\n-d\n+D\n e\n f\n");
    EXPECT_EQ(unified_diff("f", "1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n11\n12\n", "1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n11\n12\n13\n"), "--- tests/golden/f\n+++ now\n@@ -10,3 +10,4 @@\n 10\n 11\n 12\n+13\n");
}

}  // namespace
}  // namespace heddle
