// What a kernel written in CUDA C++ needs to compile as host C++17 for the emulated device.
//
// Kernels include this through compute/kernels/device.cuh when QUARR_EMULATOR is defined. All threads
// of a block are fibers of one host thread (launch.cpp), so atomics are plain operations and every
// warp or block operation is a call that may switch fibers. The names are CUDA's; what is not here,
// no kernel has needed.
#pragma once

#include <limits.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <type_traits>

#define EMULATOR_API __attribute__((visibility("default")))
#define EMULATOR_HERE const char *file = __builtin_FILE(), int line = __builtin_LINE()

namespace emulator {

struct Index {
    unsigned x, y, z;
};

// Of the fiber that runs now; set by launch.cpp before it switches.
extern EMULATOR_API Index thread, block, block_size, grid_size;
extern EMULATOR_API unsigned char *dynamic_shared;

// One kernel of a module: `run` calls it with a pointer to its parameters.
struct Kernel {
    const char *module, *name;
    size_t parameters_bytes;
    void (*run)(const void *parameters);
};

struct EMULATOR_API Registration {
    explicit Registration(const Kernel &kernel);
};

enum class Barrier { Plain, Count, And, Or };
enum class Warp { Synchronise, Shuffle, Ballot };

// Waits for all threads of the block; what it returns depends on the kind and on all predicates.
EMULATOR_API int barrier(Barrier kind, int predicate, const char *file, int line);
// Waits for the lanes of `mask`; returns the value of lane `source`, or which lanes gave a value.
EMULATOR_API uint64_t collective(Warp kind, unsigned mask, unsigned source, uint64_t value,
                                 const char *file, int line);
EMULATOR_API unsigned active_mask();
EMULATOR_API unsigned lane();
[[noreturn]] EMULATOR_API void trap();

template <typename To, typename From>
inline To bits(From from) {
    static_assert(sizeof(To) == sizeof(From), "a bit cast keeps the size");
    To to;
    memcpy(&to, &from, sizeof to);
    return to;
}

template <typename T>
inline T shuffle(unsigned mask, T value, unsigned source, const char *file, int line) {
    static_assert(std::is_arithmetic_v<T> && (sizeof(T) == 4 || sizeof(T) == 8),
                  "CUDA shuffles 32- and 64-bit numbers");
    uint64_t raw = 0;
    memcpy(&raw, &value, sizeof value);
    raw = collective(Warp::Shuffle, mask, source, raw, file, line);
    memcpy(&value, &raw, sizeof value);
    return value;
}

}  // namespace emulator

#define __device__
#define __host__
#define __global__
#define __constant__
#define __grid_constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
#define __shared__ static
#define DYNAMIC_SHARED(type, name) type *const name = reinterpret_cast<type *>(::emulator::dynamic_shared)

#define threadIdx ::emulator::thread
#define blockIdx ::emulator::block
#define blockDim ::emulator::block_size
#define gridDim ::emulator::grid_size
#define warpSize 32

// Opens the body of a kernel whose one parameter is the struct `p`, and puts it into the table of
// the module QUARR_MODULE. One more step, so that a name made by a macro is expanded.
#define KERNEL(name, Params) EMULATOR_KERNEL(name, Params)
#define EMULATOR_TEXT(token) #token
#define EMULATOR_STRING(token) EMULATOR_TEXT(token)
#define EMULATOR_KERNEL(name, Params)                                                       \
    static_assert(std::is_trivially_copyable_v<Params> && sizeof(Params) <= 4096,           \
                  "parameters of a kernel are plain data of at most 4096 bytes");           \
    static void name(const Params &);                                                       \
    static const ::emulator::Registration registration_of_##name{                           \
        {EMULATOR_STRING(QUARR_MODULE), #name, sizeof(Params),                              \
         [](const void *p) { name(*static_cast<const Params *>(p)); }}};                    \
    static void name([[maybe_unused]] const Params &p)

#define EMULATOR_VECTOR(type, base, alignment)  \
    struct __align__(alignment) base##2 {       \
        type x, y;                              \
    };                                          \
    inline base##2 make_##base##2(type x, type y) { return {x, y}; }
#define EMULATOR_VECTOR4(type, base, alignment) \
    struct __align__(alignment) base##4 {       \
        type x, y, z, w;                        \
    };                                          \
    inline base##4 make_##base##4(type x, type y, type z, type w) { return {x, y, z, w}; }
EMULATOR_VECTOR(int, int, 8)
EMULATOR_VECTOR(unsigned, uint, 8)
EMULATOR_VECTOR(float, float, 8)
EMULATOR_VECTOR(double, double, 16)
EMULATOR_VECTOR(long long, longlong, 16)
EMULATOR_VECTOR(unsigned long long, ulonglong, 16)
EMULATOR_VECTOR4(unsigned char, uchar, 4)
EMULATOR_VECTOR4(unsigned short, ushort, 8)
EMULATOR_VECTOR4(int, int, 16)
EMULATOR_VECTOR4(unsigned, uint, 16)
EMULATOR_VECTOR4(float, float, 16)

