// How the elements of an inner chunk are found in its bytes, and what values they stand for.
//
// The bytes are those after the entropy coding was undone. Shuffles, byte order, bit packing and CF
// decoding are undone here, while an element is loaded, so that no pass over memory is spent on them.
#pragma once

#include "device.cuh"

/// Where the bits of elements are. As `array::Packing`, which defines each.
enum PackingKind { PLAIN = 0, SHUFFLED = 1, BIT_SHUFFLED = 2, BITS_LOW_FIRST = 3, BITS_HIGH_FIRST = 4 };

struct Layout {
    u32 kind;
    /// Whether bytes of elements are the other way round.
    u32 swapped;
    /// Bytes of a decoded chunk, of the blocks that are shuffled for themselves, of what is shuffled.
    u32 chunk_bytes, block_bytes, unit_bytes;
    /// Bits of a packed value, zeros below it, and where the copies of its highest bit end.
    u32 width, offset, filled;
};

/// Most values that are named missing.
const u32 MISSING_VALUES = 8;

/// What stored values stand for. As `compute::cf::CfDecoder`, for results that are floats.
struct Cf {
    /// Whether there is anything to decode; to round to 32 bits after each step.
    u32 decodes, to_f32;
    u32 scales, offsets;
    double scale, offset;
    /// Stored values that are missing: bits of integers widened to 64, or of doubles.
    u64 missing[MISSING_VALUES];
    u32 missing_values;
    /// Whether values outside `least` to `greatest` are missing.
    u32 has_range;
    u64 least, greatest;
};

/// Byte `at` of the decoded chunk, of bytes that are shuffled.
__device__ __forceinline__ u32 shuffled_byte(const Layout& layout, const u8* bytes, u32 at) {
    u32 start = at / layout.block_bytes * layout.block_bytes;
    u32 length = min(layout.block_bytes, layout.chunk_bytes - start);
    u32 units = length / layout.unit_bytes;
    u32 inside = at - start;
    bool is_in_place = inside >= units * layout.unit_bytes;
    if (is_in_place || (layout.kind == BIT_SHUFFLED && units % 8 != 0)) return bytes[at];
    u32 unit = inside / layout.unit_bytes, b = inside % layout.unit_bytes;
    if (layout.kind == SHUFFLED) return bytes[start + b * units + unit];
    const u8* planes = bytes + start + 8 * b * (units / 8) + unit / 8;
    u32 byte = 0;
    for (u32 k = 0; k < 8; k++) {
        byte |= ((planes[k * (units / 8)] >> (unit % 8)) & 1u) << k;
    }
    return byte;
}

/// The bits of value `i` of values without space between them, as an element.
__device__ __forceinline__ u64 packed_bits(const Layout& layout, const u8* bytes, u32 i) {
    u64 first = (u64)i * layout.width;
    u64 bits = 0;
    for (u32 taken = 0; taken < layout.width;) {
        u64 at = first + taken;
        u32 inside = (u32)(at % 8);
        u32 wanted = min(8 - inside, layout.width - taken);
        u64 mask = (1u << wanted) - 1, byte = bytes[at / 8];
        if (layout.kind == BITS_LOW_FIRST) {
            bits |= ((byte >> inside) & mask) << taken;
        } else {
            bits = (bits << wanted) | ((byte >> (8 - inside - wanted)) & mask);
        }
        taken += wanted;
    }
    u32 end = layout.offset + layout.width;
    bool is_high = (bits >> (layout.width - 1)) & 1;
    bits <<= layout.offset;
    if (is_high && layout.filled > end) {
        u64 below = layout.filled < 64 ? (1ull << layout.filled) - 1 : ~0ull;
        bits |= below & ~((1ull << end) - 1);
    }
    return bits;
}

/// Bits of element `i`, of `size` bytes, undone one byte after the other. A call: it would be most of
/// every kernel.
__device__ SLOW u64 gathered_bits(const Layout& layout, const u8* bytes, u32 i, u32 size) {
    if (layout.kind == BITS_LOW_FIRST || layout.kind == BITS_HIGH_FIRST) {
        return packed_bits(layout, bytes, i);
    }
    u64 bits = 0;
    for (u32 b = 0; b < size; b++) {
        u32 at = i * size + b;
        u32 byte = layout.kind == PLAIN ? bytes[at] : shuffled_byte(layout, bytes, at);
        bits |= (u64)byte << (8 * b);
    }
    return bits;
}

/// The bytes of a number of `size` bytes the other way round.
__device__ SLOW u64 swapped_bits(u64 bits, u32 size) {
    u64 turned = 0;
    for (u32 b = 0; b < size; b++) {
        turned |= ((bits >> (8 * b)) & 0xff) << (8 * (size - 1 - b));
    }
    return turned;
}

/// Element `i` of an inner chunk.
template <class T>
__device__ __forceinline__ T fetch(const Layout& layout, const u8* bytes, u32 i) {
    if (layout.kind == PLAIN && !layout.swapped) {
        return ((const T*)bytes)[i];
    }
    u64 bits = gathered_bits(layout, bytes, i, sizeof(T));
    if (layout.swapped) {
        bits = swapped_bits(bits, sizeof(T));
    }
    return Element<T>::of_bits(bits);
}

/// Whether attributes call a stored value missing, NaN aside: the bits of an integer widened to 64, or
/// of a double.
__device__ SLOW bool is_masked(const Cf& cf, u64 wide, bool is_float, bool is_signed) {
    bool masked = false;
    if (is_float) {
        double number = __longlong_as_double((i64)wide);
        for (u32 n = 0; n < cf.missing_values; n++) {
            masked |= number == __longlong_as_double((i64)cf.missing[n]);
        }
        if (cf.has_range) {
            masked |= number < __longlong_as_double((i64)cf.least);
            masked |= number > __longlong_as_double((i64)cf.greatest);
        }
        return masked;
    }
    for (u32 n = 0; n < cf.missing_values; n++) {
        masked |= wide == cf.missing[n];
    }
    if (cf.has_range && is_signed) {
        masked |= (i64)wide < (i64)cf.least || (i64)wide > (i64)cf.greatest;
    } else if (cf.has_range) {
        masked |= wide < cf.least || wide > cf.greatest;
    }
    return masked;
}

/// The number a stored value stands for; NaN if it is missing.
template <class T> __device__ __forceinline__ double decoded(const Cf& cf, T value) {
    double number = Element<T>::number(value);
    if (!cf.decodes) {
        return number;
    }
    if (cf.scales) {
        number = __dmul_rn(number, cf.scale);
        if (cf.to_f32) number = rounded(number);
    }
    if (cf.offsets) {
        number = __dadd_rn(number, cf.offset);
        if (cf.to_f32) number = rounded(number);
    }
    if (cf.to_f32) number = rounded(number);
    bool masked =
        is_masked(cf, Element<T>::wide(value), Element<T>::is_float, Element<T>::is_signed);
    return masked ? not_a_number() : number;
}
