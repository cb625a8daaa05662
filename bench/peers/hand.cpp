// The column "hand": each block as one plain fused loop, the practical limit of a core; built alone (-O3 -march=native -ffast-math).
// Law: the same tensors in and out as PyTorch holds them; planes are turned channels-last and back within the time.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <vector>

namespace {

constexpr int kChannels = 24, kGrid = 64, kTime = 16, kSamples = 221, kFrames = 7, kBases = 6, kFrequencies = 16;

// A plane channels-last, with its gradient.
struct Plane {
    int height, width;
    std::vector<float> value, gradient;
    Plane(const float* from, int h, int w) : height(h), width(w), value(std::size_t(h) * w * kChannels), gradient(value.size()) {
        for (int c = 0; c < kChannels; ++c)
            for (int i = 0; i < h * w; ++i) value[std::size_t(i) * kChannels + c] = from[c * h * w + i];
    }
    void give(float* to) const {
        for (int c = 0; c < kChannels; ++c)
            for (int i = 0; i < height * width; ++i) to[c * height * width + i] = gradient[std::size_t(i) * kChannels + c];
    }
};
struct Cell {
    std::size_t at;
    float w[4];
};
Cell cell(const Plane& p, float a, float b) {
    const float x = (a + 1) * 0.5f * (p.width - 1), y = (b + 1) * 0.5f * (p.height - 1);
    const int i = std::min(int(x), p.width - 2), j = std::min(int(y), p.height - 2);
    const float u = x - i, v = y - j;
    return {(std::size_t(j) * p.width + i) * kChannels, {(1 - u) * (1 - v), u * (1 - v), (1 - u) * v, u * v}};
}

// exp(-softplus(s - 10) d) and what the chain rule needs: the softplus's slope.
inline void let_pass(float s, float d, float& passed, float& slope) {
    const float z = s - 10.f, e = expf(-fabsf(z)), sigmoid = 1.f / (1.f + e);
    passed = expf(-(fmaxf(z, 0.f) + logf(1.f + e)) * d);
    slope = z >= 0 ? sigmoid : 1.f - sigmoid;
}

}  // namespace

