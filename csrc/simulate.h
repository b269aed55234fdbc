// The test doors to the CUDA kernels' code.
#pragma once

#include <pybind11/pybind11.h>

namespace advkernels::cuda {

void bind_simulation(pybind11::module_& module);
void bind_normalization_simulation(pybind11::module_& module);

}  // namespace advkernels::cuda
