// Batch normalisation of (rows, channels), with scale, shift and a maximum with 0 that lets NaN through; what lies
// between is not stored. y = (x - mean) * inverse * scale + shift, with inverse = 1 / sqrt(variance + eps).
//
// A thread has PACK neighbouring channels and goes through rows. Blocks are (packs, lines), of THREADS threads, both
// powers of 2; sums over rows are taken thread by thread, in a block by halves, and over blocks in order: each run gives
// the same bits.
#include "values.cuh"

#define THREADS 256

struct alignas(sizeof(VALUE) * PACK) Values {
    VALUE values[PACK];
};

// The channels of a thread, as they are normalised.
struct Channels {
    float mean[PACK], factor[PACK], shift[PACK];
};

static __device__ Channels channels_of(int pack, const float *mean, const float *inverse, const float *scale,
                                       const float *shift) {
    Channels found;
    for (int k = 0; k < PACK; ++k) {
        int channel = pack * PACK + k;
        found.mean[k] = mean[channel];
        found.factor[k] = inverse[channel] * scale[channel];
        found.shift[k] = shift[channel];
    }
    return found;
}

// Adds up the sums of a block's lines, and writes them to partial (gridDim.y, 2, num_packs * PACK).
static __device__ void write_sums(const float *first, const float *second, float *partial, int num_packs) {
    __shared__ float sums[2][PACK][THREADS];
    int thread = threadIdx.y * blockDim.x + threadIdx.x, pack = blockIdx.x * blockDim.x + threadIdx.x;
    for (int k = 0; k < PACK; ++k) {
        sums[0][k][thread] = first[k];
        sums[1][k][thread] = second[k];
    }
    for (int lines = blockDim.y / 2; lines; lines /= 2) {
        __syncthreads();
        if (threadIdx.y < lines)
            for (int k = 0; k < PACK; ++k)
                for (int which = 0; which < 2; ++which)
                    sums[which][k][thread] += sums[which][k][thread + lines * blockDim.x];
    }
    if (threadIdx.y == 0 && pack < num_packs)
        for (int k = 0; k < PACK; ++k)
            for (int which = 0; which < 2; ++which)
                partial[((long long)blockIdx.y * 2 + which) * num_packs * PACK + pack * PACK + k] = sums[which][k][thread];
}

static __device__ int first_row() { return blockIdx.y * blockDim.y + threadIdx.y; }

static __device__ int row_step() { return gridDim.y * blockDim.y; }

// Sums of x - x0 and of their squares, x0 being the first row: without it squares of a large mean would drown the rest.
extern "C" __global__ void norm_sums(const VALUE *x, float *partial, int num_rows, int num_packs) {
    int pack = blockIdx.x * blockDim.x + threadIdx.x;
    float sums[PACK], squares[PACK];
    for (int k = 0; k < PACK; ++k) sums[k] = squares[k] = 0;
    if (pack < num_packs) {
        Values origin = ((const Values *)x)[pack];
        for (int row = first_row(); row < num_rows; row += row_step()) {
            Values here = ((const Values *)x)[(long long)row * num_packs + pack];
            for (int k = 0; k < PACK; ++k) {
                float value = load(here.values[k]) - load(origin.values[k]);
                sums[k] += value;
                squares[k] += value * value;
            }
        }
    }
    write_sums(sums, squares, partial, num_packs);
}

// The mean and inverse of each channel from its sums, and mean and variance for others.
extern "C" __global__ void norm_statistics(const VALUE *x, const float *partial, float *mean, float *inverse,
                                           float *mean_given, float *variance_given, int num_partials, int num_rows,
                                           int num_channels, double eps) {
    int step = gridDim.x * blockDim.x;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < num_channels; i += step) {
        double sum = 0, square = 0;
        for (int k = 0; k < num_partials; ++k) {
            sum += partial[(long long)2 * k * num_channels + i];
            square += partial[(long long)(2 * k + 1) * num_channels + i];
        }
        double distance = sum / num_rows, variance = square / num_rows - distance * distance;
        if (variance < 0) variance = 0;
        mean[i] = mean_given[i] = (float)(load(x[i]) + distance);
        inverse[i] = (float)(1 / sqrt(variance + eps));
        variance_given[i] = (float)variance;
    }
}

