#include "l2.h"

#include <bit>

#include "clones.h"

namespace advkernels {
namespace {

AK_CLONES void fold(double* sums, int64_t lanes) {
    for (int64_t half = lanes / 2; half > 0; half /= 2) {
        double* __restrict lower = sums;
        const double* __restrict upper = sums + half;
        for (int64_t i = 0; i < half; ++i) {
            lower[i] += upper[i];
        }
    }
}

}  // namespace

double lane_norm(LaneSums& sums, int64_t count) {
    fold(sums.data(), static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(std::min<int64_t>(count, kLanes)))));
    return sqrt(sums[0]);
}

}  // namespace advkernels
