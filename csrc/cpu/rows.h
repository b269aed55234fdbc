// Rows of images in tiles, columns in blocks that stay in registers, for the operators of BatchNorm and ReLU.
#pragma once

#include "../check_rows.h"
#include "../normalization.h"
#include "clones.h"
#include "loop.h"

namespace advkernels {

constexpr int64_t kRowTile = 2048;  // elements, or one row

// Rows (R, C) of one dtype, and how they are shared out.
struct Rows {
    Loop loop;
    int64_t rows, columns;
    int64_t tile_rows, chunk_rows;

    explicit Rows(const Tensor& x)
        : loop(logical_loop(x)),
          rows(x.size(0)),
          columns(x.size(1)),
          tile_rows(std::max<int64_t>(kRowTile / std::max<int64_t>(columns, 1), 1)),
          chunk_rows(std::max<int64_t>(kGrain / std::max<int64_t>(columns, 1), tile_rows) / tile_rows * tile_rows) {}

    int64_t chunks() const { return columns > 0 ? (rows + chunk_rows - 1) / chunk_rows : 0; }
};

// Memory for a tile of rows.
struct RowBuffer {
    std::vector<float> values;

    explicit RowBuffer(const Rows& rows) : values(rows.tile_rows * rows.columns) {}
    float* data() { return values.data(); }
};

// Calls tile(first row, rows) over the rows of chunk `chunk`.
template <typename Tile>
void for_each_row_tile(const Rows& r, int64_t chunk, const Tile& tile) {
    const int64_t end = std::min((chunk + 1) * r.chunk_rows, r.rows);
    for (int64_t row = chunk * r.chunk_rows; row < end; row += r.tile_rows) {
        tile(row, std::min(r.tile_rows, end - row));
    }
}

// The rows [row, row + count) of a tensor.
inline const float* load_rows(const Rows& r, const Operand& source, int64_t row, int64_t count, RowBuffer& buffer) {
    return load(r.loop, source, row * r.columns, count * r.columns, buffer.data());
}

// Columns' numbers that every chunk reads.
struct NormColumns {
    std::vector<float> mean, scale, bias;

    NormColumns(const Tensor& given_mean, const Tensor& variance, const Tensor& weight, const Tensor& given_bias,
                double eps) {
        const auto at = [](const Tensor& t, int64_t c) { return static_cast<const float*>(t.data_ptr())[c]; };
        for (int64_t c = 0; c < weight.numel(); ++c) {
            const NormColumn column = norm_column(at(given_mean, c), at(variance, c), at(weight, c), at(given_bias, c),
                                                  static_cast<float>(eps));
            mean.push_back(column.mean);
            scale.push_back(column.scale);
            bias.push_back(column.bias);
        }
    }
};

}  // namespace advkernels
