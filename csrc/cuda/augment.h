// augment_, one thread's share of a launch, for host and device. No torch.
#pragma once

#include "../augment.h"
#include "../bounds.h"
#include "draw.h"
#include "layout.h"

namespace advkernels::cuda {

constexpr int kScaleChannels = 4;  // channels whose mean and std fit into the kernel's arguments
constexpr int kDenseChannels = 3;  // of the kernel that has them unrolled

// Mean and std of the channels: by value, or on the device.
struct Scales {
    struct Table {
        const float* data;
        int64_t stride;
    };
    union {
        float values[2][kScaleChannels];
        Table tables[2];
    };
    bool by_value;

    AK_FUNCTION float at(int which, int64_t channel) const {
        return by_value ? values[which][channel] : tables[which].data[channel * tables[which].stride];
    }
    AK_FUNCTION float mean(int64_t channel) const { return at(0, channel); }
    AK_FUNCTION float std(int64_t channel) const { return at(1, channel); }
};

// One launch over the output's pixels, numbered in N, H, W order.
struct Augment {
    const char* images;
    char* out;
    DrawState state;  // its sample index says which images
    Divisor height, width;
    int64_t pixels;
    int32_t padding;
    DType type;  // of out
    bool random, flip;
    Scales scales;
};

// The launch where layouts are arbitrary; strides of N, C, H, W.
struct AugmentStrided {
    Augment augment;
    int64_t channels;
    int64_t image_strides[4], out_strides[4];
};

// An output pixel and where it comes from.
struct Pixel {
    int64_t sample, y, x;
    int64_t image, row, column;
    bool inside;
};

AK_FUNCTION Pixel find_pixel(const Augment& a, PhiloxKey key, int64_t i) {
    const int64_t line = a.width.divide(i), sample = a.height.divide(line);
    const int64_t y = line - sample * a.height.value, x = i - line * a.width.value;
    const int64_t image = a.state.sample_number(sample);
    const Crop crop = a.random ? random_crop(image, key.seed, key.draw, a.padding, a.flip) : Crop{0, 0, false};
    const int64_t row = crop.row(y), column = crop.column(x, a.width.value);
    const bool inside = row >= 0 && row < a.height.value && column >= 0 && column < a.width.value;
    return {sample, y, x, image, row, column, inside};
}

AK_FUNCTION PhiloxKey read_key(const Augment& a) { return a.random ? a.state.read_key() : PhiloxKey{0, 0}; }

AK_FUNCTION float read_pixel(const char* address) { return static_cast<float>(read<uint8_t>(address)); }

// What thread `thread` of all the grid's `threads` does. Images are contiguous and out is channels last, of 3 channels.
AK_FUNCTION void augment_thread(const Augment& a, PhiloxKey key, int64_t thread, int64_t threads) {
    const int64_t plane = a.height.value * a.width.value;
    for (int64_t i = thread; i < a.pixels; i += threads) {
        const Pixel p = find_pixel(a, key, i);
        const char* source = a.images + (p.image * kDenseChannels * plane + p.row * a.width.value + p.column);
        float values[kDenseChannels];
        for (int c = 0; c < kDenseChannels; ++c) {
            values[c] = p.inside ? read_pixel(source + c * plane) : 0.0f;
        }
        for (int c = 0; c < kDenseChannels; ++c) {
            const float value = normalize(values[c], a.scales.mean(c), a.scales.std(c));
            write_element(a.out, a.type, i * kDenseChannels + c, value);
        }
    }
}

AK_FUNCTION void augment_strided_thread(const AugmentStrided& s, PhiloxKey key, int64_t thread, int64_t threads) {
    const Augment& a = s.augment;
    for (int64_t i = thread; i < a.pixels; i += threads) {
        const Pixel p = find_pixel(a, key, i);
        const char* source =
            a.images + (p.image * s.image_strides[0] + p.row * s.image_strides[2] + p.column * s.image_strides[3]);
        const int64_t target = p.sample * s.out_strides[0] + p.y * s.out_strides[2] + p.x * s.out_strides[3];
#if defined(__CUDACC__)
#pragma unroll 1
#endif
        for (int64_t c = 0; c < s.channels; ++c) {
            const float pixel = p.inside ? read_pixel(source + c * s.image_strides[1]) : 0.0f;
            const float value = normalize(pixel, a.scales.mean(c), a.scales.std(c));
            write_element(a.out, a.type, target + c * s.out_strides[1], value);
        }
    }
}

// Rows of 1 or `channels` floats, channels being at most kScaleChannels.
inline Scales scales_by_value(const float* data, int64_t width, int64_t channels) {
    Scales scales{};
    for (int which = 0; which < 2; ++which) {
        for (int64_t c = 0; c < channels; ++c) {
            scales.values[which][c] = data[which * width + (width > 1 ? c : 0)];
        }
    }
    scales.by_value = true;
    return scales;
}

inline Scales scales_on_device(const BoundTable& mean, const BoundTable& std) {
    Scales scales{};
    scales.tables[0] = {mean.data, mean.channel_stride};
    scales.tables[1] = {std.data, std.channel_stride};
    return scales;
}

// The type of the images' view is not looked at.
inline AugmentStrided plan_augment(const View& out, const View& images, const Scales& scales, const DrawState& state,
                                   int64_t padding, bool flip) {
    AugmentStrided s{};
    s.augment.images = images.data;
    s.augment.out = out.data;
    s.augment.state = state;
    s.augment.height = make_divisor(images.sizes[2]);
    s.augment.width = make_divisor(images.sizes[3]);
    s.augment.pixels = out.channels() > 0 ? out.samples() * out.spatial_size() : 0;
    s.augment.padding = static_cast<int32_t>(padding);
    s.augment.type = out.type;
    s.augment.random = padding > 0 || flip;
    s.augment.flip = flip;
    s.augment.scales = scales;
    s.channels = images.channels();
    std::copy_n(images.strides, 4, s.image_strides);
    std::copy_n(out.strides, 4, s.out_strides);
    return s;
}

// Whether augment_thread may do the work.
inline bool is_dense(const View& out, const View& images) {
    const Loop logical = make_loop(images, false), last = make_loop(out, true);
    return images.channels() == kDenseChannels && is_dense(logical, make_strides(logical, images)) &&
           is_dense(last, make_strides(last, out));
}

}  // namespace advkernels::cuda
