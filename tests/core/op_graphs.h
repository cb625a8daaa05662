// One small graph per row of the table: what tests of all ops run over. A new MAP or FOLD row needs no line here.
#pragma once
#include "ir/graph.h"

namespace heddle {

// The op on inputs of element type `f` (its own where it is bool's); sizes are B and N. Leaves and calls have none: an empty graph.
inline Graph op_graph(Op op, DType f) {
    Graph g;
    const OpDef& d = def(op);
    g.name = std::string(d.name);
    Dim B = Dim::symbol("B"), N = Dim::symbol("N");
    const Shape s{B, N, 3};
    int count = 0;
    auto input = [&](DType t, const Shape& shape) { return g.value(g.input({t, shape}, std::string(1, static_cast<char>('x' + count++)))); };
    auto done = [&](V v) { return g.outputs = {v.id}, g; };
    // Rows 0..N-1 of an axis of size N, each once; or three of them, with repetition.
    auto backwards = [&] { return size(g, {DType::i64, {N}}, N - 1) - iota(g, {DType::i64, {N}}, 0); };
    auto repeated = [&] { return mod(iota(g, {DType::i64, {B, 2}}, 0) + iota(g, {DType::i64, {B, 2}}, 1), size(g, {DType::i64, {B, 2}}, N)); };
    switch (op) {  // lists ops: those that have attributes or operands of several types
        case Op::select: {
            V x = input(f, s), y = input(f, s);
            return done(select(gt(x, y), x * 2, y));
        }
        case Op::cast: return done(cast(input(f, s), f == DType::f32 ? DType::f64 : DType::f32));
        case Op::expand: return done(expand(input(f, {B, 3}), {1}, s));
        case Op::permute: return done(permute(input(f, s), {2, 0, 1}));
        case Op::reshape: return done(reshape(input(f, s), {B, N * 3}));
        case Op::slice: return done(slice(input(f, s), 1, 1, N - 1));
        case Op::pad: return done(pad(input(f, s), 1, 2, 1));
        case Op::flip: return done(flip(input(f, s), 1));
        case Op::concat: {
            V x = input(f, s), y = input(f, {B, 2, 3});
            return done(concat({x, y, x}, 1));
        }
        case Op::stop_grad: {
            V x = input(f, s);
            return done(x * stop_grad(x));
        }
        case Op::surrogate: {  // a value, and another way to its derivative
            V x = input(f, s);
            return done(surrogate(x * x, x * (x + 1) - x));
        }
        case Op::realize: return done(realize(input(f, s) * 2));
        case Op::scan: {
            V a = input(f, s), b = input(f, s), all = scan(a, b, 1, 0, false, is_float(f) ? 0.5 : 1);
            for (int mode : {0, 1, 2})
                for (bool reverse : {false, true}) all = all + scan(a, b, 1, mode, reverse, (is_float(f) ? 0.25 : 1) * mode) * (mode + 1);
            return done(all);
        }
        case Op::gather: {
            V x = input(f, {N, 3});
            return done(gather(x, {repeated()}));
        }
        case Op::scatter_add: return done(scatter_add({f, {N, 3}}, {repeated()}, input(f, {B, 2, 3})));
        case Op::scatter: {
            V base = input(f, {N + 2, 3}), rows = input(f, {N, 3});
            return done(scatter(base, {backwards()}, rows));
        }
        case Op::blocks: {  // their number is of no input: the result has the input's size
            V x = input(f, {N}), rows = blocks(x, 4);
            return done(slice(reshape(rows * rows, {numel(rows.type().shape)}), 0, 0, N));
        }
        case Op::compact: {
            V x = input(f, {B, N}), mask = gt(x, zeros_like(x)), each = sum(cast(mask, DType::i64), {1});
            return done(compact(mask, scan(like(each, 1), each, 0, 1, false, 0), sum(each, {0}), {DType::i64, {Dim::symbol("u0")}}));
        }
        case Op::dot: {
            V x = input(f, {B, N}), y = input(f, {N, 3}), row = input(f, {3});
            if (bytes(f) < 4) return done(dot(x, y));  // a host with no library multiplies no narrow floats, beside a kernel
            return done(dot(x, y) + apply(Op::dot, {x, y, row}) * apply(Op::dot, {x, y, row}, {{"relu", true}}));
        }
        default: break;
    }
    if (d.kind == Kind::fold) return done(apply(op, {input(f, s)}, {{"axes", std::vector<Dim>{1}}}));
    if (d.kind != Kind::map) return {};
    std::vector<V> in;
    auto build = [&](DType t) {
        for (int k = 0; k < d.arity; ++k) in.push_back(input(t, s));
        return apply(op, in);
    };
    try {
        return done(build(f));
    } catch (const Error&) {  // of bools
        Graph h;
        std::vector<V> bools;
        for (int k = 0; k < d.arity; ++k) bools.push_back(h.value(h.input({DType::b1, s}, std::string(1, static_cast<char>('x' + k)))));
        h.name = g.name;
        h.outputs = {apply(op, bools).id};
        return h;
    }
}

}  // namespace heddle
