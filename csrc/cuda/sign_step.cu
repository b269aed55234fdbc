// sign_step_: the step of an l-inf attack and its projections, in one pass.
#include "sign_step.h"

#include "launch.h"

namespace advkernels::cuda {
namespace {

constexpr const char* kName = "sign_step_";

template <Path path, Reach reach>
__global__ void __launch_bounds__(kThreads, kResidentBlocks)
    sign_step_kernel(const __grid_constant__ Arguments<SignStep, path> arguments) {
    __shared__ Bounds staged[reach == Reach::Anywhere ? kStagedChannels : 1];
    if constexpr (reach == Reach::Anywhere) {
        stage_bounds(operation_of(arguments).bounds, staged);
    }
    const int64_t threads = int64_t{gridDim.x} * blockDim.x;
    sign_step_thread<path, reach>(arguments, staged, int64_t{blockIdx.x} * blockDim.x + threadIdx.x, threads);
}

template <Path path, Reach reach>
void launch(const Launcher& launcher, const Walked<SignStep>& planned) {
    const Operands<SignStep::kCount>& operands = planned.operation.operands;
    const int64_t work = path == Path::Strided ? operands.numel : operands.vectors;
    launcher.launch(sign_step_kernel<path, reach>, launcher.blocks_for(work), arguments_of<path>(planned));
}

template <typename Given>
void sign_step_cuda(Tensor delta, Tensor grad, Tensor x, Given bounds, std::optional<Tensor> mask,
                    std::optional<Tensor> out) {
    check_step(kName, delta, grad, x, mask, out);
    const Launcher launcher(kName, x);
    const GivenBounds given(launcher, kName, bounds, kBounds, x);
    const Walked<SignStep> planned = plan_sign_step(
        view(kName, delta), view(kName, grad), view(kName, x), out ? view(kName, *out) : View{}, given.set,
        mask ? static_cast<const bool*>(mask->data_ptr()) : nullptr, mask ? mask->stride(0) : 0);
    with_kernel(planned.operation.operands.path, planned.operation.reach(),
                [&]<Path path, Reach reach>() { launch<path, reach>(launcher, planned); });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(advkernels, CUDA, library) {
    library.impl("sign_step_.values", TORCH_BOX(&sign_step_cuda<std::vector<double>>));
    library.impl("sign_step_.tensors", TORCH_BOX(&sign_step_cuda<std::vector<Tensor>>));
}

}  // namespace advkernels::cuda
