// Python's arithmetic on sizes. Law: integers give integers, rounded as Python rounds; what gives a float is computed by tensors.
#include <ATen/ops/add.h>
#include <ATen/ops/div.h>
#include <ATen/ops/eq.h>
#include <ATen/ops/floor_divide.h>
#include <ATen/ops/ge.h>
#include <ATen/ops/gt.h>
#include <ATen/ops/le.h>
#include <ATen/ops/lt.h>
#include <ATen/ops/maximum.h>
#include <ATen/ops/minimum.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/ne.h>
#include <ATen/ops/neg.h>
#include <ATen/ops/pow.h>
#include <ATen/ops/remainder.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/sqrt.h>
#include <ATen/ops/sub.h>
#include <ATen/ops/trunc.h>
#include <fmt/format.h>

#include <algorithm>

#include "frontends/export/steps.h"

namespace heddle {

namespace {
using Whole = std::int64_t;
using Pair = std::vector<c10::IValue>;

Whole floor_divide(Whole a, Whole b) {
    if (b == 0) throw Error("an integer is divided by 0");
    return a / b - (a % b != 0 && (a < 0) != (b < 0));
}
Whole power(Whole a, Whole b) {
    Whole r = 1;
    for (; b > 0; --b) r *= a;
    return r;
}
struct Binary {
    std::string_view name;
    Whole (*whole)(Whole, Whole);
    at::Tensor (*real)(const at::Tensor&, const at::Tensor&);
    bool truth = false;  // gives a bool
};
#define WHOLE(...) [](Whole a, Whole b) -> Whole { return __VA_ARGS__; }
#define REAL(f) [](const at::Tensor& a, const at::Tensor& b) { return f(a, b); }
constexpr Binary kBinary[] = {
    {"_operator.add", WHOLE(a + b), REAL(at::add)},
    {"_operator.sub", WHOLE(a - b), REAL(at::sub)},
    {"_operator.mul", WHOLE(a * b), REAL(at::mul)},
    {"_operator.floordiv", floor_divide, REAL(at::floor_divide)},
    {"_operator.mod", WHOLE(a - b * floor_divide(a, b)), REAL(at::remainder)},
    {"_operator.pow", power, REAL(at::pow)},
    {"_operator.truediv", nullptr, REAL(at::div)},
    {"_operator.lshift", WHOLE(a << (b & 63)), nullptr},
    {"_operator.rshift", WHOLE(a >> (b & 63)), nullptr},
    {"_operator.eq", WHOLE(a == b), REAL(at::eq), true},
    {"_operator.ne", WHOLE(a != b), REAL(at::ne), true},
    {"_operator.lt", WHOLE(a < b), REAL(at::lt), true},
    {"_operator.le", WHOLE(a <= b), REAL(at::le), true},
    {"_operator.gt", WHOLE(a > b), REAL(at::gt), true},
    {"_operator.ge", WHOLE(a >= b), REAL(at::ge), true},
    {"_operator.and_", WHOLE(a & b), nullptr},
    {"_operator.or_", WHOLE(a | b), nullptr},
    {"torch.sym_max", WHOLE(std::max(a, b)), REAL(at::maximum)},
    {"torch.sym_min", WHOLE(std::min(a, b)), REAL(at::minimum)},
};

bool whole(const c10::IValue& v) { return v.isInt() || v.isBool(); }
Whole to_whole(const c10::IValue& v) { return v.isBool() ? v.toBool() : v.toInt(); }
at::Tensor real(const c10::IValue& v) {
    if (v.isTensor()) return v.toTensor();
    return at::scalar_tensor(v.toScalar(), at::kDouble);
}
c10::IValue binary(const Binary& op, const c10::IValue& a, const c10::IValue& b) {
    const bool as_whole = op.whole && whole(a) && whole(b) && !(op.whole == power && to_whole(b) < 0);
    if (!as_whole && !op.real) throw Error(fmt::format("{}: of floats isn't supported", op.name));
    if (!as_whole) return c10::IValue(op.real(real(a), real(b)));
    const Whole r = op.whole(to_whole(a), to_whole(b));
    if (op.truth || (op.real == nullptr && a.isBool() && b.isBool())) return r != 0;
    return r;
}
Whole truncated(const c10::IValue& v) { return whole(v) ? to_whole(v) : at::trunc(real(v)).to(at::kLong).item<Whole>(); }
bool truth(const c10::IValue& v) { return v.isTensor() ? v.toTensor().item<bool>() : to_whole(v) != 0; }

struct Other {
    std::string_view name;
    std::size_t arguments;
    c10::IValue (*f)(const Pair&);
};
constexpr Other kOthers[] = {
    {"_operator.neg", 1, [](const Pair& x) { return whole(x[0]) ? c10::IValue(-to_whole(x[0])) : c10::IValue(at::neg(real(x[0]))); }},
    {"_operator.pos", 1, [](const Pair& x) { return x[0]; }},
    {"math.trunc", 1, [](const Pair& x) { return c10::IValue(truncated(x[0])); }},
    {"torch.sym_int", 1, [](const Pair& x) { return c10::IValue(truncated(x[0])); }},
    {"torch.sym_float", 1, [](const Pair& x) { return c10::IValue(real(x[0])); }},
    {"torch.sym_sqrt", 1, [](const Pair& x) { return c10::IValue(at::sqrt(real(x[0]))); }},
    {"torch._sym_sqrt", 1, [](const Pair& x) { return c10::IValue(at::sqrt(real(x[0]))); }},
    {"torch.sym_not", 1, [](const Pair& x) { return c10::IValue(!truth(x[0])); }},
    {"torch.sym_ite", 3, [](const Pair& x) { return truth(x[0]) ? x[1] : x[2]; }},
};
}  // namespace

ExportStep arithmetic(const ExportNode& n) {
    auto run = [&](std::size_t count, auto f) -> ExportStep {
        if (n.args.size() != count) throw Error(fmt::format("{}: got {} arguments, expected {}", n.target, n.args.size(), count));
        return [f, args = n.args](const ExportValues& v) {
            Pair x;
            for (const ExportArg& a : args) x.push_back(value_of(a, v));
            return std::vector<c10::IValue>{f(x)};
        };
    };
    for (const Binary& op : kBinary)
        if (op.name == n.target) return run(2, [&op](const Pair& x) { return binary(op, x[0], x[1]); });
    for (const Other& op : kOthers)
        if (op.name == n.target) return run(op.arguments, op.f);
    throw Error(fmt::format("{}: isn't supported", n.target));
}

}  // namespace heddle
