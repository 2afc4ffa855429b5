// What comes behind a convolution or a sum: y = x + bias + added, then max(y, 0), which lets NaN through.
#include "values.cuh"

#define AT_ONCE 8

struct alignas(sizeof(VALUE) * AT_ONCE) Values {
    VALUE values[AT_ONCE];
};

// x and added may be y. A channel's values lie `distance` apart. flags: 1 for bias, 2 for added, 4 for the maximum.
extern "C" __global__ void finish(const VALUE *x, const VALUE *added, const float *bias, VALUE *y, int count,
                                  int num_channels, int distance, int flags) {
    int step = gridDim.x * blockDim.x, num_packs = (count - 1) / AT_ONCE + 1;
    for (int pack = blockIdx.x * blockDim.x + threadIdx.x; pack < num_packs; pack += step) {
        int start = pack * AT_ONCE, length = min(count - start, AT_ONCE);
        int place = start % distance, channel = start / distance % num_channels;
        Values here, there;
        if (length == AT_ONCE) {
            here = ((const Values *)x)[pack];
            if (flags & 2) there = ((const Values *)added)[pack];
        } else
            for (int k = 0; k < length; ++k) {
                here.values[k] = x[start + k];
                if (flags & 2) there.values[k] = added[start + k];
            }
        for (int k = 0; k < length; ++k) {
            float value = load(here.values[k]);
            if (flags & 1) value += bias[channel];
            if (flags & 2) value += load(there.values[k]);
            if (flags & 4 && value < 0) value = 0;
            store(here.values[k], value);
            if (++place == distance) {
                place = 0;
                if (++channel == num_channels) channel = 0;
            }
        }
        if (length == AT_ONCE)
            ((Values *)y)[pack] = here;
        else
            for (int k = 0; k < length; ++k) y[start + k] = here.values[k];
    }
}

// What a maximum with 0 lets through of a gradient: y_diff where y > 0, else 0. diff may be y_diff.
extern "C" __global__ void relu_gradient(const VALUE *y, const VALUE *y_diff, VALUE *diff, int count) {
    int step = gridDim.x * blockDim.x, num_packs = (count - 1) / AT_ONCE + 1;
    for (int pack = blockIdx.x * blockDim.x + threadIdx.x; pack < num_packs; pack += step) {
        int start = pack * AT_ONCE, length = min(count - start, AT_ONCE);
        if (length == AT_ONCE) {
            Values signs = ((const Values *)y)[pack], here = ((const Values *)y_diff)[pack];
            for (int k = 0; k < AT_ONCE; ++k)
                if (!(load(signs.values[k]) > 0)) store(here.values[k], 0.0f);
            ((Values *)diff)[pack] = here;
        } else
            for (int k = start; k < count; ++k) store(diff[k], load(y[k]) > 0 ? load(y_diff[k]) : 0.0f);
    }
}