// Block operations. Stricter than CUDA: every thread must be at the same line of the source.
inline void __syncthreads(EMULATOR_HERE) { emulator::barrier(emulator::Barrier::Plain, 0, file, line); }
inline int __syncthreads_count(int predicate, EMULATOR_HERE) {
    return emulator::barrier(emulator::Barrier::Count, predicate, file, line);
}
inline int __syncthreads_and(int predicate, EMULATOR_HERE) {
    return emulator::barrier(emulator::Barrier::And, predicate, file, line);
}
inline int __syncthreads_or(int predicate, EMULATOR_HERE) {
    return emulator::barrier(emulator::Barrier::Or, predicate, file, line);
}
inline void __threadfence() {}
inline void __threadfence_block() {}
[[noreturn]] inline void __trap() { emulator::trap(); }

// Warp operations. A lane outside the mask has no value: a shuffle from it returns nonsense.
inline void __syncwarp(unsigned mask = 0xffffffff, EMULATOR_HERE) {
    emulator::collective(emulator::Warp::Synchronise, mask, 0, 0, file, line);
}
inline unsigned __ballot_sync(unsigned mask, int predicate, EMULATOR_HERE) {
    return static_cast<unsigned>(
        emulator::collective(emulator::Warp::Ballot, mask, 0, predicate != 0, file, line));
}
inline int __any_sync(unsigned mask, int predicate, EMULATOR_HERE) {
    return __ballot_sync(mask, predicate, file, line) != 0;
}
inline int __all_sync(unsigned mask, int predicate, EMULATOR_HERE) {
    return __ballot_sync(mask, predicate, file, line) == mask;
}
inline unsigned __activemask() { return emulator::active_mask(); }

template <typename T>
inline T __shfl_sync(unsigned mask, T value, int source, int width = 32, EMULATOR_HERE) {
    unsigned inside = static_cast<unsigned>(width) - 1;
    unsigned from = (emulator::lane() & ~inside) | (static_cast<unsigned>(source) & inside);
    return emulator::shuffle(mask, value, from, file, line);
}
template <typename T>
inline T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, EMULATOR_HERE) {
    unsigned lane = emulator::lane(), first = lane & ~(static_cast<unsigned>(width) - 1);
    return emulator::shuffle(mask, value, lane - first >= delta ? lane - delta : lane, file, line);
}
template <typename T>
inline T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, EMULATOR_HERE) {
    unsigned lane = emulator::lane(), last = lane | (static_cast<unsigned>(width) - 1);
    return emulator::shuffle(mask, value, last - lane >= delta ? lane + delta : lane, file, line);
}
template <typename T>
inline T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32, EMULATOR_HERE) {
    unsigned lane = emulator::lane(), last = lane | (static_cast<unsigned>(width) - 1);
    unsigned from = lane ^ static_cast<unsigned>(lanes);
    return emulator::shuffle(mask, value, from <= last ? from : lane, file, line);
}

inline float min(float a, float b) {
    return isnan(a) ? b : isnan(b) ? a : a < b || (a == b && signbit(a)) ? a : b;
}
inline double min(double a, double b) {
    return isnan(a) ? b : isnan(b) ? a : a < b || (a == b && signbit(a)) ? a : b;
}
inline float max(float a, float b) {
    return isnan(a) ? b : isnan(b) ? a : a > b || (a == b && !signbit(a)) ? a : b;
}
inline double max(double a, double b) {
    return isnan(a) ? b : isnan(b) ? a : a > b || (a == b && !signbit(a)) ? a : b;
}
#define EMULATOR_MIN_MAX(T)                              \
    constexpr T min(T a, T b) { return b < a ? b : a; }  \
    constexpr T max(T a, T b) { return a < b ? b : a; }
EMULATOR_MIN_MAX(int)
EMULATOR_MIN_MAX(unsigned)
EMULATOR_MIN_MAX(long)
EMULATOR_MIN_MAX(unsigned long)
EMULATOR_MIN_MAX(long long)
EMULATOR_MIN_MAX(unsigned long long)

// Atomics, for the very types that CUDA has them for.
#define EMULATOR_ATOMIC(name, T, expression)     \
    inline T name(T *address, T value) {         \
        T old = *address;                        \
        *address = static_cast<T>(expression);   \
        return old;                              \
    }
