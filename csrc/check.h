// Argument checks of the native operators: operation, argument, wanted, got. What keeps memory safe when an operator
// is called without the Python facade; the facade checks more and first.
#pragma once

#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

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
    STD_TORCH_CHECK(type == ScalarType::Float || type == ScalarType::BFloat16 || type == ScalarType::Half, operation,
                    ": ", argument, ": wanted float32, bfloat16 or float16, got another dtype");
    STD_TORCH_CHECK(same_shape(tensor, like), operation, ": ", argument, ": wanted shape ", shape_text(like), ", got ",
                    shape_text(tensor));
    STD_TORCH_CHECK(tensor.device() == like.device(), operation, ": ", argument,
                    ": wanted the device of x, got another");
}

inline void check_vector(const char* operation, const char* argument, const Tensor& tensor, ScalarType type,
                         int64_t size, const Tensor& like) {
    STD_TORCH_CHECK(tensor.scalar_type() == type, operation, ": ", argument, ": wanted another dtype");
    STD_TORCH_CHECK(tensor.dim() == 1 && tensor.numel() == size, operation, ": ", argument, ": wanted shape (", size,
                    ",), got ", shape_text(tensor));
    STD_TORCH_CHECK(tensor.device() == like.device(), operation, ": ", argument,
                    ": wanted the device of x, got another");
}

inline void check_values(const char* operation, const char* argument, const std::vector<double>& values,
                         int64_t channels) {
    const int64_t size = static_cast<int64_t>(values.size());
    STD_TORCH_CHECK(size == 1 || size == channels, operation, ": ", argument, ": wanted 1 or ", channels,
                    " floats, one a channel, got ", size);
}

inline void check_table(const char* operation, const char* argument, const Tensor& table, int64_t samples,
                        int64_t channels, const Tensor& like) {
    STD_TORCH_CHECK(table.dim() == 2 && (table.size(0) == 1 || table.size(0) == samples) &&
                        (table.size(1) == 1 || table.size(1) == channels),
                    operation, ": ", argument, ": wanted a table (", samples, " or 1, ", channels, " or 1), got ",
                    shape_text(table));
    STD_TORCH_CHECK(table.scalar_type() == ScalarType::Float && table.device() == like.device(), operation, ": ",
                    argument, ": wanted float32 on the device of x, got another dtype or device");
}

}  // namespace advkernels
