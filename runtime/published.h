// A value that threads read while another replaces it. Law: who has loaded it keeps what it loaded.
// Not std::atomic<std::shared_ptr>: libstdc++ 12 ends a load with a relaxed store, so that the next store races with it (ThreadSanitizer
// says so; on ARM it can happen). A lock that nobody waits for costs the same 20 ns.
#pragma once
#include <memory>
#include <mutex>
#include <utility>

namespace heddle {

template <class T>
class Published {
public:
    explicit Published(std::shared_ptr<const T> value = nullptr) : value_(std::move(value)) {}
    std::shared_ptr<const T> load() const {
        std::lock_guard lock(mutex_);
        return value_;
    }
    void store(std::shared_ptr<const T> value) {
        std::lock_guard lock(mutex_);
        value_.swap(value);  // what was there ends after the lock does
    }

private:
    mutable std::mutex mutex_;
    std::shared_ptr<const T> value_;
};

}  // namespace heddle
