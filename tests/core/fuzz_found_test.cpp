// What random graphs have found, each as small as it got. Law: a case stays here, and every way of running it agrees with the interpreter.
#include <gtest/gtest.h>

#include "ir/text.h"
#include "tests/core/fuzz.h"

namespace heddle::fuzz {
namespace {

struct Found {
    const char *what, *text;
};
std::ostream& operator<<(std::ostream& o, const Found& f) { return o << f.what; }

struct FuzzFound : ::testing::TestWithParam<Found> {};
TEST_P(FuzzFound, Agrees) {
    Tally tally;
    const auto failure = check(parse(GetParam().text), By::llvm, tally);
    if (failure) FAIL() << failure->oracle << ": " << failure->what << "\n" << GetParam().text;
}
INSTANTIATE_TEST_SUITE_P(All, FuzzFound, ::testing::Values(
    Found{"NarrowSumsOverThreads", R"(graph @fuzz524() {
  %0 = constant value=1.0 : bf16[A, 1, C, A]
  %1 = sum %0, axes=[0, 2] : bf16[1, A]
  return %1
})"},
    // A mask and a second copy of the result beside it.
    Found{"ScatterOverABaseTakesNoMemory", R"(graph @fuzz222(%0 "x0": f32[A, A], %1 "x1": f32[A]) {
  %2 = expand %1, axes=[1] : f32[A, A]
  %3 = iota axis=0 : i64[A]
  %4 = size dim=A-1 : i64[A]
  %5 = sub %4, %3 : i64[A]
  %6 = scatter %0, %5, %2 : f32[A, A]
  return %6
})"}),
    [](const auto& info) { return info.param.what; });

}  // namespace
}  // namespace heddle::fuzz
