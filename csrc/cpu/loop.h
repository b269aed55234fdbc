// The loop of every CPU operator: tensors of any dtype and strides, seen as float32 tiles in one order.
//
// A tile is a piece of at most kTile elements. Where a float32 tensor has them in a row it lends its own memory as the
// tile; any other one is copied in, converted, and back. So each operator's arithmetic is one vectorised function on
// float32 arrays.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <array>
#include <initializer_list>

#include "../check.h"
#include "../half.h"

namespace advkernels {

constexpr int64_t kTile = 1024;
constexpr int64_t kGrain = 32768;      // elements worth a thread
constexpr int64_t kShortestRun = 128;  // worth a tile of its own
constexpr int kMaxDims = 8;

using TileBuffer = std::array<float, kTile>;

// The order in which a tensor (N, C, ...) is visited: logical, or with the channels innermost.
struct Loop {
    int dims;
    int64_t sizes[kMaxDims];
    int source_dim[kMaxDims];  // loop dimension -> tensor dimension
    int64_t numel;
    int64_t samples;
    int64_t channels;
    int64_t sample_size;
    int64_t spatial_size;
    bool channels_last;
};

// A tensor in the order of a loop.
struct Operand {
    char* data;
    ScalarType type;
    int64_t item_size;
    int64_t strides[kMaxDims];
    int64_t run;  // elements that lie in a row in memory, from each multiple of it on
};

Loop logical_loop(const Tensor& tensor);
// The order of the tensor's memory: channels last where it is so, else logical.
Loop memory_loop(const Tensor& tensor);
Operand operand(const Loop& loop, const Tensor& tensor);

// Whether the whole tensor lies in memory in the loop's order.
bool dense(const Loop& loop, const Operand& tensor);
// The length that pieces should not cross a multiple of: the segment, or shorter, the run of an operand.
int64_t within_runs(int64_t segment, std::initializer_list<const Operand*> operands);
// The elements [begin, begin + count) as float32: the tensor's own memory, or the buffer of as many, filled.
const float* load(const Loop& loop, const Operand& source, int64_t begin, int64_t count, float* buffer);
// As load, for a tile that will be changed in place.
float* load_mutable(const Loop& loop, const Operand& source, int64_t begin, int64_t count, float* buffer);
// Where to compute the elements [begin, begin + count), contents undefined.
float* blank(const Loop& loop, const Operand& target, int64_t begin, int64_t count, float* buffer);
// Round and write a tile that load_mutable or blank gave; nothing to do where it is the tensor's own memory.
void store(const Loop& loop, const Operand& target, int64_t begin, int64_t count, const float* tile);
// out = x + delta as it is stored, by way of two buffers.
void store_sum(const Loop& loop, const Operand& out, const float* x, const Operand& delta, int64_t begin, int64_t count,
               float* delta_buffer, float* out_buffer);

// The bounds of an operator call, with the memory of those that were given by value.
struct GivenBounds {
    GivenBounds(const char* operation, const std::vector<double>& given, int rows, const Tensor& x)
        : values(given.begin(), given.end()),
          tables(tables_of_rows(values.data(), rows, row_width(operation, given, rows, x))) {}
    GivenBounds(const char* operation, const std::vector<Tensor>& given, int rows, const Tensor& x)
        : tables(bound_tables(operation, given, rows, x)) {}
    GivenBounds(const GivenBounds&) = delete;

    std::vector<float> values;
    BoundTables tables;
};

// Calls tile(begin, count) over all elements in parallel; no tile crosses a multiple of segment.
template <typename Tile>
void for_each_tile(int64_t begin, int64_t end, int64_t segment, int64_t tile_size, const Tile& tile) {
    while (begin < end) {
        const int64_t segment_end = (begin / segment + 1) * segment;
        const int64_t count = std::min({tile_size, end - begin, segment_end - begin});
        tile(begin, count);
        begin += count;
    }
}

}  // namespace advkernels
