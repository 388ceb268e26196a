// Devices and primary contexts of the emulated driver.
#include <stdio.h>
#include <stdlib.h>

#include "driver.h"

namespace emulator {

bool initialised = false;
Context contexts[DEVICES_MAX];
static thread_local Context *current = nullptr;

Context *current_context() { return current; }

static bool is_device(int device) { return device >= 0 && device < settings.devices; }

// Of a large device, but for what the settings say.
int attribute_of(int attribute) {
    switch (attribute) {
        case 1: return THREADS_MAX;                             // threads of a block
        case 2: case 3: return 1024;                            // extent of a block: x, y
        case 4: return 64;                                      // z
        case 5: return INT_MAX;                                 // extent of a grid: x
        case 6: case 7: return 65535;                           // y, z
        case 8: return 48 * 1024;                               // shared memory of a block
        case 9: return 64 * 1024;                               // constant memory
        case 10: return 32;                                     // lanes of a warp
        case 12: case 82: return 65536;                         // registers of a block, of a processor
        case 16: return 8;                                      // processors
        case 38: return 32 << 20;                               // level 2 cache
        case 39: return 2048;                                   // threads of a processor
        case 75: return settings.capability / 10;
        case 76: return settings.capability % 10;
        case 81: return 228 * 1024;                             // shared memory of a processor
        case 97: return static_cast<int>(SHARED_BYTES_MAX);     // of a block that asks for it
        case 106: return 32;                                    // blocks of a processor
        case 19: case 31: case 40: case 41: case 78: case 99:   // host memory mapped, kernels together,
        case 115: return 1;                                     // copy engines, one address space, pools
        default: return 0;
    }
}

}  // namespace emulator

using namespace emulator;

API cuInit(unsigned) {
    ENTER(Needs::Nothing);
    static bool read = false;
    if (!read) read_settings();
    read = true;
    if (settings.init_error != CUDA_SUCCESS) return settings.init_error;
    if (settings.devices == 0) return CUDA_ERROR_NO_DEVICE;
    for (int device = 0; device < DEVICES_MAX; device++) contexts[device].device = device;
    initialised = true;
    return CUDA_SUCCESS;
}

API cuDriverGetVersion(int *version) {
    ENTER(Needs::Nothing);
    const char *text = getenv("QUARR_EMULATOR_DRIVER_VERSION");
    *version = !initialised && text != nullptr ? atoi(text) : settings.driver_version;
    return CUDA_SUCCESS;
}

API cuDeviceGetCount(int *count) {
    ENTER(Needs::Initialised);
    *count = settings.devices;
    return CUDA_SUCCESS;
}

API cuDeviceGet(CUdevice *device, int ordinal) {
    ENTER(Needs::Initialised);
    *device = ordinal;
    return is_device(ordinal) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE;
}

API cuDeviceGetName(char *name, int bytes, CUdevice device) {
    ENTER(Needs::Initialised);
    if (!is_device(device) || bytes <= 0) return CUDA_ERROR_INVALID_VALUE;
    snprintf(name, static_cast<size_t>(bytes), "Quarr emulated device %d", device);
    return CUDA_SUCCESS;
}

static CUresult uuid_of(unsigned char *uuid, CUdevice device) {
    if (!is_device(device)) return CUDA_ERROR_INVALID_DEVICE;
    memcpy(uuid, "quarr emulator\0", 16);
    uuid[15] = static_cast<unsigned char>(device);
    return CUDA_SUCCESS;
}
API cuDeviceGetUuid(unsigned char *uuid, CUdevice device) {
    ENTER(Needs::Initialised);
    return uuid_of(uuid, device);
}
API cuDeviceGetUuid_v2(unsigned char *uuid, CUdevice device) {
    ENTER(Needs::Initialised);
    return uuid_of(uuid, device);
}

API cuDeviceTotalMem_v2(size_t *bytes, CUdevice device) {
    ENTER(Needs::Initialised);
    *bytes = settings.memory_bytes;
    return is_device(device) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE;
}

API cuDeviceGetAttribute(int *value, int attribute, CUdevice device) {
    ENTER(Needs::Initialised);
    *value = attribute_of(attribute);
    return is_device(device) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE;
}

API cuDevicePrimaryCtxRetain(Context **context, CUdevice device) {
    ENTER(Needs::Initialised);
    if (!is_device(device)) return CUDA_ERROR_INVALID_DEVICE;
    contexts[device].retained++;
    *context = &contexts[device];
    return CUDA_SUCCESS;
}

// The last release frees all that the context has, and heals it.
API cuDevicePrimaryCtxRelease_v2(CUdevice device) {
    ENTER(Needs::Initialised);
    if (!is_device(device) || contexts[device].retained == 0) return CUDA_ERROR_INVALID_CONTEXT;
    Context &context = contexts[device];
    if (--context.retained > 0) return CUDA_SUCCESS;
    free_all(context);
    drop_streams(context);
    drop_modules(context);
    context.broken = CUDA_SUCCESS;
    return CUDA_SUCCESS;
}

API cuCtxSetCurrent(Context *context) {
    ENTER(Needs::Initialised);
    if (context != nullptr && context->retained == 0) return CUDA_ERROR_CONTEXT_IS_DESTROYED;
    current = context;
    return CUDA_SUCCESS;
}

API cuCtxGetCurrent(Context **context) {
    ENTER(Needs::Initialised);
    *context = current;
    return CUDA_SUCCESS;
}

API cuCtxSetFlags(unsigned flags) {
    ENTER(Needs::Context);
    current->flags = flags;
    return CUDA_SUCCESS;
}

API cuCtxGetLimit(size_t *value, int) {
    ENTER(Needs::Context);
    *value = 0;
    return CUDA_SUCCESS;
}
API cuCtxSetLimit(int, size_t) {
    ENTER(Needs::Context);
    return CUDA_SUCCESS;
}
API cuCtxGetCacheConfig(int *configuration) {
    ENTER(Needs::Context);
    *configuration = 0;
    return CUDA_SUCCESS;
}
API cuCtxSetCacheConfig(int) {
    ENTER(Needs::Context);
    return CUDA_SUCCESS;
}
