// nvCOMP's batched decompression in the place of the real one, on the host; see compute/src/gpu/nvcomp.rs.
//
// Compiled once for each major version of the API, NVCOMP_MAJOR (4, 5 or 6). zstd and LZ4 are done by the
// system's libraries if they are there, and else no stream of them decompresses; Bitcomp never does, since
// its format is nobody else's. Other than the real one, it notices damage, addresses that are not
// aligned and too little temporary memory, and spoils that memory.
#include <dlfcn.h>
#include <zlib.h>

#include <cstdint>
#include <cstring>
#include <memory>
#include <mutex>
#include <vector>

#define API extern "C" __attribute__((visibility("default")))

namespace {

// nvcompStatus_t; nobody may pass another number.
enum Status : int {
    SUCCESS = 0,
    INVALID_VALUE = 10,
    CANNOT_DECOMPRESS = 12,
    UNALIGNED = 17,
    CUDA_ERROR = 1000,
};

struct Properties {
    uint32_t version, runtime_version;
};

struct Alignments {
    size_t input, output, temp;
};

// Of every method 64 bytes; the fields differ, but all zeros are the default.
struct Options {
    int fields[16];
};

bool is_default(const Options &options) {
    for (int field : options.fields) {
        if (field != 0) return false;
    }
    return true;
}

// Decompresses into at most `room` bytes; returns how many, or -1.
using Decode = int64_t (*)(const void *from, size_t bytes, void *to, size_t room);

struct Method {
    Decode decode;
    Alignments alignments;
    // Temporary memory for each stream, and for each byte that all decode to.
    size_t temp_per_stream, temp_per_byte;
};

// A function of a library of the system; null if there is none.
template <typename Function>
Function find(const char *library, const char *name) {
    void *handle = dlopen(library, RTLD_NOW | RTLD_LOCAL);
    return handle == nullptr ? nullptr : reinterpret_cast<Function>(dlsym(handle, name));
}

int64_t zstd(const void *from, size_t bytes, void *to, size_t room) {
    static auto decompress =
        find<size_t (*)(void *, size_t, const void *, size_t)>("libzstd.so.1", "ZSTD_decompress");
    static auto is_error = find<unsigned (*)(size_t)>("libzstd.so.1", "ZSTD_isError");
    if (decompress == nullptr || is_error == nullptr || bytes == 0) return -1;
    size_t written = decompress(to, room, from, bytes);
    return is_error(written) ? -1 : static_cast<int64_t>(written);
}

int64_t lz4(const void *from, size_t bytes, void *to, size_t room) {
    static auto decompress =
        find<int (*)(const char *, char *, int, int)>("liblz4.so.1", "LZ4_decompress_safe");
    if (decompress == nullptr || bytes > INT32_MAX || room > INT32_MAX) return -1;
    return decompress(static_cast<const char *>(from), static_cast<char *>(to), static_cast<int>(bytes),
                      static_cast<int>(room));
}

int64_t deflate(const void *from, size_t bytes, void *to, size_t room) {
    if (bytes > UINT32_MAX || room > UINT32_MAX) return -1;
    z_stream stream = {};
    // Without header and trailer.
    if (inflateInit2(&stream, -MAX_WBITS) != Z_OK) return -1;
    stream.next_in = static_cast<Bytef *>(const_cast<void *>(from));
    stream.avail_in = static_cast<uInt>(bytes);
    stream.next_out = static_cast<Bytef *>(to);
    stream.avail_out = static_cast<uInt>(room);
    bool ended = inflate(&stream, Z_FINISH) == Z_STREAM_END;
    inflateEnd(&stream);
    return ended ? static_cast<int64_t>(stream.total_out) : -1;
}

int64_t bitcomp(const void *, size_t, void *, size_t) { return -1; }

const Method ZSTD = {zstd, {1, 1, 8}, 1024, 3};
const Method DEFLATE = {deflate, {4, 1, 1}, 0, 0};
const Method LZ4 = {lz4, {1, 1, 1}, 0, 0};
#if NVCOMP_MAJOR == 6
const Method BITCOMP = {bitcomp, {8, 8, 4}, 20, 0};
#else
const Method BITCOMP = {bitcomp, {4, 8, 4}, 20, 0};
#endif

Status temp_size(const Method &method, size_t count, size_t total, size_t *bytes) {
    if (bytes == nullptr || count == 0) return INVALID_VALUE;
    *bytes = count * method.temp_per_stream + total * method.temp_per_byte;
    return SUCCESS;
}

bool is_aligned(const void *address, size_t bytes) {
    return reinterpret_cast<uintptr_t>(address) % bytes == 0;
}

// One call: run when the stream gets there, more than once if it was captured.
struct Job {
    const Method &method;
    const void *const *inputs;
    const size_t *input_bytes, *output_bytes;
    size_t *written;
    size_t count;
    void *temp;
    size_t temp_bytes;
    void *const *outputs;
    int *statuses;

