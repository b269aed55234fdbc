// l2_step_: the step of an l2 attack and its projections, a block a sample.
#include "l2_step.h"

#include "launch.h"

namespace advkernels::cuda {
namespace {

constexpr const char* kName = "l2_step_";

template <Path path>
__global__ void __launch_bounds__(kThreads, kResidentBlocks) l2_step_kernel(const __grid_constant__ L2Step arguments) {
    __shared__ Bounds staged[kStagedChannels];
    __shared__ double sums[kBlockSums];
    stage_bounds(arguments.samples.bounds, staged);
    for (int64_t sample = blockIdx.x; sample < arguments.samples.samples; sample += gridDim.x) {
        l2_step_sample<path>(arguments, staged, sums, sample, SyncedBlock{});
    }
}

template <typename Given>
void l2_step_cuda(Tensor delta, Tensor grad, Tensor x, Given bounds, std::optional<Tensor> mask,
                  std::optional<Tensor> out) {
    check_step(kName, delta, grad, x, mask, out);
    const Launcher launcher(kName, x);
    const GivenBounds given(launcher, kName, bounds, kBounds, x);
    const L2Step arguments =
        plan_l2_step(view(kName, delta), view(kName, grad), view(kName, x), out ? view(kName, *out) : View{}, given.set,
                     mask ? static_cast<const bool*>(mask->data_ptr()) : nullptr, mask ? mask->stride(0) : 0);
    with_path(arguments.samples, [&]<Path path>() {
        launcher.launch(l2_step_kernel<path>, launcher.blocks_for(arguments.samples.samples * kThreads), arguments);
    });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(advkernels, CUDA, library) {
    library.impl("l2_step_.values", TORCH_BOX(&l2_step_cuda<std::vector<double>>));
    library.impl("l2_step_.tensors", TORCH_BOX(&l2_step_cuda<std::vector<Tensor>>));
}

}  // namespace advkernels::cuda
