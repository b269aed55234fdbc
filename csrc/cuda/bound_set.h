// Where a kernel finds the four bounds of an element: its arguments, the block's table or memory.
#pragma once

#include "../bounds.h"
#include "layout.h"

namespace advkernels::cuda {

constexpr int kValueChannels = 64;    // channels whose bounds fit into the kernel's arguments
constexpr int kStagedChannels = 256;  // channels whose bounds a block keeps in shared memory

struct BoundSet {
    BoundTables tables;  // on the device, where the bounds are not given by value
    Bounds values[kValueChannels];
    int32_t staged;  // entries of the block's table: one a channel, or 0 where there is none
    bool by_value;
    bool per_sample;
    bool per_channel;
};

// Thread `thread` of the block's `threads` fills its part of the block's table.
AK_FUNCTION void stage_bounds(const BoundSet& set, Bounds* staged, int thread, int threads) {
#if defined(__CUDACC__)
#pragma unroll 1  // mostly one round
#endif
    for (int i = thread; i < set.staged; i += threads) {
        staged[i] = set.by_value ? set.values[i] : set.tables.at(0, i);
    }
}

AK_FUNCTION Bounds find_bounds(const BoundSet& set, const Bounds* staged, int64_t sample, int64_t channel) {
    if (set.staged > 0) {
        return staged[channel];
    }
    return set.by_value ? set.values[0] : set.tables.at(sample, channel);
}

// Bounds on the device; those of an image x without elements are never read.
inline BoundSet plan_tables(const BoundTables& tables, int64_t channels, bool x_is_empty) {
    BoundSet set{tables, {}, 0, false, tables.per_sample(), tables.per_channel()};
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
    set.staged = set.per_channel ? static_cast<int32_t>(width) : 0;
    return set;
}

}  // namespace advkernels::cuda
