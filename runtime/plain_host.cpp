// The host of tests: malloc, one thread, dot in loops.
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
    std::vector<Array> call(const Node& n, const std::vector<Array>& in, const Sizes&) override {
        if (!n.is(Op::dot)) throw Error("call " + n.text("name") + ": the plain host has no library");
        if (n.type.dtype != DType::f32 && n.type.dtype != DType::f64) throw Error("dot of " + std::string(name(n.type.dtype)) + ": the plain host has no library");
        Extents s = in[0].sizes;
        s.back() = in[1].sizes.back();
        Array out = allocate(n.type.dtype, s);
        n.type.dtype == DType::f64 ? multiply<double>(in[0], in[1], out) : multiply<float>(in[0], in[1], out);
        return {out};
    }

private:
    struct Block {
        explicit Block(std::size_t bytes) : data(std::aligned_alloc(64, bytes)) {}
        Block(const Block&) = delete;
        ~Block() { std::free(data); }
        void* data;
    };
    template <class T>
    static void multiply(const Array& a, const Array& b, Array& c) {
        auto r = c.sizes.size();
        std::int64_t batch = r == 3 ? c.sizes[0] : 1, m = c.sizes[r - 2], n = c.sizes[r - 1], k = a.sizes[r - 1];
        auto x = static_cast<const T*>(a.data), y = static_cast<const T*>(b.data);
        auto z = static_cast<T*>(c.data);
        for (std::int64_t q = 0; q < batch; ++q)
            for (std::int64_t i = 0; i < m; ++i)
                for (std::int64_t j = 0; j < n; ++j) {
                    double s = 0;
                    for (std::int64_t l = 0; l < k; ++l)
                        s += static_cast<double>(x[q * m * k + (a.transposed ? l * m + i : i * k + l)]) * static_cast<double>(y[q * k * n + (b.transposed ? j * k + l : l * n + j)]);
                    z[(q * m + i) * n + j] = static_cast<T>(s);
                }
    }
    int threads_;
};
}  // namespace

std::unique_ptr<Host> plain_host(int threads) { return std::make_unique<PlainHost>(threads); }

}  // namespace heddle
