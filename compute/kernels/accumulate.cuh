// What is known of some values of a cell, and how it merges with what is known of those after them.
#pragma once

#include "load.cuh"

/// What accumulators are told.
struct Rules {
    /// Leave NaN, or NaT, out.
    u32 skip;
    /// Least values, not greatest.
    u32 least;
    /// The lowest integer is NaT.
    u32 has_nat;
    u32 unused;
};

/// No position.
const u64 NOWHERE = ~0ull;

/// `hi + lo` with about 106 bits. As `compute/src/double.rs`.
struct Double {
    double hi, lo;

    __device__ __forceinline__ void add(double value) {
        double sum = __dadd_rn(hi, value);
        double part = __dsub_rn(sum, hi);
        double error = __dadd_rn(__dsub_rn(hi, __dsub_rn(sum, part)), __dsub_rn(value, part));
        lo = __dadd_rn(lo, error);
        hi = sum;
    }

    __device__ __forceinline__ void merge(const Double& later) {
        double sum = __dadd_rn(hi, later.hi);
        double part = __dsub_rn(sum, hi);
        double error = __dadd_rn(__dsub_rn(hi, __dsub_rn(sum, part)), __dsub_rn(later.hi, part));
        lo = __dadd_rn(lo, __dadd_rn(error, later.lo));
        hi = sum;
    }

    __device__ __forceinline__ double value() const {
        bool is_finite = hi - hi == 0.0;
        return is_finite ? __dadd_rn(hi, lo) : hi;
    }
};

/// Sums of numbers, and how many there are.
struct Sum {
    Double sum;
    u64 count;

    static __device__ __forceinline__ Sum none(const Rules&) { return Sum{{0.0, 0.0}, 0}; }

    template <class T>
    __device__ __forceinline__ void take(const Rules& rules, const Cf& cf, T value, double, u64) {
        double number = decoded(cf, value);
        bool is_left_out = rules.skip && is_nan(number);
        sum.add(is_left_out ? 0.0 : number);
        count += is_left_out ? 0 : 1;
    }

    __device__ __forceinline__ void merge(const Rules&, const Sum& later) {
        sum.merge(later.sum);
        count += later.count;
    }
};

/// Sums of squared differences from a mean.
struct Square {
    double squares;

    static __device__ __forceinline__ Square none(const Rules&) { return Square{0.0}; }

    template <class T>
    __device__ __forceinline__ void take(
        const Rules& rules, const Cf& cf, T value, double mean, u64
    ) {
        double number = decoded(cf, value);
        double difference = __dsub_rn(number, mean);
        double square = __dmul_rn(difference, difference);
        squares = __dadd_rn(squares, rules.skip && is_nan(number) ? 0.0 : square);
    }

    __device__ __forceinline__ void merge(const Rules&, const Square& later) {
        squares = __dadd_rn(squares, later.squares);
    }
};

/// Exact sums of integers: 128 bits, two's complement.
struct WholeSum {
    u64 low, high;

    static __device__ __forceinline__ WholeSum none(const Rules&) { return WholeSum{0, 0}; }

    template <class T>
    __device__ __forceinline__ void take(const Rules&, const Cf&, T value, double, u64) {
        u64 wide = Element<T>::wide(value);
        u64 sign = Element<T>::is_signed && (i64)wide < 0 ? ~0ull : 0;
        u64 sum = low + wide;
        high += sign + (sum < low ? 1 : 0);
        low = sum;
    }

    __device__ __forceinline__ void merge(const Rules&, const WholeSum& later) {
        u64 sum = low + later.low;
        high += later.high + (sum < low ? 1 : 0);
        low = sum;
    }
};

/// How many values there are, missing ones aside, and how many are not 0. NaN is not 0.
struct Tally {
    u64 valid, truths;

    static __device__ __forceinline__ Tally none(const Rules&) { return Tally{0, 0}; }

    template <class T>
    __device__ __forceinline__ void take(const Rules& rules, const Cf& cf, T value, double, u64) {
        bool is_missing, is_true;
        if (Element<T>::is_float || cf.decodes) {
            double number = decoded(cf, value);
            is_missing = is_nan(number);
            is_true = !(number == 0.0);
        } else {
            u64 wide = Element<T>::wide(value);
            is_missing = rules.has_nat && wide == 1ull << 63;
            is_true = wide != 0;
        }
        valid += is_missing ? 0 : 1;
        truths += is_true ? 1 : 0;
    }

    __device__ __forceinline__ void merge(const Rules&, const Tally& later) {
        valid += later.valid;
        truths += later.truths;
    }
};

/// The least or greatest number and the first place it is at. NaN is both, unless it is left out.
struct Extreme {
    double value;
    u64 place;

    static __device__ __forceinline__ Extreme none(const Rules&) {
        return Extreme{not_a_number(), NOWHERE};
    }

    template <class T>
    __device__ __forceinline__ void take(
        const Rules& rules, const Cf& cf, T stored, double, u64 place
    ) {
        double number = decoded(cf, stored);
        if (!(rules.skip && is_nan(number))) {
            merge(rules, Extreme{number, place});
        }
    }

    __device__ __forceinline__ void merge(const Rules& rules, const Extreme& other) {
        if (other.place == NOWHERE) return;
        bool ahead = rules.least ? other.value < value : other.value > value;
        bool is_same = other.value == value || (is_nan(other.value) && is_nan(value));
        // Where NaN counts, it is ahead of every number.
        bool beats = is_nan(value) ? false : ahead || is_nan(other.value);
        if (place == NOWHERE || beats || (is_same && other.place < place)) {
            *this = other;
        }
    }
};

/// The least or greatest integer and the first place it is at.
template <bool SIGNED> struct WholeExtreme {
    u64 value;
    u64 place;

    static __device__ __forceinline__ WholeExtreme none(const Rules&) {
        return WholeExtreme{0, NOWHERE};
    }

    template <class T>
    __device__ __forceinline__ void take(
        const Rules& rules, const Cf&, T stored, double, u64 place
    ) {
        u64 wide = Element<T>::wide(stored);
        bool is_left_out = rules.skip && rules.has_nat && wide == 1ull << 63;
        if (!is_left_out) merge(rules, WholeExtreme{wide, place});
    }

    __device__ __forceinline__ void merge(const Rules& rules, const WholeExtreme& other) {
        if (other.place == NOWHERE) return;
        bool less = SIGNED ? (i64)other.value < (i64)value : other.value < value;
        bool ahead = rules.least ? less : !less && other.value != value;
        if (rules.has_nat) {
            // NaT counts as both least and greatest.
            bool is_nat = value == 1ull << 63, other_is_nat = other.value == 1ull << 63;
            ahead = is_nat ? false : ahead || other_is_nat;
        }
        bool is_first = other.value == value && other.place < place;
        if (place == NOWHERE || ahead || is_first) *this = other;
    }
};
