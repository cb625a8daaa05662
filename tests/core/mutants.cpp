// Applies mutants, one forked process each; see mutants.h. Law: none is left out silently: what survives is printed and is a failure.
#include "tests/core/mutants.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstring>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>

namespace heddle::mutant {

namespace {

using Clock = std::chrono::steady_clock;

struct Outcome {
    std::string killer;  // a test, or how the process ended; empty: it survived
    double seconds = 0;
};
// A child that runs the tests of a filter, and what it prints.
struct Trial {
    pid_t child;
    int output;
    std::string filter;
    Clock::time_point start;
};
constexpr unsigned kLimit = 300;      // seconds of a CPU that a mutant may take
constexpr unsigned kPatience = 1500;  // seconds that it may take by the clock

Trial start(const std::function<void()>& apply, const std::string& filter, unsigned limits) {
    std::fflush(nullptr);
    Trial t{0, memfd_create("output", 0), filter, Clock::now()};
    if (t.output < 0 || (t.child = fork()) < 0) throw std::runtime_error("no file or process for a mutant");
    if (t.child != 0) return t;
    dup2(t.output, STDOUT_FILENO), dup2(t.output, STDERR_FILENO);
    const itimerval cpu{{}, {static_cast<time_t>(kLimit) * limits, 0}};
    setitimer(ITIMER_PROF, &cpu, nullptr), alarm(kPatience * limits);
    apply();
    GTEST_FLAG_SET(filter, filter);
    GTEST_FLAG_SET(fail_fast, true);
    const int status = RUN_ALL_TESTS();
    std::fflush(nullptr);
    if (status == 0 && touched == 0) _exit(98);
    _exit(testing::UnitTest::GetInstance()->test_to_run_count() == 0 ? 99 : status != 0);
}
// Who noticed.
Outcome judge(const Trial& t, int status) {
    Outcome o;
    o.seconds = std::chrono::duration<double>(Clock::now() - t.start).count();
    std::string text(static_cast<std::size_t>(lseek(t.output, 0, SEEK_END)), ' ');
    if (pread(t.output, text.data(), text.size(), 0) != static_cast<ssize_t>(text.size())) throw std::runtime_error("can't read what a mutant printed");
    close(t.output);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return o;
    auto between = [&](const char* from, std::size_t at) {
        std::size_t begin = at + std::strlen(from);
        return text.substr(begin, text.find_first_of(",\n ", begin) - begin);
    };
    auto ended = [&] { return !WIFSIGNALED(status) ? " (ends)" : WTERMSIG(status) == SIGALRM || WTERMSIG(status) == SIGPROF ? " (hangs)" : " (crashes)"; };
    constexpr char kFailed[] = "[  FAILED  ] ", kRun[] = "[ RUN      ] ";
    if (WIFEXITED(status) && WEXITSTATUS(status) == 99) throw std::runtime_error("no test is named " + t.filter);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 98) throw std::runtime_error("the mutant changes no text of " + t.filter);
    if (auto at = text.find(kFailed); WIFEXITED(status) && at != std::string::npos) o.killer = between(kFailed, at);
    else if (at = text.rfind(kRun); at != std::string::npos) o.killer = between(kRun, at) + ended();
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
        {"select(b > a, b, a - b))", "only a NaN gets there, and its difference is NaN as its sum is"},
        {"select(b < a, b, a - b))", "only a NaN gets there, and its difference is NaN as its sum is"},
        {"surrogate in cuda: a => b", "no kernel has the op: it's gone once the derivative is taken"},
        {"=> select(fabs(a) > 0, sign_(a) * select(fabs(a) >= 100000000, log(fabs(a)) + log1p(sign_(fabs(a))), log1p(fabs(a) + a * a / (1 + sqrt(1 + a * a)))), a)", "both formulas agree at the threshold"},
        {"=> select(a >= 1e8, log(a) + 0.6931471805599453, log1p(a - 1 + sqrt(a - 1) * sqrt(a + 1)))", "both formulas agree at the threshold"},
    };
    const bool fold = name.starts_with("amax") || name.starts_with("amin");
    for (std::string_view end : {"select(a >= b, a, select(b >= a, b, a + b))", "select(a <= b, a, select(b <= a, b, a + b))"})
        if (fold && name.ends_with(end)) return "equal elements, of which either may be the extremum: zeros of two signs";
    for (const auto& [end, why] : kWhy)
        if (name.ends_with(end)) return std::string(why);
    return "";
}

