// Where tests of the tests make one entry of a table wrong (tests/mutants/). Law: each seam is at a table's loading or where code is generated,
// never in what runs per call; empty everywhere else.
#pragma once
#include <functional>
#include <string>

#include "ir/op.h"

namespace heddle::mutant {

// The row itself: derivative, text for CUDA, double.
OpDef& row(Op);

// An entry as it is read, from what stands there. Tables: rule (both sides as "from -> to"), ints (of a rule: "1" or "0"), backward (both
// texts as "arguments -> operands"), selects (names of calls), cuda (texts of kernels).
using Reader = std::function<std::string(std::string_view table, std::string_view name, std::string text)>;
extern Reader reader;
inline std::string read(std::string_view table, std::string_view name, std::string text) { return reader ? reader(table, name, std::move(text)) : text; }

// The expression that LLVM gets for one row: built by applying other rows to values and numbers, neither of which this side knows.
using Value = void*;
using Apply = std::function<Value(Op, Value, Value, Value)>;
using Number = std::function<Value(double)>;
struct Expression {
    Op op;
    std::function<Value(Value a, Value b, Value c, const Apply&, const Number&)> build;
};
extern Expression* expression;

}  // namespace heddle::mutant
