// How a long loop reports: a bar that redraws itself on a terminal, a line every few seconds anywhere else.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace heddle::models {

class Progress {
public:
    // Writes to stderr; nothing at all when `quiet`.
    Progress(std::string what, int64_t total, bool quiet = false);
    ~Progress();
    Progress(const Progress&) = delete;
    Progress& operator=(const Progress&) = delete;

    // True when the next `show` would write: lets the caller skip making the text.
    bool due() const;
    void show(int64_t done, const std::string& text, bool always = false);
    void say(const std::string& line);  // a line of its own

private:
    using Clock = std::chrono::steady_clock;
    std::string what_;
    int64_t total_;
    bool quiet_, terminal_, drawn_ = false;
    Clock::time_point next_;
};

}  // namespace heddle::models
