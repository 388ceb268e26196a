// Reductions of boxes of inner chunks of one element type, decoded as they are loaded.
//
//   runs_*      one warp for each segment of a run, or a quarter of it for each short run: a tree of
//               its lanes, then a tree of the segments of a block; fold.cu goes on from there
//   singles_*   one thread for each cell, where single elements go into it
//
// Compiled once for each element type: ELEMENT names it.

#include "accumulate.cuh"
#include "walk.cuh"

struct Reduce {
    /// Addresses of the inner chunks, one for each box of the batch.
    const u64* chunks;
    /// Accumulators: of `runs_*`, for each box, cell, turn and block of segments; else of each box
    /// and cell.
    void* found;
    /// For squares: the mean of each box and cell.
    const double* means;
    Layout layout;
    Cf cf;
    Rules rules;
    Walk walk;
};
static_assert(sizeof(Reduce) == 432, "as compute/src/gpu/params.rs has it");

/// Whether elements are in memory as they are taken.
__device__ __forceinline__ bool is_plain(const Layout& layout, const Cf& cf) {
    return layout.kind == PLAIN && !layout.swapped && !cf.decodes;
}

/// Accumulators as they are moved between lanes.
template <class A> union Words {
    A value;
    u64 words[sizeof(A) / sizeof(u64)];
    __device__ __forceinline__ Words() {}
};

/// What lane `lane_id() + step` has.
template <class A> __device__ __forceinline__ A of_lane_above(const A& own, u32 step) {
    Words<A> from, to;
    from.value = own;
    for (u32 n = 0; n < sizeof(A) / sizeof(u64); n++) {
        to.words[n] = __shfl_down_sync(ALL_LANES, from.words[n], step);
    }
    return to.value;
}

/// The elements of a segment that go into this lane, in their order.
template <class T, class A>
__device__ __forceinline__ void take_segment(
    const Reduce& p, A& found, const u8* bytes, u32 offset, double mean, u64 place, u32 begin, u32 end
) {
    u32 lanes = p.walk.lanes;
    begin += lane_id() % lanes;
    if (is_plain(p.layout, p.cf) && p.walk.inner.count == 1 && p.walk.inner.stride[0] == 1) {
        const T* values = device_memory<T>(bytes) + offset;
        Cf nothing;
        nothing.decodes = 0;
#pragma unroll 8
        for (u32 at = begin; at < end; at += lanes) {
            found.take(p.rules, nothing, values[at], mean, place + at);
        }
        return;
    }
#pragma unroll 1
    for (u32 at = begin; at < end; at += lanes) {
        T value = fetch<T>(p.layout, bytes, offset + offset_of(p.walk.inner, at));
        found.take(p.rules, p.cf, value, mean, place + at);
    }
}

template <class A, class T> __device__ __forceinline__ void runs(const Reduce& p) {
    const Walk& walk = p.walk;
    u64 group = global_thread() / walk.lanes;
    u64 number = group / walk.segments;
    u32 segment = (u32)(group % walk.segments);
    u64 all_runs = (u64)walk.boxes * walk.cells * walk.turns;
    A found = A::none(p.rules);
    if (number < all_runs) {
        u32 turn = (u32)(number % walk.turns);
        u64 cell = number / walk.turns;
        const u8* bytes = (const u8*)p.chunks[cell / walk.cells];
        u32 offset = walk.first + offset_of(walk.kept, (u32)(cell % walk.cells)) +
                     offset_of(walk.outer, turn);
        double mean = p.means ? p.means[cell] : 0.0;
        u32 begin = min(segment * SEGMENT, walk.run);
        u32 end = min(begin + SEGMENT, walk.run);
        u64 place = (u64)turn * walk.run;
        take_segment<T>(p, found, bytes, offset, mean, place, begin, end);
    }
    u32 lane = lane_id() % walk.lanes;
    for (u32 step = walk.lanes / 2; step > 0; step /= 2) {
        A above = of_lane_above(found, step);
        if (lane < step) found.merge(p.rules, above);
    }
    A* out = (A*)p.found;
    if (walk.segments == 1) {
        if (number < all_runs && lane == 0) out[number] = found;
        return;
    }
    __shared__ Words<A> of_warps[WARPS];
    if (lane_id() == 0) of_warps[warp_id()].value = found;
    for (u32 step = 1; step < WARPS; step *= 2) {
        __syncthreads();
        if (lane_id() == 0 && warp_id() % (2 * step) == 0) {
            found.merge(p.rules, of_warps[warp_id() + step].value);
            of_warps[warp_id()].value = found;
        }
    }
    if (threadIdx.x == 0 && number < all_runs) out[blockIdx.x] = found;
}

