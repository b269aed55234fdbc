// What the operators of BatchNorm and ReLU refuse: images as rows (R, C), columns (C,).
#pragma once

#include "check.h"

namespace advkernels {

inline void check_rows(const char* operation, const char* argument, const Tensor& tensor, const Tensor& x) {
    check_image(operation, argument, tensor, x);
    AK_REQUIRE(tensor.dim() == 2 && tensor.is_contiguous(), operation, ": ", argument,
               ": wanted contiguous rows (R, C), got ", shape_text(tensor));
    AK_REQUIRE(tensor.scalar_type() == x.scalar_type(), operation, ": ", argument,
               ": wanted the dtype of x, got another");
}

inline void check_column(const char* operation, const char* argument, const Tensor& tensor, const Tensor& x) {
    check_vector(operation, argument, tensor, ScalarType::Float, x.size(1), x);
    AK_REQUIRE(tensor.is_contiguous(), operation, ": ", argument, ": wanted a contiguous tensor");
}

inline void check_columns(const char* operation, const Tensor& x, const Tensor& mean, const Tensor& variance,
                          const Tensor& weight, const Tensor& bias) {
    check_rows(operation, "x", x, x);
    check_column(operation, "mean", mean, x);
    check_column(operation, "variance", variance, x);
    check_column(operation, "weight", weight, x);
    check_column(operation, "bias", bias, x);
}

inline void check_sums(const char* operation, const Tensor& sums, const Tensor& x) {
    AK_REQUIRE(sums.scalar_type() == ScalarType::Float && sums.dim() == 2 && sums.size(0) == 2 &&
                   sums.size(1) == x.size(1) && sums.is_contiguous() && sums.device() == x.device(),
               operation, ": sums: wanted contiguous float32 (2, ", x.size(1), ") on the device of x, got ",
               shape_text(sums));
}

// A residual, and where the sum with it goes: both or none.
inline void check_total(const char* operation, const Tensor& x, const std::optional<Tensor>& residual,
                        const std::optional<Tensor>& total) {
    AK_REQUIRE(residual.has_value() == total.has_value(), operation, ": residual, total: wanted both or none");
    if (total) {
        check_rows(operation, "residual", *residual, x);
        check_rows(operation, "total", *total, x);
        check_written(operation, "total", *total, {&x, &*residual});
    }
}

inline void check_moments(const char* operation, const Tensor& mean, const Tensor& variance,
                          const std::optional<Tensor>& total, const std::optional<Tensor>& running_mean,
                          const std::optional<Tensor>& running_var, const std::optional<Tensor>& batches,
                          const Tensor& x, const std::optional<Tensor>& residual) {
    check_rows(operation, "x", x, x);
    AK_REQUIRE(x.size(0) > 1, operation, ": x: wanted more than one row, got ", shape_text(x));
    check_total(operation, x, residual, total);
    check_column(operation, "mean", mean, x);
    check_column(operation, "variance", variance, x);
    check_written(operation, "mean", mean, {&x});
    check_written(operation, "variance", variance, {&x, &mean});
    if (running_mean) {
        check_column(operation, "running_mean", *running_mean, x);
        check_written(operation, "running_mean", *running_mean, {&x, &mean, &variance});
    }
    if (running_var) {
        check_column(operation, "running_var", *running_var, x);
        check_written(operation, "running_var", *running_var, {&x, &mean, &variance});
    }
    if (running_mean && running_var) {
        check_written(operation, "running_var", *running_var, {&*running_mean});
    }
    if (batches) {
        check_one(operation, "batches", *batches, ScalarType::Long, x);
    }
}

inline void check_normalize(const char* operation, const Tensor& out, const std::optional<Tensor>& total,
                            const Tensor& x, const std::optional<Tensor>& residual, const Tensor& mean,
                            const Tensor& variance, const Tensor& weight, const Tensor& bias) {
    check_columns(operation, x, mean, variance, weight, bias);
    check_total(operation, x, residual, total);
    check_rows(operation, "out", out, x);
    check_written(operation, "out", out, {&x, &mean, &variance, &weight, &bias});
    if (total) {
        check_written(operation, "out", out, {&*total, &*residual});
    }
}

inline void check_gradient_sums(const char* operation, const Tensor& sums, const Tensor& grad, const Tensor& x,
                                const Tensor& mean, const Tensor& variance, const Tensor& weight, const Tensor& bias) {
    check_columns(operation, x, mean, variance, weight, bias);
    check_rows(operation, "grad", grad, x);
    check_sums(operation, sums, x);
    check_written(operation, "sums", sums, {&grad, &x, &mean, &variance, &weight, &bias});
}

inline void check_normalize_backward(const char* operation, const Tensor& grad_x, const Tensor& grad,
                                     const std::optional<Tensor>& grad_total, const Tensor& x, const Tensor& mean,
                                     const Tensor& variance, const Tensor& weight, const Tensor& bias,
                                     const std::optional<Tensor>& sums) {
    check_columns(operation, x, mean, variance, weight, bias);
    check_rows(operation, "grad", grad, x);
    check_rows(operation, "grad_x", grad_x, x);
    check_written(operation, "grad_x", grad_x, {&x, &grad, &mean, &variance, &weight, &bias});
    if (grad_total) {
        check_rows(operation, "grad_total", *grad_total, x);
        check_written(operation, "grad_x", grad_x, {&*grad_total});
    }
    if (sums) {
        check_sums(operation, *sums, x);
    }
}

}  // namespace advkernels
