// Sums over two vectors: products of matrices, nearest neighbours.
//
// One order for every sum, that of `compute/src/lanes.rs`: element i goes to lane i mod 32, each lane
// adds in order from +0, then neighbouring lanes are added as a binary tree.

#include "device.cuh"

/// Types of elements, in the order of `compute/src/gpu/vectors.rs`.
enum Type { U8, I8, U16, I16, U32, I32, U64, I64, F16, BF16, F32, F64 };

struct Widen {
    const void* elements;
    /// `count` vectors of `length` elements, one after the other.
    void* out;
    u64 count, length;
    u32 type;
    /// Whether the vectors are rows of the matrix they come from, not columns.
    u32 are_rows;
};

/// Element `at` as a double.
__device__ __forceinline__ double number_at(u32 type, const void* elements, u64 at) {
    switch (type) {
    case U8: return (double)((const u8*)elements)[at];
    case I8: return (double)((const i8*)elements)[at];
    case U16: return (double)((const u16*)elements)[at];
    case I16: return (double)((const i16*)elements)[at];
    case U32: return (double)((const u32*)elements)[at];
    case I32: return (double)((const i32*)elements)[at];
    case U64: return (double)((const u64*)elements)[at];
    case I64: return (double)((const i64*)elements)[at];
    case F16: return half_to_double(((const u16*)elements)[at]);
    case BF16: return brain_to_double(((const u16*)elements)[at]);
    case F32: return (double)((const float*)elements)[at];
    default: return ((const double*)elements)[at];
    }
}

/// Element `at`, an integer, modulo 2^64.
__device__ __forceinline__ u64 word_at(u32 type, const void* elements, u64 at) {
    switch (type) {
    case U8: return ((const u8*)elements)[at];
    case I8: return (u64)(i64)((const i8*)elements)[at];
    case U16: return ((const u16*)elements)[at];
    case I16: return (u64)(i64)((const i16*)elements)[at];
    case U32: return ((const u32*)elements)[at];
    case I32: return (u64)(i64)((const i32*)elements)[at];
    default: return ((const u64*)elements)[at];
    }
}

/// Where element `at` of the vectors is in the matrix they come from.
__device__ __forceinline__ u64 source_of(const Widen& p, u64 at) {
    return p.are_rows ? at : at % p.length * p.count + at / p.length;
}

KERNEL(widen_numbers, Widen) {
    u64 at = global_thread();
    if (at >= p.count * p.length) return;
    ((double*)p.out)[at] = number_at(p.type, p.elements, source_of(p, at));
}

KERNEL(widen_words, Widen) {
    u64 at = global_thread();
    if (at >= p.count * p.length) return;
    ((u64*)p.out)[at] = word_at(p.type, p.elements, source_of(p, at));
}

struct Sums {
    /// Vectors, widened, one after the other.
    const void* left;
    const void* right;
    /// The sum of each left vector with each right one, those of one left vector together.
    void* out;
    u64 rows, columns, length;
};

struct Product {
    typedef double Number;
    static __device__ __forceinline__ double add(double sum, double a, double b) {
        return __dadd_rn(sum, __dmul_rn(a, b));
    }
};

struct WrappingProduct {
    typedef u64 Number;
    static __device__ __forceinline__ u64 add(u64 sum, u64 a, u64 b) { return sum + a * b; }
};

struct SquaredDifference {
    typedef double Number;
    static __device__ __forceinline__ double add(double sum, double a, double b) {
        double difference = __dsub_rn(a, b);
        return __dadd_rn(sum, __dmul_rn(difference, difference));
    }
};

__device__ __forceinline__ double plus(double a, double b) { return __dadd_rn(a, b); }
__device__ __forceinline__ u64 plus(u64 a, u64 b) { return a + b; }

/// All lanes added; lane 0 has it.
template <class N> __device__ __forceinline__ N tree(N sum) {
    for (u32 step = 1; step < WARP; step *= 2) {
        N above = __shfl_down_sync(ALL_LANES, sum, step);
        if (lane_id() % (2 * step) == 0) sum = plus(sum, above);
    }
    return sum;
}

/// Vectors on either side that one warp takes: each element that is loaded is used as often.
const u32 TILE = 4;

/// One warp for each tile of sums.
template <class Step> __device__ __forceinline__ void sums(const Sums& p) {
    typedef typename Step::Number N;
    u64 tiles_across = (p.columns + TILE - 1) / TILE;
    u64 tiles = (p.rows + TILE - 1) / TILE * tiles_across;
    u64 tile = global_warp();
    if (tile >= tiles) return;
    u64 row = tile / tiles_across * TILE, column = tile % tiles_across * TILE;
    const N* left[TILE];
    const N* right[TILE];
    for (u32 n = 0; n < TILE; n++) {
        // Behind the last vector, that one again; what comes of it is not kept.
        u64 r = row + n < p.rows ? row + n : p.rows - 1;
        u64 c = column + n < p.columns ? column + n : p.columns - 1;
        left[n] = device_memory<N>(p.left) + r * p.length;
        right[n] = device_memory<N>(p.right) + c * p.length;
    }
    N found[TILE][TILE];
    for (u32 r = 0; r < TILE; r++) {
        for (u32 c = 0; c < TILE; c++) found[r][c] = 0;
    }
    for (u64 at = lane_id(); at < p.length; at += WARP) {
        N a[TILE], b[TILE];
        for (u32 n = 0; n < TILE; n++) {
            a[n] = left[n][at];
            b[n] = right[n][at];
        }
        for (u32 r = 0; r < TILE; r++) {
            for (u32 c = 0; c < TILE; c++) found[r][c] = Step::add(found[r][c], a[r], b[c]);
        }
    }
    for (u32 r = 0; r < TILE; r++) {
        for (u32 c = 0; c < TILE; c++) {
            N sum = tree(found[r][c]);
            bool is_inside = row + r < p.rows && column + c < p.columns;
            if (lane_id() == 0 && is_inside) ((N*)p.out)[(row + r) * p.columns + column + c] = sum;
        }
    }
}

KERNEL(products, Sums) { sums<Product>(p); }
KERNEL(wrapping_products, Sums) { sums<WrappingProduct>(p); }
KERNEL(squared_differences, Sums) { sums<SquaredDifference>(p); }

/// The product of each left vector with itself; one warp a vector.
KERNEL(own_products, Sums) {
    u64 row = global_warp();
    if (row >= p.rows) return;
    const double* vector = (const double*)p.left + row * p.length;
    double sum = 0.0;
    for (u64 at = lane_id(); at < p.length; at += WARP) {
        sum = Product::add(sum, vector[at], vector[at]);
    }
    sum = tree(sum);
    if (lane_id() == 0) ((double*)p.out)[row] = sum;
}
