// Rows (R, C) of channels shared out to blocks, for host and device. No torch.
//
// A block has kColumnThreads vectors of columns side by side, and of their rows a share. A thread has one of the
// vectors and every kRowThreads-th row of the share.
#pragma once

#include <algorithm>
#include <initializer_list>
#include <type_traits>

#include "../normalization.h"
#include "memory.h"

namespace advkernels::cuda {

constexpr int kColumnThreads = 8;  // 128 bytes of a row
constexpr int kRowThreads = 32;
constexpr int kRowBlockThreads = kColumnThreads * kRowThreads;

template <Path path>
constexpr int kBlockColumns = kColumnThreads * kWidth<path>;
constexpr int kMaxBlockColumns = kBlockColumns<Path::Halves>;

struct RowGrid {
    int64_t rows, columns;
    int64_t row_blocks, column_blocks, rows_a_thread;
    DType type;
    Path path;

    AK_FUNCTION int64_t blocks() const { return row_blocks * column_blocks; }
};

// Where a thread starts: its first column and row, and the row behind its last one.
struct Place {
    int64_t column, row, end;
};

template <Path path>
AK_FUNCTION Place place_of(const RowGrid& g, int64_t block, int thread) {
    const int64_t row_block = block / g.column_blocks, column_block = block - row_block * g.column_blocks;
    const int64_t share = g.rows_a_thread * kRowThreads;
    const int64_t column = column_block * kBlockColumns<path> + thread % kColumnThreads * kWidth<path>;
    const int64_t end = (row_block + 1) * share;
    return {column, row_block * share + thread / kColumnThreads, column >= g.columns ? 0 : end < g.rows ? end : g.rows};
}

// A vector as it lies in memory: conversion comes later, so that several loads are in flight first.
template <Path path>
using RowBits = std::conditional_t<path == Path::Strided, float, Words4>;

template <typename T, int count>
struct Several {
    T values[count];
};

// Calls use(first elements, what load(first element) gave) for the rows of a thread, `ahead` of them at a time while
// there are as many, then half as many.
template <int ahead, typename Load, typename Use>
AK_FUNCTION void for_each_row(const RowGrid& g, const Place& place, const Load& load, const Use& use) {
    int64_t row = place.row;
    for (; row + (ahead - 1) * kRowThreads < place.end; row += ahead * kRowThreads) {
        Several<int64_t, ahead> first;
        Several<decltype(load(row)), ahead> loaded;
        for (int r = 0; r < ahead; ++r) {
            first.values[r] = (row + r * kRowThreads) * g.columns + place.column;
            loaded.values[r] = load(first.values[r]);
        }
        use(first, loaded);
    }
    if constexpr (ahead > 1) {
        for_each_row<ahead / 2>(g, {place.column, row, place.end}, load, use);
    }
}

template <Path path>
AK_FUNCTION RowBits<path> load_row(const RowGrid& g, const char* data, int64_t first) {
    if constexpr (path == Path::Strided) {
        return read_element(data, g.type, first);
    } else {
        return read_vector<path>(data, g.type, first);
    }
}

template <Path path>
AK_FUNCTION Floats<kWidth<path>> widen_row(const RowGrid& g, const RowBits<path>& bits) {
    if constexpr (path == Path::Strided) {
        return {{bits}};
    } else {
        return widen<path>(bits, g.type);
    }
}

template <Path path>
AK_FUNCTION void write_row(const RowGrid& g, char* data, int64_t first, const Floats<kWidth<path>>& values) {
    if constexpr (path == Path::Strided) {
        write_element(data, g.type, first, values.values[0]);
    } else {
        write_vector<path>(data, g.type, first, narrow<path>(values, g.type));
    }
}

template <int width>
AK_FUNCTION void add(Floats<width>& values, const Floats<width>& others) {
    for (int j = 0; j < width; ++j) {
        values.values[j] += others.values[j];
    }
}

// x, and where something is added, total = x + residual as it is stored.
struct Summands {
    const char *x, *residual;
    char* total;
};

template <Path path>
struct SummandBits {
    RowBits<path> x, residual;
};

template <Path path>
AK_FUNCTION SummandBits<path> load_summands(const RowGrid& g, const Summands& s, int64_t first) {
    SummandBits<path> bits{load_row<path>(g, s.x, first), {}};
    if (s.residual != nullptr) {
        bits.residual = load_row<path>(g, s.residual, first);
    }
    return bits;
}

// The sum as float32 of what is stored; stores it.
template <Path path>
AK_FUNCTION Floats<kWidth<path>> store_total(const RowGrid& g, const Summands& s, int64_t first,
                                             const SummandBits<path>& bits) {
    Floats<kWidth<path>> values = widen_row<path>(g, bits.x);
    if (s.residual == nullptr) {
        return values;
    }
    add(values, widen_row<path>(g, bits.residual));
    if constexpr (path == Path::Strided) {
        write_row<path>(g, s.total, first, values);
        return {{g.type == DType::Float ? values.values[0]
                                        : half_bits_to_float(half_bits_from_float(values.values[0], g.type), g.type)}};
    } else {
        const Words4 total = narrow<path>(values, g.type);
        write_vector<path>(s.total, g.type, first, total);
        return widen<path>(total, g.type);
    }
}

// Two float64 sums of each column of a block, a slot for each thread: neighbours' slots lie in different banks.
template <Path path>
struct Slots {
    double* data;

