// bfloat16 and float16 to float32 and back in integer arithmetic, round to nearest even, no branch: every compiler
// vectorises it, with or without half-precision instructions. On the device one instruction, the same numbers. No
// torch.
#pragma once

#include <type_traits>

#include "formulas.h"

namespace advkernels {

struct BFloat16 {
    uint16_t bits;
};
struct Float16 {
    uint16_t bits;
};

AK_FUNCTION float to_float(float value) { return value; }

AK_FUNCTION float to_float(BFloat16 value) { return float_from_bits(static_cast<uint32_t>(value.bits) << 16); }

AK_FUNCTION float to_float(Float16 value) {
#if defined(__CUDA_ARCH__)
    float result;
    asm("cvt.f32.f16 %0, %1;" : "=f"(result) : "h"(value.bits));
    return result;
#else
    const uint32_t magnitude = value.bits & 0x7FFFu;
    const uint32_t sign = static_cast<uint32_t>(value.bits & 0x8000u) << 16;
    const uint32_t normal = (magnitude << 13) + 0x38000000u;
    // 2^-14 (1 + m) - 2^-14 = 2^-14 m, exact and without a float32 subnormal.
    const uint32_t subnormal = bits_from_float(float_from_bits((magnitude << 13) + 0x38800000u) - 0x1p-14f);
    const uint32_t finite = magnitude < 0x0400u ? subnormal : normal;
    const uint32_t special = (magnitude << 13) | 0x7F800000u;
    return float_from_bits(sign | (magnitude >= 0x7C00u ? special : finite));
#endif
}

template <typename T>
T from_float(float value);

template <>
AK_FUNCTION float from_float<float>(float value) {
    return value;
}

template <>
AK_FUNCTION BFloat16 from_float<BFloat16>(float value) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    BFloat16 result;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(result.bits) : "f"(value));
    return result;
#else
    const uint32_t bits = bits_from_float(value);
    const uint32_t rounded = (bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16;
    const uint32_t quiet_nan = (bits >> 16) | 0x40u;
    return {static_cast<uint16_t>((bits & 0x7FFFFFFFu) > 0x7F800000u ? quiet_nan : rounded)};
#endif
}

template <>
AK_FUNCTION Float16 from_float<Float16>(float value) {
#if defined(__CUDA_ARCH__)
    Float16 result;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(result.bits) : "f"(value));
    return result;
#else
    const uint32_t bits = bits_from_float(value);
    const uint32_t sign = (bits >> 16) & 0x8000u;
    const uint32_t magnitude = bits & 0x7FFFFFFFu;
    // Normal: rebias by integer subtraction and round to even on the 13 bits that go.
    const uint32_t normal = (magnitude - 0x38000000u + 0x0FFFu + ((magnitude >> 13) & 1u)) >> 13;
    // Subnormal: adding 0.5 aligns the mantissa to 2^-24, the float unit rounds to even.
    const uint32_t subnormal = bits_from_float(float_from_bits(magnitude) + 0.5f) - 0x3F000000u;
    // 0x477FF000 = 65520, the first value that rounds to infinity.
    const uint32_t special = magnitude > 0x7F800000u ? 0x7E00u : 0x7C00u;
    const uint32_t finite = magnitude < 0x38800000u ? subnormal : normal;
    return {static_cast<uint16_t>(sign | (magnitude >= 0x477FF000u ? special : finite))};
#endif
}

// Two elements of a half type in a word, the first in its lower half.
template <typename T>
AK_FUNCTION uint32_t pack_floats(float first, float second) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    uint32_t word;
    if constexpr (std::is_same_v<T, BFloat16>) {
        asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(second), "f"(first));
    } else {
        asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(second), "f"(first));
    }
    return word;
#else
    return from_float<T>(first).bits | static_cast<uint32_t>(from_float<T>(second).bits) << 16;
#endif
}

}  // namespace advkernels
