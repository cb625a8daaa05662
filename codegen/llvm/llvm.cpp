// Emits the loops of a nest. Law: a value is kept as one scalar while all lanes agree or differ by a known step, and becomes a
// vector only where it must.
//
// A unit is a block of the last outer axis. Lanes walk that axis (lane mode), or the inner index for one point after the other (row mode);
// in row mode too, lanes walk the block's points where these prepare what the inner loops read: the prologue.
#include "codegen/llvm/llvm.h"

#include <bit>

#include "codegen/llvm/memory.h"
#include "codegen/llvm/scalar.h"
#include "codegen/llvm/scan.h"

namespace heddle {

namespace {

using loop::Val, loop::What;
constexpr std::int64_t kUnrolled = 400;  // statements, at most, that a loop of constant extent is unrolled to
constexpr std::int64_t kAbreast = 3;      // parts of such a loop, at most, that go along together
constexpr std::int64_t kAhead = 1024;     // bytes that memory is asked for before it is read or written

// How a value is at hand: for one lane (and the others step apart), or for each.
struct Held {
    Lv v = nullptr;
    bool each = false;
    std::int64_t step = 0;
};
// The lanes in which statements are being emitted.
struct Lanes {
    int width = 1;
    Lv mask = nullptr;   // null: all take part
    Lv inner = nullptr;  // lane 0's index in the running phase
};
// How lanes walk an extent: `width` at a time; a constant rest in lanes of its own.
struct Walk {
    int width = 1;
    std::optional<std::int64_t> extent;  // if constant
    bool unroll = false;
    int rest() const { return extent ? static_cast<int>(*extent % width) : 0; }
    int rest_width() const { return static_cast<int>(std::bit_ceil(static_cast<unsigned>(rest()))); }
    std::int64_t parts() const { return *extent / width + (rest() > 0); }  // of a constant walk
    std::vector<int> widths() const {    // that its body runs in, widest first
        std::vector<int> w;
        if (!extent || *extent >= width) w.push_back(width);
        if (rest() > 0 && (w.empty() || rest_width() != width)) w.push_back(rest_width());
        return w;
    }
};

class Emitter {
public:
    Emitter(llvm::Module& m, const Target& target, const loop::Nest& n) : n_(n), ir_(m, target), b_(ir_.b), held_(n.values.size()), steps_known_(n.values.size()), nonneg_(n.values.size(), -1), finals_(n.folds.size()) {}

    llvm::Function* run(const std::string& name) {
        auto* ptr = b_.getPtrTy();
        auto* i64 = b_.getInt64Ty();
        f_ = llvm::Function::Create(llvm::FunctionType::get(b_.getVoidTy(), {ptr, ptr, i64, i64}, false), llvm::Function::ExternalLinkage, name, ir_.m);
        f_->setDoesNotThrow();
        const char* names[] = {"buffers", "sizes", "begin", "end"};
        for (unsigned i = 0; i < 4; ++i) f_->getArg(i)->setName(names[i]);
        auto* entry = llvm::BasicBlock::Create(ir_.m.getContext(), "entry", f_);
        auto* work = llvm::BasicBlock::Create(ir_.m.getContext(), "work", f_);
        auto* leave = llvm::BasicBlock::Create(ir_.m.getContext(), "leave", f_);
        b_.SetInsertPoint(entry);
        Memory memory(ir_, n_.buffers, f_->getArg(0));
        memory_ = &memory;
        entry_end_ = b_.CreateCondBr(b_.CreateICmpSLT(f_->getArg(2), f_->getArg(3)), work, leave);
        b_.SetInsertPoint(work);
        statements(n_.uniform);
        units();
        add_up();
        b_.CreateBr(leave);
        b_.SetInsertPoint(leave);
        b_.CreateRetVoid();
        leave->moveAfter(&f_->back());
        return f_;
    }

private:
    const loop::Value& at(Val v) const { return n_.values[static_cast<std::size_t>(v)]; }
    Held& held(Val v) { return held_[static_cast<std::size_t>(v)]; }
    Lv alloca_of(llvm::Type* t) {
        llvm::IRBuilderBase::InsertPointGuard guard(b_);
        b_.SetInsertPoint(entry_end_);
        return b_.CreateAlloca(t);
    }

