// Turns faults in a kernel into failed launches: signals, and the checks that the compiler put in.
//
// Handlers are installed for the length of a launch only. Modules are compiled with -fsanitize for
// what a device refuses and a CPU does not (misaligned accesses), or where the two differ (shifts by
// too much, divisions by zero, casts of numbers that do not fit). The handlers that such code calls
// are here, so that no library of the compiler is needed.
#undef _FORTIFY_SOURCE
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>

#include "driver.h"

namespace emulator {

static const int SIGNALS[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL};
static struct sigaction before[4];
static sigjmp_buf escape;
static pthread_t owner;
static volatile uintptr_t fault_address;

// A fault of another thread is not ours: it happens again under the handler of before.
static void handle(int signal, siginfo_t *information, void *) {
    if (pthread_equal(owner, pthread_self())) {
        fault_address = reinterpret_cast<uintptr_t>(information->si_addr);
        siglongjmp(escape, signal);
    }
    for (int i = 0; i < 4; i++) {
        if (SIGNALS[i] == signal) sigaction(signal, &before[i], nullptr);
    }
}

static CUresult say(int signal) {
    if (signal == SIGSEGV || signal == SIGBUS) {
        message("%s: illegal address %#zx: %s", position().c_str(), static_cast<size_t>(fault_address),
                describe_address(fault_address).c_str());
        return CUDA_ERROR_ILLEGAL_ADDRESS;
    }
    message("%s: signal %d", position().c_str(), signal);
    return CUDA_ERROR_ILLEGAL_INSTRUCTION;
}

CUresult guarded(const Operation &body) {
    static char memory[64 * 1024];
    stack_t stack = {}, stack_before = {};
    stack.ss_sp = memory;
    stack.ss_size = sizeof memory;
    sigaltstack(&stack, &stack_before);
    struct sigaction action = {};
    action.sa_sigaction = handle;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigemptyset(&action.sa_mask);
    owner = pthread_self();
    for (int i = 0; i < 4; i++) sigaction(SIGNALS[i], &action, &before[i]);
    volatile CUresult result = CUDA_SUCCESS;
    int signal = sigsetjmp(escape, 1);
    if (signal == 0) result = body();
    for (int i = 0; i < 4; i++) sigaction(SIGNALS[i], &before[i], nullptr);
    if ((stack_before.ss_flags & SS_ONSTACK) == 0) sigaltstack(&stack_before, nullptr);
    return signal == 0 ? result : say(signal);
}

// What every handler's data begins with.
struct Place {
    const char *file;
    uint32_t line, column;
};

[[noreturn]] static void refuse(CUresult result, const void *data, const char *what) {
    const Place *place = static_cast<const Place *>(data);
    fail(result, "%s:%u: %s", place->file, place->line, what);
}

}  // namespace emulator

using emulator::refuse;

extern "C" {
EMULATOR_API void __ubsan_handle_type_mismatch_v1_abort(void *data, uintptr_t) {
    refuse(CUDA_ERROR_MISALIGNED_ADDRESS, data, "misaligned access");
}
EMULATOR_API void __ubsan_handle_out_of_bounds_abort(void *data, uintptr_t) {
    refuse(CUDA_ERROR_ILLEGAL_ADDRESS, data, "index outside its array");
}
EMULATOR_API void __ubsan_handle_shift_out_of_bounds_abort(void *data, uintptr_t, uintptr_t) {
    refuse(CUDA_ERROR_LAUNCH_FAILED, data, "shift by less than 0 or by all bits and more");
}
EMULATOR_API void __ubsan_handle_divrem_overflow_abort(void *data, uintptr_t, uintptr_t) {
    refuse(CUDA_ERROR_LAUNCH_FAILED, data, "integer division by zero, or a quotient that does not fit");
}
EMULATOR_API void __ubsan_handle_float_cast_overflow_abort(void *data, uintptr_t) {
    refuse(CUDA_ERROR_LAUNCH_FAILED, data, "cast to an integer type that cannot hold the number");
}
}
