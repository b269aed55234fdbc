// BatchNorm and the ReLU behind it: sums by parts and their merging, and the passes over the elements.
#include "normalization.h"

#include "../check_rows.h"
#include "launch.h"

namespace advkernels::cuda {
namespace {

constexpr int kSummingBlocks = 2;  // a multiprocessor: at most 128 registers a thread
static_assert(kThreads == kRowBlockThreads);

template <Path path>
__global__ void __launch_bounds__(kThreads, kSummingBlocks)
    batch_moments_kernel(const __grid_constant__ BatchMoments arguments) {
    __shared__ double slots[kSlots];
    batch_moments_block<path>(arguments, slots, blockIdx.x, SyncedBlock{});
}

__global__ void __launch_bounds__(kThreads) merge_moments_kernel(const __grid_constant__ MomentsTarget arguments) {
    __shared__ double sums[kThreads];
    merge_moments_block(arguments, sums, blockIdx.x, SyncedBlock{});
}

template <Path path>
__global__ void __launch_bounds__(kThreads, kElementBlocks)
    normalize_relu_kernel(const __grid_constant__ NormalizeRelu arguments) {
    __shared__ StagedColumns staged;
    normalize_relu_block<path>(arguments, staged, blockIdx.x, SyncedBlock{});
}

template <Path path>
__global__ void __launch_bounds__(kThreads, kSummingBlocks)
    normalize_relu_sums_kernel(const __grid_constant__ NormalizeReluSums arguments) {
    __shared__ StagedColumns staged;
    __shared__ double slots[kSlots];
    normalize_relu_sums_block<path>(arguments, staged, slots, blockIdx.x, SyncedBlock{});
}

__global__ void __launch_bounds__(kThreads) merge_sums_kernel(const __grid_constant__ SumsTarget arguments) {
    __shared__ double sums[kThreads];
    merge_sums_block(arguments, sums, blockIdx.x, SyncedBlock{});
}

template <Path path>
__global__ void __launch_bounds__(kThreads, kElementBlocks)
    normalize_relu_backward_kernel(const __grid_constant__ NormalizeReluBackward arguments) {
    __shared__ StagedColumns staged;
    normalize_relu_backward_block<path>(arguments, staged, blockIdx.x, SyncedBlock{});
}

template <typename T>
T* data(const Tensor& tensor) {
    return static_cast<T*>(tensor.data_ptr());
}

template <typename T>
T* data(const std::optional<Tensor>& tensor) {
    return tensor ? data<T>(*tensor) : nullptr;
}

RowGrid grid_of(const char* operation, const Tensor& x, std::initializer_list<const void*> tensors, int64_t target) {
    const DType type = view(operation, x).type;
    return plan_rows(x.size(0), x.size(1), type, row_path(type, x.size(1), tensors), target);
}

ColumnTensors columns_of(const Tensor& mean, const Tensor& variance, const Tensor& weight, const Tensor& bias,
                         double eps) {
    return {data<const float>(mean), data<const float>(variance), data<const float>(weight), data<const float>(bias),
            static_cast<float>(eps)};
}

Tensor make_partial(const RowGrid& grid, const Tensor& like) {
    return torch::stable::new_empty(like, {grid.row_blocks, 2, grid.columns}, ScalarType::Double);
}

void batch_moments_cuda(Tensor mean, Tensor variance, std::optional<Tensor> total, std::optional<Tensor> running_mean,
                        std::optional<Tensor> running_var, std::optional<Tensor> batches, Tensor x,
                        std::optional<Tensor> residual, double momentum) {
    constexpr const char* kName = "batch_moments_";
    check_moments(kName, mean, variance, total, running_mean, running_var, batches, x, residual);
    if (x.numel() == 0) {
        return;
    }
    const Launcher launcher(kName, x);
    const Summands summands{data<const char>(x), data<const char>(residual), data<char>(total)};
    const RowGrid grid = grid_of(kName, x, {summands.x, summands.residual, summands.total}, kSumBlocks);
    const Tensor partial = make_partial(grid, mean);
    with_row_path(grid.path, [&]<Path path>() {
        launcher.launch(batch_moments_kernel<path>, grid.blocks(), BatchMoments{grid, summands, data<double>(partial)});
    });
    const MomentsTarget target{{data<const double>(partial), grid.row_blocks, grid.columns},
                               grid.rows,
                               data<float>(mean),
                               data<float>(variance),
                               data<float>(running_mean),
                               data<float>(running_var),
                               data<int64_t>(batches),
                               static_cast<float>(1.0 - momentum),
                               static_cast<float>(momentum)};
    launcher.launch(merge_moments_kernel, target.partials.blocks(), target);
}

void normalize_relu_cuda(Tensor out, std::optional<Tensor> total, Tensor x, std::optional<Tensor> residual, Tensor mean,
                         Tensor variance, Tensor weight, Tensor bias, double eps) {
    constexpr const char* kName = "normalize_relu_";
    check_normalize(kName, out, total, x, residual, mean, variance, weight, bias);
    if (x.numel() == 0) {
        return;
    }
    const Launcher launcher(kName, x);
    const Summands summands{data<const char>(x), data<const char>(residual), data<char>(total)};
    char* target = data<char>(out);
    const RowGrid grid = grid_of(kName, x, {summands.x, summands.residual, summands.total, target}, kRowBlocks);
    const NormalizeRelu arguments{grid, summands, columns_of(mean, variance, weight, bias, eps), target};
    with_row_path(grid.path,
                  [&]<Path path>() { launcher.launch(normalize_relu_kernel<path>, grid.blocks(), arguments); });
}

void normalize_relu_sums_cuda(Tensor sums, Tensor grad, Tensor x, Tensor mean, Tensor variance, Tensor weight,
                              Tensor bias, double eps) {
    constexpr const char* kName = "normalize_relu_sums_";
    check_gradient_sums(kName, sums, grad, x, mean, variance, weight, bias);
    if (x.size(1) == 0) {
        return;
    }
    const Launcher launcher(kName, x);
    const ColumnTensors columns = columns_of(mean, variance, weight, bias, eps);
    const RowGrid grid = grid_of(kName, x, {data<const char>(grad), data<const char>(x)}, kSumBlocks);
    const Tensor partial = make_partial(grid, sums);
    if (grid.blocks() > 0) {
        with_row_path(grid.path, [&]<Path path>() {
            launcher.launch(
                normalize_relu_sums_kernel<path>, grid.blocks(),
                NormalizeReluSums{grid, data<const char>(grad), data<const char>(x), columns, data<double>(partial)});
        });
    }
    const SumsTarget target{
        {data<const double>(partial), grid.row_blocks, grid.columns}, data<float>(sums), columns.variance, columns.eps};
    launcher.launch(merge_sums_kernel, target.partials.blocks(), target);
}

void normalize_relu_backward_cuda(Tensor grad_x, Tensor grad, std::optional<Tensor> grad_total, Tensor x, Tensor mean,
                                  Tensor variance, Tensor weight, Tensor bias, std::optional<Tensor> sums, double eps) {
    constexpr const char* kName = "normalize_relu_backward_";
    check_normalize_backward(kName, grad_x, grad, grad_total, x, mean, variance, weight, bias, sums);
    if (x.numel() == 0) {
        return;
    }
    const Launcher launcher(kName, x);
    const char *g = data<const char>(grad), *added = data<const char>(grad_total), *source = data<const char>(x);
    char* target = data<char>(grad_x);
    const RowGrid grid = grid_of(kName, x, {g, added, source, target}, kRowBlocks);
    const NormalizeReluBackward arguments{
        grid, g, added, source, columns_of(mean, variance, weight, bias, eps), data<const float>(sums), target};
    with_row_path(grid.path, [&]<Path path>() {
        launcher.launch(normalize_relu_backward_kernel<path>, grid.blocks(), arguments);
    });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(advkernels, CUDA, library) {
    library.impl("batch_moments_", TORCH_BOX(&batch_moments_cuda));
    library.impl("normalize_relu_", TORCH_BOX(&normalize_relu_cuda));
    library.impl("normalize_relu_sums_", TORCH_BOX(&normalize_relu_sums_cuda));
    library.impl("normalize_relu_backward_", TORCH_BOX(&normalize_relu_backward_cuda));
}

}  // namespace advkernels::cuda
