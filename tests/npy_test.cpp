// NumPy's files: NumPy reads what heddle writes and the other way round; what is damaged is refused.
#include <gtest/gtest.h>
#include <torch/types.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <functional>

#include "models/data/npy.h"
#include "models/data/video_scene.h"
#include "tests/data_files.h"

namespace heddle::models {
namespace {

namespace fs = std::filesystem;

struct Npy : testing::Test {
    fs::path root = fs::temp_directory_path() / ("heddle_npy_test_" + std::to_string(::getpid()));
    void SetUp() override { fs::create_directories(root); }
    void TearDown() override { fs::remove_all(root); }

    std::string failure(const std::function<void()>& f) const { return error_text(root, f); }
};

// What Python prints; NumPy stands as np, the test's directory is the current one.
std::string python(const fs::path& directory, const std::string& script) {
    std::ofstream(directory / "script.py") << "import numpy as np\n" << script;
    const std::string command = "cd '" + directory.string() + "' && '" HEDDLE_ROOT "/.venv/bin/python' script.py 2>&1";
    FILE* pipe = ::popen(command.c_str(), "r");
    std::string out;
    for (int c; (c = std::fgetc(pipe)) != EOF;) out += static_cast<char>(c);
    ::pclose(pipe);
    return out;
}

TEST_F(Npy, NumPyReadsWhatIsWritten) {
    for (const auto type : {at::kBool, at::kByte, at::kInt, at::kLong, at::kFloat, at::kDouble})
        for (const std::vector<int64_t>& shape :
             std::vector<std::vector<int64_t>>{{}, {0}, {5}, {2, 3}, {2, 1, 3, 4}}) {
            const auto array = at::arange(c10::multiply_integers(shape)).view(shape).to(type);
            write_npy((root / "a.npy").string(), array);
            EXPECT_TRUE(read_npy((root / "a.npy").string()).equal(array));
        }
    write_npy((root / "a.npy").string(), at::arange(6, at::kInt).view({2, 3}).t());
    write_npz((root / "a.npz").string(),
              {{"b", at::arange(2) == 0}, {"x", at::full({}, 0.5)}, {"n", at::zeros({0, 2}, at::kByte)}});
    EXPECT_EQ(python(root,
                     "a, z = np.load('a.npy'), np.load('a.npz')\n"
                     "print(a.tolist(), a.dtype, sorted(z), z['b'], z['x'], z['n'].shape, z['n'].dtype)\n"),
              "[[0, 3], [1, 4], [2, 5]] int32 ['b', 'n', 'x'] [ True False] 0.5 (0, 2) uint8\n");
}

TEST_F(Npy, WhatNumPyWritesIsRead) {
    EXPECT_EQ(
        python(root,
               "x = np.arange(24.).reshape(2, 3, 4)\n"
               "np.save('c.npy', x); np.save('f.npy', np.asfortranarray(x)); np.save('s.npy', np.float32(7)); "
               "np.save('e.npy', np.zeros((0, 3), bool))\n"
               "np.lib.format.write_array(open('v2.npy', 'wb'), x, version=(2, 0))\n"
               "np.savez('a.npz', x=x, m=x[0] > 3); np.savez_compressed('b.npz', x=x, m=x[0] > 3)\n"
               "np.save('big.npy', x.astype('>f8')); np.save('half.npy', np.float16(x))\n"
               "np.save('struct.npy', np.zeros(2, [('a', 'f4')])); open('text.npy', 'w').write('not an array')\n"),
        "");
    const auto x = at::arange(24, at::kDouble).view({2, 3, 4});
    for (const char* name : {"c.npy", "f.npy", "v2.npy"}) {
        const auto read = read_npy((root / name).string());
        EXPECT_TRUE(read.equal(x) && read.is_contiguous()) << name;
    }
    EXPECT_TRUE(read_npy((root / "s.npy").string()).equal(at::full({}, 7.0f)));
    EXPECT_EQ(read_npy((root / "e.npy").string()).sizes(), at::IntArrayRef({0, 3}));
    for (const char* name : {"a.npz", "b.npz"}) {
        const auto arrays = read_npz((root / name).string());
        EXPECT_EQ(arrays.size(), 2u);
        EXPECT_TRUE(arrays.at("x").equal(x) && arrays.at("m").equal(x[0] > 3)) << name;
    }
    const auto read_failure = [&](const std::string& name) {
        return failure([&] { read_npy((root / name).string()); });
    };
    const std::string types = "save it as bool, uint8, int32, int64, float32 or float64";
    EXPECT_EQ(read_failure("big.npy"), "array of type \">f8\": DIR/big.npy: " + types);
    EXPECT_EQ(read_failure("half.npy"), "array of type \"<f2\": DIR/half.npy: " + types);
    EXPECT_EQ(read_failure("struct.npy"), "array of type [[\"a\",\"<f4\"]]: DIR/struct.npy: " + types);
    EXPECT_EQ(read_failure("text.npy"), "not a .npy array: DIR/text.npy: save it with numpy.save");
    EXPECT_EQ(read_failure("no.npy"), "file not found: DIR/no.npy: restore the file");
    fs::resize_file(root / "c.npy", fs::file_size(root / "c.npy") - 8);
    EXPECT_EQ(read_failure("c.npy"), "array of 192 bytes holds 184: DIR/c.npy: restore the file");
}

TEST_F(Npy, VideosAreStoredAsDynIBaRsScriptsStoreThem) {
    write_bouncing_balls_video((root / "video").string(),
                               {.frames = 7, .width = 20, .height = 12, .held_out = 2, .grid = 1});
    EXPECT_EQ(python(root,
                     "f = np.load('video/dense/flow_i3/00003_bwd.npz')\n"
                     "print(sorted(f), f['flow'].dtype, f['flow'].shape, f['mask'].dtype, f['mask'].shape)\n"
                     "for n in ['dense/poses_bounds_cvd', 'dense/source_vv_poses', 'dense/disp/00006', "
                     "'held_out/poses', 'held_out/frames']:\n"
                     "    x = np.load(f'video/{n}.npy'); print(n, x.dtype, x.shape, np.isfinite(x).all())\n"
                     "for n in ['images_20x12/00006', 'images/00006', 'source_virtual_views_20x12/00006/07', "
                     "'dynamic_masks/6', 'static_masks/6']:\n"
                     "    x = open(f'video/dense/{n}.png', 'rb').read(); print(n, ['grey', '', 'RGB', '', '', '', "
                     "'RGBA'][x[25]])\n"),
              "['flow', 'mask'] float32 (12, 20, 2) bool (12, 20)\n"
              "dense/poses_bounds_cvd float64 (7, 17) True\ndense/source_vv_poses float32 (8, 3, 4, 7) "
              "True\ndense/disp/00006 float32 (12, 20) True\n"
              "held_out/poses float64 (2, 15) True\nheld_out/frames int64 (2,) True\n"
              "images_20x12/00006 RGB\nimages/00006 RGB\nsource_virtual_views_20x12/00006/07 RGB\ndynamic_masks/6 "
              "grey\nstatic_masks/6 grey\n");
}

// Cut anywhere, or with any byte of its header or of a zip member changed, a file is refused or read as some array:
// nothing else happens.
TEST_F(Npy, DamagedArraysAreRefused) {
    const auto array = at::arange(6, at::kFloat).view({2, 3});
    const auto npy = (root / "a.npy").string(), npz = (root / "a.npz").string();
    write_npy(npy, array);
    write_npz(npz, {{"x", array}});
    const std::string whole = bytes_of(npy), zip = bytes_of(npz);
    const auto put = [](const std::string& path, const std::string& bytes) {
        std::ofstream(path, std::ios::binary) << bytes;
    };
    for (size_t size = 0; size < whole.size(); ++size) {
        put(npy, whole.substr(0, size));
        EXPECT_THROW(read_npy(npy), Error) << size;
    }
    for (size_t size = 0; size + 4 < zip.size(); ++size) {  // the last four bytes tell that there's no comment
        put(npz, zip.substr(0, size));
        EXPECT_THROW(read_npz(npz), Error) << size;
    }
    int64_t refused = 0;
    for (size_t i = 0; i < whole.size() - 24; ++i)
        for (const char c : {'\0', ' ', '9', '-', '[', '}', '\xff'}) {
            std::string changed = whole;
            changed[i] = c;
            put(npy, changed);
            try {
                read_npy(npy);
            } catch (const Error&) {
                ++refused;
            }
        }
    EXPECT_GT(refused, 300);
    // 2^62 x 4 floats are 0 bytes, modulo 2^64.
    write_npy(npy, at::zeros({0}));
    std::string huge = bytes_of(npy);
    const std::string shape = "(4611686018427387904, 4), }";
    put(npy, huge.replace(huge.find("(0,), }"), shape.size(), shape));
    EXPECT_EQ(failure([&] { read_npy(npy); }), "damaged .npy header: DIR/a.npy: restore the file");

    std::string changed = zip;
    changed[zip.find(whole.substr(whole.size() - 24))] ^= 1;
    put(npz, changed);
    EXPECT_EQ(failure([&] { read_npz(npz); }), "damaged .npz file: DIR/a.npz: restore the file");
}

}  // namespace
}  // namespace heddle::models
