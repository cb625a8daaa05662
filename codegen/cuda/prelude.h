// The small header that opens every generated .cu text: the vocabulary of the table, conversions, group reductions, atomics.
// Law: only what the kernel uses is there, and nothing is included, so the text compiles alone.
#pragma once
#include <algorithm>
#include <map>
#include <set>
#include <string>

#include "ir/op.h"

namespace heddle::cuda {

// How the element of a row reads in a kernel. A row that names each operand at most once is written in place
// ("1 / (1 + exp(-x))"), with operands that are names, literals or in parentheses; any other is a call of its own function.
bool in_place(const OpDef&);
std::string apply(const OpDef&, const std::string& a, const std::string& b = "", const std::string& c = "");
bool is_atom(const std::string&);        // an expression that needs no parentheses as an operand

std::string type(DType);                 // of a value in a register: narrow floats are float
std::string stored(DType);               // of an element in a buffer: narrow floats are unsigned short
std::string from_stored(DType, const std::string& element);
std::string to_stored(DType, const std::string& value);
std::string literal(DType, double);      // reads back bit-equal

// What a text turned out to need; filled while kernels are written.
struct Uses {
    std::set<Op> rows;                   // MAP and FOLD rows
    std::map<Op, int> groups;            // FOLD rows reduced across threads; of how many at most
    std::set<DType> converted, atomics;  // narrow floats loaded or stored; types accumulated
    std::set<std::string> scans;         // functions that hand a carry from lane to lane
    bool stages = false, vectors = false, runs = false;  // neighbours taken together; runs of points
    bool turns = false;                  // nests with as many blocks
    bool ordered = false, near = false;  // sums in whole numbers; in shared memory
    void group(Op op, int threads) { rows.insert(op), groups[op] = std::max(groups[op], threads); }
};
std::string prelude(const Uses&, bool wide_index);
bool is_vocabulary(const std::string& name);

}  // namespace heddle::cuda
