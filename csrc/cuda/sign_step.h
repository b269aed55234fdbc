// sign_step_, one thread's share of a launch, for host and device. No torch.
#pragma once

#include "bound_set.h"

namespace advkernels::cuda {

struct SignStep {
    enum { kDelta, kGrad, kX, kOut, kCount };
    Operands<kCount> operands;
    bool has_out;
    bool located;  // sample or channel of an element matter
    const bool* mask;
    int64_t mask_stride;
    Order order;
    BoundSet bounds;

    AK_FUNCTION const Array& array(int k) const { return operands.arrays[k]; }
    // A mask is looked at by the kernel that looks anywhere.
    Reach reach() const { return mask == nullptr ? bounds.reach() : Reach::Anywhere; }
    template <Reach reach>
    AK_FUNCTION bool active(int64_t sample) const {
        return reach != Reach::Anywhere || mask == nullptr || mask[sample * mask_stride];
    }
};

// Element i of the loop, which lies at these offsets.
template <Reach reach>
AK_FUNCTION void sign_step_element(const SignStep& a, const Bounds* staged, int64_t i,
                                   const Offsets<SignStep::kCount>& offsets) {
    const Position position = find_position<reach>(a.order, a.located, i);
    const Array &delta = a.array(SignStep::kDelta), &grad = a.array(SignStep::kGrad), &image = a.array(SignStep::kX);
    const float x = read_element(image.data, image.type, offsets.at[SignStep::kX]);
    if (a.active<reach>(position.sample)) {
        const Bounds bounds = find_bounds<reach>(a.bounds, staged, position.sample, channel(a.order, position));
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

template <Path path, Reach reach>
AK_FUNCTION void sign_step_vector(const SignStep& a, const Bounds* staged, int64_t first) {
    constexpr int width = kWidth<path>;
    const Array &delta = a.array(SignStep::kDelta), &grad = a.array(SignStep::kGrad), &image = a.array(SignStep::kX);
    Words4 delta_words = read_vector<path>(delta.data, delta.type, first);
    const Words4 grad_words = read_vector<path>(grad.data, grad.type, first);
    const Words4 x_words = read_vector<path>(image.data, image.type, first);
    const Position position = find_position<reach>(a.order, a.located, first);
    const Floats<width> x = widen<path>(x_words, image.type);
    if (a.active<reach>(position.sample)) {
        const Floats<width> g = widen<path>(grad_words, grad.type);
        Floats<width> d = widen<path>(delta_words, delta.type);
        visit_vector<width, reach>(a.bounds, a.order, staged, position, [&](int i, Bounds bounds) {
            d.values[i] = sign_step(d.values[i], g.values[i], x.values[i], bounds);
        });
        delta_words = narrow<path>(d, delta.type);
        write_vector<path>(delta.data, delta.type, first, delta_words);
    }
    if (a.has_out) {
        const Array& out = a.array(SignStep::kOut);
        Floats<width> adversarial = widen<path>(delta_words, delta.type);
        for (int i = 0; i < width; ++i) {
            adversarial.values[i] = x.values[i] + adversarial.values[i];
        }
        write_vector<path>(out.data, out.type, first, narrow<path>(adversarial, out.type));
    }
}

// What thread `thread` of all the grid's `threads` does.
template <Path path, Reach reach>
AK_FUNCTION void sign_step_thread(const Arguments<SignStep, path>& arguments, const Bounds* staged, int64_t thread,
                                  int64_t threads) {
    if constexpr (path == Path::Strided) {
        const SignStep& a = arguments.operation;
        for (int64_t i = thread; i < a.operands.numel; i += threads) {
            sign_step_element<reach>(a, staged, i, strided_offsets(arguments.walk, i));
        }
    } else {
        const SignStep& a = arguments;
        for (int64_t v = thread; v < a.operands.vectors; v += threads) {
            sign_step_vector<path, reach>(a, staged, a.operands.head + v * kWidth<path>);
        }
        for (int64_t s = thread; s < single_elements<path>(a.operands); s += threads) {
            const int64_t i = single_element<path>(a.operands, s);
            sign_step_element<reach>(a, staged, i, dense_offsets<SignStep::kCount>(i));
        }
    }
}

// `bounds` is planned before; out may be absent.
inline Walked<SignStep> plan_sign_step(const View& delta, const View& grad, const View& x, const View& out,
                                       const BoundSet& bounds, const bool* mask, int64_t mask_stride) {
    const View views[SignStep::kCount] = {delta, grad, x, out};
    const Loop loop = memory_loop(delta);
    Walked<SignStep> planned{{}, make_walk(loop, views)};
    SignStep& a = planned.operation;
    a.operands = plan(planned.walk, views);
    keep_vectors(a.operands, x, loop.channels_last, bounds, mask != nullptr);
    a.order = make_order(x, loop.channels_last, bounds.per_channel);
    a.bounds = bounds;
    a.mask = mask;
    a.mask_stride = mask_stride;
    a.has_out = out.present;
    a.located = bounds.per_channel || bounds.per_sample || mask != nullptr;
    return planned;
}

}  // namespace advkernels::cuda
