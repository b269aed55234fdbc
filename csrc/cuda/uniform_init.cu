// uniform_init_: U(-epsilon, epsilon) by Philox4x32-10, projected into the box, in one pass.
#include "uniform_init.h"

#include "launch.h"

namespace advkernels::cuda {
namespace {

constexpr const char* kName = "uniform_init_";

template <Path path>
__global__ void __launch_bounds__(kThreads, kResidentBlocks)
    uniform_init_kernel(const __grid_constant__ UniformInit arguments) {
    __shared__ Bounds staged[kStagedChannels];
    const PhiloxKey key = arguments.state.read_key();
    stage_bounds(arguments.bounds, staged, threadIdx.x, blockDim.x);
    __syncthreads();
    const int64_t threads = int64_t{gridDim.x} * blockDim.x;
    uniform_init_thread<path>(arguments, staged, key, int64_t{blockIdx.x} * blockDim.x + threadIdx.x, threads);
    if (threadIdx.x == 0) {  // the whole block read the counter before the barrier
        arguments.state.take_ticket(gridDim.x);
    }
}

template <Path path>
__global__ void __launch_bounds__(kThreads, kResidentBlocks)
    uniform_init_tile_kernel(const __grid_constant__ UniformInit arguments) {
    __shared__ Bounds staged[kStagedChannels];
    __shared__ alignas(16) uint32_t bits[kTileBits];
    const PhiloxKey key = arguments.state.read_key();
    stage_bounds(arguments.bounds, staged, threadIdx.x, blockDim.x);
    for (int64_t i = blockIdx.x; i < arguments.tiles; i += gridDim.x) {
        const Tile tile = find_tile(arguments, i);
        draw_tile(arguments, key, tile, bits, threadIdx.x, blockDim.x);
        __syncthreads();
        fill_tile<path>(arguments, staged, tile, bits, threadIdx.x, blockDim.x);
        __syncthreads();
    }
    if (threadIdx.x == 0) {  // every block has a tile, and so the whole block read the counter before a barrier
        arguments.state.take_ticket(gridDim.x);
    }
}

template <Path path>
void launch(const Launcher& launcher, const UniformInit& arguments) {
    if constexpr (path == Path::Strided) {
        launcher.launch(uniform_init_kernel<path>, launcher.blocks_for(arguments.operands.loop.numel), arguments);
    } else if (arguments.tiles > 0) {
        launcher.launch(uniform_init_tile_kernel<path>, launcher.blocks_for(arguments.tiles * kThreads), arguments);
    } else {
        launcher.launch(uniform_init_kernel<path>, launcher.blocks_for(arguments.operands.vectors), arguments);
    }
}

template <typename Given>
void uniform_init_cuda(Tensor delta, Tensor x, Tensor state, Given bounds, std::optional<Tensor> sample_index,
                       std::optional<Tensor> out) {
    check_init(kName, delta, x, state, sample_index, out);
    const Launcher launcher(kName, x);
    const GivenBounds given(launcher, kName, bounds, kBounds - 1, x);
    const UniformInit arguments =
        plan_uniform_init(view(kName, delta), view(kName, x), out ? view(kName, *out) : View{}, given.set,
                          draw_state(state, sample_index));
    switch (arguments.operands.path) {
        case Path::Floats:
            return launch<Path::Floats>(launcher, arguments);
        case Path::Halves:
            return launch<Path::Halves>(launcher, arguments);
        case Path::Mixed:
            return launch<Path::Mixed>(launcher, arguments);
        case Path::Strided:
            return launch<Path::Strided>(launcher, arguments);
    }
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(advkernels, CUDA, library) {
    library.impl("uniform_init_.values", TORCH_BOX(&uniform_init_cuda<std::vector<double>>));
    library.impl("uniform_init_.tensors", TORCH_BOX(&uniform_init_cuda<std::vector<Tensor>>));
}

}  // namespace advkernels::cuda
