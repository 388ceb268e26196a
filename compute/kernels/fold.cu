// From the accumulators of parts of runs to those of cells; whatever the element type.

#include "accumulate.cuh"

struct Fold {
    /// Accumulators: for each cell, turn and part.
    void* parts;
    /// One for each cell.
    void* found;
    u64 cells;
    u32 turns;
    /// Parts of each run.
    u32 count;
    Rules rules;
};

/// The runs of each cell, of one part each; one thread a cell.
template <class A> __device__ __forceinline__ void fold_runs(const Fold& p) {
    u64 cell = global_thread();
    if (cell >= p.cells) return;
    const A* parts = (const A*)p.parts + cell * p.turns;
    A found = A::none(p.rules);
    for (u32 turn = 0; turn < p.turns; turn++) {
        found.merge(p.rules, parts[turn]);
    }
    ((A*)p.found)[cell] = found;
}

/// The parts of the runs of one cell, as a tree of neighbours; one block a cell.
template <class A> __device__ __forceinline__ void fold_parts(const Fold& p) {
    A found = A::none(p.rules);
    for (u32 turn = 0; turn < p.turns; turn++) {
        A* parts = (A*)p.parts + ((u64)blockIdx.x * p.turns + turn) * p.count;
        for (u64 step = 1; step < p.count; step *= 2) {
            for (u64 at = 2 * step * threadIdx.x; at + step < p.count; at += 2 * step * THREADS) {
                A left = parts[at];
                left.merge(p.rules, parts[at + step]);
                parts[at] = left;
            }
            __syncthreads();
        }
        if (threadIdx.x == 0) found.merge(p.rules, parts[0]);
    }
    if (threadIdx.x == 0) ((A*)p.found)[blockIdx.x] = found;
}

struct Means {
    const Sum* sums;
    double* means;
    u64 cells;
};

#define ACCUMULATOR(NAME, A)                                            \
    KERNEL(fold_runs_##NAME, Fold) { fold_runs<A>(p); }                 \
    KERNEL(fold_parts_##NAME, Fold) { fold_parts<A>(p); }

ACCUMULATOR(sum, Sum)
ACCUMULATOR(square, Square)
ACCUMULATOR(tally, Tally)
ACCUMULATOR(extreme, Extreme)
ACCUMULATOR(whole_sum, WholeSum)
ACCUMULATOR(signed_extreme, WholeExtreme<true>)
ACCUMULATOR(unsigned_extreme, WholeExtreme<false>)

KERNEL(means, Means) {
    u64 cell = global_thread();
    if (cell >= p.cells) return;
    Sum sum = p.sums[cell];
    p.means[cell] = __ddiv_rn(sum.sum.value(), (double)sum.count);
}
