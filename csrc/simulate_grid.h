// What the doors that run the CUDA kernels' code on the host share: tensors as given, grids, the record of accesses.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <memory>
#include <optional>
#include <string>
#include <tuple>

#include "cuda/layout.h"

namespace advkernels::cuda {

namespace py = pybind11;

// (address, dtype, sizes, strides) of a tensor
using Given = std::tuple<int64_t, std::string, std::vector<int64_t>, std::vector<int64_t>>;
using MaybeGiven = std::optional<Given>;

template <typename T>
T* pointer(int64_t address) {
    return reinterpret_cast<T*>(address);
}

inline View view(const MaybeGiven& given) {
    if (!given) {
        return {};
    }
    const auto& [address, type, sizes, strides] = *given;
    View result{pointer<char>(address),
                type == "float32"    ? DType::Float
                : type == "bfloat16" ? DType::BFloat16
                                     : DType::Float16,
                static_cast<int>(sizes.size()),
                {},
                {},
                true};
    std::copy(sizes.begin(), sizes.end(), result.sizes);
    std::copy(strides.begin(), strides.end(), result.strides);
    return result;
}

// Which part of a grid runs; dry: with addresses only.
struct Grid {
    int64_t blocks;
    int threads;
    int64_t first_block, last_block;
    bool dry;
};

inline py::array_t<int64_t> table(const std::vector<Access>& accesses) {
    py::array_t<int64_t> result({static_cast<py::ssize_t>(accesses.size()), py::ssize_t{6}});
    auto rows = result.mutable_unchecked<2>();
    for (size_t i = 0; i < accesses.size(); ++i) {
        rows(i, 0) = accesses[i].address;
        rows(i, 1) = accesses[i].bytes;
        for (int word = 0; word < 4; ++word) {
            rows(i, 2 + word) = accesses[i].words[word];
        }
    }
    return result;
}

// Runs `block(index)` over the grid and returns (path, reads, writes): rows of address, bytes and four words.
template <typename Block>
py::tuple record(const char* path, const Grid& grid, const Block& block) {
    trace() = {grid.dry, {}, {}};
    for (int64_t index = grid.first_block; index < grid.last_block; ++index) {
        block(index);
    }
    py::tuple result = py::make_tuple(path, table(trace().reads), table(trace().writes));
    trace() = {};
    return result;
}

// A block that runs in phases: each for one thread after the other.
class HostBlock {
  public:
    explicit HostBlock(int threads) : threads_(threads) {}
    int threads() const { return threads_; }

    template <typename Phase>
    void operator()(const Phase& phase) const {
        for (int thread = 0; thread < threads_; ++thread) {
            phase(thread, threads_);
        }
    }

  private:
    int threads_;
};

inline const char* name_of(Path path) {
    return path == Path::Floats   ? "floats"
           : path == Path::Halves ? "halves"
           : path == Path::Mixed  ? "mixed"
                                  : "strided";
}

}  // namespace advkernels::cuda
