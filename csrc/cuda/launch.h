// The launch of every CUDA operator: device, stream, grid and the error, and tensors as the kernels take them.
#pragma once

#include <cuda_runtime.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <algorithm>

#include "../check.h"
#include "bounds.h"

namespace advkernels::cuda {

constexpr int kThreads = 256;
constexpr int kResidentBlocks = 4;  // a multiprocessor, and so at most 64 registers a thread
constexpr int64_t kBlocksPerMultiprocessor = 32;
constexpr int64_t kMaxBlocks = 32767;

inline void check_cuda(const char* operation, const char* call, cudaError_t error) {
    STD_TORCH_CHECK(error == cudaSuccess, operation, ": ", call, ": ", cudaGetErrorString(error));
}

// Makes a tensor's device current while it lives, and launches on that device's current stream.
class Launcher {
  public:
    Launcher(const char* operation, const Tensor& tensor)
        : operation_(operation), device_(tensor.get_device_index()), guard_(device_) {
        void* stream = nullptr;
        STD_TORCH_CHECK(aoti_torch_get_current_cuda_stream(device_, &stream) == 0, operation, ": no current stream");
        stream_ = static_cast<cudaStream_t>(stream);
        check_cuda(operation, "cudaSetDevice", cudaSetDevice(device_));  // for the runtime linked into this library
        check_cuda(operation, "cudaDeviceGetAttribute",
                   cudaDeviceGetAttribute(&multiprocessors_, cudaDevAttrMultiProcessorCount, device_));
    }

    // Blocks for `threads` threads of work that the kernel spreads over any grid; at least one.
    int64_t blocks_for(int64_t threads) const {
        const int64_t most = std::min(multiprocessors_ * kBlocksPerMultiprocessor, kMaxBlocks);
        return std::clamp<int64_t>((threads + kThreads - 1) / kThreads, 1, most);
    }

    template <typename Arguments>
    void launch(void (*kernel)(Arguments), int64_t blocks, const Arguments& arguments) const {
        kernel<<<static_cast<unsigned>(blocks), kThreads, 0, stream_>>>(arguments);
        check_cuda(operation_, "kernel launch", cudaGetLastError());
    }

  private:
    const char* operation_;
    int device_;
    torch::stable::accelerator::DeviceGuard guard_;
    cudaStream_t stream_;
    int multiprocessors_;
};

inline View view(const char* operation, const Tensor& tensor) {
    const ScalarType type = tensor.scalar_type();
    View result{static_cast<char*>(tensor.data_ptr()),
                type == ScalarType::Float      ? DType::Float
                : type == ScalarType::BFloat16 ? DType::BFloat16
                                               : DType::Float16,
                static_cast<int>(tensor.dim()),
                {},
                {},
                true};
    STD_TORCH_CHECK(result.dims <= kMaxDims, operation, ": wanted at most ", kMaxDims, " dimensions, got ",
                    result.dims);
    for (int dim = 0; dim < result.dims; ++dim) {
        result.sizes[dim] = tensor.size(dim);
        result.strides[dim] = tensor.stride(dim);
    }
    return result;
}

inline BoundTable bound_table(const char* operation, const char* argument, const Tensor& table, const Tensor& x) {
    const int64_t samples = x.dim() > 0 ? x.size(0) : 1, channels = x.dim() > 1 ? x.size(1) : 1;
    check_table(operation, argument, table, samples, channels, x);
    return {static_cast<const float*>(table.data_ptr()), table.size(0) > 1 ? table.stride(0) : 0,
            table.size(1) > 1 ? table.stride(1) : 0};
}

// The bounds of an operator call, given as lists of floats or as tables, with the memory they need while it is
// launched.
class GivenBounds {
  public:
    using Values = std::vector<double>;

    GivenBounds(const Launcher&, const char* operation, const Tensor& x, const Tensor& alpha, const Tensor& epsilon,
                const Tensor& lower, const Tensor& upper)
        : set_{bound_table(operation, "alpha", alpha, x), bound_table(operation, "epsilon", epsilon, x),
               bound_table(operation, "lower", lower, x), bound_table(operation, "upper", upper, x)} {
        plan_tables(set_, channels(x), x.numel() == 0);
    }

    GivenBounds(const Launcher& launcher, const char* operation, const Tensor& x, const Values& alpha,
                const Values& epsilon, const Values& lower, const Values& upper)
        : set_{} {
        check_values(operation, "alpha", alpha, channels(x));
        check_values(operation, "epsilon", epsilon, channels(x));
        check_values(operation, "lower", lower, channels(x));
        check_values(operation, "upper", upper, channels(x));
        if (std::max({alpha.size(), epsilon.size(), lower.size(), upper.size()}) <= kValueChannels) {
            plan_values(set_, alpha, epsilon, lower, upper);
            return;
        }
        set_.alpha = upload(launcher, x, alpha);
        set_.epsilon = upload(launcher, x, epsilon);
        set_.lower = upload(launcher, x, lower);
        set_.upper = upload(launcher, x, upper);
        plan_tables(set_, channels(x), x.numel() == 0);
    }

    const BoundSet& set() const { return set_; }

  private:
    static int64_t channels(const Tensor& x) { return x.dim() > 1 ? x.size(1) : 1; }
    BoundTable upload(const Launcher& launcher, const Tensor& x, const Values& values);

    BoundSet set_;
    std::vector<Tensor> uploaded_;
};

// Floats that travel in a kernel's arguments into device memory: unlike a copy, also right in a replayed graph.
struct FloatPacket {
    static constexpr int kFloats = 512;
    float* target;
    int32_t count;
    float values[kFloats];
};

static __global__ void write_packet(const __grid_constant__ FloatPacket packet) {
    for (int i = threadIdx.x; i < packet.count; i += blockDim.x) {
        packet.target[i] = packet.values[i];
    }
}

inline BoundTable GivenBounds::upload(const Launcher& launcher, const Tensor& x, const Values& values) {
    const int64_t size = static_cast<int64_t>(values.size());
    Tensor table = torch::stable::new_empty(x, {size}, ScalarType::Float);
    float* data = static_cast<float*>(table.data_ptr());
    for (int64_t first = 0; first < size; first += FloatPacket::kFloats) {
        FloatPacket packet{
            data + first, static_cast<int32_t>(std::min<int64_t>(FloatPacket::kFloats, size - first)), {}};
        std::copy_n(values.begin() + first, packet.count, packet.values);
        launcher.launch(write_packet, 1, packet);
    }
    uploaded_.push_back(table);
    return {data, 0, size > 1};
}

}  // namespace advkernels::cuda
