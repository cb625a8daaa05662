// Progress on stderr, so that stdout holds results alone.
#include "models/progress.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>

namespace heddle::models {
namespace {

constexpr auto kRedraw = std::chrono::milliseconds(200);  // on a terminal
constexpr auto kLine = std::chrono::seconds(5);           // in a file or a pipe
constexpr int64_t kBar = 24;                              // characters

}  // namespace

Progress::Progress(std::string what, int64_t total, bool quiet)
    : what_(std::move(what)),
      total_(total),
      quiet_(quiet),
      terminal_(::isatty(STDERR_FILENO) == 1),
      next_(Clock::now()) {
    if (!terminal_) next_ += kLine;
}

Progress::~Progress() {
    if (drawn_) std::fputs("\n", stderr);
}

bool Progress::due() const { return !quiet_ && Clock::now() >= next_; }

void Progress::show(int64_t done, const std::string& text, bool always) {
    if (quiet_ || (!always && !due())) return;
    const auto places = static_cast<int>(std::to_string(total_).size());
    if (terminal_) {
        std::string bar(static_cast<size_t>(kBar), '.');
        std::fill_n(bar.begin(), kBar * std::min(done, total_) / std::max<int64_t>(total_, 1), '#');
        std::fprintf(stderr, "\r%s [%s] %*ld/%ld  %s\033[K", what_.c_str(), bar.c_str(), places, done, total_,
                     text.c_str());
        drawn_ = true;
    } else {
        std::fprintf(stderr, "%s %*ld/%ld  %s\n", what_.c_str(), places, done, total_, text.c_str());
    }
    std::fflush(stderr);
    next_ = Clock::now();
    if (terminal_) next_ += kRedraw;
    else next_ += kLine;
}

void Progress::say(const std::string& line) {
    if (quiet_) return;
    std::fprintf(stderr, "%s%s\n", drawn_ ? "\n" : "", line.c_str());
    drawn_ = false;
}

}  // namespace heddle::models
