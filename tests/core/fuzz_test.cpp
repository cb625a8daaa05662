// Random well-typed graphs: interpreter on the original = interpreter after the pipeline = compiled, forward and backward.
// Law: a graph is a function of its seed, which every failure prints; HEDDLE_SEED=n reruns that one.
#include <gtest/gtest.h>

#include <cstdlib>
#include <deque>

#include "ir/text.h"
#include "ir/verify.h"
#include "passes/pipeline.h"
#include "passes/simplify.h"
#include "runtime/executable.h"
#include "tests/core/arrays.h"
#include "tests/cuda_on_cpu/launcher.h"

namespace heddle {
namespace {

class Weaver {
public:
    explicit Weaver(unsigned seed) : rng_(seed), f_(pick(2) ? DType::f64 : DType::f32) {
        g.name = "fuzz" + std::to_string(seed);
        int symbols = 1 + pick(3);
        for (int k = 0; k < symbols; ++k) symbols_.push_back(Dim::symbol(std::string(1, static_cast<char>('A' + k))));
        for (int k = 1 + pick(3); k > 0; --k) input({f_, shape(1 + pick(3))});
        int steps = 3 + pick(14);
        for (int k = 0; k < steps; ++k) step();
        for (int k = 1 + pick(3); k > 0; --k) g.outputs.push_back(value().id);
        g.outputs.push_back(all_.back().id);
        g = live(g);
    }
    Graph g;
    bool smooth = true;       // differences of it make sense
    std::mt19937& rng() { return rng_; }
    int pick(int n) { return static_cast<int>(rng_() % static_cast<unsigned>(n)); }
    Sizes sizes() {
        Sizes s;
        for (const Dim& d : symbols_) s[print(d)] = pick(4) ? 3 + pick(9) : 17 + pick(40);
        return s;
    }

private:
    std::mt19937 rng_;
    DType f_;
    std::vector<Dim> symbols_;
    std::vector<V> all_;

