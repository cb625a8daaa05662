// Texts to objects: asm translated, batches through g++, hard links in a cache.
#include "tests/cuda_on_cpu/compile.h"

#include <dlfcn.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <future>
#include <map>
#include <mutex>
#include <stdexcept>

#include "tests/cuda_on_cpu/ptx.h"

namespace heddle::cuda_on_cpu {

namespace {

namespace fs = std::filesystem;
#ifdef __clang__
constexpr char kCompiler[] = "g++";  // its way of telling volatile accesses from others is another
#else
constexpr char kCompiler[] = HEDDLE_CXX;
#endif
// -O1 keeps conditional loads conditional. No file of a sanitizer is linked: the shim has what the code calls.
constexpr char kFlags[] =
    "-std=c++20 -O1 -g1 -pipe -ffp-contract=off -fno-math-errno -fno-strict-aliasing -fsanitize=thread --param tsan-distinguish-volatile=1 -fPIC "
    "-fno-exceptions -fno-rtti -fno-gnu-unique -fno-unwind-tables -fno-asynchronous-unwind-tables -fvisibility=hidden -Wuninitialized "
    "-Werror=uninitialized -shared -nostdlib";
constexpr std::size_t kBatch = 100'000;  // characters that one run of the compiler takes on; a second of its time

std::string contents(const fs::path& p) {
    std::ifstream f(p);
    return {std::istreambuf_iterator<char>(f), {}};
}
std::string output_of(const std::string& command, int* status = nullptr) {
    std::string s;
    FILE* pipe = popen((command + " 2>&1").c_str(), "r");
    if (!pipe) throw std::runtime_error("can't run " + command);
    char buffer[4096];
    while (std::size_t n = std::fread(buffer, 1, sizeof buffer, pipe)) s.append(buffer, n);
    int rc = pclose(pipe);
    if (status) *status = rc;
    return s;
}

// The folder of objects. One that has grown large is of many days' texts.
const fs::path& folder() {
    static const fs::path path = [] {
        fs::path p = fs::path(HEDDLE_BUILD) / "cuda_on_cpu";
        constexpr std::ptrdiff_t kMost = 10'000;
        if (fs::exists(p) && std::distance(fs::directory_iterator(p), fs::directory_iterator()) > kMost) fs::remove_all(p);
        fs::create_directories(p);
        return p;
    }();
    return path;
}
std::string symbol(const Source& s) {
    static const std::string with = [] {
        std::string all = std::string(kCompiler) + kFlags + __VERSION__;
        for (const char* f : {"shim.h", "host.h", "compile.cpp", "ptx.cpp"}) all += contents(fs::path(HEDDLE_ROOT) / "tests/cuda_on_cpu" / f);
        return all;
    }();
    return fmt::format("k{:016x}", std::hash<std::string>{}(with + "\n" + s.kernel + "\n" + s.text));
}

// One kernel in a namespace of its own, under a name of its own: extern "C" knows no namespaces.
std::string unit(const Source& s, const std::string& symbol) {
    return fmt::format("#define {0} {0}_{1}\nnamespace {1} {{\n#line 1 \"{0}.cu\"\n{2}\n#line 1 \"call.cu\"\nnamespace heddle {{}}\n"
                       "extern \"C\" __attribute__((no_sanitize(\"thread\"), visibility(\"default\"))) void {1}(void** a) {{\n"
                       "using namespace heddle;\ncuda_on_cpu::call(&{0}, a);\n}}\n}}\n#undef {0}\n", s.kernel, symbol, without_asm(s.text, s.kernel));
}

using Missing = std::map<std::string, const Source*>;  // by symbol
void build(const std::vector<std::pair<std::string, const Source*>>& batch) {
    static std::atomic<int> count{0};
    std::string text;
    for (const auto& [symbol, source] : batch) text += unit(*source, symbol);
    fs::path base = folder() / fmt::format("{}_{}", getpid(), count++), cpp = base, so = base;
    cpp += ".cpp", so += ".so";
    std::ofstream(cpp) << text;
    int status = 0;
    std::string words = output_of(fmt::format("{0} {1} -I'{2}' -include '{2}/tests/cuda_on_cpu/shim.h' '{3}' -o '{4}' -lm", kCompiler, kFlags, HEDDLE_ROOT,
                                              cpp.string(), so.string()), &status);
    fs::remove(cpp);
    if (status != 0) throw std::runtime_error(fmt::format("{}\n{}", words, batch.size() == 1 ? batch[0].second->text : ""));
    for (const auto& [symbol, source] : batch) {  // a name for each of its kernels
        fs::path link = folder() / (symbol + ".so"), fresh = base;
        fresh += symbol;
        fs::create_hard_link(so, fresh);
        fs::rename(fresh, link);
    }
    fs::remove(so);
}

std::atomic<int> built{0};

}  // namespace

int compiled() { return built; }

Objects compile(const std::vector<Source>& sources) {
    static std::mutex mutex;
    static std::map<std::string, std::shared_ptr<const Object>> loaded;
    std::lock_guard lock(mutex);
    Missing missing;
    std::vector<std::string> symbols;
    for (const Source& s : sources) {
        symbols.push_back(symbol(s));
        if (!loaded.contains(symbols.back()) && !fs::exists(folder() / (symbols.back() + ".so"))) missing.emplace(symbols.back(), &s);
    }
    std::vector<std::vector<std::pair<std::string, const Source*>>> batches;
    std::size_t total = 0, size = 0;
    for (const auto& [symbol, s] : missing) total += s->text.size();
    std::size_t most = std::min(kBatch, total / 2 + 1);  // two cores at least are there
    for (const auto& [symbol, s] : missing) {
        if (batches.empty() || size > most) batches.emplace_back(), size = 0;
        batches.back().emplace_back(symbol, s), size += s->text.size();
    }
    std::atomic<std::size_t> next{0};
    auto work = [&] {
        for (std::size_t k; (k = next++) < batches.size();) build(batches[k]);
    };
    std::future<void> other;
    if (batches.size() > 1) other = std::async(std::launch::async, work);
    work();
    if (other.valid()) other.get();
    built += static_cast<int>(missing.size());
    Objects objects;
    for (std::size_t k = 0; k < sources.size(); ++k) {
        auto& object = loaded[symbols[k]];
        if (!object) object = std::make_shared<const Object>(sources[k], (folder() / (symbols[k] + ".so")).string(), symbols[k]);
        objects.push_back(object);
    }
    return objects;
}

Object::Object(Source source, const std::string& path, const std::string& symbol) : source_(std::move(source)), path_(path), handle_(dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL)) {
    if (!handle_) throw std::runtime_error(dlerror());
    run_ = reinterpret_cast<void (*)(void**)>(dlsym(handle_, symbol.c_str()));
    start_ = reinterpret_cast<void (*)(Host*, char**, char**)>(dlsym(handle_, "cuda_on_cpu_start"));
    Dl_info info;
    if (!run_ || !start_ || !dladdr(reinterpret_cast<void*>(start_), &info)) throw std::runtime_error(path + " has no " + symbol);
    base_ = static_cast<const char*>(info.dli_fbase);
}
Object::~Object() { dlclose(handle_); }
void Object::start(Host* host) const { start_(host, &first_, &last_); }

std::string Object::line(int number) const {
    std::size_t from = 0;
    for (int k = 1; k < number && from != std::string::npos; ++k) from = text().find('\n', from), from += from != std::string::npos;
    std::string where = fmt::format("{}.cu:{}", kernel(), number);
    if (from == std::string::npos) return where;
    from = text().find_first_not_of(' ', from);
    std::string words = text().substr(from, text().find('\n', from) - from);
    return fmt::format("{} `{}`", where, words.substr(0, 160));
}
std::string Object::line(const void* from) const {
    // Innermost first: a line of the shim stands for the line of the text that called it.
    std::string all = output_of(fmt::format("addr2line -i -e '{}' {:#x}", path_, offset(from) - 1)), name = kernel() + ".cu:";
    std::size_t at = all.find("/" + name);
    if (at == std::string::npos) return kernel() + ".cu";
    return line(std::atoi(all.c_str() + at + 1 + name.size()));
}

}  // namespace heddle::cuda_on_cpu
