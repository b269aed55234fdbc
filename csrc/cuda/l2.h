// What the l2 operations share: a block has a sample, each thread four of its lanes. For host and device. No torch.
//
// A block runs in phases: between two of them all its threads wait for each other. `Block` is how it does so: a phase
// is a function of a thread and the number of threads; `block(phase)` runs it for all.
#pragma once

#include "../l2.h"
#include "bound_set.h"

namespace advkernels::cuda {

constexpr int kQuads = kLanes / 4;      // one a thread, in a block of 256
constexpr int kBlockSums = kLanes + 1;  // float64 of a block's shared memory: the lanes, and their sum

// From one of a quad's four elements to the next: neighbours make a vector; where elements are reached one by one,
// neighbours belong to neighbouring threads.
template <Path path>
constexpr int kApart = path == Path::Strided ? kQuads : 1;

// The first element of a quad in the first round of the lanes.
template <Path path>
AK_FUNCTION int first_of_quad(int quad) {
    return path == Path::Strided ? quad : quad * 4;
}

// The tensors of a launch over samples, which lie in logical order, in vectors or one by one.
template <int count>
struct Samples {
    Operands<count> operands;
    BoundSet bounds;
    Walk<count> walk;
    Divisor spatial_size;
    int64_t samples, sample_size;

