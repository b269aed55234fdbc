// How a training image is cropped, flipped and normalised, for host and device. No torch.
#pragma once

#include "philox.h"

namespace advkernels {

constexpr int kPixelValues = 256;

// A pixel value in model units; each division is one IEEE division.
AK_FUNCTION float normalize(float pixel, float mean, float std) { return (pixel / 255.0f - mean) / std; }

// Where the pixels of an augmented image come from; outside of the image they are black.
struct Crop {
    int64_t top, left;  // the source of the first row and column
    bool flip;

    AK_FUNCTION int64_t row(int64_t y) const { return y + top; }
    AK_FUNCTION int64_t column(int64_t x, int64_t width) const { return (flip ? width - 1 - x : x) + left; }
};

// Uniform in [-padding, padding], from the upper 24 of 32 random bits.
AK_FUNCTION int64_t random_shift(uint32_t bits, int32_t padding) {
    const uint64_t count = 2 * static_cast<uint64_t>(padding) + 1;
    return static_cast<int64_t>((bits >> 8) * count >> 24) - padding;
}

AK_FUNCTION Crop random_crop(int64_t sample, uint64_t seed, uint64_t draw, int32_t padding, bool flip) {
    const Philox4 words = philox_group(static_cast<uint64_t>(sample), seed, draw);
    return {random_shift(words.w0, padding), random_shift(words.w1, padding), flip && words.w2 >> 31 != 0};
}

}  // namespace advkernels
