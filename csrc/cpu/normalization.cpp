// BatchNorm and the ReLU behind it, forwards and backwards, on rows of channels.
#include <torch/csrc/stable/library.h>

#include "rows.h"

namespace advkernels {
namespace {

// Blocks of columns: 16 and 8 at a time, the rest one by one. A macro, since a lambda is not compiled for the
// instruction set of the function that it stands in.
#define AK_FOR_EACH_COLUMN_BLOCK(columns, block, ...) \
    do {                                              \
        int64_t c = 0;                                \
        for (; c + 16 <= (columns); c += 16) {        \
            block<16>(c, columns, __VA_ARGS__);       \
        }                                             \
        for (; c + 8 <= (columns); c += 8) {          \
            block<8>(c, columns, __VA_ARGS__);        \
        }                                             \
        for (; c < (columns); ++c) {                  \
            block<1>(c, columns, __VA_ARGS__);        \
        }                                             \
    } while (false)

// total may be x.
AK_CLONES void add_tile(float* total, const float* x, const float* residual, int64_t count) {
    for (int64_t i = 0; i < count; ++i) {
        total[i] = x[i] + residual[i];
    }
}

template <int width>
AK_FUNCTION void moments_block(int64_t c, int64_t columns, const float* __restrict x, int64_t rows,
                               double* __restrict sums) {
    float shift[width], sum[width] = {}, sum_lost[width] = {}, square[width] = {}, square_lost[width] = {};
    for (int j = 0; j < width; ++j) {
        shift[j] = x[c + j];
    }
    for (int64_t row = 0; row < rows; ++row) {
        for (int j = 0; j < width; ++j) {
            const float apart = x[row * columns + c + j] - shift[j];
            add_compensated(sum[j], sum_lost[j], apart);
            add_compensated(square[j], square_lost[j], apart * apart);
        }
    }
    for (int j = 0; j < width; ++j) {
        const Moments moments =
            shifted_moments(shift[j], compensated(sum[j], sum_lost[j]), compensated(square[j], square_lost[j]), rows);
        sums[c + j] += moments.sum;
        sums[columns + c + j] += moments.square;
    }
}

AK_CLONES void moments_tile(const float* x, int64_t rows, int64_t columns, double* sums) {
    AK_FOR_EACH_COLUMN_BLOCK(columns, moments_block, x, rows, sums);
}

template <int width>
AK_FUNCTION void relu_block(int64_t c, int64_t columns, float* __restrict out, const float* __restrict x, int64_t rows,
                            const NormColumns& n) {
    NormColumn column[width];
    for (int j = 0; j < width; ++j) {
        column[j] = {n.mean[c + j], n.scale[c + j], n.bias[c + j]};
    }
    for (int64_t row = 0; row < rows; ++row) {
        for (int j = 0; j < width; ++j) {
            out[row * columns + c + j] = relu(normalized(x[row * columns + c + j], column[j]));
        }
    }
}

AK_CLONES void relu_tile(float* out, const float* x, int64_t rows, int64_t columns, const NormColumns& n) {
    AK_FOR_EACH_COLUMN_BLOCK(columns, relu_block, out, x, rows, n);
}

template <int width>
AK_FUNCTION void sums_block(int64_t c, int64_t columns, const float* __restrict grad, const float* __restrict x,
                            int64_t rows, const NormColumns& n, double* __restrict sums) {
    NormColumn column[width];
    float sum[width] = {}, sum_lost[width] = {}, product[width] = {}, product_lost[width] = {};
    for (int j = 0; j < width; ++j) {
        column[j] = {n.mean[c + j], n.scale[c + j], n.bias[c + j]};
    }
    for (int64_t row = 0; row < rows; ++row) {
        for (int j = 0; j < width; ++j) {
            const int64_t i = row * columns + c + j;
            const float g = through_relu(grad[i], x[i], column[j]);
            add_compensated(sum[j], sum_lost[j], g);
            add_compensated(product[j], product_lost[j], g * (x[i] - column[j].mean));
        }
    }
    for (int j = 0; j < width; ++j) {
        sums[c + j] += compensated(sum[j], sum_lost[j]);
        sums[columns + c + j] += compensated(product[j], product_lost[j]);
    }
}

AK_CLONES void sums_tile(const float* grad, const float* x, int64_t rows, int64_t columns, const NormColumns& n,
                         double* sums) {
    AK_FOR_EACH_COLUMN_BLOCK(columns, sums_block, grad, x, rows, n, sums);
}

// Of every column; empty where the statistics are not the batch's own.
struct Shares {
    std::vector<float> inverse, grad, grad_z;

