// The CPU backend's compiler; see orc.h.
#include "runtime/orc.h"

#include <llvm/Analysis/TargetLibraryInfo.h>
#include <llvm/CodeGen/MachineModuleInfo.h>
#include <llvm/CodeGen/Passes.h>
#include <llvm/CodeGen/TargetPassConfig.h>
#include <llvm/Config/llvm-config.h>
#include <llvm/ExecutionEngine/Orc/ExecutionUtils.h>
#include <llvm/ExecutionEngine/Orc/JITTargetMachineBuilder.h>
#include <llvm/ExecutionEngine/Orc/LLJIT.h>
#include <llvm/IR/LegacyPassManager.h>
#include <llvm/IR/Verifier.h>
#include <llvm/Passes/PassBuilder.h>
#include <llvm/Support/SmallVectorMemoryBuffer.h>
#include <llvm/Support/TargetSelect.h>
#include <llvm/Target/TargetMachine.h>

#include <atomic>
#include <mutex>

#include "codegen/llvm/llvm.h"
#include "runtime/disk_cache.h"

namespace heddle {

namespace {

// What emitted text gains from: it is vectorized already, and its loops are rotated.
constexpr const char* kPasses =
    "function(sroa,early-cse<memssa>,simplifycfg,instcombine<no-verify-fixpoint>,loop-mssa(licm<allowspeculation>),"
    "loop(indvars,loop-unroll-full),sroa,gvn,instcombine<no-verify-fixpoint>,simplifycfg,adce)";

// Of a module that is too large for that. Machine code is then made in one go, too: allocating registers well takes more than linear time.
constexpr const char* kPlainPasses = "function(sroa,early-cse,simplifycfg,adce)";

template <class T> T checked(llvm::Expected<T> value, const std::string& name) {
    if (!value) throw Error("llvm: " + name + ": " + llvm::toString(value.takeError()));
    return static_cast<T&&>(*value);
}
void checked(llvm::Error error, const std::string& name) {
    if (error) throw Error("llvm: " + name + ": " + llvm::toString(std::move(error)));
}

class Orc : public CpuBackend {
public:
    Orc(llvm::orc::JITTargetMachineBuilder machine, std::unique_ptr<llvm::orc::LLJIT> jit) : machine_(std::move(machine)), jit_(std::move(jit)) {
        auto has = [&](const std::string& feature) { return machine_.getFeatures().getString().find("+" + feature) != std::string::npos; };
        bool x86 = machine_.getTargetTriple().isX86();
        bool avx512 = x86 && has("avx512f") && has("avx512vl") && has("avx512dq") && has("avx512bw");
        bits_ = avx512 ? 512 : x86 && has("avx2") ? 256 : 128;
        // Both builds: this one chooses passes and how machine code is made, which the text doesn't say. No cache where one is unknown.
        const std::string own = build_id(reinterpret_cast<const void*>(&make_orc_backend)), llvm = build_id(reinterpret_cast<const void*>(&llvm::createFreeMachineFunctionPass));
        if (!own.empty() && !llvm.empty()) compiler_ = "LLVM " LLVM_VERSION_STRING " " + llvm + ", heddle " + own;
        target_ = {.fma = !x86 || has("fma"), .scalef_bits = avx512 ? 512 : 0};
    }

    std::vector<CpuFn> compile(const std::string& name, const std::vector<loop::Nest>& nests, std::string* text_out) override {
        llvm::LLVMContext context;
        llvm::Module module(name, context);
        auto machine = checked(machine_.createTargetMachine(), name);
        module.setDataLayout(machine->createDataLayout());
        module.setTargetTriple(machine->getTargetTriple().str());
        std::vector<std::string> names;
        for (std::size_t i = 0; i < nests.size(); ++i) {
            names.push_back(name + "_" + std::to_string(i));
            emit(module, target_, names.back(), nests[i]);
        }
        for (llvm::Function& f : module) {
            if (f.isDeclaration()) continue;
            f.addFnAttr("target-cpu", machine_.getCPU());
            f.addFnAttr("target-features", machine_.getFeatures().getString());
            f.addFnAttr("prefer-vector-width", std::to_string(bits_));
            f.addFnAttr("min-legal-vector-width", std::to_string(bits_));
        }
        std::size_t instructions = 0;
        for (const llvm::Function& f : module) instructions += f.getInstructionCount();
        const bool plain = instructions >= kPlainFrom;
        std::string text;
        llvm::raw_string_ostream stream(text);
        if (plain) stream << "; compiled plainly, as it has " << instructions << " instructions\n";
        module.print(stream, nullptr);
        if (text_out) *text_out = text;
        {
            std::lock_guard lock(mutex_);
            if (auto it = done_.find(text); it != done_.end()) return it->second;
        }
        const CacheKey key{name, compiler_, module.getTargetTriple() + " " + machine_.getCPU() + " " + machine_.getFeatures().getString(), plain ? kPlainPasses : kPasses, text};
        DiskCache* cache = compiler_.empty() ? nullptr : disk_cache();
        std::unique_ptr<llvm::MemoryBuffer> object;
        if (auto binary = cache ? cache->load(key) : std::nullopt) {
            object = llvm::MemoryBuffer::getMemBufferCopy(*binary, name);
        } else {
            std::string problem;
            llvm::raw_string_ostream problems(problem);
            HEDDLE_CHECK(!llvm::verifyModule(module, &problems), name + ": " + problem);
            optimize(module, *machine, plain ? kPlainPasses : kPasses);
            if (plain) machine->setOptLevel(llvm::CodeGenOptLevel::None);
            object = generate(module, *machine);
            if (cache) cache->store(key, {object->getBufferStart(), object->getBufferSize()});
        }
        auto& library = checked(jit_->createJITDylib("k" + std::to_string(count_++)), name);
        checked(jit_->addObjectFile(library, std::move(object)), name);
        std::vector<CpuFn> functions;
        for (const auto& n : names) functions.push_back(checked(jit_->lookup(library, n), n).toPtr<CpuFn>());
        std::lock_guard lock(mutex_);
        return done_.emplace(std::move(text), functions).first->second;
    }

