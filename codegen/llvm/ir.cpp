// Building blocks over IRBuilder: constants, lanes, branches, loops. Law: a loop is emitted guarded and rotated, so that what
// does not change in it can be hoisted out of it.
#include "codegen/llvm/ir.h"

#include <llvm/IR/Intrinsics.h>
#include <llvm/IR/MDBuilder.h>

namespace heddle {

using llvm::BasicBlock, llvm::Function, llvm::FunctionType, llvm::Intrinsic::ID;

llvm::Type* Ir::reg(DType t) {
    switch (t) {
        case DType::b1: return b.getInt1Ty();
        case DType::i32: return b.getInt32Ty();
        case DType::i64: return b.getInt64Ty();
        case DType::f64: return b.getDoubleTy();
        default: return b.getFloatTy();
    }
}
llvm::Type* Ir::mem(DType t) {
    switch (t) {
        case DType::b1: return b.getInt8Ty();
        case DType::f16:
        case DType::bf16: return b.getInt16Ty();
        default: return reg(t);
    }
}
llvm::Type* Ir::wide(llvm::Type* t, int width) {
    return width == 1 ? t : llvm::FixedVectorType::get(t, static_cast<unsigned>(width));
}
int Ir::width(Lv v) {
    auto* t = llvm::dyn_cast<llvm::FixedVectorType>(v->getType());
    return t ? static_cast<int>(t->getNumElements()) : 1;
}

Lv Ir::num(llvm::Type* t, double v) {
    if (t->isFPOrFPVectorTy()) return llvm::ConstantFP::get(t, v);
    if (t->isIntOrIntVectorTy(1)) return integer(t, v != 0);  // as a bool, 2 is true
    return integer(t, v >= 0x1p63 ? INT64_MAX : static_cast<std::int64_t>(v));  // the highest is no double
}
Lv Ir::integer(llvm::Type* t, std::int64_t v) {
    auto bits = t->getScalarSizeInBits();
    llvm::APInt value(64, static_cast<std::uint64_t>(v), true);
    return llvm::ConstantInt::get(t, value.sextOrTrunc(bits));
}
Lv Ir::splat(Lv scalar, int width) {
    if (width == 1) return scalar;
    if (auto* c = llvm::dyn_cast<llvm::Constant>(scalar))
        return llvm::ConstantVector::getSplat(llvm::ElementCount::getFixed(static_cast<unsigned>(width)), c);
    return b.CreateVectorSplat(static_cast<unsigned>(width), scalar);
}
Lv Ir::iota(llvm::Type* element, int width) {
    if (width == 1) return integer(element, 0);
    std::vector<llvm::Constant*> lanes;
    for (int i = 0; i < width; ++i) lanes.push_back(llvm::ConstantInt::get(element, static_cast<std::uint64_t>(i)));
    return llvm::ConstantVector::get(lanes);
}
std::pair<Lv, Lv> Ir::halves(Lv v) {
    const int half = width(v) / 2;
    std::vector<int> first, last;
    for (int i = 0; i < half; ++i) first.push_back(i), last.push_back(half + i);
    return {b.CreateShuffleVector(v, first), b.CreateShuffleVector(v, last)};
}
Lv Ir::joined(Lv first, Lv last) {
    std::vector<int> lanes;
    for (int i = 0; i < 2 * width(first); ++i) lanes.push_back(i);
    return b.CreateShuffleVector(first, last, lanes);
}

Lv Ir::fma(Lv x, Lv y, Lv z) {
    return b.CreateIntrinsic(x->getType(), target.fma ? llvm::Intrinsic::fma : llvm::Intrinsic::fmuladd, {x, y, z});
}
Lv Ir::horner(Lv x, std::initializer_list<double> coefficients) {
    Lv sum = nullptr;
    for (double c : coefficients) sum = sum ? fma(sum, x, num(x, c)) : num(x, c);
    return sum;
}
Lv Ir::unary(ID id, Lv x) { return b.CreateUnaryIntrinsic(id, x); }
Lv Ir::copysign(Lv magnitude, Lv sign) { return b.CreateBinaryIntrinsic(llvm::Intrinsic::copysign, magnitude, sign); }
Lv Ir::to_int(Lv x, llvm::Type* element) { return b.CreateFreeze(b.CreateFPToSI(x, with_lanes_of(element, x))); }
Lv Ir::bits(Lv x) {
    return b.CreateBitCast(x, with_lanes_of(b.getIntNTy(x->getType()->getScalarSizeInBits()), x));
}

Lv Ir::any(Lv mask) { return width(mask) == 1 ? mask : b.CreateOrReduce(mask); }
Lv Ir::unless(Lv rare, Lv fast, const std::function<Lv()>& slow) {
    BasicBlock* from = b.GetInsertBlock();
    Function* f = from->getParent();
    auto* slowly = BasicBlock::Create(m.getContext(), "rare", f);
    auto* done = BasicBlock::Create(m.getContext(), "common", f);
    b.CreateCondBr(any(rare), slowly, done, llvm::MDBuilder(m.getContext()).createUnlikelyBranchWeights());
    b.SetInsertPoint(slowly);
    Lv other = slow();
    BasicBlock* end = b.GetInsertBlock();
    b.CreateBr(done);
    b.SetInsertPoint(done);
    auto* phi = b.CreatePHI(fast->getType(), 2);
    phi->addIncoming(fast, from);
    phi->addIncoming(other, end);
    return phi;
}
Lv Ir::libm(const std::string& name, Lv x, Lv y) {
    llvm::Type* t = x->getType()->getScalarType();
    std::string symbol = name + (t->isFloatTy() ? "f" : "");
    std::vector<llvm::Type*> one(y ? 2 : 1, t);
    auto callee = m.getOrInsertFunction(symbol, FunctionType::get(t, one, false));
    auto* libm_function = llvm::cast<Function>(callee.getCallee());
    libm_function->setDoesNotThrow();
    libm_function->setDoesNotAccessMemory();
    libm_function->setWillReturn();
    int lanes = width(x);
    std::vector<Lv> args{x};
    if (y) args.push_back(y);
    if (lanes == 1) return b.CreateCall(callee, args);

    // A function of its own for all lanes, so that the 16 calls appear once.
    std::string helper = "lanes." + symbol + "." + std::to_string(lanes);
    Function* f = m.getFunction(helper);
    if (!f) {
        std::vector<llvm::Type*> many(one.size(), x->getType());
        f = Function::Create(FunctionType::get(x->getType(), many, false), Function::InternalLinkage, helper, m);
        f->addFnAttr(llvm::Attribute::NoInline);
        f->setDoesNotThrow();
        f->setDoesNotAccessMemory();
        f->setWillReturn();
        llvm::IRBuilderBase::InsertPointGuard guard(b);
        b.SetInsertPoint(BasicBlock::Create(m.getContext(), "entry", f));
        std::vector<Lv> slots;
        for (std::size_t i = 0; i < args.size(); ++i) slots.push_back(b.CreateAlloca(x->getType()));
        Lv out = b.CreateAlloca(x->getType());
        for (std::size_t i = 0; i < slots.size(); ++i) b.CreateStore(f->getArg(static_cast<unsigned>(i)), slots[i]);
        loop(i64(0), i64(lanes), 1, [&](Lv i) {
            std::vector<Lv> lane;
            for (Lv s : slots) lane.push_back(b.CreateLoad(t, b.CreateGEP(t, s, i)));
            b.CreateStore(b.CreateCall(callee, lane), b.CreateGEP(t, out, i));
        });
        b.CreateRet(b.CreateLoad(x->getType(), out));
    }
    return b.CreateCall(f, args);
}

void Ir::loop(Lv begin, Lv end, std::int64_t step, const std::function<void(Lv)>& body) {
    BasicBlock* from = b.GetInsertBlock();
    Function* f = from->getParent();
    auto* head = BasicBlock::Create(m.getContext(), "loop", f);
    auto* done = BasicBlock::Create(m.getContext(), "done", f);
    b.CreateCondBr(b.CreateICmpSLT(begin, end), head, done);
    b.SetInsertPoint(head);
    auto* i = b.CreatePHI(begin->getType(), 2, "i");
    i->addIncoming(begin, from);
    body(i);
    Lv next = b.CreateNSWAdd(i, i64(step));
    i->addIncoming(next, b.GetInsertBlock());
    b.CreateCondBr(b.CreateICmpSLT(next, end), head, done);
    done->moveAfter(b.GetInsertBlock());
    b.SetInsertPoint(done);
}
void Ir::when(Lv condition, const std::function<void()>& body) {
    Function* f = b.GetInsertBlock()->getParent();
    auto* then = BasicBlock::Create(m.getContext(), "then", f);
    auto* done = BasicBlock::Create(m.getContext(), "done", f);
    b.CreateCondBr(condition, then, done);
    b.SetInsertPoint(then);
    body();
    b.CreateBr(done);
    done->moveAfter(b.GetInsertBlock());
    b.SetInsertPoint(done);
}

}  // namespace heddle