    // ---- values
    Lv first(Val v) {  // in lane 0
        const Held& h = held(v);
        HEDDLE_CHECK(h.v, "value used before it is defined");
        return h.each && Ir::width(h.v) > 1 ? b_.CreateExtractElement(h.v, std::uint64_t{0}) : h.v;
    }
    Lv lanes(Val v) {  // in every lane
        const Held& h = held(v);
        HEDDLE_CHECK(h.v, "value used before it is defined");
        int w = in_.width;
        if (w == 1 || h.each) return h.v;
        Lv all = ir_.splat(h.v, w);
        if (h.step == 0) return all;
        Lv i = ir_.iota(h.v->getType(), w);
        return b_.CreateAdd(all, h.step == 1 ? i : b_.CreateMul(i, ir_.integer(i, h.step)));
    }
    // By how much v grows from lane to lane, if that is known. The step noted for a load is that of its address.
    std::optional<std::int64_t> step(Val v) {
        if (in_.width == 1) return 0;
        auto& known = steps_known_[static_cast<std::size_t>(v)];
        if (!known) known = derive_step(v);
        return *known;
    }
    std::optional<std::int64_t> derive_step(Val v) {
        const loop::Value& x = at(v);
        if (!(rows_ ? x.varies_inner : x.varies_last)) return 0;
        if (!is_int(x.dtype) || (x.what != What::map && x.what != What::outer && x.what != What::inner)) return {};
        bool same = x.what == What::map;  // in all lanes
        for (Val i : x.in) {
            if (!step(i)) return {};
            same &= *step(i) == 0;
        }
        if (same) return 0;
        if (auto known = rows_ ? x.step_inner : x.step_last) return known;
        // A vector from a multiple of its width on has one quotient, and remainders side by side; and sums of these are such too.
        if (x.op == Op::add) return *step(x.in[0]) + *step(x.in[1]);
        if (std::int64_t by = loop::divisor(n_, x); by > 0 && by % widest() == 0 && starts_at_multiple(x.in[0])) return x.op == Op::mod ? 1 : 0;
        return {};
    }
    int widest() const { return n_.schedule.lanes_inner && !rows_ ? n_.schedule.chunk : n_.schedule.width; }  // vector that lanes walk in now
    bool starts_at_multiple(Val index) const {  // of the widest vector, in lane 0
        const loop::Value& x = at(index);
        if (rows_) return x.what == What::inner;
        return x.what == What::outer && static_cast<std::size_t>(x.index) + 1 == n_.outer.size() && n_.schedule.chunk % widest() == 0;
    }
    // Known not to be negative: indices, sizes and what adding, multiplying and dividing makes of them.
    bool nonneg(Val v) {
        signed char& known = nonneg_[static_cast<std::size_t>(v)];
        if (known < 0) {
            const loop::Value& x = at(v);
            bool yes = x.what == What::outer || x.what == What::inner || x.what == What::size || (x.what == What::constant && x.imm >= 0);
            if (x.what == What::map && is_int(x.dtype)) {
                if (x.op == Op::add || x.op == Op::mul || x.op == Op::floordiv) yes = nonneg(x.in[0]) && nonneg(x.in[1]);
                if (x.op == Op::mod) yes = nonneg(x.in[1]);
            }
            known = yes;
        }
        return known > 0;
    }
    Place place(Val address) {
        Place p{.base = nullptr, .step = step(address), .each = nullptr};
        if (held(address).each && p.step != 0) p.step.reset();
        if (p.step) p.base = first(address);
        else p.each = lanes(address);
        return p;
    }
    Lv both(Lv a, Lv b) {
        if (!a || !b) return a ? a : b;
        int w = std::max(Ir::width(a), Ir::width(b));
        return b_.CreateAnd(Ir::width(a) == w ? a : ir_.splat(a, w), Ir::width(b) == w ? b : ir_.splat(b, w));
    }

