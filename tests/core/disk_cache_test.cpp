// The disk cache: what is loaded is what was stored under exactly that key, whatever happens to its files; it stays within its bound
// and among the user's own files. Both compilers use it from a second process on, with the same results.
#include "runtime/disk_cache.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <random>
#include <thread>

#include "ir/type.h"

namespace heddle {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

// A folder of its own for each test, under the build folder.
struct DiskCacheTest : testing::Test {
    fs::path folder;
    DiskCacheTest() {
        const auto* info = testing::UnitTest::GetInstance()->current_test_info();
        folder = fs::path(HEDDLE_BUILD) / "cache_test" / fmt::format("{}-{}", info->name(), ::getpid());
        fs::remove_all(folder);
    }
    ~DiskCacheTest() override {
        std::error_code none;
        fs::remove_all(folder, none);
    }
    fs::path file(const CacheKey& k) const { return folder / DiskCache::file_of(k); }
};

CacheKey key(const std::string& source = "text") { return {"kernel", "compiler 1", "sm_90", "-O2\n-g", source}; }
std::string bytes(std::size_t n, unsigned seed = 1) {
    std::mt19937 rng(seed);
    std::string s(n, '\0');
    for (char& c : s) c = static_cast<char>(rng());
    return s;
}
std::string read(const fs::path& p) {
    std::ifstream in(p, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
}
void write(const fs::path& p, const std::string& s) {
    fs::remove(p);  // some file systems sync a file that is emptied first
    std::ofstream(p, std::ios::binary | std::ios::trunc) << s;
}
void used_ago(const fs::path& p, std::time_t seconds) {
    timespec times[2] = {{std::time(nullptr) - seconds, 0}, {std::time(nullptr) - seconds, 0}};
    ASSERT_EQ(::utimensat(AT_FDCWD, p.c_str(), times, AT_SYMLINK_NOFOLLOW), 0);
}
std::int64_t total(const fs::path& folder) {
    std::int64_t n = 0;
    for (const auto& e : fs::directory_iterator(folder)) n += static_cast<std::int64_t>(e.file_size());
    return n;
}
std::string refusal(const fs::path& folder) {
    try {
        DiskCache cache(folder.string());
        return "";
    } catch (const Error& e) {
        return e.what();
    }
}

TEST_F(DiskCacheTest, LoadsWhatWasStored) {
    DiskCache cache(folder.string());
    EXPECT_EQ(cache.load(key()), std::nullopt);
    for (std::size_t n : {0u, 1u, 1000u, 1u << 20}) {
        const std::string b = bytes(n);
        ASSERT_TRUE(cache.store(key(), b));
        EXPECT_EQ(cache.load(key()), b);
        EXPECT_EQ(DiskCache(folder.string()).load(key()), b);
    }
    const auto stats = cache.stats();
    EXPECT_EQ(stats.hits, 4);
    EXPECT_EQ(stats.misses, 1);
    EXPECT_EQ(stats.stored, 4);
    struct stat s {};
    ASSERT_EQ(::stat(folder.c_str(), &s), 0);
    EXPECT_EQ(s.st_mode & 0777, 0700u);
    ASSERT_EQ(::stat(file(key()).c_str(), &s), 0);
    EXPECT_EQ(s.st_mode & 0777, 0600u);
}

TEST_F(DiskCacheTest, EveryPartOfTheKeyCounts) {
    DiskCache cache(folder.string());
    std::vector<CacheKey> keys(12, key());
    keys[1].name += "2", keys[2].compiler += "2", keys[3].target += "2", keys[4].options += "2", keys[5].source += "2";
    // The same letters, cut elsewhere.
    keys[6].name = "kernelcompiler 1", keys[6].compiler = "";
    keys[7].compiler = "compiler 1sm_90", keys[7].target = "";
    keys[8].target = "sm_90-O2\n-g", keys[8].options = "";
    keys[9].options = "-O2\n-gtext", keys[9].source = "";
    keys[10].source = std::string("text\0", 5), keys[11].source = "";
    for (std::size_t k = 0; k < keys.size(); ++k) ASSERT_TRUE(cache.store(keys[k], std::to_string(k)));
    EXPECT_EQ(cache.entries().size(), keys.size());
    for (std::size_t k = 0; k < keys.size(); ++k) EXPECT_EQ(cache.load(keys[k]), std::to_string(k));
}

TEST_F(DiskCacheTest, AnotherKeysEntryUnderTheSameNameIsAMiss) {
    DiskCache cache(folder.string());
    const CacheKey other[] = {key("another text"), {"kernel2", "compiler 1", "sm_90", "-O2\n-g", "text"}, {"kernel", "compiler 2", "sm_90", "-O2\n-g", "text"},
                              {"kernel", "compiler 1", "sm_80", "-O2\n-g", "text"}, {"kernel", "compiler 1", "sm_90", "-O3\n-g", "text"}};
    ASSERT_TRUE(cache.store(key(), "right"));
    for (const CacheKey& k : other) {
        fs::copy_file(file(key()), file(k), fs::copy_options::overwrite_existing);
        EXPECT_EQ(cache.load(k), std::nullopt);
    }
    const auto all = cache.entries();
    EXPECT_EQ(std::count_if(all.begin(), all.end(), [](const auto& e) { return e.damage == "its name is the hash of another key"; }), 5);
    EXPECT_EQ(cache.collect(DiskCache::kBytes).files, 5);
    EXPECT_EQ(cache.load(key()), "right");
}

// Bytes of real entries are changed, cut, doubled, moved and mixed.
TEST_F(DiskCacheTest, ABrokenEntryIsAMissOrWhole) {
    const char *first = std::getenv("HEDDLE_SEED"), *more = std::getenv("HEDDLE_SEEDS");
    const int from = first ? std::atoi(first) : 1, count = more ? std::atoi(more) : first ? 1 : 6000;
    DiskCache cache(folder.string());
    std::vector<CacheKey> keys;
    std::vector<std::string> binaries, files;
    for (unsigned k = 0; k < 8; ++k) {
        keys.push_back(key("source " + std::string(1u << k, 'x')));
        binaries.push_back(bytes(k * k * 40, k));
        ASSERT_TRUE(cache.store(keys.back(), binaries.back()));
        files.push_back(read(file(keys.back())));
    }
    int hits = 0;
    for (int seed = from; seed < from + count; ++seed) {
        std::mt19937 rng(static_cast<unsigned>(seed));
        auto pick = [&](std::size_t n) { return n ? rng() % n : 0; };
        const std::size_t which = pick(files.size());
        std::string s = files[which];
        for (std::size_t changes = 1 + pick(4); changes > 0; --changes) {
            const std::size_t at = pick(4) ? pick(s.size() + 1) : std::min(s.size(), pick(80)), n = std::min(s.size() - at, 1 + pick(pick(2) ? 8 : 200));
            switch (pick(8)) {
                case 0: if (at < s.size()) s[at] = static_cast<char>(s[at] ^ (1 << pick(8))); break;
                case 1: for (std::size_t i = at; i < at + n; ++i) s[i] = static_cast<char>(rng()); break;
                case 2: s.resize(at); break;
                case 3: s += bytes(n, rng()); break;
                case 4: s.insert(at, s.substr(at, n)); break;
                case 5: s.erase(at, n); break;
                case 6: s.replace(at, n, files[pick(files.size())].substr(0, pick(200))); break;
                case 7: for (std::size_t i = at; i < at + n; ++i) s[i] = pick(2) ? '\0' : '\xff'; break;
            }
        }
        write(file(keys[which]), s);
        const auto got = cache.load(keys[which]);
        ASSERT_EQ(got.has_value(), s == files[which]) << "seed " << seed << ": HEDDLE_SEED=" << seed << " runs it alone";
        if (got) {
            ++hits;
            ASSERT_EQ(*got, binaries[which]) << "HEDDLE_SEED=" << seed;
        }
        if (seed % 100 == 0) {
            EXPECT_EQ(cache.entries().size(), files.size());  // reading them all breaks nothing either
            for (std::size_t k = 0; k < files.size(); ++k) write(file(keys[k]), files[k]);
        }
    }
    fmt::print("disk cache: {} broken files, {} of them whole after all\n", count, hits);
    std::fflush(stdout);  // not once more by each process that is started below
    EXPECT_LT(hits, 1 + count / 10);
    // What is broken is replaced by the next compile.
    write(file(keys[0]), "broken");
    EXPECT_TRUE(cache.store(keys[0], binaries[0]));
    EXPECT_EQ(cache.load(keys[0]), binaries[0]);
}

// ---- whose files are read
TEST_F(DiskCacheTest, AFolderThatIsNotTheUsersOwnIsRefused) {
    fs::create_directories(folder.parent_path());
    DiskCache(folder.string());
    fs::path link = folder;
    link += "-link";
    fs::remove(link);
    fs::create_directory_symlink(folder, link);
    EXPECT_THAT(refusal(link), HasSubstr(link.string() + ": a symlink; set HEDDLE_CACHE_DIR"));
    EXPECT_THAT(refusal(link / ""), HasSubstr(": a symlink"));
    EXPECT_THAT(refusal(link / "."), HasSubstr(": a symlink"));
    fs::remove(link);
    fs::permissions(folder, fs::perms(0770));
    EXPECT_THAT(refusal(folder), HasSubstr("others may write to it"));
    fs::permissions(folder, fs::perms(0702));
    EXPECT_THAT(refusal(folder), HasSubstr("others may write to it"));
    fs::permissions(folder, fs::perms(0755));
    EXPECT_EQ(refusal(folder), "");
    write(folder / "plain", "");
    EXPECT_THAT(refusal(folder / "plain"), HasSubstr("Not a directory"));
    EXPECT_THAT(refusal(folder / "plain/below"), HasSubstr("Not a directory"));
    if (::geteuid() == 0) {
        ASSERT_EQ(::chown(folder.c_str(), 12345, static_cast<gid_t>(-1)), 0);
        EXPECT_THAT(refusal(folder), HasSubstr("belongs to user 12345"));
    }
}

TEST_F(DiskCacheTest, AFileThatIsNotTheUsersOwnIsAMiss) {
    DiskCache cache(folder.string());
    auto again = [&] {
        ASSERT_TRUE(cache.store(key(), "right"));
        ASSERT_EQ(cache.load(key()), "right");
    };
    again();
    fs::rename(file(key()), folder / "elsewhere");
    fs::create_symlink("elsewhere", file(key()));
    EXPECT_EQ(cache.load(key()), std::nullopt);
    EXPECT_EQ(cache.entries().at(0).damage, "a symlink");
    again();  // the link is replaced, not followed
    EXPECT_FALSE(fs::is_symlink(file(key())));
    fs::permissions(file(key()), fs::perms(0620));
    EXPECT_EQ(cache.load(key()), std::nullopt);
    again();
    fs::permissions(file(key()), fs::perms(0602));
    EXPECT_EQ(cache.load(key()), std::nullopt);
    again();
    if (::geteuid() == 0) {
        ASSERT_EQ(::chown(file(key()).c_str(), 12345, static_cast<gid_t>(-1)), 0);
        EXPECT_EQ(cache.load(key()), std::nullopt);
        again();
    }
    fs::remove(file(key()));
    ASSERT_EQ(::mkfifo(file(key()).c_str(), 0600), 0);
    EXPECT_EQ(cache.load(key()), std::nullopt);  // doesn't wait for a writer
    again();
    fs::remove(file(key()));
    fs::create_directory(file(key()));
    EXPECT_EQ(cache.load(key()), std::nullopt);
    EXPECT_FALSE(cache.store(key(), "right"));
    EXPECT_EQ(cache.stats().misses, 5 + (::geteuid() == 0));
    fs::remove(file(key()));
    for (const auto& e : fs::directory_iterator(folder)) EXPECT_EQ(e.path().filename(), "elsewhere") << "left behind";
}

// Runs f in another process; false where that ends otherwise than by returning true.
bool in_child(const std::function<bool()>& f) {
    const pid_t child = ::fork();
    if (child == 0) try {
        ::_exit(f() ? 0 : 1);
    } catch (const std::exception& e) {
        fmt::print(stderr, "in another process: {}\n", e.what());
        ::_exit(1);
    }
    int status = 0;
    return ::waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

TEST_F(DiskCacheTest, WhereNothingCanBeWrittenLoadsGoOn) {
    ASSERT_TRUE(DiskCache(folder.string()).store(key(), "right"));
    EXPECT_TRUE(in_child([&] {
        DiskCache cache(folder.string());
        fs::permissions(folder, fs::perms(0555));
        if (::geteuid() == 0 && (::chown(file(key()).c_str(), 12345, 12345) || ::seteuid(12345))) return false;  // root may write anywhere
        return cache.load(key()) == "right" && !cache.store(key("other"), "x") && cache.load(key("other")) == std::nullopt && cache.load(key()) == "right";
    }));
    fs::permissions(folder, fs::perms(0700));
}

TEST_F(DiskCacheTest, AFullDiskLeavesNothingBehind) {
    DiskCache cache(folder.string());
    ASSERT_TRUE(cache.store(key(), "right"));
    EXPECT_TRUE(in_child([&] {
        ::signal(SIGXFSZ, SIG_IGN);
        const rlimit little{1000, 1000};  // bytes a file: as a disk that fills up midway
        return ::setrlimit(RLIMIT_FSIZE, &little) == 0 && !cache.store(key(), bytes(5000)) && cache.store(key("small"), "x");
    }));
    EXPECT_EQ(cache.load(key()), "right");
    EXPECT_EQ(std::distance(fs::directory_iterator(folder), {}), 2);
}

// ---- the bound
TEST_F(DiskCacheTest, StaysWithinItsBound) {
    constexpr std::int64_t kMost = 1 << 20;
    DiskCache cache(folder.string(), kMost);
    for (int k = 0; k < 400; ++k) {
        ASSERT_TRUE(cache.store(key("source " + std::to_string(k)), bytes(10000)));
        ASSERT_LE(total(folder), kMost + kMost / 8) << k;  // at its first look, which may be an eighth late
        if (k > 300) {
            ASSERT_LE(total(folder), kMost) << k;
        }
    }
    EXPECT_GT(total(folder), kMost / 2);
    EXPECT_EQ(cache.load(key("source 399")), bytes(10000));
    EXPECT_FALSE(cache.store(key("large"), bytes(kMost / 4)));
}

TEST_F(DiskCacheTest, ManyShortProcessesKeepTheBoundToo) {
    constexpr std::int64_t kMost = 1 << 20;
    std::int64_t most = 0;
    for (int k = 0; k < 1500; ++k) {
        DiskCache cache(folder.string(), kMost);  // each writes once
        ASSERT_TRUE(cache.store(key("source " + std::to_string(k)), bytes(5000)));
        if (k % 20 == 0) most = std::max(most, total(folder));
    }
    EXPECT_LE(most, 3 * kMost) << "over by 16 times what is expected: chance allows that once in 10^7";
    EXPECT_GT(most, kMost / 2);
}

TEST_F(DiskCacheTest, TheLeastRecentlyUsedGoFirst) {
    DiskCache cache(folder.string());
    for (int k = 0; k < 10; ++k) {
        ASSERT_TRUE(cache.store(key(std::to_string(k)), bytes(1000)));
        used_ago(file(key(std::to_string(k))), 1000 - k);
    }
    EXPECT_TRUE(cache.load(key("0")));  // used now
    const auto size = static_cast<std::int64_t>(fs::file_size(file(key("0"))));
    const auto removed = cache.collect(4 * size);
    EXPECT_EQ(removed.files, 6);
    EXPECT_EQ(removed.bytes, 6 * size);
    std::string left;
    for (int k = 0; k < 10; ++k)
        if (fs::exists(file(key(std::to_string(k))))) left += std::to_string(k);
    EXPECT_EQ(left, "0789");
    EXPECT_EQ(cache.entries().at(0).file, DiskCache::file_of(key("0")));
}

TEST_F(DiskCacheTest, CollectsWhatIsBrokenOrLeftBehindAndNothingElse) {
    DiskCache cache(folder.string());
    ASSERT_TRUE(cache.store(key(), "right"));
    ASSERT_TRUE(cache.store(key("broken"), "x"));
    write(file(key("broken")), "broken");
    write(folder / ".new-1-old", "cut"), used_ago(folder / ".new-1-old", 7200);
    write(folder / ".new-2-young", "being written");
    write(folder / "notes.txt", "the user's"), used_ago(folder / "notes.txt", 1 << 20);
    EXPECT_EQ(cache.collect(DiskCache::kBytes).files, 2);
    EXPECT_TRUE(fs::exists(folder / ".new-2-young"));
    EXPECT_EQ(cache.load(key()), "right");
    EXPECT_EQ(cache.clear().files, 2);
    EXPECT_TRUE(fs::exists(folder / "notes.txt"));
    EXPECT_EQ(cache.load(key()), std::nullopt);
}

// ---- at the same time
TEST_F(DiskCacheTest, ProcessesAndThreadsSeeWholeEntriesOnly) {
    constexpr int kKeys = 3, kRounds = 300;
    auto binary = [](int k) { return bytes(20000 + static_cast<std::size_t>(k), static_cast<unsigned>(k)); };
    auto work = [&](bool evicts) {
        DiskCache cache(folder.string(), evicts ? 300000 : DiskCache::kBytes);
        std::atomic<bool> right = true;
        std::vector<std::jthread> threads;
        for (int t = 0; t < 2; ++t)
            threads.emplace_back([&, t] {
                for (int r = 0; r < kRounds; ++r) {
                    const int k = (r + t) % kKeys;
                    if (auto got = cache.load(key(std::to_string(k))); got && *got != binary(k)) right = false;
                    cache.store(key(std::to_string(k)), binary(k));
                    if (evicts && r % 10 == 0) cache.collect(30000);
                }
            });
        threads.clear();
        return right.load();
    };
    std::vector<pid_t> children;
    for (int c = 0; c < 3; ++c) {
        const pid_t child = ::fork();
        if (child == 0) ::_exit(work(c == 0) ? 0 : 1);
        children.push_back(child);
    }
    for (pid_t child : children) {
        int status = 0;
        ASSERT_EQ(::waitpid(child, &status, 0), child);
        EXPECT_EQ(status, 0);
    }
    for (const auto& e : fs::directory_iterator(folder)) EXPECT_FALSE(e.path().filename().string().starts_with(".new-"));
    for (const auto& e : DiskCache(folder.string()).entries()) EXPECT_EQ(e.damage, "");
}

TEST_F(DiskCacheTest, TheEnvironmentSaysWhereAndHowMuch) {
    auto with = [&](const std::map<std::string, std::string>& variables, const std::function<bool()>& f) {
        return in_child([&] {
            for (const char* name : {"HEDDLE_CACHE", "HEDDLE_CACHE_DIR", "HEDDLE_CACHE_BYTES", "XDG_CACHE_HOME"}) ::unsetenv(name);
            for (const auto& [name, value] : variables) ::setenv(name.c_str(), value.c_str(), 1);
            return f();
        });
    };
    auto is = [](const std::string& path) {
        return [=] {
            const auto cache = open_cache();
            return cache_folder() == path && cache && cache->folder() == path;
        };
    };
    const std::string base = folder.string();
    EXPECT_TRUE(with({{"HEDDLE_CACHE_DIR", base + "/a"}, {"XDG_CACHE_HOME", base + "/b"}, {"HOME", base}}, is(base + "/a")));
    EXPECT_TRUE(with({{"XDG_CACHE_HOME", base + "/b"}, {"HOME", base}}, is(base + "/b/heddle")));
    EXPECT_TRUE(with({{"XDG_CACHE_HOME", "relative"}, {"HOME", base}}, is(base + "/.cache/heddle")));
    EXPECT_TRUE(with({{"HEDDLE_CACHE", "0"}, {"HEDDLE_CACHE_DIR", base + "/off"}}, [] { return open_cache() == nullptr; }));
    EXPECT_FALSE(fs::exists(folder / "off"));
    EXPECT_TRUE(with({{"HEDDLE_CACHE_DIR", base + "/c"}, {"HEDDLE_CACHE_BYTES", "64M"}}, [] { return open_cache()->most_bytes() == 64 << 20; }));
    EXPECT_TRUE(with({{"HEDDLE_CACHE_BYTES", "123456"}}, [] { return cache_bytes() == 123456; }));
    EXPECT_TRUE(with({{"HEDDLE_CACHE_BYTES", "2G"}}, [] { return cache_bytes() == std::int64_t{2} << 30; }));
    for (const char* bad : {"x", "-1", "1T", "1GB", "9223372036854775807K", "99999999999999999999", "1.5G"})
        EXPECT_TRUE(with({{"HEDDLE_CACHE_BYTES", bad}, {"HEDDLE_CACHE_DIR", base + "/d"}}, [&] {
            testing::internal::CaptureStderr();
            const bool off = open_cache() == nullptr;
            return off && testing::internal::GetCapturedStderr() == fmt::format("heddle: no disk cache: HEDDLE_CACHE_BYTES: {}: expected a number of bytes, as 1000000, 64M or 2G\n", bad);
        })) << bad;
}

}  // namespace
}  // namespace heddle
