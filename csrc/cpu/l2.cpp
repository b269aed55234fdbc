#include "l2.h"

#include "clones.h"

namespace advkernels {
namespace {

// Place i is read before it is written, and by no other place.
AK_CLONES void fold_tile(double* sums, int quarter) {
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC ivdep
#endif
    for (int i = 0; i < quarter; ++i) {
        sums[i] = fold_lanes(sums, i, quarter);
    }
}

}  // namespace

double lane_norm(LaneSums& sums, int64_t count) {
    int lanes = 4;
    while (lanes < kLanes && lanes < count) {
        lanes *= 4;
    }
    for (int quarter = lanes / 4; quarter > 0; quarter /= 4) {
        fold_tile(sums.data(), quarter);
    }
    return sqrt(sums[0]);
}

}  // namespace advkernels
