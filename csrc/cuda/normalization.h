// BatchNorm and the ReLU behind it, a block's share of each launch in phases, for host and device. No torch.
#pragma once

#include "rows.h"

namespace advkernels::cuda {

constexpr int64_t kSumBlocks = 256;  // two a multiprocessor of the largest GPUs; as many parts are merged
constexpr int kAhead = 2;
constexpr int64_t kRowBlocks = 1024;  // where nothing is summed

struct BatchMoments {
    RowGrid grid;
    Summands summands;
    double* partial;
};

// Sum and sum of squares of the columns of a share of rows.
template <Path path>
AK_FUNCTION void sum_moments(const BatchMoments& a, const Slots<path>& slots, int64_t block, int thread) {
    constexpr int width = kWidth<path>;
    Floats<width> shift{}, sum{}, sum_lost{}, square{}, square_lost{};
    int count = 0;
    for_each_row<kAhead>(a.grid, place_of<path>(a.grid, block, thread), [&](int64_t first) {
        const Floats<width> x = read_total<path>(a.grid, a.summands, first);
        for (int j = 0; j < width; ++j) {
            shift.values[j] = count == 0 ? x.values[j] : shift.values[j];
            const float apart = x.values[j] - shift.values[j];
            add_compensated(sum.values[j], sum_lost.values[j], apart);
            add_compensated(square.values[j], square_lost.values[j], apart * apart);
        }
        ++count;
    });
    for (int j = 0; j < width; ++j) {
        const Moments moments = shifted_moments(shift.values[j], compensated(sum.values[j], sum_lost.values[j]),
                                                compensated(square.values[j], square_lost.values[j]), count);
        slots.at(0, j, thread) = moments.sum;
        slots.at(1, j, thread) = moments.square;
    }
}

template <Path path, typename Block>
AK_FUNCTION void batch_moments_block(const BatchMoments& a, double* slots, int64_t index, const Block& block) {
    block([&](int thread, int) { sum_moments<path>(a, {slots}, index, thread); });
    block([&](int thread, int threads) { write_partial<path>(a.grid, {slots}, a.partial, index, thread, threads); });
}

// Where the statistics go; running ones and the count of batches may be absent.
struct MomentsTarget {
    Partials partials;
    int64_t rows;
    float *mean, *variance, *running_mean, *running_var;
    int64_t* batches;
    float keep, momentum;
};

AK_FUNCTION void move(const MomentsTarget& a, float* running, int64_t column, float statistic) {
    if (running != nullptr) {
        running[column] = move_statistic(running[column], a.keep, a.momentum, statistic);
    }
}

template <typename Block>
AK_FUNCTION void merge_moments_block(const MomentsTarget& a, double* sums, int64_t index, const Block& block) {
    merge_partials(a.partials, sums, index, block, [&](int64_t column, double sum, double square) {
        const Moments moments{sum, square};
        const float mean = mean_of(moments, a.rows), variance = variance_of(moments, a.rows);
        a.mean[column] = mean;
        a.variance[column] = variance;
        move(a, a.running_mean, column, mean);
        move(a, a.running_var, column, unbiased(variance, a.rows));
        if (column == 0 && a.batches != nullptr) {
            ++*a.batches;
        }
    });
}

// The columns' numbers as operators get them.
struct ColumnTensors {
    const float *mean, *variance, *weight, *bias;
    float eps;

    AK_FUNCTION NormColumn at(int64_t column) const {
        return norm_column(mean[column], variance[column], weight[column], bias[column], eps);
    }
};

// A block's columns, in its shared memory.
struct StagedColumns {
    float mean[kMaxBlockColumns], scale[kMaxBlockColumns], bias[kMaxBlockColumns];
    float inverse[kMaxBlockColumns], grad[kMaxBlockColumns], grad_z[kMaxBlockColumns];

