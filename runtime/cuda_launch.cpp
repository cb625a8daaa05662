// Launches on a CUDA device: text through NVRTC, the driver's launch on the host's stream.
// Law: a run waits for nothing and copies nothing, so that it can be captured in a CUDA graph once its kernels are loaded.
#include <fmt/format.h>

#include <algorithm>
#include <mutex>
#include <set>

#include "codegen/cuda/cuda.h"
#include "runtime/device.h"
#include "runtime/launch.h"
#include "runtime/nvrtc.h"

namespace heddle {

namespace {
Nvrtc& nvrtc() {  // one for all, so that equal text is compiled once in the process
    static Nvrtc n;
    return n;
}

class CudaLauncher final : public Launcher {
public:
    CudaLauncher(const Plan& plan, const Frame& frame, Target target) : plan_(plan), frame_(frame), target_(std::move(target)), code_(plan.loops.size()) {
        if (!nvrtc().available()) throw Error("CUDA: " + nvrtc().why_not());
    }
    void compile(std::size_t k) override {
        Codes& codes = code_[k];
        std::set<int> cleared;
        for (const loop::Nest& n : plan_.loops[k])
            for (const loop::Buffer& b : n.buffers)
                if (b.accumulated) cleared.insert(frame_.of(b.id));
        codes.cleared.assign(cleared.begin(), cleared.end());
        Code& narrow = codes.narrow;
        compile(k, narrow, {});
        for (Id id : narrow.source.buffers) codes.buffers.push_back(frame_.of(id));
        for (const auto& s : narrow.source.sizes) codes.sizes.push_back(frame_.names.slot(s));
        codes.points = shape_expr(narrow.source.points, frame_.names);
        codes.limits = shape_expr(narrow.source.limits, frame_.names);
        codes.scratch = SizeExpr(narrow.source.scratch, frame_.names);
    }
    std::pair<std::string, std::string> text(std::size_t k) const override {
        const CudaSource& s = code_[k].narrow.source;
        return {s.kernel + ".cu", s.text};
    }
    void run(Host&, std::size_t index, const std::int64_t* sizes, void* const* memory) override;

private:
    struct Code {
        CudaSource source;
        std::shared_ptr<const Binary> binary;
        Kernel kernel;  // loaded at its first run: compiling needs no device
    };
    struct Codes {
        // Indices of 32 bits; of 64; and these with every element by itself: made when sizes, or where memory begins, first need them.
        Code narrow, wide, single;  // all take the same arguments:
        std::vector<int> buffers, sizes, cleared;  // cleared: accumulated buffers
        ShapeExpr points, limits;
        SizeExpr scratch;
    };
    void compile(std::size_t k, Code& code, const CudaOptions& options) {
        code.source = cuda_text(plan_.program.launches[k].name, plan_.loops[k], options);
        code.binary = nvrtc().compile({code.source.kernel, code.source.text}, target_.arch);
    }
    const Code& ready(std::size_t k, bool small, bool aligned) {
        Code& code = !aligned ? code_[k].single : small ? code_[k].narrow : code_[k].wide;
        std::lock_guard lock(mutex_);
        if (!code.binary) compile(k, code, {.wide_index = true, .vectors = aligned});
        if (!code.kernel) code.kernel = Kernel(code.binary->image, code.source.kernel, target_.device);
        return code;
    }

    const Plan& plan_;
    const Frame& frame_;
    Target target_;
    std::vector<Codes> code_;
    std::mutex mutex_;
};

void CudaLauncher::run(Host& host, std::size_t index, const std::int64_t* sizes, void* const* memory) {
    if (!host.cuda()) throw Error(fmt::format("{}: compiled for {}, but the host's memory isn't on a CUDA device", plan_.program.launches[index].name, target_.arch));
    enter_device(target_.device);
    const Codes& c = code_[index];
    constexpr std::int64_t kNarrow = std::int64_t{1} << 31;
    bool small = std::all_of(c.limits.begin(), c.limits.end(), [&](const SizeExpr& e) { return e(sizes) < kNarrow; }) &&
                 std::all_of(c.buffers.begin(), c.buffers.end(), [&](int b) { return frame_.elements[static_cast<std::size_t>(b)](sizes) < kNarrow; });
    const bool aligned = !c.narrow.source.vectors || std::all_of(c.buffers.begin(), c.buffers.end(), [&](int b) { return reinterpret_cast<std::uintptr_t>(memory[b]) % CudaSource::kAligned == 0; });
    const Code& code = ready(index, small, aligned);
    Stream stream = host.stream();
    for (int b : c.cleared) clear_async(memory[b], static_cast<std::size_t>(frame_.bytes(b, sizes)), stream);
    Small<void*, 48> arguments;
    // The driver copies arguments from these addresses and writes to none.
    for (int b : c.buffers) arguments.push_back(const_cast<void**>(&memory[b]));
    Array done, scratch;
    if (code.source.ordered()) {
        scratch = host.allocate(DType::b1, {c.scratch(sizes)});
        clear_async(scratch.data, static_cast<std::size_t>(scratch.bytes()), stream);
        arguments.push_back(&scratch.data);
    }
    for (int s : c.sizes) arguments.push_back(const_cast<std::int64_t*>(&sizes[s]));
    if (code.source.staged()) {
        done = host.allocate(DType::i32, {1});
        clear_async(done.data, static_cast<std::size_t>(done.bytes()), stream);
        arguments.push_back(&done.data);
    }
    std::int64_t blocks = 0;
    for (std::size_t k = 0; k < c.points.size(); ++k) blocks += code.source.blocks_for(c.points[k](sizes), k);
    code.kernel.launch(blocks, code.source.threads, 0, stream, arguments.data());
}
}  // namespace

std::unique_ptr<Launcher> cuda_launcher(const Plan& plan, const Frame& frame, const Target& target) { return std::make_unique<CudaLauncher>(plan, frame, target); }

}  // namespace heddle
