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

// Calls visit(address) for every element.
template <typename Visit>
void for_each_address(const Tensor& tensor, const Visit& visit, int64_t dim, int64_t address) {
    if (dim == tensor.dim()) {
        visit(address);
        return;
    }
    const int64_t step = tensor.stride(dim) * static_cast<int64_t>(tensor.element_size());
    for (int64_t i = 0; i < tensor.size(dim); ++i) {
        for_each_address(tensor, visit, dim + 1, address + i * step);
    }
}

// The bytes of a span, and which of them elements have.
class Footprint {
  public:
    explicit Footprint(Span span) : begin_(span.begin), taken_(static_cast<size_t>(span.end - span.begin)) {}

    // Takes the bytes of all elements; whether one of them was taken before.
    bool take(const Tensor& tensor) {
        bool met = false;
        const auto size = static_cast<int64_t>(tensor.element_size());
        const auto visit = [&](int64_t address) {
            for (int64_t place = address - begin_; place < address - begin_ + size; ++place) {
                met = met || taken_[place];
                taken_[place] = true;
            }
        };
        for_each_address(tensor, visit, 0, reinterpret_cast<int64_t>(tensor.data_ptr()));
        return met;
    }

  private:
    int64_t begin_;
    std::vector<bool> taken_;
};

// Whether the strides alone show that no two elements share a place.
inline bool is_ordered(const Tensor& tensor) {
    std::vector<std::pair<int64_t, int64_t>> dims;  // stride, size
    for (int64_t dim = 0; dim < tensor.dim(); ++dim) {
        if (tensor.size(dim) != 1) {
            dims.emplace_back(tensor.stride(dim), tensor.size(dim));
        }
    }
    std::sort(dims.begin(), dims.end());
    int64_t reach = 1;
    for (const auto& [stride, size] : dims) {
        if (stride < reach) {
            return false;
        }
        reach = stride * (size - 1) + reach;
    }
    return true;
}

inline bool overlaps_itself(const Tensor& tensor) {
    return !tensor.is_contiguous() && !is_ordered(tensor) && Footprint(span_of(tensor)).take(tensor);
}

// `written` does not overlap itself.
inline bool share_memory(const Tensor& written, const Tensor& other) {
    const Span a = span_of(written), b = span_of(other);
    if (a.begin >= b.end || b.begin >= a.end) {
        return false;
    }
    Footprint footprint({std::min(a.begin, b.begin), std::max(a.end, b.end)});
    footprint.take(other);
    return footprint.take(written);
}

}  // namespace advkernels
