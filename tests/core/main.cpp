// core_tests: the tests, or with --mutants the tests of the tests.
#include <gmock/gmock.h>

#include <string_view>

#include "tests/core/mutants.h"

int main(int argc, char** argv) {
    testing::InitGoogleMock(&argc, argv);
    for (int k = 1; k < argc; ++k)
        if (std::string_view(argv[k]).starts_with("--mutants")) return heddle::mutant::run(argc, argv);
    return RUN_ALL_TESTS();
}
