// The CUDA kernels' own code, run on the host over a whole grid or a part of it: doors for the tests.
#include "simulate.h"

#include <memory>

#include "cuda/augment.h"
#include "cuda/l2_init.h"
#include "cuda/l2_step.h"
#include "cuda/sgd_step.h"
#include "cuda/sign_step.h"
#include "cuda/uniform_init.h"
#include "simulate_grid.h"

namespace advkernels::cuda {
namespace {

// (address, sample stride, channel stride) of a table
using GivenTable = std::tuple<int64_t, int64_t, int64_t>;
using Values = std::vector<float>;  // rows of 1 or C floats

BoundSet bound_set(const Values& values, const std::vector<GivenTable>& given, const View& x) {
    if (!values.empty()) {
        return plan_values(values.data(), kBounds, static_cast<int64_t>(values.size()) / kBounds);
    }
    BoundTables tables;
    for (int i = 0; i < kBounds; ++i) {
        const auto& [address, sample_stride, channel_stride] = given.at(i);
        tables.tables[i] = {pointer<const float>(address), sample_stride, channel_stride};
    }
    return plan_tables(tables, x.channels(), x.numel() == 0);
}

// The bounds that a block keeps.
struct Staged {
    Bounds bounds[kStagedChannels];

    Staged(const BoundSet& set, int threads) {
        HostBlock{threads}([&](int thread, int count) { stage_bounds(set, bounds, thread, count); });
    }
};

// Runs sample(index, staged bounds, block's sums, block) for the samples of each block.
template <int count, typename Sample>
py::tuple record_samples(const Samples<count>& samples, const Grid& grid, const Sample& sample) {
    return record(name_of(samples.operands.path), grid, [&](int64_t block) {
        const Staged staged(samples.bounds, grid.threads);
        double sums[kBlockSums];
        for (int64_t index = block; index < samples.samples; index += grid.blocks) {
            sample(index, staged.bounds, sums, HostBlock{grid.threads});
        }
    });
}

py::tuple simulate_sign_step(const Given& delta, const Given& grad, const Given& x, const MaybeGiven& out,
                             const Values& values, const std::vector<GivenTable>& tables, int64_t mask,
                             int64_t mask_stride, const Grid& grid) {
    const Walked<SignStep> planned =
        plan_sign_step(view(delta), view(grad), view(x), view(out), bound_set(values, tables, view(x)),
                       pointer<const bool>(mask), mask_stride);
    const SignStep& a = planned.operation;
    return with_kernel(a.operands.path, a.reach(), [&]<Path path, Reach reach>() {
        return record(name_of(path), grid, [&](int64_t block) {
            const Staged staged(a.bounds, grid.threads);
            for (int thread = 0; thread < grid.threads; ++thread) {
                sign_step_thread<path, reach>(arguments_of<path>(planned), staged.bounds, block * grid.threads + thread,
                                              grid.blocks * grid.threads);
            }
        });
    });
}

DrawState draw_state(int64_t state, int64_t sample_index, int64_t sample_index_stride) {
    int64_t* seed = pointer<int64_t>(state);
    return {seed, seed + 1, pointer<const int64_t>(sample_index), sample_index_stride};
}

py::tuple simulate_uniform_init(const Given& delta, const Given& x, const MaybeGiven& out, int64_t state,
                                const Values& values, const std::vector<GivenTable>& tables, int64_t sample_index,
                                int64_t sample_index_stride, const Grid& grid) {
    const Walked<UniformInit> planned =
        plan_uniform_init(view(delta), view(x), view(out), bound_set(values, tables, view(x)),
                          draw_state(state, sample_index, sample_index_stride));
    const UniformInit& a = planned.operation;
    return with_kernel(a.operands.path, a.bounds.reach(), [&]<Path path, Reach reach>() {
        return record(a.tiles > 0 ? "tiles" : name_of(path), grid, [&](int64_t block) {
            const Staged staged(a.bounds, grid.threads);
            uint32_t bits[kTileBits];
            const PhiloxKey key = a.state.read_key();
            if constexpr (path != Path::Strided) {
                for (int64_t i = block; i < a.tiles; i += grid.blocks) {
                    const Tile tile = find_tile(a, i);
                    for (int thread = 0; thread < grid.threads; ++thread) {
                        draw_tile(a, key, tile, bits, thread, grid.threads);
                    }
                    for (int thread = 0; thread < grid.threads; ++thread) {
                        fill_tile<path, reach>(a, staged.bounds, tile, bits, thread, grid.threads);
                    }
                }
            }
            for (int thread = 0; thread < grid.threads && a.tiles == 0; ++thread) {
                uniform_init_thread<path, reach>(arguments_of<path>(planned), staged.bounds, key,
                                                 block * grid.threads + thread, grid.blocks * grid.threads);
            }
            a.state.take_ticket(grid.blocks);
        });
    });
}

py::tuple simulate_l2_step(const Given& delta, const Given& grad, const Given& x, const MaybeGiven& out,
                           const Values& values, const std::vector<GivenTable>& tables, int64_t mask,
                           int64_t mask_stride, const Grid& grid) {
    const L2Step a = plan_l2_step(view(delta), view(grad), view(x), view(out), bound_set(values, tables, view(x)),
                                  pointer<const bool>(mask), mask_stride);
    return record_samples(a.samples, grid, [&](int64_t sample, const Bounds* staged, double* sums, HostBlock block) {
        with_path(a.samples, [&]<Path path>() { l2_step_sample<path>(a, staged, sums, sample, block); });
    });
}

py::tuple simulate_l2_init(const Given& delta, const Given& x, const MaybeGiven& out, int64_t state,
                           const Values& values, const std::vector<GivenTable>& tables, int64_t sample_index,
                           int64_t sample_index_stride, const Grid& grid) {
    const L2Init a = plan_l2_init(view(delta), view(x), view(out), bound_set(values, tables, view(x)),
                                  draw_state(state, sample_index, sample_index_stride));
    const PhiloxKey key = a.state.read_key();
    py::tuple result =
        record_samples(a.samples, grid, [&](int64_t sample, const Bounds* staged, double* sums, HostBlock block) {
            with_path(a.samples, [&]<Path path>() { l2_init_sample<path>(a, staged, key, sums, sample, block); });
        });
    for (int64_t block = grid.first_block; block < grid.last_block; ++block) {
        a.state.take_ticket(grid.blocks);
    }
    return result;
}

// (address, stride) of mean and std; values: a row of 1 or C floats each.
using GivenScale = std::tuple<int64_t, int64_t>;

py::tuple simulate_augment(const Given& out, const Given& images, int64_t index, int64_t index_stride, int64_t state,
                           const Values& values, const std::vector<GivenScale>& tables, int64_t padding, bool flip,
                           const Grid& grid) {
    const View target = view(out), source = view(images);
    const auto table = [&](int which) {
        const auto& [address, stride] = tables.at(which);
        return BoundTable{pointer<const float>(address), 0, stride};
    };
    const Scales scales =
        values.empty() ? scales_on_device(table(0), table(1))
                       : scales_by_value(values.data(), static_cast<int64_t>(values.size()) / 2, source.channels());
    const AugmentStrided a =
        plan_augment(target, source, scales, draw_state(state, index, index_stride), padding, flip);
    const bool dense = is_dense(target, source);
    return record(dense ? "dense" : "strided", grid, [&](int64_t block) {
        const PhiloxKey key = read_key(a.augment);
        for (int thread = 0; thread < grid.threads; ++thread) {
            const int64_t place = block * grid.threads + thread, threads = grid.blocks * grid.threads;
            dense ? augment_thread(a.augment, key, place, threads) : augment_strided_thread(a, key, place, threads);
        }
    });
}

// (param, grad, master, momentum, address of the step counter)
using GivenParameter = std::tuple<Given, Given, MaybeGiven, MaybeGiven, int64_t>;

SgdViews sgd_views(const GivenParameter& given) {
    const auto& [param, grad, master, momentum, step] = given;
    return {view(param), view(grad), view(master), view(momentum), pointer<int64_t>(step)};
}

SgdShared sgd_shared(const std::vector<float>& numbers, bool maximize, bool nesterov, bool has_momentum,
                     const std::vector<int64_t>& device_scalars) {
    const auto scalar = [&](int i) { return pointer<const float>(device_scalars.at(i)); };
    SgdSettings settings{numbers.at(0),        1.0f,     numbers.at(1), numbers.at(2), numbers.at(3),
                         scalar(1) != nullptr, maximize, nesterov};
    return {settings, scalar(0), scalar(1), scalar(2), has_momentum};
}

py::tuple simulate_sgd_list(const std::vector<GivenParameter>& parameters, const SgdShared& shared, Grid grid) {
    auto list = std::make_unique<SgdList<kLargeList>>();
    list->shared = shared;
    for (const GivenParameter& parameter : parameters) {
        append(*list, sgd_views(parameter));
    }
    grid.blocks = list->blocks;
    grid.last_block = grid.last_block < 0 ? grid.blocks : grid.last_block;
    return record("list", grid, [&](int64_t block) {
        if (list->shared.skipped()) {
            return;
        }
        const int index = tensor_of_block(*list, block);
        const SgdTensor& tensor = list->tensor[index];
        const bool first = is_first(tensor.step);
        for (int thread = 0; thread < grid.threads; ++thread) {
            sgd_step_thread(tensor, block - tensor.first_block, first, list->shared.has_momentum, list->shared.read(),
                            thread, grid.threads);
        }
        StepTicket::take(tensor.step, blocks_of_tensor(*list, index));
    });
}

py::tuple simulate_sgd_strided(const GivenParameter& parameter, const SgdShared& shared, const Grid& grid) {
    const SgdStrided a = plan_sgd_strided(shared, sgd_views(parameter));
    return record("strided", grid, [&](int64_t block) {
        if (a.shared.skipped()) {
            return;
        }
        const bool first = is_first(a.step);
        for (int thread = 0; thread < grid.threads; ++thread) {
            sgd_step_strided_thread(a, first, a.shared.read(), block * grid.threads + thread,
                                    grid.blocks * grid.threads);
        }
        StepTicket::take(a.step, grid.blocks);
    });
}

}  // namespace

void bind_simulation(py::module_& module) {
    py::class_<Grid>(module, "Grid")
        .def(py::init<int64_t, int, int64_t, int64_t, bool>(), py::arg("blocks"), py::arg("threads"),
             py::arg("first_block"), py::arg("last_block"), py::arg("dry") = false);
    py::class_<SgdShared>(module, "SgdShared").def(py::init(&sgd_shared));
    module.def("simulate_sign_step", &simulate_sign_step);
    module.def("simulate_uniform_init", &simulate_uniform_init);
    module.def("simulate_l2_step", &simulate_l2_step);
    module.def("simulate_l2_init", &simulate_l2_init);
    module.def("simulate_augment", &simulate_augment);
    module.def("simulate_sgd_list", &simulate_sgd_list);
    module.def("simulate_sgd_strided", &simulate_sgd_strided);
    bind_normalization_simulation(module);
    module.def("shares_order", [](const GivenParameter& given) { return shares_order(sgd_views(given)); });
    module.def("divide", [](int64_t n, int64_t d) { return make_divisor(d).divide(n); });
}

}  // namespace advkernels::cuda
