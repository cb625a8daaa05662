// core_tests: the tests, or with --mutants the tests of the tests. The disk cache is off unless asked for, so that compilers are really run.
#include <gmock/gmock.h>

#include <cstdlib>
#include <string_view>

#include "tests/core/compile_once.h"
#include "tests/core/mutants.h"

int main(int argc, char** argv) {
    ::setenv("HEDDLE_CACHE", "0", 0);
    testing::InitGoogleMock(&argc, argv);
    for (int k = 1; k < argc; ++k) {
        if (std::string_view(argv[k]).starts_with("--mutants")) {
            ::setenv("HEDDLE_CACHE", "0", 1);  // what wrong tables make is kept nowhere
            return heddle::mutant::run(argc, argv);
        }
        if (std::string_view(argv[k]) == "--compile-once") return heddle::test::compile_once();
    }
    return RUN_ALL_TESTS();
}
