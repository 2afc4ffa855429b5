// Pooling as Caffe's: maxima, the first of equals, and averages over windows clipped to the input and its padding.
// Images are (N, C, H, W), in that order or, with CHANNELS_LAST 1, with C behind. A thread has PACK neighbouring channels,
// of which there can be more than one only with these behind; counts and places are of packs.
#include "values.cuh"

#define LOWEST -3.402823466e38f

struct alignas(sizeof(VALUE) * PACK) Values {
    VALUE values[PACK];
};

struct alignas(sizeof(WINNER) * PACK) Winners {
    WINNER values[PACK];
};

static __device__ Values read(const VALUE *values, int place) { return ((const Values *)values)[place]; }

struct Place {
    int plane, row, column;  // plane: where its packs begin
};

// Where pack `i` of images of num_rows x num_columns is, in images of other_rows x other_columns.
static __device__ Place place_of(int i, int num_packs, int num_rows, int num_columns, int others) {
    Place found;
#if CHANNELS_LAST
    int pack = i % num_packs;
    i /= num_packs;
    found.column = i % num_columns;
    i /= num_columns;
    found.row = i % num_rows;
    found.plane = i / num_rows * others * num_packs + pack;
#else
    found.column = i % num_columns;
    i /= num_columns;
    found.row = i % num_rows;
    found.plane = i / num_rows * others;
#endif
    return found;
}

static __device__ int at(Place place, int num_packs, int num_columns, int row, int column) {
    int offset = row * num_columns + column;
    return place.plane + (CHANNELS_LAST ? offset * num_packs : offset);
}

// How much of the window that starts at `start` lies before the far end of the padding; 1 where nothing does.
static __device__ int clipped(int start, int kernel, int end) { return max(min(start + kernel, end) - start, 1); }

// The first window that sees what lies `distance` behind the near end of the padding.
static __device__ int first_window(int distance, int kernel, int stride) {
    return distance < kernel ? 0 : (distance - kernel) / stride + 1;
}

#define SIZES \
    int count, int num_packs, int height, int width, int rows, int columns, int kernel_h, int kernel_w, \
    int stride_h, int stride_w, int pad_h, int pad_w

// count: of y (N, C, rows, columns). winners: for each the place within its window of what won.
extern "C" __global__ void max_pool(const VALUE *x, VALUE *y, WINNER *winners, SIZES) {
    int step = gridDim.x * blockDim.x;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += step) {
        Place here = place_of(i, num_packs, rows, columns, height * width);
        int top = here.row * stride_h - pad_h, left = here.column * stride_w - pad_w;
        Winners winner;
        float most[PACK];
        for (int k = 0; k < PACK; ++k) {
            winner.values[k] = 0;
            most[k] = LOWEST;
        }
        for (int tap = 0, r = 0; r < kernel_h; ++r)
            for (int s = 0; s < kernel_w; ++s, ++tap) {
                int row = top + r, column = left + s;
                if (row < 0 || row >= height || column < 0 || column >= width) continue;
                Values seen = read(x, at(here, num_packs, width, row, column));
                for (int k = 0; k < PACK; ++k) {
                    float value = load(seen.values[k]);
                    if (value > most[k]) winner.values[k] = (WINNER)tap;
                    if (value > most[k] || value != value) most[k] = value;
                }
            }
        Values found;
        for (int k = 0; k < PACK; ++k) store(found.values[k], most[k]);
        ((Values *)y)[i] = found;
        ((Winners *)winners)[i] = winner;
    }
}

// mask: the index h * W + w of each window's winner, -1 where that is no input. For packs of one.
extern "C" __global__ void max_pool_places(const WINNER *winners, float *mask, SIZES) {
    int step = gridDim.x * blockDim.x;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += step) {
        Place here = place_of(i, num_packs, rows, columns, height * width);
        int row = here.row * stride_h - pad_h + winners[i] / kernel_w;
        int column = here.column * stride_w - pad_w + winners[i] % kernel_w;
        bool is_inside = row >= 0 && row < height && column >= 0 && column < width;
        mask[i] = is_inside ? (float)(row * width + column) : -1.0f;
    }
}

// count: of x_diff; each value gathers from the windows that see it.
extern "C" __global__ void max_pool_backward(const VALUE *y_diff, const WINNER *winners, VALUE *x_diff, SIZES) {
    int step = gridDim.x * blockDim.x;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += step) {
        Place here = place_of(i, num_packs, height, width, rows * columns);
        int down = here.row + pad_h, right = here.column + pad_w;
        int last_p = min(down / stride_h, rows - 1), last_q = min(right / stride_w, columns - 1);
        float sums[PACK];
        for (int k = 0; k < PACK; ++k) sums[k] = 0;
        for (int p = first_window(down, kernel_h, stride_h); p <= last_p; ++p)
            for (int q = first_window(right, kernel_w, stride_w); q <= last_q; ++q) {
                int window = at(here, num_packs, columns, p, q);
                int tap = (down - p * stride_h) * kernel_w + right - q * stride_w;
                Winners winner = ((const Winners *)winners)[window];
                Values gradient = read(y_diff, window);
                for (int k = 0; k < PACK; ++k)
                    if (winner.values[k] == tap) sums[k] += load(gradient.values[k]);
            }
        Values found;
        for (int k = 0; k < PACK; ++k) store(found.values[k], sums[k]);
        ((Values *)x_diff)[i] = found;
    }
}

extern "C" __global__ void average_pool(const VALUE *x, VALUE *y, SIZES) {
    int step = gridDim.x * blockDim.x;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += step) {
        Place here = place_of(i, num_packs, rows, columns, height * width);
        int top = here.row * stride_h - pad_h, left = here.column * stride_w - pad_w;
        int size = clipped(top, kernel_h, height + pad_h) * clipped(left, kernel_w, width + pad_w);
        float sums[PACK];
        for (int k = 0; k < PACK; ++k) sums[k] = 0;
        for (int row = max(top, 0); row < min(top + kernel_h, height); ++row)
            for (int column = max(left, 0); column < min(left + kernel_w, width); ++column) {
                Values seen = read(x, at(here, num_packs, width, row, column));
                for (int k = 0; k < PACK; ++k) sums[k] += load(seen.values[k]);
            }
        Values found;
        for (int k = 0; k < PACK; ++k) store(found.values[k], sums[k] / size);
        ((Values *)y)[i] = found;
    }
}

extern "C" __global__ void average_pool_backward(const VALUE *y_diff, VALUE *x_diff, SIZES) {
    int step = gridDim.x * blockDim.x;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += step) {
        Place here = place_of(i, num_packs, height, width, rows * columns);
        int down = here.row + pad_h, right = here.column + pad_w;
        int last_p = min(down / stride_h, rows - 1), last_q = min(right / stride_w, columns - 1);
        float sums[PACK];
        for (int k = 0; k < PACK; ++k) sums[k] = 0;
        for (int p = first_window(down, kernel_h, stride_h); p <= last_p; ++p)
            for (int q = first_window(right, kernel_w, stride_w); q <= last_q; ++q) {
                int size = clipped(p * stride_h - pad_h, kernel_h, height + pad_h) *
                           clipped(q * stride_w - pad_w, kernel_w, width + pad_w);
                Values gradient = read(y_diff, at(here, num_packs, columns, p, q));
                for (int k = 0; k < PACK; ++k) sums[k] += load(gradient.values[k]) / size;
            }
        Values found;
        for (int k = 0; k < PACK; ++k) store(found.values[k], sums[k]);
        ((Values *)x_diff)[i] = found;
    }
}
