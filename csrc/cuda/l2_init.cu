// l2_init_: a direction uniform on the sphere, a length uniform in [0, epsilon), projected into the box.
#include "l2_init.h"

#include "launch.h"

namespace advkernels::cuda {
namespace {

constexpr const char* kName = "l2_init_";

template <Path path>
__global__ void __launch_bounds__(kThreads, kResidentBlocks) l2_init_kernel(const __grid_constant__ L2Init arguments) {
    __shared__ Bounds staged[kStagedChannels];
    __shared__ double sums[kBlockSums];
    const PhiloxKey key = arguments.state.read_key();
    stage_bounds(arguments.samples.bounds, staged);
    for (int64_t sample = blockIdx.x; sample < arguments.samples.samples; sample += gridDim.x) {
        l2_init_sample<path>(arguments, staged, key, sums, sample, SyncedBlock{});
    }
    if (threadIdx.x == 0) {  // the whole block read the counter before the barrier
        arguments.state.take_ticket(gridDim.x);
    }
}

template <typename Given>
void l2_init_cuda(Tensor delta, Tensor x, Tensor state, Given bounds, std::optional<Tensor> sample_index,
                  std::optional<Tensor> out) {
    check_init(kName, delta, x, state, sample_index, out);
    const Launcher launcher(kName, x);
    const GivenBounds given(launcher, kName, bounds, kBounds - 1, x);
    const L2Init arguments = plan_l2_init(view(kName, delta), view(kName, x), out ? view(kName, *out) : View{},
                                          given.set, draw_state(state, sample_index));
    with_path(arguments.samples, [&]<Path path>() {
        launcher.launch(l2_init_kernel<path>, launcher.blocks_with_ticket(arguments.samples.samples * kThreads),
                        arguments);
    });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(advkernels, CUDA, library) {
    library.impl("l2_init_.values", TORCH_BOX(&l2_init_cuda<std::vector<double>>));
    library.impl("l2_init_.tensors", TORCH_BOX(&l2_init_cuda<std::vector<Tensor>>));
}

}  // namespace advkernels::cuda