    AK_FUNCTION NormColumn column(int k) const { return {mean[k], scale[k], bias[k]}; }
    AK_FUNCTION NormShares shares(int k) const { return {inverse[k], grad[k], grad_z[k]}; }
};

// Calls visit(place in the block, column) for a thread's share of the block's columns.
template <Path path, typename Visit>
AK_FUNCTION void for_each_column(const RowGrid& g, int64_t block, int thread, int threads, const Visit& visit) {
    const int64_t first = block % g.column_blocks * kBlockColumns<path>;
    for (int k = thread; k < kBlockColumns<path> && first + k < g.columns; k += threads) {
        visit(k, first + k);
    }
}

template <Path path>
AK_FUNCTION void stage_columns(const RowGrid& g, const ColumnTensors& columns, StagedColumns& staged, int64_t block,
                               int thread, int threads) {
    for_each_column<path>(g, block, thread, threads, [&](int k, int64_t column) {
        const NormColumn c = columns.at(column);
        staged.mean[k] = c.mean;
        staged.scale[k] = c.scale;
        staged.bias[k] = c.bias;
    });
}

template <Path path>
AK_FUNCTION int staged_column(int thread) {
    return thread % kColumnThreads * kWidth<path>;
}

struct NormalizeRelu {
    RowGrid grid;
    Summands summands;
    ColumnTensors columns;
    char* out;
};

template <Path path, typename Block>
AK_FUNCTION void normalize_relu_block(const NormalizeRelu& a, StagedColumns& staged, int64_t index,
                                      const Block& block) {
    block([&](int thread, int threads) { stage_columns<path>(a.grid, a.columns, staged, index, thread, threads); });
    block([&](int thread, int) {
        const int k = staged_column<path>(thread);
        for_each_row<1>(a.grid, place_of<path>(a.grid, index, thread), [&](int64_t first) {
            Floats<kWidth<path>> x = read_total<path>(a.grid, a.summands, first);
            for (int j = 0; j < kWidth<path>; ++j) {
                x.values[j] = relu(normalized(x.values[j], staged.column(k + j)));
            }
            write_row<path>(a.grid, a.out, first, x);
        });
    });
}

struct NormalizeReluSums {
    RowGrid grid;
    const char *grad, *x;
    ColumnTensors columns;
    double* partial;
};

// Sums of g and of g (x - mean) over the columns of a share of rows.
template <Path path>
AK_FUNCTION void sum_gradients(const NormalizeReluSums& a, const StagedColumns& staged, const Slots<path>& slots,
                               int64_t block, int thread) {
    constexpr int width = kWidth<path>;
    const int k = staged_column<path>(thread);
    Floats<width> sum{}, sum_lost{}, product{}, product_lost{};
    for_each_row<kAhead>(a.grid, place_of<path>(a.grid, block, thread), [&](int64_t first) {
        const Floats<width> grad = read_row<path>(a.grid, a.grad, first), x = read_row<path>(a.grid, a.x, first);
        for (int j = 0; j < width; ++j) {
            const NormColumn c = staged.column(k + j);
            const float g = through_relu(grad.values[j], x.values[j], c);
            add_compensated(sum.values[j], sum_lost.values[j], g);
            add_compensated(product.values[j], product_lost.values[j], g * (x.values[j] - c.mean));
        }
    });
    for (int j = 0; j < width; ++j) {
        slots.at(0, j, thread) = compensated(sum.values[j], sum_lost.values[j]);
        slots.at(1, j, thread) = compensated(product.values[j], product_lost.values[j]);
    }
}

template <Path path, typename Block>
AK_FUNCTION void normalize_relu_sums_block(const NormalizeReluSums& a, StagedColumns& staged, double* slots,
                                           int64_t index, const Block& block) {
    block([&](int thread, int threads) { stage_columns<path>(a.grid, a.columns, staged, index, thread, threads); });
    block([&](int thread, int) { sum_gradients<path>(a, staged, {slots}, index, thread); });
    block([&](int thread, int threads) { write_partial<path>(a.grid, {slots}, a.partial, index, thread, threads); });
}

// sums (2, columns)
struct SumsTarget {
    Partials partials;
    float* sums;
    const float* variance;
    float eps;
};

template <typename Block>
AK_FUNCTION void merge_sums_block(const SumsTarget& a, double* sums, int64_t index, const Block& block) {
    merge_partials(a.partials, sums, index, block, [&](int64_t column, double sum, double product) {
        const double inverse = inverse_deviation(a.variance[column], a.eps);
        a.sums[column] = static_cast<float>(sum);
        a.sums[a.partials.columns + column] = static_cast<float>(product * inverse);
    });
}

// sums, and with them the batch's part in the gradient, may be absent; so may grad_total.
struct NormalizeReluBackward {
    RowGrid grid;
    const char *grad, *grad_total, *x;
    ColumnTensors columns;
    const float* sums;
    char* grad_x;
};

template <Path path>
AK_FUNCTION void stage_shares(const NormalizeReluBackward& a, StagedColumns& staged, int64_t block, int thread,
                              int threads) {
    const float rows = static_cast<float>(a.grid.rows);
    for_each_column<path>(a.grid, block, thread, threads, [&](int k, int64_t column) {
        staged.inverse[k] = inverse_deviation(a.columns.variance[column], a.columns.eps);
        staged.grad[k] = a.sums[column] / rows;
        staged.grad_z[k] = a.sums[a.grid.columns + column] / rows;
    });
}

template <Path path>
AK_FUNCTION void write_gradient(const NormalizeReluBackward& a, const StagedColumns& staged, int64_t block,
                                int thread) {
    constexpr int width = kWidth<path>;
    const int k = staged_column<path>(thread);
    for_each_row<1>(a.grid, place_of<path>(a.grid, block, thread), [&](int64_t first) {
        const Floats<width> x = read_row<path>(a.grid, a.x, first);
        Floats<width> g = read_row<path>(a.grid, a.grad, first), added{};
        if (a.grad_total != nullptr) {
            added = read_row<path>(a.grid, a.grad_total, first);
        }
        for (int j = 0; j < width; ++j) {
            const NormColumn c = staged.column(k + j);
            const float through = through_relu(g.values[j], x.values[j], c);
            g.values[j] =
                a.sums == nullptr ? c.scale * through : norm_gradient(through, x.values[j], c, staged.shares(k + j));
            g.values[j] = a.grad_total == nullptr ? g.values[j] : g.values[j] + added.values[j];
        }
        write_row<path>(a.grid, a.grad_x, first, g);
    });
}

template <Path path, typename Block>
AK_FUNCTION void normalize_relu_backward_block(const NormalizeReluBackward& a, StagedColumns& staged, int64_t index,
                                               const Block& block) {
    block([&](int thread, int threads) {
        stage_columns<path>(a.grid, a.columns, staged, index, thread, threads);
        if (a.sums != nullptr) {
            stage_shares<path>(a, staged, index, thread, threads);
        }
    });
    block([&](int thread, int) { write_gradient<path>(a, staged, index, thread); });
}

}  // namespace advkernels::cuda
