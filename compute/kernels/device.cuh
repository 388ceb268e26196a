// What all kernels share: types, the shape of a kernel, bits of numbers.
//
// Kernels do the operations of the CPU code in its order, so that their results are the same bits:
// floats are never fused (NVRTC gets --fmad=false) and lanes are those of
// `compute/src/accumulators/run.rs`. Each takes one plain struct, which `compute/src/gpu/params.rs`
// mirrors. Every source compiles for the host too (`compute/emulator`).
#pragma once

#ifdef QUARR_EMULATOR
#include "../emulator/device.h"
#else
#define KERNEL(name, Params) \
    extern "C" __global__ void __launch_bounds__(256) name(const __grid_constant__ Params p)
#endif

/// Of functions that are rarely called, and long.
#ifdef QUARR_EMULATOR
#define SLOW inline
#else
#define SLOW __noinline__
#endif

/// Memory at an address that is known to be the device's: without being told, the compiler asks what
/// kind of memory it is with every load.
template <class T> __device__ __forceinline__ const T* device_memory(const void* address) {
#ifndef QUARR_EMULATOR
    __builtin_assume(__isGlobal(address));
#endif
    return (const T*)address;
}

typedef unsigned char u8;
typedef signed char i8;
typedef unsigned short u16;
typedef short i16;
typedef unsigned int u32;
typedef int i32;
typedef unsigned long long u64;
typedef long long i64;

/// The bits of a half or a bfloat16.
struct half_bits { u16 bits; };
struct brain_bits { u16 bits; };

/// Threads of a block, and of a warp.
const u32 THREADS = 256;
const u32 WARP = 32;
const u32 WARPS = THREADS / WARP;
const u32 ALL_LANES = 0xffffffffu;

__device__ __forceinline__ u32 lane_id() { return threadIdx.x % WARP; }
__device__ __forceinline__ u32 warp_id() { return threadIdx.x / WARP; }
__device__ __forceinline__ u64 global_thread() { return (u64)blockIdx.x * THREADS + threadIdx.x; }
__device__ __forceinline__ u64 global_warp() { return (u64)blockIdx.x * WARPS + warp_id(); }

__device__ __forceinline__ double infinity() { return __longlong_as_double(0x7ff0000000000000ll); }
__device__ __forceinline__ double not_a_number() { return __longlong_as_double(0x7ff8000000000000ll); }
__device__ __forceinline__ bool is_nan(double value) { return value != value; }

/// A float of 64 bits rounded to 32.
__device__ __forceinline__ double rounded(double value) { return (double)(float)value; }

/// Exact, also for subnormals: exponents 2^-24 … 2^15 become those of a float of 32 bits.
__device__ __forceinline__ double half_to_double(u16 bits) {
    u32 magnitude = bits & 0x7fffu;
    u32 special = (magnitude << 13) | 0x7f800000u;
    float scaled = __uint_as_float(magnitude << 13) * __uint_as_float((127u + 112u) << 23);
    u32 absolute = (magnitude & 0x7c00u) == 0x7c00u ? special : __float_as_uint(scaled);
    return (double)__uint_as_float(absolute | ((u32)(bits & 0x8000u) << 16));
}

__device__ __forceinline__ double brain_to_double(u16 bits) {
    return (double)__uint_as_float((u32)bits << 16);
}

/// Element types: their numbers, and how they are made of bits.
template <class T> struct Element;

#define WHOLE_ELEMENT(T, SIGNED)                                                              \
    template <> struct Element<T> {                                                           \
        static const bool is_float = false, is_signed = SIGNED;                               \
        static __device__ __forceinline__ T of_bits(u64 bits) { return (T)bits; }             \
        static __device__ __forceinline__ double number(T value) { return (double)value; }    \
        static __device__ __forceinline__ u64 wide(T value) {                                 \
            return SIGNED ? (u64)(i64)value : (u64)value;                                     \
        }                                                                                     \
    };
WHOLE_ELEMENT(u8, false)
WHOLE_ELEMENT(i8, true)
WHOLE_ELEMENT(u16, false)
WHOLE_ELEMENT(i16, true)
WHOLE_ELEMENT(u32, false)
WHOLE_ELEMENT(i32, true)
WHOLE_ELEMENT(u64, false)
WHOLE_ELEMENT(i64, true)
#undef WHOLE_ELEMENT

#define FLOAT_ELEMENT(T, OF_BITS, NUMBER)                                                     \
    template <> struct Element<T> {                                                           \
        static const bool is_float = true, is_signed = true;                                  \
        static __device__ __forceinline__ T of_bits(u64 bits) { return OF_BITS; }             \
        static __device__ __forceinline__ double number(T value) { return NUMBER; }           \
        static __device__ __forceinline__ u64 wide(T value) {                                 \
            return (u64)__double_as_longlong(NUMBER);                                         \
        }                                                                                     \
    };
FLOAT_ELEMENT(half_bits, half_bits{(u16)bits}, half_to_double(value.bits))
FLOAT_ELEMENT(brain_bits, brain_bits{(u16)bits}, brain_to_double(value.bits))
FLOAT_ELEMENT(float, __uint_as_float((u32)bits), (double)value)
FLOAT_ELEMENT(double, __longlong_as_double((i64)bits), value)
#undef FLOAT_ELEMENT
