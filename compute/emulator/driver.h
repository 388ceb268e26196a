// What the parts of the emulated driver share: results, objects behind handles, settings.
//
// Every function of the API holds one lock for the whole process, so the state below needs no other,
// and a launch has the static `__shared__` memory of its kernel to itself.
#pragma once

#include <sys/types.h>
#include <unistd.h>

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "device.h"

// The results of CUDA 12.1; cudarc may be given no other number.
#define RESULTS(X)                                                                              \
    X(SUCCESS, 0) X(ERROR_INVALID_VALUE, 1) X(ERROR_OUT_OF_MEMORY, 2)                           \
    X(ERROR_NOT_INITIALIZED, 3) X(ERROR_DEINITIALIZED, 4) X(ERROR_STUB_LIBRARY, 34)             \
    X(ERROR_NO_DEVICE, 100) X(ERROR_INVALID_DEVICE, 101) X(ERROR_INVALID_IMAGE, 200)            \
    X(ERROR_INVALID_CONTEXT, 201) X(ERROR_NO_BINARY_FOR_GPU, 209)                               \
    X(ERROR_ECC_UNCORRECTABLE, 214) X(ERROR_INVALID_PTX, 218)                                   \
    X(ERROR_JIT_COMPILER_NOT_FOUND, 221) X(ERROR_UNSUPPORTED_PTX_VERSION, 222)                  \
    X(ERROR_FILE_NOT_FOUND, 301) X(ERROR_OPERATING_SYSTEM, 304) X(ERROR_INVALID_HANDLE, 400)    \
    X(ERROR_ILLEGAL_STATE, 401) X(ERROR_NOT_FOUND, 500) X(ERROR_NOT_READY, 600)                 \
    X(ERROR_ILLEGAL_ADDRESS, 700) X(ERROR_LAUNCH_OUT_OF_RESOURCES, 701)                         \
    X(ERROR_LAUNCH_TIMEOUT, 702) X(ERROR_CONTEXT_IS_DESTROYED, 709) X(ERROR_ASSERT, 710)        \
    X(ERROR_HOST_MEMORY_ALREADY_REGISTERED, 712) X(ERROR_HOST_MEMORY_NOT_REGISTERED, 713)       \
    X(ERROR_HARDWARE_STACK_ERROR, 714) X(ERROR_ILLEGAL_INSTRUCTION, 715)                        \
    X(ERROR_MISALIGNED_ADDRESS, 716) X(ERROR_LAUNCH_FAILED, 719) X(ERROR_NOT_PERMITTED, 800)    \
    X(ERROR_NOT_SUPPORTED, 801) X(ERROR_SYSTEM_NOT_READY, 802)                                  \
    X(ERROR_SYSTEM_DRIVER_MISMATCH, 803) X(ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE, 804)           \
    X(ERROR_STREAM_CAPTURE_UNSUPPORTED, 900) X(ERROR_STREAM_CAPTURE_INVALIDATED, 901)           \
    X(ERROR_STREAM_CAPTURE_MERGE, 902) X(ERROR_STREAM_CAPTURE_UNMATCHED, 903)                   \
    X(ERROR_STREAM_CAPTURE_ISOLATION, 905) X(ERROR_CAPTURED_EVENT, 907)                         \
    X(ERROR_STREAM_CAPTURE_WRONG_THREAD, 908) X(ERROR_TIMEOUT, 909) X(ERROR_UNKNOWN, 999)

enum CUresult : int {
#define RESULT(name, number) CUDA_##name = number,
    RESULTS(RESULT)
#undef RESULT
};

typedef int CUdevice;
typedef unsigned long long CUdeviceptr;

namespace emulator {

// The primary context of a device, which is also its memory pool.
struct Context {
    int device = 0;
    int retained = 0;
    CUresult broken = CUDA_SUCCESS;  // set by a failed launch; every later call returns it
    size_t allocated_bytes = 0, peak_bytes = 0;
    uint64_t pool_attributes[5] = {};
    unsigned flags = 0;
};

typedef std::function<CUresult()> Operation;

// What a stream records instead of running it.
struct Capture {
    std::vector<Operation> operations;
    pid_t thread = 0;
    int mode = 0;  // CUstreamCaptureMode: 0 global, 1 of this thread, 2 relaxed
    bool invalidated = false, ended = false;
};

struct Stream {
    Context *context = nullptr;
    std::shared_ptr<Capture> capture;
    bool captures_first = false;  // the stream that began the capture
};

struct Settings {
    int devices = 1;
    size_t memory_bytes = size_t{1} << 30;
    int driver_version = 12080;
    int capability = 90;
    CUresult init_error = CUDA_SUCCESS;
    std::string order;
};
extern Settings settings;
constexpr int DEVICES_MAX = 16;
extern Context contexts[DEVICES_MAX];

// settings.cpp
void read_settings();
bool known(CUresult result);
void message(const char *format, ...) __attribute__((format(printf, 1, 2)));

// What a function of the API needs before it may do anything.
enum class Needs { Nothing, Initialised, Context };

// Counts the call, holds the lock, and says why the function must fail at once, if it must.
struct Entry {
    Entry(const char *function, Needs needs);
    std::unique_lock<std::recursive_mutex> lock;
    CUresult error;
};
#define API extern "C" EMULATOR_API CUresult
#define ENTER(needs)                                      \
    ::emulator::Entry entry(__func__, ::emulator::needs); \
    if (entry.error != CUDA_SUCCESS) return entry.error
#define TRY(expression)                                              \
    if (CUresult error_ = (expression); error_ != CUDA_SUCCESS) return error_

// driver.cpp
extern bool initialised;
Context *current_context();
int attribute_of(int attribute);

// modules.cpp
void drop_modules(Context &context);

// memory.cpp
inline const size_t PAGE = static_cast<size_t>(sysconf(_SC_PAGESIZE));
bool in_device_memory(CUdeviceptr address, size_t bytes);
void forbid_other_devices(const Context &context, bool forbid);
std::string describe_address(uintptr_t address);
void free_all(Context &context);

// streams.cpp
Stream *find_stream(void *handle);
// Runs the operation, or records it if the stream is capturing.
EMULATOR_API CUresult submit(void *stream, Operation operation);
// Fails, and spoils the capture, if this thread may not do an unordered thing now.
CUresult refuse_while_capturing();
void drop_streams(Context &context);

// launch.cpp
const Kernel *find_kernel(const std::string &module, const std::string &name);
bool has_module(const std::string &module);
// Runs all blocks of a grid, of at most THREADS_MAX threads each, in the calling thread.
// `shared_bytes` is the dynamic shared memory of a block.
CUresult run_grid(const Kernel &kernel, Index grid, Index block, size_t shared_bytes,
                  const void *parameters);
constexpr unsigned THREADS_MAX = 1024;
constexpr size_t SHARED_BYTES_MAX = 227 * 1024;
// For a fiber: says what is wrong, ends the launch and does not return.
[[noreturn]] void fail(CUresult result, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
std::string position();

// faults.cpp
// Runs `body`; a fault in it (a bad address) becomes its result.
EMULATOR_API CUresult guarded(const Operation &body);

}  // namespace emulator
