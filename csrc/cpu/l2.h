// What the CPU operators of l2 attacks share: a sample at a time, in logical order, as float32 in a row.
#pragma once

#include <memory>

#include "../l2.h"
#include "arguments.h"

namespace advkernels {

// The sums of squares of a sample's elements, element k in lane k % kLanes.
using LaneSums = std::array<double, kLanes>;

// The root of all sums, which are left folded; those behind the sample's `count` elements are zeros.
double lane_norm(LaneSums& sums, int64_t count);

// A thread's memory for samples that are not float32 in a row as they lie; pages that nobody touches cost nothing.
class SampleBuffers {
  public:
    SampleBuffers(int64_t sample_size, int count)
        : size_(sample_size), memory_(new float[static_cast<size_t>(sample_size) * static_cast<size_t>(count)]) {}
    float* operator[](int i) const { return memory_.get() + i * size_; }

  private:
    int64_t size_;
    std::unique_ptr<float[]> memory_;
};

// Calls piece(first, count, channel) over the elements of a sample; none crosses a channel, where channels differ, or a
// round of the lanes.
template <typename Piece>
void for_each_piece(const Loop& loop, bool per_channel, const Piece& piece) {
    const int64_t segment = per_channel ? loop.spatial_size : loop.sample_size;
    for_each_tile(0, loop.sample_size, segment, segment, [&](int64_t begin, int64_t count) {
        for_each_tile(begin, begin + count, kLanes, kLanes,
                      [&](int64_t first, int64_t length) { piece(first, length, begin / segment); });
    });
}

// Calls range(first, last) in parallel over all samples.
template <typename Range>
void parallel_samples(const Loop& loop, const Range& range) {
    const int64_t grain = std::max<int64_t>(1, kGrain / std::max<int64_t>(1, loop.sample_size));
    torch::stable::parallel_for(0, loop.samples, grain, range);
}

}  // namespace advkernels
