// Modules, functions and launches. The PTX of a module says what the module is called and what kernels
// it has; the kernels themselves come from a library, or from whoever registered them before.
#include <ctype.h>
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

#include <algorithm>

#include "driver.h"

namespace emulator {
namespace {

struct Module;

struct Function {
    Module *module;
    const Kernel *kernel;
    unsigned threads_max;
    size_t shared_bytes_max = 48 * 1024;
};

struct Module {
    Context *context;
    std::string name, ptx;
    std::map<std::string, Function> functions;
};

std::vector<std::unique_ptr<Module>> modules;

Module *find_module(void *handle) {
    for (auto &module : modules) {
        if (module.get() == handle && module->context == current_context()) return module.get();
    }
    return nullptr;
}

Function *find_function(void *handle) {
    for (auto &module : modules) {
        for (auto &[name, function] : module->functions) {
            if (&function == handle && module->context == current_context()) return &function;
        }
    }
    return nullptr;
}

// The number behind `key` between two places of the text, or -1.
long number_after(const std::string &text, const std::string &key, size_t from, size_t to) {
    size_t at = text.find(key, from);
    return at == std::string::npos || at >= to ? -1 : strtol(text.c_str() + at + key.size(), nullptr, 10);
}

// Whether a driver of this version, with a device of this kind, takes the PTX.
CUresult check_ptx(const std::string &ptx) {
    size_t version = ptx.find(".version "), target = ptx.find(".target sm_");
    if (version == std::string::npos || target == std::string::npos) return CUDA_ERROR_INVALID_PTX;
    int major = 0, minor = 0;
    sscanf(ptx.c_str() + version, ".version %d.%d", &major, &minor);
    // PTX 7.x came with CUDA 11.x, and 8.x with 12.x.
    if ((major + 4) * 1000 + minor * 10 > settings.driver_version) {
        return CUDA_ERROR_UNSUPPORTED_PTX_VERSION;
    }
    bool newer = atoi(ptx.c_str() + target + 11) > settings.capability;
    return newer ? CUDA_ERROR_INVALID_PTX : CUDA_SUCCESS;
}

// Loads modules/NAME.so beside this library, whose kernels register themselves.
bool load_kernels(const std::string &name) {
    if (has_module(name)) return true;
    Dl_info self;
    if (dladdr(reinterpret_cast<void *>(&load_kernels), &self) == 0) return false;
    std::string folder = self.dli_fname;
    folder.erase(folder.rfind('/') + 1);
    if (dlopen((folder + "modules/" + name + ".so").c_str(), RTLD_NOW | RTLD_LOCAL) == nullptr) {
        message("module %s: %s", name.c_str(), dlerror());
    }
    return has_module(name);
}

CUresult load(void **module, const char *image) {
    static const std::string first = "// quarr module ";
    std::string ptx = image;
    if (ptx.rfind(first, 0) != 0) {
        message("a module does not begin with \"%sNAME\"", first.c_str());
        return CUDA_ERROR_INVALID_IMAGE;
    }
    size_t end = std::min(ptx.find('\n'), ptx.size());
    std::string name = ptx.substr(first.size(), end - first.size());
    bool plain = !name.empty() && std::all_of(name.begin(), name.end(), [](unsigned char letter) {
        return isalnum(letter) || letter == '_' || letter == '-';
    });
    TRY(check_ptx(ptx));
    if (!plain || !load_kernels(name)) {
        message("there is no module \"%s\"", name.c_str());
        return CUDA_ERROR_INVALID_IMAGE;
    }
    modules.push_back(std::make_unique<Module>(Module{current_context(), name, std::move(ptx), {}}));
    *module = modules.back().get();
    return CUDA_SUCCESS;
}

// Where `.entry NAME` begins in the PTX.
size_t find_entry(const std::string &ptx, const std::string &name) {
    for (size_t at = ptx.find(".entry " + name); at != std::string::npos;
         at = ptx.find(".entry " + name, at + 1)) {
        unsigned char next = static_cast<unsigned char>(ptx[at + 7 + name.size()]);
        if (!isalnum(next) && next != '_' && next != '$') return at;
    }
    return std::string::npos;
}

CUresult get_function(void **result, Module &module, const std::string &name) {
    size_t entry = find_entry(module.ptx, name);
    const Kernel *kernel = find_kernel(module.name, name);
    if (entry == std::string::npos || kernel == nullptr) {
        message("module %s: no kernel %s in %s", module.name.c_str(), name.c_str(),
                kernel == nullptr ? "its source" : "its PTX");
        return CUDA_ERROR_NOT_FOUND;
    }
    size_t body = std::min(module.ptx.find('{', entry), module.ptx.size());
    long bytes = number_after(module.ptx, name + "_param_0[", entry, body);
    if (bytes >= 0 && static_cast<size_t>(bytes) != kernel->parameters_bytes) {
        message("module %s: the parameters of %s have %ld bytes in the PTX and %zu in the source",
                module.name.c_str(), name.c_str(), bytes, kernel->parameters_bytes);
        return CUDA_ERROR_INVALID_IMAGE;
    }
    long threads = number_after(module.ptx, ".maxntid ", entry, body);
    unsigned threads_max = threads > 0 ? static_cast<unsigned>(threads) : THREADS_MAX;
    auto [at, _] = module.functions.emplace(name, Function{&module, kernel, threads_max});
    *result = &at->second;
    return CUDA_SUCCESS;
}

CUresult launch(Context &context, const Kernel &kernel, Index grid, Index threads, size_t shared_bytes,
                const std::vector<char> &parameters) {
    forbid_other_devices(context, true);
    CUresult result = run_grid(kernel, grid, threads, shared_bytes, parameters.data());
    forbid_other_devices(context, false);
    return result;
}

}  // namespace

void drop_modules(Context &context) {
    modules.erase(std::remove_if(modules.begin(), modules.end(),
                                 [&](auto &module) { return module->context == &context; }),
                  modules.end());
}

}  // namespace emulator

