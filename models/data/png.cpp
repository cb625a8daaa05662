// libpng's simplified interface: it converts every PNG kind to RGBA and reports by message instead of longjmp.
#include "models/data/png.h"

#include <png.h>

#include <filesystem>
#include <fstream>

#include "models/error.h"
#include "models/files.h"

namespace heddle::models {

Image read_png(const std::string& path) {
    if (!std::filesystem::is_regular_file(path))
        throw Error("image not found", path, "restore the file or its name in the transforms");
    unsigned char signature[8] = {};
    std::ifstream(path, std::ios::binary).read(reinterpret_cast<char*>(signature), sizeof signature);
    if (png_sig_cmp(signature, 0, sizeof signature) != 0) throw Error("not a PNG file", path, "convert it to PNG");

    png_image png{};
    png.version = PNG_IMAGE_VERSION;
    Image image;
    if (png_image_begin_read_from_file(&png, path.c_str())) {
        png.format = PNG_FORMAT_RGBA;
        image.width = png.width;
        image.height = png.height;
        image.rgba.resize(PNG_IMAGE_SIZE(png));
        if (png_image_finish_read(&png, nullptr, image.rgba.data(), 0, nullptr)) return image;
    }
    const std::string why = png.message;
    png_image_free(&png);
    throw Error("damaged PNG file", path, "replace it (" + why + ")");
}

void write_png(const std::string& path, const Image& image, int64_t channels) {
    std::vector<uint8_t> bytes;
    for (size_t pixel = 0; pixel < image.rgba.size(); pixel += 4)
        bytes.insert(bytes.end(), &image.rgba[pixel], &image.rgba[pixel] + channels);
    png_image png{};
    png.version = PNG_IMAGE_VERSION;
    png.width = static_cast<png_uint_32>(image.width);
    png.height = static_cast<png_uint_32>(image.height);
    png.format = channels == 4 ? PNG_FORMAT_RGBA : channels == 3 ? PNG_FORMAT_RGB : PNG_FORMAT_GRAY;
    replace_file(path, [&](const std::string& temporary) {
        if (!png_image_write_to_file(&png, temporary.c_str(), 0, bytes.data(), 0, nullptr))
            throw Error("cannot write image", path, png.message);
    });
}

}  // namespace heddle::models
