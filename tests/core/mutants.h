// The mutants: each makes one entry of one table wrong. Law: every one turns a test red, or says why nothing could.
#pragma once
#include <functional>
#include <string>
#include <vector>

namespace heddle::mutant {

struct Mutant {
    std::string kind, name;       // kind: derivative, double, llvm, cuda, rule, calls
    std::string first;            // the tests that should notice, as a filter
    std::function<void()> apply;  // in a process of its own
};
std::vector<Mutant> rows();     // derivatives and scalar expressions of ir/ops.def
std::vector<Mutant> rules();    // passes/rules.def and passes/calls.def
std::vector<Mutant> kernels();  // CUDA text: helpers, barriers, bounds
extern int touched;                // how many texts an edit of texts has changed; -1: the mutant edits none
// Why no test can tell this mutant from the original; empty for all others.
std::string equivalent(const std::string& name);

// `core_tests --mutants [--all] [--kind=KIND] [--only=TEXT] [--first] [--jobs=N] [--json=FILE]`: applies them, one process each, N at a
// time; prints a table and writes a report in GoogleTest's form. The exit status is that of a test.
int run(int argc, char** argv);

}  // namespace heddle::mutant