    Shares(const std::optional<Tensor>& sums, const Tensor& variance, const Rows& rows, double eps) {
        if (!sums) {
            return;
        }
        const float count = static_cast<float>(rows.rows);
        const float* given = static_cast<const float*>(sums->data_ptr());
        for (int64_t c = 0; c < rows.columns; ++c) {
            inverse.push_back(
                inverse_deviation(static_cast<const float*>(variance.data_ptr())[c], static_cast<float>(eps)));
            grad.push_back(given[c] / count);
            grad_z.push_back(given[rows.columns + c] / count);
        }
    }
};

template <int width>
AK_FUNCTION void gradient_block(int64_t c, int64_t columns, float* __restrict out, const float* __restrict grad,
                                const float* __restrict x, int64_t rows, const NormColumns& n, const Shares& s) {
    NormColumn column[width];
    NormShares share[width];
    for (int j = 0; j < width; ++j) {
        column[j] = {n.mean[c + j], n.scale[c + j], n.bias[c + j]};
        share[j] = {s.inverse[c + j], s.grad[c + j], s.grad_z[c + j]};
    }
    for (int64_t row = 0; row < rows; ++row) {
        for (int j = 0; j < width; ++j) {
            const int64_t i = row * columns + c + j;
            out[i] = norm_gradient(through_relu(grad[i], x[i], column[j]), x[i], column[j], share[j]);
        }
    }
}

template <int width>
AK_FUNCTION void scaled_block(int64_t c, int64_t columns, float* __restrict out, const float* __restrict grad,
                              const float* __restrict x, int64_t rows, const NormColumns& n) {
    NormColumn column[width];
    for (int j = 0; j < width; ++j) {
        column[j] = {n.mean[c + j], n.scale[c + j], n.bias[c + j]};
    }
    for (int64_t row = 0; row < rows; ++row) {
        for (int j = 0; j < width; ++j) {
            const int64_t i = row * columns + c + j;
            out[i] = column[j].scale * through_relu(grad[i], x[i], column[j]);
        }
    }
}

AK_CLONES void gradient_tile(float* out, const float* grad, const float* x, int64_t rows, int64_t columns,
                             const NormColumns& n, const Shares& s) {
    if (s.grad.empty()) {
        AK_FOR_EACH_COLUMN_BLOCK(columns, scaled_block, out, grad, x, rows, n);
    } else {
        AK_FOR_EACH_COLUMN_BLOCK(columns, gradient_block, out, grad, x, rows, n, s);
    }
}

#undef AK_FOR_EACH_COLUMN_BLOCK

AK_CLONES void accumulate_tile(float* __restrict out, const float* __restrict added, int64_t count) {
    for (int64_t i = 0; i < count; ++i) {
        out[i] += added[i];
    }
}

template <typename Chunk>
void for_each_chunk(const Rows& r, const Chunk& chunk) {
    torch::stable::parallel_for(0, r.chunks(), 1, [&](int64_t begin, int64_t end) {
        for (int64_t index = begin; index < end; ++index) {
            chunk(index);
        }
    });
}

// Two numbers a column, summed over all rows: by chunks, in the order of the chunks.
template <typename Chunk>
std::vector<double> sum_chunks(const Rows& r, const Chunk& chunk) {
    const int64_t width = 2 * r.columns;
    std::vector<double> partial(r.chunks() * width), sums(width);
    for_each_chunk(r, [&](int64_t index) { chunk(index, partial.data() + index * width); });
    for (size_t i = 0; i < partial.size(); ++i) {
        sums[i % width] += partial[i];
    }
    return sums;
}

// x, or x + residual as it is stored in total, by way of two buffers.
struct Summands {
    Operand x, residual, total;
    bool is_sum;

    Summands(const Rows& r, const Tensor& x, const std::optional<Tensor>& residual, const std::optional<Tensor>& total)
        : x(operand(r.loop, x)), is_sum(residual.has_value()) {
        if (is_sum) {
            this->residual = operand(r.loop, *residual);
            this->total = operand(r.loop, *total);
        }
    }

