// A launch as one kernel: its arguments, its nests side by side, the prelude above them.
#include "codegen/cuda/cuda.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "codegen/cuda/writer.h"
#include "ir/mutant.h"
#include "passes/schedule.h"

namespace heddle {

namespace {
constexpr int kRegistersInAll = 1 << 16;  // of a multiprocessor

// The same formula is in the prelude.
std::int64_t blocks_of(std::int64_t points, int group, int run, int full, int threads) {
    const std::int64_t walked = std::clamp<std::int64_t>(points * group / full, 1, run);
    return ((points + walked - 1) / walked * group + threads - 1) / threads;
}

// What a block of the kernel may be one of: a nest, in one of its ways, or the rounding of what was added to a buffer.
struct Part {
    const loop::Nest* nest;
    cuda::Way way;
    int stage;
    const loop::Buffer* rounded = nullptr;
};
std::vector<Part> parts_of(const std::vector<loop::Nest>& nests) {
    auto sums = [](const loop::Nest& n) { return std::any_of(n.buffers.begin(), n.buffers.end(), [&](const loop::Buffer& b) { return loop::ordered(n, b); }); };
    std::vector<Part> parts;
    int stage = 0, more = 0;  // stages that sums took
    for (std::size_t i = 0, next; i < nests.size(); i = next) {
        stage = nests[i].stage + more;
        for (next = i; next < nests.size() && nests[next].stage == nests[i].stage; ++next) parts.push_back({&nests[next], sums(nests[next]) ? cuda::Way::powers : cuda::Way::plain, stage});
        if (std::none_of(nests.begin() + static_cast<std::ptrdiff_t>(i), nests.begin() + static_cast<std::ptrdiff_t>(next), sums)) continue;
        more += 2;
        for (std::size_t k = i; k < next; ++k)
            if (sums(nests[k])) parts.push_back({&nests[k], cuda::Way::sums, stage + 1});
        for (std::size_t k = i; k < next; ++k)
            for (const loop::Buffer& b : nests[k].buffers)
                if (loop::ordered(nests[k], b)) parts.push_back({&nests[k], cuda::Way::plain, stage + 2, &b});
    }
    return parts;
}
std::string words(const loop::Nest& n) {  // of how it adds
    if (loop::near_bytes(n) > 0) return fmt::format(", adds shared ({} bytes)", loop::near_bytes(n));
    return n.schedule.adds == Adds::none ? "" : fmt::format(", adds {}", n.schedule.adds == Adds::shared ? "direct" : name(n.schedule.adds));
}
}  // namespace

std::int64_t blocks(const loop::Nest& n, const Sizes& sizes, int threads) {
    return blocks_of(numel(n.outer).eval(sizes), n.schedule.lanes_inner ? n.schedule.group : 1, loop::run(n), n.schedule.full, threads);
}
std::int64_t CudaSource::blocks_for(std::int64_t n, std::size_t part) const { return blocks_of(n, groups[part], runs[part], full[part], threads); }
std::int64_t CudaSource::blocks(const Sizes& s, std::size_t part) const { return blocks_for(points[part].eval(s), part); }
std::int64_t CudaSource::blocks(const Sizes& s) const {
    std::int64_t sum = 0;
    for (std::size_t i = 0; i < points.size(); ++i) sum += blocks(s, i);
    return sum;
}
bool CudaSource::fits_narrow(const Sizes& s) const {
    return std::all_of(limits.begin(), limits.end(), [&](const Dim& d) { return d.eval(s) < (std::int64_t{1} << 31); });
}

CudaSource cuda_text(const std::string& name, const std::vector<loop::Nest>& given, const CudaOptions& options) {
    std::vector<loop::Nest> nests = given;
    if (!options.vectors)
        for (loop::Nest& n : nests) n.schedule.vector = 1;
    CudaSource r;
    cuda::Names names;
    r.kernel = names.fresh(name);
    std::map<Id, std::string> buffer_name;
    cuda::SizeNames size_name;
    std::vector<loop::Buffer> buffers;
    const std::vector<Part> parts = parts_of(nests);
    for (const Part& p : parts) {
        const loop::Nest& n = *p.nest;
        r.threads = std::max(r.threads, n.schedule.threads);
        r.points.push_back(p.rounded ? p.rounded->elements : numel(n.outer));
        r.groups.push_back(n.schedule.lanes_inner && !p.rounded ? n.schedule.group : 1);
        r.runs.push_back(p.rounded ? 1 : loop::run(n));
        r.full.push_back(n.schedule.full);
        r.stages.push_back(p.stage);
    }
    std::int64_t near_bytes = 0;
    auto known = [&](const std::string& s) {
        if (!size_name.emplace(s, "").second) return;
        size_name[s] = names.fresh(s);
        r.sizes.push_back(s);
        r.limits.push_back(Dim::symbol(s));
    };
    for (const loop::Nest& n : nests) {
        near_bytes = std::max(near_bytes, loop::near_bytes(n));
        for (const loop::Buffer& b : n.buffers) {
            if (buffer_name.emplace(b.id, "").second) {
                buffer_name[b.id] = names.fresh(b.name);
                r.buffers.push_back(b.id);
                buffers.push_back(b);
            } else if (b.written || b.accumulated) {
                for (loop::Buffer& o : buffers)
                    if (o.id == b.id) o.written = true;
            }
        }
        for (const std::string& s : n.sizes) known(s);
        for (const loop::Buffer& b : n.buffers)
            if (std::vector<std::string> in_shape; loop::ordered(n, b)) {
                (b.elements * loop::additions_to_one(n, b)).names(in_shape);
                for (const std::string& s : in_shape) known(s);
            }
    }
    for (int group : r.groups)
        HEDDLE_CHECK(r.threads % 32 == 0 && r.threads <= 1024 && group >= 1 && (group & (group - 1)) == 0 && r.threads % group == 0,
                     fmt::format("{}: {} threads per block can't be cut into groups of {}", name, r.threads, group));

    // Ordered sums: their words side by side, then their exponents. Offsets have 64 bits.
    cuda::SizeNames wide;
    for (const auto& [size, text] : size_name) wide[size] = "(i64)" + text;
    std::map<Id, std::string> adders, adder_types;
    std::string set_up = near_bytes > 0 ? fmt::format("  __shared__ i64 near_words[{}];\n", near_bytes / 8) : "";
    Dim all_words = 0, all = 0;
    auto each_sum = [&](auto&& f) {
        for (const loop::Nest& n : nests)
            for (const loop::Buffer& b : n.buffers)
                if (loop::ordered(n, b)) f(n, b, Dim(b.dtype == DType::f64 ? 2 : 1));
    };
    each_sum([&](const loop::Nest&, const loop::Buffer& b, const Dim& each) { all_words = all_words + b.elements * each, all = all + b.elements; });
    const std::string powers = fmt::format("(unsigned*)(sums + {})", cuda::factor(all_words, wide));
    r.scratch = all_words * 8 + all * 4;
    all_words = all = 0;
    each_sum([&](const loop::Nest& n, const loop::Buffer& b, const Dim& each) {
        const std::string& adder = adders[b.id] = names.fresh(b.name + "_sum");
        set_up += fmt::format("  const {} {} = {{sums + {}, {} + {}, room_for({})}};\n", adder_types[b.id] = fmt::format("Sums<{}>", cuda::type(b.dtype)), adder, cuda::factor(all_words, wide), powers,
                              cuda::factor(all, wide), cuda::expr(loop::additions_to_one(n, b), wide));
        all_words = all_words + b.elements * each, all = all + b.elements;
    });

    // The arguments of the kernel or of one nest, in the kernel's order, as parameters or by name alone.
    auto arguments = [&](const Part* only, bool typed) {
        std::string s;
        auto add = [&](const std::string& type, const std::string& name) {
            s += (s.empty() ? "" : ", ") + (typed ? type : "") + name;
        };
        auto used = [&](Id id) {
            return std::any_of(only->nest->buffers.begin(), only->nest->buffers.end(), [&](const loop::Buffer& o) { return o.id == id && !loop::ordered(*only->nest, o); });
        };
        for (const loop::Buffer& b : buffers)
            if (!only || used(b.id))
                add((b.written || b.accumulated ? "" : "const ") + cuda::stored(b.dtype) + "* __restrict__ ", buffer_name[b.id]);
        if (!only && r.ordered()) add("i64* __restrict__ ", "sums");
        for (const std::string& z : r.sizes)
            if (!only || std::count(only->nest->sizes.begin(), only->nest->sizes.end(), z)) add("index_t ", size_name[z]);
        if (!only) return s;
        if (loop::near_bytes(*only->nest) > 0) add("i64* ", "near_words");
        for (const loop::Buffer& b : only->nest->buffers) {
            if (!loop::ordered(*only->nest, b)) continue;
            const bool first = only->way == cuda::Way::powers;
            add((first ? "Powers" : adder_types[b.id]) + " ", first && !typed ? fmt::format("Powers{{{}.power}}", adders[b.id]) : adders[b.id]);
        }
        return s;
    };
    auto limit = [&](const Dim& d) {
        if (std::find(r.limits.begin(), r.limits.end(), d) == r.limits.end()) r.limits.push_back(d);
    };

    cuda::Uses uses;
    std::string functions, calls, summary;
    std::vector<std::string> in_turn;  // calls of nests with as many blocks, which read the same and take turns
    auto alike = [&](std::size_t i, std::size_t k) {
        if (parts[i].stage != parts[k].stage || parts[i].rounded || parts[k].rounded) return false;
        if (!(r.points[i] == r.points[k]) || r.groups[i] != r.groups[k] || r.runs[i] != r.runs[k] || r.full[i] != r.full[k]) return false;
        const auto &a = parts[i].nest->buffers, &b = parts[k].nest->buffers;
        return std::any_of(a.begin(), a.end(), [&](const loop::Buffer& x) { return std::any_of(b.begin(), b.end(), [&](const loop::Buffer& y) { return x.id == y.id; }); });
    };
    for (std::size_t i = 0; i < parts.size(); ++i) {
        const Part& part = parts[i];
        const loop::Nest& n = *part.nest;
        const std::string staged = part.stage > 0 ? fmt::format(", in stage {}", part.stage) : "", function = parts.size() == 1 ? "" : names.fresh(fmt::format("{}_{}", name, i));
        std::string call;
        limit(r.points[i] * Dim(r.groups[i]) + r.threads * r.runs[i]);
        if (const loop::Buffer* b = part.rounded) {
            const std::string to = cuda::to_stored(b->dtype, "total(sum + at)");
            if (to != "total(sum + at)") uses.converted.insert(b->dtype);
            functions += fmt::format("HD void {}(index_t block, {}* __restrict__ to, {} sum, index_t count) {{\n  const index_t at = block * {} + (int)threadIdx.x;\n  if (at < count) to[at] = {};\n}}\n\n",
                                     function, cuda::stored(b->dtype), adder_types[b->id], r.threads, to);
            call = fmt::format("{}(block, {}, {}, {})", function, buffer_name[b->id], adders[b->id], cuda::expr(b->elements, size_name));
            summary += fmt::format("//   sums {}, rounded{}\n", buffer_name[b->id], staged);
        } else {
            // Grids are cut by what sizes don't exceed; a nest begins when their values are there.
            cuda::SizeNames counted = size_name;
            std::string taken;
            for (const loop::Counted& c : n.counted) {
                std::string& name = counted[c.size] = names.fresh(c.size + "_now");
                taken += fmt::format("  const index_t {} = (index_t)*{};\n", name, buffer_name[n.buffers[static_cast<std::size_t>(c.buffer)].id]);
            }
            cuda::Body body = cuda::body({n, r.threads, buffer_name, counted, size_name, part.way, adders}, names, uses);
            body.text = taken + body.text;
            for (const loop::Phase& p : n.phases) limit(p.extent + r.threads);
            for (const Dim& d : body.limits) limit(d);
            std::string each = r.groups[i] == 1 ? "one thread each" : fmt::format("{} threads each", r.groups[i]);
            if (r.runs[i] > 1) each += fmt::format(", walked in runs of up to {}", r.runs[i]);
            each += words(n);
            if (part.way != cuda::Way::plain) each += part.way == cuda::Way::powers ? ": exponents" : ": terms";
            summary += fmt::format("//   points {}, {}{}\n", print(n.outer), each, staged);
            if (parts.size() == 1) {
                calls = set_up + "  const index_t block = blockIdx.x;\n" + body.text;
                break;
            }
            functions += fmt::format("HD void {}(index_t block, {}) {{\n{}}}\n\n", function, arguments(&part, true), body.text);
            call = fmt::format("{}(block, {})", function, arguments(&part, false));
        }
        if (i == 0) calls += set_up + "  index_t block = blockIdx.x;\n";
        else if (part.stage != parts[i - 1].stage) calls += fmt::format("  await(done, blockIdx.x - block);  // stage {}\n", part.stage);
        const std::string then = part.stage == parts.back().stage ? fmt::format("return {}", call) : fmt::format("return {}, count_off(done)", call);
        in_turn.push_back(then);
        if (i + 1 < parts.size() && alike(i, i + 1)) continue;
        const std::vector<std::string> turns = std::exchange(in_turn, {});
        if (i + 1 == parts.size() && turns.size() == 1) {
            calls += fmt::format("  {};\n", call);
            break;
        }
        const std::string points = cuda::factor(r.points[i], size_name);
        std::string count = fmt::format("({} * {} + {}) / {}", r.runs[i] > 1 ? fmt::format("runs({}, {}, {}, {})", cuda::expr(r.points[i], size_name), r.groups[i], r.runs[i], r.full[i]) : points,
                                        r.groups[i], r.threads - 1, r.threads);
        calls += fmt::format("  const index_t blocks_{} = {};\n", i, count);
        if (turns.size() == 1) {
            calls += fmt::format("  if (block < blocks_{0}) {1};\n  block -= blocks_{0};\n", i, then);
            continue;
        }
        uses.turns = true;
        calls += fmt::format("  if (block < {0} * blocks_{1}) {{\n    const int turn = take_turn(block, blocks_{1}, {0});\n", turns.size(), i);
        for (std::size_t k = 0; k < turns.size(); ++k) calls += fmt::format("    {}{};\n", k + 1 < turns.size() ? fmt::format("if (turn == {}) ", k) : "", turns[k]);
        calls += fmt::format("  }}\n  block -= {} * blocks_{};\n", turns.size(), i);
    }
    if (r.staged()) uses.stages = true;
    r.vectors = uses.vectors;
    // Nests of a kernel differ: without a bound on registers ptxas spills in one to fit more blocks of another. Where threads take several
    // elements it would take more than it needs, to load all of them early; where lanes hand on a carry it spills as well. But sums in whole
    // numbers or in shared memory need what they take.
    const bool several = std::any_of(nests.begin(), nests.end(), [](const loop::Nest& n) { return n.schedule.vector > 1; });
    const bool few = std::all_of(nests.begin(), nests.end(), [](const loop::Nest& n) { return loop::registers(n) <= kRegisters; });
    const bool sums = near_bytes > 0 || r.ordered();
    const bool scans = std::any_of(nests.begin(), nests.end(), [](const loop::Nest& n) {
        return n.schedule.group > 1 && std::any_of(n.phases.begin(), n.phases.end(), [](const loop::Phase& p) { return p.ordered; });
    });
    constexpr int kAll = kRegistersInAll / kRegisters;
    const int together = several && few ? (sums ? 0 : kAll) : scans ? kAll : nests.size() > 1 ? kAll / 2 : 0;
    const std::string bounds = fmt::format("{}{}", r.threads, together > 0 ? ", BLOCKS" : "");
    const std::string blocks = together > 0 ? fmt::format("#ifndef BLOCKS  // of which a multiprocessor holds as many\n#define BLOCKS {}\n#endif\n", std::max(1, together / r.threads)) : "";
    r.text = fmt::format("// {}: {}, {} threads a block, {}-bit indices.\n{}{}namespace heddle {{\n{}\n{}extern \"C\" __global__ void "
                         "__launch_bounds__({}) {}({}) {{\n{}}}\n}}  // namespace heddle\n",
                         r.kernel, nests.size() == 1 ? "one nest" : fmt::format("{} nests side by side", nests.size()), r.threads,
                         options.wide_index ? 64 : 32, summary, blocks, cuda::prelude(uses, options.wide_index), functions, bounds, r.kernel,
                         arguments(nullptr, true) + (r.staged() ? ", unsigned* done" : ""), calls);
    r.text = mutant::read("cuda", r.kernel, std::move(r.text));
    return r;
}

}  // namespace heddle
