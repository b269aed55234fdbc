// Whether the kernels of this library run on a device, asked before one is chosen for it.
#include "launch.h"

// CUDA's reason why not, such as no code for the device or a driver older than the library's runtime; null where they
// do. The caller has made the device current.
extern "C" __attribute__((visibility("default"))) const char* advkernels_why_not_on(int device) {
    using advkernels::cuda::write_packet;
    cudaFuncAttributes attributes{};
    cudaError_t error = cudaSetDevice(device);
    if (error == cudaSuccess) {
        error = cudaFuncGetAttributes(&attributes, write_packet);
    }
    cudaGetLastError();  // leaves none behind for the next launch
    return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}