    // ---- statements
    void statements(const std::vector<Val>& list) {
        for (Val v : begin(list)) statement(v);
    }
    // In the order in which they are emitted. Stores come last: a load after a store to the same place in another page would wait for it.
    std::vector<Val> begin(const std::vector<Val>& list) {
        together_.clear();
        if (in_.width > 1)
            for (const loop::Stretch& s : loop::stretches(n_, list, rows_)) {
                auto t = std::make_shared<Together>(Together{s.members, std::vector<Lv>(s.members.size()), 0});
                for (Val v : s.members) together_[v] = t;
            }
        std::vector<Val> order = list;
        std::stable_partition(order.begin(), order.end(), [&](Val v) { return at(v).what != What::store || read_back(list, v); });
        return order;
    }
    // All parts of a short loop, statement by statement: what is the same for all of them is at hand once.
    void abreast(const std::vector<Val>& list, const Walk& w, Lv size) {
        struct Part {
            Lanes in;
            std::vector<Held> held;
            std::map<Val, std::shared_ptr<Together>> together;
        };
        std::vector<Part> parts;
        std::vector<Val> order;
        walk(w, ir_.i64(0), size, [&](Lv i) {
            in_.inner = i;
            order = begin(list);
            parts.push_back({in_, held_, together_});
        });
        const Lanes outside = in_;
        for (Val v : order)
            for (Part& p : parts) {
                in_ = p.in;
                held_.swap(p.held), together_.swap(p.together);
                statement(v);
                held_.swap(p.held), together_.swap(p.together);
            }
        in_ = outside;
    }
    static bool back(const loop::Phase& p) { return p.ordered && p.reverse; }  // lanes walk it from its end on
    bool read_back(const std::vector<Val>& list, Val store) const {  // after it
        return std::any_of(std::find(list.begin(), list.end(), store), list.end(), [&](Val v) {
            return at(v).what != What::store && (at(v).what == What::load || at(v).what == What::accumulate) && at(v).index == at(store).index;
        });
    }
    // Accesses without a gap between them go to memory as one, and are taken apart or put together in registers.
    struct Together {
        std::vector<Val> members;
        std::vector<Lv> parts;  // of members
        std::size_t there = 0;  // parts to be stored that are there
        bool by_rows() const { return members.size() > 4; }  // a vector for each lane's row, or for all at once
    };
    Together* together(Val v, std::size_t& k) {
        auto it = together_.find(v);
        if (it == together_.end()) return nullptr;
        Together& t = *it->second;
        const Val address = at(v).in[0];
        if (held(address).each || step(address) != static_cast<std::int64_t>(t.members.size())) return nullptr;
        if (t.by_rows() && in_.mask) return nullptr;
        k = static_cast<std::size_t>(std::find(t.members.begin(), t.members.end(), v) - t.members.begin());
        return &t;
    }
    Place start(Val member, std::size_t k, int on = 0) {  // of what all members cover, and so many elements on
        Lv address = first(at(member).in[0]);
        return {.base = b_.CreateAdd(address, ir_.integer(address, on - static_cast<std::int64_t>(k))), .step = 1, .each = nullptr};
    }
    Lv columns(int n) {  // the first n of a vector; null: all
        if (n >= in_.width) return nullptr;
        Lv iota = ir_.iota(b_.getInt32Ty(), in_.width);
        return b_.CreateICmpULT(iota, ir_.integer(iota, n));
    }
    // What the walk comes to soon is asked for: a processor's own prefetching ends with each page.
    void prefetch(const loop::Value& access, const Place& p, int elements) {
        if (direction_ == 0 || p.step != 1 || at(access.in[0]).step_last.value_or(0) == 0) return;
        const std::int64_t at_once = elements * bytes(n_.buffers[static_cast<std::size_t>(access.index)].dtype);
        memory_->prefetch(access.index, p.base, elements, direction_ * std::max(kAhead, 2 * at_once), access.what != What::load);
    }
    // A square of vectors with rows for columns: elements change places across distances of half the width, a quarter, .. 1.
    std::vector<Lv> turned(std::vector<Lv> rows) {
        const int w = static_cast<int>(rows.size());
        for (int d = w / 2; d > 0; d /= 2)
            for (int i = 0; i < w; ++i) {
                if (i & d) continue;
                std::vector<int> low, high;
                for (int l = 0; l < w; ++l) low.push_back(l & d ? w + l - d : l), high.push_back(l & d ? w + l : l + d);
                Lv a = rows[static_cast<std::size_t>(i)], b = rows[static_cast<std::size_t>(i + d)];
                rows[static_cast<std::size_t>(i)] = b_.CreateShuffleVector(a, b, low);
                rows[static_cast<std::size_t>(i + d)] = b_.CreateShuffleVector(a, b, high);
            }
        return rows;
    }
    Lv spread(Lv mask, int by) {
        if (!mask || Ir::width(mask) == 1) return mask;
        std::vector<int> lane;
        for (int e = 0; e < in_.width * by; ++e) lane.push_back(e / by);
        return b_.CreateShuffleVector(mask, lane);
    }
    Lv taken_apart(Together& t, Val v, std::size_t k) {
        const int n = static_cast<int>(t.members.size()), w = in_.width;
        if (!t.parts[k] && t.by_rows()) {
            prefetch(at(v), start(v, k), w * n);
            for (int c = 0; c < n; c += w) {
                std::vector<Lv> rows;
                for (int i = 0; i < w; ++i) rows.push_back(memory_->load(at(v).index, start(v, k, i * n + c), w, columns(n - c)));
                rows = turned(std::move(rows));
                for (int j = c; j < std::min(n, c + w); ++j) t.parts[static_cast<std::size_t>(j)] = rows[static_cast<std::size_t>(j - c)];
            }
        }
        if (!t.parts[k]) {
            const Place from = start(v, k);
            prefetch(at(v), from, w * n);
            Lv all = memory_->load(at(v).index, from, w * n, spread(in_.mask, n));
            for (int j = 0; j < n; ++j) {
                std::vector<int> lane;
                for (int i = 0; i < w; ++i) lane.push_back(i * n + j);
                t.parts[static_cast<std::size_t>(j)] = b_.CreateShuffleVector(all, lane);
            }
        }
        return t.parts[k];
    }
    void put_together(Together& t, Val v, std::size_t k) {
        t.parts[k] = lanes(at(v).in[1]);
        if (++t.there < t.members.size()) return;
        const int n = static_cast<int>(t.members.size()), w = in_.width;
        if (t.by_rows()) {
            prefetch(at(v), start(v, k), w * n);
            for (int c = 0; c < n; c += w) {
                std::vector<Lv> rows;
                for (int j = c; j < c + w; ++j) rows.push_back(j < n ? t.parts[static_cast<std::size_t>(j)] : llvm::PoisonValue::get(t.parts[0]->getType()));
                rows = turned(std::move(rows));
                for (int i = 0; i < w; ++i) memory_->store(at(v).index, start(v, k, i * n + c), w, columns(n - c), rows[static_cast<std::size_t>(i)]);
            }
            return;
        }
        Lv all = llvm::PoisonValue::get(Ir::wide(t.parts[0]->getType()->getScalarType(), n * w));
        for (int j = 0; j < n; ++j) all = b_.CreateInsertVector(all->getType(), all, t.parts[static_cast<std::size_t>(j)], ir_.i64(j * w));
        std::vector<int> element;
        for (int e = 0; e < n * w; ++e) element.push_back(e % n * w + e / n);
        const Place to = start(v, k);
        prefetch(at(v), to, n * w);
        memory_->store(at(v).index, to, n * w, spread(in_.mask, n), b_.CreateShuffleVector(all, element));
    }
    void statement(Val v) {
        const loop::Value& x = at(v);
        Held& h = held(v);
        auto index = static_cast<std::size_t>(x.index);
        switch (x.what) {
            case What::constant: h = {Ir::num(ir_.reg(x.dtype), x.imm)}; break;
            case What::size: h = {b_.CreateLoad(b_.getInt64Ty(), b_.CreateConstInBoundsGEP1_64(b_.getInt64Ty(), f_->getArg(1), index), n_.sizes[index])}; break;
            case What::outer: h = {point_[index], false, index + 1 == n_.outer.size() && !rows_}; break;
            case What::inner: h = {in_.inner, false, rows_}; break;
            case What::map: map(x, v); break;
            case What::load: load(x, v); break;
            case What::fold: h = {finals_[index], Ir::width(finals_[index]) > 1}; break;
            case What::carry: h = {carried(x), true}; break;
            case What::store:
                if (std::size_t k = 0; Together* t = together(v, k)) put_together(*t, v, k);
                else if (across_ && in_.width > 1 && loop::compresses(n_, *across_, v))
                    memory_->compress(x.index, first(x.in[0]), in_.width, both(in_.mask, predicate(x, 2)), lanes(x.in[1]));
                else store(x);
                break;
            case What::accumulate:
                if (is_sum(x)) sum(x);
                else memory_->accumulate(x.index, place(x.in[0]), in_.width, both(in_.mask, predicate(x, 2)), lanes(x.in[1]));
                break;
            case What::fold_step: fold_step(x); break;
            case What::carry_step:
                if (!across_) steps_.emplace_back(carries_.at(x.index), lanes(x.in[0]));
                break;
        }
        if (h.v && !x.name.empty() && !h.v->hasName() && llvm::isa<llvm::Instruction>(h.v)) h.v->setName(x.name);
    }
    void store(const loop::Value& x) {
        const Place p = place(x.in[0]);
        prefetch(x, p, in_.width);
        memory_->store(x.index, p, in_.width, both(in_.mask, predicate(x, 2)), lanes(x.in[1]));
    }
    void map(const loop::Value& x, Val v) {
        auto s = step(v);
        Lv in[3] = {};
        for (std::size_t i = 0; i < x.in.size(); ++i) in[i] = s ? first(x.in[i]) : lanes(x.in[i]);
        ir_.nonneg = x.in.size() == 2 && nonneg(x.in[0]) && nonneg(x.in[1]);
        held(v) = {x.op == Op::cast ? cast(ir_, in[0], x.dtype) : scalar(ir_, x.op, in[0], in[1], in[2]), !s, s.value_or(0)};
    }
    // One bit where all lanes agree; null: it always holds.
    Lv predicate(const loop::Value& x, std::size_t k) {
        if (x.in.size() <= k || x.in[k] < 0) return nullptr;
        return step(x.in[k]) ? first(x.in[k]) : lanes(x.in[k]);
    }
    void load(const loop::Value& x, Val v) {
        if (std::size_t k = 0; Together* t = together(v, k)) {
            held(v) = {taken_apart(*t, v, k), true};
            return;
        }
        Place p = place(x.in[0]);
        Lv predicate = this->predicate(x, 1);
        int w = in_.width;
        if (w == 1 || p.step == 0) {
            bool differs = predicate && Ir::width(predicate) > 1;
            Lv one = memory_->load(x.index, p, w, differs ? both(predicate, in_.mask) : predicate);
            if (!differs) held(v) = {one};
            else held(v) = {b_.CreateSelect(predicate, ir_.splat(one, w), llvm::Constant::getNullValue(Ir::wide(one->getType(), w))), true};
        } else {
            prefetch(x, p, w);
            held(v) = {memory_->load(x.index, p, w, both(predicate, in_.mask)), true};
        }
    }
    void fold_step(const loop::Value& x) {
        const loop::Fold& fold = n_.folds[static_cast<std::size_t>(x.index)];
        Lv slot = folds_.at({x.index, in_.width}), value = lanes(x.in[0]);
        Lv old = b_.CreateLoad(value->getType(), slot);
        Lv next = combine(fold, old, value);
        // A lane beyond the end keeps what it has. In lane mode it is never stored.
        if (in_.mask && rows_) next = b_.CreateSelect(in_.mask, next, old);
        b_.CreateStore(next, slot);
    }
    // A carry as each lane finds it. Lanes that walk its loop pass it on among themselves; one beyond the end passes it on as it is.
    Lv carried(const loop::Value& x) {
        Lv slot = carries_.at(x.index);
        if (!across_) return b_.CreateLoad(Ir::wide(ir_.reg(x.dtype), in_.width), slot);
        Lv now = b_.CreateLoad(ir_.reg(x.dtype), slot);
        auto r = loop::recurrence(n_, *across_, x.index);
        auto product = [&](const std::vector<Val>& factors) {
            Lv p = nullptr;
            for (Val f : factors) p = p ? scalar(ir_, Op::mul, p, lanes(f)) : lanes(f);
            return p;
        };
        Lv a = product(r->a), b = nullptr;
        for (const auto& term : r->b) b = b ? scalar(ir_, Op::add, b, product(term)) : product(term);
        auto masked = [&](Lv v, double c) { return v && in_.mask ? b_.CreateSelect(in_.mask, v, Ir::num(v, c)) : v; };
        if (in_.width == 1) {
            Lv next = a ? scalar(ir_, Op::mul, a, now) : now;
            steps_.emplace_back(slot, b ? scalar(ir_, Op::add, next, b) : next);
            return now;
        }
        if (!a && r->b.size() == 1 && r->b[0].size() == 1)
            if (const loop::Value& one = at(r->b[0][0]); one.what == What::map && one.op == Op::cast && at(one.in[0]).dtype == DType::b1) {  // counted
                Lv bits = b_.CreateBitCast(both(lanes(one.in[0]), in_.mask), b_.getIntNTy(static_cast<unsigned>(in_.width)));
                LaneScan s = scan_lanes(ir_, nullptr, masked(b, 0), now, in_.width, across_->reverse);
                steps_.emplace_back(slot, b_.CreateAdd(now, b_.CreateZExtOrTrunc(b_.CreateUnaryIntrinsic(llvm::Intrinsic::ctpop, bits), now->getType())));
                return s.before;
            }
        LaneScan s = scan_lanes(ir_, masked(a, 1), masked(b, 0), now, in_.width, across_->reverse);
        steps_.emplace_back(slot, s.after);
        return s.before;
    }
    // What all points add to one place is added up in lanes, and to memory at the end.
    bool is_sum(const loop::Value& x) const {
        const loop::Value& to = at(x.in[0]);
        return !to.varies_outer && !to.varies_inner && at(x.in[1]).dtype != DType::b1 && std::find(n_.uniform.begin(), n_.uniform.end(), x.in[0]) != n_.uniform.end();
    }
    void sum(const loop::Value& x) {
        Lv value = lanes(x.in[1]);
        if (Lv mask = both(in_.mask, predicate(x, 2))) value = b_.CreateSelect(mask, value, llvm::Constant::getNullValue(value->getType()));
        Lv& slot = sums_[{x.index, x.in[0], in_.width}];
        if (!slot) {
            slot = alloca_of(value->getType());
            llvm::IRBuilderBase::InsertPointGuard guard(b_);
            b_.SetInsertPoint(entry_end_);
            b_.CreateStore(llvm::Constant::getNullValue(value->getType()), slot);
        }
        b_.CreateStore(scalar(ir_, Op::add, b_.CreateLoad(value->getType(), slot), value), slot);
    }
    void add_up() {
        for (const auto& [key, slot] : sums_) {
            auto [buffer, to, width] = key;
            in_ = {.width = width};
            memory_->accumulate(buffer, {.base = first(to), .step = 0, .each = nullptr}, width, nullptr, b_.CreateLoad(llvm::cast<llvm::AllocaInst>(slot)->getAllocatedType(), slot));
        }
    }
    Lv combine(const loop::Fold& fold, Lv a, Lv b) {
        llvm::IRBuilderBase::FastMathFlagGuard guard(b_);
        llvm::FastMathFlags flags = b_.getFastMathFlags();
        if (fold.op == Op::sum || fold.op == Op::prod) flags.setAllowReassoc(true);
        b_.setFastMathFlags(flags);
        return scalar(ir_, fold.op, a, b);
    }
    // What lanes start at where init may count only once.
    double neutral(const loop::Fold& f) const { return f.op == Op::sum || f.op == Op::prod ? def(f.op).init : f.init; }

