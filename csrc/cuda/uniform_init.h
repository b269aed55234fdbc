// uniform_init_, one thread's share of a launch, for host and device. No torch.
#pragma once

#include "bound_set.h"
#include "draw.h"

namespace advkernels::cuda {

constexpr int64_t kTileBits = 2048;  // random words that a block of channels-last keeps in shared memory

struct UniformInit {
    enum { kDelta, kX, kOut, kCount };
    Operands<kCount> operands;
    DrawState state;
    bool has_out;
    bool located;  // sample or channel of an element matter to its bounds
    Divisor sample_size;
    Order order;
    BoundSet bounds;
    // Channels last: four neighbouring pixels of a sample, a quad, share one group of random words a channel.
    Divisor quads_per_sample, channels;
    int64_t quads;
    int64_t tile_quads;
    int64_t tiles;  // 0 where the path has none

    AK_FUNCTION const Array& array(int k) const { return operands.arrays[k]; }
    // The element's index in N, C, H, W order that its random number hangs on.
    AK_FUNCTION int64_t logical_index(int64_t i) const {
        if (state.sample_index == nullptr) {
            return i;
        }
        const int64_t sample = sample_size.divide(i);
        return state.sample_number(sample) * sample_size.value + i - sample * sample_size.value;
    }
};

// Element i of the loop with its random bits, at these offsets.
template <Reach reach>
AK_FUNCTION void uniform_init_element(const UniformInit& a, const Bounds* staged, int64_t i, uint32_t bits,
                                      const Offsets<UniformInit::kCount>& offsets) {
    const Array &delta = a.array(UniformInit::kDelta), &image = a.array(UniformInit::kX);
    const Position position = find_position<reach>(a.order, a.located, i);
    const Bounds bounds = find_bounds<reach>(a.bounds, staged, position.sample, channel(a.order, position));
    const float x = read_element(image.data, image.type, offsets.at[UniformInit::kX]);
    write_element(delta.data, delta.type, offsets.at[UniformInit::kDelta], uniform_init(bits, x, bounds));
    if (a.has_out) {
        const Array& out = a.array(UniformInit::kOut);
        const float stored = read_element(delta.data, delta.type, offsets.at[UniformInit::kDelta]);
        write_element(out.data, out.type, offsets.at[UniformInit::kOut], x + stored);
    }
}

template <int width>
struct RandomBits {
    uint32_t bits[width];
};

// The vector at `first` of the loop; draw() gives its RandomBits, after the load that it need not wait for.
template <Path path, Reach reach, typename Draw>
AK_FUNCTION void uniform_init_vector(const UniformInit& a, const Bounds* staged, int64_t first, const Draw& draw) {
    constexpr int width = kWidth<path>;
    const Array &delta = a.array(UniformInit::kDelta), &image = a.array(UniformInit::kX);
    const Words4 x_words = read_vector<path>(image.data, image.type, first);
    const RandomBits<width> random = draw();
    const Position position = find_position<reach>(a.order, a.located, first);
    const Floats<width> x = widen<path>(x_words, image.type);
    Floats<width> d;
    visit_vector<width, reach>(a.bounds, a.order, staged, position, [&](int i, Bounds bounds) {
        d.values[i] = uniform_init(random.bits[i], x.values[i], bounds);
    });
    const Words4 stored = narrow<path>(d, delta.type);
    write_vector<path>(delta.data, delta.type, first, stored);
    if (a.has_out) {
        const Array& out = a.array(UniformInit::kOut);
        Floats<width> adversarial = widen<path>(stored, delta.type);
        for (int i = 0; i < width; ++i) {
            adversarial.values[i] = x.values[i] + adversarial.values[i];
        }
        write_vector<path>(out.data, out.type, first, narrow<path>(adversarial, out.type));
    }
}

// The random bits of the elements from `first` on, a multiple of 4.
template <int width>
AK_FUNCTION RandomBits<width> random_vector(const UniformInit& a, PhiloxKey key, int64_t first) {
    constexpr int groups = width / 4;
    Philox4 words[groups];
    for (int i = 0; i < groups; ++i) {
        words[i] = counter_of(key, a.logical_index(first + 4 * i));
    }
    philox_all(words, static_cast<uint32_t>(key.seed), static_cast<uint32_t>(key.seed >> 32));
    RandomBits<width> random;
    for (int i = 0; i < groups; ++i) {
        random.bits[4 * i] = words[i].w0;
        random.bits[4 * i + 1] = words[i].w1;
        random.bits[4 * i + 2] = words[i].w2;
        random.bits[4 * i + 3] = words[i].w3;
    }
    return random;
}

// Logical order: what thread `thread` of all the grid's `threads` does.
template <Path path, Reach reach>
AK_FUNCTION void uniform_init_thread(const Arguments<UniformInit, path>& arguments, const Bounds* staged, PhiloxKey key,
                                     int64_t thread, int64_t threads) {
    const UniformInit& a = operation_of(arguments);
    if constexpr (path == Path::Strided) {
        for (int64_t i = thread; i < a.operands.numel; i += threads) {
            const int64_t logical = a.logical_index(i);
            const uint32_t bits = lane_of(random_words(key, logical), logical);
            uniform_init_element<reach>(a, staged, i, bits, strided_offsets(arguments.walk, i));
        }
    } else {
        constexpr int width = kWidth<path>;
        for (int64_t v = thread; v < a.operands.vectors; v += threads) {
            uniform_init_vector<path, reach>(a, staged, v * width,
                                             [&] { return random_vector<width>(a, key, v * width); });
        }
        for (int64_t s = thread; s < single_elements<path>(a.operands); s += threads) {
            const int64_t i = single_element<path>(a.operands, s);
            const int64_t logical = a.logical_index(i);
            const uint32_t bits = lane_of(random_words(key, logical), logical);
            uniform_init_element<reach>(a, staged, i, bits, dense_offsets<UniformInit::kCount>(i));
        }
    }
}

// Channels last: the quads of a tile, and the elements that they are in memory.
struct Tile {
    int64_t first_quad;
    int64_t quads;
};

AK_FUNCTION Tile find_tile(const UniformInit& a, int64_t tile) {
    const int64_t first = tile * a.tile_quads;
    const int64_t rest = a.quads - first;
    return {first, rest < a.tile_quads ? rest : a.tile_quads};
}

// First phase: the block's threads put the tile's random words where the elements will be.
AK_FUNCTION void draw_tile(const UniformInit& a, PhiloxKey key, Tile tile, uint32_t* bits, int thread, int threads) {
    const int64_t channels = a.channels.value, spatial = a.quads_per_sample.value * 4;
    for (int64_t k = thread; k < tile.quads * channels; k += threads) {
        const int64_t quad_in_tile = a.channels.divide(k), channel = k - quad_in_tile * channels;
        const int64_t quad = tile.first_quad + quad_in_tile;
        const int64_t sample = a.quads_per_sample.divide(quad);
        const int64_t pixel = (quad - sample * a.quads_per_sample.value) * 4;
        const Philox4 words = random_words(key, (a.state.sample_number(sample) * channels + channel) * spatial + pixel);
        uint32_t* target = bits + quad_in_tile * 4 * channels + channel;
        target[0] = words.w0;
        target[channels] = words.w1;
        target[2 * channels] = words.w2;
        target[3 * channels] = words.w3;
    }
}

// Second phase, once all random words are there.
template <Path path, Reach reach>
AK_FUNCTION void fill_tile(const UniformInit& a, const Bounds* staged, Tile tile, const uint32_t* bits, int thread,
                           int threads) {
    constexpr int width = kWidth<path>;
    const int64_t begin = tile.first_quad * 4 * a.channels.value, count = tile.quads * 4 * a.channels.value;
    for (int64_t i = int64_t{thread} * width; i < count; i += int64_t{threads} * width) {
        if (i + width <= count) {
            uniform_init_vector<path, reach>(a, staged, begin + i, [&] {
                RandomBits<width> random;
                for (int j = 0; j < width; ++j) {
                    random.bits[j] = bits[i + j];
                }
                return random;
            });
        } else {
            for (int64_t j = i; j < count; ++j) {
                uniform_init_element<reach>(a, staged, begin + j, bits[j],
                                            dense_offsets<UniformInit::kCount>(begin + j));
            }
        }
    }
}

// `bounds` is planned before; out may be absent.
inline Walked<UniformInit> plan_uniform_init(const View& delta, const View& x, const View& out, const BoundSet& bounds,
                                             const DrawState& state) {
    const View views[UniformInit::kCount] = {delta, x, out};
    Walked<UniformInit> planned{{}, make_walk(memory_loop(delta), views)};
    UniformInit& a = planned.operation;
    a.bounds = bounds;
    a.sample_size = make_divisor(x.sample_size());
    a.state = state;
    a.has_out = out.present;
    a.located = bounds.per_channel || bounds.per_sample;
    a.channels = make_divisor(x.channels());
    a.quads_per_sample = make_divisor(x.spatial_size() / 4);
    a.quads = x.samples() * (x.spatial_size() / 4);

    const bool channels_last = planned.walk.loop.channels_last;
    a.operands = plan(planned.walk, views);
    keep_vectors(a.operands, x, channels_last, bounds, false);
    const bool aligned = a.operands.path != Path::Strided && a.operands.head == 0;
    if (channels_last && aligned && x.spatial_size() % 4 == 0 && x.channels() * 8 <= kTileBits) {
        a.tile_quads = kTileBits / (x.channels() * 8) * 2;  // even: tiles of whole vectors
        a.tiles = (a.quads + a.tile_quads - 1) / a.tile_quads;
    } else if (channels_last || !aligned || (state.sample_index != nullptr && x.sample_size() % 4 != 0)) {
        planned.walk = make_walk(make_loop(delta, false), views);
        take_one_by_one(a.operands);
    }
    a.order = make_order(x, planned.walk.loop.channels_last, bounds.per_channel);
    return planned;
}

}  // namespace advkernels::cuda