template <class A, class T> __device__ __forceinline__ void singles(const Reduce& p) {
    const Walk& walk = p.walk;
    u64 cell = global_thread();
    if (cell >= (u64)walk.boxes * walk.cells) return;
    const u8* bytes = (const u8*)p.chunks[cell / walk.cells];
    u32 offset = walk.first + offset_of(walk.kept, (u32)(cell % walk.cells));
    double mean = p.means ? p.means[cell] : 0.0;
    A found = A::none(p.rules);
    if (is_plain(p.layout, p.cf) && walk.outer.count == 1) {
        const T* values = device_memory<T>(bytes) + offset;
        Cf nothing;
        nothing.decodes = 0;
#pragma unroll 4
        for (u32 turn = 0; turn < walk.turns; turn++) {
            found.take(p.rules, nothing, values[turn * walk.outer.stride[0]], mean, turn);
        }
    } else {
#pragma unroll 1
        for (u32 turn = 0; turn < walk.turns; turn++) {
            T value = fetch<T>(p.layout, bytes, offset + offset_of(walk.outer, turn));
            found.take(p.rules, p.cf, value, mean, turn);
        }
    }
    ((A*)p.found)[cell] = found;
}

#define ACCUMULATOR(NAME, A)                                            \
    KERNEL(runs_##NAME, Reduce) { runs<A, ELEMENT>(p); }                \
    KERNEL(singles_##NAME, Reduce) { singles<A, ELEMENT>(p); }

ACCUMULATOR(sum, Sum)
ACCUMULATOR(square, Square)
ACCUMULATOR(tally, Tally)
ACCUMULATOR(extreme, Extreme)
#ifdef IS_WHOLE
ACCUMULATOR(whole_sum, WholeSum)
ACCUMULATOR(whole_extreme, WholeExtreme<Element<ELEMENT>::is_signed>)
#endif

/// Most bins that a block counts in its own memory.
const u32 SHARED_BINS = 2048;

struct Histogram {
    const u64* chunks;
    /// For each box, cell and bin; zero at first.
    u64* counts;
    /// One more than there are bins.
    const double* edges;
    u32 bins;
    /// Whether all bins have one width; to round to 32 bits after each step.
    u32 is_uniform, to_f32;
    /// Elements one block looks at.
    u32 per_block;
    double first, last, width, count;
    Layout layout;
    Cf cf;
    Walk walk;
};
static_assert(sizeof(Histogram) == 464, "as compute/src/gpu/params.rs has it");

/// The bin of a number, or `bins` if it has none. As `compute/src/histogram.rs`.
__device__ __forceinline__ u32 bin_of(const Histogram& p, double value) {
    u32 last_bin = p.bins - 1;
    if (!p.is_uniform) {
        u32 low = 0, high = p.bins + 1;
        while (low < high) {
            u32 middle = low + (high - low) / 2;
            if (p.edges[middle] <= value) low = middle + 1;
            else high = middle;
        }
        if (low == 0) return p.bins;
        if (low == p.bins + 1) return value == p.edges[p.bins] ? last_bin : p.bins;
        return low - 1;
    }
    if (!(value >= p.first && value <= p.last)) return p.bins;
    double share = __dsub_rn(value, p.first);
    if (p.to_f32) share = rounded(share);
    share = __ddiv_rn(share, p.width);
    if (p.to_f32) share = rounded(share);
    double at = __dmul_rn(share, p.count);
    if (p.to_f32) at = rounded(at);
    u64 index = (u64)at;
    u32 bin = index < last_bin ? (u32)index : last_bin;
    if (value < p.edges[bin]) bin = bin > 0 ? bin - 1 : 0;
    if (bin < last_bin && value >= p.edges[bin + 1]) bin += 1;
    return bin;
}

/// Counts; `blockIdx.y` is the box.
KERNEL(histogram, Histogram) {
    __shared__ u32 own[SHARED_BINS];
    const Walk& walk = p.walk;
    bool is_shared = walk.cells == 1 && p.bins <= SHARED_BINS;
    if (is_shared) {
        for (u32 bin = threadIdx.x; bin < p.bins; bin += THREADS) own[bin] = 0;
    }
    __syncthreads();
    const u8* bytes = (const u8*)p.chunks[blockIdx.y];
    u64* counts = p.counts + (u64)blockIdx.y * walk.cells * p.bins;
    u64 all = (u64)walk.cells * walk.turns * walk.run;
    u64 begin = (u64)blockIdx.x * p.per_block;
    u64 end = begin + p.per_block < all ? begin + p.per_block : all;
    for (u64 at = begin + threadIdx.x; at < end; at += THREADS) {
        // Cells last: neighbours in memory are those of the last axes.
        u32 inner = (u32)(at % walk.run);
        u64 rest = at / walk.run;
        u32 cell = (u32)(rest % walk.cells);
        u32 turn = (u32)(rest / walk.cells);
        u32 offset = walk.first + offset_of(walk.kept, cell) + offset_of(walk.outer, turn) +
                     offset_of(walk.inner, inner);
        u32 bin = bin_of(p, decoded(p.cf, fetch<ELEMENT>(p.layout, bytes, offset)));
        if (bin == p.bins) continue;
        if (is_shared) atomicAdd(&own[bin], 1u);
        else atomicAdd(&counts[(u64)cell * p.bins + bin], 1ull);
    }
    __syncthreads();
    if (is_shared) {
        for (u32 bin = threadIdx.x; bin < p.bins; bin += THREADS) {
            if (own[bin] > 0) atomicAdd(&counts[bin], (u64)own[bin]);
        }
    }
}
