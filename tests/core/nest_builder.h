// Nests written by hand, for tests of a back end alone, and what runs them on the CPU.
// Law: facts about lanes are derived as loop::lower derives them.
#pragma once
#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "runtime/cpu_backend.h"

namespace heddle {

struct NestBuilder {
    loop::Nest n;
    std::vector<loop::Val>* list = &n.uniform;  // where statements go

    NestBuilder(Shape outer, bool lanes_inner, int width = 16, int chunk = 32) {
        n.outer = std::move(outer);
        n.schedule = {.lanes_inner = lanes_inner, .width = width, .chunk = chunk};
        for (const Dim& d : n.outer) n.outer_sizes.push_back(dim(d));
    }
    loop::Val add(loop::Value v) {
        for (loop::Val i : v.in) {
            const auto& x = n.values[static_cast<std::size_t>(i)];
            v.varies_outer |= x.varies_outer, v.varies_last |= x.varies_last, v.varies_inner |= x.varies_inner;
        }
        auto fact = [&](bool varies, auto step) {
            auto& s = v.*step;
            if (s) return;
            if (!varies) { s = 0; return; }
            if (v.what == loop::What::load) { s = at(v.in[0]).*step; return; }
            if (v.what != loop::What::map || !is_int(v.dtype)) return;
            for (loop::Val i : v.in)
                if (at(i).what == loop::What::load && (at(i).*step) != 0) return;
            auto a = at(v.in[0]).*step, b = v.in.size() > 1 ? at(v.in[1]).*step : a;
            if (!a || !b) return;
            if (v.op == Op::add) s = *a + *b;
            if (v.op == Op::sub) s = *a - *b;
            if (v.op == Op::mul && at(v.in[1]).what == loop::What::constant) s = *a * static_cast<std::int64_t>(at(v.in[1]).imm);
        };
        fact(v.varies_last, &loop::Value::step_last);
        fact(v.varies_inner, &loop::Value::step_inner);
        n.values.push_back(std::move(v));
        list->push_back(static_cast<loop::Val>(n.values.size()) - 1);
        return list->back();
    }
    const loop::Value& at(loop::Val v) const { return n.values[static_cast<std::size_t>(v)]; }

    loop::Val constant(double x, DType t = DType::f32) { return add({.what = loop::What::constant, .dtype = t, .in = {}, .imm = x}); }
    loop::Val index(std::int64_t x) { return constant(static_cast<double>(x), DType::i64); }
    loop::Val dim(const Dim& d) {
        if (d.is_const()) return index(d.value());
        std::string name = print(d);
        auto it = std::find(n.sizes.begin(), n.sizes.end(), name);
        int k = static_cast<int>(it - n.sizes.begin());
        if (it == n.sizes.end()) n.sizes.push_back(name);
        return add({.what = loop::What::size, .dtype = DType::i64, .in = {}, .index = k});
    }
    loop::Val outer(int k) {
        bool last = k + 1 == static_cast<int>(n.outer.size());
        return add({.what = loop::What::outer, .dtype = DType::i64, .in = {}, .index = k, .varies_outer = true, .varies_last = last, .step_last = last, .step_inner = 0});
    }
    loop::Val inner() { return add({.what = loop::What::inner, .dtype = DType::i64, .in = {}, .varies_inner = true, .step_last = 0, .step_inner = 1}); }
    loop::Val map(Op op, std::vector<loop::Val> in, DType t = DType::f32) { return add({.what = loop::What::map, .op = op, .dtype = t, .in = std::move(in)}); }
    loop::Val at_index(loop::Val a, loop::Val size, loop::Val b) { return map(Op::add, {map(Op::mul, {a, size}, DType::i64), b}, DType::i64); }
    int buffer(DType t, bool written = false, bool accumulated = false) {
        int k = static_cast<int>(n.buffers.size());
        n.buffers.push_back({k, t, written, accumulated, "b" + std::to_string(k)});
        return k;
    }
    static DType computed(DType t) { return t == DType::f16 || t == DType::bf16 ? DType::f32 : t; }
    DType type(int buffer) const { return computed(n.buffers[static_cast<std::size_t>(buffer)].dtype); }
    loop::Val load(int buffer, loop::Val address, loop::Val predicate = -1) {
        loop::Value v{.what = loop::What::load, .dtype = type(buffer), .in = {address}, .index = buffer};
        if (predicate >= 0) v.in.push_back(predicate);
        return add(v);
    }
    void effect(loop::What what, int index, std::vector<loop::Val> in, Op op = Op::constant) { add({.what = what, .op = op, .in = std::move(in), .index = index}); }
    void store(int buffer, loop::Val address, loop::Val v) { effect(loop::What::store, buffer, {address, v}); }
    void accumulate(int buffer, loop::Val address, loop::Val v) { effect(loop::What::accumulate, buffer, {address, v}); }

    void prologue() { list = &n.prologue; }
    loop::Phase& phase(const Dim& extent, bool reverse = false) {
        list = &n.uniform;
        loop::Val size = dim(extent);
        loop::Phase p;
        p.extent = extent, p.size = size, p.reverse = reverse;
        n.phases.push_back(p);
        body();
        return n.phases.back();
    }
    void body() { list = &n.phases.back().body; }
    void after() { list = &n.phases.back().after; }
    int fold(Op op, DType t, double init, loop::Val x) {
        int f = static_cast<int>(n.folds.size());
        n.folds.push_back({op, t, init});
        n.phases.back().folds.push_back(f);
        effect(loop::What::fold_step, f, {x}, op);
        return f;
    }
    loop::Val folded(int f) {
        return add({.what = loop::What::fold, .dtype = n.folds[static_cast<std::size_t>(f)].dtype, .in = {}, .index = f, .varies_outer = true, .varies_last = true, .step_inner = 0});
    }
    loop::Val carry(DType t, double init) {
        int c = static_cast<int>(n.carries.size());
        n.carries.push_back({t, init});
        n.phases.back().carries.push_back(c), n.phases.back().ordered = true;
        return add({.what = loop::What::carry, .dtype = t, .in = {}, .index = c, .varies_outer = true, .varies_last = true, .varies_inner = true});
    }
    void carry_step(loop::Val x) { effect(loop::What::carry_step, static_cast<int>(n.carries.size()) - 1, {x}); }
};

inline CpuFn compiled(const loop::Nest& n) { return load_cpu_backend()->compile("k", {n}).at(0); }

// Runs all units in pieces, in shuffled order.
inline void run(const loop::Nest& n, const std::vector<void*>& buffers, const Sizes& sizes = {}) {
    CpuFn f = compiled(n);
    std::vector<std::int64_t> values;
    for (const auto& s : n.sizes) values.push_back(sizes.at(s));
    std::int64_t count = units(n, sizes), piece = std::max<std::int64_t>(1, count / 5);
    std::vector<std::int64_t> begins;
    for (std::int64_t b = 0; b < count; b += piece) begins.push_back(b);
    std::shuffle(begins.begin(), begins.end(), std::mt19937(7));
    for (auto b : begins) f(buffers.data(), values.data(), b, std::min(count, b + piece));
    if (count == 0) f(buffers.data(), values.data(), 0, 0);
}

#define NEEDS_LLVM()                                                             \
    if (std::string why; !load_cpu_backend(&why)) GTEST_SKIP() << "no CPU backend: " << why

}  // namespace heddle
