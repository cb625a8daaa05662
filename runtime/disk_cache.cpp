// Files of the disk cache; see disk_cache.h. All go through the folder's descriptor, so that a folder that is swapped changes nothing.
#include "runtime/disk_cache.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <random>
#include <span>
#include <utility>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "ir/type.h"

namespace heddle {

namespace {

constexpr std::size_t kParts = 5;  // texts of a key
struct Header {
    char magic[8];
    std::uint64_t length[kParts + 1];  // of the key's texts and of the binary
    std::uint64_t checksum[2];         // of all that is above, and of all that follows
};
static_assert(sizeof(Header) == 72);
constexpr char kMagic[8] = {'h', 'e', 'd', 'd', 'l', 'e', 0, 1};  // the last is the version
constexpr std::string_view kTemporary = ".new-";
constexpr std::size_t kNameLength = 32;
constexpr std::int64_t kMinute = 60, kHour = 3600, kNano = 1'000'000'000;
constexpr std::int64_t kShare = 8;  // a part of the bound: so much may be written before the folder is added up, so much is freed beyond need

struct Descriptor {
    int fd = -1;
    explicit Descriptor(int fd) : fd(fd) {}
    ~Descriptor() {
        if (fd >= 0) ::close(fd);
    }
    Descriptor(const Descriptor&) = delete;
};

std::array<std::string_view, kParts> parts(const CacheKey& k) { return {k.name, k.compiler, k.target, k.options, k.source}; }

class Hash {
public:
    Hash() { XXH3_128bits_reset(&state_); }
    void add(const void* data, std::size_t bytes) { XXH3_128bits_update(&state_, data, bytes); }
    void add(std::string_view s) { add(s.data(), s.size()); }
    XXH128_hash_t digest() const { return XXH3_128bits_digest(&state_); }

private:
    XXH3_state_t state_;
};
void set_checksum(Header& h, std::string_view body) {
    Hash hash;
    hash.add(&h, offsetof(Header, checksum));
    hash.add(body);
    const XXH128_hash_t sum = hash.digest();
    h.checksum[0] = sum.low64, h.checksum[1] = sum.high64;
}

std::string file_of(std::span<const std::string_view, kParts> key) {
    Hash hash;
    for (std::string_view s : key) {
        const std::uint64_t length = s.size();
        hash.add(&length, sizeof length);
        hash.add(s);
    }
    const XXH128_hash_t sum = hash.digest();
    return fmt::format("{:016x}{:016x}", sum.high64, sum.low64);
}

bool own(const struct stat& s) { return s.st_uid == ::geteuid() && (s.st_mode & (S_IWGRP | S_IWOTH)) == 0; }
std::int64_t nanoseconds(const timespec& t) { return std::int64_t{t.tv_sec} * kNano + t.tv_nsec; }
std::int64_t now() {
    timespec t{};
    ::clock_gettime(CLOCK_REALTIME, &t);
    return nanoseconds(t);
}

bool write_all(int fd, const char* data, std::size_t bytes) {
    while (bytes > 0) {
        const ssize_t n = ::write(fd, data, bytes);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return false;
        data += n, bytes -= static_cast<std::size_t>(n);
    }
    return true;
}
bool read_all(int fd, char* data, std::size_t bytes) {
    while (bytes > 0) {
        const ssize_t n = ::read(fd, data, bytes);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return false;
        data += n, bytes -= static_cast<std::size_t>(n);
    }
    return true;
}

// One file, read and checked. `damage` says why nothing of it may be used.
struct Content {
    std::string damage, body;
    std::array<std::string_view, kParts + 1> part;  // of the body
    struct stat facts {};
    bool missing = false;
};
void check(Content& c, int fd, std::int64_t most) {
    auto damaged = [&](const char* why) { c.damage = why; };
    if (::fstat(fd, &c.facts) != 0 || !S_ISREG(c.facts.st_mode)) return damaged("no plain file");
    if (!own(c.facts)) return damaged("another user owns it or may write to it");
    Header h;
    const auto size = static_cast<std::uint64_t>(c.facts.st_size);
    if (size < sizeof h || c.facts.st_size > most) return damaged("of a size that no entry has");
    c.body.resize(size - sizeof h);
    if (!read_all(fd, reinterpret_cast<char*>(&h), sizeof h) || !read_all(fd, c.body.data(), c.body.size())) return damaged("it can't be read");
    if (std::memcmp(h.magic, kMagic, sizeof kMagic) != 0) return damaged("of another version, or no entry");
    std::uint64_t left = c.body.size();
    for (std::size_t k = 0; k < c.part.size(); ++k) {
        if (h.length[k] > left) return damaged("cut");
        c.part[k] = std::string_view(c.body).substr(c.body.size() - left, h.length[k]);
        left -= h.length[k];
    }
    if (left != 0) return damaged("longer than it says");
    Header expected = h;
    set_checksum(expected, c.body);
    if (std::memcmp(&expected, &h, sizeof h) != 0) return damaged("its checksum differs");
}
void read(Content& c, int dir, const std::string& name, std::int64_t most, Descriptor* keep = nullptr) {
    Descriptor file(::openat(dir, name.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK));  // never waits for a pipe's writer
    if (file.fd < 0) {
        c.missing = errno == ENOENT;
        c.damage = errno == ELOOP ? "a symlink" : std::strerror(errno);
        return;
    }
    check(c, file.fd, most);
    if (keep) keep->fd = std::exchange(file.fd, -1);
}

bool is_entry(std::string_view name) {
    return name.size() == kNameLength && name.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}
std::uint64_t random_bits() {
    std::random_device device;
    return (std::uint64_t{device()} << 32) | device();
}

}  // namespace

std::string DiskCache::file_of(const CacheKey& key) { return heddle::file_of(parts(key)); }

DiskCache::DiskCache(const std::string& folder, std::int64_t most_bytes) : most_(most_bytes) {
    std::filesystem::path path = std::filesystem::absolute(folder).lexically_normal();
    if (!path.has_filename()) path = path.parent_path();  // of "a/": a slash at the end would follow a symlink
    folder_ = path.string();
    auto fail = [&](const std::string& why) {
        throw Error(fmt::format("{}: {}; set HEDDLE_CACHE_DIR to a folder of your own, or HEDDLE_CACHE=0", folder_, why));
    };
    std::filesystem::path upper;
    int made = 0;
    for (const auto& part : path) {
        upper /= part;
        made = ::mkdir(upper.c_str(), 0700) == 0 || errno == EEXIST ? 0 : errno;
    }
    dir_ = ::open(folder_.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (dir_ < 0) {
        struct stat s {};
        const int why = made ? made : errno;
        fail(::lstat(folder_.c_str(), &s) == 0 && S_ISLNK(s.st_mode) ? "a symlink" : std::strerror(why));
    }
    struct stat s {};
    const bool known = ::fstat(dir_, &s) == 0;
    if (!known || !own(s)) {
        ::close(dir_);
        fail(!known || s.st_uid == ::geteuid() ? "others may write to it" : fmt::format("belongs to user {}", s.st_uid));
    }
    // Processes that write little each would never look at the whole: each starts somewhere on the way to its first look.
    unseen_ = static_cast<std::int64_t>(random_bits() % static_cast<std::uint64_t>(std::max<std::int64_t>(1, most_ / kShare)));
}
DiskCache::~DiskCache() { ::close(dir_); }

std::optional<std::string> DiskCache::load(const CacheKey& key) {
    Descriptor file(-1);
    Content c;
    read(c, dir_, file_of(key), most_, &file);
    const auto want = parts(key);
    if (!c.damage.empty() || !std::equal(want.begin(), want.end(), c.part.begin())) {
        ++misses_;
        return std::nullopt;
    }
    ++hits_;
    if (now() - nanoseconds(c.facts.st_mtim) > kMinute * kNano) {  // for what is evicted first
        const timespec times[2] = {{0, UTIME_OMIT}, {0, UTIME_NOW}};
        ::futimens(file.fd, times);
    }
    return std::string(c.part[kParts]);
}

bool DiskCache::store(const CacheKey& key, std::string_view binary) {
    Header h{};
    std::memcpy(h.magic, kMagic, sizeof kMagic);
    std::string all(sizeof h, '\0'), temporary;
    std::size_t k = 0;
    for (std::string_view s : parts(key)) h.length[k++] = s.size(), all += s;
    h.length[k] = binary.size();
    all += binary;
    if (static_cast<std::int64_t>(all.size()) > most_ / 4) return false;
    set_checksum(h, std::string_view(all).substr(sizeof h));
    std::memcpy(all.data(), &h, sizeof h);

    temporary = fmt::format("{}{}-{:016x}", kTemporary, ::getpid(), random_bits());
    bool done = false;
    {
        const Descriptor file(::openat(dir_, temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
        if (file.fd < 0) return false;
        done = write_all(file.fd, all.data(), all.size());
    }
    done = done && ::renameat(dir_, temporary.c_str(), dir_, file_of(key).c_str()) == 0;
    if (!done) {
        ::unlinkat(dir_, temporary.c_str(), 0);
        return false;
    }
    ++stored_;
    bound(static_cast<std::int64_t>(all.size()));
    return true;
}

std::vector<DiskCache::File> DiskCache::files(Which which) const {
    std::vector<File> found;
    const int fd = ::openat(dir_, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);  // a position of its own in the list
    DIR* list = fd < 0 ? nullptr : ::fdopendir(fd);
    if (!list) {
        if (fd >= 0) ::close(fd);
        return found;
    }
    while (const dirent* e = ::readdir(list)) {
        const std::string_view name = e->d_name;
        struct stat s {};
        if (which == Which::entries ? !is_entry(name) : !name.starts_with(kTemporary)) continue;
        if (::fstatat(dir_, e->d_name, &s, AT_SYMLINK_NOFOLLOW) == 0 && !S_ISDIR(s.st_mode))
            found.push_back({std::string(name), s.st_size, nanoseconds(s.st_mtim)});
    }
    ::closedir(list);
    return found;
}
bool DiskCache::remove(const File& f, Removed& removed) const {
    if (::unlinkat(dir_, f.name.c_str(), 0) != 0) return errno == ENOENT;  // another process was first
    ++removed.files, removed.bytes += f.bytes;
    return true;
}

// Keeps the bound: the folder is added up once an eighth of the bound has been written since it was last.
void DiskCache::bound(std::int64_t written) {
    const std::int64_t limit = most_ / kShare;
    std::int64_t seen = unseen_.fetch_add(written) + written;
    if (seen < limit || !unseen_.compare_exchange_strong(seen, 0)) return;  // another thread does
    Removed removed;
    evict(most_ - limit, removed);
}
void DiskCache::evict(std::int64_t down_to, Removed& removed) const {
    for (const File& f : files(Which::temporary))
        if (now() - f.used > kHour * kNano) remove(f, removed);
    auto all = files(Which::entries);
    std::int64_t total = 0;
    for (const File& f : all) total += f.bytes;
    if (total <= down_to) return;
    std::sort(all.begin(), all.end(), [](const File& a, const File& b) { return a.used < b.used; });
    for (const File& f : all) {
        if (total <= down_to) break;
        if (remove(f, removed)) total -= f.bytes;
    }
}

std::vector<DiskCache::Entry> DiskCache::entries() const {
    auto all = files(Which::entries);
    std::sort(all.begin(), all.end(), [](const File& a, const File& b) { return a.used > b.used; });
    std::vector<Entry> found;
    for (const File& f : all) {
        Content c;
        read(c, dir_, f.name, most_);
        if (c.missing) continue;
        if (c.damage.empty() && heddle::file_of(std::span(c.part).first<kParts>()) != f.name) c.damage = "its name is the hash of another key";
        Entry& e = found.emplace_back(Entry{f.name, f.bytes, f.used / kNano, c.damage, {}, {}, {}});
        if (c.damage.empty()) e.name = c.part[0], e.compiler = c.part[1], e.target = c.part[2];
    }
    return found;
}
DiskCache::Removed DiskCache::collect(std::int64_t most_bytes) {
    Removed removed;
    for (const Entry& e : entries())
        if (!e.damage.empty()) remove({e.file, e.bytes}, removed);
    evict(most_bytes, removed);
    return removed;
}
DiskCache::Removed DiskCache::clear() {
    Removed removed;
    for (Which which : {Which::entries, Which::temporary})
        for (const File& f : files(which)) remove(f, removed);
    return removed;
}

}  // namespace heddle
