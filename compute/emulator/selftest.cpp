// Tests of the emulated device, with kernels of its own: what must work, and what must be refused.
//
// Each test runs in a process of its own, because a failed launch breaks the context.
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <vector>

#include "driver.h"

struct Buffers {
    const unsigned *in;
    unsigned *out;
    unsigned count, step;
};

// The sum of a block, by halves through dynamic shared memory.
KERNEL(block_sum, Buffers) {
    DYNAMIC_SHARED(unsigned, sums);
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    sums[threadIdx.x] = i < p.count ? p.in[i] : 0;
    for (unsigned half = blockDim.x / 2; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
    }
    __syncthreads();
    if (threadIdx.x == 0) p.out[blockIdx.x] = sums[0];
}

// Sums of warps, of which the last may lack lanes.
KERNEL(warp_sum, Buffers) {
    unsigned lanes = min(32u, blockDim.x - threadIdx.x / 32 * 32);
    unsigned mask = lanes == 32 ? 0xffffffff : (1u << lanes) - 1, lane = threadIdx.x % 32;
    unsigned value = p.in[threadIdx.x];
    for (unsigned delta = 16; delta > 0; delta /= 2) {
        unsigned other = __shfl_down_sync(mask, value, delta);
        if (lane + delta < lanes) value += other;
    }
    if (lane == 0) p.out[threadIdx.x / 32] = value;
    double wide = __shfl_xor_sync(mask, lane + 0.5, 1);
    bool right = (lane ^ 1) >= lanes || wide == (lane ^ 1) + 0.5;
    if (!__all_sync(mask, right)) p.out[threadIdx.x / 32] = 0;
    if (__ballot_sync(mask, lane % 2) != (mask & 0xaaaaaaaa)) p.out[threadIdx.x / 32] = 0;
    if (lane < lanes / 2 && __activemask() != mask >> (lanes - lanes / 2)) p.out[threadIdx.x / 32] = 0;
}

KERNEL(count_up, Buffers) {
    atomicAdd(p.out, p.in[threadIdx.x]);
    atomicMax(p.out + 1, threadIdx.x);
    if (__syncthreads_count(threadIdx.x % 3 == 0) != static_cast<int>((blockDim.x + 2) / 3)) __trap();
}

// Depends on the order of threads: the last one that writes wins.
KERNEL(race, Buffers) { *p.out = threadIdx.x + blockIdx.x * blockDim.x; }

KERNEL(add_step, Buffers) {
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < p.count) p.out[i] += p.step;
}

KERNEL(divergent_barrier, Buffers) {
    if (threadIdx.x < 16) {
        __syncthreads();
    } else {
        __syncthreads();
    }
}
KERNEL(missed_barrier, Buffers) {
    if (threadIdx.x < 16) __syncthreads();
}
KERNEL(missing_lane, Buffers) { p.out[0] = __shfl_sync(0xffffffff, p.in[0], 0); }
KERNEL(late_lane, Buffers) {
    if (threadIdx.x == 5) __syncthreads();
    __syncwarp();
    __syncthreads();
}
KERNEL(reads_behind, Buffers) { p.out[threadIdx.x] = p.in[threadIdx.x + p.step]; }
KERNEL(misaligned, Buffers) {
    p.out[0] = *reinterpret_cast<const unsigned *>(reinterpret_cast<const char *>(p.in) + p.step);
}
KERNEL(shared_index, Buffers) {
    __shared__ unsigned values[8];
    values[threadIdx.x + p.step] = 1;
    p.out[0] = values[0];
}
KERNEL(shared_behind, Buffers) {
    DYNAMIC_SHARED(unsigned, values);
    values[threadIdx.x + p.step] = 1;
}
KERNEL(divides, Buffers) { p.out[0] = p.count / p.step; }
KERNEL(shifts, Buffers) { p.out[0] = p.count << p.step; }
KERNEL(casts, Buffers) { p.out[0] = static_cast<unsigned>(-1.5 * p.count); }
KERNEL(deep, Buffers) {
    if (threadIdx.x < 3) return;
    volatile unsigned big[1 << 15];
    for (unsigned i = 0; i < 1 << 15; i++) big[i] = p.step;
    p.out[0] = big[p.count];
}

