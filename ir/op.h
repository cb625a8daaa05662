// A row of the table as data. Law: everything known about an op is in its row; code asks the row, never lists ops again.
#pragma once
#include <limits>
#include <string_view>
#include <vector>

#include "ir/type.h"

namespace heddle {

enum class Op : std::uint8_t {
#define OP(name, ...) name,
#include "ir/ops.def"
#undef OP
};
#define OP(...) +1
constexpr int kOps = 0
#include "ir/ops.def"
    ;
#undef OP

// What fusion and code generation know an op by.
enum class Kind : std::uint8_t { leaf, map, view, concat, fold, scan, gather, scatter, dot, call };

class Graph;
struct Node;
struct V;

struct Scalar {
    std::string_view text = {};                               // the C expression, over a, b, c
    double (*eval)(double a, double b, double c) = nullptr;   // the same in double
};
struct OpDef {
    std::string_view name;
    Kind kind;
    int arity;                                    // -1: any number of operands
    Type (*type)(const Graph&, const Node&);      // the type the operands give; throws Error; nullptr: as written
    Scalar scalar = {};
    std::vector<V> (*vjp)(const std::vector<V>& in, V out, V g, const Node& n) = nullptr;
    std::string_view aten = {};
    struct { double lo = -2, hi = 2; } range = {};
    bool commutes = false;
    double init = 0;                              // of a fold
};

const OpDef& def(Op);
const OpDef* op_named(std::string_view);          // nullptr if there is none
constexpr double kInf = std::numeric_limits<double>::infinity();

}  // namespace heddle
