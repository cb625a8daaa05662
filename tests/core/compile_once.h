// What `core_tests --compile-once` does, for tests that need a second process: compiles and runs a few graphs, prints results and what
// the disk cache was for. Law: equal output means equal bits.
#pragma once

namespace heddle::test {

int compile_once();  // the exit status

}  // namespace heddle::test
