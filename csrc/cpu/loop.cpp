#include "loop.h"

#include "clones.h"

namespace advkernels {
namespace {

template <typename T>
AK_FUNCTION void widen(float* target, const T* source, int64_t count) {
    for (int64_t i = 0; i < count; ++i) {
        target[i] = to_float(source[i]);
    }
}

template <typename T>
AK_FUNCTION void narrow(T* target, const float* source, int64_t count) {
    for (int64_t i = 0; i < count; ++i) {
        target[i] = from_float<T>(source[i]);
    }
}

AK_CLONES void widen_tile(float* target, const BFloat16* source, int64_t count) { widen(target, source, count); }
AK_CLONES void widen_tile_half(float* target, const Float16* source, int64_t count) { widen(target, source, count); }
AK_CLONES void narrow_tile(BFloat16* target, const float* source, int64_t count) { narrow(target, source, count); }
AK_CLONES void narrow_tile_half(Float16* target, const float* source, int64_t count) { narrow(target, source, count); }

void widen_row(float* target, const char* source, ScalarType type, int64_t count) {
    if (type == ScalarType::BFloat16) {
        widen_tile(target, reinterpret_cast<const BFloat16*>(source), count);
    } else {
        widen_tile_half(target, reinterpret_cast<const Float16*>(source), count);
    }
}

void narrow_row(char* target, const float* source, ScalarType type, int64_t count) {
    if (type == ScalarType::BFloat16) {
        narrow_tile(reinterpret_cast<BFloat16*>(target), source, count);
    } else {
        narrow_tile_half(reinterpret_cast<Float16*>(target), source, count);
    }
}

// Where an element lies.
char* place(const Loop& loop, const Operand& tensor, int64_t element) {
    if (dense(loop, tensor)) {
        return tensor.data + element * tensor.item_size;
    }
    int64_t offset = 0;
    for (int dim = loop.dims - 1; dim >= 0; --dim) {
        offset += element % loop.sizes[dim] * tensor.strides[dim];
        element /= loop.sizes[dim];
    }
    return tensor.data + offset * tensor.item_size;
}

AK_CLONES void add_tile(float* __restrict out, const float* x, const float* d, int64_t count) {
    for (int64_t i = 0; i < count; ++i) {
        out[i] = x[i] + d[i];
    }
}

bool in_a_row(const Operand& tensor, int64_t begin, int64_t count) { return begin % tensor.run + count <= tensor.run; }

// Calls visit(position in the tile, pointer to the element) for [begin, begin + count) of a strided tensor.
template <typename T, typename Visit>
void walk(const Loop& loop, const Operand& tensor, int64_t begin, int64_t count, const Visit& visit) {
    int64_t index[kMaxDims] = {};
    int64_t offset = 0;
    int64_t rest = begin;
    for (int dim = loop.dims - 1; dim >= 0; --dim) {
        index[dim] = rest % loop.sizes[dim];
        rest /= loop.sizes[dim];
        offset += index[dim] * tensor.strides[dim];
    }
    T* const data = reinterpret_cast<T*>(tensor.data);
    const int last = loop.dims - 1;
    const int64_t stride = tensor.strides[last];
    for (int64_t i = 0; i < count;) {
        const int64_t row = std::min(count - i, loop.sizes[last] - index[last]);
        for (int64_t j = 0; j < row; ++j) {
            visit(i + j, data + offset + j * stride);
        }
        i += row;
        index[last] += row;
        offset += row * stride;
        for (int dim = last; dim > 0 && index[dim] == loop.sizes[dim]; --dim) {
            offset += tensor.strides[dim - 1] - loop.sizes[dim] * tensor.strides[dim];
            index[dim] = 0;
            ++index[dim - 1];
        }
    }
}

template <typename T>
void gather(const Loop& loop, const Operand& source, int64_t begin, int64_t count, float* tile) {
    walk<T>(loop, source, begin, count, [tile](int64_t i, const T* element) { tile[i] = to_float(*element); });
}

template <typename T>
void scatter(const Loop& loop, const Operand& target, int64_t begin, int64_t count, const float* tile) {
    walk<T>(loop, target, begin, count, [tile](int64_t i, T* element) { *element = from_float<T>(tile[i]); });
}

// A dimension of size 1 may have any stride.
int64_t run_of(const Loop& loop, const int64_t* strides) {
    int64_t run = 1;
    for (int dim = loop.dims - 1; dim >= 0; --dim) {
        if (loop.sizes[dim] != 1 && strides[dim] != run) {
            break;
        }
        run *= loop.sizes[dim];
    }
    return std::max<int64_t>(run, 1);
}

Loop make_loop(const Tensor& tensor, bool channels_last) {
    Loop loop{};
    loop.dims = static_cast<int>(tensor.dim());
    AK_REQUIRE(loop.dims <= kMaxDims, "advkernels: wanted at most ", kMaxDims, " dimensions, got ", loop.dims);
    for (int dim = 0; dim < loop.dims; ++dim) {
        const int last = loop.dims - 1;
        const bool moved = channels_last && dim > 0;
        loop.source_dim[dim] = moved ? (dim == last ? 1 : dim + 1) : dim;
        loop.sizes[dim] = tensor.size(loop.source_dim[dim]);
    }
    loop.numel = tensor.numel();
    loop.samples = sample_count(tensor);
    loop.channels = channel_count(tensor);
    loop.sample_size = loop.samples > 0 ? loop.numel / loop.samples : 0;
    loop.spatial_size = loop.channels > 0 ? loop.sample_size / loop.channels : 0;
    loop.channels_last = channels_last;
    return loop;
}

}  // namespace

bool dense(const Loop& loop, const Operand& tensor) { return tensor.run >= loop.numel; }

int64_t within_runs(int64_t segment, std::initializer_list<const Operand*> operands) {
    for (const Operand* tensor : operands) {
        if (tensor->data != nullptr && tensor->run >= kShortestRun) {
            segment = std::min(segment, tensor->run);
        }
    }
    return segment;
}

Loop logical_loop(const Tensor& tensor) { return make_loop(tensor, false); }

Loop memory_loop(const Tensor& tensor) {
    const Loop loop = make_loop(tensor, tensor.dim() > 2 && !tensor.is_contiguous());
    return dense(loop, operand(loop, tensor)) ? loop : make_loop(tensor, false);
}

Operand operand(const Loop& loop, const Tensor& tensor) {
    Operand result{};
    result.data = static_cast<char*>(tensor.data_ptr());
    result.type = tensor.scalar_type();
    result.item_size = result.type == ScalarType::Float ? 4 : 2;
    for (int dim = 0; dim < loop.dims; ++dim) {
        result.strides[dim] = tensor.stride(loop.source_dim[dim]);
    }
    result.run = run_of(loop, result.strides);
    return result;
}

float* load_mutable(const Loop& loop, const Operand& source, int64_t begin, int64_t count, float* buffer) {
    if (in_a_row(source, begin, count)) {
        char* const row = place(loop, source, begin);
        if (source.type == ScalarType::Float) {
            return reinterpret_cast<float*>(row);
        }
        widen_row(buffer, row, source.type, count);
    } else if (source.type == ScalarType::Float) {
        gather<float>(loop, source, begin, count, buffer);
    } else if (source.type == ScalarType::BFloat16) {
        gather<BFloat16>(loop, source, begin, count, buffer);
    } else {
        gather<Float16>(loop, source, begin, count, buffer);
    }
    return buffer;
}

const float* load(const Loop& loop, const Operand& source, int64_t begin, int64_t count, float* buffer) {
    return load_mutable(loop, source, begin, count, buffer);
}

float* blank(const Loop& loop, const Operand& target, int64_t begin, int64_t count, float* buffer) {
    const bool lends = target.type == ScalarType::Float && in_a_row(target, begin, count);
    return lends ? reinterpret_cast<float*>(place(loop, target, begin)) : buffer;
}

void store(const Loop& loop, const Operand& target, int64_t begin, int64_t count, const float* tile) {
    if (in_a_row(target, begin, count)) {
        if (target.type != ScalarType::Float) {
            narrow_row(place(loop, target, begin), tile, target.type, count);
        }
    } else if (target.type == ScalarType::Float) {
        scatter<float>(loop, target, begin, count, tile);
    } else if (target.type == ScalarType::BFloat16) {
        scatter<BFloat16>(loop, target, begin, count, tile);
    } else {
        scatter<Float16>(loop, target, begin, count, tile);
    }
}

void store_sum(const Loop& loop, const Operand& out, const float* x, const Operand& delta, int64_t begin, int64_t count,
               float* delta_buffer, float* out_buffer) {
    const float* d = load(loop, delta, begin, count, delta_buffer);
    float* sum = blank(loop, out, begin, count, out_buffer);
    add_tile(sum, x, d, count);
    store(loop, out, begin, count, sum);
}

}  // namespace advkernels
