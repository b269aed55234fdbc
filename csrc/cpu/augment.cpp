// augment_: crop, flip, normalise and cast, by a table of what each pixel value becomes.
#include "../augment.h"

#include <torch/csrc/stable/library.h>

#include "loop.h"

namespace advkernels {
namespace {

constexpr const char* kName = "augment_";

struct Strides {
    int64_t sample, channel, row, column;
};

struct Augment {
    const uint8_t* images;
    Strides image;
    char* out;
    Strides written;
    int64_t channels, height, width;
    const int64_t* index;
    int64_t index_stride;
    uint64_t seed, draw;
    int32_t padding;
    bool random, flip;

    Crop crop(int64_t n) const {
        return random ? random_crop(index[n * index_stride], seed, draw, padding, flip) : Crop{};
    }
};

Strides strides(const Tensor& tensor) {
    return {tensor.stride(0), tensor.stride(1), tensor.stride(2), tensor.stride(3)};
}

// Mean and std of every channel.
struct Scales {
    std::vector<float> mean, std;

    Scales(const std::vector<double>& given, const Tensor& images) {
        const int64_t width = row_width(kName, given, 2, images);
        for (int64_t c = 0; c < images.size(1); ++c) {
            const int64_t place = width > 1 ? c : 0;
            mean.push_back(static_cast<float>(given[place]));
            std.push_back(static_cast<float>(given[width + place]));
        }
    }
    Scales(const std::vector<Tensor>& given, const Tensor& images) {
        const auto tables = scale_tables(kName, given, images);
        for (int64_t c = 0; c < images.size(1); ++c) {
            mean.push_back(tables[0].at(0, c));
            std.push_back(tables[1].at(0, c));
        }
    }
};

// What each pixel value becomes, channel after channel.
template <typename T>
std::vector<T> value_table(const Scales& scales) {
    std::vector<T> table;
    table.reserve(scales.mean.size() * kPixelValues);
    for (size_t c = 0; c < scales.mean.size(); ++c) {
        for (int pixel = 0; pixel < kPixelValues; ++pixel) {
            table.push_back(from_float<T>(normalize(static_cast<float>(pixel), scales.mean[c], scales.std[c])));
        }
    }
    return table;
}

// The columns of a row that show the image, [begin, end); black ones lie on both sides.
struct Visible {
    int64_t begin, end;
};

Visible visible_columns(const Crop& crop, int64_t width) {
    const int64_t shift = crop.flip ? -crop.left : crop.left;
    const int64_t begin = std::clamp<int64_t>(-shift, 0, width);
    return {begin, std::clamp<int64_t>(width - shift, begin, width)};
}

// The pixel at `target`, `channels` of its channels.
template <int channels, typename T, typename Value>
AK_FUNCTION void write_pixel(const Augment& a, T* target, const Value& value) {
    for (int c = 0; c < channels; ++c) {
        target[c * a.written.channel] = value(c);
    }
}

// `channels` channels of one sample, from these addresses on.
template <int channels, typename T>
void augment_planes(const Augment& a, const Crop& crop, const uint8_t* image, T* out, const T* table) {
    const Visible columns = visible_columns(crop, a.width);
    const int64_t step = crop.flip ? -a.image.column : a.image.column;
    const auto black = [=](int c) { return table[c * kPixelValues]; };
    for (int64_t y = 0; y < a.height; ++y) {
        const int64_t source_row = crop.row(y);
        const bool inside = source_row >= 0 && source_row < a.height;
        const Visible shown = inside ? columns : Visible{a.width, a.width};
        const uint8_t* source = image + source_row * a.image.row + crop.column(shown.begin, a.width) * a.image.column;
        T* target = out + y * a.written.row;
        const auto value = [&](int c) { return table[c * kPixelValues + source[c * a.image.channel]]; };
        for (int64_t x = 0; x < shown.begin; ++x, target += a.written.column) {
            write_pixel<channels>(a, target, black);
        }
        for (int64_t x = shown.begin; x < shown.end; ++x, target += a.written.column, source += step) {
            write_pixel<channels>(a, target, value);
        }
        for (int64_t x = shown.end; x < a.width; ++x, target += a.written.column) {
            write_pixel<channels>(a, target, black);
        }
    }
}

template <typename T>
void augment_sample(const Augment& a, int64_t n, const T* table) {
    const Crop crop = a.crop(n);
    const uint8_t* image = a.images + a.index[n * a.index_stride] * a.image.sample;
    T* out = reinterpret_cast<T*>(a.out) + n * a.written.sample;
    int64_t c = 0;
    for (; c + 3 <= a.channels; c += 3) {
        augment_planes<3>(a, crop, image + c * a.image.channel, out + c * a.written.channel, table + c * kPixelValues);
    }
    for (; c < a.channels; ++c) {
        augment_planes<1>(a, crop, image + c * a.image.channel, out + c * a.written.channel, table + c * kPixelValues);
    }
}

template <typename T>
void augment_all(const Augment& a, const Scales& scales, int64_t samples) {
    const std::vector<T> table = value_table<T>(scales);
    const int64_t sample_size = std::max<int64_t>(a.channels * a.height * a.width, 1);
    torch::stable::parallel_for(0, samples, std::max<int64_t>(kGrain / sample_size, 1),
                                [&](int64_t begin, int64_t end) {
                                    for (int64_t n = begin; n < end; ++n) {
                                        augment_sample(a, n, table.data());
                                    }
                                });
}

void check_index(const Augment& a, int64_t samples, int64_t images) {
    for (int64_t n = 0; n < samples; ++n) {
        const int64_t number = a.index[n * a.index_stride];
        AK_REQUIRE(number >= 0 && number < images, kName, ": index: wanted numbers in [0, ", images, "), got ", number);
    }
}

template <typename Given>
void augment_cpu(Tensor out, Tensor images, Tensor index, std::optional<Tensor> state, Given given, int64_t padding,
                 bool flip) {
    check_augment(kName, out, images, index, state, padding, flip);
    const Scales scales(given, images);
    const int64_t* seed = state ? static_cast<const int64_t*>(state->data_ptr()) : nullptr;
    const Augment arguments{static_cast<const uint8_t*>(images.data_ptr()),
                            strides(images),
                            static_cast<char*>(out.data_ptr()),
                            strides(out),
                            images.size(1),
                            images.size(2),
                            images.size(3),
                            static_cast<const int64_t*>(index.data_ptr()),
                            index.stride(0),
                            seed ? static_cast<uint64_t>(seed[0]) : 0,
                            seed ? static_cast<uint64_t>(seed[state->stride(0)]) : 0,
                            static_cast<int32_t>(padding),
                            padding > 0 || flip,
                            flip};
    check_index(arguments, index.numel(), images.size(0));
    switch (out.scalar_type()) {
        case ScalarType::Float:
            return augment_all<float>(arguments, scales, index.numel());
        case ScalarType::BFloat16:
            return augment_all<BFloat16>(arguments, scales, index.numel());
        default:
            return augment_all<Float16>(arguments, scales, index.numel());
    }
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(advkernels, CPU, library) {
    library.impl("augment_.values", TORCH_BOX(&augment_cpu<std::vector<double>>));
    library.impl("augment_.tensors", TORCH_BOX(&augment_cpu<std::vector<Tensor>>));
}

}  // namespace advkernels
