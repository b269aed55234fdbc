// Elements in memory, for host and device: one element, or a vector of 8 or 16 bytes, to float32 and back. No torch.
#pragma once

#include "../half.h"
#if !defined(__CUDACC__)
#include "trace.h"
#endif

namespace advkernels::cuda {

enum class DType : int8_t { Float, BFloat16, Float16 };

AK_FUNCTION int64_t item_size(DType type) { return type == DType::Float ? 4 : 2; }

// How a kernel reaches its elements: in vectors, where all tensors are dense in one order, or one by one.
enum class Path { Floats, Halves, Mixed, Strided };

// Elements of a vector: 16 bytes; where dtypes are mixed, 16 of float32 beside 8 of the half types.
template <Path path>
constexpr int kWidth = path == Path::Halves    ? 8
                       : path == Path::Strided ? 1
                                               : 4;

constexpr int width_of(Path path) {
    return path == Path::Halves ? kWidth<Path::Halves> : path == Path::Strided ? 1 : kWidth<Path::Mixed>;
}

struct alignas(16) Words4 {
    uint32_t words[4];
};
struct alignas(8) Words2 {
    uint32_t words[2];
};

template <int width>
struct Floats {
    float values[width];
};

template <typename T>
AK_FUNCTION T read(const char* address) {
#if defined(__CUDACC__)
    return *reinterpret_cast<const T*>(address);
#else
    return traced_read<T>(address);
#endif
}

template <typename T>
AK_FUNCTION void write(char* address, T value) {
#if defined(__CUDACC__)
    *reinterpret_cast<T*>(address) = value;
#else
    traced_write(address, value);
#endif
}

#if defined(__CUDACC__)
// In one access: compilers split a store of 16 bytes whose first half another branch writes too.
template <>
__device__ __forceinline__ void write<Words4>(char* address, Words4 value) {
    asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(address), "r"(value.words[0]), "r"(value.words[1]),
                 "r"(value.words[2]), "r"(value.words[3])
                 : "memory");
}
#endif

AK_FUNCTION float half_bits_to_float(uint32_t bits, DType type) {
    const uint16_t half = static_cast<uint16_t>(bits);
    return type == DType::BFloat16 ? to_float(BFloat16{half}) : to_float(Float16{half});
}

AK_FUNCTION uint32_t half_bits_from_float(float value, DType type) {
    return type == DType::BFloat16 ? from_float<BFloat16>(value).bits : from_float<Float16>(value).bits;
}

AK_FUNCTION float read_element(const char* data, DType type, int64_t offset) {
    return type == DType::Float ? read<float>(data + offset * 4)
                                : half_bits_to_float(read<uint16_t>(data + offset * 2), type);
}

AK_FUNCTION void write_element(char* data, DType type, int64_t offset, float value) {
    if (type == DType::Float) {
        write(data + offset * 4, value);
    } else {
        write(data + offset * 2, static_cast<uint16_t>(half_bits_from_float(value, type)));
    }
}

// Whether a vector of this path is float32 in memory.
template <Path path>
AK_FUNCTION bool is_float(DType type) {
    return path == Path::Floats || (path == Path::Mixed && type == DType::Float);
}

// The bits of a vector as they lie in memory: conversion comes later, so that all loads are in flight first.
template <Path path>
AK_FUNCTION Words4 read_vector(const char* data, DType type, int64_t first) {
    if (path == Path::Mixed && type != DType::Float) {
        const Words2 half = read<Words2>(data + first * 2);
        return {{half.words[0], half.words[1], 0, 0}};
    }
    return read<Words4>(data + first * (path == Path::Halves ? 2 : 4));
}

template <Path path>
AK_FUNCTION void write_vector(char* data, DType type, int64_t first, Words4 vector) {
    if (path == Path::Mixed && type != DType::Float) {
        write(data + first * 2, Words2{{vector.words[0], vector.words[1]}});
    } else {
        write(data + first * (path == Path::Halves ? 2 : 4), vector);
    }
}

template <typename T, int width>
AK_FUNCTION Floats<width> widen_halves(Words4 vector) {
    Floats<width> result;
    for (int i = 0; i < width; ++i) {
        result.values[i] = to_float(T{static_cast<uint16_t>(vector.words[i / 2] >> (16 * (i % 2)))});
    }
    return result;
}

template <typename T, int width>
AK_FUNCTION Words4 narrow_halves(const Floats<width>& source) {
    Words4 vector{};
    for (int i = 0; i < width / 2; ++i) {
        vector.words[i] = pack_floats<T>(source.values[2 * i], source.values[2 * i + 1]);
    }
    return vector;
}

template <Path path>
AK_FUNCTION Floats<kWidth<path>> widen(Words4 vector, DType type) {
    constexpr int width = kWidth<path>;
    if (!is_float<path>(type)) {
        return type == DType::BFloat16 ? widen_halves<BFloat16, width>(vector) : widen_halves<Float16, width>(vector);
    }
    Floats<width> result;
    for (int i = 0; i < 4; ++i) {
        result.values[i] = float_from_bits(vector.words[i]);
    }
    return result;
}

template <Path path>
AK_FUNCTION Words4 narrow(const Floats<kWidth<path>>& source, DType type) {
    constexpr int width = kWidth<path>;
    if (!is_float<path>(type)) {
        return type == DType::BFloat16 ? narrow_halves<BFloat16, width>(source) : narrow_halves<Float16, width>(source);
    }
    Words4 vector{};
    for (int i = 0; i < 4; ++i) {
        vector.words[i] = bits_from_float(source.values[i]);
    }
    return vector;
}

}  // namespace advkernels::cuda
