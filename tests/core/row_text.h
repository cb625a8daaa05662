// Rows of ir/ops.def as text that can be changed: tokens, trees over rows, and their values over any type.
// Law: a text and its tree mean what the row's own C++ means, so that a changed text is a changed row.
#pragma once
#include <functional>
#include <string>
#include <vector>

#include "ir/graph.h"

namespace heddle::mutant {

// The columns of a row as they are written; empty where there are none.
struct RowText {
    std::string scalar;
    std::vector<std::string> vjp;  // one per operand; of a derivative that is a function, its name alone
};
const RowText& row_text(Op);

// An expression: a name, a number, or a row (or another function) of operands.
struct Tree {
    std::string name;
    double number = 0;
    std::vector<Tree> in;
    bool call = false;
};
Tree parse_row_text(std::string_view);  // throws Error where it isn't such an expression

// The row that a word of C(...) or VJP(...) stands for; null where it is none.
const OpDef* row_of_word(std::string_view);

template <class T> struct Meaning {
    std::function<T(const std::string&)> variable;
    std::function<T(double)> number;
    std::function<T(const Tree&, const std::vector<T>&)> apply;
    T operator()(const Tree& t) const {
        std::vector<T> in;
        for (const Tree& x : t.in) in.push_back((*this)(x));
        return t.call ? apply(t, in) : t.name.empty() ? number(t.number) : variable(t.name);
    }
};

// Every text that differs from this one by one token: another operator, function, operand or number. Operands are those of `names`.
std::vector<std::string> one_token_off(const std::string& text, const std::vector<std::string>& names);

}  // namespace heddle::mutant
