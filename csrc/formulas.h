// The arithmetic of every operation, one element at a time, for host and device. No torch.
// All of it is float32 with one rounding an operation: compile without contraction into fused multiply-adds.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__CUDACC__)
#define AK_FUNCTION __host__ __device__ __forceinline__
#else
#define AK_FUNCTION inline __attribute__((always_inline))
#endif

namespace advkernels {

// The four bounds of one element, in the units of x.
struct Bounds {
    float alpha;
    float epsilon;
    float lower;
    float upper;
};

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
#define AK_MIN_MAX_KEEP_NAN
#endif

// Clamp; a NaN in d passes through. Where the device has instructions that keep a NaN, one in the limits does too; else
// each select is one machine instruction.
AK_FUNCTION float clamp(float d, float low, float high) {
#if defined(AK_MIN_MAX_KEEP_NAN)
    float capped, result;
    asm("min.NaN.f32 %0, %1, %2;" : "=f"(capped) : "f"(d), "f"(high));
    asm("max.NaN.f32 %0, %1, %2;" : "=f"(result) : "f"(capped), "f"(low));
    return result;
#else
    const float capped = high < d ? high : d;
    return low > capped ? low : capped;
#endif
}

AK_FUNCTION float float_from_bits(uint32_t bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

AK_FUNCTION uint32_t bits_from_float(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}

// alpha sign(g); sign(NaN) = 0, as torch.sign. One comparison: those are what the loop's speed hangs on.
AK_FUNCTION float signed_step(float alpha, float g) {
    const float step = float_from_bits(bits_from_float(alpha) ^ (bits_from_float(g) & 0x80000000u));
    return g < 0.0f || g > 0.0f ? step : 0.0f;
}

// Into the box [lower, upper] of x + d; a NaN in d or x gives NaN, as torch.minimum and torch.maximum.
AK_FUNCTION float project(float d, float x, float lower, float upper) {
    const float projected = clamp(d, lower - x, upper - x);
#if defined(AK_MIN_MAX_KEEP_NAN)
    return projected;
#else
    return x == x ? projected : x;
#endif
}

AK_FUNCTION float sign_step(float d, float g, float x, Bounds b) {
    return project(clamp(d + signed_step(b.alpha, g), -b.epsilon, b.epsilon), x, b.lower, b.upper);
}

// U(-epsilon, epsilon) from 32 random bits, of which the upper 24 make u in [0, 1).
AK_FUNCTION float uniform(uint32_t bits, float epsilon) {
    const float u = static_cast<float>(static_cast<int32_t>(bits >> 8)) * 0x1p-24f;
    return u * (2.0f * epsilon) - epsilon;
}

AK_FUNCTION float uniform_init(uint32_t bits, float x, Bounds b) {
    return project(uniform(bits, b.epsilon), x, b.lower, b.upper);
}

struct SgdSettings {
    float lr;
    float inv_scale;
    float momentum;
    float undamped;  // 1 - dampening
    float weight_decay;
    bool scaled;
    bool maximize;
    bool nesterov;
};

// The gradient that the momentum sees.
AK_FUNCTION float sgd_gradient(float w, float g, const SgdSettings& s) {
    g = s.scaled ? g * s.inv_scale : g;
    g = s.maximize ? -g : g;
    return s.weight_decay != 0.0f ? g + s.weight_decay * w : g;
}

AK_FUNCTION float sgd_momentum(float buffer, float g, bool first, const SgdSettings& s) {
    return first ? g : s.momentum * buffer + s.undamped * g;
}

// The direction of the step: a template, since a branch on nesterov keeps compilers from vectorising the loop.
template <bool nesterov>
AK_FUNCTION float sgd_direction(float g, float buffer, const SgdSettings& s) {
    return nesterov ? g + s.momentum * buffer : buffer;
}

AK_FUNCTION float sgd_weight(float w, float step, const SgdSettings& s) { return w - s.lr * step; }

}  // namespace advkernels
