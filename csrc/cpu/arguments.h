// The arguments of a step and of a random start, checked and as their loops take them.
#pragma once

#include "loop.h"

namespace advkernels {

struct StepArguments {
    Loop loop;
    Operand delta, grad, x, out;
    BoundTables bounds;
    const bool* mask;
    int64_t mask_stride;
    bool has_out, per_sample, per_channel;

    bool active(int64_t sample) const { return mask == nullptr || mask[sample * mask_stride]; }
};

struct InitArguments {
    Loop loop;
    Operand delta, x, out;
    BoundTables bounds;
    const int64_t* sample_index;
    int64_t sample_index_stride;
    uint64_t seed, draw;
    bool has_out, per_sample, per_channel;

    // The number that a sample's random numbers hang on.
    int64_t sample_number(int64_t sample) const {
        return sample_index == nullptr ? sample : sample_index[sample * sample_index_stride];
    }
};

inline StepArguments step_arguments(const Loop& loop, const Tensor& delta, const Tensor& grad, const Tensor& x,
                                    const BoundTables& bounds, const std::optional<Tensor>& mask,
                                    const std::optional<Tensor>& out) {
    return {loop,
            operand(loop, delta),
            operand(loop, grad),
            operand(loop, x),
            out ? operand(loop, *out) : Operand{},
            bounds,
            mask ? static_cast<const bool*>(mask->data_ptr()) : nullptr,
            mask ? mask->stride(0) : 0,
            out.has_value(),
            mask.has_value() || bounds.per_sample(),
            bounds.per_channel()};
}

// `state` is (seed, draw).
inline InitArguments init_arguments(const Loop& loop, const Tensor& delta, const Tensor& x, const Tensor& state,
                                    const BoundTables& bounds, const std::optional<Tensor>& sample_index,
                                    const std::optional<Tensor>& out) {
    const int64_t* seed = static_cast<const int64_t*>(state.data_ptr());
    return {loop,
            operand(loop, delta),
            operand(loop, x),
            out ? operand(loop, *out) : Operand{},
            bounds,
            sample_index ? static_cast<const int64_t*>(sample_index->data_ptr()) : nullptr,
            sample_index ? sample_index->stride(0) : 0,
            static_cast<uint64_t>(seed[0]),
            static_cast<uint64_t>(seed[state.stride(0)]),
            out.has_value(),
            sample_index.has_value() || bounds.per_sample(),
            bounds.per_channel()};
}

inline void advance_draw(const Tensor& state) { static_cast<int64_t*>(state.data_ptr())[state.stride(0)] += 1; }

}  // namespace advkernels
