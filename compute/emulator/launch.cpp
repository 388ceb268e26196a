// Runs a grid: blocks one after the other, the threads of a block as fibers of the calling thread.
//
//   run_grid ─ run_block ─┬─ pass: each ready fiber runs until it waits or returns
//                         └─ resolve: all wait, so release a barrier, or fail the launch
//
// A fiber is entered once by ucontext and switched by _setjmp and _longjmp; it serves one kernel
// thread after another. A fiber in the middle of a kernel that failed is thrown away and entered anew.
#undef _FORTIFY_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include <algorithm>
#include <deque>
#include <numeric>

#include "driver.h"

namespace emulator {

Index thread, block, block_size, grid_size;
unsigned char *dynamic_shared;

namespace {

constexpr size_t STACK_BYTES = 64 * 1024;
constexpr unsigned char NONSENSE = 0xa5;
constexpr uint64_t NONSENSE_VALUE = 0xa5a5a5a5a5a5a5a5;

enum class State { Ready, AtBarrier, AtCollective, AtActiveMask, Returned };

struct Fiber {
    Index index;
    State state;
    bool entered;  // its stack is in use, by a kernel or between two
    const char *file;
    int line;
    Barrier barrier;
    Warp collective;
    unsigned mask, source;
    uint64_t value, result;
    jmp_buf context;
};

Fiber fibers[THREADS_MAX];
Fiber *self;
unsigned fiber_count;
unsigned char *stacks;
jmp_buf scheduler;
CUresult failure;
const Kernel *running;
const void *parameters;

// A deque, because functions keep pointers into it while modules are added.
std::deque<Kernel> &kernels() {
    static std::deque<Kernel> table;
    return table;
}

void yield() {
    if (_setjmp(self->context) == 0) _longjmp(scheduler, 1);
}

void serve() {
    for (;;) {
        running->run(parameters);
        self->state = State::Returned;
        yield();
    }
}

unsigned char *stack_of(const Fiber &fiber) {
    return stacks + static_cast<size_t>(&fiber - fibers) * (STACK_BYTES + PAGE) + PAGE;
}

// Below each stack lies a page that cannot be written, so that an overflow is a fault.
void make_stacks() {
    size_t bytes = THREADS_MAX * (STACK_BYTES + PAGE);
    void *memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) abort();
    stacks = static_cast<unsigned char *>(memory);
    for (const Fiber &fiber : fibers) mprotect(stack_of(fiber) - PAGE, PAGE, PROT_NONE);
}

void enter(Fiber &fiber) {
    static ucontext_t start;
    getcontext(&start);
    start.uc_stack.ss_sp = stack_of(fiber);
    start.uc_stack.ss_size = STACK_BYTES;
    start.uc_link = nullptr;
    makecontext(&start, serve, 0);
    fiber.entered = true;
    setcontext(&start);
}

// Lets the fiber run until it waits, returns or fails.
void resume(Fiber &fiber) {
    self = &fiber;
    thread = fiber.index;
    if (_setjmp(scheduler) != 0) return;
    if (self->entered) _longjmp(self->context, 1);
    enter(*self);
}

// An order to go through 0..count: as they are, from the end, or by a random stride.
struct Order {
    uint64_t count, start = 0, stride = 1;