    // ---- loops
    // body() once for every `width` lanes from lo to hi, in_ set but for its inner index; i is lane 0's. A constant walk starts at 0;
    // in reverse, what is left of the last vector comes first.
    void walk(const Walk& w, Lv lo, Lv hi, const std::function<void(Lv i)>& body, bool reverse = false) {
        Lanes outside = in_;
        auto run = [&](int width, Lv mask, Lv i) {
            in_ = {width, mask, outside.inner};
            body(i);
            in_ = outside;
        };
        Lv count = b_.CreateSub(hi, lo);
        Lv whole = b_.CreateAdd(lo, b_.CreateAnd(count, ir_.i64(-w.width)));
        if (w.width == 1) whole = hi;
        auto vectors = [&] {
            if (w.extent && w.unroll) {
                std::int64_t n = *w.extent / w.width;
                for (std::int64_t k = 0; k < n; ++k) run(w.width, nullptr, ir_.i64((reverse ? n - 1 - k : k) * w.width));
            } else if (!w.extent || *w.extent >= w.width) {
                ir_.loop(lo, whole, w.width, [&](Lv i) { run(w.width, nullptr, reverse ? b_.CreateSub(b_.CreateAdd(lo, b_.CreateSub(whole, ir_.i64(w.width))), i) : i); });
            }
        };
        auto rest = [&] {
            if (w.extent && w.rest() > 0) {
                int width = w.rest_width();
                Lv iota = ir_.iota(b_.getInt32Ty(), width);
                run(width, width == w.rest() ? nullptr : b_.CreateICmpULT(iota, ir_.integer(iota, w.rest())), ir_.i64(*w.extent - w.rest()));
            } else if (!w.extent && w.width > 1) {
                ir_.when(b_.CreateICmpSLT(whole, hi), [&] {
                    Lv iota = ir_.iota(b_.getInt32Ty(), w.width);
                    Lv left = b_.CreateTrunc(b_.CreateSub(hi, whole), b_.getInt32Ty());
                    run(w.width, b_.CreateICmpULT(iota, ir_.splat(left, w.width)), whole);
                });
            }
        };
        if (reverse) rest();
        vectors();
        if (!reverse) rest();
    }
    Walk plan(const Dim& extent, std::size_t size) const {
        Walk w{.width = n_.schedule.width, .extent = {}, .unroll = false};
        if (extent.is_const()) {
            w.extent = extent.value();
            w.unroll = (*w.extent / w.width + 1) * static_cast<std::int64_t>(size) <= kUnrolled;
        }
        return w;
    }

