// PNG files, 8 bits a channel, through libpng. Law: a file that this writes is whole or absent.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace heddle::models {

// Rows from top to bottom, four bytes a pixel, colour not multiplied by alpha.
struct Image {
    int64_t width = 0, height = 0;
    std::vector<uint8_t> rgba;
};

// Throws Error when the file is missing, isn't a PNG or is damaged.
Image read_png(const std::string& path);
// Four channels: RGBA; three: without alpha; one: grey, from red.
void write_png(const std::string& path, const Image& image, int64_t channels = 4);

}  // namespace heddle::models
