// augment_: crop, flip, normalise and cast, a thread a pixel.
#include "augment.h"

#include "launch.h"

namespace advkernels::cuda {
namespace {

constexpr const char* kName = "augment_";

__global__ void __launch_bounds__(kThreads, kResidentBlocks) augment_kernel(const __grid_constant__ Augment arguments) {
    const int64_t threads = int64_t{gridDim.x} * blockDim.x;
    augment_thread(arguments, read_key(arguments), int64_t{blockIdx.x} * blockDim.x + threadIdx.x, threads);
}

__global__ void __launch_bounds__(kThreads, kResidentBlocks)
    augment_strided_kernel(const __grid_constant__ AugmentStrided arguments) {
    const int64_t threads = int64_t{gridDim.x} * blockDim.x;
    augment_strided_thread(arguments, read_key(arguments.augment), int64_t{blockIdx.x} * blockDim.x + threadIdx.x,
                           threads);
}

// Mean and std of an operator call, with the memory that they need while it is launched.
struct GivenScales {
    GivenScales(const Launcher& launcher, const std::vector<double>& given, const Tensor& images) {
        const std::vector<float> values(given.begin(), given.end());
        const int64_t width = row_width(kName, given, 2, images), channels = images.size(1);
        if (channels <= kScaleChannels) {
            scales = scales_by_value(values.data(), width, channels);
        } else {
            uploaded = upload(launcher, values, images);
            const float* data = static_cast<const float*>(uploaded->data_ptr());
            scales = scales_on_device({data, 0, width > 1}, {data + width, 0, width > 1});
        }
    }
    GivenScales(const Launcher&, const std::vector<Tensor>& given, const Tensor& images) {
        const auto tables = scale_tables(kName, given, images);
        scales = scales_on_device(tables[0], tables[1]);
    }

    Scales scales;
    std::optional<Tensor> uploaded;
};

template <typename Given>
void augment_cuda(Tensor out, Tensor images, Tensor index, std::optional<Tensor> state, Given given, int64_t padding,
                  bool flip) {
    check_augment(kName, out, images, index, state, padding, flip);
    if (out.numel() == 0) {
        return;
    }
    const Launcher launcher(kName, images);
    const GivenScales scales(launcher, given, images);
    const DrawState numbers = draw_state(state ? *state : index, index);  // where nothing is random it is not read
    const View target = view(kName, out), source = view(kName, images);
    const AugmentStrided arguments = plan_augment(target, source, scales.scales, numbers, padding, flip);
    const int64_t blocks = launcher.blocks_for(arguments.augment.pixels);
    if (is_dense(target, source)) {
        launcher.launch(augment_kernel, blocks, arguments.augment);
    } else {
        launcher.launch(augment_strided_kernel, blocks, arguments);
    }
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(advkernels, CUDA, library) {
    library.impl("augment_.values", TORCH_BOX(&augment_cuda<std::vector<double>>));
    library.impl("augment_.tensors", TORCH_BOX(&augment_cuda<std::vector<Tensor>>));
}

}  // namespace advkernels::cuda
