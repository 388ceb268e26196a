// Streams, events, captures and graphs. A stream runs everything at once, or records it.
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>

#include "driver.h"

namespace emulator {
namespace {

using Clock = std::chrono::steady_clock;

struct Event {
    bool timed, recorded = false;
    Clock::time_point time;
    std::shared_ptr<Capture> capture;  // set if it was last recorded in a capture
};

struct Graph {
    std::vector<Operation> operations;
};

// Objects that are alive, so that a handle that was destroyed is refused.
template <typename T>
struct Living {
    std::vector<std::unique_ptr<T>> objects;

    T *add(T object) {
        objects.push_back(std::make_unique<T>(std::move(object)));
        return objects.back().get();
    }
    T *find(void *handle) const {
        for (auto &object : objects) {
            if (object.get() == handle) return object.get();
        }
        return nullptr;
    }
    CUresult remove(void *handle) {
        for (auto &object : objects) {
            if (object.get() != handle) continue;
            std::swap(object, objects.back());
            objects.pop_back();
            return CUDA_SUCCESS;
        }
        return CUDA_ERROR_INVALID_HANDLE;
    }
};

Living<Stream> streams;
Living<Event> events;
Living<Graph> graphs, executables;
Stream default_streams[DEVICES_MAX];

pid_t this_thread() { return static_cast<pid_t>(syscall(SYS_gettid)); }

// Errors that no later call on the context survives.
bool is_sticky(CUresult result) {
    return result >= CUDA_ERROR_ILLEGAL_ADDRESS && result <= CUDA_ERROR_LAUNCH_FAILED;
}

CUresult refuse(Capture &capture, CUresult result) {
    capture.invalidated = true;
    return result;
}

CUresult run_all(const std::vector<Operation> &operations) {
    for (const Operation &operation : operations) TRY(operation());
    return CUDA_SUCCESS;
}

}  // namespace

Stream *find_stream(void *handle) {
    Context *context = current_context();
    if (reinterpret_cast<uintptr_t>(handle) <= 2) {
        Stream &stream = default_streams[context->device];
        stream.context = context;
        return &stream;
    }
    Stream *stream = streams.find(handle);
    return stream != nullptr && stream->context == context ? stream : nullptr;
}

CUresult submit(void *handle, Operation operation) {
    Stream *stream = find_stream(handle);
    if (stream == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    if (stream->capture) {
        if (stream->capture->invalidated) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
        stream->capture->operations.push_back(std::move(operation));
        return CUDA_SUCCESS;
    }
    CUresult result = operation();
    if (is_sticky(result)) stream->context->broken = result;
    return result;
}

CUresult refuse_while_capturing() {
    for (auto &stream : streams.objects) {
        Capture *capture = stream->capture.get();
        if (capture == nullptr || capture->mode == 2) continue;
        if (capture->mode == 0 || capture->thread == this_thread()) {
            return refuse(*capture, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
        }
    }
    return CUDA_SUCCESS;
}

void drop_streams(Context &context) {
    auto &all = streams.objects;
    all.erase(std::remove_if(all.begin(), all.end(),
                             [&](auto &stream) { return stream->context == &context; }),
              all.end());
}

}  // namespace emulator

using namespace emulator;

API cuStreamCreate(void **stream, unsigned) {
    ENTER(Needs::Context);
    *stream = streams.add({current_context(), nullptr, false});
    return CUDA_SUCCESS;
}

API cuStreamCreateWithPriority(void **stream, unsigned, int) {
    ENTER(Needs::Context);
    *stream = streams.add({current_context(), nullptr, false});
    return CUDA_SUCCESS;
}

API cuCtxGetStreamPriorityRange(int *least, int *greatest) {
    ENTER(Needs::Context);
    *least = 0;
    *greatest = -5;
    return CUDA_SUCCESS;
}

API cuStreamDestroy_v2(void *stream) {
    ENTER(Needs::Context);
    return streams.remove(stream);
}

static CUresult wait_for(void *handle) {
    Stream *stream = find_stream(handle);
    if (stream == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    if (stream->capture) return refuse(*stream->capture, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    return CUDA_SUCCESS;
}
API cuStreamSynchronize(void *stream) {
    ENTER(Needs::Context);
    return wait_for(stream);
}
API cuStreamQuery(void *stream) {
    ENTER(Needs::Context);
    return wait_for(stream);
}
API cuCtxSynchronize() {
    ENTER(Needs::Context);
    return refuse_while_capturing();
}

// An event recorded in a capture draws the stream that waits for it into the capture.
API cuStreamWaitEvent(void *handle, void *event_handle, unsigned) {
    ENTER(Needs::Context);
    Stream *stream = find_stream(handle);
    Event *event = events.find(event_handle);
    if (stream == nullptr || event == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    if (event->capture && event->capture->ended) return CUDA_ERROR_CAPTURED_EVENT;
    if (stream->capture && event->recorded && event->capture == nullptr) {
        return refuse(*stream->capture, CUDA_ERROR_STREAM_CAPTURE_ISOLATION);
    }
    if (stream->capture && event->capture && event->capture != stream->capture) {
        return refuse(*stream->capture, CUDA_ERROR_STREAM_CAPTURE_MERGE);
    }
    if (event->capture) stream->capture = event->capture;
    return CUDA_SUCCESS;
}

API cuLaunchHostFunc(void *stream, void (*function)(void *), void *argument) {
    ENTER(Needs::Context);
    return submit(stream, [=] {
        function(argument);
        return CUDA_SUCCESS;
    });
}

API cuEventCreate(void **event, unsigned flags) {
    ENTER(Needs::Context);
    *event = events.add({(flags & 2) == 0, false, {}, nullptr});
    return CUDA_SUCCESS;
}

API cuEventDestroy_v2(void *event) {
    ENTER(Needs::Context);
    return events.remove(event);
}

API cuEventRecord(void *event_handle, void *stream_handle) {
    ENTER(Needs::Context);
    Stream *stream = find_stream(stream_handle);
    Event *event = events.find(event_handle);
    if (stream == nullptr || event == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    if (stream->capture && stream->capture->invalidated) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    event->recorded = true;
    event->capture = stream->capture;
    event->time = Clock::now();
    return CUDA_SUCCESS;
}

static CUresult look_at(void *handle) {
    Event *event = events.find(handle);
    if (event == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    if (event->capture) return refuse(*event->capture, CUDA_ERROR_CAPTURED_EVENT);
    return CUDA_SUCCESS;
}
API cuEventQuery(void *event) {
    ENTER(Needs::Context);
    return look_at(event);
}
API cuEventSynchronize(void *event) {
    ENTER(Needs::Context);
    return look_at(event);
}

API cuEventElapsedTime(float *milliseconds, void *start_handle, void *end_handle) {
    ENTER(Needs::Context);
    TRY(look_at(start_handle));
    TRY(look_at(end_handle));
    const Event &start = *events.find(start_handle), &end = *events.find(end_handle);
    if (!start.timed || !end.timed || !start.recorded || !end.recorded) return CUDA_ERROR_INVALID_HANDLE;
    *milliseconds = std::chrono::duration<float, std::milli>(end.time - start.time).count();
    return CUDA_SUCCESS;
}

API cuStreamBeginCapture_v2(void *handle, int mode) {
    ENTER(Needs::Context);
    Stream *stream = find_stream(handle);
    if (stream == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    if (reinterpret_cast<uintptr_t>(handle) <= 2) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    if (stream->capture) return CUDA_ERROR_ILLEGAL_STATE;
    if (mode < 0 || mode > 2) return CUDA_ERROR_INVALID_VALUE;
    stream->capture = std::make_shared<Capture>();
    stream->capture->thread = this_thread();
    stream->capture->mode = mode;
    stream->captures_first = true;
    return CUDA_SUCCESS;
}

API cuStreamEndCapture(void *handle, void **graph) {
    ENTER(Needs::Context);
    Stream *stream = find_stream(handle);
    *graph = nullptr;
    if (stream == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    std::shared_ptr<Capture> capture = stream->capture;
    if (!capture || !stream->captures_first) return CUDA_ERROR_STREAM_CAPTURE_UNMATCHED;
    if (capture->mode != 2 && capture->thread != this_thread()) {
        return CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD;
    }
    for (auto &other : streams.objects) {
        if (other->capture == capture) other->capture = nullptr;
    }
    stream->captures_first = false;
    capture->ended = true;
    if (capture->invalidated) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    *graph = graphs.add({capture->operations});
    return CUDA_SUCCESS;
}

API cuStreamIsCapturing(void *handle, int *status) {
    ENTER(Needs::Context);
    Stream *stream = find_stream(handle);
    if (stream == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    *status = !stream->capture ? 0 : stream->capture->invalidated ? 2 : 1;
    return CUDA_SUCCESS;
}

API cuGraphInstantiateWithFlags(void **executable, void *handle, unsigned long long) {
    ENTER(Needs::Context);
    Graph *graph = graphs.find(handle);
    if (graph == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    *executable = executables.add(*graph);
    return CUDA_SUCCESS;
}

API cuGraphUpload(void *executable, void *stream) {
    ENTER(Needs::Context);
    bool both = executables.find(executable) != nullptr && find_stream(stream) != nullptr;
    return both ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

API cuGraphLaunch(void *handle, void *stream) {
    ENTER(Needs::Context);
    Graph *executable = executables.find(handle);
    if (executable == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    return submit(stream, [operations = executable->operations] { return run_all(operations); });
}

API cuGraphExecDestroy(void *executable) {
    ENTER(Needs::Context);
    return executables.remove(executable);
}

API cuGraphDestroy(void *graph) {
    ENTER(Needs::Context);
    return graphs.remove(graph);
}
