// The CPU backend's compiler; see orc.h.
#include "runtime/orc.h"

#include <llvm/Analysis/TargetLibraryInfo.h>
#include <llvm/Bitcode/BitcodeWriter.h>
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
#include <optional>

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
        compiler_ = compiler();
        target_ = {.fma = !x86 || has("fma"), .scalef_bits = avx512 ? 512 : 0};
    }

    // Known by its nests where there is a disk cache: nothing is emitted then. Else by what is emitted: the tests of the tests change the tables.
    std::vector<CpuFn> compile(const std::string& name, const std::vector<loop::Nest>& nests) override {
        DiskCache* cache = compiler_.empty() ? nullptr : disk_cache();
        CacheKey key{name, compiler_, machine_.getTargetTriple().str() + " " + machine_.getCPU() + " " + machine_.getFeatures().getString(), "", ""};
        std::optional<Emitted> emitted;
        if (cache) key.source = loop::exact(nests);
        else key.source = emitted.emplace(*this, name, nests).bitcode();
        const std::string known = name + "\n" + key.source;
        {
            std::lock_guard lock(mutex_);
            if (auto it = done_.find(known); it != done_.end()) return it->second;
        }
        std::unique_ptr<llvm::MemoryBuffer> object;
        if (auto binary = cache ? cache->load(key) : std::nullopt) {
            object = llvm::MemoryBuffer::getMemBufferCopy(*binary, name);
        } else {
            if (!emitted) emitted.emplace(*this, name, nests);
            object = emitted->object();
            if (cache) cache->store(key, {object->getBufferStart(), object->getBufferSize()});
        }
        auto& library = checked(jit_->createJITDylib("k" + std::to_string(count_++)), name);
        checked(jit_->addObjectFile(library, std::move(object)), name);
        std::vector<CpuFn> functions;
        for (std::size_t i = 0; i < nests.size(); ++i) functions.push_back(checked(jit_->lookup(library, function_name(name, i)), name).toPtr<CpuFn>());
        std::lock_guard lock(mutex_);
        return done_.emplace(known, functions).first->second;
    }
    std::string text(const std::string& name, const std::vector<loop::Nest>& nests) override { return Emitted(*this, name, nests).text(); }

    std::string describe() const override { return "LLVM " LLVM_VERSION_STRING ", " + machine_.getCPU() + ", " + std::to_string(bits_) + " bit"; }

private:
    // What a binary depends on besides nests and processor: the builds of LLVM and of all that has a part in the text and in how it becomes
    // code. Empty where one is unknown, and nothing is kept on disk.
    static std::string compiler() {
        std::string all = "LLVM " LLVM_VERSION_STRING;
        for (const void* part : {reinterpret_cast<const void*>(&llvm::createFreeMachineFunctionPass), reinterpret_cast<const void*>(&make_orc_backend),
                                 reinterpret_cast<const void*>(static_cast<std::int64_t (*)(const loop::Nest&, const Sizes&)>(&units)),
                                 reinterpret_cast<const void*>(&loop::walkable), reinterpret_cast<const void*>(&heddle::def)}) {
            const std::string build = build_id(part);
            if (build.empty()) return "";
            all += " " + build;
        }
        return all;
    }
    static std::string function_name(const std::string& name, std::size_t nest) { return name + "_" + std::to_string(nest); }

    // Nests as a module, with a machine of its own.
    class Emitted {
    public:
        Emitted(Orc& orc, const std::string& name, const std::vector<loop::Nest>& nests)
            : name_(name), module_(name, context_), machine_(checked(orc.machine_.createTargetMachine(), name)) {
            module_.setDataLayout(machine_->createDataLayout());
            module_.setTargetTriple(machine_->getTargetTriple().str());
            for (std::size_t i = 0; i < nests.size(); ++i) emit(module_, orc.target_, function_name(name, i), nests[i]);
            for (llvm::Function& f : module_) {
                if (f.isDeclaration()) continue;
                f.addFnAttr("target-cpu", orc.machine_.getCPU());
                f.addFnAttr("target-features", orc.machine_.getFeatures().getString());
                f.addFnAttr("prefer-vector-width", std::to_string(orc.bits_));
                f.addFnAttr("min-legal-vector-width", std::to_string(orc.bits_));
            }
            for (const llvm::Function& f : module_) instructions_ += f.getInstructionCount();
        }
        std::string text() const {
            std::string text;
            llvm::raw_string_ostream stream(text);
            if (plain()) stream << "; compiled plainly, as it has " << instructions_ << " instructions\n";
            module_.print(stream, nullptr);
            return text;
        }
        std::string bitcode() const {  // says as much, and is written sooner
            std::string bits;
            llvm::raw_string_ostream stream(bits);
            llvm::WriteBitcodeToFile(module_, stream);
            return bits;
        }
        std::unique_ptr<llvm::MemoryBuffer> object() {  // once
            std::string problem;
            llvm::raw_string_ostream problems(problem);
            HEDDLE_CHECK(!llvm::verifyModule(module_, &problems), name_ + ": " + problem);
            optimize(module_, *machine_, plain() ? kPlainPasses : kPasses);
            if (plain()) machine_->setOptLevel(llvm::CodeGenOptLevel::None);
            return generate(module_, *machine_);
        }

    private:
        bool plain() const { return instructions_ >= kPlainFrom; }
        const std::string name_;
        llvm::LLVMContext context_;
        llvm::Module module_;
        std::unique_ptr<llvm::TargetMachine> machine_;
        std::size_t instructions_ = 0;  // as emitted
    };

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
    std::string compiler_;
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
