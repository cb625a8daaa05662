// heddle cache ls|verify|gc|clear: what the disk cache holds, whether it is sound, and making it smaller.
// Law: only entries are taken away; whatever else lies in the folder stays.
#include <fmt/format.h>

#include <cstdio>
#include <ctime>
#include <filesystem>

#include "models/error.h"
#include "runtime/disk_cache.h"
#include "tools/cli.h"

namespace heddle {
namespace {

std::string size(std::int64_t bytes) {
    double n = static_cast<double>(bytes);
    const char* unit = "B";
    for (const char* larger : {"KiB", "MiB", "GiB"}) {
        if (n < 1024) break;
        n /= 1024, unit = larger;
    }
    return fmt::format("{:.{}f} {}", n, *unit == 'B' || n >= 100 ? 0 : 1, unit);
}
std::string ago(std::int64_t used) {
    const std::int64_t s = std::max<std::int64_t>(0, std::time(nullptr) - used);
    if (s < 3600) return fmt::format("{} min ago", s / 60);
    return s < 48 * 3600 ? fmt::format("{} h ago", s / 3600) : fmt::format("{} days ago", s / 86400);
}
// Without what identifies a build and without the list of a processor's features.
std::string brief(const std::string& text, std::size_t words) {
    std::string out;
    for (std::size_t at = 0; at < text.size() && words > 0; --words) {
        const auto end = std::min(text.find(' ', at), text.size());
        const std::string word = text.substr(at, end - at);
        if (word.find(',') == std::string::npos) out += (out.empty() ? "" : " ") + word;
        at = end + 1;
    }
    return out;
}
// The cache also where HEDDLE_CACHE turns it off: to be looked at.
std::unique_ptr<DiskCache> open() {
    const std::string folder = cache_folder();
    if (folder.empty()) throw models::Error("heddle cache", "no home folder", "set HEDDLE_CACHE_DIR");
    return std::make_unique<DiskCache>(folder, cache_bytes());
}
void total(const DiskCache& cache, const std::vector<DiskCache::Entry>& all) {
    std::int64_t bytes = 0;
    for (const auto& e : all) bytes += e.bytes;
    std::printf("%zu entries, %s of at most %s in %s\n", all.size(), size(bytes).c_str(), size(cache.most_bytes()).c_str(), cache.folder().c_str());
}

void list() {
    const auto cache = open();
    const auto all = cache->entries();
    if (!all.empty()) std::printf("%10s  %-12s  %-12s  %-36s  %s\n", "size", "last used", "compiler", "target", "kernel");
    for (const auto& e : all)
        std::printf("%10s  %-12s  %-12s  %-36s  %s\n", size(e.bytes).c_str(), ago(e.used).c_str(), e.damage.empty() ? brief(e.compiler, 2).c_str() : "?",
                    e.damage.empty() ? brief(e.target, 3).c_str() : "?", e.damage.empty() ? e.name.c_str() : ("damaged: " + e.damage).c_str());
    total(*cache, all);
}
void verify() {
    const auto cache = open();
    const auto all = cache->entries();
    int damaged = 0;
    for (const auto& e : all)
        if (!e.damage.empty()) ++damaged, std::printf("%s: %s\n", e.file.c_str(), e.damage.c_str());
    total(*cache, all);
    if (damaged) throw models::Error("heddle cache", fmt::format("{} damaged {}, never used", damaged, damaged == 1 ? "entry" : "entries"), "heddle cache gc takes them away");
    std::printf("all sound\n");
}
void tell(const DiskCache& cache, const DiskCache::Removed& r) {
    std::printf("%lld files, %s taken away\n", static_cast<long long>(r.files), size(r.bytes).c_str());
    total(cache, cache.entries());
}

}  // namespace

void add_cache(CLI::App& app) {
    auto* sub = app.add_subcommand("cache", "List, check or empty the disk cache of compiled kernels");
    sub->require_subcommand(1);
    sub->add_subcommand("ls", "List the entries, the last used first")->callback(list);
    sub->add_subcommand("verify", "Read and check every entry; fails if one is damaged")->callback(verify);
    auto* gc = sub->add_subcommand("gc", "Take away what is damaged, and the least recently used entries over the bound");
    auto most = std::make_shared<std::int64_t>(-1);
    gc->add_option("--bytes", *most, "The bound: HEDDLE_CACHE_BYTES or 1 GiB unless given")->transform(CLI::AsSizeValue(false))->check(CLI::NonNegativeNumber);
    gc->callback([most] {
        const auto cache = open();
        tell(*cache, cache->collect(*most < 0 ? cache->most_bytes() : *most));
    });
    sub->add_subcommand("clear", "Take away every entry")->callback([] {
        const auto cache = open();
        tell(*cache, cache->clear());
    });
}

}  // namespace heddle
