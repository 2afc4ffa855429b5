// Local response normalisation across channels that lie behind: y = x s^-beta with s = k + factor * S(x^2), S being the
// sum over REACH channels each way. A thread has PACK neighbouring channels of a place.
#include "values.cuh"

struct alignas(sizeof(VALUE) * PACK) Values {
    VALUE values[PACK];
};

// count values from channel `first` of a place on, 0 where there is none.
static __device__ void read(const VALUE *place, int first, int count, int num_channels, float *found) {
    for (int k = 0; k < count; ++k) {
        int channel = first + k;
        found[k] = channel >= 0 && channel < num_channels ? load(place[channel]) : 0;
    }
}

// s of the channel in the middle of `values`, 2 * REACH + 1 of them.
static __device__ float scale_of(const float *values, float factor, float least) {
    float sum = 0;
    for (int k = 0; k <= 2 * REACH; ++k) sum += values[k] * values[k];
    return least + factor * sum;
}

extern "C" __global__ void lrn(const VALUE *x, VALUE *y, int count, int num_channels, float factor, float beta,
                               float least) {
    int step = gridDim.x * blockDim.x, num_packs = num_channels / PACK;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += step) {
        int first = i % num_packs * PACK;
        float values[PACK + 2 * REACH];
        read(x + (long long)(i / num_packs) * num_channels, first - REACH, PACK + 2 * REACH, num_channels, values);
        Values found;
        for (int k = 0; k < PACK; ++k)
            store(found.values[k], values[k + REACH] * powf(scale_of(values + k, factor, least), -beta));
        ((Values *)y)[i] = found;
    }
}

// dx = dy s^-beta - 2 beta factor x S(dy x s^(-beta - 1))
extern "C" __global__ void lrn_backward(const VALUE *x, const VALUE *y_diff, VALUE *x_diff, int count, int num_channels,
                                        float factor, float beta, float least) {
    int step = gridDim.x * blockDim.x, num_packs = num_channels / PACK;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += step) {
        int first = i % num_packs * PACK;
        long long place = (long long)(i / num_packs) * num_channels;
        float values[PACK + 4 * REACH], gradients[PACK + 2 * REACH], powers[PACK];
        read(x + place, first - 2 * REACH, PACK + 4 * REACH, num_channels, values);
        read(y_diff + place, first - REACH, PACK + 2 * REACH, num_channels, gradients);
        float ratios[PACK + 2 * REACH];
        for (int k = 0; k < PACK + 2 * REACH; ++k) {
            float scale = scale_of(values + k, factor, least), power = powf(scale, -beta);
            ratios[k] = gradients[k] * values[k + REACH] * power / scale;
            if (k >= REACH && k < PACK + REACH) powers[k - REACH] = power;
        }
        Values found;
        for (int k = 0; k < PACK; ++k) {
            float sum = 0;
            for (int j = 0; j <= 2 * REACH; ++j) sum += ratios[k + j];
            float direct = gradients[k + REACH] * powers[k];
            store(found.values[k], direct - 2 * beta * factor * values[k + 2 * REACH] * sum);
        }
        ((Values *)x_diff)[i] = found;
    }
}
