// See traffic.h.
#include "runtime/traffic.h"

#include <algorithm>
#include <map>
#include <set>

namespace heddle {

namespace {
using loop::What;

struct Bytes {
    std::int64_t read = 0, written = 0;
};
using Touched = std::map<Id, Bytes>;  // by the value whose memory it is

class Counter {
public:
    Counter(const Plan& plan, const Sizes& sizes) : plan_(plan), p_(plan.program), g_(p_.graph), sizes_(sizes) {}

    Traffic operator()(const KeptValues& kept) {
        for (std::size_t s = 0; s < p_.steps.size(); ++s) {
            if (p_.steps[s].launch >= 0) launch(static_cast<std::size_t>(p_.steps[s].launch), s);
            else if (p_.steps[s].call >= 0) call(p_.steps[s].call);
        }
        for (std::size_t k = 0; k < g_.inputs.size(); ++k)
            if (k >= kept.inputs.size() || !kept.inputs[k]) needed_.insert(g_.inputs[k]);
        std::set<Id> wanted(operands_);
        for (std::size_t k = 0; k < std::min(kept.outputs, g_.outputs.size()); ++k) wanted.insert(p_.memory_of(g_.outputs[k]));
        for (const Moved& m : t_.launches) t_.moved += m.moved;
        for (const auto& [id, b] : all_) t_.least += std::min(size(id), needed_.contains(id) ? b.read : 0) + std::min(size(id), wanted.contains(id) ? b.written : 0);
        return std::move(t_);
    }

private:
    std::int64_t size(Id id) const { return numel(g_.type(id).shape).eval(sizes_) * bytes(g_.type(id).dtype); }
    void touch(const loop::Nest& n, Touched& all) const {
        auto list = [&](const std::vector<loop::Val>& values, std::int64_t times) {
            for (loop::Val v : values) {
                const loop::Value& x = n.values[static_cast<std::size_t>(v)];
                if (x.what != What::load && x.what != What::store && x.what != What::accumulate) continue;
                const loop::Buffer& b = n.buffers[static_cast<std::size_t>(x.index)];
                (x.what == What::load ? all[b.id].read : all[b.id].written) += times * bytes(b.dtype);
            }
        };
        const std::int64_t points = numel(n.outer).eval(sizes_);
        list(n.uniform, 1), list(n.prologue, points);
        for (const loop::Phase& p : n.phases) list(p.body, points * p.extent.eval(sizes_)), list(p.after, points);
    }
    void launch(std::size_t k, std::size_t step) {
        Moved& m = t_.launches.emplace_back();
        m.name = p_.launches[k].name;
        std::set<Id> added;
        std::map<int, Touched> stages;
        Touched whole;
        for (const loop::Nest& n : plan_.loops[k]) {
            touch(n, stages[n.stage]), touch(n, whole), touch(n, all_);
            for (const loop::Buffer& b : n.buffers)
                if (b.accumulated) added.insert(b.id);
        }
        for (Id id : added) m.moved += size(id);
        for (const auto& [stage, touched] : stages)
            for (const auto& [id, b] : touched) m.moved += std::min(size(id), b.read) + std::min(size(id), b.written);
        for (const auto& [id, b] : whole) {
            const bool others = g_[id].is(Op::input) || p_.last_use[static_cast<std::size_t>(id)] > static_cast<int>(step);
            if (b.written == 0 || g_[id].is(Op::input)) m.least += std::min(size(id), b.read);
            if (others) m.least += added.contains(id) ? size(id) : std::min(size(id), b.written);
        }
    }
    void call(Id id) {
        std::set<Id> touched{id};
        for (Id i : g_[id].in) touched.insert(library_operand(g_, i).base), operands_.insert(library_operand(g_, i).base);
        for (Id i = id + 1; i < g_.size() && !g_[id].more.empty(); ++i)
            if (g_[i].is(Op::result) && g_[i].in[0] == id) touched.insert(i);
        for (Id i : touched) t_.calls += size(i), needed_.insert(i);
    }

    const Plan& plan_;
    const Program& p_;
    const Graph& g_;
    const Sizes& sizes_;
    Traffic t_;
    Touched all_;
    std::set<Id> needed_, operands_;  // what launches have to read wherever it's from; what calls read
};
}  // namespace

Traffic traffic(const Plan& plan, const Sizes& sizes, const KeptValues& kept) { return Counter(plan, sizes)(kept); }

}  // namespace heddle
