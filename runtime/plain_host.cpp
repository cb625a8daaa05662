// The host of tests: malloc, one thread, dot in loops. And the host that keeps its memory, over any other.
#include <cstdlib>

#include "runtime/host.h"

namespace heddle {

namespace {
class PlainHost final : public Host {
public:
    explicit PlainHost(int threads) : threads_(threads) {}
    int threads() const override { return threads_; }
    Array allocate(DType t, const Extents& sizes) override {
        Array a{nullptr, t, sizes, false, {}};
        a.owner = make_owned<Block>(static_cast<std::size_t>((a.bytes() + 127) / 64 * 64));
        a.data = static_cast<Block*>(a.owner.get())->data;
        return a;
    }
    void dot(const std::vector<Array>& in, const Array& out, bool relu) override {
        if (out.dtype != DType::f32 && out.dtype != DType::f64) throw Error("dot of " + std::string(name(out.dtype)) + ": the plain host has no library");
        out.dtype == DType::f64 ? multiply<double>(in, out, relu) : multiply<float>(in, out, relu);
    }
    std::vector<Array> call(const Node& n, const std::vector<Array>&, const Sizes&) override { throw Error("call " + n.text("name") + ": the plain host has no library"); }

private:
    struct Block {
        explicit Block(std::size_t bytes) : data(std::aligned_alloc(64, bytes)) {}
        Block(const Block&) = delete;
        ~Block() { std::free(data); }
        void* data;
    };
    template <class T>
    static void multiply(const std::vector<Array>& in, const Array& c, bool relu) {
        const Array &a = in[0], &b = in[1];
        auto r = c.sizes.size();
        std::int64_t batch = r == 3 ? c.sizes[0] : 1, m = c.sizes[r - 2], n = c.sizes[r - 1], k = a.sizes[r - 1];
        auto x = static_cast<const T*>(a.data), y = static_cast<const T*>(b.data);
        auto row = in.size() == 3 ? static_cast<const T*>(in[2].data) : nullptr;
        auto z = static_cast<T*>(c.data);
        for (std::int64_t q = 0; q < batch; ++q)
            for (std::int64_t i = 0; i < m; ++i)
                for (std::int64_t j = 0; j < n; ++j) {
                    double s = 0;
                    for (std::int64_t l = 0; l < k; ++l)
                        s += static_cast<double>(x[q * m * k + (a.transposed ? l * m + i : i * k + l)]) * static_cast<double>(y[q * k * n + (b.transposed ? j * k + l : l * n + j)]);
                    if (row) s += static_cast<double>(row[j]);
                    z[(q * m + i) * n + j] = static_cast<T>(relu && s < 0 ? 0 : s);
                }
    }
    int threads_;
};
}  // namespace

namespace {
class Keeping final : public KeepingHost {
public:
    explicit Keeping(Host& below) : below_(below) {}
    void begin() override { next_ = 0; }
    std::int64_t allocations() const override { return allocations_; }
    bool cuda() const override { return below_.cuda(); }
    void* stream() const override { return below_.stream(); }
    int threads() const override { return below_.threads(); }
    std::int64_t grain() const override { return below_.grain(); }
    void parallel(int tasks, const std::function<void(int)>& f) override { below_.parallel(tasks, f); }
    void dot(const std::vector<Array>& in, const Array& out, bool relu) override { below_.dot(in, out, relu); }
    std::vector<Array> call(const Node& n, const std::vector<Array>& in, const Sizes& s) override { return below_.call(n, in, s); }
    void read(std::span<const Array> numbers, std::span<double> values) override { below_.read(numbers, values); }
    Array allocate(DType t, const Extents& sizes) override {
        Array a{nullptr, t, sizes, false, {}};
        if (next_ == kept_.size()) kept_.emplace_back();
        Array& kept = kept_[next_++];
        if (!kept.owner || kept.bytes() < a.bytes() || !kept.owner.alone()) {
            const bool grown = kept.owner && kept.bytes() < a.bytes();  // so that a size that drifts doesn't allocate at each run
            kept = below_.allocate(DType::b1, {a.bytes() + (grown ? a.bytes() / 4 : 0)});
            ++allocations_;
        }
        a.data = kept.data;
        a.owner = kept.owner;
        return a;
    }

private:
    Host& below_;
    std::vector<Array> kept_;
    std::size_t next_ = 0;
    std::int64_t allocations_ = 0;
};
}  // namespace

std::unique_ptr<KeepingHost> keeping_host(Host& below) { return std::make_unique<Keeping>(below); }

std::unique_ptr<Host> plain_host(int threads) { return std::make_unique<PlainHost>(threads); }

}  // namespace heddle
