// uniform_init_: U(-epsilon, epsilon) by Philox4x32-10, projected into the box, in one pass.
#include "uniform_init.h"

#include "launch.h"

namespace advkernels::cuda {
namespace {

constexpr const char* kName = "uniform_init_";

template <Path path, Reach reach>
__global__ void __launch_bounds__(kThreads, kResidentBlocks)
    uniform_init_kernel(const __grid_constant__ Arguments<UniformInit, path> arguments) {
    __shared__ Bounds staged[reach == Reach::Anywhere ? kStagedChannels : 1];
    const UniformInit& a = operation_of(arguments);
    const PhiloxKey key = a.state.read_key();
    if constexpr (reach == Reach::Anywhere) {
        stage_bounds(a.bounds, staged);
    }
    const int64_t threads = int64_t{gridDim.x} * blockDim.x;
    uniform_init_thread<path, reach>(arguments, staged, key, int64_t{blockIdx.x} * blockDim.x + threadIdx.x, threads);
    __syncthreads();
    if (threadIdx.x == 0) {  // the whole block has read the counter
        a.state.take_ticket(gridDim.x);
    }
}

template <Path path, Reach reach>
__global__ void __launch_bounds__(kThreads, kResidentBlocks)
    uniform_init_tile_kernel(const __grid_constant__ UniformInit arguments) {
    __shared__ Bounds staged[reach == Reach::Anywhere ? kStagedChannels : 1];
    __shared__ alignas(16) uint32_t bits[kTileBits];
    const PhiloxKey key = arguments.state.read_key();
    if constexpr (reach == Reach::Anywhere) {
        stage_bounds(arguments.bounds, staged);
    }
    for (int64_t i = blockIdx.x; i < arguments.tiles; i += gridDim.x) {
        const Tile tile = find_tile(arguments, i);
        draw_tile(arguments, key, tile, bits, threadIdx.x, blockDim.x);
        __syncthreads();
        fill_tile<path, reach>(arguments, staged, tile, bits, threadIdx.x, blockDim.x);
        __syncthreads();
    }
    if (threadIdx.x == 0) {  // every block has a tile, and so the whole block read the counter before a barrier
        arguments.state.take_ticket(gridDim.x);
    }
}

template <Path path, Reach reach>
void launch(const Launcher& launcher, const Walked<UniformInit>& planned) {
    const UniformInit& a = planned.operation;
    if constexpr (path != Path::Strided) {
        if (a.tiles > 0) {
            return launcher.launch(uniform_init_tile_kernel<path, reach>,
                                   launcher.blocks_with_ticket(a.tiles * kThreads), a);
        }
    }
    const int64_t work = path == Path::Strided ? a.operands.numel : a.operands.vectors;
    launcher.launch(uniform_init_kernel<path, reach>, launcher.blocks_with_ticket(work), arguments_of<path>(planned));
}

template <typename Given>
void uniform_init_cuda(Tensor delta, Tensor x, Tensor state, Given bounds, std::optional<Tensor> sample_index,
                       std::optional<Tensor> out) {
    check_init(kName, delta, x, state, sample_index, out);
    const Launcher launcher(kName, x);
    const GivenBounds given(launcher, kName, bounds, kBounds - 1, x);
    const Walked<UniformInit> planned =
        plan_uniform_init(view(kName, delta), view(kName, x), out ? view(kName, *out) : View{}, given.set,
                          draw_state(state, sample_index));
    with_kernel(planned.operation.operands.path, planned.operation.bounds.reach(),
                [&]<Path path, Reach reach>() { launch<path, reach>(launcher, planned); });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(advkernels, CUDA, library) {
    library.impl("uniform_init_.values", TORCH_BOX(&uniform_init_cuda<std::vector<double>>));
    library.impl("uniform_init_.tensors", TORCH_BOX(&uniform_init_cuda<std::vector<Tensor>>));
}

}  // namespace advkernels::cuda
