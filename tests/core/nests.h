// Loop nests built by hand, for tests of the back ends. Law: what lower() promises about lane facts holds here too.
#pragma once
#include <algorithm>

#include "passes/loop.h"

namespace heddle::test {

struct Build {
    loop::Nest n;
    std::vector<loop::Val>* scope = &n.uniform;

    explicit Build(Shape outer, Schedule s = {}) {
        n.outer = std::move(outer);
        n.schedule = s;
        for (const Dim& d : n.outer) n.outer_sizes.push_back(size(d));
        scope = &n.prologue;
    }
    loop::Val add(loop::Value v) {
        for (loop::Val o : v.in) {
            if (o < 0) continue;
            v.varies_outer |= n.values[static_cast<std::size_t>(o)].varies_outer;
            v.varies_inner |= n.values[static_cast<std::size_t>(o)].varies_inner;
        }
        n.values.push_back(std::move(v));
        scope->push_back(static_cast<int>(n.values.size()) - 1);
        return scope->back();
    }
    loop::Val constant(DType t, double v) { return add({.what = loop::What::constant, .dtype = t, .imm = v}); }
    loop::Val size(const Dim& d) {
        if (d.is_const()) return constant(DType::i64, static_cast<double>(d.value()));
        std::vector<std::string> names;
        d.names(names);
        auto i = std::find(n.sizes.begin(), n.sizes.end(), names.at(0)) - n.sizes.begin();
        if (i == static_cast<std::ptrdiff_t>(n.sizes.size())) n.sizes.push_back(names.at(0));
        return add({.what = loop::What::size, .dtype = DType::i64, .index = static_cast<int>(i)});
    }
    loop::Val outer(int axis) { return add({.what = loop::What::outer, .dtype = DType::i64, .index = axis, .varies_outer = true}); }
    loop::Val inner() { return add({.what = loop::What::inner, .dtype = DType::i64, .varies_inner = true}); }
    loop::Val map(Op op, DType t, std::vector<loop::Val> in, std::string name = "", std::string loc = "") {
        return add({.what = loop::What::map, .op = op, .dtype = t, .in = std::move(in), .name = std::move(name), .loc = std::move(loc)});
    }
    loop::Val at(std::vector<loop::Val> index, std::vector<loop::Val> sizes) {  // row-major address
        loop::Val a = index.at(0);
        for (std::size_t i = 1; i < index.size(); ++i)
            a = map(Op::add, DType::i64, {map(Op::mul, DType::i64, {a, sizes.at(i)}), index[i]});
        return a;
    }
    int buffer(Id id, DType t, std::string name, bool written = false, bool accumulated = false) {
        n.buffers.push_back({.id = id, .dtype = t, .written = written, .accumulated = accumulated, .name = std::move(name)});
        return static_cast<int>(n.buffers.size()) - 1;
    }
    loop::Val load(int b, loop::Val address, loop::Val predicate = -1, std::string name = "") {
        DType t = n.buffers[static_cast<std::size_t>(b)].dtype;
        if (t == DType::f16 || t == DType::bf16) t = DType::f32;
        return add({.what = loop::What::load, .dtype = t, .in = {address, predicate}, .index = b, .name = std::move(name)});
    }
    void store(int b, loop::Val address, loop::Val v) { add({.what = loop::What::store, .in = {address, v}, .index = b}); }
    void accumulate(int b, loop::Val address, loop::Val v) { add({.what = loop::What::accumulate, .in = {address, v}, .index = b}); }
    // Starts a phase; `body` is the scope until after() is called.
    void phase(const Dim& extent, bool reverse = false) {
        scope = &n.uniform;
        loop::Val s = size(extent);
        n.phases.push_back({.extent = extent, .size = s, .reverse = reverse});
        scope = &n.phases.back().body;
    }
    void after() { scope = &n.phases.back().after; }
    int fold(Op op, DType t, double init) {
        n.folds.push_back({op, t, init});
        n.phases.back().folds.push_back(static_cast<int>(n.folds.size()) - 1);
        return n.phases.back().folds.back();
    }
    void fold_step(int f, loop::Val v) {
        const loop::Fold& d = n.folds[static_cast<std::size_t>(f)];
        add({.what = loop::What::fold_step, .op = d.op, .dtype = d.dtype, .in = {v}, .index = f});
    }
    loop::Val folded(int f) {
        return add({.what = loop::What::fold, .dtype = n.folds[static_cast<std::size_t>(f)].dtype, .index = f, .varies_outer = true});
    }
    int carry(DType t, double init) {
        n.carries.push_back({t, init});
        n.phases.back().carries.push_back(static_cast<int>(n.carries.size()) - 1);
        n.phases.back().ordered = true;
        return n.phases.back().carries.back();
    }
    loop::Val carried(int c) {
        return add({.what = loop::What::carry, .dtype = n.carries[static_cast<std::size_t>(c)].dtype, .index = c, .varies_outer = true, .varies_inner = true});
    }
    void carry_step(int c, loop::Val v) { add({.what = loop::What::carry_step, .in = {v}, .index = c}); }
};

inline Schedule grouped(int group, int threads = 128) { return {.lanes_inner = group > 1, .group = group, .threads = threads}; }

}  // namespace heddle::test
