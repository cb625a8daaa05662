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

// What of a nest is written: all of it, or, where sums are ordered, the exponents of their terms or (with the stores) these as whole numbers.
enum class Way : std::uint8_t { plain, powers, sums };
struct Request {
    const loop::Nest& nest;
    int threads;                                 // per block of the launch
    const std::map<Id, std::string>& buffers;
    const SizeNames &sizes, &grid;               // as they are now, and as the grid was cut by
    Way way = Way::plain;
    const std::map<Id, std::string>& adders;     // of ordered buffers: a Powers or a Sums<T>
};
struct Body {
    std::string text;         // over `block`, the index of the block within the nest, the arguments, and `near_words`, of loop::near_bytes(nest), if that is any
    std::vector<Dim> limits;  // as in CudaSource
};
// Adds to `uses` what the prelude has to bring.
Body body(const Request&, Names, Uses& uses);

}  // namespace heddle::cuda