    const float* rows(const Rows& r, int64_t row, int64_t count, RowBuffer& first, RowBuffer& second) const {
        const float* values = load_rows(r, x, row, count, first);
        if (!is_sum) {
            return values;
        }
        const int64_t begin = row * r.columns, size = count * r.columns;
        const float* added = load_rows(r, residual, row, count, second);
        float* sum = blank(r.loop, total, begin, size, first.data());
        add_tile(sum, values, added, size);
        store(r.loop, total, begin, size, sum);
        return load_rows(r, total, row, count, second);
    }
};

void move(const std::optional<Tensor>& running, int64_t c, double momentum, float statistic) {
    if (running) {
        float& value = static_cast<float*>(running->data_ptr())[c];
        value = move_statistic(value, static_cast<float>(1.0 - momentum), static_cast<float>(momentum), statistic);
    }
}

void batch_moments_cpu(Tensor mean, Tensor variance, std::optional<Tensor> total, std::optional<Tensor> running_mean,
                       std::optional<Tensor> running_var, std::optional<Tensor> batches, Tensor x,
                       std::optional<Tensor> residual, double momentum) {
    check_moments("batch_moments_", mean, variance, total, running_mean, running_var, batches, x, residual);
    const Rows r(x);
    const Summands summands(r, x, residual, total);
    const std::vector<double> sums = sum_chunks(r, [&](int64_t chunk, double* partial) {
        RowBuffer first(r), second(r);
        for_each_row_tile(r, chunk, [&](int64_t row, int64_t count) {
            moments_tile(summands.rows(r, row, count, first, second), count, r.columns, partial);
        });
    });
    for (int64_t c = 0; c < r.columns; ++c) {
        const Moments moments{sums[c], sums[r.columns + c]};
        const float m = mean_of(moments, r.rows), v = variance_of(moments, r.rows);
        static_cast<float*>(mean.data_ptr())[c] = m;
        static_cast<float*>(variance.data_ptr())[c] = v;
        move(running_mean, c, momentum, m);
        move(running_var, c, momentum, unbiased(v, r.rows));
    }
    if (batches) {
        ++*static_cast<int64_t*>(batches->data_ptr());
    }
}

void normalize_relu_cpu(Tensor out, std::optional<Tensor> total, Tensor x, std::optional<Tensor> residual, Tensor mean,
                        Tensor variance, Tensor weight, Tensor bias, double eps) {
    check_normalize("normalize_relu_", out, total, x, residual, mean, variance, weight, bias);
    const Rows r(x);
    const NormColumns columns(mean, variance, weight, bias, eps);
    const Summands summands(r, x, residual, total);
    const Operand target = operand(r.loop, out);
    for_each_chunk(r, [&](int64_t chunk) {
        RowBuffer first(r), second(r);
        for_each_row_tile(r, chunk, [&](int64_t row, int64_t count) {
            const int64_t begin = row * r.columns, size = count * r.columns;
            const float* values = summands.rows(r, row, count, first, second);
            float* tile = blank(r.loop, target, begin, size, values == first.data() ? second.data() : first.data());
            relu_tile(tile, values, count, r.columns, columns);
            store(r.loop, target, begin, size, tile);
        });
    });
}

void normalize_relu_sums_cpu(Tensor sums, Tensor grad, Tensor x, Tensor mean, Tensor variance, Tensor weight,
                             Tensor bias, double eps) {
    check_gradient_sums("normalize_relu_sums_", sums, grad, x, mean, variance, weight, bias);
    const Rows r(x);
    const NormColumns columns(mean, variance, weight, bias, eps);
    const Operand source = operand(r.loop, x), grads = operand(r.loop, grad);
    const std::vector<double> summed = sum_chunks(r, [&](int64_t chunk, double* partial) {
        RowBuffer first(r), second(r);
        for_each_row_tile(r, chunk, [&](int64_t row, int64_t count) {
            const float* g = load_rows(r, grads, row, count, first);
            sums_tile(g, load_rows(r, source, row, count, second), count, r.columns, columns, partial);
        });
    });
    float* written = static_cast<float*>(sums.data_ptr());
    for (int64_t c = 0; c < r.columns; ++c) {
        const float inverse =
            inverse_deviation(static_cast<const float*>(variance.data_ptr())[c], static_cast<float>(eps));
        written[c] = static_cast<float>(summed[c]);
        written[r.columns + c] = static_cast<float>(summed[r.columns + c] * inverse);
    }
}

void normalize_relu_backward_cpu(Tensor grad_x, Tensor grad, std::optional<Tensor> grad_total, Tensor x, Tensor mean,
                                 Tensor variance, Tensor weight, Tensor bias, std::optional<Tensor> sums, double eps) {
    check_normalize_backward("normalize_relu_backward_", grad_x, grad, grad_total, x, mean, variance, weight, bias,
                             sums);
    const Rows r(x);
    const NormColumns columns(mean, variance, weight, bias, eps);
    const Shares shares(sums, variance, r, eps);
    const Operand source = operand(r.loop, x), grads = operand(r.loop, grad), target = operand(r.loop, grad_x);
    const Operand added = grad_total ? operand(r.loop, *grad_total) : Operand{};
    for_each_chunk(r, [&](int64_t chunk) {
        RowBuffer first(r), second(r), third(r);
        for_each_row_tile(r, chunk, [&](int64_t row, int64_t count) {
            const int64_t begin = row * r.columns, size = count * r.columns;
            const float* g = load_rows(r, grads, row, count, first);
            const float* values = load_rows(r, source, row, count, second);
            float* tile = blank(r.loop, target, begin, size, third.data());
            gradient_tile(tile, g, values, count, r.columns, columns, shares);
            if (grad_total) {
                accumulate_tile(tile, load_rows(r, added, row, count, first), size);
            }
            store(r.loop, target, begin, size, tile);
        });
    });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(advkernels, CPU, library) {
    library.impl("batch_moments_", TORCH_BOX(&batch_moments_cpu));
    library.impl("normalize_relu_", TORCH_BOX(&normalize_relu_cpu));
    library.impl("normalize_relu_sums_", TORCH_BOX(&normalize_relu_sums_cpu));
    library.impl("normalize_relu_backward_", TORCH_BOX(&normalize_relu_backward_cpu));
}

}  // namespace advkernels