    AK_FUNCTION double& at(int which, int j, int thread) const {
        return data[(which * kWidth<path> + j) * (kRowBlockThreads + kColumnThreads) + thread];
    }
};
constexpr int kSlots = 2 * kWidth<Path::Halves> * (kRowBlockThreads + kColumnThreads);

// The sums of a block's share of rows, into partial (row blocks, 2, columns).
template <Path path>
AK_FUNCTION void write_partial(const RowGrid& g, const Slots<path>& slots, double* partial, int64_t block, int thread,
                               int threads) {
    const int64_t row_block = block / g.column_blocks, column_block = block - row_block * g.column_blocks;
    for (int value = thread; value < 2 * kBlockColumns<path>; value += threads) {
        const int which = value / kBlockColumns<path>, j = value / kColumnThreads % kWidth<path>;
        const int vector = value % kColumnThreads;
        const int64_t column = column_block * kBlockColumns<path> + vector * kWidth<path> + j;
        double sum = 0.0;
        for (int other = vector; other < kRowBlockThreads; other += kColumnThreads) {
            sum += slots.at(which, j, other);
        }
        if (column < g.columns) {
            partial[(row_block * 2 + which) * g.columns + column] = sum;
        }
    }
}

// Two numbers of each column in parts; a block merges kMergeColumns columns, 32 bytes of a part beside each other.
constexpr int kMergeColumns = 4;
constexpr int kMergeValues = 2 * kMergeColumns;

struct Partials {
    const double* data;
    int64_t parts, columns;

    AK_FUNCTION int64_t blocks() const { return (columns + kMergeColumns - 1) / kMergeColumns; }
};

// Calls finish(column, sum of the first numbers, sum of the second) for every column of a block. The threads, a power
// of two, add up parts, then the upper half's sums go to the lower half until one is left of each.
template <typename Block, typename Finish>
AK_FUNCTION void merge_partials(const Partials& p, double* sums, int64_t index, const Block& block,
                                const Finish& finish) {
    block([&](int thread, int threads) {
        const int value = thread % kMergeValues;
        const int64_t column = index * kMergeColumns + value % kMergeColumns;
        double sum = 0.0;
#if defined(__CUDACC__)
#pragma unroll 8
#endif
        for (int64_t part = thread / kMergeValues; part < p.parts && column < p.columns;
             part += threads / kMergeValues) {
            sum += p.data[(part * 2 + value / kMergeColumns) * p.columns + column];
        }
        sums[thread] = sum;
    });
    for (int half = block.threads() / 2; half >= kMergeValues; half /= 2) {
        block([&](int thread, int) {
            if (thread < half) {
                sums[thread] += sums[thread + half];
            }
        });
    }
    block([&](int thread, int) {
        const int64_t column = index * kMergeColumns + thread;
        if (thread < kMergeColumns && column < p.columns) {
            finish(column, sums[thread], sums[thread + kMergeColumns]);
        }
    });
}

// At most about `target` blocks, each of a full round of rows or more.
inline RowGrid plan_rows(int64_t rows, int64_t columns, DType type, Path path, int64_t target) {
    const int64_t block_columns = kColumnThreads * width_of(path), rounds = (rows + kRowThreads - 1) / kRowThreads;
    RowGrid g{rows, columns, 0, (columns + block_columns - 1) / block_columns, 1, type, path};
    if (rows == 0 || columns == 0) {
        g.column_blocks = 0;
        return g;
    }
    const int64_t wanted = std::clamp<int64_t>(target / g.column_blocks, 1, rounds);
    g.rows_a_thread = (rounds + wanted - 1) / wanted;
    g.row_blocks = (rounds + g.rows_a_thread - 1) / g.rows_a_thread;
    return g;
}

// Vectors where every row of every tensor begins at a multiple of 16 bytes.
inline Path row_path(DType type, int64_t columns, std::initializer_list<const void*> tensors) {
    const Path path = type == DType::Float ? Path::Floats : Path::Halves;
    bool aligned = columns % width_of(path) == 0;
    for (const void* tensor : tensors) {
        aligned = aligned && reinterpret_cast<uintptr_t>(tensor) % 16 == 0;
    }
    return aligned ? path : Path::Strided;
}

// Calls visit<path>(): Floats, Halves or Strided.
template <typename Visit>
void with_row_path(Path path, const Visit& visit) {
    switch (path) {
        case Path::Floats:
            return visit.template operator()<Path::Floats>();
        case Path::Halves:
            return visit.template operator()<Path::Halves>();
        default:
            return visit.template operator()<Path::Strided>();
    }
}

}  // namespace advkernels::cuda
