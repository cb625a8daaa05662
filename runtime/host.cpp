// What a host does unless it knows better. Law: numbers are read with one wait, however many they are.
#include "runtime/host.h"

#include <cstring>

#include "runtime/device.h"

namespace heddle {

namespace {
template <class T>
double as_double(const void* p) {
    T v;
    std::memcpy(&v, p, sizeof v);
    return static_cast<double>(v);
}
double number(DType t, const void* p) {
    switch (t) {
        case DType::b1: return as_double<std::uint8_t>(p) != 0;
        case DType::i32: return as_double<std::int32_t>(p);
        case DType::i64: return as_double<std::int64_t>(p);
        case DType::f32: return as_double<float>(p);
        case DType::f64: return as_double<double>(p);
        default: throw Error("a number of type " + std::string(name(t)) + " can't be read");
    }
}
}  // namespace

void Host::read(std::span<const Array> numbers, std::span<double> values) {
    if (!cuda()) {
        for (std::size_t k = 0; k < numbers.size(); ++k) values[k] = number(numbers[k].dtype, numbers[k].data);
        return;
    }
    constexpr std::size_t kRoom = 8;
    const PinnedMemory here(numbers.size() * kRoom);
    auto* at = static_cast<char*>(here.data());
    for (std::size_t k = 0; k < numbers.size(); ++k)
        download_async(at + k * kRoom, numbers[k].data, static_cast<std::size_t>(heddle::bytes(numbers[k].dtype)), stream());
    synchronize(stream());
    for (std::size_t k = 0; k < numbers.size(); ++k) values[k] = number(numbers[k].dtype, at + k * kRoom);
}

}  // namespace heddle