    void phase(const loop::Phase& p) {
        bool across = rows_ && n_.schedule.width > 1 && loop::walkable(n_, p);  // lanes walk this loop
        Walk w = across ? plan(p.extent, p.body.size()) : Walk{};
        std::vector<int> widths = across ? w.widths() : std::vector{in_.width};
        for (int f : p.folds)
            for (int width : widths) {
                const loop::Fold& fold = n_.folds[static_cast<std::size_t>(f)];
                auto* t = Ir::wide(ir_.reg(fold.dtype), width);
                Lv slot = folds_[{f, width}] = alloca_of(t);
                b_.CreateStore(Ir::num(t, across ? neutral(fold) : fold.init), slot);
            }
        for (int c : p.carries) {
            const loop::Carry& carry = n_.carries[static_cast<std::size_t>(c)];
            auto* t = Ir::wide(ir_.reg(carry.dtype), across ? 1 : in_.width);
            b_.CreateStore(Ir::num(t, carry.init), carries_[c] = alloca_of(t));
        }
        across_ = across ? &p : nullptr;
        Lv size = first(p.size);
        auto body = [&](Lv i) {
            in_.inner = i;
            steps_.clear();
            statements(p.body);
            for (auto [slot, next] : steps_) b_.CreateStore(next, slot);
        };
        auto loop = [&] {
            if (across) direction_ = back(p) ? -1 : 1;
            if (across && !p.ordered && w.unroll && w.parts() <= kAbreast) abreast(p.body, w, size);
            else if (across) walk(w, ir_.i64(0), size, body, back(p));
            else ir_.loop(ir_.i64(0), size, 1, [&](Lv i) { body(p.reverse ? b_.CreateSub(b_.CreateSub(size, ir_.i64(1)), i) : i); });
            direction_ = 0;
        };
        if (p.guard < 0) loop();
        else ir_.when(any(p.guard), loop);
        for (int f : p.folds) finals_[static_cast<std::size_t>(f)] = across ? reduced(f, widths) : b_.CreateLoad(Ir::wide(ir_.reg(n_.folds[static_cast<std::size_t>(f)].dtype), in_.width), folds_.at({f, in_.width}));
        across_ = nullptr;
        statements(p.after);
    }
    // Does it hold in a lane?
    Lv any(Val condition) {
        Lv c = step(condition) ? first(condition) : both(in_.mask, lanes(condition));
        return Ir::width(c) > 1 ? b_.CreateOrReduce(c) : c;
    }
    Lv reduced(int f, const std::vector<int>& widths) {
        const loop::Fold& fold = n_.folds[static_cast<std::size_t>(f)];
        auto* t = ir_.reg(fold.dtype);
        Lv all = nullptr;
        auto halve_to = [&](int width) {
            while (all && Ir::width(all) > width) {
                auto [a, b] = ir_.halves(all);
                if (Ir::width(all) == 2) a = b_.CreateExtractElement(a, std::uint64_t{0}), b = b_.CreateExtractElement(b, std::uint64_t{0});
                all = combine(fold, a, b);
            }
        };
        for (int width : widths) {
            halve_to(width);
            Lv part = b_.CreateLoad(Ir::wide(t, width), folds_.at({f, width}));
            all = all ? combine(fold, all, part) : part;
        }
        halve_to(1);
        if (!all) return Ir::num(t, fold.init);
        return neutral(fold) == fold.init ? all : combine(fold, Ir::num(t, fold.init), all);
    }

