// Applies mutants, one forked process each; see mutants.h. Law: none is left out silently: what survives is printed and is a failure.
#include "tests/core/mutants.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstring>
#include <map>

namespace heddle::mutant {

namespace {

struct Outcome {
    std::string killer;  // a test, or how the process ended; empty: it survived
    double seconds = 0;
};
constexpr unsigned kLimit = 300;  // seconds that a mutant may hang

// Runs the tests of a filter in a child that has the mutant; returns who noticed.
Outcome trial(const std::function<void()>& apply, const std::string& filter) {
    auto start = std::chrono::steady_clock::now();
    int pipe_of[2];
    if (pipe(pipe_of) != 0) throw std::runtime_error("no pipe");
    std::fflush(nullptr);
    const pid_t child = fork();
    if (child == 0) {
        dup2(pipe_of[1], STDOUT_FILENO), dup2(pipe_of[1], STDERR_FILENO);
        close(pipe_of[0]), close(pipe_of[1]);
        alarm(kLimit);
        apply();
        GTEST_FLAG_SET(filter, filter);
        GTEST_FLAG_SET(fail_fast, true);
        int status = RUN_ALL_TESTS();
        std::fflush(nullptr);
        if (status == 0 && touched == 0) _exit(98);
        _exit(testing::UnitTest::GetInstance()->test_to_run_count() == 0 ? 99 : status != 0);
    }
    close(pipe_of[1]);
    std::string text;
    char buffer[4096];
    for (ssize_t n; (n = read(pipe_of[0], buffer, sizeof buffer)) > 0;) text.append(buffer, static_cast<std::size_t>(n));
    close(pipe_of[0]);
    int status = 0;
    waitpid(child, &status, 0);
    Outcome o;
    o.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return o;
    auto between = [&](const char* from, std::size_t at) {
        std::size_t begin = at + std::strlen(from);
        return text.substr(begin, text.find_first_of(",\n ", begin) - begin);
    };
    constexpr char kFailed[] = "[  FAILED  ] ", kRun[] = "[ RUN      ] ";
    if (WIFEXITED(status) && WEXITSTATUS(status) == 99) throw std::runtime_error("no test is named " + filter);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 98) throw std::runtime_error("the mutant changes no text of " + filter);
    if (auto at = text.find(kFailed); WIFEXITED(status) && at != std::string::npos) o.killer = between(kFailed, at);
    else if (at = text.rfind(kRun); at != std::string::npos) o.killer = between(kRun, at) + (WIFSIGNALED(status) ? WTERMSIG(status) == SIGALRM ? " (hangs)" : " (crashes)" : " (ends)");
    else o.killer = "the start of the tests";
    return o;
}

// Some of each kind, evenly.
std::vector<Mutant> sample(const std::vector<Mutant>& all) {
    const std::map<std::string, std::size_t> kHowMany{{"derivative", 8}, {"double", 4}, {"llvm", 5}, {"cuda", 4}, {"rule", 5}, {"calls", 4}};
    std::map<std::string, std::vector<const Mutant*>> of_kind;
    for (const Mutant& m : all)
        if (equivalent(m.name).empty()) of_kind[m.kind].push_back(&m);
    std::vector<Mutant> some;
    for (const auto& [kind, list] : of_kind)
        for (std::size_t k = 0, n = kHowMany.at(kind); k < n; ++k) some.push_back(*list[(2 * k + 1) * list.size() / (2 * n)]);
    return some;
}

}  // namespace

int touched = -1;