#define EMULATOR_ATOMICS(T)                                  \
    EMULATOR_ATOMIC(atomicMin, T, value < old ? value : old) \
    EMULATOR_ATOMIC(atomicMax, T, value > old ? value : old) \
    EMULATOR_ATOMIC(atomicAnd, T, old & value)               \
    EMULATOR_ATOMIC(atomicOr, T, old | value)                \
    EMULATOR_ATOMIC(atomicXor, T, old ^ value)               \
    EMULATOR_ATOMIC(atomicExch, T, value)                    \
    inline T atomicCAS(T *address, T compare, T value) {     \
        T old = *address;                                    \
        *address = old == compare ? value : old;             \
        return old;                                          \
    }
EMULATOR_ATOMICS(int)
EMULATOR_ATOMICS(unsigned)
EMULATOR_ATOMICS(unsigned long long)
EMULATOR_ATOMIC(atomicMin, long long, value < old ? value : old)
EMULATOR_ATOMIC(atomicMax, long long, value > old ? value : old)
EMULATOR_ATOMIC(atomicAdd, int, static_cast<unsigned>(old) + static_cast<unsigned>(value))
EMULATOR_ATOMIC(atomicAdd, unsigned, old + value)
EMULATOR_ATOMIC(atomicAdd, unsigned long long, old + value)
EMULATOR_ATOMIC(atomicAdd, float, old + value)
EMULATOR_ATOMIC(atomicAdd, double, old + value)
EMULATOR_ATOMIC(atomicExch, float, value)

template <typename T>
inline T __ldg(const T *address) {
    return *address;
}

// Bits.
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz(static_cast<unsigned>(x)); }
inline int __clzll(long long x) {
    return x == 0 ? 64 : __builtin_clzll(static_cast<unsigned long long>(x));
}
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __ffsll(long long x) { return __builtin_ffsll(x); }
inline unsigned __brev(unsigned x) {
    unsigned reversed = 0;
    for (int bit = 0; bit < 32; bit++) reversed |= (x >> bit & 1) << (31 - bit);
    return reversed;
}
inline unsigned long long __brevll(unsigned long long x) {
    return static_cast<unsigned long long>(__brev(static_cast<unsigned>(x))) << 32
        | __brev(static_cast<unsigned>(x >> 32));
}
inline unsigned __byte_perm(unsigned x, unsigned y, unsigned selector) {
    uint64_t bytes = static_cast<uint64_t>(y) << 32 | x;
    unsigned result = 0;
    for (int i = 0; i < 4; i++) {
        result |= static_cast<unsigned>(bytes >> (selector >> (4 * i) & 7) * 8 & 0xff) << (8 * i);
    }
    return result;
}
inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned shift) {
    return static_cast<unsigned>((static_cast<uint64_t>(high) << 32 | low) << (shift & 31) >> 32);
}
inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift) {
    return static_cast<unsigned>((static_cast<uint64_t>(high) << 32 | low) >> (shift & 31));
}
inline unsigned __umulhi(unsigned a, unsigned b) {
    return static_cast<unsigned>(static_cast<uint64_t>(a) * b >> 32);
}
__extension__ typedef __int128 emulator_int128;
__extension__ typedef unsigned __int128 emulator_uint128;
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return static_cast<unsigned long long>(static_cast<emulator_uint128>(a) * b >> 64);
}
inline long long __mul64hi(long long a, long long b) {
    return static_cast<long long>(static_cast<emulator_int128>(a) * b >> 64);
}

inline unsigned __float_as_uint(float x) { return emulator::bits<unsigned>(x); }
inline int __float_as_int(float x) { return emulator::bits<int>(x); }
inline float __uint_as_float(unsigned x) { return emulator::bits<float>(x); }
inline float __int_as_float(int x) { return emulator::bits<float>(x); }
inline long long __double_as_longlong(double x) { return emulator::bits<long long>(x); }
inline double __longlong_as_double(long long x) { return emulator::bits<double>(x); }

// Arithmetic rounded once, to nearest: the compiler flags forbid to contract the plain operators.
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline float __fsqrt_rn(float a) { return sqrtf(a); }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dsub_rn(double a, double b) { return a - b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __ddiv_rn(double a, double b) { return a / b; }
inline double __fma_rn(double a, double b, double c) { return fma(a, b, c); }
inline double __dsqrt_rn(double a) { return sqrt(a); }
inline float __double2float_rn(double a) { return static_cast<float>(a); }
inline float __int2float_rn(int a) { return static_cast<float>(a); }
inline float __uint2float_rn(unsigned a) { return static_cast<float>(a); }
inline float __ll2float_rn(long long a) { return static_cast<float>(a); }
inline float __ull2float_rn(unsigned long long a) { return static_cast<float>(a); }
inline double __ll2double_rn(long long a) { return static_cast<double>(a); }
inline double __ull2double_rn(unsigned long long a) { return static_cast<double>(a); }
