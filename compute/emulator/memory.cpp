// Device memory with fences, pinned host memory, copies and fills.
//
//   | no access | filled up to a page | the allocation, rounded up to 16 bytes | no access |
//
// An access behind an allocation is a fault at once; what is written before it, or in the bytes it was
// rounded up by, is seen when it is freed. Freed memory stays mapped without access for a while. Fresh
// memory holds nonsense.
#include <stdlib.h>
#include <sys/mman.h>

#include <algorithm>
#include <deque>

#include "driver.h"

namespace emulator {
namespace {

constexpr unsigned char NONSENSE = 0xa5;
constexpr size_t FREED_MAX = 1024;

struct Allocation {
    Context *context;
    size_t bytes;
    unsigned char *mapping;
    size_t mapping_bytes;
};

std::map<CUdeviceptr, Allocation> allocations;
std::deque<std::pair<void *, size_t>> freed;
std::map<void *, bool> pinned;  // by address; whether it was allocated here, or only registered

CUresult allocate(Context &context, CUdeviceptr *address, size_t bytes) {
    if (bytes > settings.memory_bytes || context.allocated_bytes > settings.memory_bytes - bytes) {
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    size_t rounded = (bytes + 15) / 16 * 16, pages = (rounded + PAGE - 1) / PAGE * PAGE;
    size_t whole = pages + 2 * PAGE;
    void *memory = mmap(nullptr, whole, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) return CUDA_ERROR_OUT_OF_MEMORY;
    unsigned char *mapping = static_cast<unsigned char *>(memory);
    if (mprotect(mapping + PAGE, pages, PROT_READ | PROT_WRITE) != 0) {
        munmap(memory, whole);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    memset(mapping + PAGE, NONSENSE, pages);
    *address = reinterpret_cast<CUdeviceptr>(mapping + PAGE + pages - rounded);
    allocations[*address] = {&context, bytes, mapping, whole};
    context.allocated_bytes += bytes;
    context.peak_bytes = std::max(context.peak_bytes, context.allocated_bytes);
    return CUDA_SUCCESS;
}

bool is_nonsense(const unsigned char *from, const unsigned char *to) {
    return std::all_of(from, to, [](unsigned char byte) { return byte == NONSENSE; });
}

// Takes the allocation away. False if something was written beside it.
bool release(std::map<CUdeviceptr, Allocation>::iterator at) {
    auto [address, allocation] = *at;
    unsigned char *first = reinterpret_cast<unsigned char *>(address);
    unsigned char *end = allocation.mapping + allocation.mapping_bytes - PAGE;
    bool intact = is_nonsense(allocation.mapping + PAGE, first)
        && is_nonsense(first + allocation.bytes, end);
    if (!intact) message("something was written beside an allocation of %zu bytes", allocation.bytes);
    mmap(allocation.mapping, allocation.mapping_bytes, PROT_NONE,
         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
    freed.emplace_back(allocation.mapping, allocation.mapping_bytes);
    if (freed.size() > FREED_MAX) {
        munmap(freed.front().first, freed.front().second);
        freed.pop_front();
    }
    allocation.context->allocated_bytes -= allocation.bytes;
    allocations.erase(at);
    return intact;
}

CUresult free_one(CUdeviceptr address) {
    auto found = allocations.find(address);
    if (found == allocations.end()) {
        message("freed what is not allocated: %#llx", address);
        return CUDA_ERROR_INVALID_VALUE;
    }
    Context &context = *found->second.context;
    if (!release(found)) context.broken = CUDA_ERROR_ILLEGAL_ADDRESS;
    return context.broken;
}

constexpr int COPY = -1;

// Copies, or fills with the byte `fill`, once both sides have been checked. A replay checks again.
CUresult move(void *stream, CUdeviceptr to, bool to_device, CUdeviceptr from, bool from_device,
              int fill, size_t bytes) {
    auto valid = [=] {
        if (bytes == 0) return true;
        if (fill == COPY && (to == 0 || from == 0)) return false;
        return (!to_device || in_device_memory(to, bytes))
            && (!from_device || in_device_memory(from, bytes));
    };
    if (!valid()) {
        message("a copy or fill of %zu bytes leaves its allocation", bytes);
        return CUDA_ERROR_INVALID_VALUE;
    }
    return submit(stream, [=] {
        if (!valid()) return CUDA_ERROR_ILLEGAL_ADDRESS;
        if (bytes == 0) return CUDA_SUCCESS;
        if (fill != COPY) memset(reinterpret_cast<void *>(to), fill, bytes);
        else memmove(reinterpret_cast<void *>(to), reinterpret_cast<const void *>(from), bytes);
        return CUDA_SUCCESS;
    });
}

CUresult move_now(CUdeviceptr to, bool to_device, CUdeviceptr from, bool from_device, int fill,
                  size_t bytes) {
    TRY(refuse_while_capturing());
    return move(nullptr, to, to_device, from, from_device, fill, bytes);
}

CUdeviceptr number(const void *pointer) { return reinterpret_cast<CUdeviceptr>(pointer); }

}  // namespace

bool in_device_memory(CUdeviceptr address, size_t bytes) {
    if (bytes == 0) return true;
    auto after = allocations.upper_bound(address);
    if (after == allocations.begin()) return false;
    auto [start, allocation] = *--after;
    return address - start <= allocation.bytes && bytes <= allocation.bytes - (address - start);
}

// A kernel has no business in the memory of another device.
void forbid_other_devices(const Context &context, bool forbid) {
    if (settings.devices < 2) return;
    for (auto &[address, allocation] : allocations) {
        if (allocation.context == &context) continue;
        mprotect(allocation.mapping + PAGE, allocation.mapping_bytes - 2 * PAGE,
                 forbid ? PROT_NONE : PROT_READ | PROT_WRITE);
    }
}

std::string describe_address(uintptr_t address) {
    for (auto &[start, allocation] : allocations) {
        uintptr_t mapping = reinterpret_cast<uintptr_t>(allocation.mapping);
        if (address < mapping || address >= mapping + allocation.mapping_bytes) continue;
        std::string what = "an allocation of " + std::to_string(allocation.bytes) + " bytes";
        if (address < start) return std::to_string(start - address) + " bytes before " + what;
        uintptr_t offset = address - start;
        if (offset < allocation.bytes) return what + " on device " + std::to_string(allocation.context->device);
        return std::to_string(offset - allocation.bytes) + " bytes behind the end of " + what;
    }
    for (auto &[mapping, bytes] : freed) {
        if (address - reinterpret_cast<uintptr_t>(mapping) < bytes) return "freed memory";
    }
    return "no allocation is there";
}

void free_all(Context &context) {
    for (auto at = allocations.begin(); at != allocations.end();) {
        auto next = std::next(at);
        if (at->second.context == &context) release(at);
        at = next;
    }
}

}  // namespace emulator

using namespace emulator;

API cuMemAlloc_v2(CUdeviceptr *address, size_t bytes) {
    ENTER(Needs::Context);
    TRY(refuse_while_capturing());
    if (bytes == 0) return CUDA_ERROR_INVALID_VALUE;
    return allocate(*current_context(), address, bytes);
}

API cuMemFree_v2(CUdeviceptr address) {
    ENTER(Needs::Context);
    TRY(refuse_while_capturing());
    return free_one(address);
}

// Memory of a graph's own is not emulated: neither this nor the freeing can be captured.
static CUresult allocate_async(CUdeviceptr *address, size_t bytes, void *handle) {
    Stream *stream = find_stream(handle);
    if (stream == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    if (stream->capture) {
        stream->capture->invalidated = true;
        return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    }
    *address = 0;
    return bytes == 0 ? CUDA_SUCCESS : allocate(*stream->context, address, bytes);
}

API cuMemAllocAsync(CUdeviceptr *address, size_t bytes, void *stream) {
    ENTER(Needs::Context);
    return allocate_async(address, bytes, stream);
}

API cuMemAllocFromPoolAsync(CUdeviceptr *address, size_t bytes, void *pool, void *stream) {
    ENTER(Needs::Context);
    if (pool != current_context()) return CUDA_ERROR_INVALID_VALUE;
    return allocate_async(address, bytes, stream);
}

API cuMemFreeAsync(CUdeviceptr address, void *handle) {
    ENTER(Needs::Context);
    Stream *stream = find_stream(handle);
    if (stream == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    if (stream->capture) {
        stream->capture->invalidated = true;
        return CUDA_ERROR_INVALID_VALUE;
    }
    return address == 0 ? CUDA_SUCCESS : free_one(address);
}

API cuMemGetInfo_v2(size_t *free_bytes, size_t *total_bytes) {
    ENTER(Needs::Context);
    size_t used = current_context()->allocated_bytes;
    *total_bytes = settings.memory_bytes;
    *free_bytes = settings.memory_bytes - std::min(used, settings.memory_bytes);
    return CUDA_SUCCESS;
}

API cuMemHostAlloc(void **address, size_t bytes, unsigned) {
    ENTER(Needs::Context);
    TRY(refuse_while_capturing());
    if (bytes == 0) return CUDA_ERROR_INVALID_VALUE;
    *address = aligned_alloc(PAGE, (bytes + PAGE - 1) / PAGE * PAGE);
    if (*address == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;
    memset(*address, NONSENSE, bytes);
    pinned[*address] = true;
    return CUDA_SUCCESS;
}

API cuMemFreeHost(void *address) {
    ENTER(Needs::Context);
    auto found = pinned.find(address);
    if (found == pinned.end() || !found->second) return CUDA_ERROR_INVALID_VALUE;
    pinned.erase(found);
    free(address);
    return CUDA_SUCCESS;
}

API cuMemHostRegister_v2(void *address, size_t bytes, unsigned) {
    ENTER(Needs::Context);
    if (address == nullptr || bytes == 0) return CUDA_ERROR_INVALID_VALUE;
    bool fresh = pinned.emplace(address, false).second;
    return fresh ? CUDA_SUCCESS : CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED;
}

API cuMemHostUnregister(void *address) {
    ENTER(Needs::Context);
    auto found = pinned.find(address);
    if (found == pinned.end() || found->second) return CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED;
    pinned.erase(found);
    return CUDA_SUCCESS;
}

API cuMemHostGetDevicePointer_v2(CUdeviceptr *device, void *host, unsigned) {
    ENTER(Needs::Context);
    if (pinned.count(host) == 0) return CUDA_ERROR_INVALID_VALUE;
    *device = number(host);
    return CUDA_SUCCESS;
}

API cuMemcpyHtoD_v2(CUdeviceptr to, const void *from, size_t bytes) {
    ENTER(Needs::Context);
    return move_now(to, true, number(from), false, COPY, bytes);
}
API cuMemcpyDtoH_v2(void *to, CUdeviceptr from, size_t bytes) {
    ENTER(Needs::Context);
    return move_now(number(to), false, from, true, COPY, bytes);
}
API cuMemcpyDtoD_v2(CUdeviceptr to, CUdeviceptr from, size_t bytes) {
    ENTER(Needs::Context);
    return move_now(to, true, from, true, COPY, bytes);
}
API cuMemsetD8_v2(CUdeviceptr to, unsigned char value, size_t bytes) {
    ENTER(Needs::Context);
    return move_now(to, true, 0, false, value, bytes);
}
API cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void *from, size_t bytes, void *stream) {
    ENTER(Needs::Context);
    return move(stream, to, true, number(from), false, COPY, bytes);
}
API cuMemcpyDtoHAsync_v2(void *to, CUdeviceptr from, size_t bytes, void *stream) {
    ENTER(Needs::Context);
    return move(stream, number(to), false, from, true, COPY, bytes);
}
API cuMemcpyDtoDAsync_v2(CUdeviceptr to, CUdeviceptr from, size_t bytes, void *stream) {
    ENTER(Needs::Context);
    return move(stream, to, true, from, true, COPY, bytes);
}
API cuMemcpyPeerAsync(CUdeviceptr to, void *, CUdeviceptr from, void *, size_t bytes, void *stream) {
    ENTER(Needs::Context);
    return move(stream, to, true, from, true, COPY, bytes);
}
API cuMemsetD8Async(CUdeviceptr to, unsigned char value, size_t bytes, void *stream) {
    ENTER(Needs::Context);
    return move(stream, to, true, 0, false, value, bytes);
}

static CUresult find_pool(int device, void **pool) {
    if (device < 0 || device >= settings.devices) return CUDA_ERROR_INVALID_DEVICE;
    *pool = &contexts[device];
    return CUDA_SUCCESS;
}
API cuDeviceGetDefaultMemPool(void **pool, int device) {
    ENTER(Needs::Initialised);
    return find_pool(device, pool);
}
API cuDeviceGetMemPool(void **pool, int device) {
    ENTER(Needs::Initialised);
    return find_pool(device, pool);
}
API cuDeviceSetMemPool(int device, void *pool) {
    ENTER(Needs::Initialised);
    void *only;
    TRY(find_pool(device, &only));
    return pool == only ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

// 1 to 3 are reuse policies (int), 4 the release threshold, 5 to 8 reserved and used bytes, now and
// at most. Nothing is reserved beyond what is used.
API cuMemPoolGetAttribute(void *handle, int attribute, void *value) {
    ENTER(Needs::Initialised);
    const Context &pool = *static_cast<Context *>(handle);
    if (attribute < 1 || attribute > 8) return CUDA_ERROR_INVALID_VALUE;
    if (attribute <= 3) *static_cast<int *>(value) = static_cast<int>(pool.pool_attributes[attribute]);
    else if (attribute == 4) *static_cast<uint64_t *>(value) = pool.pool_attributes[4];
    else *static_cast<uint64_t *>(value) = attribute % 2 ? pool.allocated_bytes : pool.peak_bytes;
    return CUDA_SUCCESS;
}

API cuMemPoolSetAttribute(void *handle, int attribute, void *value) {
    ENTER(Needs::Initialised);
    Context &pool = *static_cast<Context *>(handle);
    if (attribute >= 1 && attribute <= 3) {
        pool.pool_attributes[attribute] = static_cast<uint64_t>(*static_cast<int *>(value));
    } else if (attribute == 4) {
        pool.pool_attributes[4] = *static_cast<uint64_t *>(value);
    } else if (attribute == 8 && *static_cast<uint64_t *>(value) == 0) {
        pool.peak_bytes = pool.allocated_bytes;
    } else {
        return CUDA_ERROR_INVALID_VALUE;
    }
    return CUDA_SUCCESS;
}

API cuMemPoolTrimTo(void *, size_t) {
    ENTER(Needs::Initialised);
    return CUDA_SUCCESS;
}
