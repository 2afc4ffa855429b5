// Sums over the rows of (rows, channels): the gradient of a bias, with channels last.
//
// A thread has PACK neighbouring channels and goes through rows. Blocks are (packs, lines), of THREADS threads, both
// powers of 2; sums are taken thread by thread, in a block by halves, and over blocks in order: each run gives the same
// bits.
#include "values.cuh"

#define THREADS 256

struct alignas(sizeof(VALUE) * PACK) Values {
    VALUE values[PACK];
};

// partial: (gridDim.y, num_packs * PACK).
extern "C" __global__ void channel_sums(const VALUE *x, float *partial, int num_rows, int num_packs) {
    __shared__ float sums[PACK][THREADS];
    int thread = threadIdx.y * blockDim.x + threadIdx.x, pack = blockIdx.x * blockDim.x + threadIdx.x;
    float mine[PACK];
    for (int k = 0; k < PACK; ++k) mine[k] = 0;
    if (pack < num_packs)
        for (int row = blockIdx.y * blockDim.y + threadIdx.y; row < num_rows; row += gridDim.y * blockDim.y) {
            Values here = ((const Values *)x)[(long long)row * num_packs + pack];
            for (int k = 0; k < PACK; ++k) mine[k] += load(here.values[k]);
        }
    for (int k = 0; k < PACK; ++k) sums[k][thread] = mine[k];
    for (int lines = blockDim.y / 2; lines; lines /= 2) {
        __syncthreads();
        if (threadIdx.y < lines)
            for (int k = 0; k < PACK; ++k) sums[k][thread] += sums[k][thread + lines * blockDim.x];
    }
    if (threadIdx.y == 0 && pack < num_packs)
        for (int k = 0; k < PACK; ++k)
            partial[(long long)blockIdx.y * num_packs * PACK + pack * PACK + k] = sums[k][thread];
}

// totals: what the partial sums add up to, or are added to.
extern "C" __global__ void channel_totals(const float *partial, float *totals, int num_partials, int num_channels,
                                          int adds) {
    int step = gridDim.x * blockDim.x;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < num_channels; i += step) {
        double sum = 0;
        for (int k = 0; k < num_partials; ++k) sum += partial[(long long)k * num_channels + i];
        totals[i] = (adds ? totals[i] : 0) + (float)sum;
    }
}
