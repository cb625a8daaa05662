// What compilers wrote, kept in files: (text, options, target, compiler) to binary. No torch, no LLVM.
// Law: a hit is what was stored for exactly this key, whatever happened to the file; anything else is a miss, and failing to write is
// no error. Only the user's own folder and files are read, through no symlink. Processes and threads share a folder freely.
//
// An entry is one file, named by the hash of its key: magic and version, the lengths of what follows, the checksum of all, the key's
// texts, the binary. It appears whole, by rename. Not synced: what a power cut tears, the checksum finds.
#pragma once
#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace heddle {

struct CacheKey {                     // everything that decides what the compiler writes
    std::string name;                 // of the kernel
    std::string compiler;             // version and build
    std::string target;               // "sm_90", or a processor and its features
    std::string options;
    std::string source;               // the whole text
};

class DiskCache {
public:
    static constexpr std::int64_t kBytes = std::int64_t{1} << 30;

    // Makes the folder (mode 0700) where it is missing. Throws Error where it can't, or the folder isn't the user's own.
    explicit DiskCache(const std::string& folder, std::int64_t most_bytes = kBytes);
    ~DiskCache();
    DiskCache(const DiskCache&) = delete;

    std::optional<std::string> load(const CacheKey&);          // the binary
    bool store(const CacheKey&, std::string_view binary);      // false: it couldn't be written, or is over a quarter of the bound

    struct Entry {
        std::string file;
        std::int64_t bytes = 0, used = 0;                      // of the whole file; when it was last used, in seconds since 1970, to the minute
        std::string damage;                                    // why it's never a hit; what follows is empty then
        std::string name, compiler, target;                    // of its key
    };
    std::vector<Entry> entries() const;                        // each read and checked, the last used first
    struct Removed {
        std::int64_t files = 0, bytes = 0;
    };
    // Takes away what is damaged, what writers left behind, and the least recently used entries down to most_bytes.
    Removed collect(std::int64_t most_bytes);
    Removed clear();                                           // takes away every entry

    struct Stats {                                             // of this process
        std::int64_t hits = 0, misses = 0, stored = 0;
    };
    Stats stats() const { return {hits_, misses_, stored_}; }
    const std::string& folder() const { return folder_; }
    std::int64_t most_bytes() const { return most_; }
    static std::string file_of(const CacheKey&);

private:
    struct File {
        std::string name;
        std::int64_t bytes = 0, used = 0;                      // used in nanoseconds
    };
    enum class Which { entries, temporary };
    std::vector<File> files(Which) const;
    bool remove(const File&, Removed&) const;
    void bound(std::int64_t written);
    void evict(std::int64_t down_to, Removed&) const;

    std::string folder_;
    std::int64_t most_;
    int dir_ = -1;
    std::atomic<std::int64_t> unseen_, hits_ = 0, misses_ = 0, stored_ = 0;  // unseen: bytes written since the folder was last added up
};

// $HEDDLE_CACHE_DIR, else heddle/ in $XDG_CACHE_HOME, else in ~/.cache. Empty where there is no home.
std::string cache_folder();
std::int64_t cache_bytes();                                    // $HEDDLE_CACHE_BYTES (64M, 2G), else 1 GiB. Throws Error
// As the environment has it. nullptr where HEDDLE_CACHE is 0, or it can't be used: that is said, on stderr.
std::unique_ptr<DiskCache> open_cache();
DiskCache* disk_cache();                                       // that of this process, opened once

// The build id that the linker wrote into the library or program that holds this address, in hex; empty if it has none.
std::string build_id(const void* address);

}  // namespace heddle
