// Which elements a thread meets and where they lie, for host and device: planned on the host, walked in the kernels.
// All index arithmetic is int64. No torch.
#pragma once

#include <algorithm>
#include <cstddef>
#include <type_traits>

#include "memory.h"

namespace advkernels::cuda {

constexpr int kMaxDims = 8;

// Division of 0 <= n < 2^63 by a constant: a multiplication (Granlund and Montgomery 1994, theorem 4.2, N = 63).
struct Divisor {
    int64_t value;
    uint64_t magic;
    int32_t shift;

    AK_FUNCTION int64_t divide(int64_t n) const {
        const uint64_t doubled = static_cast<uint64_t>(n) << 1;
#if defined(__CUDA_ARCH__)
        const uint64_t high = __umul64hi(doubled, magic);
#else
        const uint64_t high = static_cast<uint64_t>(static_cast<unsigned __int128>(doubled) * magic >> 64);
#endif
        return static_cast<int64_t>(high >> shift);
    }
};

inline Divisor make_divisor(int64_t value) {
    value = value > 0 ? value : 1;  // of an empty tensor: never used
    int32_t shift = 0;
    while ((uint64_t{1} << shift) < static_cast<uint64_t>(value)) {
        ++shift;
    }
    const unsigned __int128 power = static_cast<unsigned __int128>(1) << (63 + shift);
    return {value, static_cast<uint64_t>(power / static_cast<uint64_t>(value) + 1), shift};
}

// A tensor (N, C, ...) as the host sees it; data is null where an optional tensor is absent.
struct View {
    char* data;
    DType type;
    int dims;
    int64_t sizes[kMaxDims];
    int64_t strides[kMaxDims];
    bool present;

