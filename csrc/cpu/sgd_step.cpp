// sgd_step_: SGD with momentum on float32 masters, every tensor of a list in one parallel loop.
#include <torch/csrc/stable/library.h>

#include "clones.h"
#include "loop.h"

namespace advkernels {
namespace {

constexpr const char* kName = "sgd_step_";

AK_CLONES void sgd_tile(float* __restrict w, const float* __restrict g, int64_t count, SgdSettings s) {
    for (int64_t i = 0; i < count; ++i) {
        w[i] = sgd_weight(w[i], sgd_gradient(w[i], g[i], s), s);
    }
}

template <bool nesterov>
AK_FUNCTION void momentum_loop(float* __restrict w, float* __restrict buffer, const float* __restrict g, int64_t count,
                               bool first, const SgdSettings& s) {
    for (int64_t i = 0; i < count; ++i) {
        const float gradient = sgd_gradient(w[i], g[i], s);
        buffer[i] = sgd_momentum(buffer[i], gradient, first, s);
        w[i] = sgd_weight(w[i], sgd_direction<nesterov>(gradient, buffer[i], s), s);
    }
}

AK_CLONES void sgd_momentum_tile(float* w, float* buffer, const float* g, int64_t count, bool first, SgdSettings s) {
    if (s.nesterov) {
        momentum_loop<true>(w, buffer, g, count, first, s);
    } else {
        momentum_loop<false>(w, buffer, g, count, first, s);
    }
}

struct Parameter {
    Loop loop;
    Operand param, grad, master, momentum;
    bool has_master;
    bool first;
};

// A piece of one parameter, small enough to share the work evenly.
struct Chunk {
    const Parameter* parameter;
    int64_t begin, end;
};

void update(const Chunk& chunk, bool has_momentum, const SgdSettings& settings) {
    const Parameter& p = *chunk.parameter;
    const Operand& weight = p.has_master ? p.master : p.param;
    TileBuffer weight_buffer, grad_buffer, momentum_buffer;
    const int64_t segment = within_runs(p.loop.numel, {&weight, &p.param, &p.grad, &p.momentum});
    for_each_tile(chunk.begin, chunk.end, segment, kTile, [&](int64_t begin, int64_t count) {
        const float* g = load(p.loop, p.grad, begin, count, grad_buffer.data());
        float* w = load_mutable(p.loop, weight, begin, count, weight_buffer.data());
        if (has_momentum) {
            float* buffer = load_mutable(p.loop, p.momentum, begin, count, momentum_buffer.data());
            sgd_momentum_tile(w, buffer, g, count, p.first, settings);
            store(p.loop, p.momentum, begin, count, buffer);
        } else {
            sgd_tile(w, g, count, settings);
        }
        store(p.loop, weight, begin, count, w);
        if (p.has_master) {
            store(p.loop, p.param, begin, count, w);
        }
    });
}

float scalar(const char* argument, const Tensor& tensor) {
    AK_REQUIRE(tensor.numel() == 1 && tensor.scalar_type() == ScalarType::Float && tensor.is_cpu(), kName, ": ",
               argument, ": wanted one float32 on the CPU");
    return *static_cast<const float*>(tensor.data_ptr());
}

void sgd_step_cpu(std::vector<Tensor> params, std::vector<Tensor> grads, std::vector<Tensor> masters,
                  std::vector<Tensor> momentum_buffers, std::vector<Tensor> steps, Tensor lr,
                  std::optional<Tensor> inv_scale, std::optional<Tensor> found_inf, double momentum, double dampening,
                  double weight_decay, bool nesterov, bool maximize) {
    const bool has_momentum = momentum != 0.0;
    check_sgd_step(kName, params, grads, masters, momentum_buffers, steps, has_momentum);
    const SgdSettings settings{scalar("lr", lr),
                               inv_scale ? scalar("inv_scale", *inv_scale) : 1.0f,
                               static_cast<float>(momentum),
                               static_cast<float>(1.0 - dampening),
                               static_cast<float>(weight_decay),
                               inv_scale.has_value(),
                               maximize,
                               nesterov};
    if (found_inf && scalar("found_inf", *found_inf) != 0.0f) {
        return;
    }
    std::vector<Parameter> parameters(params.size());
    std::vector<Chunk> chunks;
    for (size_t i = 0; i < params.size(); ++i) {
        const bool has_master = masters[i].numel() > 0;
        const Loop loop = memory_loop(params[i]);
        Parameter& p = parameters[i];
        p = {loop, operand(loop, params[i]), operand(loop, grads[i]), {}, {}, has_master, false};
        p.first = *static_cast<const int64_t*>(steps[i].data_ptr()) == 0;
        if (has_master) {
            p.master = operand(loop, masters[i]);
        }
        if (has_momentum) {
            p.momentum = operand(loop, momentum_buffers[i]);
        }
        for (int64_t begin = 0; begin < loop.numel; begin += kGrain) {
            chunks.push_back({&p, begin, std::min(begin + kGrain, loop.numel)});
        }
    }
    torch::stable::parallel_for(0, static_cast<int64_t>(chunks.size()), 1, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
            update(chunks[i], has_momentum, settings);
        }
    });
    for (const Tensor& step : steps) {
        *static_cast<int64_t*>(step.data_ptr()) += 1;
    }
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(advkernels, CPU, library) { library.impl("sgd_step_", TORCH_BOX(&sgd_step_cpu)); }

}  // namespace advkernels
