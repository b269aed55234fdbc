// Where a kernel finds the four bounds of an element: its arguments, the block's table or memory.
#pragma once

#include "../bounds.h"
#include "layout.h"

namespace advkernels::cuda {

constexpr int kValueChannels = 4;     // channels whose bounds travel in the kernel's arguments: grey, RGB or RGBA
constexpr int kStagedChannels = 256;  // channels whose bounds a block keeps in shared memory

// What a kernel looks at to find an element's bounds: nothing but its arguments, for all elements alike or by channel;
// or anywhere.
enum class Reach { Alike, Channels, Anywhere };

struct BoundSet {
    Bounds values[kValueChannels];
    int32_t staged;  // entries of the block's table: one a channel, or 0 where there is none
    bool by_value;
    bool per_sample;
    bool per_channel;
    BoundTables tables;  // on the device, where the bounds are not given by value

    Reach reach() const { return !by_value ? Reach::Anywhere : per_channel ? Reach::Channels : Reach::Alike; }
};

// Thread `thread` of the block's `threads` fills its part of the block's table.
AK_FUNCTION void stage_bounds(const BoundSet& set, Bounds* staged, int thread, int threads) {
#if defined(__CUDACC__)
#pragma unroll 1  // mostly one round
#endif
    for (int i = thread; i < set.staged; i += threads) {
        staged[i] = set.tables.at(0, i);
    }
}

template <Reach reach>
AK_FUNCTION Bounds find_bounds(const BoundSet& set, const Bounds* staged, int64_t sample, int64_t channel) {
    if (reach == Reach::Alike) {
        return set.values[0];
    }
    return reach == Reach::Channels || set.by_value ? set.values[channel]
           : set.staged > 0                         ? staged[channel]
                                                    : set.tables.at(sample, channel);
}

// Where element i of the loop lies, as far as its bounds or a mask hang on it; located: whether they do.
template <Reach reach>
AK_FUNCTION Position find_position(const Order& order, bool located, int64_t i) {
    return reach == Reach::Channels || (reach == Reach::Anywhere && located) ? locate(order, i) : Position{};
}

// Calls visit(i, bounds) for the `width` neighbouring elements from a position on: of one segment, or of channels whose
// bounds are values or staged (see keep_vectors).
template <int width, Reach reach, typename Visit>
AK_FUNCTION void visit_vector(const BoundSet& set, const Order& order, const Bounds* staged, Position position,
                              const Visit& visit) {
    Bounds bounds = find_bounds<reach>(set, staged, position.sample, channel(order, position));
    if constexpr (reach != Reach::Alike) {
        if (set.per_channel && !in_one_segment(order, position, width)) {
            visit(0, bounds);
            for (int i = 1; i < width; ++i) {
                advance(order, position);
                const int64_t c = channel(order, position);
                bounds = reach == Reach::Channels || set.by_value ? set.values[c] : staged[c];
                visit(i, bounds);
            }
            return;
        }
    }
    for (int i = 0; i < width; ++i) {
        visit(i, bounds);
    }
}

// Calls visit<path, reach>() for the kernel of an operation: strided tensors have one alone.
template <typename Visit>
auto with_kernel(Path path, Reach reach, const Visit& visit) {
    const auto with_reach = [&]<Path vectors>() {
        switch (reach) {
            case Reach::Alike:
                return visit.template operator()<vectors, Reach::Alike>();
            case Reach::Channels:
                return visit.template operator()<vectors, Reach::Channels>();
            default:
                return visit.template operator()<vectors, Reach::Anywhere>();
        }
    };
    switch (path) {
        case Path::Floats:
            return with_reach.template operator()<Path::Floats>();
        case Path::Halves:
            return with_reach.template operator()<Path::Halves>();
        case Path::Mixed:
            return with_reach.template operator()<Path::Mixed>();
        default:
            return visit.template operator()<Path::Strided, Reach::Anywhere>();
    }
}

// Bounds on the device; those of an image x without elements are never read.
inline BoundSet plan_tables(const BoundTables& tables, int64_t channels, bool x_is_empty) {
    BoundSet set{{}, 0, false, tables.per_sample(), tables.per_channel(), tables};
    const bool fits = set.per_channel && !set.per_sample && !x_is_empty && channels <= kStagedChannels;
    set.staged = fits ? static_cast<int32_t>(channels) : 0;
    return set;
}

// Rows on the host, of at most kValueChannels floats.
inline BoundSet plan_values(const float* data, int rows, int64_t width) {
    BoundSet set{};
    const BoundTables tables = tables_of_rows(data, rows, width);
    for (int64_t i = 0; i < width; ++i) {
        set.values[i] = tables.at(0, i);
    }
    set.by_value = true;
    set.per_channel = width > 1;
    return set;
}

// Vectors only where each lies in one sample, if samples differ, and in one channel, if neither values nor the block's
// table hold the bounds; x: the image, visited with its channels last or not.
template <int count>
void keep_vectors(Operands<count>& operands, const View& x, bool channels_last, const BoundSet& set, bool masked) {
    const int width = width_of(operands.path);
    const bool crosses_samples = operands.head > 0 || x.sample_size() % width != 0;
    const bool crosses_channels = crosses_samples || channels_last || x.spatial_size() % width != 0;
    const bool far = set.per_channel && !set.by_value && set.staged == 0;
    if (((set.per_sample || masked) && crosses_samples) || (far && crosses_channels)) {
        take_one_by_one(operands);
    }
}

}  // namespace advkernels::cuda