    // One point per lane: everything but the uniform statements.
    void point() {
        statements(n_.prologue);
        for (const loop::Phase& p : n_.phases) phase(p);
    }
    void walk_by(bool rows) {
        rows_ = rows;
        std::fill(steps_known_.begin(), steps_known_.end(), std::nullopt);
    }
    // The points lo..hi of the last axis, at most `width` of them: their prologues in lanes, then one after the other what follows.
    void points(Lv lo, Lv hi, int width) {
        walk_by(false);
        Lv count = b_.CreateSub(hi, lo), iota = ir_.iota(b_.getInt32Ty(), width);
        in_ = {width, b_.CreateICmpULT(iota, ir_.splat(b_.CreateTrunc(count, b_.getInt32Ty()), width)), nullptr};
        point_.back() = lo;
        statements(n_.prologue);
        struct Kept {
            Val v;
            Held h;
            Lv slot;  // of each lane's
        };
        std::vector<Kept> kept;
        for (Val v : n_.prologue) {
            Held h = held(v);
            if (!h.v) continue;
            Lv slot = nullptr;
            if (h.each) {
                Lv stored = Ir::is_bool(h.v) ? b_.CreateZExt(h.v, Ir::wide(b_.getInt8Ty(), width)) : h.v;
                b_.CreateStore(stored, slot = alloca_of(stored->getType()));
            }
            kept.push_back({v, h, slot});
        }
        in_ = {};
        walk_by(true);
        // Loops that all run in reverse: so do the points, and memory is walked one way.
        const bool reverse = std::all_of(n_.phases.begin(), n_.phases.end(), [](const loop::Phase& p) { return back(p); });
        ir_.loop(ir_.i64(0), count, 1, [&](Lv k) {
            Lv i = reverse ? b_.CreateSub(b_.CreateSub(count, ir_.i64(1)), k) : k;
            for (const Kept& k : kept) {
                if (k.slot) {
                    auto* t = llvm::cast<llvm::FixedVectorType>(llvm::cast<llvm::AllocaInst>(k.slot)->getAllocatedType())->getElementType();
                    Lv one = b_.CreateLoad(t, b_.CreateInBoundsGEP(t, k.slot, i));
                    held(k.v) = {Ir::is_bool(k.h.v) ? b_.CreateTrunc(one, b_.getInt1Ty()) : one};
                } else if (k.h.step != 0) {
                    held(k.v) = {b_.CreateAdd(k.h.v, b_.CreateMul(b_.CreateTrunc(i, k.h.v->getType()), ir_.integer(k.h.v, k.h.step)))};
                }
            }
            point_.back() = b_.CreateAdd(lo, i);
            for (const loop::Phase& p : n_.phases) phase(p);
        });
    }
    // A block lo..hi of the last outer axis.
    void block(Lv lo, Lv hi) {
        auto one_by_one = [&] {
            ir_.loop(lo, hi, 1, [&](Lv i) {
                point_.back() = i;
                point();
            });
        };
        if (n_.schedule.lanes_inner) return n_.schedule.chunk > 1 ? points(lo, hi, n_.schedule.chunk) : one_by_one();
        if (n_.schedule.width == 1) return one_by_one();
        std::size_t statements = n_.prologue.size();
        for (const auto& p : n_.phases) statements += p.body.size() + p.after.size() + 20;
        Walk w = plan(n_.outer.back(), statements);
        if (w.extent && *w.extent > n_.schedule.chunk) w = {.width = n_.schedule.width, .extent = {}, .unroll = false};
        if (w.extent) lo = ir_.i64(0), hi = first(n_.outer_sizes.back());
        walk(w, lo, hi, [&](Lv i) {
            point_.back() = i;
            if (n_.phases.empty()) direction_ = 1;
            point();
            direction_ = 0;
        });
    }
    void units() {
        int rank = static_cast<int>(n_.outer.size());
        std::vector<Lv> counts;  // units along each axis
        for (Val v : n_.outer_sizes) counts.push_back(first(v));
        Lv chunk = ir_.i64(n_.schedule.chunk), last = rank > 0 ? counts.back() : nullptr;
        if (rank > 0) counts.back() = b_.CreateUDiv(b_.CreateAdd(last, ir_.i64(n_.schedule.chunk - 1)), chunk);

        // Indices of the first unit; from there on they are counted up.
        std::vector<Lv> index(counts.size());
        Lv rest = f_->getArg(2);
        for (std::size_t k = index.size(); k-- > 1; rest = b_.CreateUDiv(rest, counts[k])) index[k] = b_.CreateURem(rest, counts[k]);
        if (rank > 0) index[0] = rest;
        std::vector<Lv> slots;
        for (std::size_t k = 0; k < index.size(); ++k) {
            slots.push_back(alloca_of(b_.getInt64Ty()));
            b_.CreateStore(index[k], slots[k]);
        }
        ir_.loop(f_->getArg(2), f_->getArg(3), 1, [&](Lv) {
            point_.clear();
            for (Lv slot : slots) point_.push_back(b_.CreateLoad(b_.getInt64Ty(), slot));
            std::vector<Lv> at = point_;
            if (rank == 0) {
                point();
            } else {
                Lv lo = b_.CreateMul(at.back(), chunk), hi = b_.CreateAdd(lo, chunk);
                block(lo, b_.CreateSelect(b_.CreateICmpSLT(hi, last), hi, last));
            }
            Lv carry = b_.getTrue();
            for (std::size_t k = slots.size(); k-- > 0;) {
                Lv next = b_.CreateAdd(at[k], b_.CreateZExt(carry, b_.getInt64Ty()));
                carry = k > 0 ? b_.CreateICmpEQ(next, counts[k]) : nullptr;
                b_.CreateStore(carry ? b_.CreateSelect(carry, ir_.i64(0), next) : next, slots[k]);
            }
        });
    }