    explicit Order(uint64_t count) : count(count) {
        static uint64_t random = 0;
        if (settings.order == "reverse") {
            start = stride = count - 1;
        } else if (settings.order.rfind("shuffle:", 0) == 0 && count >> 32 == 0) {
            random = (random + strtoull(settings.order.c_str() + 8, nullptr, 10)) * 6364136223846793005u
                + 1442695040888963407u;
            start = (random >> 33) % count;
            stride = (random >> 17) % count + 1;
            while (std::gcd(stride, count) != 1) stride++;
        }
    }
    uint64_t at(uint64_t i) const { return (start + i * stride) % count; }
};

std::string says(const Fiber &fiber) {
    if (fiber.state == State::Returned) return "has returned from the kernel";
    return std::string(fiber.state == State::AtBarrier ? "waits at the barrier " : "waits in the warp operation ")
        + fiber.file + ":" + std::to_string(fiber.line);
}

bool same_place(const Fiber &a, const Fiber &b) {
    return a.state == b.state && a.line == b.line
        && (a.state == State::Returned || (a.barrier == b.barrier && strcmp(a.file, b.file) == 0));
}

void report_stuck() {
    const Fiber *waits = fibers;
    while (waits->state == State::Returned) waits++;
    const Fiber *other = fibers;
    while (other + 1 < fibers + fiber_count && (other == waits || same_place(*other, *waits))) other++;
    thread = waits->index;
    failure = CUDA_ERROR_LAUNCH_FAILED;
    message("%s: %s for ever: thread (%u,%u,%u) %s", position().c_str(), says(*waits).c_str(), other->index.x,
            other->index.y, other->index.z, says(*other).c_str());
}

// No fiber is ready: gives __activemask its answer, or opens the barrier, or fails the launch.
void resolve() {
    bool woken = false;
    for (unsigned first = 0; first < fiber_count; first += 32) {
        unsigned lanes = std::min(32u, fiber_count - first), mask = 0;
        for (unsigned lane = 0; lane < lanes; lane++) {
            if (fibers[first + lane].state == State::AtActiveMask) mask |= 1u << lane;
        }
        for (unsigned lane = 0; lane < lanes; lane++) {
            if ((mask >> lane & 1) == 0) continue;
            fibers[first + lane].result = mask;
            fibers[first + lane].state = State::Ready;
            woken = true;
        }
    }
    if (woken) return;
    unsigned yes = 0;
    for (unsigned i = 0; i < fiber_count; i++) {
        if (fibers[i].state != State::AtBarrier || !same_place(fibers[i], fibers[0])) {
            return report_stuck();
        }
        yes += fibers[i].value != 0;
    }
    for (unsigned i = 0; i < fiber_count; i++) {
        switch (fibers[i].barrier) {
            case Barrier::Plain: break;
            case Barrier::Count: fibers[i].result = yes; break;
            case Barrier::And: fibers[i].result = yes == fiber_count; break;
            case Barrier::Or: fibers[i].result = yes != 0; break;
        }
        fibers[i].state = State::Ready;
    }
}

void run_block() {
    for (unsigned i = 0; i < fiber_count; i++) {
        fibers[i].state = State::Ready;
        fibers[i].file = "";
        fibers[i].line = 0;
    }
    for (;;) {
        unsigned returned = 0;
        bool ran = false;
        Order order(fiber_count);
        for (unsigned i = 0; i < fiber_count; i++) {
            Fiber &fiber = fibers[order.at(i)];
            if (fiber.state == State::Ready) {
                resume(fiber);
                if (failure != CUDA_SUCCESS) return;
                ran = true;
            }
            returned += fiber.state == State::Returned;
        }
        if (returned == fiber_count) return;
        if (!ran) resolve();
        if (failure != CUDA_SUCCESS) return;
    }
}

// The last lane has come: every lane gets its result and may run.
void complete(Fiber *warp, unsigned mask) {
    unsigned ballot = 0;
    for (unsigned lane = 0; lane < 32; lane++) {
        if (mask >> lane & 1) ballot |= static_cast<unsigned>(warp[lane].value & 1) << lane;
    }
    for (unsigned lane = 0; lane < 32; lane++) {
        if ((mask >> lane & 1) == 0) continue;
        Fiber &fiber = warp[lane];
        if (fiber.collective == Warp::Ballot) fiber.result = ballot;
        else fiber.result = mask >> fiber.source & 1 ? warp[fiber.source].value : NONSENSE_VALUE;
        fiber.state = State::Ready;
    }
}

// Dynamic shared memory ends where a page follows that cannot be touched.
void place_shared(size_t bytes) {
    static const size_t size = (SHARED_BYTES_MAX / PAGE + 1) * PAGE;
    static unsigned char *memory;
    if (memory == nullptr) {
        void *mapped = mmap(nullptr, size + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
                            -1, 0);
        if (mapped == MAP_FAILED) abort();
        memory = static_cast<unsigned char *>(mapped);
        mprotect(memory + size, PAGE, PROT_NONE);
    }
    dynamic_shared = memory + size - (bytes + 15) / 16 * 16;
}

}  // namespace

