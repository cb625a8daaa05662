// What the device can do at all, in the same run as what is measured against it: copy bandwidth, FMA and exp rates, gathers and float additions
// in memory (one float or four at a time, scattered or a warp on whole lines), launches one by one and in a graph. Prints one JSON object.
// Law: every rate is the median of 15 runs after 3; every call is checked; additions are counted and the sums compared.
//   nvcc -O3 -std=c++17 -arch=sm_90 gpu_limits.cu -o gpu_limits
#include <cuda_runtime.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <vector>

#define CHECK(call)                                                                                       \
    do {                                                                                                  \
        const cudaError_t error = (call);                                                                 \
        if (error != cudaSuccess) std::fprintf(stderr, "%s: %s\n", #call, cudaGetErrorString(error)), std::exit(1); \
    } while (0)

namespace {

constexpr int kChannels = 32;  // floats of a texel: one line of 128 bytes

__global__ void copy(const float4* from, float4* to, size_t n) {
    for (size_t i = blockIdx.x * size_t(blockDim.x) + threadIdx.x; i < n; i += size_t(gridDim.x) * blockDim.x) to[i] = from[i];
}
__global__ void multiply_add(float* out, int times) {
    float a[8];
    for (int k = 0; k < 8; ++k) a[k] = threadIdx.x * 1e-3f + k;
    for (int i = 0; i < times; ++i)
#pragma unroll
        for (int k = 0; k < 8; ++k) a[k] = fmaf(a[k], 0.999f, 1e-4f);
    float sum = 0;
    for (float x : a) sum += x;
    if (sum == 1e30f) *out = sum;  // never, but the compiler doesn't know
}
__global__ void exponentials(float* out, int times) {
    float a[8];
    for (int k = 0; k < 8; ++k) a[k] = threadIdx.x * 1e-3f + k;
    for (int i = 0; i < times; ++i)
#pragma unroll
        for (int k = 0; k < 8; ++k) a[k] = __expf(-a[k]);
    float sum = 0;
    for (float x : a) sum += x;
    if (sum == 1e30f) *out = sum;
}
__global__ void nothing() {}

__device__ void add(float* at, float x) { asm volatile("red.relaxed.gpu.global.add.f32 [%0], %1;" ::"l"(at), "f"(x) : "memory"); }
__device__ void add4(float* at, float x) {
#if __CUDA_ARCH__ >= 900
    asm volatile("red.relaxed.gpu.global.add.v4.f32 [%0], {%1, %1, %1, %1};" ::"l"(at), "f"(x) : "memory");
#else
    for (int k = 0; k < 4; ++k) add(at + k, x);
#endif
}
__device__ unsigned next(unsigned h) { return h * 1664525u + 1013904223u; }

// `Lanes` neighbouring threads share one texel, each with `Width` floats of it; which texel is drawn anew each time.
template <int Width, int Lanes>
__global__ void additions(float* table, unsigned texels, int times) {
    const unsigned thread = blockIdx.x * blockDim.x + threadIdx.x;
    unsigned h = (thread / Lanes) * 2654435761u;
    for (int i = 0; i < times; ++i) {
        h = next(h);
        float* at = table + size_t((h >> 8) % texels) * kChannels + (thread % Lanes) * Width;
        if (Width == 4) add4(at, 1.f);
        else add(at, 1.f);
    }
}
// As additions, reading: eight lanes of 16 bytes.
__global__ void gathers(const float4* table, float* out, unsigned texels, int times) {
    const unsigned thread = blockIdx.x * blockDim.x + threadIdx.x;
    unsigned h = (thread / 8) * 2654435761u;
    float sum = 0;
    for (int i = 0; i < times; ++i) {
        h = next(h);
        const float4 v = __ldg(table + size_t((h >> 8) % texels) * 8 + thread % 8);
        sum += v.x + v.y + v.z + v.w;
    }
    if (sum == 1e30f) *out = sum;
}

template <class F>
double milliseconds(F f) {
    cudaEvent_t from, to;
    CHECK(cudaEventCreate(&from));
    CHECK(cudaEventCreate(&to));
    std::vector<float> times;
    for (int i = -3; i < 15; ++i) {
        CHECK(cudaEventRecord(from));
        f();
        CHECK(cudaEventRecord(to));
        CHECK(cudaEventSynchronize(to));
        CHECK(cudaGetLastError());
        float t;
        CHECK(cudaEventElapsedTime(&t, from, to));
        if (i >= 0) times.push_back(t);
    }
    std::sort(times.begin(), times.end());
    return times[times.size() / 2];
}
template <class F>
double microseconds(F f, int times) {
    CHECK(cudaDeviceSynchronize());
    const auto start = std::chrono::steady_clock::now();
    f();
    CHECK(cudaDeviceSynchronize());
    return std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - start).count() / times;
}

}  // namespace

