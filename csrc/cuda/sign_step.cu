// sign_step_: the step of an l-inf attack and its projections, in one pass.
#include "sign_step.h"

#include "launch.h"

namespace advkernels::cuda {
namespace {

constexpr const char* kName = "sign_step_";

template <Path path>
__global__ void __launch_bounds__(kThreads, kResidentBlocks)
    sign_step_kernel(const __grid_constant__ SignStep arguments) {
    __shared__ Bounds staged[kStagedChannels];
    if (arguments.bounds.staged > 0) {  // a barrier would delay the first loads
        stage_bounds(arguments.bounds, staged, threadIdx.x, blockDim.x);
        __syncthreads();
    }
    const int64_t threads = int64_t{gridDim.x} * blockDim.x;
    sign_step_thread<path>(arguments, staged, int64_t{blockIdx.x} * blockDim.x + threadIdx.x, threads);
}

template <Path path>
void launch(const Launcher& launcher, const SignStep& arguments) {
    const int64_t work = path == Path::Strided ? arguments.operands.loop.numel : arguments.operands.vectors;
    launcher.launch(sign_step_kernel<path>, launcher.blocks_for(work), arguments);
}

template <typename Given>
void sign_step_cuda(Tensor delta, Tensor grad, Tensor x, Given bounds, std::optional<Tensor> mask,
                    std::optional<Tensor> out) {
    check_step(kName, delta, grad, x, mask, out);
    const Launcher launcher(kName, x);
    const GivenBounds given(launcher, kName, bounds, kBounds, x);
    const SignStep arguments = plan_sign_step(
        view(kName, delta), view(kName, grad), view(kName, x), out ? view(kName, *out) : View{}, given.set,
        mask ? static_cast<const bool*>(mask->data_ptr()) : nullptr, mask ? mask->stride(0) : 0);
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
    library.impl("sign_step_.values", TORCH_BOX(&sign_step_cuda<std::vector<double>>));
    library.impl("sign_step_.tensors", TORCH_BOX(&sign_step_cuda<std::vector<Tensor>>));
}

}  // namespace advkernels::cuda
