// Dot products of vectors of 64-bit floats or narrower ones: products of tensors, nearest neighbours.
//
// One order for every dot product, that of `compute/src/product.rs`: element i goes into lane i mod 32,
// each lane adds in order, then neighbouring lanes are added as a binary tree. Sums are of 64 bits.

#include "device.cuh"

/// Types of vectors.
enum VectorType { OF_F32 = 0, OF_F64 = 1 };

struct Vectors {
    const void* data;
    u32 type;
    u32 unused;
    /// Elements from one vector to the next, and from one element to the next.
    u64 stride, step;
};

__device__ __forceinline__ double element_of(const Vectors& vectors, u64 vector, u64 at) {
    u64 place = vector * vectors.stride + at * vectors.step;
    return vectors.type == OF_F32 ? (double)((const float*)vectors.data)[place]
                                  : ((const double*)vectors.data)[place];
}

/// What is added up of two elements.
enum Measure { DOT = 0, SQUARED_DISTANCE = 1 };

struct Dots {
    Vectors left, right;
    /// One for each pair, those of one left vector together.
    double* out;
    u64 left_count, right_count, length;
    u32 measure;
    u32 unused;
};

/// One warp for each pair.
KERNEL(dots, Dots) {
    u64 pair = global_warp();
    if (pair >= p.left_count * p.right_count) return;
    u64 left = pair / p.right_count, right = pair % p.right_count;
    double sum = 0.0;
    for (u64 at = lane_id(); at < p.length; at += WARP) {
        double a = element_of(p.left, left, at), b = element_of(p.right, right, at);
        if (p.measure == SQUARED_DISTANCE) {
            double difference = __dsub_rn(a, b);
            sum = __dadd_rn(sum, __dmul_rn(difference, difference));
        } else {
            sum = __dadd_rn(sum, __dmul_rn(a, b));
        }
    }
    for (u32 step = 1; step < WARP; step *= 2) {
        double above = __shfl_down_sync(ALL_LANES, sum, step);
        if (lane_id() % (2 * step) == 0) sum = __dadd_rn(sum, above);
    }
    if (lane_id() == 0) p.out[pair] = sum;
}
