// The parser and the verifier under libFuzzer, which changes bytes and keeps what reaches new code. Law: as in text_fuzz_test.cpp: an Error of one
// line, or a graph that prints back to itself; anything else ends the process, and libFuzzer writes the input to out/fuzz/.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "ir/text.h"
#include "ir/verify.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    auto die = [](const std::string& what) { std::fprintf(stderr, "%s\n", what.c_str()), std::abort(); };
    try {
        const heddle::Graph g = heddle::parse({reinterpret_cast<const char*>(data), size});
        heddle::verify(g, "parse");
        const std::string again = heddle::print(g);
        if (heddle::parse(again) != g) die("prints to another graph:\n" + again);
    } catch (const heddle::Error& e) {
        const std::string what = e.what();
        if (what.empty() || what.find('\n') != what.npos) die("not one line: " + what);
    }
    return 0;
}
