// As much of CUDA as the kernels in core/engines/cupy/kernels need, for a compiler of the host: blocks run one after the
// other; so do threads, but from one __syncthreads() to the next if HAS_BARRIERS.

#include <algorithm>
#include <cmath>
#include <csetjmp>
#include <cstring>
#include <string>
#include <type_traits>
#include <typeinfo>
#include <utility>

#include <cxxabi.h>
#include <ucontext.h>
#ifdef __SSE2__
#include <xmmintrin.h>
#endif

#define __global__
#define __device__
#define __shared__ static __attribute__((section("shared_memory")))

struct dim3 {
    unsigned x, y, z;
};

struct alignas(16) float4 {
    float x, y, z, w;
};

using std::max;
using std::min;

static dim3 gridDim, blockDim, blockIdx, threadIdx;

static unsigned __float_as_uint(float value) {
    unsigned bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}

static float __uint_as_float(unsigned bits) {
    float value;
    std::memcpy(&value, &bits, sizeof bits);
    return value;
}

static unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return (unsigned long long)((unsigned __int128)a * b >> 64);
}

namespace played {

const unsigned MAX_THREADS = 1024, STACK_SIZE = 1 << 16;
const unsigned STRIDE = 1031;  // a prime, between threads that follow one another: no order suits a missing barrier

// Threads with barriers have stacks of their own. They are entered by setcontext, and then left and entered again by
// longjmp, which needs no system call.
static void (*run_thread)();
static ucontext_t entries[MAX_THREADS];
static jmp_buf between_threads, threads[MAX_THREADS];
static char stacks[MAX_THREADS][STACK_SIZE];
static enum State { NEW, WAITING, DONE } states[MAX_THREADS];
static unsigned current;

static void run_to_the_end() {
    run_thread();
    states[current] = DONE;
    _longjmp(between_threads, 1);
}

static dim3 place_of(unsigned thread) {
    return {thread % blockDim.x, thread / blockDim.x % blockDim.y, thread / blockDim.x / blockDim.y};
}

static void enter(unsigned thread) {
    if (_setjmp(between_threads)) return;
    if (states[thread] == WAITING) _longjmp(threads[thread], 1);
    getcontext(&entries[thread]);
    entries[thread].uc_stack.ss_sp = stacks[thread];
    entries[thread].uc_stack.ss_size = STACK_SIZE;
    entries[thread].uc_link = nullptr;
    makecontext(&entries[thread], run_to_the_end, 0);
    setcontext(&entries[thread]);
}

// Of all kernels in the file; NaN at the start of each block.
extern "C" char __start_shared_memory[], __stop_shared_memory[];

static void run_with_barriers(unsigned num_threads) {
    std::memset(__start_shared_memory, 0xff, __stop_shared_memory - __start_shared_memory);
    std::fill(states, states + num_threads, NEW);
    bool is_over = false;
    for (unsigned round = 0; !is_over; ++round) {
        is_over = true;
        for (unsigned t = 0; t < num_threads; ++t) {
            current = (t * STRIDE + round) % num_threads;
            if (states[current] == DONE) continue;
            threadIdx = place_of(current);
            enter(current);
            is_over &= states[current] == DONE;
        }
    }
}

static void run_block() {
    unsigned num_threads = blockDim.x * blockDim.y * blockDim.z;
#ifdef HAS_BARRIERS
    run_with_barriers(num_threads);
#else
    for (unsigned t = 0; t < num_threads; ++t) {
        threadIdx = place_of(t);
        run_thread();
    }
#endif
}

// As -ftz=true, by which cupy compiles: floats below 2^-126 are taken for 0 and become 0.
static void set_flushing(bool flushes) {
#ifdef __SSE2__
    const unsigned FLUSHES = 0x8040;
    _mm_setcsr(flushes ? _mm_getcsr() | FLUSHES : _mm_getcsr() & ~FLUSHES);
#endif
}

static void run_grid(const unsigned *sizes) {
    set_flushing(true);
    gridDim = {sizes[0], sizes[1], sizes[2]};
    blockDim = {sizes[3], sizes[4], sizes[5]};
    for (blockIdx.z = 0; blockIdx.z < gridDim.z; ++blockIdx.z)
        for (blockIdx.y = 0; blockIdx.y < gridDim.y; ++blockIdx.y)
            for (blockIdx.x = 0; blockIdx.x < gridDim.x; ++blockIdx.x) run_block();
    set_flushing(false);
}

template <class... Types, size_t... I>
static void call(void (*kernel)(Types...), void **arguments, std::index_sequence<I...>) {
    kernel(*static_cast<std::remove_cv_t<Types> *>(arguments[I])...);
}

// What a kernel is called with: the addresses of its arguments, as cuLaunchKernel takes them.
template <auto kernel, class... Types>
static void launch(void (*)(Types...), void **arguments, const unsigned *sizes) {
    static void **given;
    given = arguments;
    run_thread = [] { call(kernel, given, std::index_sequence_for<Types...>()); };
    run_grid(sizes);
}

template <class... Types>
static const char *types_of(void (*)(Types...)) {
    static std::string names;
    names.clear();
    for (const std::type_info *type : {&typeid(Types)...}) names += abi::__cxa_demangle(type->name(), 0, 0, 0), names += ';';
    return names.c_str();
}

}  // namespace played

static void __syncthreads() {
    using namespace played;
    states[current] = WAITING;
    if (!_setjmp(threads[current])) _longjmp(between_threads, 1);
}

#define PLAYED(kernel)                                                                                     \
    extern "C" const char *types_of_##kernel() { return played::types_of(kernel); }                        \
    extern "C" void launch_##kernel(void **arguments, const unsigned *sizes) {                              \
        played::launch<kernel>(kernel, arguments, sizes);                                                  \
    }