extern "C" {

// xyz [n, 3], t [n, 1]; planes, lines, bases: three each; out [n]; gradients like what they are of.
void density_feature(long n, const float* xyz, const float* t, const float* const* in, const float* cotangent, float* out, float* const* gradients) {
    std::vector<Plane> planes;
    for (int i = 0; i < 6; ++i) planes.emplace_back(in[i], kGrid, i < 3 ? kGrid : kTime);
    alignas(64) float basis_gradient[3][kChannels] = {};
    constexpr int first[3] = {0, 0, 1}, second[3] = {1, 2, 2};
    for (long q = 0; q < n; ++q) {
        const float* x = xyz + 3 * q;
        float sum = 0;
        for (int i = 0; i < 3; ++i) {
            Plane &space = planes[i], &time = planes[3 + i];
            const Cell a = cell(space, x[first[i]], x[second[i]]), b = cell(time, t[q], x[2 - i]);
            const float *p = &space.value[a.at], *r = p + space.width * kChannels, *l = &time.value[b.at], *m = l + time.width * kChannels, *basis = in[6 + i];
            alignas(64) float u[kChannels], v[kChannels];
            for (int c = 0; c < kChannels; ++c) {
                u[c] = a.w[0] * p[c] + a.w[1] * p[c + kChannels] + a.w[2] * r[c] + a.w[3] * r[c + kChannels];
                v[c] = b.w[0] * l[c] + b.w[1] * l[c + kChannels] + b.w[2] * m[c] + b.w[3] * m[c + kChannels];
                sum += u[c] * v[c] * basis[c];
            }
            const float g = cotangent[q];  // the feature is linear in each plane: the backward needs nothing of the forward's sum
            float *gp = &space.gradient[a.at], *gr = gp + space.width * kChannels, *gl = &time.gradient[b.at], *gm = gl + time.width * kChannels;
            for (int c = 0; c < kChannels; ++c) {
                const float of_space = g * v[c] * basis[c], of_time = g * u[c] * basis[c];
                basis_gradient[i][c] += g * u[c] * v[c];
                gp[c] += a.w[0] * of_space, gr[c] += a.w[2] * of_space, gl[c] += b.w[0] * of_time, gm[c] += b.w[2] * of_time;
            }
            for (int c = 0; c < kChannels; ++c) {
                const float of_space = g * v[c] * basis[c], of_time = g * u[c] * basis[c];
                gp[c + kChannels] += a.w[1] * of_space, gr[c + kChannels] += a.w[3] * of_space;
                gl[c + kChannels] += b.w[1] * of_time, gm[c + kChannels] += b.w[3] * of_time;
            }
        }
        out[q] = sum;
    }
    for (int i = 0; i < 6; ++i) planes[i].give(gradients[i]);
    for (int i = 0; i < 3; ++i) std::memcpy(gradients[6 + i], basis_gradient[i], sizeof basis_gradient[i]);
}

// sigma [rays, 221], dist [221], rgb [rays, 221, 3], target [rays, 3].
void volume_rendering(long rays, const float* sigma, const float* dist, const float* rgb, const float* target, float* loss, float* d_sigma, float* d_rgb) {
    double total = 0;
    for (long r = 0; r < rays; ++r) {
        const float *s = sigma + r * kSamples, *c = rgb + r * kSamples * 3;
        alignas(64) float passed[kSamples], slope[kSamples], light[kSamples], weight[kSamples], of_weight[kSamples];
        for (int i = 0; i < kSamples; ++i) let_pass(s[i], dist[i], passed[i], slope[i]);
        float left = 1, seen = 0, picture[3] = {}, g[3];
        for (int i = 0; i < kSamples; ++i) light[i] = left, left *= passed[i] + 1e-10f;
        for (int i = 0; i < kSamples; ++i) {
            const float w = weight[i] = (1 - passed[i]) * light[i];
            seen += w, picture[0] += w * c[3 * i], picture[1] += w * c[3 * i + 1], picture[2] += w * c[3 * i + 2];
        }
        for (int k = 0; k < 3; ++k) {
            const float p = picture[k] + 1 - seen, off = std::clamp(p, 0.f, 1.f) - target[3 * r + k];
            total += double(off) * off;
            g[k] = p >= 0 && p <= 1 ? 2 * off / (3 * rays) : 0;
        }
        const float white = g[0] + g[1] + g[2];
        float *ds = d_sigma + r * kSamples, *dc = d_rgb + r * kSamples * 3;
        for (int i = 0; i < kSamples; ++i) {
            for (int k = 0; k < 3; ++k) dc[3 * i + k] = weight[i] * g[k];
            of_weight[i] = c[3 * i] * g[0] + c[3 * i + 1] * g[1] + c[3 * i + 2] * g[2] - white;
        }
        float behind = 0;  // what all later samples lose when this one lets less pass, per unit of light
        for (int i = kSamples - 1; i >= 0; --i) {
            const float of_alpha = (of_weight[i] - behind) * light[i];
            behind = of_weight[i] * (1 - passed[i]) + behind * (passed[i] + 1e-10f);
            ds[i] = of_alpha;
        }
        for (int i = 0; i < kSamples; ++i) ds[i] *= passed[i] * dist[i] * slope[i];
    }
    *loss = float(total / (3.0 * rays));
}

// coefficients [points, 18], basis [7, 6], cotangent and out [7, points, 3].
void trajectory(long points, const float* coefficients, const float* basis, const float* cotangent, float* out, float* d_coefficients, float* d_basis) {
    constexpr int kBlock = 64, kWidth = 3 * kBases;
    alignas(64) static float c[kWidth][kBlock], g[kFrames * 3][kBlock], o[kFrames * 3][kBlock], dc[kWidth][kBlock];
    double of_basis[kFrames * kBases] = {};
    for (long p = 0; p < points; p += kBlock) {
        const int n = int(std::min<long>(kBlock, points - p));
        if (n < kBlock) std::memset(c, 0, sizeof c), std::memset(g, 0, sizeof g);
        for (int l = 0; l < n; ++l)
            for (int i = 0; i < kWidth; ++i) c[i][l] = coefficients[(p + l) * kWidth + i];
        for (int f = 0; f < kFrames; ++f)
            for (int l = 0; l < n; ++l)
                for (int k = 0; k < 3; ++k) g[f * 3 + k][l] = cotangent[(f * points + p + l) * 3 + k];
        std::memset(dc, 0, sizeof dc);
        for (int k = 0; k < 3; ++k)
            for (int f = 0; f < kFrames; ++f) {
                const float* row = basis + f * kBases;
                float sums[kBases] = {};
                for (int l = 0; l < kBlock; ++l) {
                    float total = 0;
                    const float of = g[f * 3 + k][l];
                    for (int j = 0; j < kBases; ++j) {
                        total += c[k * kBases + j][l] * row[j];
                        dc[k * kBases + j][l] += of * row[j];
                        sums[j] += of * c[k * kBases + j][l];
                    }
                    o[f * 3 + k][l] = total;
                }
                for (int j = 0; j < kBases; ++j) of_basis[f * kBases + j] += sums[j];
            }
        for (int f = 0; f < kFrames; ++f)
            for (int l = 0; l < n; ++l)
                for (int k = 0; k < 3; ++k) out[(f * points + p + l) * 3 + k] = o[f * 3 + k][l];
        for (int l = 0; l < n; ++l)
            for (int i = 0; i < kWidth; ++i) d_coefficients[(p + l) * kWidth + i] = dc[i][l];
    }
    for (int i = 0; i < kFrames * kBases; ++i) d_basis[i] = float(of_basis[i]);
}

// sigma [rays, 221], dist [221].
void loss_chain(long rays, const float* sigma, const float* dist, float* loss, float* d_sigma) {
    double total = 0;
    const float share = 1.f / (float(rays) * kSamples);
    for (long r = 0; r < rays; ++r) {
        const float* s = sigma + r * kSamples;
        float* ds = d_sigma + r * kSamples;
        float sum = 0;
        for (int i = 0; i < kSamples; ++i) {
            float passed, slope;
            let_pass(s[i], dist[i], passed, slope);
            const float off = 0.7f - passed, root = sqrtf(off * off + 1e-6f), sigmoid = 1.f / (1.f + expf(-0.1f * s[i]));
            sum += root * sigmoid;
            ds[i] = (off / root * sigmoid * passed * dist[i] * slope + root * sigmoid * (1 - sigmoid) * 0.1f) * share;
        }
        total += sum;
    }
    *loss = float(total) * share;
}

// x [points, 4] -> [points, 4 + 64 + 64].
void positional_encoding(long points, const float* x, const float* frequencies, float* out) {
    constexpr int kPhases = 4 * kFrequencies;
    for (long p = 0; p < points; ++p) {
        alignas(64) float phase[kPhases];
        float* to = out + p * (4 + 2 * kPhases);
        for (int k = 0; k < 4; ++k) {
            to[k] = x[4 * p + k];
            for (int q = 0; q < kFrequencies; ++q) phase[k * kFrequencies + q] = x[4 * p + k] * frequencies[q];
        }
        for (int q = 0; q < kPhases; ++q) to[4 + q] = sinf(phase[q]);
        for (int q = 0; q < kPhases; ++q) to[4 + kPhases + q] = cosf(phase[q]);
    }
}

// rest1 = 1 - beta1, rest2 = 1 - beta2: rounded once.
void adam(long n, float* p, float* m, float* v, const float* g, float size, float root, float beta1, float rest1, float beta2, float rest2, float epsilon) {
#pragma GCC ivdep
    for (long i = 0; i < n; ++i) {
        m[i] = beta1 * m[i] + rest1 * g[i];
        v[i] = beta2 * v[i] + rest2 * g[i] * g[i];
        p[i] -= size * m[i] / (sqrtf(v[i]) / root + epsilon);
    }
}
}