    void run() const {
        size_t total = 0, needed = 0;
        for (size_t i = 0; i < count; i++) total += output_bytes[i];
        temp_size(method, count, total, &needed);
        bool has_room = temp_bytes >= needed && is_aligned(temp, method.alignments.temp);
        if (temp != nullptr) memset(temp, 0xa5, temp_bytes);
        for (size_t i = 0; i < count; i++) {
            written[i] = 0;
            if (!has_room) {
                statuses[i] = INVALID_VALUE;
            } else if (!is_aligned(inputs[i], method.alignments.input) ||
                       !is_aligned(outputs[i], method.alignments.output)) {
                statuses[i] = UNALIGNED;
            } else {
                int64_t found = method.decode(inputs[i], input_bytes[i], outputs[i], output_bytes[i]);
                statuses[i] = found < 0 ? CANNOT_DECOMPRESS : SUCCESS;
                if (found >= 0) written[i] = static_cast<size_t>(found);
            }
        }
    }
};

// Hands a job to a stream of the driver, if there are both; else runs it at once.
Status submit(Job job, void *stream) {
    static std::mutex lock;
    static std::vector<std::unique_ptr<Job>> jobs;  // kept: graphs may run them again
    using Launch = int (*)(void *, void (*)(void *), void *);
    void *driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD);
    auto launch = driver == nullptr ? nullptr : reinterpret_cast<Launch>(dlsym(driver, "cuLaunchHostFunc"));
    if (stream == nullptr || launch == nullptr) {
        job.run();
        return SUCCESS;
    }
    Job *kept;
    {
        std::lock_guard<std::mutex> guard(lock);
        jobs.push_back(std::make_unique<Job>(job));
        kept = jobs.back().get();
    }
    auto run = [](void *job) { static_cast<const Job *>(job)->run(); };
    return launch(stream, run, kept) == 0 ? SUCCESS : CUDA_ERROR;
}

Status decompress(const Job &job, const Options &options, void *stream) {
    if (job.inputs == nullptr || job.input_bytes == nullptr || job.output_bytes == nullptr ||
        job.written == nullptr || job.outputs == nullptr || job.statuses == nullptr || job.count == 0 ||
        (job.temp == nullptr && job.temp_bytes != 0) || !is_default(options)) {
        return INVALID_VALUE;
    }
    return submit(job, stream);
}

}  // namespace

// By which tests know that this is not the real one.
API void quarr_emulator_nvcomp() {}

API int nvcompGetProperties(Properties *properties) {
    if (properties == nullptr) return INVALID_VALUE;
    *properties = {NVCOMP_MAJOR * 1000, 12080};
    return SUCCESS;
}

#define BATCH                                                                                          \
    const void *const *inputs, const size_t *input_bytes, const size_t *output_bytes, size_t *written, \
        size_t count, void *temp, size_t temp_bytes, void *const *outputs
#define JOB(method) \
    {method, inputs, input_bytes, output_bytes, written, count, temp, temp_bytes, outputs, statuses}

#if NVCOMP_MAJOR == 4
#define METHOD(name, method)                                                                  \
    API int nvcompBatched##name##DecompressGetTempSizeEx(size_t count, size_t, size_t *bytes, \
                                                         size_t total) {                      \
        return temp_size(method, count, total, bytes);                                        \
    }                                                                                         \
    API int nvcompBatched##name##DecompressAsync(BATCH, int *statuses, void *stream) {        \
        return decompress(JOB(method), {}, stream);                                           \
    }
#else
#if NVCOMP_MAJOR == 5
#define TEMP_SIZE(name) nvcompBatched##name##DecompressGetTempSizeAsync
#define TEMP_STREAM
#elif NVCOMP_MAJOR == 6
#define TEMP_SIZE(name) nvcompBatched##name##DecompressGetTempSize
#define TEMP_STREAM , void *
#else
#error "NVCOMP_MAJOR must be 4, 5 or 6"
#endif
#define METHOD(name, method)                                                                          \
    API int nvcompBatched##name##DecompressGetRequiredAlignments(Options options, Alignments *found) { \
        if (found == nullptr || !is_default(options)) return INVALID_VALUE;                           \
        *found = method.alignments;                                                                   \
        return SUCCESS;                                                                               \
    }                                                                                                 \
    API int TEMP_SIZE(name)(size_t count, size_t, Options options, size_t *bytes,                     \
                            size_t total TEMP_STREAM) { \
        return is_default(options) ? temp_size(method, count, total, bytes) : INVALID_VALUE;          \
    }                                                                                                 \
    API int nvcompBatched##name##DecompressAsync(BATCH, Options options, int *statuses, void *stream) { \
        return decompress(JOB(method), options, stream);                                              \
    }
#endif

METHOD(Zstd, ZSTD)
METHOD(Deflate, DEFLATE)
METHOD(LZ4, LZ4)
METHOD(Bitcomp, BITCOMP)
