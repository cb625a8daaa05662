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
    CudaLauncher(const Plan& plan, Target target) : plan_(plan), target_(std::move(target)), code_(plan.loops.size()), cleared_(plan.loops.size()) {
        if (!nvrtc().available()) throw Error("CUDA: " + nvrtc().why_not());
    }
    std::pair<std::string, std::string> compile(std::size_t k) override {
        const auto& nests = plan_.loops[k];
        std::set<Id> cleared;
        for (const loop::Nest& n : nests)
            for (const loop::Buffer& b : n.buffers)
                if (b.accumulated) cleared.insert(b.id);
        cleared_[k].assign(cleared.begin(), cleared.end());
        Code& narrow = code_[k].narrow;
        compile(k, narrow, false);
        return {narrow.source.kernel + ".cu", narrow.source.text};
    }
    void run(Host&, std::size_t index, const Sizes&, std::vector<Array>& values) override;

private:
    struct Code {
        CudaSource source;
        std::shared_ptr<const Binary> binary;
        Kernel kernel;  // loaded at its first run: compiling needs no device
    };
    struct Codes {
        Code narrow, wide;  // indices of 32 bits; of 64, made when sizes first need them
    };
    void compile(std::size_t k, Code& code, bool wide) {
        code.source = cuda_text(plan_.program.launches[k].name, plan_.loops[k], {.wide_index = wide});
        code.binary = nvrtc().compile({code.source.kernel, code.source.text}, target_.arch);
    }
    const Code& ready(std::size_t k, bool wide) {
        Code& code = wide ? code_[k].wide : code_[k].narrow;
        std::lock_guard lock(mutex_);
        if (!code.binary) compile(k, code, wide);
        if (!code.kernel) code.kernel = Kernel(code.binary->image, code.source.kernel, target_.device);
        return code;
    }

    const Plan& plan_;
    Target target_;
    std::vector<Codes> code_;
    std::vector<std::vector<Id>> cleared_;  // per launch: accumulated buffers
    std::mutex mutex_;
};

void CudaLauncher::run(Host& host, std::size_t index, const Sizes& sizes, std::vector<Array>& values) {
    if (!host.cuda()) throw Error(fmt::format("{}: compiled for {}, but the host's memory isn't on a CUDA device", plan_.program.launches[index].name, target_.arch));
    enter_device(target_.device);
    const CudaSource& narrow = code_[index].narrow.source;  // both take the same arguments
    bool small = narrow.fits_narrow(sizes) && std::all_of(narrow.buffers.begin(), narrow.buffers.end(), [&](Id id) {
        return values[static_cast<std::size_t>(id)].numel() < (std::int64_t{1} << 31);
    });
    const Code& code = ready(index, !small);
    Stream stream = host.stream();
    for (Id id : cleared_[index]) {
        const Array& a = values[static_cast<std::size_t>(id)];
        clear_async(a.data, static_cast<std::size_t>(a.bytes()), stream);
    }
    std::vector<std::int64_t> numbers;
    for (const std::string& s : code.source.sizes) numbers.push_back(sizes.at(s));
    std::vector<void*> arguments;
    for (Id id : code.source.buffers) arguments.push_back(&values[static_cast<std::size_t>(id)].data);
    for (std::int64_t& n : numbers) arguments.push_back(&n);
    Array done;
    if (code.source.staged()) {
        done = host.allocate(DType::i32, {1});
        clear_async(done.data, static_cast<std::size_t>(done.bytes()), stream);
        arguments.push_back(&done.data);
    }
    code.kernel.launch(code.source.blocks(sizes), code.source.threads, 0, stream, arguments.data());
}
}  // namespace

std::unique_ptr<Launcher> cuda_launcher(const Plan& plan, const Target& target) { return std::make_unique<CudaLauncher>(plan, target); }

}  // namespace heddle
