// A list of plain values that keeps short lists in itself: what a call needs for its own length, without asking for memory.
#pragma once
#include <algorithm>
#include <cstddef>
#include <initializer_list>
#include <memory>
#include <type_traits>
#include <vector>

namespace heddle {

template <class T, std::size_t N>
class Small {
    static_assert(std::is_trivially_copyable_v<T>);

public:
    Small() = default;
    explicit Small(std::size_t n, T value = {}) { resize(n, value); }
    template <class I, class = typename std::iterator_traits<I>::iterator_category>
    Small(I first, I last) {
        resize_uninitialised(static_cast<std::size_t>(last - first));
        std::copy(first, last, data());
    }
    Small(std::initializer_list<T> l) : Small(l.begin(), l.end()) {}
    Small(const std::vector<T>& v) : Small(v.begin(), v.end()) {}
    Small(const Small& o) : Small(o.begin(), o.end()) {}
    Small(Small&& o) noexcept : size_(o.size_), room_(o.room_), heap_(std::move(o.heap_)) {
        if (!heap_) std::copy_n(o.here_, size_, here_);
        o.size_ = 0, o.room_ = N;
    }
    Small& operator=(const Small& o) {
        if (this != &o) {
            resize_uninitialised(o.size_);
            std::copy_n(o.data(), size_, data());
        }
        return *this;
    }
    Small& operator=(Small&& o) noexcept {
        if (this == &o) return *this;
        heap_ = std::move(o.heap_);
        size_ = o.size_, room_ = o.room_;
        if (!heap_) std::copy_n(o.here_, size_, here_);
        o.size_ = 0, o.room_ = N;
        return *this;
    }

    std::size_t size() const { return size_; }
    bool empty() const { return size_ == 0; }
    T* data() { return heap_ ? heap_.get() : here_; }
    const T* data() const { return heap_ ? heap_.get() : here_; }
    T* begin() { return data(); }
    T* end() { return data() + size_; }
    const T* begin() const { return data(); }
    const T* end() const { return data() + size_; }
    T& operator[](std::size_t i) { return data()[i]; }
    const T& operator[](std::size_t i) const { return data()[i]; }
    T& back() { return data()[size_ - 1]; }
    const T& back() const { return data()[size_ - 1]; }
    void resize(std::size_t n, T value = {}) {
        std::size_t old = size_;
        resize_uninitialised(n);
        if (n > old) std::fill(data() + old, data() + n, value);
    }
    void push_back(T value) { resize(size_ + 1, value); }
    bool operator==(const Small& o) const { return std::equal(begin(), end(), o.begin(), o.end()); }

private:
    void resize_uninitialised(std::size_t n) {
        if (n > room_) {
            std::size_t room = std::max(n, 2 * room_);
            std::unique_ptr<T[]> more(new T[room]);
            std::copy_n(data(), size_, more.get());
            heap_ = std::move(more), room_ = room;
        }
        size_ = n;
    }
    std::size_t size_ = 0, room_ = N;
    std::unique_ptr<T[]> heap_;
    T here_[N];
};

}  // namespace heddle
