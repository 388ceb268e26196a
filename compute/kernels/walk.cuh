// The walk over a box: which elements go into which kept cell, in which order.
//
// As `compute/src/block.rs`: axes that are all kept, or all reduced, act as one. If the last axes are
// reduced, a cell takes *runs* of neighbours, one after the other; if they are kept, it takes single
// elements.
#pragma once

#include "device.cuh"

/// Most axes of each kind.
const u32 AXES = 8;

/// Elements of one warp's part of a run.
const u32 SEGMENT = 4096;

struct Axes {
    u32 count;
    u32 length[AXES];
    /// Elements of the inner chunk from one position to the next.
    u32 stride[AXES];
};

struct Walk {
    /// The first element of the box in its inner chunk.
    u32 first;
    /// Kept cells of a box; runs (or single elements) of a cell; elements of a run.
    u32 cells, turns, run;
    /// Boxes of the batch.
    u32 boxes;
    /// Lanes of a run: 32, or 8 of short ones.
    u32 lanes;
    /// Parts a run is cut into, one for each warp; those of a run fill whole blocks if there is more
    /// than one.
    u32 segments;
    u32 unused;
    Axes kept, outer, inner;
    u32 end;
};

__device__ SLOW u32 offset_of_several(const Axes& axes, u32 n) {
    u32 offset = 0;
    for (u32 axis = axes.count; axis-- > 0;) {
        offset += n % axes.length[axis] * axes.stride[axis];
        n /= axes.length[axis];
    }
    return offset;
}

/// The offset of position `n`, counted in C order.
__device__ __forceinline__ u32 offset_of(const Axes& axes, u32 n) {
    return axes.count == 1 ? n * axes.stride[0] : offset_of_several(axes, n);
}
