// torch_tests run with the disk cache off unless asked for: compilers are really run, and the user's cache stays as it is.
#include <cstdlib>

namespace {
[[maybe_unused]] const int kOff = ::setenv("HEDDLE_CACHE", "0", 0);  // before main, and before anything is compiled
}