    int64_t samples() const { return dims > 0 ? sizes[0] : 1; }
    int64_t channels() const { return dims > 1 ? sizes[1] : 1; }
    int64_t numel() const {
        int64_t product = 1;
        for (int dim = 0; dim < dims; ++dim) {
            product *= sizes[dim];
        }
        return product;
    }
    int64_t sample_size() const { return samples() > 0 ? numel() / samples() : 0; }
    int64_t spatial_size() const { return channels() > 0 ? sample_size() / channels() : 0; }
};

// A tensor as a kernel sees it.
struct Array {
    char* data;
    DType type;
};

// The order in which elements are visited: logical, or with the channels innermost.
struct Loop {
    Divisor sizes[kMaxDims];
    int64_t numel;
    int32_t dims;
    bool channels_last;
};

// The tensors of one launch and how their elements are reached: `head` single elements, `vectors`, and a tail. Small:
// a kernel waits for its arguments before its first loads.
template <int count>
struct Operands {
    Array arrays[count];
    int64_t numel;
    int64_t head;
    int64_t vectors;
    Path path;
};

// A tensor's strides in the order of the loop.
struct Strides {
    int64_t at[kMaxDims];
};

// The way through tensors that are reached one element at a time.
template <int count>
struct Walk {
    Loop loop;
    Strides strides[count];
};

// An operation with the way through its tensors.
template <typename Operation>
struct Walked {
    Operation operation;
    Walk<Operation::kCount> walk;
};

// What a kernel takes: the way only where it goes it.
template <typename Operation, Path path>
using Arguments = std::conditional_t<path == Path::Strided, Walked<Operation>, Operation>;

template <typename Operation>
AK_FUNCTION const Operation& operation_of(const Operation& operation) {
    return operation;
}
template <typename Operation>
AK_FUNCTION const Operation& operation_of(const Walked<Operation>& walked) {
    return walked.operation;
}

template <Path path, typename Operation>
const Arguments<Operation, path>& arguments_of(const Walked<Operation>& walked) {
    if constexpr (path == Path::Strided) {
        return walked;
    } else {
        return walked.operation;
    }
}

template <int count>
struct Offsets {
    int64_t at[count];
};

// Where element i of the loop lies in each tensor, in elements.
template <int count>
AK_FUNCTION Offsets<count> strided_offsets(const Walk<count>& walk, int64_t i) {
    Offsets<count> offsets{};
    for (int dim = walk.loop.dims - 1; dim >= 0; --dim) {
        const Divisor& size = walk.loop.sizes[dim];
        const int64_t outer = size.divide(i);
        const int64_t index = i - outer * size.value;
        for (int k = 0; k < count; ++k) {
            offsets.at[k] += index * walk.strides[k].at[dim];
        }
        i = outer;
    }
    return offsets;
}

template <int count>
AK_FUNCTION Offsets<count> dense_offsets(int64_t i) {
    Offsets<count> offsets;
    for (int k = 0; k < count; ++k) {
        offsets.at[k] = i;
    }
    return offsets;
}

// The single elements of a vector path, numbered: first the head, then the tail behind the vectors.
template <Path path, int count>
AK_FUNCTION int64_t single_element(const Operands<count>& operands, int64_t i) {
    return i < operands.head ? i : i + operands.vectors * kWidth<path>;
}

template <Path path, int count>
AK_FUNCTION int64_t single_elements(const Operands<count>& operands) {
    return operands.numel - operands.vectors * kWidth<path>;
}

// From the place of an element in the loop to its sample and channel.
struct Order {
    Divisor inner, middle;
    bool channel_is_inner;
};

struct Position {
    int64_t sample, middle, inner;
};

AK_FUNCTION Position locate(const Order& order, int64_t i) {
    const int64_t outer = order.inner.divide(i);
    const int64_t sample = order.middle.divide(outer);
    return {sample, outer - sample * order.middle.value, i - outer * order.inner.value};
}

AK_FUNCTION void advance(const Order& order, Position& position) {
    if (++position.inner == order.inner.value) {
        position.inner = 0;
        if (++position.middle == order.middle.value) {
            position.middle = 0;
            ++position.sample;
        }
    }
}

AK_FUNCTION int64_t channel(const Order& order, const Position& position) {
    return order.channel_is_inner ? position.inner : position.middle;
}

// Whether the `width` elements from here on share sample and channel.
AK_FUNCTION bool in_one_segment(const Order& order, const Position& position, int width) {
    return !order.channel_is_inner && position.inner + width <= order.inner.value;
}

inline Loop make_loop(const View& view, bool channels_last) {
    Loop loop{};
    loop.dims = view.dims;
    loop.numel = view.numel();
    loop.channels_last = channels_last;
    for (int dim = 0; dim < view.dims; ++dim) {
        const int source = channels_last && dim > 0 ? (dim == view.dims - 1 ? 1 : dim + 1) : dim;
        loop.sizes[dim] = make_divisor(view.sizes[source]);
    }
    return loop;
}

inline Strides make_strides(const Loop& loop, const View& view) {
    Strides strides{};
    for (int dim = 0; dim < view.dims; ++dim) {
        const int source = loop.channels_last && dim > 0 ? (dim == view.dims - 1 ? 1 : dim + 1) : dim;
        strides.at[dim] = view.strides[source];
    }
    return strides;
}

// Contiguous in the loop's order; a dimension of size 1 may have any stride.
inline bool is_dense(const Loop& loop, const Strides& strides) {
    int64_t expected = 1;
    for (int dim = loop.dims - 1; dim >= 0; --dim) {
        if (loop.sizes[dim].value != 1 && strides.at[dim] != expected) {
            return false;
        }
        expected *= loop.sizes[dim].value;
    }
    return true;
}

// The order of a tensor's memory: channels last where it is so, else logical.
inline Loop memory_loop(const View& view) {
    const Loop logical = make_loop(view, false);
    if (view.dims <= 2 || is_dense(logical, make_strides(logical, view))) {
        return logical;
    }
    const Loop last = make_loop(view, true);
    return is_dense(last, make_strides(last, view)) ? last : logical;
}

// The order for locate(); without bounds per channel a sample is one segment.
inline Order make_order(const View& view, bool channels_last, bool per_channel) {
    if (!per_channel) {
        return {make_divisor(view.sample_size()), make_divisor(1), false};
    }
    const Divisor spatial = make_divisor(view.spatial_size()), channels = make_divisor(view.channels());
    return channels_last ? Order{channels, spatial, true} : Order{spatial, channels, false};
}

// Elements before the first one whose address is a multiple of the vector's bytes.
inline int64_t elements_to_alignment(const Array& array, int width) {
    const int64_t place = static_cast<int64_t>(reinterpret_cast<uintptr_t>(array.data)) / item_size(array.type);
    return (width - place % width) % width;
}

// Vectors where all tensors are dense in the loop's order and reach alignment at the same element, else one by one.
template <int count>
Operands<count> plan(const Walk<count>& walk, const View (&views)[count]) {
    Operands<count> operands{};
    operands.numel = walk.loop.numel;
    bool dense = true;
    int floats = 0, halves = 0;
    for (int k = 0; k < count; ++k) {
        if (views[k].present) {
            operands.arrays[k] = {views[k].data, views[k].type};
            dense = dense && is_dense(walk.loop, walk.strides[k]);
            (views[k].type == DType::Float ? floats : halves) += 1;
        }
    }
    const Path vectors = halves == 0 ? Path::Floats : floats == 0 ? Path::Halves : Path::Mixed;
    const int width = width_of(vectors);
    operands.head = elements_to_alignment(operands.arrays[0], width);
    for (int k = 1; k < count; ++k) {
        dense = dense && (!views[k].present || elements_to_alignment(operands.arrays[k], width) == operands.head);
    }
    operands.path = dense && operands.head + width <= operands.numel ? vectors : Path::Strided;
    operands.vectors = operands.path == Path::Strided ? 0 : (operands.numel - operands.head) / width;
    return operands;
}

template <int count>
Walk<count> make_walk(const Loop& loop, const View (&views)[count]) {
    Walk<count> walk{loop, {}};
    for (int k = 0; k < count; ++k) {
        walk.strides[k] = make_strides(loop, views[k]);
    }
    return walk;
}

template <int count>
void take_one_by_one(Operands<count>& operands) {
    operands.path = Path::Strided;
    operands.vectors = 0;
}

}  // namespace advkernels::cuda
