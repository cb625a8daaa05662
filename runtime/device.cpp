// Driver calls through dlsym; prototypes as in CUDA's documentation, declared here so that cuda.h isn't needed.
#include "runtime/device.h"

#include <dlfcn.h>
#include <fmt/format.h>

#include <utility>

namespace heddle {

namespace {

using Address = unsigned long long;  // CUdeviceptr

struct Driver {
    int (*init)(unsigned) = nullptr;
    int (*driver_version)(int*) = nullptr;
    int (*error_string)(int, const char**) = nullptr;
    int (*device_count)(int*) = nullptr;
    int (*device_get)(int*, int) = nullptr;
    int (*device_name)(char*, int, int) = nullptr;
    int (*device_attribute)(int*, int, int) = nullptr;
    int (*retain_primary)(void**, int) = nullptr;
    int (*current)(void**) = nullptr;
    int (*set_current)(void*) = nullptr;
    int (*module_load)(void**, const void*) = nullptr;
    int (*module_unload)(void*) = nullptr;
    int (*module_function)(void**, void*, const char*) = nullptr;
    int (*function_attribute)(int*, int, void*) = nullptr;
    int (*function_set)(void*, int, int) = nullptr;
    int (*launch)(void*, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void*, void**, void**) = nullptr;
    int (*memset_async)(Address, unsigned char, std::size_t, void*) = nullptr;
    int (*synchronize)(void*) = nullptr;
    int (*download_async)(void*, Address, std::size_t, void*) = nullptr;
    int (*host_alloc)(void**, std::size_t, unsigned) = nullptr;
    int (*host_free)(void*) = nullptr;
    int (*alloc)(Address*, std::size_t) = nullptr;
    int (*free)(Address) = nullptr;
    int (*upload)(Address, const void*, std::size_t) = nullptr;
    int (*download)(void*, Address, std::size_t) = nullptr;
    std::string why_not;

    Driver() {
        void* lib = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);  // stays loaded for the life of the process
        if (!lib) {
            why_not = "no CUDA driver (libcuda.so.1)";
            return;
        }
        auto find = [&](auto& f, const char* name) {
            f = reinterpret_cast<std::remove_reference_t<decltype(f)>>(dlsym(lib, name));
            if (!f && why_not.empty()) why_not = fmt::format("libcuda.so.1 has no {}", name);
        };
        find(init, "cuInit"), find(driver_version, "cuDriverGetVersion"), find(error_string, "cuGetErrorString");
        find(device_count, "cuDeviceGetCount"), find(device_get, "cuDeviceGet"), find(device_name, "cuDeviceGetName");
        find(device_attribute, "cuDeviceGetAttribute"), find(retain_primary, "cuDevicePrimaryCtxRetain");
        find(current, "cuCtxGetCurrent"), find(set_current, "cuCtxSetCurrent");
        find(module_load, "cuModuleLoadData"), find(module_unload, "cuModuleUnload"), find(module_function, "cuModuleGetFunction");
        find(function_attribute, "cuFuncGetAttribute"), find(function_set, "cuFuncSetAttribute"), find(launch, "cuLaunchKernel");
        find(memset_async, "cuMemsetD8Async"), find(synchronize, "cuStreamSynchronize");
        find(download_async, "cuMemcpyDtoHAsync_v2"), find(host_alloc, "cuMemHostAlloc"), find(host_free, "cuMemFreeHost");
        find(alloc, "cuMemAlloc_v2"), find(free, "cuMemFree_v2"), find(upload, "cuMemcpyHtoD_v2"), find(download, "cuMemcpyDtoH_v2");
        if (!why_not.empty()) return;
        if (int rc = init(0)) {
            why_not = "cuInit: " + text(rc);
            return;
        }
        int n = 0;
        if (device_count(&n) != 0 || n == 0) why_not = "no CUDA device";
    }
    std::string text(int rc) const {
        const char* s = nullptr;
        return error_string && error_string(rc, &s) == 0 && s ? s : fmt::format("error {}", rc);
    }
    void check(int rc, const char* call, const std::string& what = "") const {
        if (rc != 0) throw Error(fmt::format("{}: {}{}{}", call, what, what.empty() ? "" : ": ", text(rc)));
    }
};

// Found once; constant from then on.
const Driver& driver() {
    static const Driver d;
    return d;
}
const Driver& working() {
    const Driver& d = driver();
    if (!d.why_not.empty()) throw Error(d.why_not);
    return d;
}
void need_context(const Driver& d, int device) {
    void* context = nullptr;
    d.check(d.current(&context), "cuCtxGetCurrent");
    if (context) return;
    int handle = 0;
    d.check(d.device_get(&handle, device), "cuDeviceGet");
    d.check(d.retain_primary(&context, handle), "cuDevicePrimaryCtxRetain");  // never released: PyTorch keeps it too
    d.check(d.set_current(context), "cuCtxSetCurrent");
}
Address address(const void* p) { return reinterpret_cast<Address>(p); }

}  // namespace

