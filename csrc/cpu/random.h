// The random bits of elements in a row, a tile at a time.
#pragma once

#include <array>
#include <cstdint>

#include "loop.h"

namespace advkernels {

// A tile may start inside a group of four, and four groups are made at a time.
using BitsBuffer = std::array<uint32_t, kTile + 32>;

// The bits of the elements [index, index + count), count up to kTile, in logical order; they lie in the buffer.
const uint32_t* random_bits(BitsBuffer& buffer, int64_t index, int64_t count, uint64_t seed, uint64_t draw);

}  // namespace advkernels
