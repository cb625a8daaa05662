// Which 64-bit integers of a nest are index arithmetic and may be computed in 32 bits.
// Law: a value is narrow only if its low 32 bits are all that is ever seen of it, or if a bound below 2^31 is recorded in limits.
//
//   Addresses are below 2^31 in a narrow kernel, so sums and products that end in one may wrap on the way.
//   Quotients, remainders, comparisons and casts need their operands exact: those take operands with a known bound only.
//   An i64 that is data (stored, folded, compared with data) stays 64 bits wide.
#pragma once
#include "passes/loop.h"

namespace heddle::cuda {

struct Index {
    std::vector<char> narrow;   // per value: has type index_t
    std::vector<char> positive; // per value: never negative, so / and % round as floordiv and mod do
    std::vector<Dim> limits;    // upper bounds of magnitudes that narrow values rely on
};
Index index_types(const loop::Nest&);

}  // namespace heddle::cuda