bool cuda_available() { return driver().why_not.empty(); }
std::string cuda_why_not() { return driver().why_not; }

int device_count() {
    int n = 0;
    return cuda_available() && driver().device_count(&n) == 0 ? n : 0;
}
void enter_device(int device) { need_context(working(), device); }

DeviceInfo device_info(int device) {
    const Driver& d = working();
    int handle = 0;
    d.check(d.device_get(&handle, device), "cuDeviceGet");
    auto attribute = [&](int which) {
        int v = 0;
        d.check(d.device_attribute(&v, which, handle), "cuDeviceGetAttribute");
        return v;
    };
    DeviceInfo r;
    char name[256] = {};
    d.check(d.device_name(name, sizeof name, handle), "cuDeviceGetName");
    d.check(d.driver_version(&r.driver), "cuDriverGetVersion");
    r.name = name;
    r.arch = fmt::format("sm_{}{}", attribute(75), attribute(76));  // compute capability, major and minor
    r.multiprocessors = attribute(16);
    r.shared_per_block = static_cast<std::size_t>(attribute(97));
    return r;
}

Kernel::Kernel(const std::string& cubin, const std::string& name, int device) : name_(name) {
    const Driver& d = working();
    need_context(d, device);
    void* module = nullptr;
    d.check(d.module_load(&module, cubin.data()), "cuModuleLoadData", name);
    module_ = std::shared_ptr<void>(module, [](void* m) { driver().module_unload(m); });
    d.check(d.module_function(&function_, module, name.c_str()), "cuModuleGetFunction", name);
}
int Kernel::registers() const {
    int n = 0;
    working().check(driver().function_attribute(&n, 4, function_), "cuFuncGetAttribute", name_);
    return n;
}
void Kernel::launch(std::int64_t grid, int block, std::size_t shared_bytes, Stream stream, void** args) const {
    if (grid == 0) return;
    const Driver& d = working();
    if (!function_) throw Error("cuLaunchKernel: no kernel");
    if (grid < 0 || grid >= (std::int64_t{1} << 31))
        throw Error(fmt::format("cuLaunchKernel: {}: a grid of {} blocks, expected less than 2^31", name_, grid));
    if (shared_bytes > 48 * 1024)
        d.check(d.function_set(function_, 8, static_cast<int>(shared_bytes)), "cuFuncSetAttribute", name_);  // opt in
    int rc = d.launch(function_, static_cast<unsigned>(grid), 1, 1, static_cast<unsigned>(block), 1, 1,
                      static_cast<unsigned>(shared_bytes), stream, args, nullptr);
    if (rc != 0) d.check(rc, "cuLaunchKernel", name_);
}

void clear_async(void* memory, std::size_t bytes, Stream stream) {
    if (bytes == 0) return;
    working().check(driver().memset_async(address(memory), 0, bytes, stream), "cuMemsetD8Async");
}
void download_async(void* to, const void* memory, std::size_t bytes, Stream stream) {
    if (bytes > 0) working().check(driver().download_async(to, address(memory), bytes, stream), "cuMemcpyDtoHAsync");
}
PinnedMemory::PinnedMemory(std::size_t bytes) {
    struct Kept {
        void* data = nullptr;
        std::size_t bytes = 0;
        ~Kept() {
            if (data) driver().host_free(data);  // fails at the end of a process, when the driver is gone already
        }
    };
    thread_local Kept kept;
    if (kept.bytes < bytes) {
        if (kept.data) driver().host_free(std::exchange(kept.data, nullptr));
        constexpr unsigned kPortable = 1;
        working().check(working().host_alloc(&kept.data, bytes, kPortable), "cuMemHostAlloc");
        kept.bytes = bytes;
    }
    data_ = kept.data;
}
void synchronize(Stream stream) { working().check(driver().synchronize(stream), "cuStreamSynchronize"); }

DeviceMemory::DeviceMemory(std::size_t bytes, int device) : bytes_(bytes) {
    const Driver& d = working();
    need_context(d, device);
    Address a = 0;
    d.check(d.alloc(&a, bytes ? bytes : 1), "cuMemAlloc", fmt::format("{} bytes", bytes));
    data_ = reinterpret_cast<void*>(a);
}
DeviceMemory::DeviceMemory(DeviceMemory&& o) noexcept : data_(std::exchange(o.data_, nullptr)), bytes_(o.bytes_) {}
DeviceMemory::~DeviceMemory() {
    if (data_) driver().free(address(data_));
}
void DeviceMemory::upload(const void* from) {
    if (bytes_) working().check(driver().upload(address(data_), from, bytes_), "cuMemcpyHtoD");
}
void DeviceMemory::download(void* to) const {
    if (bytes_) working().check(driver().download(to, address(data_), bytes_), "cuMemcpyDtoH");
}

}  // namespace heddle
