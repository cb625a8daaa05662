// Files under tests/golden/: read by sections, compared, written anew with HEDDLE_REWRITE_GOLDEN=1. Law: a failure prints a unified diff.
#pragma once
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "ir/type.h"

namespace heddle::golden {

namespace fs = std::filesystem;
inline const fs::path kFolder = fs::path(HEDDLE_ROOT) / "tests/golden";

inline std::string contents(const fs::path& p) {
    std::stringstream s;
    s << std::ifstream(p).rdbuf();
    return s.str();
}
inline std::vector<std::string> lines(const std::string& s) {
    std::vector<std::string> all;
    std::stringstream in(s);
    for (std::string l; std::getline(in, l);) all.push_back(l);
    return all;
}

// The change from a to b as `diff -u` prints it, by the longest common subsequence.
inline std::string unified_diff(const std::string& name, const std::string& a, const std::string& b) {
    const auto x = lines(a), y = lines(b);
    std::size_t head = 0, tail = 0;
    while (head < std::min(x.size(), y.size()) && x[head] == y[head]) ++head;
    while (tail < std::min(x.size(), y.size()) - head && x[x.size() - 1 - tail] == y[y.size() - 1 - tail]) ++tail;
    const std::size_t n = x.size() - head - tail, m = y.size() - head - tail;
    std::vector<std::vector<int>> common(n + 1, std::vector<int>(m + 1));
    for (std::size_t i = n; i-- > 0;)
        for (std::size_t j = m; j-- > 0;) common[i][j] = x[head + i] == y[head + j] ? common[i + 1][j + 1] + 1 : std::max(common[i + 1][j], common[i][j + 1]);
    struct Step {
        char sign;
        std::size_t i, j;  // lines of x and y before it
    };
    std::vector<Step> steps;
    for (std::size_t i = 0; i < head; ++i) steps.push_back({' ', i, i});
    std::size_t i = 0, j = 0;
    while (i < n || j < m) {
        if (i < n && j < m && x[head + i] == y[head + j]) steps.push_back({' ', head + i, head + j}), ++i, ++j;
        else if (i < n && (j == m || common[i + 1][j] >= common[i][j + 1])) steps.push_back({'-', head + i, head + j}), ++i;
        else steps.push_back({'+', head + i, head + j}), ++j;
    }
    for (std::size_t k = 0; k < tail; ++k) steps.push_back({' ', head + n + k, head + m + k});
    std::string out = fmt::format("--- tests/golden/{0}\n+++ now\n", name);
    constexpr std::size_t kAround = 3;
    for (std::size_t s = 0; s < steps.size();) {
        while (s < steps.size() && steps[s].sign == ' ') ++s;
        if (s == steps.size()) break;
        std::size_t first = s > kAround ? s - kAround : 0, last = s, quiet = 0;
        while (last < steps.size() && quiet <= 2 * kAround) quiet = steps[last++].sign == ' ' ? quiet + 1 : 0;
        if (quiet > kAround) last -= quiet - kAround;
        std::size_t of_x = 0, of_y = 0;
        std::string hunk;
        for (std::size_t k = first; k < last; ++k) {
            const Step& step = steps[k];
            of_x += step.sign != '+', of_y += step.sign != '-';
            hunk += step.sign + (step.sign == '+' ? y[step.j] : x[step.i]) + "\n";
        }
        out += fmt::format("@@ -{},{} +{},{} @@\n{}", steps[first].i + 1, of_x, steps[first].j + 1, of_y, hunk);
        s = last;
    }
    return out;
}

// The sections of a file: what follows "# name" up to the next.
inline std::string section(const std::string& text, const std::string& name) {
    const std::string title = "# " + name + "\n";
    auto at = text.find(title);
    if (at == std::string::npos) throw Error("no section " + name);
    at += title.size();
    const auto end = text.find("\n# ", at);
    return text.substr(at, end == std::string::npos ? end : end - at);
}
inline void expect(const std::string& name, const std::string& now) {
    const fs::path file = kFolder / name;
    if (std::getenv("HEDDLE_REWRITE_GOLDEN")) {
        if (!fs::exists(file) || contents(file) != now) std::ofstream(file) << now;
        return;
    }
    const std::string was = contents(file);
    EXPECT_TRUE(was == now) << unified_diff(name, was, now) << "If this is meant: HEDDLE_REWRITE_GOLDEN=1 core_tests --gtest_filter='Golden*'";
}

}  // namespace heddle::golden
