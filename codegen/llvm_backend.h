// What the runtime knows of the CPU backend: nests in, functions out. No LLVM header, so that only one library needs LLVM.
// Law: a function computes the units [begin, end) of its nest and touches nothing else; units may run on any thread, in any order.
#pragma once
#include "passes/loop.h"

namespace heddle {

// buffers in the order of Nest::buffers, sizes in the order of Nest::sizes.
// A nest that accumulates: threads must not share an accumulated buffer (give each a private copy and add them up).
using CpuFn = void (*)(void* const* buffers, const std::int64_t* sizes, std::int64_t begin, std::int64_t end);

// How many units a nest has: blocks of schedule.chunk points of the last outer axis. 0 if any outer size is 0.
std::int64_t units(const loop::Nest&, const std::int64_t* outer);
std::int64_t units(const loop::Nest&, const Sizes&);

constexpr std::size_t kPlainFrom = 60000;  // instructions of one compile, as emitted, from which it is done plainly, in linear time

class CpuBackend {
public:
    virtual ~CpuBackend() = default;
    // One function per nest; equal nests of equal name are compiled once. May be called from several threads.
    // Functions live as long as the backend. llvm_text_out, if given, receives the module as emitted; its first line says so if it is
    // compiled plainly. Throws Error.
    virtual std::vector<CpuFn> compile(const std::string& name, const std::vector<loop::Nest>&, std::string* llvm_text_out = nullptr) = 0;
    virtual std::string describe() const = 0;  // "LLVM 19.1.7, znver4, 512 bit"
};

}  // namespace heddle

// The one symbol that the runtime looks up in libheddle_llvm.so; nullptr if this machine can't be compiled for.
extern "C" heddle::CpuBackend* heddle_cpu_backend();