    AK_FUNCTION Bounds bounds_at(const Bounds* staged, int64_t sample, int64_t element) const {
        return find_bounds<Reach::Anywhere>(bounds, staged, sample,
                                            bounds.per_channel ? spatial_size.divide(element) : 0);
    }
};

// Where an element of a sample lies in a tensor.
template <int count>
AK_FUNCTION int64_t strided_offset(const Samples<count>& s, int k, int64_t sample, int64_t element) {
    const Loop& loop = s.walk.loop;
    const Strides& strides = s.walk.strides[k];
    int64_t offset = sample * strides.at[0];
#if defined(__CUDACC__)
#pragma unroll 1
#endif
    for (int dim = loop.dims - 1; dim > 1; --dim) {
        const Divisor& size = loop.sizes[dim];
        const int64_t outer = size.divide(element);
        offset += (element - outer * size.value) * strides.at[dim];
        element = outer;
    }
    return loop.dims > 1 ? offset + element * strides.at[1] : offset;
}

// Calls visit<path>(): Floats, Mixed or Strided.
template <int count, typename Visit>
void with_path(const Samples<count>& s, const Visit& visit) {
    switch (s.operands.path) {
        case Path::Floats:
            return visit.template operator()<Path::Floats>();
        case Path::Mixed:
            return visit.template operator()<Path::Mixed>();
        default:
            return visit.template operator()<Path::Strided>();
    }
}

// Whether place j of a quad at `element` of a sample is within it.
template <Path path, int count>
AK_FUNCTION bool within(const Samples<count>& s, int64_t element, int j) {
    return path != Path::Strided || element + j * kApart<path> < s.sample_size;
}

// The four elements of a quad; zeros behind the sample's end.
template <Path path, int count>
AK_FUNCTION Floats<4> read_quad(const Samples<count>& s, int k, int64_t sample, int64_t element) {
    const Array& array = s.operands.arrays[k];
    if constexpr (path != Path::Strided) {
        return widen<path>(read_vector<path>(array.data, array.type, sample * s.sample_size + element), array.type);
    } else {
        Floats<4> quad{};
        for (int j = 0; j < 4; ++j) {
            if (within<path>(s, element, j)) {
                const int64_t offset = strided_offset(s, k, sample, element + j * kApart<path>);
                quad.values[j] = read_element(array.data, array.type, offset);
            }
        }
        return quad;
    }
}

template <Path path, int count>
AK_FUNCTION void write_quad(const Samples<count>& s, int k, int64_t sample, int64_t element, const Floats<4>& quad) {
    const Array& array = s.operands.arrays[k];
    if constexpr (path != Path::Strided) {
        const Words4 words = narrow<path>(quad, array.type);
        write_vector<path>(array.data, array.type, sample * s.sample_size + element, words);
    } else {
        for (int j = 0; j < 4; ++j) {
            if (within<path>(s, element, j)) {
                const int64_t offset = strided_offset(s, k, sample, element + j * kApart<path>);
                write_element(array.data, array.type, offset, quad.values[j]);
            }
        }
    }
}

// As a tensor of the type holds it.
AK_FUNCTION float as_stored(float value, DType type) {
    return type == DType::Float ? value : half_bits_to_float(half_bits_from_float(value, type), type);
}

// out = x + d as a tensor of delta's type holds it
template <Path path, int count>
AK_FUNCTION void write_sum(const Samples<count>& s, int out, int64_t sample, int64_t element, const Floats<4>& x,
                           Floats<4> d, DType delta_type) {
    for (int j = 0; j < 4; ++j) {
        d.values[j] = x.values[j] + as_stored(d.values[j], delta_type);
    }
    write_quad<path>(s, out, sample, element, d);
}

// Calls visit(j, bounds) for the four elements of a quad that are within the sample.
template <Path path, int count, typename Visit>
AK_FUNCTION void visit_quad(const Samples<count>& s, const Bounds* staged, int64_t sample, int64_t element,
                            const Visit& visit) {
    const Bounds first = s.bounds_at(staged, sample, element);
    const bool one_channel = !s.bounds.per_channel || (path != Path::Strided && s.spatial_size.divide(element) ==
                                                                                    s.spatial_size.divide(element + 3));
    for (int j = 0; j < 4; ++j) {
        if (within<path>(s, element, j)) {
            visit(j, j == 0 || one_channel ? first : s.bounds_at(staged, sample, element + j * kApart<path>));
        }
    }
}

// Calls visit(element) for each quad of a sample that is the thread's.
template <Path path, typename Visit>
AK_FUNCTION void for_each_quad(int64_t sample_size, int quad, const Visit& visit) {
#if defined(__CUDACC__)
#pragma unroll 1  // a kernel of 13,000 instructions otherwise
#endif
    for (int64_t element = first_of_quad<path>(quad); element < sample_size; element += kLanes) {
        visit(element);
    }
}

// A phase: sums over the thread's lanes, add(element, sums) adding a quad's squares to four of them.
template <Path path, typename Add>
AK_FUNCTION void sum_lanes(int64_t sample_size, double* sums, int thread, int threads, const Add& add) {
    for (int quad = thread; quad < kQuads; quad += threads) {
        double mine[4] = {};
        for_each_quad<path>(sample_size, quad, [&](int64_t element) { add(element, mine); });
        for (int j = 0; j < 4; ++j) {
            sums[first_of_quad<path>(quad) + j * kApart<path>] = mine[j];
        }
    }
}

// Phases: from the lanes' sums to the norm. It comes to a place of its own: the next sums may be written while a slow
// thread still reads it.
template <typename Block>
AK_FUNCTION double block_norm(double* sums, const Block& block) {
    for (int quarter = kLanes / 4; quarter > 0; quarter /= 4) {
        block([&](int thread, int threads) {
            double* target = quarter > 1 ? sums : sums + kLanes;
            for (int i = thread; i < quarter; i += threads) {
                target[i] = fold_lanes(sums, i, quarter);
            }
        });
    }
    return sqrt(sums[kLanes]);
}

// Joins the last two dimensions behind the samples while they lie so in all tensors: fewer divisions an element.
template <int count>
void join_dimensions(Walk<count>& walk) {
    Loop& loop = walk.loop;
    const auto joins = [&](const Strides& strides) {
        const int last = loop.dims - 1;
        return strides.at[last - 1] == strides.at[last] * loop.sizes[last].value;
    };
    while (loop.dims > 2 && std::all_of(walk.strides, walk.strides + count, joins)) {
        const int last = --loop.dims;
        loop.sizes[last - 1] = make_divisor(loop.sizes[last - 1].value * loop.sizes[last].value);
        for (Strides& strides : walk.strides) {
            strides.at[last - 1] = strides.at[last];
        }
    }
}

// Vectors where all tensors are dense in logical order and every sample begins with an aligned one.
template <int count>
Samples<count> plan_samples(const View (&views)[count], const View& x, const BoundSet& bounds) {
    const Walk<count> walk = make_walk(make_loop(x, false), views);
    Samples<count> s{plan(walk, views), bounds, walk, make_divisor(x.spatial_size()), x.samples(), x.sample_size()};
    if (s.operands.head > 0 || s.sample_size % 4 != 0) {
        s.operands.path = Path::Strided;
    } else if (s.operands.path == Path::Halves) {
        s.operands.path = Path::Mixed;  // of 8 bytes: a thread has four lanes
    }
    join_dimensions(s.walk);
    return s;
}

}  // namespace advkernels::cuda
