// What a value is: an element type and a shape whose sizes are integers or polynomials over named sizes.
// Law: a Dim is canonical (sorted terms, no zero coefficient), so equal sizes compare equal.
#pragma once
#include <cstdint>
#include <map>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace heddle {

// The caller's graph or call is wrong: "where: what: got, expected, what to do", one line.
struct Error : std::runtime_error {
    using std::runtime_error::runtime_error;
};
// Ours: an invariant of heddle does not hold.
struct Bug : std::logic_error {
    using std::logic_error::logic_error;
};
[[noreturn]] void bug(const char* file, int line, const std::string& what);
#define HEDDLE_CHECK(cond, what) \
    do {                         \
        if (!(cond)) ::heddle::bug(__FILE__, __LINE__, what); \
    } while (0)

enum class DType : std::uint8_t { b1, i32, i64, f16, bf16, f32, f64 };

std::string_view name(DType);                       // "f32"
std::optional<DType> dtype_named(std::string_view);
int bytes(DType);                                   // of one element
inline bool is_float(DType t) { return t >= DType::f16; }
inline bool is_int(DType t) { return t == DType::i32 || t == DType::i64; }

using Sizes = std::map<std::string, std::int64_t>;  // values of named sizes

// A size: sum of coefficient * product of names. Names are never negative at run time.
class Dim {
public:
    struct Term {
        std::vector<std::string> names;  // sorted, with repetition
        std::int64_t coef;
        bool operator==(const Term&) const = default;
    };
    Dim(std::int64_t value = 0);
    Dim(int value) : Dim(static_cast<std::int64_t>(value)) {}
    static Dim symbol(std::string name);

    bool is_const() const;
    bool is_symbol() const;                           // exactly one name, coefficient 1
    std::int64_t value() const;                       // throws Bug unless is_const()
    std::int64_t eval(const Sizes&) const;            // throws Error on an unknown name
    std::optional<Dim> divided_by(const Dim&) const;  // exact quotient, if there is one
    Dim substitute(const std::map<std::string, Dim>&) const;
    const std::vector<Term>& terms() const { return terms_; }
    void names(std::vector<std::string>& out) const;  // appended in order of first use, each once

    friend Dim operator+(const Dim&, const Dim&);
    friend Dim operator-(const Dim&, const Dim&);
    friend Dim operator*(const Dim&, const Dim&);
    bool operator==(const Dim&) const = default;
    bool operator==(std::int64_t v) const { return is_const() && value() == v; }
    bool operator==(int v) const { return *this == static_cast<std::int64_t>(v); }

private:
    void add(const Term&);
    std::vector<Term> terms_;
};
std::string print(const Dim&);
Dim parse_dim(std::string_view text);  // throws Error

using Shape = std::vector<Dim>;
Dim numel(const Shape&);

struct Type {
    DType dtype = DType::f32;
    Shape shape;
    int rank() const { return static_cast<int>(shape.size()); }
    bool operator==(const Type&) const = default;
};
std::string print(const Type&);  // "f32[B, 3]"; a scalar is "f32[]"
std::string print(const Shape&);

// The shortest decimal text that reads back bit-equal as a double; "inf", "-inf", "nan".
std::string print_number(double);

}  // namespace heddle