int main() {
    cudaDeviceProp p;
    CHECK(cudaGetDeviceProperties(&p, 0));
    const int sms = p.multiProcessorCount, blocks = sms * 16, times = 64;
    const size_t n = size_t(1) << 27;  // 2 GiB each way
    float4 *a, *b;
    CHECK(cudaMalloc(&a, n * sizeof(float4)));
    CHECK(cudaMalloc(&b, n * sizeof(float4)));
    CHECK(cudaMemset(a, 1, n * sizeof(float4)));
    float *table = reinterpret_cast<float*>(a), *out = reinterpret_cast<float*>(b);
    std::printf("{\"device\": \"%s\", \"sms\": %d, \"l2_mb\": %.1f, \"compute\": \"%d.%d\"", p.name, sms, p.l2CacheSize / 1048576., p.major, p.minor);
    std::printf(", \"copy_tb_s\": %.3f", n * 2 * sizeof(float4) / milliseconds([&] { copy<<<sms * 8, 512>>>(a, b, n); }) / 1e9);
    std::printf(", \"copy_small_us\": %.3f", 1e3 * milliseconds([&] { copy<<<sms, 256>>>(a, b, 65536); }));
    std::printf(", \"fma_tflop_s\": %.2f", double(blocks) * 256 * 20000 * 16 / milliseconds([&] { multiply_add<<<blocks, 256>>>(out, 20000); }) / 1e9);
    std::printf(", \"exp_t_s\": %.3f, \"tables\": [", double(blocks) * 256 * 4000 * 8 / milliseconds([&] { exponentials<<<blocks, 256>>>(out, 4000); }) / 1e9);
    const double all = double(blocks) * 256 * times;
    bool first = true;
    for (unsigned texels : {1024u, 4096u, 39601u, 300000u}) {  // a 64 x 16 plane, 64 x 64, 199 x 199, beyond
        CHECK(cudaMemset(a, 0, size_t(texels) * kChannels * sizeof(float)));
        const auto rate = [&](auto kernel) { return all / milliseconds([&] { kernel<<<blocks, 256>>>(table, texels, times); }) / 1e6; };
        const double scattered = rate(additions<1, 1>), lines = rate(additions<1, 32>), wide = rate(additions<4, 1>), wide_lines = rate(additions<4, 8>);
        const double read = all * 16 / milliseconds([&] { gathers<<<blocks, 256>>>(a, out, texels, times); }) / 1e9;
        double sum = 0;
        std::vector<float> back(size_t(texels) * kChannels);
        CHECK(cudaMemcpy(back.data(), a, back.size() * sizeof(float), cudaMemcpyDeviceToHost));
        for (float x : back) sum += x;
        const double want = all * 18 * (1 + 1 + 4 + 4);  // every float stays below 2^24 or rounds: compared loosely
        std::printf("%s{\"texels\": %u, \"add_scattered_g_s\": %.1f, \"add_lines_g_s\": %.1f", first ? "" : ", ", texels, scattered, lines);
        std::printf(", \"add4_scattered_g_s\": %.1f, \"add4_lines_g_s\": %.1f, \"add4_lines_tb_s\": %.3f", wide, wide_lines, wide_lines * 16 / 1e3);
        std::printf(", \"gather_tb_s\": %.3f, \"sum_off\": %.1e}", read, std::fabs(sum / want - 1));
        first = false;
    }
    cudaStream_t s;
    CHECK(cudaStreamCreate(&s));
    const auto launch = [&](int count) {
        for (int i = 0; i < count; ++i) nothing<<<sms, 128, 0, s>>>();
    };
    microseconds([&] { launch(500); }, 500);
    const double one = microseconds([&] { launch(5000); }, 5000);
    cudaGraph_t graph;
    cudaGraphExec_t ready;
    CHECK(cudaStreamBeginCapture(s, cudaStreamCaptureModeGlobal));
    launch(100);
    CHECK(cudaStreamEndCapture(s, &graph));
    CHECK(cudaGraphInstantiate(&ready, graph, 0));
    const auto replay = [&](int count) {
        for (int i = 0; i < count; ++i) CHECK(cudaGraphLaunch(ready, s));
    };
    microseconds([&] { replay(5); }, 5);
    const double node = microseconds([&] { replay(50); }, 5000);
    const double alone = microseconds([&] {
        for (int i = 0; i < 200; ++i) {
            launch(1);
            CHECK(cudaStreamSynchronize(s));
        }
    }, 200);
    std::printf("], \"launch_us\": %.3f, \"graph_node_us\": %.3f, \"launch_and_wait_us\": %.3f}\n", one, node, alone);
    return 0;
}