using namespace emulator;

API cuModuleLoadData(void **module, const void *image) {
    ENTER(Needs::Context);
    return load(module, static_cast<const char *>(image));
}

API cuModuleLoadDataEx(void **module, const void *image, unsigned, int *, void **) {
    ENTER(Needs::Context);
    return load(module, static_cast<const char *>(image));
}

API cuModuleUnload(void *handle) {
    ENTER(Needs::Context);
    if (find_module(handle) == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    modules.erase(std::find_if(modules.begin(), modules.end(),
                               [&](auto &module) { return module.get() == handle; }));
    return CUDA_SUCCESS;
}

API cuModuleGetFunction(void **function, void *handle, const char *name) {
    ENTER(Needs::Context);
    Module *module = find_module(handle);
    return module == nullptr ? CUDA_ERROR_INVALID_HANDLE : get_function(function, *module, name);
}

API cuModuleGetGlobal_v2(CUdeviceptr *, size_t *, void *, const char *) {
    ENTER(Needs::Context);
    return CUDA_ERROR_NOT_FOUND;
}

// 0 threads of a block, 5 and 6 the versions, 8 dynamic shared memory at most.
API cuFuncGetAttribute(int *value, int attribute, void *handle) {
    ENTER(Needs::Context);
    const Function *function = find_function(handle);
    if (function == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    switch (attribute) {
        case 0: *value = static_cast<int>(function->threads_max); break;
        case 4: *value = 32; break;
        case 5: case 6: *value = settings.capability; break;
        case 8: *value = static_cast<int>(function->shared_bytes_max); break;
        default: *value = 0;
    }
    return CUDA_SUCCESS;
}

API cuFuncSetAttribute(void *handle, int attribute, int value) {
    ENTER(Needs::Context);
    Function *function = find_function(handle);
    if (function == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    if (attribute != 8) return CUDA_SUCCESS;
    if (value < 0 || static_cast<size_t>(value) > SHARED_BYTES_MAX) return CUDA_ERROR_INVALID_VALUE;
    function->shared_bytes_max = static_cast<size_t>(value);
    return CUDA_SUCCESS;
}

API cuFuncSetCacheConfig(void *handle, int) {
    ENTER(Needs::Context);
    return find_function(handle) != nullptr ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

static CUresult blocks_of(int *blocks, void *handle, int threads) {
    if (find_function(handle) == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    if (threads <= 0) return CUDA_ERROR_INVALID_VALUE;
    *blocks = std::min(32, 2048 / threads);
    return CUDA_SUCCESS;
}
API cuOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, void *handle, int threads, size_t) {
    ENTER(Needs::Context);
    return blocks_of(blocks, handle, threads);
}
API cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *blocks, void *handle, int threads, size_t,
                                                         unsigned) {
    ENTER(Needs::Context);
    return blocks_of(blocks, handle, threads);
}
API cuOccupancyAvailableDynamicSMemPerBlock(size_t *bytes, void *handle, int, int) {
    ENTER(Needs::Context);
    const Function *function = find_function(handle);
    if (function == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    *bytes = function->shared_bytes_max;
    return CUDA_SUCCESS;
}
static CUresult block_of(int *grid, int *threads, void *handle, int limit) {
    const Function *function = find_function(handle);
    if (function == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    *threads = static_cast<int>(function->threads_max);
    if (limit > 0) *threads = std::min(*threads, limit);
    *grid = attribute_of(16) * std::min(32, 2048 / *threads);
    return CUDA_SUCCESS;
}
API cuOccupancyMaxPotentialBlockSize(int *grid, int *threads, void *handle, void *, size_t, int limit) {
    ENTER(Needs::Context);
    return block_of(grid, threads, handle, limit);
}
API cuOccupancyMaxPotentialBlockSizeWithFlags(int *grid, int *threads, void *handle, void *, size_t,
                                              int limit, unsigned) {
    ENTER(Needs::Context);
    return block_of(grid, threads, handle, limit);
}

API cuLaunchKernel(void *handle, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                   unsigned block_y, unsigned block_z, unsigned shared_bytes, void *stream,
                   void **parameters, void **extra) {
    ENTER(Needs::Context);
    const Function *function = find_function(handle);
    if (function == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    bool extents = grid_x > 0 && grid_x <= INT_MAX && grid_y > 0 && grid_y <= 65535 && grid_z > 0
        && grid_z <= 65535 && block_x > 0 && block_y > 0 && block_z > 0 && block_z <= 64;
    if (!extents || parameters == nullptr || extra != nullptr || shared_bytes > function->shared_bytes_max) {
        message("kernel %s/%s: the grid, the block, the parameters or %u bytes of shared memory are refused",
                function->kernel->module, function->kernel->name, shared_bytes);
        return CUDA_ERROR_INVALID_VALUE;
    }
    Index grid{grid_x, grid_y, grid_z}, threads{block_x, block_y, block_z};
    if (uint64_t{block_x} * block_y * block_z > function->threads_max) {
        message("kernel %s/%s: a block has more than %u threads", function->kernel->module,
                function->kernel->name, function->threads_max);
        return current_context()->broken = CUDA_ERROR_LAUNCH_FAILED;
    }
    const char *first = static_cast<const char *>(parameters[0]);
    std::vector<char> values(first, first + function->kernel->parameters_bytes);
    const Kernel *kernel = function->kernel;
    Context *context = current_context();
    return submit(stream, [=] { return launch(*context, *kernel, grid, threads, shared_bytes, values); });
}
