// The four bounds of an element, by its sample and channel: from the kernel's arguments, the block's table or memory.
#pragma once

#include "layout.h"

namespace advkernels::cuda {

constexpr int kValueChannels = 64;    // channels whose bounds fit into the kernel's arguments
constexpr int kStagedChannels = 256;  // channels whose bounds a block keeps in shared memory

// A table (N or 1, C or 1) on the device; a stride of 0 repeats.
struct BoundTable {
    const float* data;
    int64_t sample_stride;
    int64_t channel_stride;

    AK_FUNCTION float at(int64_t sample, int64_t channel) const {
        return data[sample * sample_stride + channel * channel_stride];
    }
};

struct BoundSet {
    BoundTable alpha, epsilon, lower, upper;
    Bounds values[kValueChannels];
    int32_t staged;  // entries of the block's table: one a channel, 1, or 0 where the tables are read directly
    bool by_value;
    bool per_sample;
    bool per_channel;
};

AK_FUNCTION Bounds read_tables(const BoundSet& set, int64_t sample, int64_t channel) {
    return {set.alpha.at(sample, channel), set.epsilon.at(sample, channel), set.lower.at(sample, channel),
            set.upper.at(sample, channel)};
}

// Thread `thread` of the block's `threads` fills its part of the block's table.
AK_FUNCTION void stage_bounds(const BoundSet& set, Bounds* staged, int thread, int threads) {
#if defined(__CUDACC__)
#pragma unroll 1  // mostly one round
#endif
    for (int i = thread; i < set.staged; i += threads) {
        staged[i] = set.by_value ? set.values[i] : read_tables(set, 0, i);
    }
}

AK_FUNCTION Bounds find_bounds(const BoundSet& set, const Bounds* staged, int64_t sample, int64_t channel) {
    return set.staged > 0 ? staged[set.per_channel ? channel : 0] : read_tables(set, sample, channel);
}

// The set of four tables that are filled in; those of an image x without elements are never read.
inline void plan_tables(BoundSet& set, int64_t channels, bool x_is_empty) {
    set.by_value = false;
    for (const BoundTable* table : {&set.alpha, &set.epsilon, &set.lower, &set.upper}) {
        set.per_sample = set.per_sample || table->sample_stride != 0;
        set.per_channel = set.per_channel || table->channel_stride != 0;
    }
    const int64_t entries = set.per_channel ? channels : 1;
    const bool fits = !set.per_sample && !x_is_empty && entries <= kStagedChannels;
    set.staged = fits ? static_cast<int32_t>(entries) : 0;
}

// Four lists of 1 or `channels` floats; channels <= kValueChannels where one of them has more than one.
template <typename List>
void plan_values(BoundSet& set, const List& alpha, const List& epsilon, const List& lower, const List& upper) {
    size_t entries = 1;
    for (const List* list : {&alpha, &epsilon, &lower, &upper}) {
        entries = list->size() > entries ? list->size() : entries;
    }
    const auto at = [](const List& list, size_t i) { return static_cast<float>(list[list.size() > 1 ? i : 0]); };
    for (size_t i = 0; i < entries; ++i) {
        set.values[i] = {at(alpha, i), at(epsilon, i), at(lower, i), at(upper, i)};
    }
    set.by_value = true;
    set.per_channel = entries > 1;
    set.staged = static_cast<int32_t>(entries);
}

}  // namespace advkernels::cuda
