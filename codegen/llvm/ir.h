// A builder whose values are scalars or vectors of lanes alike, so that a formula is written once for every width.
// Law: nothing of IEEE arithmetic is given up. Each element is rounded op by op, as eager rounds it: an index that is the floor of a
// coordinate is then the same index.
#pragma once
#include <llvm/IR/IRBuilder.h>
#include <llvm/IR/Module.h>

#include <functional>
#include <initializer_list>

#include "ir/type.h"

namespace heddle {

using Lv = llvm::Value*;

// What the emitted text may use of the machine.
struct Target {
    bool fma = true;
    int scalef_bits = 0;  // widest vector with vscalefps/pd (AVX-512), 0: none
};

class Ir {
public:
    Ir(llvm::Module& m, Target t) : b(m.getContext()), m(m), target(t) {}
    llvm::IRBuilder<> b;
    llvm::Module& m;
    Target target;
    bool nonneg = false;  // the integer operands of the map being emitted are known not to be negative

    llvm::Type* reg(DType);                        // as computed: b1 is i1, narrow floats are float
    llvm::Type* mem(DType);                        // as stored: b1 is i8, narrow floats are i16
    static llvm::Type* wide(llvm::Type*, int width);  // itself if width is 1
    static int width(Lv v);
    static llvm::Type* with_lanes_of(llvm::Type* element, Lv like) { return wide(element, width(like)); }
    static bool is_float(Lv v) { return v->getType()->isFPOrFPVectorTy(); }
    static bool is_f64(Lv v) { return v->getType()->getScalarType()->isDoubleTy(); }
    static bool is_bool(Lv v) { return v->getType()->getScalarType()->isIntegerTy(1); }

    static Lv num(llvm::Type*, double);            // a constant, splat over a vector type
    static Lv num(Lv like, double v) { return num(like->getType(), v); }
    static Lv integer(llvm::Type*, std::int64_t);
    static Lv integer(Lv like, std::int64_t v) { return integer(like->getType(), v); }
    Lv i64(std::int64_t v) { return b.getInt64(static_cast<std::uint64_t>(v)); }
    Lv splat(Lv scalar, int width);                // itself if width is 1
    Lv iota(llvm::Type* element, int width);       // <0, 1, ..>, or 0 if width is 1
    std::pair<Lv, Lv> halves(Lv v);                // its first lanes, its last
    Lv joined(Lv first, Lv last);

    Lv fma(Lv x, Lv y, Lv z);
    Lv horner(Lv x, std::initializer_list<double> highest_first);
    Lv unary(llvm::Intrinsic::ID, Lv);
    Lv fabs(Lv x) { return unary(llvm::Intrinsic::fabs, x); }
    Lv copysign(Lv magnitude, Lv sign);
    Lv to_int(Lv x, llvm::Type* element);          // truncated; what does not fit gives some value, never poison
    Lv bits(Lv x);                                 // as an integer of the same size
    Lv float_of(Lv bits, Lv like) { return b.CreateBitCast(bits, like->getType()); }

    Lv any(Lv mask);                               // i1: does any lane hold
    // fast, unless some lane of `rare` holds: then slow() for all lanes.
    Lv unless(Lv rare, Lv fast, const std::function<Lv()>& slow);
    Lv libm(const std::string& name, Lv x, Lv y = nullptr);  // lane by lane; name as for double
    // body(i) for i = begin, begin + step, .. while i < end.
    void loop(Lv begin, Lv end, std::int64_t step, const std::function<void(Lv)>& body);
    void when(Lv condition, const std::function<void()>& body);
};

}  // namespace heddle
