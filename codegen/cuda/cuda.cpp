// A launch as one kernel: its arguments, its nests side by side, the prelude above them.
#include "codegen/cuda/cuda.h"

#include <fmt/format.h>

#include <algorithm>

#include "codegen/cuda/writer.h"
#include "ir/mutant.h"
#include "passes/schedule.h"

namespace heddle {

namespace {
// The same formula is in the prelude.
std::int64_t blocks_of(std::int64_t points, int group, int run, int full, int threads) {
    const std::int64_t walked = std::clamp<std::int64_t>(points * group / full, 1, run);
    return ((points + walked - 1) / walked * group + threads - 1) / threads;
}
}  // namespace

std::int64_t blocks(const loop::Nest& n, const Sizes& sizes, int threads) {
    return blocks_of(numel(n.outer).eval(sizes), n.schedule.lanes_inner ? n.schedule.group : 1, loop::run(n), n.schedule.full, threads);
}
std::int64_t CudaSource::blocks_for(std::int64_t points_of_nest, std::size_t nest) const { return blocks_of(points_of_nest, groups[nest], runs[nest], full[nest], threads); }
std::int64_t CudaSource::blocks(const Sizes& s, std::size_t nest) const { return blocks_for(points[nest].eval(s), nest); }
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
    for (const loop::Nest& n : nests) {
        int group = n.schedule.lanes_inner ? n.schedule.group : 1;
        r.threads = std::max(r.threads, n.schedule.threads);
        r.points.push_back(numel(n.outer));
        r.groups.push_back(group);
        r.runs.push_back(loop::run(n));
        r.full.push_back(n.schedule.full);
        r.stages.push_back(n.stage);
        for (const loop::Buffer& b : n.buffers) {
            if (buffer_name.emplace(b.id, "").second) {
                buffer_name[b.id] = names.fresh(b.name);
                r.buffers.push_back(b.id);
                buffers.push_back(b);
            } else if (b.written || b.accumulated) {
                for (loop::Buffer& known : buffers)
                    if (known.id == b.id) known.written = true;
            }
        }
        for (const std::string& s : n.sizes)
            if (size_name.emplace(s, "").second) {
                size_name[s] = names.fresh(s);
                r.sizes.push_back(s);
                r.limits.push_back(Dim::symbol(s));
            }
    }
    for (int group : r.groups)
        HEDDLE_CHECK(r.threads % 32 == 0 && r.threads <= 1024 && group >= 1 && (group & (group - 1)) == 0 && r.threads % group == 0,
                     fmt::format("{}: {} threads per block can't be cut into groups of {}", name, r.threads, group));

    // The arguments of the kernel or of one nest, in the kernel's order, as parameters or by name alone.
    auto arguments = [&](const loop::Nest* only, bool typed) {
        std::string s;
        auto add = [&](const std::string& type, const std::string& name) {
            s += (s.empty() ? "" : ", ") + (typed ? type : "") + name;
        };
        auto used = [&](Id id) {
            return std::any_of(only->buffers.begin(), only->buffers.end(), [&](const loop::Buffer& o) { return o.id == id; });
        };
        for (const loop::Buffer& b : buffers)
            if (!only || used(b.id))
                add((b.written || b.accumulated ? "" : "const ") + cuda::stored(b.dtype) + "* __restrict__ ", buffer_name[b.id]);
        for (const std::string& z : r.sizes)
            if (!only || std::count(only->sizes.begin(), only->sizes.end(), z)) add("index_t ", size_name[z]);
        return s;
    };
    auto limit = [&](const Dim& d) {
        if (std::find(r.limits.begin(), r.limits.end(), d) == r.limits.end()) r.limits.push_back(d);
    };

