// sgd_step_: SGD with momentum on float32 masters, every tensor of a list in one launch.
#include "sgd_step.h"

#include <memory>

#include "launch.h"

namespace advkernels::cuda {
namespace {

constexpr const char* kName = "sgd_step_";
static_assert(kMaxBlocks <= StepTicket::kMaxBlocks);

// Behind all work of the block, whose threads have all read the counter.
__device__ void end_block(int64_t* step, int64_t blocks) {
    __syncthreads();
    if (threadIdx.x == 0) {
        StepTicket::take(step, blocks);
    }
}

template <int capacity>
__global__ void __launch_bounds__(kThreads, kResidentBlocks)
    sgd_step_kernel(const __grid_constant__ SgdList<capacity> list) {
    if (list.shared.skipped()) {
        return;
    }
    const int index = tensor_of_block(list, blockIdx.x);
    const SgdTensor& tensor = list.tensor[index];
    sgd_step_thread(tensor, int64_t{blockIdx.x} - tensor.first_block, is_first(tensor.step), list.shared.has_momentum,
                    list.shared.read(), threadIdx.x, blockDim.x);
    end_block(tensor.step, blocks_of_tensor(list, index));
}

__global__ void __launch_bounds__(kThreads, kResidentBlocks)
    sgd_step_strided_kernel(const __grid_constant__ SgdStrided arguments) {
    if (arguments.shared.skipped()) {
        return;
    }
    const int64_t threads = int64_t{gridDim.x} * blockDim.x;
    sgd_step_strided_thread(arguments, is_first(arguments.step), arguments.shared.read(),
                            int64_t{blockIdx.x} * blockDim.x + threadIdx.x, threads);
    end_block(arguments.step, gridDim.x);
}

// The parameters [begin, end) in one launch.
template <int capacity>
void launch(const Launcher& launcher, const SgdShared& shared, const SgdViews* begin, const SgdViews* end) {
    auto list = std::make_unique<SgdList<capacity>>();
    list->shared = shared;
    for (const SgdViews* views = begin; views != end; ++views) {
        append(*list, *views);
    }
    launcher.launch(sgd_step_kernel<capacity>, list->blocks, *list);
}

void launch_all(const Launcher& launcher, const SgdShared& shared, const std::vector<SgdViews>& parameters) {
    std::vector<SgdViews> listed;
    for (const SgdViews& views : parameters) {
        if (shares_order(views)) {
            listed.push_back(views);
        } else {
            const SgdStrided arguments = plan_sgd_strided(shared, views);
            launcher.launch(sgd_step_strided_kernel, launcher.blocks_for(arguments.operands.numel), arguments);
        }
    }
    for (size_t begin = 0; begin < listed.size();) {
        const size_t rest = listed.size() - begin;
        const size_t count = std::min<size_t>(rest, kLargeList);
        const SgdViews* first = listed.data() + begin;
        count <= kSmallList ? launch<kSmallList>(launcher, shared, first, first + count)
                            : launch<kLargeList>(launcher, shared, first, first + count);
        begin += count;
    }
}

// One float32 on the device, or null where there is none.
const float* device_scalar(const char* argument, const std::optional<Tensor>& tensor, const Tensor& like) {
    if (!tensor) {
        return nullptr;
    }
    AK_REQUIRE(tensor->numel() == 1 && tensor->scalar_type() == ScalarType::Float && tensor->device() == like.device(),
               kName, ": ", argument, ": wanted one float32 on the device of params");
    return static_cast<const float*>(tensor->data_ptr());
}

void sgd_step_cuda(std::vector<Tensor> params, std::vector<Tensor> grads, std::vector<Tensor> masters,
                   std::vector<Tensor> momentum_buffers, std::vector<Tensor> steps, Tensor lr,
                   std::optional<Tensor> inv_scale, std::optional<Tensor> found_inf, double momentum, double dampening,
                   double weight_decay, bool nesterov, bool maximize) {
    const bool has_momentum = momentum != 0.0, lr_by_value = lr.is_cpu();
    check_sgd_step(kName, params, grads, masters, momentum_buffers, steps, has_momentum);
    if (params.empty()) {
        return;
    }
    AK_REQUIRE(lr.numel() == 1 && lr.scalar_type() == ScalarType::Float, kName, ": lr: wanted one float32");
    SgdShared shared{};
    shared.settings = {lr_by_value ? *static_cast<const float*>(lr.data_ptr()) : 0.0f,
                       1.0f,
                       static_cast<float>(momentum),
                       static_cast<float>(1.0 - dampening),
                       static_cast<float>(weight_decay),
                       inv_scale.has_value(),
                       maximize,
                       nesterov};
    shared.lr = lr_by_value ? nullptr : device_scalar("lr", lr, params[0]);
    shared.inv_scale = device_scalar("inv_scale", inv_scale, params[0]);
    shared.found_inf = device_scalar("found_inf", found_inf, params[0]);
    shared.has_momentum = has_momentum;

    std::vector<SgdViews> parameters;
    parameters.reserve(params.size());
    for (size_t i = 0; i < params.size(); ++i) {
        const bool has_master = masters[i].numel() > 0;
        AK_REQUIRE(chunks_of(params[i].numel()) <= StepTicket::kMaxBlocks, kName, ": params: wanted at most ",
                   StepTicket::kMaxBlocks * kChunk, " elements, got ", params[i].numel());
        parameters.push_back(
            {view(kName, params[i]), view(kName, grads[i]), has_master ? view(kName, masters[i]) : View{},
             has_momentum ? view(kName, momentum_buffers[i]) : View{}, static_cast<int64_t*>(steps[i].data_ptr())});
    }
    launch_all(Launcher(kName, params[0]), shared, parameters);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(advkernels, CUDA, library) { library.impl("sgd_step_", TORCH_BOX(&sgd_step_cuda)); }

}  // namespace advkernels::cuda
