// The launch of every CUDA operator: device, stream, grid and the error, and tensors as the kernels take them.
#pragma once

#include <cuda_runtime.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <algorithm>

#include "../check.h"
#include "bound_set.h"
#include "draw.h"

namespace advkernels::cuda {

constexpr int kThreads = 256;
constexpr int kResidentBlocks = 4;  // a multiprocessor, and so at most 64 registers a thread
constexpr int64_t kMaxBlocks = 32767;
constexpr int64_t kTicketsPerMultiprocessor = 32;

inline void check_cuda(const char* operation, const char* call, cudaError_t error) {
    AK_REQUIRE(error == cudaSuccess, operation, ": ", call, ": ", cudaGetErrorString(error));
}

static_assert(kMaxBlocks <= DrawTicket::kMaxBlocks);

// Makes a tensor's device current while it lives, and launches on that device's current stream.
class Launcher {
  public:
    Launcher(const char* operation, const Tensor& tensor)
        : operation_(operation), device_(tensor.get_device_index()), guard_(device_) {
        void* stream = nullptr;
        AK_REQUIRE(aoti_torch_get_current_cuda_stream(device_, &stream) == 0, operation, ": no current stream");
        stream_ = static_cast<cudaStream_t>(stream);
        check_cuda(operation, "cudaSetDevice", cudaSetDevice(device_));  // for the runtime linked into this library
    }

    // Blocks for `threads` threads of work that the kernel spreads over any grid: as many as can be, for short blocks
    // leave the shortest idle end, and all of them with as much to do.
    static int64_t blocks_for(int64_t threads, int64_t most = kMaxBlocks) {
        const int64_t needed = std::max<int64_t>((threads + kThreads - 1) / kThreads, 1);
        const int64_t rounds = (needed + most - 1) / most;
        return (needed + rounds - 1) / rounds;
    }

    // The same where every block takes a ticket: more of them would wait for each other there.
    int64_t blocks_with_ticket(int64_t threads) const {
        int multiprocessors = 0;
        check_cuda(operation_, "cudaDeviceGetAttribute",
                   cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device_));
        return blocks_for(threads, std::min(multiprocessors * kTicketsPerMultiprocessor, kMaxBlocks));
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
};

// The block's table, filled and ready; without one no thread waits.
__device__ __forceinline__ void stage_bounds(const BoundSet& set, Bounds* staged) {
    if (set.staged > 0) {
        stage_bounds(set, staged, threadIdx.x, blockDim.x);
        __syncthreads();
    }
}

// A block of a kernel that runs in phases.
struct SyncedBlock {
    __device__ __forceinline__ int threads() const { return static_cast<int>(blockDim.x); }

    template <typename Phase>
    __device__ __forceinline__ void operator()(const Phase& phase) const {
        phase(static_cast<int>(threadIdx.x), static_cast<int>(blockDim.x));
        __syncthreads();
    }
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
    AK_REQUIRE(result.dims <= kMaxDims, operation, ": wanted at most ", kMaxDims, " dimensions, got ", result.dims);
    for (int dim = 0; dim < result.dims; ++dim) {
        result.sizes[dim] = tensor.size(dim);
        result.strides[dim] = tensor.stride(dim);
    }
    return result;
}

// `state` is (seed, draw).
inline DrawState draw_state(const Tensor& state, const std::optional<Tensor>& sample_index) {
    int64_t* seed = static_cast<int64_t*>(state.data_ptr());
    return {seed, seed + state.stride(0),
            sample_index ? static_cast<const int64_t*>(sample_index->data_ptr()) : nullptr,
            sample_index ? sample_index->stride(0) : 0};
}

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

inline Tensor upload(const Launcher& launcher, const std::vector<float>& values, const Tensor& like) {
    const int64_t size = static_cast<int64_t>(values.size());
    Tensor result = torch::stable::new_empty(like, {size}, ScalarType::Float);
    float* data = static_cast<float*>(result.data_ptr());
    for (int64_t first = 0; first < size; first += FloatPacket::kFloats) {
        const int64_t count = std::min<int64_t>(FloatPacket::kFloats, size - first);
        FloatPacket packet{data + first, static_cast<int32_t>(count), {}};
        std::copy_n(values.begin() + first, count, packet.values);
        launcher.launch(write_packet, 1, packet);
    }
    return result;
}

// The bounds of an operator call, with the memory that they need while it is launched.
struct GivenBounds {
    GivenBounds(const Launcher& launcher, const char* operation, const std::vector<double>& given, int rows,
                const Tensor& x) {
        const std::vector<float> values(given.begin(), given.end());
        const int64_t width = row_width(operation, given, rows, x);
        if (width <= kValueChannels) {
            set = plan_values(values.data(), rows, width);
        } else {
            uploaded = upload(launcher, values, x);
            const float* data = static_cast<const float*>(uploaded->data_ptr());
            set = plan_tables(tables_of_rows(data, rows, width), width, x.numel() == 0);
        }
    }
    GivenBounds(const Launcher&, const char* operation, const std::vector<Tensor>& given, int rows, const Tensor& x)
        : set(plan_tables(bound_tables(operation, given, rows, x), channel_count(x), x.numel() == 0)) {}

    BoundSet set;
    std::optional<Tensor> uploaded;
};

}  // namespace advkernels::cuda