    cuda::Uses uses;
    std::string functions, calls, summary;
    for (std::size_t i = 0; i < nests.size(); ++i) {
        const loop::Nest& n = nests[i];
        // Grids are cut by what sizes don't exceed; a nest begins when their values are there.
        cuda::SizeNames counted = size_name;
        std::string taken;
        for (const loop::Counted& c : n.counted) {
            std::string& name = counted[c.size] = names.fresh(c.size + "_now");
            taken += fmt::format("  const index_t {} = (index_t)*{};\n", name, buffer_name[n.buffers[static_cast<std::size_t>(c.buffer)].id]);
        }
        cuda::Body body = cuda::body(n, r.threads, names, buffer_name, counted, uses);
        body.text = taken + body.text;
        limit(r.points[i] * Dim(r.groups[i]) + r.threads * r.runs[i]);
        for (const loop::Phase& p : n.phases) limit(p.extent + r.threads);
        for (const Dim& d : body.limits) limit(d);
        std::string each = r.groups[i] == 1 ? "one thread each" : fmt::format("{} threads each", r.groups[i]);
        if (r.runs[i] > 1) each += fmt::format(", walked in runs of up to {}", r.runs[i]);
        summary += fmt::format("//   points {}, {}{}\n", print(n.outer), each, n.stage > 0 ? fmt::format(", in stage {}", n.stage) : "");
        if (nests.size() == 1) {
            calls = "  const index_t block = blockIdx.x;\n" + body.text;
            break;
        }
        std::string function = names.fresh(fmt::format("{}_{}", name, i));
        functions += fmt::format("HD void {}(index_t block, {}) {{\n{}}}\n\n", function, arguments(&n, true), body.text);
        std::string call = fmt::format("{}(block, {})", function, arguments(&n, false));
        if (i == 0) calls += "  index_t block = blockIdx.x;\n";
        else if (n.stage != nests[i - 1].stage) calls += fmt::format("  await(done, blockIdx.x - block);  // stage {}\n", n.stage);
        if (i + 1 == nests.size()) {
            calls += fmt::format("  {};\n", call);
            break;
        }
        const std::string all = cuda::factor(r.points[i], size_name);
        std::string count = fmt::format("({} * {} + {}) / {}", r.runs[i] > 1 ? fmt::format("runs({}, {}, {}, {})", cuda::expr(r.points[i], size_name), r.groups[i], r.runs[i], r.full[i]) : all,
                                        r.groups[i], r.threads - 1, r.threads);
        std::string then = n.stage == nests.back().stage ? fmt::format("return {}", call) : fmt::format("return {}, count_off(done)", call);
        calls += fmt::format("  const index_t blocks_{0} = {1};\n  if (block < blocks_{0}) {2};\n  block -= blocks_{0};\n", i, count, then);
    }
    if (r.staged()) uses.stages = true;
    r.vectors = uses.vectors;
    // Nests of a staged kernel differ: without a bound on registers ptxas spills in one to fit more blocks of another. Where threads take
    // several elements it would take more than it needs, to load all of them early.
    const bool several = std::any_of(nests.begin(), nests.end(), [](const loop::Nest& n) { return n.schedule.vector > 1; });
    const bool bound = r.staged() && !(several && std::all_of(nests.begin(), nests.end(), [](const loop::Nest& n) { return loop::registers(n) <= kRegisters; }));
    const std::string bounds = bound ? fmt::format("{}, {}", r.threads, std::max(1, 512 / r.threads)) : std::to_string(r.threads);
    r.text = fmt::format("// {}: {}, {} threads a block, {}-bit indices.\n{}namespace heddle {{\n{}\n{}extern \"C\" __global__ void "
                         "__launch_bounds__({}) {}({}) {{\n{}}}\n}}  // namespace heddle\n",
                         r.kernel, nests.size() == 1 ? "one nest" : fmt::format("{} nests side by side", nests.size()), r.threads,
                         options.wide_index ? 64 : 32, summary, cuda::prelude(uses, options.wide_index), functions, bounds, r.kernel,
                         arguments(nullptr, true) + (r.staged() ? ", unsigned* done" : ""), calls);
    r.text = mutant::read("cuda", r.kernel, std::move(r.text));
    return r;
}

}  // namespace heddle
