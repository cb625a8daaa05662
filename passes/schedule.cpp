// The rules of schedules, and the cost by which lanes are put along one axis or another.
#include "passes/schedule.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>
#include <string_view>

namespace heddle {

namespace {
using loop::What;

constexpr std::int64_t kTypical = 4096;
constexpr int kRun = 16;    // points of a ray that lie in a few cells
constexpr int kAhead = 16;  // points whose prologue is computed at once: lanes of a vector
constexpr int kLanes = 16;  // of a vector of floats
constexpr double kNest = 64, kLoop = 4, kReduce = 8, kScan = 40;

// Of the words of an element's expression (ir/op.cpp has the vocabulary): polynomials, divisions, calls lane by lane.
double weight(Op op) {
    struct Word {
        std::string_view name;
        double cost;
    };
    constexpr std::array kWords = {Word{"exp", 12}, Word{"expm1", 16}, Word{"log", 14}, Word{"log1p", 18}, Word{"sin", 18}, Word{"cos", 18}, Word{"tanh", 20}, Word{"erf", 24}, Word{"pow", 60},
                                   Word{"sqrt", 8}, Word{"tan", 200}, Word{"asin", 200}, Word{"acos", 200}, Word{"atan", 200}, Word{"atan2", 300}, Word{"sinh", 200}, Word{"cosh", 200},
                                   Word{"mod_", 20}, Word{"floordiv_", 20}};
    double sum = 1;
    std::string_view text = def(op).scalar.text;
    auto letter = [](char c) { return std::isalnum(static_cast<unsigned char>(c)) || c == '_'; };
    for (std::size_t i = 0; i < text.size(); ++i) {
        if (text[i] == '/') sum += 6;
        if (!letter(text[i])) continue;
        std::size_t j = i;
        while (j < text.size() && letter(text[j])) ++j;
        for (const Word& w : kWords)
            if (w.name == text.substr(i, j - i)) sum += w.cost;
        i = j - 1;
    }
    return sum;
}

class Cost {
public:
    explicit Cost(const loop::Nest& n) : n_(n), inner_(n.schedule.lanes_inner), width_(std::min(n.schedule.width, kLanes)) {}
    double operator()() const {
        double points = 1, total = 0;
        for (const Dim& d : n_.outer) points *= typical(d);
        if (!inner_ && !n_.outer.empty()) {  // each vector of the last axis
            double last = typical(n_.outer.back());
            if (last > 0) points = points / last * steps(last);
        }
        total = inner_ && n_.schedule.chunk > 1 ? ahead() : list(n_.prologue, inner_ ? 1 : width_);
        for (const loop::Phase& p : n_.phases) {
            double extent = typical(p.extent);
            bool across = inner_ && (!p.ordered || loop::walkable(n_, p));
            double body = list(p.body, across || !inner_ ? width_ : 1);
            if (across)  // a vector each, with a count
                for (loop::Val v : p.body)
                    if (loop::compresses(n_, p, v)) body += 4 - vector(at(v), true, width_);
            total += kLoop + (across ? steps(extent) : extent) * (1 + body) + list(p.after, inner_ ? 1 : width_);
            if (across) total += kReduce * static_cast<double>(p.folds.size()) + kScan * static_cast<double>(p.carries.size()) * steps(extent);
        }
        return kNest + points * total;
    }

private:
    // Vectors that cover an extent; a short rest takes a short vector, which costs as much.
    double steps(double extent) const { return std::ceil(extent / width_); }
    double list(const std::vector<loop::Val>& values, double lanes) const {
        double sum = 0;
        for (loop::Val v : values) sum += lanes > 1 ? vector(at(v), inner_, lanes) : scalar(at(v));
        return lanes > 1 ? sum - saved(values, inner_, lanes) : sum;
    }
    // By accesses that leave no gap: vectors, a shuffle or two each; of long rows, a square of them turned.
    double saved(const std::vector<loop::Val>& values, bool inner, double lanes) const {
        double sum = 0;
        for (const loop::Stretch& s : loop::stretches(n_, values, inner))
            for (loop::Val v : s.members) sum += std::max(0.0, vector(at(v), inner, lanes) - (s.members.size() > 4 ? 8 : 3) * (bytes(at(v).dtype) == 8 ? 2 : 1));
        return sum;
    }
    // The prologue for a point, when that of a block of points is computed in lanes and each then takes what its loops read.
    double ahead() const {
        std::vector<char> read(n_.values.size());
        for (const loop::Phase& p : n_.phases)
            for (const auto* statements : {&p.body, &p.after})
                for (loop::Val v : *statements)
                    for (loop::Val i : at(v).in)
                        if (i >= 0) read[static_cast<std::size_t>(i)] = 1;
        const double lanes = n_.schedule.chunk, points = std::min(lanes, typical(n_.outer.back()));
        double sum = kLoop - saved(n_.prologue, false, lanes), taken = 0;
        for (loop::Val v : n_.prologue) {
            sum += vector(at(v), false, lanes);
            if (read[static_cast<std::size_t>(v)] && at(v).varies_last && !(is_int(at(v).dtype) && at(v).step_last)) sum += 2, taken += 0.5;
        }
        return points > 0 ? sum / points + taken : 0;
    }
    const loop::Value& at(loop::Val v) const { return n_.values[static_cast<std::size_t>(v)]; }
    double scalar(const loop::Value& v) const {
        if (v.what == What::map) return is_int(v.dtype) ? 0.2 : weight(v.op) * 0.5;
        return v.what == What::load || v.what == What::store || v.what == What::accumulate || v.what == What::fold_step || v.what == What::carry_step ? 0.5 : 0;
    }
    double vector(const loop::Value& v, bool inner, double lanes) const {
        bool varies = inner ? v.varies_inner : v.varies_last;
        auto step = inner ? v.step_inner : v.step_last;
        double wide = bytes(v.dtype) == 8 ? 2 : 1;
        if (v.what == What::map && is_int(v.dtype) && step) return 0.3;
        if (!varies && v.what != What::accumulate) return scalar(v);
        switch (v.what) {
            case What::map: return wide * weight(v.op);
            case What::load: return !step ? 2.5 * lanes : *step == 0 ? 1 : *step == 1 ? wide : 2.5 * lanes;
            case What::store: return !step ? 4 * lanes : *step == 0 ? 1 : *step == 1 ? wide : 4 * lanes;
            case What::accumulate: {
                const loop::Value& to = at(v.in[0]);
                if (!to.varies_outer && !to.varies_inner) return wide;
                return !step ? 4 * lanes : *step == 0 ? kReduce : *step == 1 ? 2 * wide : 6 * lanes;
            }
            case What::fold_step: return wide;
            case What::carry_step: return wide;
            default: return 0;
        }
    }
    const loop::Nest& n_;
    bool inner_;
    double width_;
};

// Elements that a thread takes at once: those of 16 bytes of memory.
int elements(const loop::Nest& n) {
    loop::Nest tried = n;
    tried.schedule = {.lanes_inner = true, .group = 32};
    for (int by : {4, 2})
        for (const loop::Phase& p : n.phases) {
            tried.schedule.vector = by;
            if (p.extent == 0 || loop::taken(tried, p) != by) continue;
            for (loop::Val v : p.body)
                if (loop::beside(n, v, by) && by * bytes(n.buffers[static_cast<std::size_t>(n.values[static_cast<std::size_t>(v)].index)].dtype) <= 16) return by;
        }
    return 1;
}
// Threads that take `count` parts of a point: as many as a warp has, of which no more than a quarter has nothing to do, or as few as can be.
int lanes(std::int64_t count) {
    int best = 1;
    double idle = 1;
    for (int g = 32; g >= 1; g /= 2) {
        const double rounds = std::ceil(static_cast<double>(count) / g), waste = 1 - static_cast<double>(count) / (rounds * g);
        if (waste <= 0.25) return g;
        if (waste < idle) idle = waste, best = g;
    }
    return best;
}
// Consecutive points that add to one address: all of them, or those that find it in memory.
bool meets(const loop::Nest& n, const loop::Value& v, int elements) {
    if (!loop::merges(n, v, elements)) return false;
    const loop::Value& to = n.values[static_cast<std::size_t>(v.in[0])];
    return !to.step_last || *to.step_last == 0;
}

// What threads that share a point take at once, and how far they walk: as much as their registers hold, of merged sums rather than elements.
Schedule with_threads(const loop::Nest& nest, Schedule s) {
    if (!s.lanes_inner || s.group == 1) return s;
    const int most = elements(nest);
    std::int64_t narrowest = 1 << 30;
    for (const auto& p : nest.phases)
        if (p.extent.is_const()) narrowest = std::min(narrowest, p.extent.value());
    loop::Nest n = nest;
    std::optional<std::pair<int, Schedule>> least;
    for (int run : {kRun, 1})
        for (int by = most; by >= 1; by /= 2) {
            n.schedule = s;
            n.schedule.vector = by, n.schedule.run = run;
            if (by > 1 && !nest.outer.empty()) n.schedule.group = lanes(narrowest / by);
            if (run > 1 && (by < std::min(most, 2) || loop::run(n) == 1 || std::none_of(n.values.begin(), n.values.end(), [&](const loop::Value& v) { return meets(n, v, by); }))) continue;
            const int registers = loop::registers(n);
            if (registers <= kRegisters) return n.schedule;
            if (!least || registers < least->first) least = {registers, n.schedule};
        }
    return least->second;
}

// With lanes along the inner loops or along the last outer axis.
Schedule with_lanes(const loop::Nest& n, bool inner) {
    Schedule s;
    s.lanes_inner = inner;
    std::int64_t narrowest = 1 << 30;
    for (const auto& p : n.phases)
        if (p.extent.is_const()) narrowest = std::min(narrowest, p.extent.value());
    bool wide = std::none_of(n.values.begin(), n.values.end(), [](const loop::Value& v) { return v.what == What::load && v.dtype != DType::f64; });
    s.width = wide && !n.values.empty() ? 8 : 16;
    if (!inner) {
        s.chunk = n.phases.empty() ? 1024 : 2 * s.width;
        return s;
    }
    // A rest takes lanes of its own: 24 channels are 16 and 8.
    if (narrowest <= 8 && s.width == 16) s.width = 8;
    s.chunk = 1;
    // On CUDA lanes of a warp hand a recurrence on, or a thread runs it by itself.
    const bool ordered = std::any_of(n.phases.begin(), n.phases.end(), [](const loop::Phase& p) { return p.ordered; });
    if (ordered && (narrowest < 8 || !std::all_of(n.phases.begin(), n.phases.end(), [&](const loop::Phase& p) { return loop::walkable(n, p); }))) return s;
    s.group = n.outer.empty() && !ordered ? s.threads : narrowest <= 8 ? 8 : narrowest <= 16 ? 16 : 32;
    return s;
}
// Polynomials are long chains of operations: lanes of two vectors give a core something to do while it waits for one.
Schedule with_chains(const loop::Nest& n, Schedule s) {
    constexpr double kLong = 40;  // what makes a chain long, by weight
    constexpr int kMany = 1000;  // vectors, among which a core finds something to do anyway; twice the registers would go to memory
    if (s.width != kLanes) return s;
    double chains = 0;
    int vectors = 0;
    for (const loop::Value& v : n.values) {
        const bool varies = s.lanes_inner ? v.varies_inner : v.varies_last;
        if (v.what == What::accumulate && !(s.lanes_inner ? v.step_inner : v.step_last)) return s;  // lane by lane
        if (const std::int64_t by = loop::divisor(n, v); varies && by % kLanes == 0 && by % (2 * kLanes) != 0) return s;  // simple in a vector, not in two
        if (v.what == What::map && v.dtype == DType::f32 && varies && weight(v.op) > 8) chains += weight(v.op);
        vectors += varies && is_float(v.dtype);
    }
    if (chains > kLong && vectors <= kMany) s.width = 2 * kLanes;
    return s;
}
}  // namespace

double typical(const Dim& d) {
    std::vector<std::string> names;
    d.names(names);
    Sizes s;
    for (const auto& n : names) s[n] = kTypical;
    return static_cast<double>(std::max<std::int64_t>(0, d.eval(s)));
}
double cost(const loop::Nest& n) { return Cost(n)(); }

Schedule schedule(const loop::Nest& nest, Machine machine) {
    Schedule outer = with_lanes(nest, false);
    auto finished = [&](const Schedule& s) { return machine == Machine::cuda ? with_threads(nest, s) : with_chains(nest, s); };
    if (nest.phases.empty() || !std::any_of(nest.phases.begin(), nest.phases.end(), [&](const loop::Phase& p) { return loop::walkable(nest, p); })) return finished(outer);
    Schedule inner = with_lanes(nest, true);
    if (nest.outer.empty()) return finished(inner);
    Schedule ahead = inner;
    ahead.chunk = kAhead;
    loop::Nest n = nest;
    auto priced = [&](const Schedule& s) {
        n.schedule = s;
        return std::pair(cost(n), s);
    };
    auto best = priced(inner);
    for (const Schedule& s : {ahead, outer})
        if (auto other = priced(s); other.first < best.first) best = other;
    return finished(best.second);
}

}  // namespace heddle
