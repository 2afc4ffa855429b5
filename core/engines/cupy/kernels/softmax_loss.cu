// The multinomial logistic loss of probabilities p (outer, classes, inner) with labels (outer, inner). VALUE: float or
// double; sums are double.

const int NUM_THREADS = 256;  // of a block

// Return a label as a whole number; what is none, or too large for one, is no class.
static __device__ int label_at(const VALUE *labels, long long place) {
    VALUE label = labels[place];
    return label > -2147483648.0 && label < 2147483648.0 ? (int)label : -2147483647 - 1;
}

// A NaN stays one.
static __device__ double log_of(VALUE p, double smallest) { return log(p < smallest ? smallest : (double)p); }

// sums: for each block what its places cost, and then for each how many of them count. A label that is no class costs
// NaN. smallest: what a smaller probability is taken for.
extern "C" __global__ void place_losses(
    const VALUE *p, const VALUE *labels, long long count, long long num_inner, int num_classes, int has_ignored,
    int ignored, double smoothing, double smallest, double *sums) {
    __shared__ double costs[NUM_THREADS], numbers[NUM_THREADS];
    double cost = 0, number = 0;
    long long step = (long long)gridDim.x * blockDim.x;
    for (long long place = (long long)blockIdx.x * blockDim.x + threadIdx.x; place < count; place += step) {
        int label = label_at(labels, place);
        if (has_ignored && label == ignored) continue;
        number += 1;
        if (label < 0 || label >= num_classes) {
            cost = nan("");
            continue;
        }
        const VALUE *first = p + place / num_inner * num_classes * num_inner + place % num_inner;
        double of_label = log_of(first[label * num_inner], smallest), of_all = 0;
        if (smoothing)
            for (int c = 0; c < num_classes; ++c) of_all += log_of(first[c * num_inner], smallest);
        cost -= (1 - smoothing) * of_label + smoothing * of_all / num_classes;
    }
    costs[threadIdx.x] = cost;
    numbers[threadIdx.x] = number;
    __syncthreads();
    for (int half = NUM_THREADS / 2; half; half /= 2) {
        if (threadIdx.x < half) {
            costs[threadIdx.x] += costs[threadIdx.x + half];
            numbers[threadIdx.x] += numbers[threadIdx.x + half];
        }
        __syncthreads();
    }
    if (threadIdx.x == 0) {
        sums[blockIdx.x] = costs[0];
        sums[gridDim.x + blockIdx.x] = numbers[0];
    }
}

// One thread. divisor: of the loss, 0: how many places count, at least 1. used: the divisor, for the gradient.
extern "C" __global__ void settle_loss(const double *sums, int num_sums, double divisor, VALUE *loss, double *used) {
    double cost = 0, number = 0;
    for (int i = 0; i < num_sums; ++i) {
        cost += sums[i];
        number += sums[num_sums + i];
    }
    used[0] = divisor ? divisor : number > 1 ? number : 1;
    loss[0] = (VALUE)(cost / used[0]);
}

// count: of the probabilities. Where the label is ignored the gradient is 0.
extern "C" __global__ void loss_gradient(
    const VALUE *p, const VALUE *labels, long long count, long long num_inner, int num_classes, int has_ignored,
    int ignored, double smoothing, double weight, const double *divisor, VALUE *gradient) {
    double scale = weight / divisor[0], of_others = smoothing / num_classes;
    long long step = (long long)gridDim.x * blockDim.x;
    for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += step) {
        long long outer_and_class = i / num_inner;
        int label = label_at(labels, outer_and_class / num_classes * num_inner + i % num_inner);
        double wanted = of_others + (outer_and_class % num_classes == label ? 1 - smoothing : 0);
        gradient[i] = has_ignored && label == ignored ? (VALUE)0 : (VALUE)((p[i] - wanted) * scale);
    }
}
