// Loop nests as text of all they say, for keys of caches. Law: nests of equal text differ in nothing but the user's source lines; a field
// that is added to them doesn't compile until it is added here.
#include <bit>
#include <charconv>

#include "passes/loop.h"

namespace heddle::loop {

namespace {

class Writer {
public:
    explicit Writer(bool named) : named_(named) {}
    std::string text;

    template <class T>
        requires std::is_arithmetic_v<T> || std::is_enum_v<T>
    void put(T x) {
        if constexpr (std::is_floating_point_v<T>) return put(std::bit_cast<std::int64_t>(static_cast<double>(x)));
        else if constexpr (std::is_enum_v<T>) return put(static_cast<std::int64_t>(x));
        else {
            char room[24];
            text.append(room, std::to_chars(room, room + sizeof room, static_cast<std::int64_t>(x)).ptr);
            text += ' ';
        }
    }
    void put(const std::string& s) { put(s.size()), text += s; }
    template <class T>
    void put(const std::optional<T>& x) {
        put(x.has_value());
        if (x) put(*x);
    }
    template <class T>
    void put(const std::vector<T>& list) {
        put(list.size());
        for (const T& x : list) put(x);
    }
    void put(const Dim& d) { put(print(d)); }
    void put(const Value& v) {
        const auto& [what, op, dtype, in, index, imm, varies_outer, varies_last, varies_inner, step_last, step_inner, name, loc] = v;
        static_cast<void>(loc);  // no back end that takes this text makes code of it
        all(what, op, dtype, in, index, imm, varies_outer, varies_last, varies_inner, step_last, step_inner);
        if (named_) put(name);
        text += '\n';
    }
    void put(const Fold& f) {
        const auto& [op, dtype, init] = f;
        all(op, dtype, init);
    }
    void put(const Carry& c) {
        const auto& [dtype, init] = c;
        all(dtype, init);
    }
    void put(const Phase& p) {
        const auto& [extent, size, reverse, ordered, folds, carries, body, after, guard] = p;
        all(extent, size, reverse, ordered, folds, carries, body, after, guard);
    }
    void put(const Buffer& b) {
        const auto& [id, dtype, written, accumulated, name, elements, below] = b;
        all(dtype, written, accumulated, elements, below);
        if (named_) all(id, name);
    }
    void put(const Counted& c) {
        const auto& [size, buffer] = c;
        all(size, buffer);
    }
    void put(const Schedule& s) {
        const auto& [lanes_inner, width, chunk, group, threads, vector, run, full, adds] = s;
        all(lanes_inner, width, chunk, group, threads, vector, run, full, adds);
    }
    void put(const Nest& n) {
        const auto& [outer, stage, outer_sizes, schedule, buffers, sizes, counted, values, uniform, prologue, folds, carries, phases] = n;
        if (named_) all(stage, counted);
        all(outer, outer_sizes, schedule, buffers, sizes, values, uniform, prologue, folds, carries, phases);
        text += '\n';
    }

private:
    template <class... T>
    void all(const T&... x) { (put(x), ...); }
    const bool named_;
};

}  // namespace

std::string exact(const std::vector<Nest>& nests) {
    Writer w(true);
    w.put(nests);
    return std::move(w.text);
}
std::string code(const Nest& nest) {
    Writer w(false);
    w.put(nest);
    return std::move(w.text);
}

}  // namespace heddle::loop
