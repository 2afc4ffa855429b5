// Update rules, each in one pass over the arena, in the order of operations of core/solver/update_rules, so that the
// results are the same to the last bit. A thread has four values; group_of_line says by which factors a cache line of
// the arena, 16 values of one param, is changed, or that it is not (NOBODY).

const unsigned char NOBODY = 255;

// Of a group, in this iteration: what the diff is multiplied by, what the weight decay is, the rate, and what the data
// is multiplied by before.
struct alignas(16) Factors {
    float gradient, decay, rate, shrink;
};

// Of the solver, for all iterations; a rule's own docstring says what they are.
struct Constants {
    float a, b, c, d, e;
};

// w: the value, g: its gradient with weight decay, h and k: its histories. Each returns what is to be taken off.

struct SGD {  // a: momentum
    static __device__ float change(float &w, float g, float &h, float &k, Factors factors, Constants of) {
        return h = h * of.a + g;
    }
};

struct Nesterov {  // a: momentum, b: 1 + momentum
    static __device__ float change(float &w, float g, float &h, float &k, Factors factors, Constants of) {
        float old = h * of.a;
        h = old + g;
        return h * of.b - old;
    }
};

struct AdaGrad {  // a: delta
    static __device__ float change(float &w, float g, float &h, float &k, Factors factors, Constants of) {
        h += g * g;
        return g * factors.rate / (sqrtf(h) + of.a);
    }
};

struct RMSProp {  // a: rms_decay, b: 1 - rms_decay, c: delta
    static __device__ float change(float &w, float g, float &h, float &k, Factors factors, Constants of) {
        h = h * of.a + g * g * of.b;
        return g * factors.rate / (sqrtf(h) + of.c);
    }
};

struct AdaDelta {  // a: momentum, b: 1 - momentum, c: delta
    static __device__ float change(float &w, float g, float &h, float &k, Factors factors, Constants of) {
        h = h * of.a + g * g * of.b;
        float step = g / sqrtf(h + of.c) * sqrtf(k + of.c);
        k = k * of.a + step * step * of.b;
        return step * factors.rate;
    }
};

struct Adam {  // a: momentum, b: 1 - momentum, c: momentum2, d: 1 - momentum2, e: delta
    static __device__ float change(float &w, float g, float &h, float &k, Factors factors, Constants of) {
        w *= factors.shrink;
        h = h * of.a + g * of.b;
        k = k * of.c + g * g * of.d;
        return h / (sqrtf(k) + of.e) * factors.rate;
    }
};

struct Penalty {
    bool is_l1;
    float factor;

    __device__ float of(float w) const {
        return factor * (is_l1 ? (w > 0 ? 1.0f : w < 0 ? -1.0f : w) : w);
    }
};

template <class Rule>
static __device__ void update_value(
    float &w, float &g, float &h, float &k, float times, Penalty penalty, Factors factors, Constants constants) {
    float gradient = g * times;
    if (penalty.factor != 0) gradient += penalty.of(w);
    g = Rule::change(w, gradient, h, k, factors, constants);
    w -= g;
}

// data, diff, first, second: `count` fours from four `start` on; second is read where the rule has two histories.
// control: what all diffs are multiplied by beside, and whether this update is left out (not 0), as it is where
// non_finite is not 0.
#define ARENA                                                                                                     \
    float4 *data, float4 *diff, float4 *first, float4 *second, const unsigned char *group_of_line,               \
        const Factors *factors, const float *control, const float *non_finite, long long start, long long count,     \
        int is_l1, int shows_change, float a, float b, float c, float d, float e

#define PASSED                                                                                                    \
    data, diff, first, second, group_of_line, factors, control, non_finite, start, count, is_l1, shows_change,    \
        {a, b, c, d, e}

template <class Rule, int num_histories>
static __device__ void update(
    float4 *data, float4 *diff, float4 *first, float4 *second, const unsigned char *group_of_line,
    const Factors *factors, const float *control, const float *non_finite, long long start, long long count,
    int is_l1, int shows_change, Constants constants) {
    if (control[1] != 0 || non_finite[0] != 0) return;
    float multiplier = control[0];
    long long step = (long long)gridDim.x * blockDim.x;
    for (long long n = (long long)blockIdx.x * blockDim.x + threadIdx.x; n < count; n += step) {
        long long i = start + n;
        unsigned char group = group_of_line[i / 4];
        if (group == NOBODY) continue;
        Factors mine = factors[group];
        float times = mine.gradient * multiplier;
        Penalty penalty = {is_l1 != 0, mine.decay};
        float4 w = data[i], g = diff[i], h = first[i], k = h;
        if (num_histories > 1) k = second[i];
        update_value<Rule>(w.x, g.x, h.x, k.x, times, penalty, mine, constants);
        update_value<Rule>(w.y, g.y, h.y, k.y, times, penalty, mine, constants);
        update_value<Rule>(w.z, g.z, h.z, k.z, times, penalty, mine, constants);
        update_value<Rule>(w.w, g.w, h.w, k.w, times, penalty, mine, constants);
        data[i] = w;
        first[i] = h;
        if (num_histories > 1) second[i] = k;
        if (shows_change) diff[i] = g;
    }
}

extern "C" __global__ void update_sgd(ARENA) { update<SGD, 1>(PASSED); }
extern "C" __global__ void update_nesterov(ARENA) { update<Nesterov, 1>(PASSED); }
extern "C" __global__ void update_adagrad(ARENA) { update<AdaGrad, 1>(PASSED); }
extern "C" __global__ void update_rmsprop(ARENA) { update<RMSProp, 1>(PASSED); }
extern "C" __global__ void update_adadelta(ARENA) { update<AdaDelta, 2>(PASSED); }
extern "C" __global__ void update_adam(ARENA) { update<Adam, 2>(PASSED); }