    std::string describe() const override { return "LLVM " LLVM_VERSION_STRING ", " + machine_.getCPU() + ", " + std::to_string(bits_) + " bit"; }

private:
    static void optimize(llvm::Module& module, llvm::TargetMachine& machine, std::string_view pipeline) {
        llvm::LoopAnalysisManager loops;
        llvm::FunctionAnalysisManager functions;
        llvm::CGSCCAnalysisManager graphs;
        llvm::ModuleAnalysisManager modules;
        llvm::PassBuilder builder(&machine);
        builder.registerModuleAnalyses(modules);
        builder.registerCGSCCAnalyses(graphs);
        builder.registerFunctionAnalyses(functions);
        builder.registerLoopAnalyses(loops);
        builder.crossRegisterProxies(loops, functions, graphs, modules);
        llvm::ModulePassManager passes;
        checked(builder.parsePassPipeline(passes, pipeline), "passes");
        passes.run(module, modules);
    }

    // Machine code. Scheduling once more after register allocation is left out: up to 40 % of the time, nothing gained on
    // processors that reorder by themselves.
    static std::unique_ptr<llvm::MemoryBuffer> generate(llvm::Module& module, llvm::TargetMachine& any) {
        auto& machine = static_cast<llvm::LLVMTargetMachine&>(any);
        llvm::SmallVector<char, 0> bytes;
        llvm::raw_svector_ostream stream(bytes);
        llvm::legacy::PassManager passes;
        auto* functions = new llvm::MachineModuleInfoWrapperPass(&machine);
        llvm::TargetPassConfig* config = machine.createPassConfig(passes);
        config->setDisableVerify(true);
        config->disablePass(&llvm::PostRASchedulerID);
        passes.add(config);
        passes.add(functions);
        bool failed = config->addISelPasses();
        config->addMachinePasses();
        config->setInitialized();
        failed |= machine.addAsmPrinter(passes, stream, nullptr, llvm::CodeGenFileType::ObjectFile, functions->getMMI().getContext());
        if (failed) throw Error("llvm: " + module.getName().str() + ": no machine code for " + machine.getTargetTriple().str());
        passes.add(llvm::createFreeMachineFunctionPass());
        passes.run(module);
        return std::make_unique<llvm::SmallVectorMemoryBuffer>(std::move(bytes), module.getName(), false);
    }

    llvm::orc::JITTargetMachineBuilder machine_;
    std::unique_ptr<llvm::orc::LLJIT> jit_;
    Target target_;
    std::string compiler_;  // versions and builds; empty: unknown
    int bits_ = 128;
    std::mutex mutex_;
    std::atomic<int> count_ = 0;
    std::map<std::string, std::vector<CpuFn>> done_;
};

}  // namespace

CpuBackend* make_orc_backend(std::string* why_not) {
    try {
        if (llvm::InitializeNativeTarget() || llvm::InitializeNativeTargetAsmPrinter()) throw Error("llvm: this machine has no target");
        auto machine = checked(llvm::orc::JITTargetMachineBuilder::detectHost(), "host");
        machine.setCodeGenOptLevel(llvm::CodeGenOptLevel::Default);
        machine.setRelocationModel(llvm::Reloc::PIC_);
        auto jit = checked(llvm::orc::LLJITBuilder().setJITTargetMachineBuilder(machine).create(), "jit");
        return new Orc(std::move(machine), std::move(jit));
    } catch (const std::exception& e) {
        if (why_not) *why_not = e.what();
        return nullptr;
    }
}

}  // namespace heddle

// Lives until the process ends: code may still run on other threads while statics are torn down.
extern "C" heddle::CpuBackend* heddle_cpu_backend() {
    static heddle::CpuBackend* backend = heddle::make_orc_backend(nullptr);
    return backend;
}
