// sign_step_, one thread's share of a launch, for host and device. No torch.
#pragma once

#include "bound_set.h"

namespace advkernels::cuda {

struct SignStep {
    enum { kDelta, kGrad, kX, kOut, kCount };
    Operands<kCount> operands;
    Order order;
    BoundSet bounds;
    const bool* mask;
    int64_t mask_stride;
    bool has_out;
    bool located;  // sample or channel of an element matter

    AK_FUNCTION const Array& array(int k) const { return operands.arrays[k]; }
    AK_FUNCTION bool active(int64_t sample) const { return mask == nullptr || mask[sample * mask_stride]; }
};

// Element i of the loop, which lies at these offsets.
AK_FUNCTION void sign_step_element(const SignStep& a, const Bounds* staged, int64_t i,
                                   const Offsets<SignStep::kCount>& offsets) {
    const Position position = a.located ? locate(a.order, i) : Position{};
    const Array &delta = a.array(SignStep::kDelta), &grad = a.array(SignStep::kGrad), &image = a.array(SignStep::kX);
    const float x = read_element(image.data, image.type, offsets.at[SignStep::kX]);
    if (a.active(position.sample)) {
        const Bounds bounds = find_bounds(a.bounds, staged, position.sample, channel(a.order, position));
        const float d = read_element(delta.data, delta.type, offsets.at[SignStep::kDelta]);
        const float g = read_element(grad.data, grad.type, offsets.at[SignStep::kGrad]);
        write_element(delta.data, delta.type, offsets.at[SignStep::kDelta], sign_step(d, g, x, bounds));
    }
    if (a.has_out) {
        const Array& out = a.array(SignStep::kOut);
        const float stored = read_element(delta.data, delta.type, offsets.at[SignStep::kDelta]);
        write_element(out.data, out.type, offsets.at[SignStep::kOut], x + stored);
    }
}

template <Path path>
AK_FUNCTION void sign_step_vector(const SignStep& a, const Bounds* staged, int64_t first) {
    constexpr int width = kWidth<path>;
    constexpr uint32_t all = (1u << width) - 1;
    const Array &delta = a.array(SignStep::kDelta), &grad = a.array(SignStep::kGrad), &image = a.array(SignStep::kX);
    const Words4 delta_words = read_vector<path>(delta.data, delta.type, first);
    const Words4 grad_words = read_vector<path>(grad.data, grad.type, first);
    const Words4 x_words = read_vector<path>(image.data, image.type, first);
    Position position = a.located ? locate(a.order, first) : Position{};
    const bool one_segment = !a.located || in_one_segment(a.order, position, width);
    Bounds bounds = find_bounds(a.bounds, staged, position.sample, channel(a.order, position));
    bool active = a.active(position.sample);

    Floats<width> d = widen<path>(delta_words, delta.type);
    const Floats<width> g = widen<path>(grad_words, grad.type), x = widen<path>(x_words, image.type);
    uint32_t stepped = 0;
    for (int i = 0; i < width; ++i) {
        if (i > 0 && !one_segment) {
            advance(a.order, position);
            bounds = find_bounds(a.bounds, staged, position.sample, channel(a.order, position));
            active = a.active(position.sample);
        }
        if (active) {
            d.values[i] = sign_step(d.values[i], g.values[i], x.values[i], bounds);
            stepped |= 1u << i;
        }
    }

    const Words4 stored = narrow<path>(d, delta.type);
    if (stepped == all) {
        write_vector<path>(delta.data, delta.type, first, stored);
    } else {
        for (int i = 0; i < width; ++i) {  // a masked sample keeps its bits, those of a NaN too
            if (stepped >> i & 1) {
                write_element(delta.data, delta.type, first + i, d.values[i]);
            }
        }
    }
    if (a.has_out) {
        const Array& out = a.array(SignStep::kOut);
        Floats<width> adversarial = widen<path>(stored, delta.type);
        for (int i = 0; i < width; ++i) {
            adversarial.values[i] = x.values[i] + adversarial.values[i];
        }
        write_vector<path>(out.data, out.type, first, narrow<path>(adversarial, out.type));
    }
}

// What thread `thread` of all the grid's `threads` does.
template <Path path>
AK_FUNCTION void sign_step_thread(const SignStep& a, const Bounds* staged, int64_t thread, int64_t threads) {
    if constexpr (path == Path::Strided) {
        for (int64_t i = thread; i < a.operands.loop.numel; i += threads) {
            sign_step_element(a, staged, i, strided_offsets(a.operands, i));
        }
    } else {
        for (int64_t v = thread; v < a.operands.vectors; v += threads) {
            sign_step_vector<path>(a, staged, a.operands.head + v * kWidth<path>);
        }
        for (int64_t s = thread; s < single_elements<path>(a.operands); s += threads) {
            const int64_t i = single_element<path>(a.operands, s);
            sign_step_element(a, staged, i, dense_offsets<SignStep::kCount>(i));
        }
    }
}

// `bounds` is planned before; out may be absent.
inline SignStep plan_sign_step(const View& delta, const View& grad, const View& x, const View& out,
                               const BoundSet& bounds, const bool* mask, int64_t mask_stride) {
    const Loop loop = memory_loop(delta);
    return {plan<SignStep::kCount>(loop, {delta, grad, x, out}),
            make_order(x, loop.channels_last, bounds.per_channel),
            bounds,
            mask,
            mask_stride,
            out.present,
            bounds.per_channel || bounds.per_sample || mask != nullptr};
}

}  // namespace advkernels::cuda