extern "C" __global__ void norm_apply(const VALUE *x, const float *mean, const float *inverse, const float *scale,
                                      const float *shift, VALUE *y, int num_rows, int num_packs, int relu) {
    int pack = blockIdx.x * blockDim.x + threadIdx.x;
    if (pack >= num_packs) return;
    Channels channels = channels_of(pack, mean, inverse, scale, shift);
    for (int row = first_row(); row < num_rows; row += row_step()) {
        long long place = (long long)row * num_packs + pack;
        Values here = ((const Values *)x)[place];
        for (int k = 0; k < PACK; ++k) {
            float value = (load(here.values[k]) - channels.mean[k]) * channels.factor[k] + channels.shift[k];
            if (relu && value < 0) value = 0;
            store(here.values[k], value);
        }
        ((Values *)y)[place] = here;
    }
}

// What the maximum lets through of a gradient.
static __device__ float passed(float gradient, float distance, Channels channels, int k, int relu) {
    return relu && !(distance * channels.factor[k] + channels.shift[k] > 0) ? 0 : gradient;
}

// Sums of dy * (x - mean) * inverse and of dy.
extern "C" __global__ void norm_gradient_sums(const VALUE *x, const VALUE *y_diff, const float *mean,
                                              const float *inverse, const float *scale, const float *shift,
                                              float *partial, int num_rows, int num_packs, int relu) {
    int pack = blockIdx.x * blockDim.x + threadIdx.x;
    float slopes[PACK], sums[PACK];
    for (int k = 0; k < PACK; ++k) slopes[k] = sums[k] = 0;
    if (pack < num_packs) {
        Channels channels = channels_of(pack, mean, inverse, scale, shift);
        for (int row = first_row(); row < num_rows; row += row_step()) {
            long long place = (long long)row * num_packs + pack;
            Values here = ((const Values *)x)[place], there = ((const Values *)y_diff)[place];
            for (int k = 0; k < PACK; ++k) {
                float distance = load(here.values[k]) - channels.mean[k];
                float gradient = passed(load(there.values[k]), distance, channels, k, relu);
                slopes[k] += gradient * distance;
                sums[k] += gradient;
            }
        }
        for (int k = 0; k < PACK; ++k) slopes[k] *= inverse[pack * PACK + k];
    }
    write_sums(slopes, sums, partial, num_packs);
}

// totals (2, channels): the two sums. flags: 1 if the scale's gradient is wanted, 2 if it is added to what is there; 4
// and 8 likewise for the shift.
extern "C" __global__ void norm_params(const float *partial, float *totals, float *scale_diff, float *shift_diff,
                                       int num_partials, int num_channels, int flags) {
    int step = gridDim.x * blockDim.x;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < num_channels; i += step) {
        double slope = 0, sum = 0;
        for (int k = 0; k < num_partials; ++k) {
            slope += partial[(long long)2 * k * num_channels + i];
            sum += partial[(long long)(2 * k + 1) * num_channels + i];
        }
        totals[i] = (float)slope;
        totals[num_channels + i] = (float)sum;
        if (flags & 1) scale_diff[i] = (flags & 2 ? scale_diff[i] : 0) + (float)slope;
        if (flags & 4) shift_diff[i] = (flags & 8 ? shift_diff[i] : 0) + (float)sum;
    }
}

// dx = (dy - E[dy] - x^ E[dy x^]) * inverse * scale, x^ being (x - mean) * inverse. x_diff may be y_diff.
extern "C" __global__ void norm_gradient(const VALUE *x, const VALUE *y_diff, const float *mean, const float *inverse,
                                         const float *scale, const float *shift, const float *totals, VALUE *x_diff,
                                         int num_rows, int num_packs, int relu) {
    int pack = blockIdx.x * blockDim.x + threadIdx.x;
    if (pack >= num_packs) return;
    Channels channels = channels_of(pack, mean, inverse, scale, shift);
    float slopes[PACK], means[PACK];
    for (int k = 0; k < PACK; ++k) {
        int channel = pack * PACK + k;
        slopes[k] = totals[channel] * inverse[channel] / num_rows;
        means[k] = totals[num_packs * PACK + channel] / num_rows;
    }
    for (int row = first_row(); row < num_rows; row += row_step()) {
        long long place = (long long)row * num_packs + pack;
        Values here = ((const Values *)x)[place], there = ((const Values *)y_diff)[place];
        for (int k = 0; k < PACK; ++k) {
            float distance = load(here.values[k]) - channels.mean[k];
            float gradient = passed(load(there.values[k]), distance, channels, k, relu);
            store(here.values[k], (gradient - means[k] - distance * slopes[k]) * channels.factor[k]);
        }
        ((Values *)x_diff)[place] = here;
    }
}
