// dlopen of the CPU backend; see cpu_backend.h.
#include "runtime/cpu_backend.h"

#include <dlfcn.h>

#include <cstdlib>
#include <filesystem>

namespace heddle {

namespace {

struct Loaded {
    CpuBackend* backend = nullptr;
    std::string why_not;
};
Loaded load() {
    Loaded result;
    std::vector<std::string> places;
    if (const char* chosen = std::getenv("HEDDLE_LLVM_BACKEND")) {
        places.push_back(chosen);
    } else {
        Dl_info here{};
        if (dladdr(reinterpret_cast<void*>(&load_cpu_backend), &here) && here.dli_fname) {
            auto folder = std::filesystem::absolute(here.dli_fname).parent_path();
            places = {folder / "libheddle_llvm.so", folder / "lib" / "libheddle_llvm.so"};
        }
        places.push_back("libheddle_llvm.so");
    }
    for (const auto& place : places) {
        void* library = dlopen(place.c_str(), RTLD_NOW | RTLD_LOCAL);
        if (!library) {
            if (const char* e = dlerror(); e && result.why_not.empty()) result.why_not = e;
            continue;
        }
        auto* entry = reinterpret_cast<CpuBackend* (*)()>(dlsym(library, "heddle_cpu_backend"));
        result.backend = entry ? entry() : nullptr;
        result.why_not = result.backend ? "" : place + (entry ? ": LLVM has no target for this machine" : ": no heddle_cpu_backend in it");
        break;
    }
    return result;
}

}  // namespace

CpuBackend* load_cpu_backend(std::string* why_not) {
    static const Loaded loaded = load();
    if (why_not) *why_not = loaded.why_not;
    return loaded.backend;
}

}  // namespace heddle