std::string equivalent(const std::string& name) {
    // A mutant's name ends with what it reads instead.
    static const std::pair<std::string_view, std::string_view> kWhy[] = {
        {"select(a >= a, b, a + b))", "asked where a isn't above b: false for a NaN alone, and where b is the NaN, b is the result"},
        {"select(a <= a, b, a + b))", "asked where a isn't below b: false for a NaN alone, and where b is the NaN, b is the result"},
        {"select(b >= a, b, a - b))", "only a NaN gets there, and its difference is NaN as its sum is"},
        {"select(b <= a, b, a - b))", "only a NaN gets there, and its difference is NaN as its sum is"},
        {"=> sign_(a) * select(fabs(a) >= 100000000, log(fabs(a)) + log1p(sign_(fabs(a))), log1p(fabs(a) + a * a / (1 + sqrt(1 + a * a))))", "both formulas agree at the threshold"},
        {"=> select(a >= 1e8, log(a) + 0.6931471805599453, log1p(a - 1 + sqrt(a - 1) * sqrt(a + 1)))", "both formulas agree at the threshold"},
    };
    const bool fold = name.starts_with("amax") || name.starts_with("amin");
    for (std::string_view end : {"select(a >= b, a, select(b >= a, b, a + b))", "select(a <= b, a, select(b <= a, b, a + b))"})
        if (fold && name.ends_with(end)) return "equal elements, of which either may be the extremum: zeros of two signs";
    for (const auto& [end, why] : kWhy)
        if (name.ends_with(end)) return std::string(why);
    return "";
}

int run(int argc, char** argv) {
    bool everything = false, first_only = false;
    std::string only, kind;
    for (int k = 1; k < argc; ++k) {
        const std::string_view a = argv[k];
        everything |= a == "--mutants=all" || a == "--all";
        first_only |= a == "--first";
        if (a.starts_with("--only=")) only = a.substr(7);
        if (a.starts_with("--kind=")) kind = a.substr(7);
    }
    std::vector<Mutant> mutants = rows();
    for (auto more : {rules(), kernels()}) mutants.insert(mutants.end(), more.begin(), more.end());
    if (!everything) mutants = sample(mutants);
    std::erase_if(mutants, [&](const Mutant& m) { return m.name.find(only) == std::string::npos || (!kind.empty() && m.kind != kind); });

    if (mutants.empty()) {
        fmt::print("no such mutant\n");
        return 1;
    }
    // None of the tests that are to notice is red by itself.
    std::string filters;
    for (const Mutant& m : mutants)
        if (filters.find(m.first + ":") == std::string::npos) filters += m.first + ":";
    if (Outcome right = trial([] {}, filters); !right.killer.empty()) {
        fmt::print("{} fails without a mutant\n", right.killer);
        return 1;
    }
    const bool bar = isatty(STDERR_FILENO);
    std::vector<std::string> survivors;
    std::size_t killed = 0, explained = 0, done = 0;
    double seconds = 0;
    for (const Mutant& m : mutants) {
        if (bar) fmt::print(stderr, "\r[{:<40}] {}/{}, {} survive ", std::string(40 * done / mutants.size(), '#'), done, mutants.size(), survivors.size());
        const std::string why = equivalent(m.name);
        Outcome o = trial(m.apply, m.first);
        if (o.killer.empty() && why.empty() && !first_only) {  // whoever else may notice
            Outcome rest = trial(m.apply, "-" + m.first);
            o.killer = rest.killer, o.seconds += rest.seconds;
        }
        ++done, seconds += o.seconds;
        if (!o.killer.empty() && why.empty()) ++killed;
        else if (o.killer.empty() && !why.empty()) ++explained;
        else survivors.push_back(m.name);
        if (bar) fmt::print(stderr, "\r{:90}\r", "");
        const std::string by = o.killer.empty() ? why.empty() ? "SURVIVES" : "survives: " + why : o.killer + (why.empty() ? "" : ", though said to be equivalent");
        fmt::print("{:<11}{:<90} {:<70} {:6.1f} s\n", m.kind, m.name, by, o.seconds);
        std::fflush(stdout);
    }
    fmt::print("{} mutants: {} killed, {} equivalent, {} survive; {:.0f} s\n", mutants.size(), killed, explained, survivors.size(), seconds);
    for (const std::string& s : survivors) fmt::print("  no test notices: {}\n", s);
    return survivors.empty() ? 0 : 1;
}

}  // namespace heddle::mutant