// GoogleTest's form of a report, so that what reads one reads both.
void write(const std::string& file, const std::vector<Mutant>& mutants, const std::vector<Outcome>& outcomes, std::size_t killed, double seconds) {
    nlohmann::json cases = nlohmann::json::array();
    for (std::size_t k = 0; k < mutants.size(); ++k) {
        nlohmann::json one{{"name", mutants[k].name}, {"result", "COMPLETED"}, {"killer", outcomes[k].killer}};
        if (outcomes[k].killer.empty() == equivalent(mutants[k].name).empty()) one["failures"] = {{{"failure", "no test notices"}}};
        cases.push_back(one);
    }
    std::ofstream(file) << nlohmann::json{{"time", fmt::format("{}s", seconds)}, {"summary", fmt::format("{} mutants of the tables and of the generated text, {} died", mutants.size(), killed)},
                                          {"testsuites", {{{"name", "Mutants"}, {"testsuite", cases}}}}}.dump(1) << "\n";
}

int run(int argc, char** argv) {
    bool everything = false, first_only = false;
    std::string only, kind, json;
    std::size_t jobs = 1;
    for (int k = 1; k < argc; ++k) {
        const std::string_view a = argv[k];
        everything |= a == "--mutants=all" || a == "--all";
        first_only |= a == "--first";
        if (a.starts_with("--only=")) only = a.substr(7);
        if (a.starts_with("--kind=")) kind = a.substr(7);
        if (a.starts_with("--json=")) json = a.substr(7);
        if (a.starts_with("--jobs=")) jobs = std::stoul(std::string(a.substr(7)));
    }
    std::vector<Mutant> mutants = rows();
    for (auto more : {rules(), kernels()}) mutants.insert(mutants.end(), more.begin(), more.end());
    if (!everything) mutants = sample(mutants);
    std::erase_if(mutants, [&](const Mutant& m) { return m.name.find(only) == std::string::npos || (!kind.empty() && m.kind != kind); });

    if (mutants.empty()) {
        fmt::print("no such mutant\n");
        return 1;
    }
    const auto began = Clock::now();
    // None of the tests that are to notice is red by itself.
    std::string filters;
    for (const Mutant& m : mutants)
        if (filters.find(m.first + ":") == std::string::npos) filters += m.first + ":";
    int status = 0;
    const Trial right = start([] {}, filters, 10);
    waitpid(right.child, &status, 0);
    if (Outcome o = judge(right, status); !o.killer.empty()) {
        fmt::print("{} fails without a mutant\n", o.killer);
        return 1;
    }
    const bool bar = isatty(STDERR_FILENO);
    std::vector<Outcome> outcomes(mutants.size());
    std::vector<std::string> survivors;
    std::map<pid_t, std::pair<Trial, std::size_t>> running;
    std::size_t killed = 0, explained = 0, next = 0;
    auto begin = [&](std::size_t k, const std::string& filter) {
        Trial t = start(mutants[k].apply, filter, 1);
        running.emplace(t.child, std::pair{t, k});
    };
    for (std::size_t done = 0; done < mutants.size();) {
        while (running.size() < jobs && next < mutants.size()) begin(next, mutants[next].first), ++next;
        if (bar) fmt::print(stderr, "\r[{:<40}] {}/{}, {} survive ", std::string(40 * done / mutants.size(), '#'), done, mutants.size(), survivors.size());
        const auto [trial, k] = running.extract(wait(&status)).mapped();
        const Mutant& m = mutants[k];
        const std::string why = equivalent(m.name);
        Outcome& o = outcomes[k];
        const Outcome now = judge(trial, status);
        o.killer = now.killer, o.seconds += now.seconds;
        if (o.killer.empty() && why.empty() && !first_only && trial.filter == m.first) {  // whoever else may notice
            begin(k, "-" + m.first);
            continue;
        }
        ++done;
        if (!o.killer.empty() && why.empty()) ++killed;
        else if (o.killer.empty() && !why.empty()) ++explained;
        else survivors.push_back(m.name);
        if (bar) fmt::print(stderr, "\r{:90}\r", "");
        const std::string by = o.killer.empty() ? why.empty() ? "SURVIVES" : "survives: " + why : o.killer + (why.empty() ? "" : ", though said to be equivalent");
        fmt::print("{:<11}{:<90} {:<70} {:6.1f} s\n", m.kind, m.name, by, o.seconds);
        std::fflush(stdout);
    }
    const double seconds = std::chrono::duration<double>(Clock::now() - began).count();
    fmt::print("{} mutants: {} killed, {} equivalent, {} survive; {:.0f} s\n", mutants.size(), killed, explained, survivors.size(), seconds);
    for (const std::string& s : survivors) fmt::print("  no test notices: {}\n", s);
    if (!json.empty()) write(json, mutants, outcomes, killed, seconds);
    return survivors.empty() ? 0 : 1;
}

}  // namespace heddle::mutant
