// The pybind11 module: facts of the build, and doors for the tests to the headers without torch.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <map>
#include <string>

#include "half.h"
#include "philox.h"
#include "simulate.h"

namespace py = pybind11;

namespace advkernels {
namespace {

std::map<std::string, std::string> build_facts() {
    return {{"torch", AK_BUILD_TORCH},
            {"compiler", AK_BUILD_COMPILER},
            {"CUDA", AK_BUILD_CUDA},
            {"stable ABI since torch", AK_STABLE_ABI}};
}

std::string cpu_capability() {
#if defined(__x86_64__)
    return __builtin_cpu_supports("avx512f") ? "avx512f" : __builtin_cpu_supports("avx2") ? "avx2" : "default";
#else
    return "default";
#endif
}

std::array<uint32_t, 4> philox4x32_10(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key) {
    const Philox4 words = philox({counter[0], counter[1], counter[2], counter[3]}, key[0], key[1]);
    return {words.w0, words.w1, words.w2, words.w3};
}

}  // namespace
}  // namespace advkernels

PYBIND11_MODULE(_bindings, module) {
    using namespace advkernels;
    module.def("build_facts", &build_facts, "What this build was made with.");
    module.def("cpu_capability", &cpu_capability, "The instruction set that the CPU operators use here.");
    module.def("philox4x32_10", &philox4x32_10, py::arg("counter"), py::arg("key"));
    module.def("half_to_float", [](uint16_t bits) { return to_float(Float16{bits}); });
    module.def("bfloat16_to_float", [](uint16_t bits) { return to_float(BFloat16{bits}); });
    module.def("float_to_half", [](uint32_t bits) { return from_float<Float16>(float_from_bits(bits)).bits; });
    module.def("float_to_bfloat16", [](uint32_t bits) { return from_float<BFloat16>(float_from_bits(bits)).bits; });
    cuda::bind_simulation(module);
}
