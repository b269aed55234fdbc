// BatchNorm and the ReLU behind it, a block's share of each launch in phases, for host and device. No torch.
#pragma once

#include "rows.h"

namespace advkernels::cuda {

constexpr int64_t kSumBlocks = 256;  // two a multiprocessor of the largest GPUs; as many parts are merged
constexpr int kRowsSummed = 4;       // loaded, and added up, before they join a thread's sums
constexpr int64_t kRowBlocks = 528;  // where nothing is summed: four a multiprocessor of the largest GPUs
constexpr int kRowsAhead = 2;
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1000  // whose code takes more registers
constexpr int kGradientRowsSummed = 2;
constexpr int kElementBlocks = 2;
#else
constexpr int kGradientRowsSummed = kRowsSummed;
constexpr int kElementBlocks = 4;  // a multiprocessor
#endif

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
    int rows = 0;
    const auto load = [&](int64_t first) { return load_summands<path>(a.grid, a.summands, first); };
    const auto use = [&]<int count>(const Several<int64_t, count>& first,
                                    const Several<SummandBits<path>, count>& loaded) {
        Several<Floats<width>, count> x;
        for (int r = 0; r < count; ++r) {
            x.values[r] = store_total<path>(a.grid, a.summands, first.values[r], loaded.values[r]);
        }
        for (int j = 0; j < width; ++j) {
            shift.values[j] = rows == 0 ? x.values[0].values[j] : shift.values[j];
            float apart[count], squares[count];
            for (int r = 0; r < count; ++r) {
                apart[r] = x.values[r].values[j] - shift.values[j];
                squares[r] = apart[r] * apart[r];
            }
            add_compensated(sum.values[j], sum_lost.values[j], sum_pairs<count>(apart));
            add_compensated(square.values[j], square_lost.values[j], sum_pairs<count>(squares));
        }
        rows += count;
    };
    for_each_row<kRowsSummed>(a.grid, place_of<path>(a.grid, block, thread), load, use);
    for (int j = 0; j < width; ++j) {
        const Moments moments = shifted_moments(shift.values[j], compensated(sum.values[j], sum_lost.values[j]),
                                                compensated(square.values[j], square_lost.values[j]), rows);
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

// A block's columns, in its shared memory. Element j of the vectors lies side by side, each vector's in a bank of its
// own.
struct StagedColumns {
    float mean[kMaxBlockColumns], scale[kMaxBlockColumns], bias[kMaxBlockColumns];
    float inverse[kMaxBlockColumns], grad[kMaxBlockColumns], grad_z[kMaxBlockColumns];

    AK_FUNCTION NormColumn column(int k) const { return {mean[k], scale[k], bias[k]}; }
    AK_FUNCTION NormShares shares(int k) const { return {inverse[k], grad[k], grad_z[k]}; }
};

// Where element j of a thread's vectors is staged.
AK_FUNCTION int staged_place(int thread, int j) { return j * kColumnThreads + thread % kColumnThreads; }

// Calls visit(place where it is staged, column) for a thread's share of the block's columns.
template <Path path, typename Visit>
AK_FUNCTION void for_each_column(const RowGrid& g, int64_t block, int thread, int threads, const Visit& visit) {
    const int64_t first = block % g.column_blocks * kBlockColumns<path>;
    for (int k = thread; k < kBlockColumns<path> && first + k < g.columns; k += threads) {
        visit(staged_place(k / kWidth<path>, k % kWidth<path>), first + k);
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

struct NormalizeRelu {
    RowGrid grid;
    Summands summands;
    ColumnTensors columns;
    char* out;
};

template <Path path>
AK_FUNCTION void write_normalized(const NormalizeRelu& a, const StagedColumns& staged, int64_t block, int thread) {
    const auto load = [&](int64_t first) { return load_summands<path>(a.grid, a.summands, first); };
    const auto use = [&]<int count>(const Several<int64_t, count>& first,
                                    const Several<SummandBits<path>, count>& loaded) {
        Several<Floats<kWidth<path>>, count> x;
        for (int r = 0; r < count; ++r) {
            x.values[r] = store_total<path>(a.grid, a.summands, first.values[r], loaded.values[r]);
        }
        for (int j = 0; j < kWidth<path>; ++j) {
            const NormColumn c = staged.column(staged_place(thread, j));
            for (int r = 0; r < count; ++r) {
                x.values[r].values[j] = relu(normalized(x.values[r].values[j], c));
            }
        }
        for (int r = 0; r < count; ++r) {
            write_row<path>(a.grid, a.out, first.values[r], x.values[r]);
        }
    };
    for_each_row<kRowsAhead>(a.grid, place_of<path>(a.grid, block, thread), load, use);
}

template <Path path, typename Block>
AK_FUNCTION void normalize_relu_block(const NormalizeRelu& a, StagedColumns& staged, int64_t index,
                                      const Block& block) {
    block([&](int thread, int threads) { stage_columns<path>(a.grid, a.columns, staged, index, thread, threads); });
    block([&](int thread, int) { write_normalized<path>(a, staged, index, thread); });
}

struct NormalizeReluSums {
    RowGrid grid;
    const char *grad, *x;
    ColumnTensors columns;
    double* partial;
};

// A row's gradient and x; what is added to the gradient of x, where there is something.
template <Path path>
struct GradientBits {
    RowBits<path> grad, x, added;
};

// Sums of g and of g (x - mean) over the columns of a share of rows.
template <Path path>
AK_FUNCTION void sum_gradients(const NormalizeReluSums& a, const StagedColumns& staged, const Slots<path>& slots,
                               int64_t block, int thread) {
    constexpr int width = kWidth<path>;
    Floats<width> sum{}, sum_lost{}, product{}, product_lost{};
    const auto load = [&](int64_t first) {
        return GradientBits<path>{load_row<path>(a.grid, a.grad, first), load_row<path>(a.grid, a.x, first), {}};
    };
    const auto use = [&]<int count>(const Several<int64_t, count>&, const Several<GradientBits<path>, count>& loaded) {
        Several<Floats<width>, count> grad, x;
        for (int r = 0; r < count; ++r) {
            grad.values[r] = widen_row<path>(a.grid, loaded.values[r].grad);
            x.values[r] = widen_row<path>(a.grid, loaded.values[r].x);
        }
        for (int j = 0; j < width; ++j) {
            const NormColumn c = staged.column(staged_place(thread, j));
            float g[count], products[count];
            for (int r = 0; r < count; ++r) {
                g[r] = through_relu(grad.values[r].values[j], x.values[r].values[j], c);
                products[r] = g[r] * (x.values[r].values[j] - c.mean);
            }
            add_compensated(sum.values[j], sum_lost.values[j], sum_pairs<count>(g));
            add_compensated(product.values[j], product_lost.values[j], sum_pairs<count>(products));
        }
    };
    for_each_row<kGradientRowsSummed>(a.grid, place_of<path>(a.grid, block, thread), load, use);
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
AK_FUNCTION GradientBits<path> load_gradients(const NormalizeReluBackward& a, int64_t first) {
    GradientBits<path> bits{load_row<path>(a.grid, a.grad, first), load_row<path>(a.grid, a.x, first), {}};
    if (a.grad_total != nullptr) {
        bits.added = load_row<path>(a.grid, a.grad_total, first);
    }
    return bits;
}

template <Path path>
AK_FUNCTION void write_gradient(const NormalizeReluBackward& a, const StagedColumns& staged, int64_t block,
                                int thread) {
    constexpr int width = kWidth<path>;
    const auto load = [&](int64_t first) { return load_gradients<path>(a, first); };
    const auto use = [&]<int count>(const Several<int64_t, count>& first,
                                    const Several<GradientBits<path>, count>& loaded) {
        Several<Floats<width>, count> g, x;
        for (int r = 0; r < count; ++r) {
            g.values[r] = widen_row<path>(a.grid, loaded.values[r].grad);
            x.values[r] = widen_row<path>(a.grid, loaded.values[r].x);
        }
        for (int j = 0; j < width; ++j) {
            const NormColumn c = staged.column(staged_place(thread, j));
            const NormShares s = staged.shares(staged_place(thread, j));
            for (int r = 0; r < count; ++r) {
                const float value = x.values[r].values[j], through = through_relu(g.values[r].values[j], value, c);
                g.values[r].values[j] = a.sums == nullptr ? c.scale * through : norm_gradient(through, value, c, s);
            }
        }
        for (int r = 0; r < count; ++r) {
            if (a.grad_total != nullptr) {
                add(g.values[r], widen_row<path>(a.grid, loaded.values[r].added));
            }
            write_row<path>(a.grid, a.grad_x, first.values[r], g.values[r]);
        }
    };
    for_each_row<kRowsAhead>(a.grid, place_of<path>(a.grid, block, thread), load, use);
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