    Dim dim() { return pick(2) ? symbols_[static_cast<std::size_t>(pick(static_cast<int>(symbols_.size())))] : Dim(1 + pick(5)); }
    Shape shape(int rank) {
        Shape s;
        for (int k = 0; k < rank; ++k) s.push_back(dim());
        return s;
    }
    V input(Type t) {
        V v = g.value(g.input(std::move(t), "x" + std::to_string(g.inputs.size())));
        all_.push_back(v);
        return v;
    }
    // Inputs come first in text, so later ones are made of constants and iotas: waves of different phase.
    V wave(const Type& t) {
        V v = constant(g, t, 0.3 + 0.1 * pick(5));
        for (int a = 0; a < t.rank(); ++a) v = v + iota(g, t, a) * (0.37 + 0.2 * pick(3));
        return is_float(t.dtype) ? sin(v) : v;
    }
    V value() { return all_[static_cast<std::size_t>(pick(2) ? static_cast<int>(all_.size()) - 1 - pick(std::min<int>(3, static_cast<int>(all_.size()))) : pick(static_cast<int>(all_.size())))]; }
    V ranked(int least) {
        for (int k = 0; k < 8; ++k)
            if (V v = value(); v.type().rank() >= least && v.type().rank() <= 4) return v;
        return wave({f_, shape(std::max(1, least))});
    }
    V mate(V x) {  // another value of the same type
        for (int k = 0; k < 6; ++k)
            if (V v = value(); v.type() == x.type() && v.id != x.id) return v;
        for (int k = 0; k < 6; ++k) {  // or one that broadcasts to it
            V v = value();
            const Shape want = x.type().shape, has = v.type().shape;
            if (has.size() >= want.size()) continue;
            std::vector<int> axes;
            std::size_t j = 0;
            for (std::size_t i = 0; i < want.size(); ++i)
                if (j < has.size() && has[j] == want[i]) ++j;
                else axes.push_back(static_cast<int>(i));
            if (j == has.size()) return expand(v, axes, want);
        }
        return wave(x.type());
    }
    V into(V x, double lo, double hi) { return sigmoid(x) * (hi - lo) + lo; }
    std::vector<int> some_axes(int rank, bool one) {
        std::vector<int> axes;
        if (one) return {pick(rank)};
        for (int k = 0; k < rank; ++k)
            if (pick(2)) axes.push_back(k);
        return axes.empty() ? std::vector<int>{pick(rank)} : axes;
    }
    V index(const Shape& s, const Dim& rows) {  // anything in 0..rows-1, with repetition
        Type t{DType::i64, s};
        V v = constant(g, t, pick(3));
        for (int a = 0; a < t.rank(); ++a) v = v + iota(g, t, a) * static_cast<double>(1 + pick(3));
        if (pick(2)) {
            smooth = false;
            v = v + cast(floor(into(mate(wave({f_, s})), 0, 3)), DType::i64);
        }
        return mod(v, size(g, t, rows));
    }
    void map1() {
        std::vector<Op> ops;
        for (int k = 0; k < kOps; ++k)
            if (const OpDef& d = def(static_cast<Op>(k)); d.kind == Kind::map && d.arity == 1 && d.vjp && d.scalar.eval) ops.push_back(static_cast<Op>(k));
        Op op = ops[static_cast<std::size_t>(pick(static_cast<int>(ops.size())))];
        const OpDef& d = def(op);
        V x = into(value(), d.range.lo, d.range.hi);
        all_.push_back(apply(op, {x}));
    }
    void map2() {
        std::vector<Op> ops;
        for (int k = 0; k < kOps; ++k)
            if (const OpDef& d = def(static_cast<Op>(k)); d.kind == Kind::map && d.arity == 2 && d.vjp) ops.push_back(static_cast<Op>(k));
        Op op = ops[static_cast<std::size_t>(pick(static_cast<int>(ops.size())))];
        const OpDef& d = def(op);
        V x = value(), y = mate(x);
        if (op == Op::max || op == Op::min) smooth = false;
        if (d.range.lo > -2 || op == Op::mul) x = into(x, d.range.lo, d.range.hi), y = into(y, d.range.lo, d.range.hi);
        all_.push_back(apply(op, {x, y}));
    }
    void choose() {
        smooth = false;
        constexpr Op kCompare[] = {Op::lt, Op::le, Op::gt, Op::ge, Op::ne};
        V x = value(), y = mate(x), c = apply(kCompare[pick(5)], {x, y});
        if (pick(2)) c = pick(2) ? or_(c, gt(y, like(y, 0.2))) : and_(not_(c), lt(x, like(x, 0.7)));
        all_.push_back(select(c, x, y * 0.5));
    }
    void view() {
        V x = ranked(1);
        const Type t = x.type();
        int rank = t.rank(), a = pick(rank);
        const Dim n = t.shape[static_cast<std::size_t>(a)];
        switch (pick(9)) {
            case 0: {
                if (rank == 4) return;
                Shape s = t.shape;
                int at = pick(rank + 1);
                s.insert(s.begin() + at, dim());
                return all_.push_back(expand(x, {at}, s));
            }
            case 1: {
                auto axes = axes_from_to(0, rank);
                std::shuffle(axes.begin(), axes.end(), rng_);
                return all_.push_back(permute(x, axes));
            }
            case 2: {  // two axes become one, or an axis of 1 comes in
                Shape s = t.shape;
                if (a + 1 < rank && pick(3)) {
                    s[static_cast<std::size_t>(a)] = n * s[static_cast<std::size_t>(a) + 1];
                    s.erase(s.begin() + a + 1);
                } else if (rank < 4) s.insert(s.begin() + a, 1);
                return all_.push_back(reshape(x, s));
            }
            case 3:
                if (n.is_symbol() || (n.is_const() && n.value() > 2)) {
                    int lo = pick(2);
                    all_.push_back(slice(x, a, lo, n - (lo ? pick(2) : 1)));
                }
                return;
            case 4: return all_.push_back(pad(x, a, pick(3), pick(2)));
            case 5: return all_.push_back(flip(x, a));
            case 6: return all_.push_back(concat({x, mate(x)}, a));
            case 7: return all_.push_back(pick(2) ? realize(x) : concat({slice(x, a, 0, 1), x, slice(x, a, 0, 1)}, a));
            default:
                smooth = false;
                return all_.push_back(pick(2) ? stop_grad(x) : x - stop_grad(x) * 0.5);
        }
    }
    void fold() {
        V x = ranked(1);
        int rank = x.type().rank();
        switch (pick(6)) {
            case 0: return all_.push_back(prod(into(x, 0.6, 1.3), some_axes(rank, true)));
            case 1: return smooth = false, all_.push_back(amax(x, some_axes(rank, false)));
            case 2: return smooth = false, all_.push_back(amin(x, some_axes(rank, true)));
            case 3: {  // a mask's sum, as a factor
                smooth = false;
                auto axes = some_axes(rank, false);
                V count = sum(cast(gt(x, mate(x)), DType::i64), axes);
                return all_.push_back(sum(x, axes) / (cast(count, f_) + 1));
            }
            default: return all_.push_back(sum(x, some_axes(rank, false)));
        }
    }
    void recur() {
        V a = ranked(1), b = mate(a);
        all_.push_back(scan(into(a, 0.2, 1.0), b, pick(a.type().rank()), pick(3), pick(2) != 0, pick(2)));
    }
    void indirect() {
        V x = ranked(1);
        const Shape s = x.type().shape;
        int rank = x.type().rank(), k = 1 + pick(std::min(2, rank));
        Shape rest(s.begin() + k, s.end()), at = shape(1 + pick(rank - k < 2 ? 2 : 1));
        std::vector<V> i;
        for (int q = 0; q < k; ++q) i.push_back(index(at, s[static_cast<std::size_t>(q)]));
        V row = gather(x, i);
        if (pick(2)) return all_.push_back(row);
        if (pick(3)) return all_.push_back(scatter_add(x.type(), i, row * 0.5));
        Type t{DType::i64, {s[0]}};  // each row once, backwards
        all_.push_back(scatter(x, {size(g, t, s[0] - 1) - iota(g, t, 0)}, mate(x)));
    }
    void product() {
        V a = ranked(2);
        if (a.type().rank() != 2) return;
        all_.push_back(dot(a * 0.3, pick(2) ? transpose(a) : wave({f_, {a.type().shape[1], dim()}})));
    }
    void step() {
        switch (pick(12)) {
            case 0:
            case 1: return map1();
            case 2:
            case 3: return map2();
            case 4: return choose();
            case 5:
            case 6:
            case 7: return view();
            case 8:
            case 9: return fold();
            case 10: return pick(4) ? recur() : product();
            default: return indirect();
        }
    }
};

void expect_close(const std::vector<Tensor>& want, const std::vector<Tensor>& got, double rtol, const std::string& what) {
    ASSERT_EQ(want.size(), got.size()) << what;
    for (std::size_t k = 0; k < want.size(); ++k) {
        ASSERT_EQ(want[k].sizes, got[k].sizes) << what;
        double scale = 1e-6;
        for (double v : want[k].data) scale = std::max(scale, std::fabs(v));
        if (!(scale < 1e5)) continue;  // cancellation would decide
        double tolerance = want[k].dtype < DType::f16 ? 0 : rtol * std::max(1.0, scale);
        for (std::size_t i = 0; i < want[k].data.size(); ++i)
            ASSERT_LE(std::fabs(want[k].data[i] - got[k].data[i]), tolerance) << what << " " << k << " element " << i << ": " << got[k].data[i] << ", expected " << want[k].data[i];
    }
}

// A seed's graph and what becomes of it.
struct Woven {
    Weaver w;
    std::vector<char> wants;
    Pair pair;
    Plan forward, backward;
    explicit Woven(unsigned seed) : w(seed) {
        for (std::size_t k = 0; k < w.g.inputs.size(); ++k) wants.push_back(w.pick(4) != 0);
        pair = forward_and_backward(w.g, wants, w.sizes());
        forward = plan(pair.split.forward);
        if (pair.has_backward) backward = plan(pair.split.backward);
    }
};
enum class By { interpreter, llvm, all };  // all: also as CUDA text on the CPU

void check(unsigned seed, By by) {
    Woven woven(seed);
    auto& [w, wants, pair, forward, backward] = woven;
    const Graph& g = w.g;
    SCOPED_TRACE("HEDDLE_SEED=" + std::to_string(seed) + "\n" + print(g));
    ASSERT_EQ(parse(print(g)), g);
    const Graph simple = simplify(g);
    ASSERT_EQ(simplify(simple), simple);
    Joint plain = differentiate(g, wants);
    verify(plain.graph, "differentiate");
    struct Way {
        const char* name;
        std::unique_ptr<Executable> forward, backward;  // none: interpreted
    };
    std::vector<Way> ways;
    ways.push_back({"interpreted after the pipeline", {}, {}});
    auto compile = [&](const char* name, const Target& target) {
        ways.push_back({name, std::make_unique<Executable>(forward, target), pair.has_backward ? std::make_unique<Executable>(backward, target) : nullptr});
    };
    if (by != By::interpreter) compile("compiled", {});
    if (by == By::all) compile("CUDA on the CPU", cuda_on_cpu::target(seed));
    for (int round = 0; round < 2; ++round) {
        Sizes sizes = w.sizes();
        auto host = plain_host(1 + 2 * w.pick(2));
        std::vector<Tensor> in, all, seeds;
        for (Id i : g.inputs) in.push_back(random_tensor(g.type(i), sizes, w.rng(), -1, 1));
        for (Id o : g.outputs) seeds.push_back(random_tensor(g.type(o), sizes, w.rng(), -1, 1));
        all = in;
        for (std::size_t k = 0; k < seeds.size(); ++k)
            if (plain.seeds[k] >= 0) all.push_back(seeds[k]);
        auto want = evaluate(plain.graph, all, {}, sizes);
        const bool wide = g.type(g.inputs[0]).dtype == DType::f64;
        std::vector<Tensor> outputs(want.begin(), want.begin() + static_cast<std::ptrdiff_t>(g.outputs.size()));
        auto run = [&](const Graph& graph, Executable* e, const std::vector<Tensor>& arguments) {
            if (!e) return evaluate(graph, arguments, {}, sizes);
            std::vector<Array> arrays;
            for (const Tensor& t : arguments) arrays.push_back(to_array(*host, t));
            Sizes bound = sizes;
            std::vector<Tensor> out;
            for (const Array& a : e->run(*host, arrays, bound)) out.push_back(to_tensor(a));
            return out;
        };
        for (const Way& way : ways) {
            SCOPED_TRACE(way.name);
            const double rtol = (wide ? 1e-9 : 2e-3);
            auto out = run(forward.program.graph, way.forward.get(), in);
            ASSERT_EQ(out.size(), g.outputs.size() + pair.split.saved);
            expect_close(outputs, {out.begin(), out.begin() + static_cast<std::ptrdiff_t>(g.outputs.size())}, rtol, "output");
            if (::testing::Test::HasFatalFailure()) return;
            if (!pair.has_backward) continue;
            std::vector<Tensor> arguments;
            for (const auto& s : pair.split.backward_inputs) {
                auto i = static_cast<std::size_t>(s.index);
                arguments.push_back(s.from == Split::Source::From::input ? in[i] : s.from == Split::Source::From::saved ? out[g.outputs.size() + i] : seeds[i]);
            }
            auto grads = run(backward.program.graph, way.backward.get(), arguments);
            std::vector<Tensor> expected, got;
            for (std::size_t k = 0; k < wants.size(); ++k) {
                ASSERT_TRUE(plain.gradients[k] >= 0 || pair.gradients[k] < 0) << "gradient " << k << " where there is none";
                if (pair.gradients[k] < 0) continue;
                expected.push_back(want[static_cast<std::size_t>(plain.gradients[k])]);
                got.push_back(grads[static_cast<std::size_t>(pair.gradients[k])]);
            }
            expect_close(expected, got, rtol, "gradient");
            if (::testing::Test::HasFatalFailure()) return;
        }
        if (!w.smooth || !wide) continue;
        // Along one random direction, the gradients are what differences say.
        auto objective = [&](const std::vector<Tensor>& x) {
            double sum = 0;
            auto out = evaluate(g, x, {}, sizes);
            for (std::size_t k = 0; k < out.size(); ++k)
                for (std::size_t i = 0; i < out[k].data.size(); ++i) sum += out[k].data[i] * seeds[k].data[i];
            return sum;
        };
        double along = 0, h = 1e-6, norm = 1;
        auto up = in, down = in;
        for (std::size_t k = 0; k < in.size(); ++k) {
            if (plain.gradients[k] < 0) continue;
            for (std::size_t i = 0; i < in[k].data.size(); ++i) {
                double d = std::uniform_real_distribution<double>(-1, 1)(w.rng()), slope = want[static_cast<std::size_t>(plain.gradients[k])].data[i] * d;
                up[k].data[i] += h * d, down[k].data[i] -= h * d, along += slope, norm = std::max(norm, std::fabs(slope));
            }
        }
        double size = std::max(1.0, std::fabs(objective(in)));
        if (size > 1e5) continue;
        ASSERT_NEAR(along, (objective(up) - objective(down)) / (2 * h), 1e-5 * norm * 10 + 1e-8 * size) << "differences";
    }
}
void check_all(unsigned from, unsigned count, By by) {
    std::deque<Woven> ahead;  // one run of a compiler for many kernels
    std::vector<const Plan*> plans;
    for (unsigned seed = from; by == By::all && seed < from + count; ++seed) {
        try {
            const Woven& w = ahead.emplace_back(seed);
            plans.push_back(&w.forward), plans.push_back(&w.backward);
        } catch (const std::exception&) {  // reported below
        }
    }
    cuda_on_cpu::compile_ahead(plans);
    for (unsigned seed = from; seed < from + count && !::testing::Test::HasFailure(); ++seed) {
        try {
            check(seed, by);
        } catch (const std::exception& e) {
            ADD_FAILURE() << "HEDDLE_SEED=" << seed << ": " << e.what() << "\n" << print(Weaver(seed).g);
        }
    }
}

TEST(Fuzz, RandomGraphs) {
    if (const char* s = std::getenv("HEDDLE_SEED")) {
        unsigned from = static_cast<unsigned>(std::strtoul(s, nullptr, 10));
        const char* n = std::getenv("HEDDLE_SEEDS");
        return check_all(from, n ? static_cast<unsigned>(std::strtoul(n, nullptr, 10)) : 1, By::all);
    }
    check_all(1, 60, By::all);
    check_all(61, 60, By::llvm);
    check_all(1000, 300, By::interpreter);
}

}  // namespace
}  // namespace heddle
