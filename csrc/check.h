// Argument checks of the native operators, which refuse before anything is written: operation, argument, wanted, got.
#pragma once

#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "bounds.h"
#include "overlap.h"
#include "require.h"

namespace advkernels {

using torch::stable::Tensor;
using ScalarType = torch::headeronly::ScalarType;

inline std::string shape_text(const Tensor& tensor) {
    std::string text = "(";
    for (int64_t i = 0; i < tensor.dim(); ++i) {
        text += (i ? ", " : "") + std::to_string(tensor.size(i));
    }
    return text + ")";
}

inline bool same_shape(const Tensor& a, const Tensor& b) {
    bool same = a.dim() == b.dim();
    for (int64_t i = 0; same && i < a.dim(); ++i) {
        same = a.size(i) == b.size(i);
    }
    return same;
}

inline void check_image(const char* operation, const char* argument, const Tensor& tensor, const Tensor& like) {
    const ScalarType type = tensor.scalar_type();
    AK_REQUIRE(type == ScalarType::Float || type == ScalarType::BFloat16 || type == ScalarType::Half, operation, ": ",
               argument, ": wanted float32, bfloat16 or float16, got another dtype");
    AK_REQUIRE(same_shape(tensor, like), operation, ": ", argument, ": wanted shape ", shape_text(like), ", got ",
               shape_text(tensor));
    AK_REQUIRE(tensor.device() == like.device(), operation, ": ", argument, ": wanted the device of x, got another");
}

// A tensor that will be written: its elements have places of their own, apart from those of the others.
inline void check_written(const char* operation, const char* argument, const Tensor& tensor,
                          std::initializer_list<const Tensor*> others) {
    AK_REQUIRE(!overlaps_itself(tensor), operation, ": ", argument,
               ": wanted one place in memory an element, got a tensor that overlaps itself");
    for (const Tensor* other : others) {
        AK_REQUIRE(!share_memory(tensor, *other), operation, ": ", argument,
                   ": wanted memory of its own, got memory shared with another argument");
    }
}

inline void check_vector(const char* operation, const char* argument, const Tensor& tensor, ScalarType type,
                         int64_t size, const Tensor& like) {
    AK_REQUIRE(tensor.scalar_type() == type, operation, ": ", argument, ": wanted another dtype");
    AK_REQUIRE(tensor.dim() == 1 && tensor.numel() == size, operation, ": ", argument, ": wanted shape (", size,
               ",), got ", shape_text(tensor));
    AK_REQUIRE(tensor.device() == like.device(), operation, ": ", argument, ": wanted the device of x, got another");
}

inline int64_t sample_count(const Tensor& x) { return x.dim() > 0 ? x.size(0) : 1; }
inline int64_t channel_count(const Tensor& x) { return x.dim() > 1 ? x.size(1) : 1; }

// Floats a row of an operator's bounds given by value: 1, or one a channel.
inline int64_t row_width(const char* operation, const std::vector<double>& values, int rows, const Tensor& x) {
    const int64_t size = static_cast<int64_t>(values.size()), channels = channel_count(x);
    AK_REQUIRE(size == rows || size == rows * channels, operation, ": bounds: wanted ", rows, " rows of 1 or ",
               channels, " floats, one a channel, got ", size, " floats");
    return size / rows;
}

inline BoundTable bound_table(const char* operation, const char* argument, const Tensor& table, const Tensor& x) {
    const int64_t samples = sample_count(x), channels = channel_count(x);
    AK_REQUIRE(table.dim() == 2 && (table.size(0) == 1 || table.size(0) == samples) &&
                   (table.size(1) == 1 || table.size(1) == channels),
               operation, ": ", argument, ": wanted a table (", samples, " or 1, ", channels, " or 1), got ",
               shape_text(table));
    AK_REQUIRE(table.scalar_type() == ScalarType::Float && table.device() == x.device(), operation, ": ", argument,
               ": wanted float32 on the device of x, got another dtype or device");
    return {static_cast<const float*>(table.data_ptr()), table.size(0) > 1 ? table.stride(0) : 0,
            table.size(1) > 1 ? table.stride(1) : 0};
}

// An operator's bounds given as tables, one a row.
inline BoundTables bound_tables(const char* operation, const std::vector<Tensor>& given, int rows, const Tensor& x) {
    AK_REQUIRE(static_cast<int>(given.size()) == rows, operation, ": bounds: wanted ", rows, " tables, got ",
               given.size());
    BoundTables result;
    for (int i = 0; i < kBounds; ++i) {
        result.tables[i] = bound_table(operation, kBoundNames[i], given[row_of(i, rows)], x);
    }
    return result;
}

inline void check_step(const char* operation, const Tensor& delta, const Tensor& grad, const Tensor& x,
                       const std::optional<Tensor>& mask, const std::optional<Tensor>& out) {
    check_image(operation, "x", x, x);
    check_image(operation, "delta", delta, x);
    check_image(operation, "grad", grad, x);
    check_written(operation, "delta", delta, {&grad, &x});
    if (mask) {
        check_vector(operation, "mask", *mask, ScalarType::Bool, sample_count(x), x);
    }
    if (out) {
        check_image(operation, "out", *out, x);
        check_written(operation, "out", *out, {&delta, &grad, &x});
    }
}

inline void check_init(const char* operation, const Tensor& delta, const Tensor& x, const Tensor& state,
                       const std::optional<Tensor>& sample_index, const std::optional<Tensor>& out) {
    check_image(operation, "x", x, x);
    check_image(operation, "delta", delta, x);
    check_written(operation, "delta", delta, {&x});
    check_vector(operation, "state", state, ScalarType::Long, 2, x);
    if (sample_index) {
        check_vector(operation, "sample_index", *sample_index, ScalarType::Long, sample_count(x), x);
    }
    if (out) {
        check_image(operation, "out", *out, x);
        check_written(operation, "out", *out, {&delta, &x});
    }
}

constexpr int64_t kMaxPadding = int64_t{1} << 30;

// Where nothing is random there may be no state.
inline void check_augment(const char* operation, const Tensor& out, const Tensor& images, const Tensor& index,
                          const std::optional<Tensor>& state, int64_t padding, bool flip) {
    AK_REQUIRE(images.scalar_type() == ScalarType::Byte && images.dim() == 4, operation,
               ": images: wanted uint8 (M, C, H, W), got another dtype or ", shape_text(images));
    check_vector(operation, "index", index, ScalarType::Long, index.numel(), images);
    check_image(operation, "out", out, out);
    AK_REQUIRE(out.dim() == 4 && out.size(0) == index.numel() && out.size(1) == images.size(1) &&
                   out.size(2) == images.size(2) && out.size(3) == images.size(3),
               operation, ": out: wanted ", index.numel(), " images like those of ", shape_text(images), ", got ",
               shape_text(out));
    AK_REQUIRE(out.device() == images.device(), operation, ": out: wanted the device of images, got another");
    check_written(operation, "out", out, {&images, &index});
    AK_REQUIRE(padding >= 0 && padding <= kMaxPadding, operation, ": padding: wanted 0 to ", kMaxPadding, ", got ",
               padding);
    AK_REQUIRE(state || (padding == 0 && !flip), operation, ": state: wanted one for crops and flips");
    if (state) {
        check_vector(operation, "state", *state, ScalarType::Long, 2, images);
    }
}

// Mean and std given as tables, one a channel or one for all.
inline std::array<BoundTable, 2> scale_tables(const char* operation, const std::vector<Tensor>& given,
                                              const Tensor& images) {
    AK_REQUIRE(given.size() == 2, operation, ": scales: wanted 2 tables, got ", given.size());
    const std::array<BoundTable, 2> tables{bound_table(operation, "mean", given[0], images),
                                           bound_table(operation, "std", given[1], images)};
    AK_REQUIRE(tables[0].sample_stride == 0 && tables[1].sample_stride == 0, operation,
               ": scales: wanted none per sample");
    return tables;
}

inline void check_one(const char* operation, const char* argument, const Tensor& tensor, ScalarType type,
                      const Tensor& like) {
    AK_REQUIRE(tensor.numel() == 1 && tensor.scalar_type() == type && tensor.device() == like.device(), operation, ": ",
               argument, ": wanted one ", type == ScalarType::Long ? "int64" : "float32",
               " on the device of the others");
}

// Parameter i of a step: a master of no elements is an absent one.
inline void check_sgd_parameter(const char* operation, size_t i, const std::vector<Tensor>& params,
                                const std::vector<Tensor>& grads, const std::vector<Tensor>& masters,
                                const std::vector<Tensor>& momentum_buffers, const std::vector<Tensor>& steps,
                                bool has_momentum) {
    const Tensor& param = params[i];
    check_image(operation, "params", param, param);
    check_written(operation, "params", param, {});
    AK_REQUIRE(param.device() == params[0].device(), operation, ": params: wanted one device for all");
    check_image(operation, "grads", grads[i], param);
    check_one(operation, "steps", steps[i], ScalarType::Long, param);
    if (masters[i].numel() > 0) {
        check_image(operation, "masters", masters[i], param);
        check_written(operation, "masters", masters[i], {&param});
        AK_REQUIRE(param.scalar_type() != ScalarType::Float, operation,
                   ": masters: wanted none, a tensor of no elements, of a float32 parameter");
        AK_REQUIRE(masters[i].scalar_type() == ScalarType::Float, operation, ": masters: wanted float32");
    }
    if (has_momentum) {
        check_image(operation, "momentum_buffers", momentum_buffers[i], param);
        check_written(operation, "momentum_buffers", momentum_buffers[i], {&param});
    }
}

// Lists of one length, and parameters that are fit for a step together.
inline void check_sgd_step(const char* operation, const std::vector<Tensor>& params, const std::vector<Tensor>& grads,
                           const std::vector<Tensor>& masters, const std::vector<Tensor>& momentum_buffers,
                           const std::vector<Tensor>& steps, bool has_momentum) {
    const auto check_size = [&](const char* argument, const std::vector<Tensor>& list) {
        AK_REQUIRE(list.size() == params.size(), operation, ": ", argument, ": wanted ", params.size(),
                   " tensors, got ", list.size());
    };
    check_size("grads", grads);
    check_size("masters", masters);
    check_size("momentum_buffers", momentum_buffers);
    check_size("steps", steps);
    for (size_t i = 0; i < params.size(); ++i) {
        check_sgd_parameter(operation, i, params, grads, masters, momentum_buffers, steps, has_momentum);
    }
}

}  // namespace advkernels
