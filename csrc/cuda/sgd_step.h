// sgd_step_, one thread's share of a launch over a list of tensors, for host and device. No torch.
#pragma once

#include "layout.h"
#include "ticket.h"

namespace advkernels::cuda {

using StepTicket = Ticket<40>;    // 2^40 steps, 2^23 blocks a tensor
constexpr int64_t kChunk = 4096;  // elements of a block
constexpr int kSmallList = 64;    // tensors whose table takes under 4 KB of arguments
constexpr int kLargeList = 560;   // and under the 32764 bytes that a launch can take

// What all tensors of a launch share; null pointers where a scalar comes by value or is absent.
struct SgdShared {
    SgdSettings settings;
    const float* lr;
    const float* inv_scale;
    const float* found_inf;
    bool has_momentum;

    AK_FUNCTION bool skipped() const { return found_inf != nullptr && *found_inf != 0.0f; }
    AK_FUNCTION SgdSettings read() const {
        SgdSettings result = settings;
        result.lr = lr == nullptr ? settings.lr : *lr;
        result.inv_scale = inv_scale == nullptr ? 1.0f : *inv_scale;
        return result;
    }
};

// The tensors of one parameter, dense in one order; master and momentum are null where absent.
struct SgdTensor {
    char *param, *grad, *master, *momentum;
    int64_t* step;
    int64_t numel;
    int32_t first_block;
    DType param_type, grad_type, momentum_type;
    bool aligned;  // for vectors
};

template <int capacity>
struct SgdList {
    SgdShared shared;
    int32_t tensors;
    int32_t blocks;
    SgdTensor tensor[capacity];
};

static_assert(sizeof(SgdList<kLargeList>) <= 32764);

// One parameter whose tensors do not share an order.
struct SgdStrided {
    enum { kParam, kGrad, kMaster, kMomentum, kCount };
    SgdShared shared;
    Operands<kCount> operands;
    Walk<kCount> walk;
    int64_t* step;
};

AK_FUNCTION void sgd_update(float& w, float& buffer, float g, bool first, bool has_momentum, const SgdSettings& s) {
    const float gradient = sgd_gradient(w, g, s);
    if (has_momentum) {
        buffer = sgd_momentum(buffer, gradient, first, s);
        w = sgd_weight(
            w, s.nesterov ? sgd_direction<true>(gradient, buffer, s) : sgd_direction<false>(gradient, buffer, s), s);
    } else {
        w = sgd_weight(w, gradient, s);
    }
}

// Whether a tensor's first update is to come.
AK_FUNCTION bool is_first(const int64_t* step) { return StepTicket::count(read_counter(step)) == 0; }

struct SgdArrays {
    char *param, *grad, *master, *momentum;
    DType param_type, grad_type, momentum_type;
};

AK_FUNCTION void sgd_element(const SgdArrays& t, const Offsets<SgdStrided::kCount>& offsets, bool first,
                             bool has_momentum, const SgdSettings& settings) {
    const int64_t param_at = offsets.at[SgdStrided::kParam], momentum_at = offsets.at[SgdStrided::kMomentum];
    const int64_t master_at = offsets.at[SgdStrided::kMaster];
    float w = t.master != nullptr ? read_element(t.master, DType::Float, master_at)
                                  : read_element(t.param, t.param_type, param_at);
    float buffer = has_momentum ? read_element(t.momentum, t.momentum_type, momentum_at) : 0.0f;
    const float g = read_element(t.grad, t.grad_type, offsets.at[SgdStrided::kGrad]);
    sgd_update(w, buffer, g, first, has_momentum, settings);
    if (has_momentum) {
        write_element(t.momentum, t.momentum_type, momentum_at, buffer);
    }
    if (t.master != nullptr) {
        write_element(t.master, DType::Float, master_at, w);
    }
    write_element(t.param, t.param_type, param_at, w);
}

AK_FUNCTION void sgd_vector(const SgdTensor& t, int64_t first_element, bool first, bool has_momentum,
                            const SgdSettings& settings) {
    constexpr Path path = Path::Mixed;
    constexpr int width = kWidth<path>;
    const bool has_master = t.master != nullptr;
    const DType weight_type = has_master ? DType::Float : t.param_type;
    const Words4 grad_words = read_vector<path>(t.grad, t.grad_type, first_element);
    const Words4 weight_words = read_vector<path>(has_master ? t.master : t.param, weight_type, first_element);
    const Words4 momentum_words =
        has_momentum ? read_vector<path>(t.momentum, t.momentum_type, first_element) : Words4{};
    const Floats<width> g = widen<path>(grad_words, t.grad_type);
    Floats<width> w = widen<path>(weight_words, weight_type), buffer = widen<path>(momentum_words, t.momentum_type);
    for (int i = 0; i < width; ++i) {
        sgd_update(w.values[i], buffer.values[i], g.values[i], first, has_momentum, settings);
    }
    if (has_momentum) {
        write_vector<path>(t.momentum, t.momentum_type, first_element, narrow<path>(buffer, t.momentum_type));
    }
    if (has_master) {
        write_vector<path>(t.master, DType::Float, first_element, narrow<path>(w, DType::Float));
    }
    write_vector<path>(t.param, t.param_type, first_element, narrow<path>(w, t.param_type));
}

// The tensor that a block works on.
template <int capacity>
AK_FUNCTION int tensor_of_block(const SgdList<capacity>& list, int64_t block) {
    int low = 0, high = list.tensors - 1;
    while (low < high) {
        const int middle = (low + high + 1) / 2;
        if (list.tensor[middle].first_block <= block) {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    return low;
}

// Blocks that read the step counter of a tensor.
template <int capacity>
AK_FUNCTION int64_t blocks_of_tensor(const SgdList<capacity>& list, int index) {
    const int32_t end = index + 1 < list.tensors ? list.tensor[index + 1].first_block : list.blocks;
    return end - list.tensor[index].first_block;
}

// What thread `thread` of the block's `threads` does in chunk `chunk` of a tensor.
AK_FUNCTION void sgd_step_thread(const SgdTensor& t, int64_t chunk, bool first, bool has_momentum,
                                 const SgdSettings& settings, int thread, int threads) {
    constexpr int width = kWidth<Path::Mixed>;
    const int64_t begin = chunk * kChunk;
    const int64_t end = begin + kChunk < t.numel ? begin + kChunk : t.numel;
    int64_t singles = begin;
    if (t.aligned) {
        for (int64_t i = begin + int64_t{thread} * width; i + width <= end; i += int64_t{threads} * width) {
            sgd_vector(t, i, first, has_momentum, settings);
        }
        singles = end - (end - begin) % width;
    }
    const SgdArrays arrays{t.param, t.grad, t.master, t.momentum, t.param_type, t.grad_type, t.momentum_type};
    for (int64_t i = singles + thread; i < end; i += threads) {
        sgd_element(arrays, dense_offsets<SgdStrided::kCount>(i), first, has_momentum, settings);
    }
}

AK_FUNCTION void sgd_step_strided_thread(const SgdStrided& a, bool first, const SgdSettings& settings, int64_t thread,
                                         int64_t threads) {
    const Array(&t)[SgdStrided::kCount] = a.operands.arrays;
    const SgdArrays arrays{t[SgdStrided::kParam].data,    t[SgdStrided::kGrad].data,  t[SgdStrided::kMaster].data,
                           t[SgdStrided::kMomentum].data, t[SgdStrided::kParam].type, t[SgdStrided::kGrad].type,
                           t[SgdStrided::kMomentum].type};
    for (int64_t i = thread; i < a.operands.numel; i += threads) {
        sgd_element(arrays, strided_offsets(a.walk, i), first, a.shared.has_momentum, settings);
    }
}

// One parameter as the host sees it; master and momentum may be absent.
struct SgdViews {
    View param, grad, master, momentum;
    int64_t* step;
};

inline SgdStrided plan_sgd_strided(const SgdShared& shared, const SgdViews& v) {
    const View views[SgdStrided::kCount] = {v.param, v.grad, v.master, v.momentum};
    const Walk<SgdStrided::kCount> walk = make_walk(memory_loop(v.param), views);
    return {shared, plan(walk, views), walk, v.step};
}

// Whether the tensors of a parameter are dense in one order, as the list needs them.
inline bool shares_order(const SgdViews& v) {
    const Loop loop = memory_loop(v.param);
    bool dense = true;
    for (const View* view : {&v.param, &v.grad, &v.master, &v.momentum}) {
        dense = dense && (!view->present || is_dense(loop, make_strides(loop, *view)));
    }
    return dense;
}

inline int64_t chunks_of(int64_t numel) { return numel > 0 ? (numel + kChunk - 1) / kChunk : 1; }

// Puts a parameter that shares_order into a list with room for it.
template <int capacity>
void append(SgdList<capacity>& list, const SgdViews& v) {
    const int width = kWidth<Path::Mixed>;
    bool aligned = true;
    for (const View* view : {&v.param, &v.grad, &v.master, &v.momentum}) {
        aligned = aligned && (!view->present || elements_to_alignment({view->data, view->type}, width) == 0);
    }
    list.tensor[list.tensors] = {v.param.data,    v.grad.data,  v.master.present ? v.master.data : nullptr,
                                 v.momentum.data, v.step,       v.param.numel(),
                                 list.blocks,     v.param.type, v.grad.type,
                                 v.momentum.type, aligned};
    list.tensors += 1;
    list.blocks += static_cast<int32_t>(chunks_of(v.param.numel()));
}

}  // namespace advkernels::cuda
