// Prefixes by doubling: after step s each lane holds what the s lanes up to it do to c. Source: Hillis and Steele 1986.
#include "codegen/llvm/scan.h"

namespace heddle {

LaneScan scan_lanes(Ir& ir, Lv a, Lv b, Lv c, int width, bool reverse) {
    auto& x = ir.b;
    // Lanes moved by `by` in the direction of the scan; those that nothing moves into get `fill`.
    auto moved = [&](Lv v, int by, Lv fill) {
        std::vector<int> from;
        for (int i = 0; i < width; ++i) {
            int k = reverse ? i + by : i - by;
            from.push_back(k < 0 || k >= width ? width + i : k);
        }
        return x.CreateShuffleVector(v, Ir::width(fill) == width ? fill : ir.splat(fill, width), from);
    };
    auto joined = [&](Lv p, Lv q) { return !p ? q : !q ? p : Ir::is_float(p) ? x.CreateFAdd(p, q) : x.CreateAdd(p, q); };
    auto times = [&](Lv p, Lv q) { return !p ? q : !q ? p : Ir::is_float(p) ? x.CreateFMul(p, q) : x.CreateMul(p, q); };
    Lv one = Ir::num(c->getType(), 1), zero = Ir::num(c->getType(), 0), a0 = a, b0 = b;
    for (int s = 1; s < width; s *= 2) {
        if (b) b = joined(a ? times(a, moved(b, s, zero)) : moved(b, s, zero), b);
        if (a) a = times(a, moved(a, s, one));
    }
    Lv all = ir.splat(c, width), state = joined(a ? times(a, all) : all, b);
    if (a && Ir::is_float(a)) {
        // A product that leaves the range of floats says nothing of a state that is 0: then one by one. So does a sum of such products.
        Lv sum = a;
        while (Ir::width(sum) > 8) {
            auto [low, high] = ir.halves(sum);
            sum = x.CreateFAdd(low, high);
        }
        state = ir.unless(x.CreateFCmpUNO(x.CreateFSub(sum, sum), Ir::num(sum, 0)), state, [&] {
            Lv out = llvm::PoisonValue::get(a->getType()), now = c;
            for (int k = 0; k < width; ++k) {
                auto lane = static_cast<std::uint64_t>(reverse ? width - 1 - k : k);
                now = joined(times(x.CreateExtractElement(a0, lane), now), b0 ? x.CreateExtractElement(b0, lane) : nullptr);
                out = x.CreateInsertElement(out, now, lane);
            }
            return out;
        });
    }
    return {moved(state, 1, c), x.CreateExtractElement(state, static_cast<std::uint64_t>(reverse ? 0 : width - 1))};
}

}  // namespace heddle
