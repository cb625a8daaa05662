// Chooses the access: scalar, contiguous, gather or scatter, lane by lane. Law: see memory.h.
#include "codegen/llvm/memory.h"

#include <llvm/IR/MDBuilder.h>

#include "codegen/llvm/scalar.h"

namespace heddle {

namespace {
constexpr int kLine = 64;  // bytes of a cache line
}

Memory::Memory(Ir& ir, const std::vector<loop::Buffer>& buffers, Lv pointers) : ir_(ir), buffers_(buffers) {
    auto& context = ir.m.getContext();
    llvm::MDBuilder md(context);
    auto* domain = md.createAnonymousAliasScopeDomain("buffers");
    std::vector<llvm::Metadata*> scopes;
    for (const auto& b : buffers) scopes.push_back(md.createAnonymousAliasScope(domain, b.name));
    for (std::size_t i = 0; i < buffers.size(); ++i) {
        auto* p = ir.b.CreateLoad(ir.b.getPtrTy(), ir.b.CreateConstInBoundsGEP1_64(ir.b.getPtrTy(), pointers, i), buffers[i].name);
        p->setMetadata(llvm::LLVMContext::MD_invariant_load, llvm::MDNode::get(context, {}));
        pointers_.push_back(p);
        std::vector<llvm::Metadata*> rest = scopes;
        rest.erase(rest.begin() + static_cast<std::ptrdiff_t>(i));
        mine_.push_back(llvm::MDNode::get(context, scopes[i]));
        others_.push_back(llvm::MDNode::get(context, rest));
    }
    scratch_ = ir.b.CreateAlloca(ir.b.getInt64Ty(), nullptr, "nowhere");
}

template <class I> I* Memory::tag(I* access, int buffer) {
    auto i = static_cast<std::size_t>(buffer);
    access->setMetadata(llvm::LLVMContext::MD_alias_scope, mine_[i]);
    access->setMetadata(llvm::LLVMContext::MD_noalias, others_[i]);
    bool constant = !buffers_[i].written && !buffers_[i].accumulated;
    if (constant && llvm::isa<llvm::LoadInst>(access)) access->setMetadata(llvm::LLVMContext::MD_invariant_load, llvm::MDNode::get(ir_.m.getContext(), {}));
    return access;
}
Lv Memory::at(int buffer, Lv index) {
    auto i = static_cast<std::size_t>(buffer);
    return ir_.b.CreateInBoundsGEP(ir_.mem(buffers_[i].dtype), pointers_[i], index);
}
Lv Memory::lanes_mask(Lv mask, int width) {
    if (!mask) return ir_.splat(ir_.b.getTrue(), width);
    return Ir::width(mask) == width ? mask : ir_.splat(mask, width);
}
Lv Memory::each(const Place& p, int width) {
    if (p.each) return p.each;
    Lv lanes = ir_.iota(ir_.b.getInt64Ty(), width);
    return ir_.b.CreateAdd(ir_.splat(p.base, width), ir_.b.CreateMul(lanes, ir_.integer(lanes, *p.step)));
}
Lv Memory::zeros() {
    auto* t = llvm::ArrayType::get(ir_.b.getInt8Ty(), 256);
    if (auto* g = ir_.m.getNamedGlobal("zeros")) return g;
    auto* g = new llvm::GlobalVariable(ir_.m, t, true, llvm::GlobalValue::InternalLinkage, llvm::Constant::getNullValue(t), "zeros");
    g->setAlignment(llvm::Align(64));
    return g;
}
Lv Memory::load_one(int buffer, Lv pointer) {
    DType t = buffers_[static_cast<std::size_t>(buffer)].dtype;
    llvm::Type* m = ir_.mem(t);
    return tag(ir_.b.CreateAlignedLoad(m, pointer, llvm::Align(static_cast<std::uint64_t>(bytes(t)))), buffer);
}
void Memory::store_one(int buffer, Lv pointer, Lv value) {
    DType t = buffers_[static_cast<std::size_t>(buffer)].dtype;
    tag(ir_.b.CreateAlignedStore(value, pointer, llvm::Align(static_cast<std::uint64_t>(bytes(t)))), buffer);
}

Lv Memory::load(int buffer, const Place& place, int width, Lv mask) {
    auto& b = ir_.b;
    DType t = buffers_[static_cast<std::size_t>(buffer)].dtype;
    llvm::Type* m = ir_.mem(t);
    llvm::Align align(static_cast<std::uint64_t>(bytes(t)));
    bool one = width == 1 || place.step == 0;
    if (one || (place.step == 1 && (!mask || Ir::width(mask) == 1))) {
        Lv p = at(buffer, place.base);
        if (mask) p = b.CreateSelect(one ? ir_.any(mask) : mask, p, zeros());
        if (one) return from_memory(ir_, load_one(buffer, p), t);
        return from_memory(ir_, tag(b.CreateAlignedLoad(Ir::wide(m, width), p, align), buffer), t);
    }
    if (place.step == 1) {
        llvm::Type* w = Ir::wide(m, width);
        return from_memory(ir_, tag(b.CreateMaskedLoad(w, at(buffer, place.base), align, mask, llvm::Constant::getNullValue(w)), buffer), t);
    }
    Lv index = each(place, width);
    llvm::Type* w = Ir::wide(m, width);
    if (bytes(t) >= 4) {
        Lv all = lanes_mask(mask, width);
        return from_memory(ir_, tag(b.CreateMaskedGather(w, at(buffer, index), align, all, llvm::Constant::getNullValue(w)), buffer), t);
    }
    Lv out = llvm::PoisonValue::get(w);
    for (int i = 0; i < width; ++i) {
        auto lane = static_cast<std::uint64_t>(i);
        Lv p = at(buffer, b.CreateExtractElement(index, lane));
        if (mask) p = b.CreateSelect(Ir::width(mask) == 1 ? mask : b.CreateExtractElement(mask, lane), p, zeros());
        out = b.CreateInsertElement(out, load_one(buffer, p), lane);
    }
    return from_memory(ir_, out, t);
}

void Memory::prefetch(int buffer, Lv first, int elements, std::int64_t distance, bool write) {
    auto& b = ir_.b;
    const int all = elements * bytes(buffers_[static_cast<std::size_t>(buffer)].dtype);
    for (int line = 0; line + kLine <= all; line += kLine) {
        Lv p = b.CreateGEP(b.getInt8Ty(), at(buffer, first), ir_.i64(distance + line));  // may be anywhere: a prefetch never fails
        b.CreateIntrinsic(llvm::Intrinsic::prefetch, {p->getType()}, {p, b.getInt32(write), b.getInt32(3), b.getInt32(1)});
    }
}

void Memory::store(int buffer, const Place& place, int width, Lv mask, Lv value) {
    auto& b = ir_.b;
    DType t = buffers_[static_cast<std::size_t>(buffer)].dtype;
    llvm::Align align(static_cast<std::uint64_t>(bytes(t)));
    Lv stored = to_memory(ir_, value, t);
    if (width == 1 || place.step == 0) {  // lanes that write to one place write one value
        if (Ir::width(stored) > 1) stored = b.CreateExtractElement(stored, std::uint64_t{0});
        Lv p = at(buffer, place.base);
        store_one(buffer, mask ? b.CreateSelect(ir_.any(mask), p, scratch_) : p, stored);
    } else if (place.step == 1 && !mask) {
        store_one(buffer, at(buffer, place.base), stored);
    } else if (place.step == 1) {
        tag(b.CreateMaskedStore(stored, at(buffer, place.base), align, lanes_mask(mask, width)), buffer);
    } else if (bytes(t) >= 4) {
        tag(b.CreateMaskedScatter(stored, at(buffer, each(place, width)), align, lanes_mask(mask, width)), buffer);
    } else {
        Lv index = each(place, width), all = lanes_mask(mask, width);
        for (std::uint64_t i = 0; i < static_cast<std::uint64_t>(width); ++i) {
            Lv p = at(buffer, b.CreateExtractElement(index, i));
            if (mask) p = b.CreateSelect(b.CreateExtractElement(all, i), p, scratch_);
            store_one(buffer, p, b.CreateExtractElement(stored, i));
        }
    }
}

void Memory::compress(int buffer, Lv first, int width, Lv mask, Lv value) {
    DType t = buffers_[static_cast<std::size_t>(buffer)].dtype;
    Lv stored = to_memory(ir_, value, t);
    tag(ir_.b.CreateMaskedCompressStore(stored, at(buffer, first), lanes_mask(mask, width)), buffer);
}

void Memory::accumulate(int buffer, const Place& place, int width, Lv mask, Lv value) {
    auto& b = ir_.b;
    DType t = buffers_[static_cast<std::size_t>(buffer)].dtype;
    auto add = [&](Lv x, Lv y) { return scalar(ir_, Op::add, x, y); };
    if (width > 1 && place.step == 0) {
        if (mask) value = b.CreateSelect(lanes_mask(mask, width), value, llvm::Constant::getNullValue(value->getType()));
        Lv zero = llvm::Constant::getNullValue(value->getType()->getScalarType());
        if (Ir::is_float(value)) {
            auto* sum = b.CreateFAddReduce(zero, value);
            llvm::cast<llvm::Instruction>(sum)->setHasAllowReassoc(true);
            value = sum;
        } else {
            value = Ir::is_bool(value) ? b.CreateOrReduce(value) : b.CreateAddReduce(value);
        }
        accumulate(buffer, place, 1, mask ? ir_.any(mask) : nullptr, value);
    } else if (width == 1 || place.step) {
        store(buffer, place, width, mask, add(load(buffer, place, width, mask), value));
    } else {
        Lv all = lanes_mask(mask, width);
        for (std::uint64_t i = 0; i < static_cast<std::uint64_t>(width); ++i) {
            Lv p = at(buffer, b.CreateExtractElement(place.each, i));
            if (mask) p = b.CreateSelect(b.CreateExtractElement(all, i), p, scratch_);
            Lv sum = add(from_memory(ir_, load_one(buffer, p), t), b.CreateExtractElement(value, i));
            store_one(buffer, p, to_memory(ir_, sum, t));
        }
    }
}

}  // namespace heddle
