// The CUDA kernels of BatchNorm and ReLU, run on the host: a grid is planned for about `blocks` blocks, and all of it
// runs where its last block is negative.
#include "cuda/normalization.h"

#include "simulate.h"
#include "simulate_grid.h"

namespace advkernels::cuda {
namespace {

using Addresses = std::vector<int64_t>;  // of columns: two numbers each of their own and of the model's

RowGrid plan(const View& x, std::initializer_list<const void*> tensors, const Grid& grid) {
    const Path path = row_path(x.type, x.sizes[1], tensors);
    return plan_rows(x.sizes[0], x.sizes[1], x.type, path, grid.blocks);
}

// Runs block(index, columns in shared memory, slots, block) over the grid.
template <typename Block>
py::tuple record_rows(const RowGrid& planned, Grid grid, const Block& block) {
    grid.last_block = grid.last_block < 0 ? planned.blocks() : grid.last_block;
    return record(name_of(planned.path), grid, [&](int64_t index) {
        auto staged = std::make_unique<StagedColumns>();
        std::vector<double> slots(kSlots);
        block(index, *staged, slots.data(), HostBlock{grid.threads});
    });
}

template <typename Target, typename Merge>
void merge(const Target& target, const Grid& grid, const Merge& merge_block) {
    std::vector<double> sums(grid.threads);
    for (int64_t index = 0; index < target.partials.blocks() && !grid.dry; ++index) {
        merge_block(target, sums.data(), index, HostBlock{grid.threads});
    }
}

ColumnTensors columns_of(const Addresses& columns, float eps) {
    return {pointer<const float>(columns.at(0)), pointer<const float>(columns.at(1)),
            pointer<const float>(columns.at(2)), pointer<const float>(columns.at(3)), eps};
}

// columns: mean, variance, and where they run
py::tuple simulate_batch_moments(const Given& x, const MaybeGiven& residual, const MaybeGiven& total,
                                 const Addresses& columns, int64_t batches, double momentum, const Grid& grid) {
    const Summands summands{view(x).data, view(residual).data, view(total).data};
    const RowGrid planned = plan(view(x), {summands.x, summands.residual, summands.total}, grid);
    std::vector<double> partial(planned.row_blocks * 2 * planned.columns);
    const BatchMoments a{planned, summands, partial.data()};
    py::tuple result =
        record_rows(planned, grid, [&](int64_t index, StagedColumns&, double* slots, const HostBlock& block) {
            with_row_path(planned.path, [&]<Path path>() { batch_moments_block<path>(a, slots, index, block); });
        });
    const auto at = [&](int i) { return pointer<float>(columns.at(i)); };
    const MomentsTarget target{{partial.data(), planned.row_blocks, planned.columns},
                               planned.rows,
                               at(0),
                               at(1),
                               at(2),
                               at(3),
                               pointer<int64_t>(batches),
                               static_cast<float>(1.0 - momentum),
                               static_cast<float>(momentum)};
    merge(target, grid, &merge_moments_block<HostBlock>);
    return result;
}

py::tuple simulate_normalize_relu(const Given& out, const MaybeGiven& total, const Given& x, const MaybeGiven& residual,
                                  const Addresses& columns, float eps, const Grid& grid) {
    const Summands summands{view(x).data, view(residual).data, view(total).data};
    const RowGrid planned = plan(view(x), {summands.x, summands.residual, summands.total, view(out).data}, grid);
    const NormalizeRelu a{planned, summands, columns_of(columns, eps), view(out).data};
    return record_rows(planned, grid, [&](int64_t index, StagedColumns& staged, double*, const HostBlock& block) {
        with_row_path(planned.path, [&]<Path path>() { normalize_relu_block<path>(a, staged, index, block); });
    });
}

py::tuple simulate_normalize_relu_sums(int64_t sums, const Given& grad, const Given& x, const Addresses& columns,
                                       float eps, const Grid& grid) {
    const RowGrid planned = plan(view(x), {view(grad).data, view(x).data}, grid);
    std::vector<double> partial(planned.row_blocks * 2 * planned.columns);
    const NormalizeReluSums a{planned, view(grad).data, view(x).data, columns_of(columns, eps), partial.data()};
    py::tuple result =
        record_rows(planned, grid, [&](int64_t index, StagedColumns& staged, double* slots, const HostBlock& block) {
            with_row_path(planned.path,
                          [&]<Path path>() { normalize_relu_sums_block<path>(a, staged, slots, index, block); });
        });
    const SumsTarget target{
        {partial.data(), planned.row_blocks, planned.columns}, pointer<float>(sums), a.columns.variance, eps};
    merge(target, grid, &merge_sums_block<HostBlock>);
    return result;
}

py::tuple simulate_normalize_relu_backward(const Given& grad_x, const Given& grad, const MaybeGiven& grad_total,
                                           const Given& x, const Addresses& columns, int64_t sums, float eps,
                                           const Grid& grid) {
    const View target = view(grad_x), g = view(grad), added = view(grad_total), source = view(x);
    const RowGrid planned = plan(source, {target.data, g.data, added.data, source.data}, grid);
    const NormalizeReluBackward a{
        planned, g.data, added.data, source.data, columns_of(columns, eps), pointer<const float>(sums), target.data};
    return record_rows(planned, grid, [&](int64_t index, StagedColumns& staged, double*, const HostBlock& block) {
        with_row_path(planned.path, [&]<Path path>() { normalize_relu_backward_block<path>(a, staged, index, block); });
    });
}

}  // namespace

void bind_normalization_simulation(py::module_& module) {
    module.def("simulate_batch_moments", &simulate_batch_moments);
    module.def("simulate_normalize_relu", &simulate_normalize_relu);
    module.def("simulate_normalize_relu_sums", &simulate_normalize_relu_sums);
    module.def("simulate_normalize_relu_backward", &simulate_normalize_relu_backward);
}

}  // namespace advkernels::cuda
