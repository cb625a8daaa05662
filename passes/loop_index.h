// Statements and index arithmetic of a nest under construction: scopes, sharing, constant folding, linear addresses.
// Law: a statement lives in the outermost scope that its operands allow.
#pragma once
#include <unordered_map>

#include "passes/loop.h"

namespace heddle::loop {

// Scopes in order: uniform, point (prologue), then body and after of each phase.
constexpr int kUniform = 0, kPoint = 1;

inline void mix(std::size_t& hash, std::int64_t x) { hash = (hash ^ static_cast<std::size_t>(x)) * 0x9e3779b97f4a7c15u, hash ^= hash >> 29; }

class IndexBuilder {
protected:
    Nest out;
    int phase = -1;          // whose body is being written; -1: none
    std::string here;        // source line for new values

    int body_scope() const { return 2 + 2 * phase; }
    static int after_scope(int p) { return 3 + 2 * p; }
    const Value& at_(Val v) const { return out.values[static_cast<std::size_t>(v)]; }
    bool visible(Val v) const;                                   // from here: not in another phase's body

    Val put(Value, int scope);                                   // appended, not shared
    Val value(Value, int at_least);                              // shared; facts and scope from operands
    void effect(Value);                                          // a statement without result, where its operands are
    void effect(Value, int scope);

    Val literal(double, DType);
    Val integer(std::int64_t v) { return literal(static_cast<double>(v), DType::i64); }
    std::optional<std::int64_t> known(Val) const;                // value of an integer constant
    Val dim(const Dim&);                                         // i64
    Val as(Val, DType);                                          // converted, itself if it has the type
    Val arith(Op, Val, Val, DType);                              // add or mul, without what 0 and 1 make needless
    Val plus(Val a, Val b) { return arith(Op::add, a, b, DType::i64); }
    Val minus(Val, Val);
    Val times(Val a, Val b) { return arith(Op::mul, a, b, DType::i64); }
    Val compare(Op, Val, Val);                                   // of i64
    Val both(Val, Val);                                          // and; -1 is true
    bool never(Val v) const { return v >= 0 && at_(v).what == What::constant && at_(v).imm == 0; }  // of a predicate
    Val choose(Val condition, Val, Val, DType);

    Val linear(const std::vector<Val>& index, const Shape&);     // row-major address
    std::vector<Val> split(Val address, const Shape&);           // and back
    std::vector<Val> reshaped(const std::vector<Val>& index, const Shape& from, const Shape& to);

    std::vector<char> drop_unused();                             // statements that no effect needs; returns which values are left

    static double initial(double init, DType);                   // of a fold, representable in dtype
    static Op combine(Op fold, DType);                           // the map that joins two elements: sum -> add

private:
    struct Split {
        Val address;
        Shape shape;
        std::size_t position;
    };
    std::pair<const Split*, Val> parts(const std::vector<Val>& index, const Shape&, std::size_t k) const;
    std::vector<int> scope_;
    std::unordered_map<std::size_t, std::vector<Val>> shared_;  // by hash
    std::map<Val, std::vector<Split>> splits_;
};

}  // namespace heddle::loop
