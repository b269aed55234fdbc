// The four bounds of every element of an image operation, as tables over its samples and channels. No torch.
#pragma once

#include "formulas.h"

namespace advkernels {

// One number for each (sample, channel); a stride of 0 repeats.
struct BoundTable {
    const float* data;
    int64_t sample_stride;
    int64_t channel_stride;

    AK_FUNCTION float at(int64_t sample, int64_t channel) const {
        return data[sample * sample_stride + channel * channel_stride];
    }
};

constexpr int kBounds = 4;
constexpr const char* kBoundNames[kBounds] = {"alpha", "epsilon", "lower", "upper"};

struct BoundTables {
    BoundTable tables[kBounds];

    AK_FUNCTION Bounds at(int64_t sample, int64_t channel) const {
        return {tables[0].at(sample, channel), tables[1].at(sample, channel), tables[2].at(sample, channel),
                tables[3].at(sample, channel)};
    }
    bool per_sample() const {
        return tables[0].sample_stride || tables[1].sample_stride || tables[2].sample_stride || tables[3].sample_stride;
    }
    bool per_channel() const {
        return tables[0].channel_stride || tables[1].channel_stride || tables[2].channel_stride ||
               tables[3].channel_stride;
    }
};

// An operator takes its bounds as rows: all four, or all but alpha, whose place the next one fills unused.
constexpr int row_of(int bound, int rows) { return bound < kBounds - rows ? 0 : bound - (kBounds - rows); }

// Rows of `width` floats, one float a channel, or one for all.
inline BoundTables tables_of_rows(const float* data, int rows, int64_t width) {
    BoundTables result;
    for (int i = 0; i < kBounds; ++i) {
        result.tables[i] = {data + row_of(i, rows) * width, 0, width > 1};
    }
    return result;
}

}  // namespace advkernels
