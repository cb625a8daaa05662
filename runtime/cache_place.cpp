// Where the disk cache of this process lies, by the environment, and what identifies a compiler's build.
// Law: the environment is read once; a cache that can't be used is told of once, and everything else goes on.
#include <elf.h>
#include <fmt/format.h>
#include <link.h>
#include <pwd.h>
#include <unistd.h>

#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "ir/type.h"
#include "runtime/disk_cache.h"

namespace heddle {

namespace {

std::string home() {
    if (const char* s = std::getenv("HOME"); s && *s) return s;
    passwd entry{}, *found = nullptr;
    char room[4096];
    return ::getpwuid_r(::geteuid(), &entry, room, sizeof room, &found) == 0 && found && found->pw_dir ? found->pw_dir : "";
}

struct Search {
    std::uintptr_t address;
    std::string found;
};
int look_into(dl_phdr_info* object, std::size_t, void* data) {
    auto& search = *static_cast<Search*>(data);
    auto begin = [&](const ElfW(Phdr)& p) { return static_cast<std::uintptr_t>(object->dlpi_addr + p.p_vaddr); };
    bool here = false;
    for (int k = 0; k < object->dlpi_phnum; ++k) {
        const ElfW(Phdr)& p = object->dlpi_phdr[k];
        here |= p.p_type == PT_LOAD && search.address >= begin(p) && search.address < begin(p) + p.p_memsz;
    }
    if (!here) return 0;
    auto padded = [](std::size_t n) { return (n + 3) / 4 * 4; };
    for (int k = 0; k < object->dlpi_phnum; ++k) {
        const ElfW(Phdr)& p = object->dlpi_phdr[k];
        if (p.p_type != PT_NOTE) continue;
        const char* notes = reinterpret_cast<const char*>(begin(p));
        for (std::size_t at = 0; at + sizeof(ElfW(Nhdr)) <= p.p_memsz;) {
            ElfW(Nhdr) note;
            std::memcpy(&note, notes + at, sizeof note);
            const std::size_t name = at + sizeof note, text = name + padded(note.n_namesz), end = text + padded(note.n_descsz);
            if (end > p.p_memsz) break;
            if (note.n_type == NT_GNU_BUILD_ID && note.n_namesz == 4 && std::memcmp(notes + name, "GNU", 4) == 0)
                for (std::size_t i = 0; i < note.n_descsz; ++i) search.found += fmt::format("{:02x}", static_cast<unsigned char>(notes[text + i]));
            at = end;
        }
    }
    return 1;
}

}  // namespace

std::string build_id(const void* address) {
    Search search{reinterpret_cast<std::uintptr_t>(address), {}};
    ::dl_iterate_phdr(look_into, &search);
    return search.found;
}

std::string cache_folder() {
    if (const char* chosen = std::getenv("HEDDLE_CACHE_DIR"); chosen && *chosen) return chosen;
    if (const char* base = std::getenv("XDG_CACHE_HOME"); base && *base == '/') return (std::filesystem::path(base) / "heddle").string();
    const std::string user = home();
    return user.empty() ? "" : (std::filesystem::path(user) / ".cache" / "heddle").string();
}

std::int64_t cache_bytes() {
    const char* chosen = std::getenv("HEDDLE_CACHE_BYTES");
    if (!chosen || !*chosen) return DiskCache::kBytes;
    const std::string_view s = chosen;
    std::int64_t n = 0;
    const auto [end, error] = std::from_chars(s.data(), s.data() + s.size(), n);
    const std::string_view unit(end, static_cast<std::size_t>(s.data() + s.size() - end));
    const std::size_t power = unit.empty() ? 0 : std::string_view("KMG").find(unit) + 1;
    if (error != std::errc{} || n < 0 || n >= std::int64_t{1} << (62 - 10 * power) || unit.size() > 1 || (!unit.empty() && power == 0))
        throw Error(fmt::format("HEDDLE_CACHE_BYTES: {}: expected a number of bytes, as 1000000, 64M or 2G", s));
    return n << (10 * power);
}

std::unique_ptr<DiskCache> open_cache() {
    if (const char* wish = std::getenv("HEDDLE_CACHE"); wish && std::strcmp(wish, "0") == 0) return nullptr;
    try {
        const std::string folder = cache_folder();
        if (folder.empty()) throw Error("no home folder; set HEDDLE_CACHE_DIR to a folder of your own, or HEDDLE_CACHE=0");
        return std::make_unique<DiskCache>(folder, cache_bytes());
    } catch (const std::exception& e) {
        std::fprintf(stderr, "heddle: no disk cache: %s\n", e.what());
        return nullptr;
    }
}
DiskCache* disk_cache() {
    static DiskCache* const cache = open_cache().release();  // never closed: threads may compile while statics are torn down
    return cache;
}

}  // namespace heddle