typedef unsigned long long Address;
extern "C" {
CUresult cuInit(unsigned);
CUresult cuDeviceGetCount(int *);
CUresult cuDevicePrimaryCtxRetain(void **, int);
CUresult cuDevicePrimaryCtxRelease_v2(int);
CUresult cuCtxSetCurrent(void *);
CUresult cuCtxSynchronize();
CUresult cuModuleLoadData(void **, const void *);
CUresult cuModuleGetFunction(void **, void *, const char *);
CUresult cuMemAlloc_v2(Address *, size_t);
CUresult cuMemFree_v2(Address);
CUresult cuMemAllocAsync(Address *, size_t, void *);
CUresult cuMemcpyHtoD_v2(Address, const void *, size_t);
CUresult cuMemcpyDtoH_v2(void *, Address, size_t);
CUresult cuMemcpyHtoDAsync_v2(Address, const void *, size_t, void *);
CUresult cuMemsetD8_v2(Address, unsigned char, size_t);
CUresult cuMemGetInfo_v2(size_t *, size_t *);
CUresult cuStreamCreate(void **, unsigned);
CUresult cuStreamBeginCapture_v2(void *, int);
CUresult cuStreamEndCapture(void *, void **);
CUresult cuGraphInstantiateWithFlags(void **, void *, unsigned long long);
CUresult cuGraphLaunch(void *, void *);
CUresult cuLaunchKernel(void *, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void *,
                        void **, void **);
size_t quarr_emulator_allocated(int);
size_t quarr_emulator_peak(int);
uint64_t quarr_emulator_calls(const char *);
void quarr_emulator_configure(const char *, const char *);
int cublasCreate_v2(void **);
int cublasSgemm_v2(void *, int, int, int, int, int, const float *, const float *, int, const float *, int,
                   const float *, float *, int);
int cublasGemmEx(void *, int, int, int, int, int, const void *, const void *, int, int, const void *, int, int,
                 const void *, void *, int, int, int, int);
}

