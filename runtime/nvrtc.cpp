// Finding, calling and remembering NVRTC. Its prototypes are declared here, so that no CUDA header is needed.
#include "runtime/nvrtc.h"

#include <dlfcn.h>
#include <fmt/format.h>
#include <link.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <regex>
#include <thread>

#include "runtime/disk_cache.h"

namespace heddle {

namespace fs = std::filesystem;

struct Nvrtc::Api {
    using Program = struct Opaque*;
    int (*version)(int*, int*);
    const char* (*error)(int);
    int (*create)(Program*, const char* text, const char* name, int headers, const char* const*, const char* const*);
    int (*destroy)(Program*);
    int (*compile)(Program, int, const char* const*);
    int (*log_size)(Program, std::size_t*);
    int (*log)(Program, char*);
    int (*cubin_size)(Program, std::size_t*);
    int (*cubin)(Program, char*);
    int (*ptx_size)(Program, std::size_t*);
    int (*ptx)(Program, char*);
};

namespace {

std::string where(void* library) {
    link_map* map = nullptr;
    return dlinfo(library, RTLD_DI_LINKMAP, &map) == 0 && map ? map->l_name : "";
}
std::string env(const char* name) {
    const char* s = std::getenv(name);
    return s ? s : "";
}
// Entries of a folder whose names start with `prefix`, the last name (the newest version) first.
std::vector<fs::path> entries(const fs::path& dir, const std::string& prefix) {
    std::vector<fs::path> found;
    std::error_code none;
    for (const auto& e : fs::directory_iterator(dir, none))
        if (e.path().filename().string().starts_with(prefix)) found.push_back(e.path());
    std::sort(found.rbegin(), found.rend());
    return found;
}
constexpr const char* kNames[] = {"libnvrtc.so.13", "libnvrtc.so.12"};

std::string trim(std::string s) {
    while (!s.empty() && (s.back() == '\n' || s.back() == '\0' || s.back() == ' ')) s.pop_back();
    return s;
}
std::string run(const std::string& command) {  // its output
    std::string out;
    if (FILE* p = popen((command + " 2>/dev/null").c_str(), "r")) {
        char buffer[512];
        while (std::size_t n = fread(buffer, 1, sizeof buffer, p)) out.append(buffer, n);
        pclose(p);
    }
    return out;
}
int spilled(const Binary& b) { return b.resources ? b.resources->spill_stores + b.resources->spill_loads : 0; }
std::string match(const std::string& s, const char* pattern) {
    std::smatch m;
    return std::regex_search(s, m, std::regex(pattern)) ? m[1].str() : "";
}

}  // namespace

std::vector<std::string> site_packages() {
    std::vector<fs::path> environments;
    std::error_code none;
    auto above = [&](fs::path p) {
        for (; !p.empty(); p = p.parent_path()) {
            environments.push_back(p / ".venv");
            if (p == p.parent_path()) break;
        }
    };
    if (std::string e = env("VIRTUAL_ENV"); !e.empty()) environments.emplace_back(e);
    above(fs::current_path(none));
    Dl_info here{};
    if (dladdr(reinterpret_cast<void*>(&site_packages), &here) && here.dli_fname) above(fs::absolute(here.dli_fname, none).parent_path());
    std::vector<std::string> found;
    for (const fs::path& e : environments)
        for (const fs::path& python : entries(e / "lib", "python3"))
            if (fs::path p = python / "site-packages"; fs::is_directory(p, none))
                if (std::find(found.begin(), found.end(), p.string()) == found.end()) found.push_back(p.string());
    return found;
}

Nvrtc::Nvrtc(const std::string& hint) {
    void* handle = nullptr;
    std::string last;
    auto load = [&](const std::string& path, int flags = RTLD_NOW | RTLD_LOCAL) {
        if (handle) return;
        handle = dlopen(path.c_str(), flags);
        if (const char* e = handle ? nullptr : dlerror()) last = e;
    };
    auto load_from = [&](const fs::path& dir) {
        std::error_code none;
        for (const char* n : kNames)
            if (fs::exists(dir / n, none)) load((dir / n).string());
    };
    if (std::string wish = env("HEDDLE_NVRTC"); !wish.empty()) {
        fs::is_directory(wish) ? load_from(wish) : load(wish);
        if (!handle) throw Error(fmt::format("HEDDLE_NVRTC: {}: no NVRTC here{}", wish, last.empty() ? "" : ": " + last));
    }
    for (const char* n : kNames) load(n, RTLD_NOW | RTLD_LOCAL | RTLD_NOLOAD);
    if (!hint.empty()) load_from(hint);
    for (const std::string& packages : site_packages())
        for (const fs::path& wheel : entries(fs::path(packages) / "nvidia", "cu")) load_from(wheel / "lib");
    for (const std::string& packages : site_packages()) load_from(fs::path(packages) / "nvidia/cuda_nvrtc/lib");
    for (const char* n : kNames) load(n);
    for (const fs::path& cuda : entries("/usr/local", "cuda")) load_from(cuda / "lib64");
    if (!handle) {
        why_not_ = "NVRTC (libnvrtc.so.13 or .12) not found: install PyTorch's wheel in .venv or set HEDDLE_NVRTC";
        return;
    }
    path_ = where(handle);
    Api api{};
    auto find = [&](auto& f, const char* name) {
        f = reinterpret_cast<std::remove_reference_t<decltype(f)>>(dlsym(handle, name));
        if (!f) throw Error(fmt::format("{}: has no {}", path_, name));
    };
    find(api.version, "nvrtcVersion"), find(api.error, "nvrtcGetErrorString");
    find(api.create, "nvrtcCreateProgram"), find(api.destroy, "nvrtcDestroyProgram"), find(api.compile, "nvrtcCompileProgram");
    find(api.log_size, "nvrtcGetProgramLogSize"), find(api.log, "nvrtcGetProgramLog");
    find(api.cubin_size, "nvrtcGetCUBINSize"), find(api.cubin, "nvrtcGetCUBIN");
    find(api.ptx_size, "nvrtcGetPTXSize"), find(api.ptx, "nvrtcGetPTX");
    api_ = std::make_shared<const Api>(api);
    if (std::string build = build_id(reinterpret_cast<const void*>(api.compile)); !build.empty()) compiler_ = fmt::format("NVRTC {} {}", version(), build);
}

std::string Nvrtc::version() const {
    int major = 0, minor = 0;
    if (api_) api_->version(&major, &minor);
    return api_ ? fmt::format("{}.{}", major, minor) : "";
}

std::shared_ptr<const Binary> Nvrtc::compile(const CudaText& source, const std::string& arch, const NvrtcOptions& o) {
    if (!api_) throw Error(source.kernel + ": " + why_not_);
    std::vector<std::string> options = {"--gpu-architecture=" + arch, "--std=c++17", "--diag-suppress=177"};  // unused functions
    bool cubin = arch.starts_with("sm_");
    if (cubin) options.push_back("--ptxas-options=-v");
    if (o.line_info) options.push_back("--generate-line-info");
    if (o.max_registers) options.push_back(fmt::format("--maxrregcount={}", o.max_registers));
    options.insert(options.end(), o.extra.begin(), o.extra.end());
    std::string key;
    for (const std::string& s : options) key += s + '\n';
    key += source.text;
    {
        std::lock_guard lock(mutex_);
        if (auto hit = cache_.find(key); hit != cache_.end()) return hit->second;
    }
    auto remember = [&](std::shared_ptr<const Binary> binary) {
        std::lock_guard lock(mutex_);
        return cache_.emplace(std::move(key), std::move(binary)).first->second;
    };
    auto start = std::chrono::steady_clock::now();
    auto milliseconds = [&] { return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count(); };
    auto binary = std::make_shared<Binary>();
    // Not where files that a text or an option names decide, too.
    const bool closed = !compiler_.empty() && o.extra.empty() && source.text.find("#include") == std::string::npos;
    DiskCache* disk = closed ? disk_cache() : nullptr;
    const CacheKey disk_key{source.kernel, compiler_, arch, fmt::format("{}\nlog, 0, image", fmt::join(options, "\n")), source.text};
    if (auto stored = disk ? disk->load(disk_key) : std::nullopt) {
        const std::size_t at = stored->find('\0');
        binary->log = stored->substr(0, at), binary->image = stored->substr(at + 1);
        binary->resources = parse_ptxas(binary->log);
        binary->milliseconds = milliseconds();
        return remember(std::move(binary));
    }
    Api::Program program = nullptr;
    auto check = [&](int rc, const char* what, const std::string& log = "") {
        if (rc == 0) return;
        if (program) api_->destroy(&program);
        throw Error(fmt::format("{}: {} for {}: {}{}{}", source.kernel, what, arch, api_->error(rc), log.empty() ? "" : "\n", log));
    };
    check(api_->create(&program, source.text.c_str(), (source.kernel + ".cu").c_str(), 0, nullptr, nullptr), "nvrtcCreateProgram");
    std::vector<const char*> argv;
    for (const std::string& s : options) argv.push_back(s.c_str());
    int rc = api_->compile(program, static_cast<int>(argv.size()), argv.data());
    auto read = [&](auto size, auto get, const char* what) {
        std::size_t n = 0;
        check(size(program, &n), what);
        std::string s(n, '\0');
        check(get(program, s.data()), what);
        return s;
    };
    binary->log = trim(read(api_->log_size, api_->log, "nvrtcGetProgramLog"));
    check(rc, "nvrtcCompileProgram", binary->log);
    binary->image = cubin ? read(api_->cubin_size, api_->cubin, "nvrtcGetCUBIN") : trim(read(api_->ptx_size, api_->ptx, "nvrtcGetPTX"));
    api_->destroy(&program);
    binary->resources = parse_ptxas(binary->log);
    // As many blocks as the text asks for leave each thread too few registers: then with fewer, half of them at least.
    const std::string asked = spilled(*binary) > 0 && o.extra.empty() ? match(source.text, "#define BLOCKS (\\d+)") : "";
    const int most = asked.empty() ? 0 : std::stoi(asked);
    for (int blocks = most - 1; blocks > 0 && blocks >= most / 2 && spilled(*binary) > 0; --blocks) {
        NvrtcOptions fewer = o;
        fewer.extra = {fmt::format("--define-macro=BLOCKS={}", blocks)};
        if (auto other = compile(source, arch, fewer); spilled(*other) < spilled(*binary)) *binary = *other;
    }
    binary->milliseconds = milliseconds();
    if (disk && binary->log.find('\0') == std::string::npos) disk->store(disk_key, binary->log + '\0' + binary->image);
    return remember(std::move(binary));
}

std::vector<std::shared_ptr<const Binary>> Nvrtc::compile(const std::vector<CudaText>& texts, const std::string& arch,
                                                          const NvrtcOptions& o, int threads) {
    std::vector<std::shared_ptr<const Binary>> results(texts.size());
    std::vector<std::exception_ptr> errors(texts.size());
    std::atomic<std::size_t> next = 0;
    auto work = [&] {
        for (std::size_t i; (i = next++) < texts.size();) try {
            results[i] = compile(texts[i], arch, o);
        } catch (...) {
            errors[i] = std::current_exception();
        }
    };
    auto wish = static_cast<std::size_t>(threads > 0 ? threads : static_cast<int>(std::max(1u, std::thread::hardware_concurrency())));
    std::vector<std::jthread> helpers;
    for (std::size_t i = 1; i < std::min(wish, texts.size()); ++i) helpers.emplace_back(work);
    work();
    helpers.clear();
    for (const std::exception_ptr& e : errors)
        if (e) std::rethrow_exception(e);
    return results;
}

std::optional<Resources> parse_ptxas(const std::string& log) {
    Resources r;
    bool any = false;
    auto most = [&](int& field, const char* pattern) {
        std::regex re(pattern);
        for (std::sregex_iterator i(log.begin(), log.end(), re), end; i != end; ++i)
            field = std::max(field, std::stoi((*i)[1])), any = true;
    };
    most(r.registers, R"(Used (\d+) registers)");
    most(r.stack, R"((\d+) bytes stack frame)");
    most(r.spill_stores, R"((\d+) bytes spill stores)");
    most(r.spill_loads, R"((\d+) bytes spill loads)");
    most(r.shared, R"((\d+) bytes smem)");
    return any ? std::optional(r) : std::nullopt;
}

std::vector<Tool> find_tools(const std::string& hint) {
    std::vector<Tool> tools;
    try {
        Nvrtc nvrtc(hint);
        tools.push_back({"nvrtc", nvrtc.path(), nvrtc.available() ? nvrtc.version() : nvrtc.why_not()});
    } catch (const Error& e) {
        tools.push_back({"nvrtc", "", e.what()});
    }
    auto library = [&](const char* name, std::vector<std::string> files) {
        for (const std::string& f : files)
            if (void* h = dlopen(f.c_str(), RTLD_LAZY | RTLD_LOCAL)) {
                tools.push_back({name, where(h), ""});
                dlclose(h);
                return;
            }
        tools.push_back({name, "", "not found"});
    };
    auto program = [&](const char* name, const char* pattern) {
        std::vector<fs::path> places;
        for (const std::string& packages : site_packages())
            for (const char* dir : {"torch/bin", "triton/backends/nvidia/bin"}) places.push_back(fs::path(packages) / dir);
        std::string path = env("PATH");
        for (std::size_t i = 0, j; i < path.size(); i = j + 1) {
            j = std::min(path.find(':', i), path.size());
            places.emplace_back(path.substr(i, j - i));
        }
        for (const fs::path& cuda : entries("/usr/local", "cuda")) places.push_back(cuda / "bin");
        std::error_code none;
        for (const fs::path& p : places)
            if (fs::path file = p / name; fs::is_regular_file(file, none)) {
                tools.push_back({name, file.string(), match(run("'" + file.string() + "' --version"), pattern)});
                return;
            }
        tools.push_back({name, "", "not found"});
    };
    program("ptxas", R"(release ([\d.]+))");
    program("cuobjdump", R"(release ([\d.]+))");
    library("libcuda", {"libcuda.so.1"});
    library("LLVM 19", {"libLLVM-19.so", "libLLVM.so.19.1", "/usr/lib/llvm-19/lib/libLLVM-19.so"});
    std::string features;
#if defined(__x86_64__)
    auto feature = [&](bool has, const char* name) { features += has ? std::string(features.empty() ? "" : " ") + name : ""; };
    feature(__builtin_cpu_supports("avx2"), "avx2"), feature(__builtin_cpu_supports("fma"), "fma");
    feature(__builtin_cpu_supports("avx512f"), "avx512f"), feature(__builtin_cpu_supports("avx512bw"), "avx512bw");
#endif
    tools.push_back({"cpu", fmt::format("{} cores", std::thread::hardware_concurrency()), features});
    return tools;
}

}  // namespace heddle