    const loop::Nest& n_;
    Ir ir_;
    llvm::IRBuilder<>& b_;
    llvm::Function* f_ = nullptr;
    llvm::Instruction* entry_end_ = nullptr;
    Memory* memory_ = nullptr;
    std::vector<Held> held_;
    std::vector<std::optional<std::optional<std::int64_t>>> steps_known_;
    std::vector<signed char> nonneg_;               // -1: not asked yet
    Lanes in_;
    bool rows_ = n_.schedule.lanes_inner;           // lanes walk the inner index, not the last outer axis
    std::vector<Lv> point_;                         // lane 0's index along each outer axis
    std::map<std::pair<int, int>, Lv> folds_;       // {fold, width}: its slot
    std::map<std::tuple<int, Val, int>, Lv> sums_;  // {buffer, address, width}: its slot
    std::map<int, Lv> carries_;
    std::map<Val, std::shared_ptr<Together>> together_;  // of the list that is being emitted
    const loop::Phase* across_ = nullptr;           // the phase that lanes walk
    int direction_ = 0;                             // in which lanes walk memory now; 0: they don't
    std::vector<std::pair<Lv, Lv>> steps_;          // {slot, next} of carries, written when the body has ended
    std::vector<Lv> finals_;                        // of folds
};

}  // namespace

llvm::Function* emit(llvm::Module& m, const Target& target, const std::string& name, const loop::Nest& n) { return Emitter(m, target, n).run(name); }

}  // namespace heddle
