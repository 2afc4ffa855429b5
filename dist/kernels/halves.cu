// Gradients in 16 bits between GPUs: what they travel as, and their sums. HALF is the type, Half or Bfloat16.
#include "values.cuh"

// A float16 carries a share of the mean; a bfloat16 has the range of a float, which is left as it is to the last bit.
#if IS_SCALED
#define SCALED(value) ((value) * scale)
#else
#define SCALED(value) (value)
#endif

#define EACH(i)                                                                                            \
    for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < size; i += (long long)gridDim.x * blockDim.x)

extern "C" __global__ void compress(const float *values, HALF *wire, float scale, long long size) {
    EACH(i) store(wire[i], SCALED(values[i]));
}

extern "C" __global__ void decompress(const HALF *wire, float *values, float scale, long long size) {
    EACH(i) values[i] = SCALED(load(wire[i]));
}

// parts: (num_parts, size), summed in float in this order and rounded once.
extern "C" __global__ void sum_parts(const HALF *parts, HALF *sums, int num_parts, long long size) {
    EACH(i) {
        float sum = load(parts[i]);
        for (int part = 1; part < num_parts; ++part) sum += load(parts[part * size + i]);
        store(sums[i], sum);
    }
}
