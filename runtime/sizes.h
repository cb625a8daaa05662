// Named sizes by number, so that a call looks up no names: shapes become expressions over a row of integers.
// Law: an expression here has the value of the Dim that it was made from.
#pragma once
#include <limits>
#include <span>
#include <string>
#include <vector>

#include "ir/type.h"
#include "runtime/small.h"

namespace heddle {

// Values of a plan's named sizes in the order of its names. No size is negative; a name that is the value of an integer may be.
using SizeValues = Small<std::int64_t, 12>;
constexpr std::int64_t kUnknown = std::numeric_limits<std::int64_t>::min();

class SizeNames {
public:
    explicit SizeNames(std::vector<std::string> first = {}) : names_(std::move(first)) {}
    void add(const std::string&);                    // unless it is there
    int slot(const std::string&) const;              // throws Bug on an unknown name
    const std::vector<std::string>& list() const { return names_; }
    SizeValues values(const Sizes&) const;
    Sizes named(const SizeValues&) const;            // those that are known

private:
    std::vector<std::string> names_;
};

class SizeExpr {
public:
    SizeExpr() = default;
    SizeExpr(const Dim&, const SizeNames&);
    std::int64_t operator()(const std::int64_t* values) const { return slot_ >= 0 ? values[slot_] : terms_.empty() ? constant_ : sum(values); }
    bool known(const std::int64_t* values) const;    // are all its names?
    int symbol() const { return slot_; }             // its slot where it is a plain name, else -1
    bool is_const() const { return slot_ < 0 && terms_.empty(); }
    void slots(std::vector<int>& out) const;         // appended

private:
    struct Term {
        std::int64_t coef;
        std::vector<int> slots;
    };
    std::int64_t sum(const std::int64_t* values) const;
    int slot_ = -1;
    std::int64_t constant_ = 0;
    std::vector<Term> terms_;
};

using ShapeExpr = std::vector<SizeExpr>;
ShapeExpr shape_expr(const Shape&, const SizeNames&);

// Binds plain names of a shape that are not known yet, and checks every size that is. Throws Error naming `who` and what to do, in
// the words of bind_sizes (ir/eval.h).
class ShapeBinding {
public:
    ShapeBinding() = default;
    ShapeBinding(const Shape& shape, const SizeNames& names, std::string who, std::string remedy);
    // First plain names and numbers, then the rest: all inputs take the first step before any takes the second.
    void bind(std::span<const std::int64_t> actual, std::int64_t* values) const;
    void check(std::span<const std::int64_t> actual, const std::int64_t* values) const;
    bool has_rest() const { return has_rest_; }
    const std::string& who() const { return who_; }
    const ShapeExpr& shape() const { return dims_; }

private:
    [[noreturn]] void mismatch(std::size_t k, std::int64_t actual, std::int64_t want) const;
    ShapeExpr dims_;
    bool has_rest_ = false;
    Shape shape_;
    std::string who_, remedy_;
};

}  // namespace heddle
