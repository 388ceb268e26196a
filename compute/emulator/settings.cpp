// Settings from the environment, calls counted and made to fail, names of results.
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <algorithm>

#include "driver.h"

namespace emulator {

Settings settings;

// Calls of `function` from the `first` on fail with `result`, or only that one.
static struct {
    std::string function;
    uint64_t first = 0, seen = 0;
    bool once = false;
    CUresult result = CUDA_ERROR_UNKNOWN;
} failure;

static std::recursive_mutex lock;
static std::map<std::string, uint64_t, std::less<>> calls;

void message(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fputs("quarr emulator: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
}

bool known(CUresult result) {
    switch (result) {
#define RESULT(name, number) case CUDA_##name:
        RESULTS(RESULT)
#undef RESULT
        return true;
    }
    return false;
}

static CUresult result_of(const std::string &text) {
    auto result = static_cast<CUresult>(atoi(text.c_str()));
    if (known(result)) return result;
    message("%s is no CUresult that this driver knows", text.c_str());
    return CUDA_ERROR_UNKNOWN;
}

// FUNCTION:N, FUNCTION:N:once, FUNCTION:N:CODE or FUNCTION:N:once:CODE. Empty: nothing fails.
static void set_failure(std::string text) {
    failure = {};
    for (int field = 0; !text.empty(); field++) {
        size_t colon = std::min(text.find(':'), text.size());
        std::string part = text.substr(0, colon);
        text.erase(0, colon + 1);
        if (field == 0) failure.function = part;
        else if (field == 1) failure.first = strtoull(part.c_str(), nullptr, 10);
        else if (part == "once") failure.once = true;
        else failure.result = result_of(part);
    }
}

static void set(const std::string &name, const char *value) {
    if (name == "DEVICES") settings.devices = std::clamp(atoi(value), 0, DEVICES_MAX);
    else if (name == "MEMORY_BYTES") settings.memory_bytes = strtoull(value, nullptr, 10);
    else if (name == "DRIVER_VERSION") settings.driver_version = atoi(value);
    else if (name == "CAPABILITY") settings.capability = atoi(value);
    else if (name == "INIT_ERROR") settings.init_error = result_of(value);
    else if (name == "ORDER") settings.order = value;
    else if (name == "FAIL") set_failure(value);
    else message("there is no setting %s", name.c_str());
}

void read_settings() {
    for (const char *name : {"DEVICES", "MEMORY_BYTES", "DRIVER_VERSION", "CAPABILITY", "INIT_ERROR",
                             "ORDER", "FAIL"}) {
        const char *value = getenv((std::string("QUARR_EMULATOR_") + name).c_str());
        if (value != nullptr) set(name, value);
    }
}

// A setting may say cuMemAlloc and mean cuMemAlloc_v2.
static bool fails(const std::string &function) {
    if (function != failure.function && function != failure.function + "_v2") return false;
    failure.seen++;
    return failure.once ? failure.seen == failure.first : failure.seen >= failure.first;
}

Entry::Entry(const char *function, Needs needs)
    : lock(emulator::lock), error(CUDA_SUCCESS) {
    calls[function]++;
    if (needs != Needs::Nothing && !initialised) error = CUDA_ERROR_NOT_INITIALIZED;
    else if (fails(function)) error = failure.result;
    else if (needs == Needs::Context) {
        const Context *context = current_context();
        if (context == nullptr) error = CUDA_ERROR_INVALID_CONTEXT;
        else error = context->retained == 0 ? CUDA_ERROR_CONTEXT_IS_DESTROYED : context->broken;
    }
}

}  // namespace emulator

using namespace emulator;

API cuGetErrorName(CUresult result, const char **name) {
    switch (result) {
#define RESULT(text, number)  \
    case CUDA_##text:         \
        *name = "CUDA_" #text; \
        return CUDA_SUCCESS;
        RESULTS(RESULT)
#undef RESULT
    }
    *name = nullptr;
    return CUDA_ERROR_INVALID_VALUE;
}

// The name in words, such as "error out of memory".
API cuGetErrorString(CUresult result, const char **text) {
    static std::map<CUresult, std::string> texts;
    std::unique_lock<std::recursive_mutex> hold(emulator::lock);
    const char *name;
    *text = nullptr;
    TRY(cuGetErrorName(result, &name));
    std::string &words = texts[result];
    if (words.empty()) {
        for (const char *letter = name + 5; *letter != 0; letter++) {
            words += *letter == '_' ? ' ' : static_cast<char>(*letter | 0x20);
        }
    }
    *text = words.c_str();
    return CUDA_SUCCESS;
}

extern "C" {

// Bytes allocated on a device now, and at most since the start of the process.
EMULATOR_API size_t quarr_emulator_allocated(int device) {
    std::unique_lock<std::recursive_mutex> hold(emulator::lock);
    return device >= 0 && device < DEVICES_MAX ? contexts[device].allocated_bytes : 0;
}
EMULATOR_API size_t quarr_emulator_peak(int device) {
    std::unique_lock<std::recursive_mutex> hold(emulator::lock);
    return device >= 0 && device < DEVICES_MAX ? contexts[device].peak_bytes : 0;
}

// How often a function was called, by its exported name.
EMULATOR_API uint64_t quarr_emulator_calls(const char *function) {
    std::unique_lock<std::recursive_mutex> hold(emulator::lock);
    auto found = calls.find(function);
    return found == calls.end() ? 0 : found->second;
}

// Sets what QUARR_EMULATOR_<name> does, now. FAIL counts calls from here on.
EMULATOR_API void quarr_emulator_configure(const char *name, const char *value) {
    std::unique_lock<std::recursive_mutex> hold(emulator::lock);
    set(name, value);
}

}  // extern "C"