#define CHECK(condition)                                              \
    do {                                                              \
        if (!(condition)) {                                           \
            fprintf(stderr, "selftest.cpp:%d: %s\n", __LINE__, #condition); \
            exit(1);                                                  \
        }                                                             \
    } while (false)
#define OK(call) CHECK((call) == CUDA_SUCCESS)

static void *module;

// A context on a device, and the kernels of this file behind PTX that bounds all but `race` to 512 threads.
static void begin(int device = 0) {
    static const char *const names[] = {"block_sum", "warp_sum", "count_up", "race", "add_step",
        "divergent_barrier", "missed_barrier", "missing_lane", "late_lane", "reads_behind", "misaligned",
        "shared_index", "shared_behind", "divides", "shifts", "casts", "deep"};
    void *context;
    OK(cuInit(0));
    OK(cuDevicePrimaryCtxRetain(&context, device));
    OK(cuCtxSetCurrent(context));
    std::string ptx = "// quarr module selftest\n.version 8.1\n.target sm_70\n";
    for (const char *name : names) {
        ptx += std::string(".visible .entry ") + name + "(\n.param .align 8 .b8 " + name
            + "_param_0[24]\n)\n" + (name != std::string("race") ? ".maxntid 512, 1, 1\n" : "") + "{ret;}\n";
    }
    OK(cuModuleLoadData(&module, ptx.c_str()));
}

static CUresult launch(const char *name, unsigned blocks, unsigned threads, Buffers buffers, unsigned shared = 0,
                       void *stream = nullptr) {
    void *function, *parameters[] = {&buffers};
    OK(cuModuleGetFunction(&function, module, name));
    return cuLaunchKernel(function, blocks, 1, 1, threads, 1, 1, shared, stream, parameters, nullptr);
}

static unsigned *allocate(size_t count) {
    Address address;
    OK(cuMemAlloc_v2(&address, count * sizeof(unsigned)));
    OK(cuMemsetD8_v2(address, 0, count * sizeof(unsigned)));
    return reinterpret_cast<unsigned *>(address);
}
static Address address_of(const void *pointer) { return reinterpret_cast<Address>(pointer); }
static unsigned *numbers(unsigned count) {
    std::vector<unsigned> values(count);
    for (unsigned i = 0; i < count; i++) values[i] = i + 1;
    unsigned *device = allocate(count);
    OK(cuMemcpyHtoD_v2(address_of(device), values.data(), count * 4));
    return device;
}
static std::vector<unsigned> fetch(const unsigned *device, size_t count) {
    std::vector<unsigned> values(count);
    OK(cuMemcpyDtoH_v2(values.data(), address_of(device), count * 4));
    return values;
}

static void barriers_and_shared_memory_sum() {
    begin();
    unsigned *out = allocate(3);
    OK(launch("block_sum", 3, 256, {numbers(600), out, 600, 0}, 256 * 4));
    CHECK((fetch(out, 3) == std::vector<unsigned>{32896, 98432, 600 * 601 / 2 - 32896 - 98432}));
}

static void shuffles_sum_a_partial_warp() {
    begin();
    unsigned *out = allocate(2);
    OK(launch("warp_sum", 1, 44, {numbers(44), out, 44, 0}));
    CHECK((fetch(out, 2) == std::vector<unsigned>{528, 44 * 45 / 2 - 528}));
}

static void atomics_count() {
    begin();
    unsigned *out = allocate(2);
    OK(launch("count_up", 2, 100, {numbers(100), out, 0, 0}));
    CHECK((fetch(out, 2) == std::vector<unsigned>{10100, 99}));
}

static unsigned winner(const char *order) {
    quarr_emulator_configure("ORDER", order);
    unsigned *out = allocate(1);
    OK(launch("race", 4, 64, {nullptr, out, 0, 0}));
    return fetch(out, 1)[0];
}
static void orders_uncover_races() {
    begin();
    CHECK(winner("") == 255);
    CHECK(winner("reverse") == 0);
    std::vector<unsigned> winners;
    for (int i = 0; i < 8; i++) winners.push_back(winner("shuffle:7"));
    CHECK(std::count(winners.begin(), winners.end(), winners[0]) < 8);
    unsigned *out = allocate(2);
    OK(launch("block_sum", 2, 256, {numbers(512), out, 512, 0}, 256 * 4));
    CHECK((fetch(out, 2) == std::vector<unsigned>{32896, 98432}));
}

static void a_capture_runs_when_it_is_launched() {
    begin();
    void *stream, *graph, *executable;
    unsigned *out = allocate(100);
    std::vector<unsigned> host(100, 5);
    OK(cuStreamCreate(&stream, 1));
    OK(cuStreamBeginCapture_v2(stream, 1));
    OK(cuMemcpyHtoDAsync_v2(address_of(out), host.data(), 400, stream));
    OK(launch("add_step", 1, 128, {nullptr, out, 100, 2}, 0, stream));
    OK(cuStreamEndCapture(stream, &graph));
    CHECK(fetch(out, 1)[0] == 0);
    OK(cuGraphInstantiateWithFlags(&executable, graph, 0));
    for (unsigned base : {5, 9}) {
        std::fill(host.begin(), host.end(), base);
        OK(cuGraphLaunch(executable, stream));
        CHECK(fetch(out, 100) == std::vector<unsigned>(100, base + 2));
    }
    OK(cuStreamBeginCapture_v2(stream, 1));
    CHECK(cuCtxSynchronize() == CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    CHECK(cuStreamEndCapture(stream, &graph) == CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
}

static void memory_is_bounded_and_counted() {
    quarr_emulator_configure("MEMORY_BYTES", "100000");
    begin();
    Address first, second;
    size_t free_bytes, total_bytes;
    OK(cuMemAlloc_v2(&first, 60000));
    CHECK(cuMemAlloc_v2(&second, 40001) == CUDA_ERROR_OUT_OF_MEMORY);
    OK(cuMemAllocAsync(&second, 40000, nullptr));
    OK(cuMemGetInfo_v2(&free_bytes, &total_bytes));
    CHECK(free_bytes == 0 && total_bytes == 100000);
    OK(cuMemFree_v2(first));
    CHECK(cuMemFree_v2(first) == CUDA_ERROR_INVALID_VALUE);
    CHECK(quarr_emulator_allocated(0) == 40000 && quarr_emulator_peak(0) == 100000);
    CHECK(cuMemsetD8_v2(second, 1, 40001) == CUDA_ERROR_INVALID_VALUE);
    reinterpret_cast<char *>(second)[-1] = 1;
    CHECK(cuMemFree_v2(second) == CUDA_ERROR_ILLEGAL_ADDRESS);
}

static void calls_fail_on_demand() {
    begin();
    uint64_t calls = quarr_emulator_calls("cuMemAlloc_v2");
    Address address;
    quarr_emulator_configure("FAIL", "cuMemAlloc:2:once:2");
    OK(cuMemAlloc_v2(&address, 1));
    CHECK(cuMemAlloc_v2(&address, 1) == CUDA_ERROR_OUT_OF_MEMORY);
    OK(cuMemAlloc_v2(&address, 1));
    quarr_emulator_configure("FAIL", "cuCtxSynchronize:1");
    CHECK(cuCtxSynchronize() == CUDA_ERROR_UNKNOWN && cuCtxSynchronize() == CUDA_ERROR_UNKNOWN);
    CHECK(quarr_emulator_calls("cuMemAlloc_v2") == calls + 3);
}

static void modules_are_checked() {
    begin();
    void *other, *function;
    CHECK(cuModuleGetFunction(&function, module, "block_su") == CUDA_ERROR_NOT_FOUND);
    auto load = [&](const char *text) { return cuModuleLoadData(&other, text); };
    CHECK(load(".version 8.1\n.target sm_70\n") == CUDA_ERROR_INVALID_IMAGE);
    CHECK(load("// quarr module nowhere\n.version 8.1\n.target sm_70\n") == CUDA_ERROR_INVALID_IMAGE);
    CHECK(load("// quarr module selftest\n.version 9.0\n.target sm_70\n") == CUDA_ERROR_UNSUPPORTED_PTX_VERSION);
    CHECK(load("// quarr module selftest\n.version 8.1\n.target sm_100\n") == CUDA_ERROR_INVALID_PTX);
    OK(load("// quarr module selftest\n.version 8.1\n.target sm_70\n"
            ".entry race(.param .b8 race_param_0[32]) {}\n.entry gone() {}\n"));
    CHECK(cuModuleGetFunction(&function, other, "add_step") == CUDA_ERROR_NOT_FOUND);
    CHECK(cuModuleGetFunction(&function, other, "gone") == CUDA_ERROR_NOT_FOUND);
    CHECK(cuModuleGetFunction(&function, other, "race") == CUDA_ERROR_INVALID_IMAGE);
}

static void products_are_those_of_blas() {
    begin();
    void *handle;
    CHECK(cublasCreate_v2(&handle) == 0);
    // A is 2 by 3, by columns; B is 3 by 2, and given transposed.
    const float a[] = {1, 4, 2, 5, 3, 6}, b[] = {7, 8, 9, 10, 11, 12}, one = 1, two = 2, c_before[] = {1, 1, 1, 1};
    float *device = reinterpret_cast<float *>(allocate(16)), c[4];
    OK(cuMemcpyHtoD_v2(address_of(device), a, sizeof a));
    OK(cuMemcpyHtoD_v2(address_of(device + 6), b, sizeof b));
    OK(cuMemcpyHtoD_v2(address_of(device + 12), c_before, sizeof c_before));
    CHECK(cublasSgemm_v2(handle, 0, 1, 2, 2, 3, &one, device, 2, device + 6, 2, &two, device + 12, 2) == 0);
    OK(cuMemcpyDtoH_v2(c, address_of(device + 12), sizeof c));
    CHECK(c[0] == 60 && c[1] == 141 && c[2] == 66 && c[3] == 156);
    // 1.5 times 2^-24, the smallest half, is a tie and goes to the even 2^-23; in bfloat16, 1.5 * 3.
    const uint16_t halves[] = {0x3e00, 0x0001, 0x3fc0, 0x4040};
    const float zero = 0;
    uint16_t product;
    char *bytes = reinterpret_cast<char *>(device);
    OK(cuMemcpyHtoD_v2(address_of(bytes), halves, sizeof halves));
    auto multiply = [&](char *x, char *y, int type) {
        CHECK(cublasGemmEx(handle, 0, 0, 1, 1, 1, &one, x, type, 1, y, type, 1, &zero, bytes + 8, type, 1, 68, -1)
              == 0);
        OK(cuMemcpyDtoH_v2(&product, address_of(bytes + 8), 2));
        return product;
    };
    CHECK(multiply(bytes, bytes + 2, 2) == 0x0002);
    CHECK(multiply(bytes + 4, bytes + 6, 14) == 0x4090);
}

// The launch fails, so does what follows, and a new context is sound.
static void refused(const char *kernel, CUresult result, unsigned threads, unsigned step, unsigned shared = 0) {
    begin();
    unsigned *in = numbers(64), *out = allocate(64);
    CHECK(launch(kernel, 1, threads, {in, out, 64, step}, shared) == result);
    CHECK(cuCtxSynchronize() == result);
    OK(cuDevicePrimaryCtxRelease_v2(0));
    CHECK(cuCtxSynchronize() == CUDA_ERROR_CONTEXT_IS_DESTROYED);
    barriers_and_shared_memory_sum();
}
static void divergent_barriers_are_refused() { refused("divergent_barrier", CUDA_ERROR_LAUNCH_FAILED, 32, 0); }
static void missed_barriers_are_refused() { refused("missed_barrier", CUDA_ERROR_LAUNCH_FAILED, 64, 0); }
static void lanes_that_are_not_there_are_refused() { refused("missing_lane", CUDA_ERROR_LAUNCH_FAILED, 20, 0); }
static void lanes_that_wait_elsewhere_are_refused() { refused("late_lane", CUDA_ERROR_LAUNCH_FAILED, 32, 0); }
static void reads_behind_an_allocation_are_refused() { refused("reads_behind", CUDA_ERROR_ILLEGAL_ADDRESS, 64, 1); }
static void misaligned_reads_are_refused() { refused("misaligned", CUDA_ERROR_MISALIGNED_ADDRESS, 1, 2); }
static void shared_indices_are_checked() { refused("shared_index", CUDA_ERROR_ILLEGAL_ADDRESS, 8, 1); }
static void dynamic_shared_memory_is_fenced() { refused("shared_behind", CUDA_ERROR_ILLEGAL_ADDRESS, 64, 1, 256); }
static void divisions_by_zero_are_refused() { refused("divides", CUDA_ERROR_LAUNCH_FAILED, 1, 0); }
static void shifts_by_all_bits_are_refused() { refused("shifts", CUDA_ERROR_LAUNCH_FAILED, 1, 32); }
static void casts_that_do_not_fit_are_refused() { refused("casts", CUDA_ERROR_LAUNCH_FAILED, 1, 0); }
static void stacks_are_fenced() { refused("deep", CUDA_ERROR_ILLEGAL_ADDRESS, 4, 0); }
static void large_blocks_are_refused() { refused("race", CUDA_ERROR_LAUNCH_FAILED, 1025, 0); }
static void bounds_of_the_kernel_are_kept() { refused("add_step", CUDA_ERROR_LAUNCH_FAILED, 513, 0); }

static void freed_memory_is_refused() {
    begin();
    unsigned *in = numbers(64);
    OK(cuMemFree_v2(address_of(in)));
    CHECK(launch("reads_behind", 1, 1, {in, allocate(1), 0, 0}) == CUDA_ERROR_ILLEGAL_ADDRESS);
}

static void memory_of_another_device_is_refused() {
    setenv("QUARR_EMULATOR_DEVICES", "2", 1);
    begin(1);
    int count;
    OK(cuDeviceGetCount(&count));
    CHECK(count == 2);
    unsigned *in = numbers(64), *own = allocate(1);
    OK(launch("reads_behind", 1, 1, {in, own, 0, 0}));
    begin(0);
    CHECK(launch("reads_behind", 1, 1, {in, allocate(1), 0, 0}) == CUDA_ERROR_ILLEGAL_ADDRESS);
}

static void initialisation_fails_on_demand() {
    setenv("QUARR_EMULATOR_INIT_ERROR", "803", 1);
    CHECK(cuInit(0) == CUDA_ERROR_SYSTEM_DRIVER_MISMATCH);
}

struct Test {
    const char *name;
    void (*run)();
};
#define TEST(name) {#name, name}
static const Test TESTS[] = {TEST(barriers_and_shared_memory_sum), TEST(shuffles_sum_a_partial_warp),
    TEST(atomics_count), TEST(orders_uncover_races), TEST(a_capture_runs_when_it_is_launched),
    TEST(memory_is_bounded_and_counted), TEST(calls_fail_on_demand), TEST(modules_are_checked),
    TEST(products_are_those_of_blas), TEST(divergent_barriers_are_refused), TEST(missed_barriers_are_refused),
    TEST(lanes_that_are_not_there_are_refused), TEST(lanes_that_wait_elsewhere_are_refused),
    TEST(reads_behind_an_allocation_are_refused), TEST(misaligned_reads_are_refused),
    TEST(shared_indices_are_checked), TEST(dynamic_shared_memory_is_fenced), TEST(divisions_by_zero_are_refused),
    TEST(shifts_by_all_bits_are_refused), TEST(casts_that_do_not_fit_are_refused), TEST(stacks_are_fenced),
    TEST(large_blocks_are_refused), TEST(bounds_of_the_kernel_are_kept), TEST(freed_memory_is_refused),
    TEST(memory_of_another_device_is_refused), TEST(initialisation_fails_on_demand)};

int main() {
    int failed = 0;
    for (const Test &test : TESTS) {
        fflush(stdout);
        pid_t child = fork();
        if (child == 0) {
            test.run();
            _exit(0);
        }
        int status = 0;
        waitpid(child, &status, 0);
        bool passed = WIFEXITED(status) && WEXITSTATUS(status) == 0;
        printf("%s %s\n", passed ? "ok    " : "FAILED", test.name);
        failed += !passed;
    }
    printf("%zu tests, %d failed\n", sizeof TESTS / sizeof *TESTS, failed);
    return failed != 0;
}
