// Whether tensors share memory. Addresses only: nothing is read, on any device.
#pragma once

#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

namespace advkernels {

using torch::stable::Tensor;

// From a tensor's first byte to the one behind its last, as addresses.
struct Span {
    int64_t begin, end;
};

inline Span span_of(const Tensor& tensor) {
    const int64_t begin = reinterpret_cast<int64_t>(tensor.data_ptr());
    int64_t elements = tensor.numel() > 0;
    for (int64_t dim = 0; elements > 0 && dim < tensor.dim(); ++dim) {
        elements += tensor.stride(dim) * (tensor.size(dim) - 1);
    }
    return {begin, begin + elements * static_cast<int64_t>(tensor.element_size())};
}

// The memory of a tensor with elements: runs of `length` bytes from each start on, in order.
struct Runs {
    std::vector<int64_t> starts;
    int64_t length;
};

inline Runs runs_of(const Tensor& tensor) {
    const int64_t item_size = static_cast<int64_t>(tensor.element_size());
    std::vector<std::pair<int64_t, int64_t>> dims;  // bytes from one element to the next, size
    for (int64_t dim = 0; dim < tensor.dim(); ++dim) {
        if (tensor.size(dim) != 1) {
            dims.emplace_back(tensor.stride(dim) * item_size, tensor.size(dim));
        }
    }
    std::sort(dims.begin(), dims.end());
    Runs runs{{reinterpret_cast<int64_t>(tensor.data_ptr())}, item_size};
    for (const auto& [step, size] : dims) {
        if (step == runs.length && runs.starts.size() == 1) {
            runs.length *= size;
            continue;
        }
        std::vector<int64_t> starts;
        starts.reserve(runs.starts.size() * static_cast<size_t>(size));
        for (int64_t i = 0; i < size; ++i) {
            for (const int64_t start : runs.starts) {
                starts.push_back(start + i * step);
            }
        }
        runs.starts = std::move(starts);
    }
    std::sort(runs.starts.begin(), runs.starts.end());
    return runs;
}

inline bool overlaps_itself(const Tensor& tensor) {
    if (tensor.is_contiguous() || tensor.numel() == 0) {
        return false;
    }
    const Runs runs = runs_of(tensor);
    const auto meets = [&](int64_t one, int64_t next) { return next - one < runs.length; };
    return std::adjacent_find(runs.starts.begin(), runs.starts.end(), meets) != runs.starts.end();
}

inline bool share_memory(const Tensor& one, const Tensor& other) {
    const Span a = span_of(one), b = span_of(other);
    if (a.begin >= b.end || b.begin >= a.end) {
        return false;
    }
    const Runs runs = runs_of(one), others = runs_of(other);
    return std::any_of(others.starts.begin(), others.starts.end(), [&](int64_t start) {
        const auto next = std::upper_bound(runs.starts.begin(), runs.starts.end(), start);
        const bool in_last = next != runs.starts.begin() && *(next - 1) + runs.length > start;
        return in_last || (next != runs.starts.end() && *next < start + others.length);
    });
}

}  // namespace advkernels
