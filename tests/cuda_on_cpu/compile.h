// CUDA texts compiled for this machine's CPU by g++, behind shim.h.
// Law: a text is compiled as it is but for its asm statements, which become calls that the shim knows or doesn't compile. Equal texts
// are compiled once, also over runs: objects lie in the build folder, named by a hash of text, shim and flags.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "tests/cuda_on_cpu/host.h"

namespace heddle::cuda_on_cpu {

struct Source {
    std::string kernel, text;
};

class Object {
public:
    Object(Source, const std::string& path, const std::string& symbol);
    Object(const Object&) = delete;
    ~Object();
    // Tells the code where its machine is; the memory of its __shared__ variables.
    void start(Host*) const;
    char *shared_first() const { return first_; }
    char *shared_last() const { return last_; }
    void operator()(void** arguments) const { run_(arguments); }  // one thread of the kernel
    const std::string& kernel() const { return source_.kernel; }
    const std::string& text() const { return source_.text; }
    // "softmax.cu:41 `part[warp] = v;`" for a return address in this object: the innermost line of the text.
    std::string line(const void* from) const;
    std::string line(int number) const;
    std::uint32_t offset(const void* from) const { return static_cast<std::uint32_t>(static_cast<const char*>(from) - base_); }
    const void* address(std::uint32_t offset) const { return base_ + offset; }

private:
    Source source_;
    std::string path_;
    void* handle_;
    const char* base_;
    void (*run_)(void**);
    void (*start_)(Host*, char**, char**);
    mutable char *first_ = nullptr, *last_ = nullptr;
};
using Objects = std::vector<std::shared_ptr<const Object>>;

// In parallel, many in one run of the compiler. Thread-safe. Throws std::runtime_error with the compiler's words.
Objects compile(const std::vector<Source>&);
int compiled();  // kernels that took the compiler in this process

}  // namespace heddle::cuda_on_cpu