Registration::Registration(const Kernel &kernel) { kernels().push_back(kernel); }

const Kernel *find_kernel(const std::string &module, const std::string &name) {
    for (const Kernel &kernel : kernels()) {
        if (module == kernel.module && name == kernel.name) return &kernel;
    }
    return nullptr;
}

bool has_module(const std::string &module) {
    return std::any_of(kernels().begin(), kernels().end(),
                       [&](const Kernel &kernel) { return module == kernel.module; });
}

std::string position() {
    if (running == nullptr) return "outside a kernel";
    char text[160];
    snprintf(text, sizeof text, "block (%u,%u,%u), thread (%u,%u,%u)", block.x, block.y, block.z,
             thread.x, thread.y, thread.z);
    return std::string("kernel ") + running->module + "/" + running->name + ", " + text;
}

void fail(CUresult result, const char *format, ...) {
    char text[400];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    message("%s: %s", position().c_str(), text);
    if (running == nullptr) abort();
    failure = result;
    _longjmp(scheduler, 1);
}

void trap() { fail(CUDA_ERROR_ILLEGAL_INSTRUCTION, "__trap()"); }

unsigned lane() { return static_cast<unsigned>(self - fibers) % 32; }

int barrier(Barrier kind, int predicate, const char *file, int line) {
    self->state = State::AtBarrier;
    self->barrier = kind;
    self->value = predicate != 0;
    self->file = file;
    self->line = line;
    yield();
    return static_cast<int>(self->result);
}

unsigned active_mask() {
    self->state = State::AtActiveMask;
    yield();
    return static_cast<unsigned>(self->result);
}

uint64_t collective(Warp kind, unsigned mask, unsigned source, uint64_t value, const char *file,
                    int line) {
    unsigned id = static_cast<unsigned>(self - fibers), lane = id % 32;
    Fiber *warp = self - lane;
    unsigned lanes = std::min(32u, fiber_count - (id - lane));
    if ((mask >> lane & 1) == 0) {
        fail(CUDA_ERROR_LAUNCH_FAILED, "%s:%d: the mask %08x leaves out lane %u, which calls", file,
             line, mask, lane);
    }
    self->state = State::AtCollective;
    self->collective = kind;
    self->mask = mask;
    self->source = source & 31;
    self->value = value;
    self->file = file;
    self->line = line;
    bool all_here = true;
    for (unsigned other = 0; other < 32; other++) {
        if ((mask >> other & 1) == 0) continue;
        if (other >= lanes || warp[other].state == State::Returned) {
            fail(CUDA_ERROR_LAUNCH_FAILED, "%s:%d: the mask %08x names lane %u, which %s", file, line,
                 mask, other, other >= lanes ? "the block does not have" : "has returned");
        }
        all_here &= warp[other].state == State::AtCollective && warp[other].collective == kind
            && warp[other].mask == mask;
    }
    if (all_here) complete(warp, mask);
    else yield();
    return self->result;
}

CUresult run_grid(const Kernel &kernel, Index grid, Index threads, size_t shared_bytes,
                  const void *values) {
    if (stacks == nullptr) make_stacks();
    running = &kernel;
    parameters = values;
    failure = CUDA_SUCCESS;
    fiber_count = threads.x * threads.y * threads.z;
    block_size = threads;
    grid_size = grid;
    for (unsigned i = 0; i < fiber_count; i++) {
        fibers[i].index = {i % threads.x, i / threads.x % threads.y, i / threads.x / threads.y};
    }
    place_shared(shared_bytes);
    CUresult fault = guarded([&] {
        Order order(uint64_t{grid.x} * grid.y * grid.z);
        for (uint64_t i = 0; i < order.count && failure == CUDA_SUCCESS; i++) {
            uint64_t at = order.at(i);
            block = {static_cast<unsigned>(at % grid.x), static_cast<unsigned>(at / grid.x % grid.y),
                     static_cast<unsigned>(at / grid.x / grid.y)};
            memset(dynamic_shared, NONSENSE, shared_bytes);
            run_block();
        }
        return failure;
    });
    if (fault != CUDA_SUCCESS) {
        for (Fiber &fiber : fibers) fiber.entered = false;
    }
    running = nullptr;
    return fault;
}

}  // namespace emulator
