// One loop nest as the body of a CUDA function. Law: one value, one statement, in the order given; a value used once in its own
// scope may be written in place. Names and trailing comments carry the user's names and source lines.
#pragma once
#include "codegen/cuda/prelude.h"
#include "passes/loop.h"

namespace heddle::cuda {

// Identifiers that are taken: words of C++ and CUDA, of the prelude, and what was handed out before.
class Names {
public:
    std::string fresh(std::string_view wish);

private:
    std::set<std::string> taken_;
};

using SizeNames = std::map<std::string, std::string>;  // of size arguments: as the nest calls them, as the text does
std::string expr(const Dim&, const SizeNames&);        // a size as a C expression
std::string factor(const Dim&, const SizeNames&);      // the same, in parentheses if it needs them

struct Body {
    std::string text;         // over `block`, the index of the block within the nest, and the arguments
    std::vector<Dim> limits;  // as in CudaSource
};
// `threads`: per block of the launch. Adds to `uses` what the prelude has to bring.
Body body(const loop::Nest&, int threads, Names, const std::map<Id, std::string>& buffers, const SizeNames&, Uses& uses);

}  // namespace heddle::cuda
