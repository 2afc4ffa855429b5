// What must be known of all gradients before an update: their norm, for clipping, and whether they are finite, for the
// loss scale of float16. The host need not know; update.cu reads `control`.

enum Control { MULTIPLIER, IS_SKIPPED, LOSS_SCALE, NUM_GOOD, NORM, NUM_SKIPPED };  // as in gradient_control.py

const int NUM_THREADS = 256;  // of a block

// Return the sum over the threads of a block to the first one; always in the same order.
static __device__ double sum_of_block(double mine) {
    __shared__ double sums[NUM_THREADS];
    sums[threadIdx.x] = mine;
    __syncthreads();
    for (int half = NUM_THREADS / 2; half; half /= 2) {
        if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
        __syncthreads();
    }
    return sums[0];
}

// sums: for each block what the squares of its part add up to; double holds those of all floats.
extern "C" __global__ void square_sums(const float4 *diff, long long count, double *sums) {
    double sum = 0;
    long long step = (long long)gridDim.x * blockDim.x;
    for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += step) {
        float4 g = diff[i];
        sum += (double)g.x * g.x + (double)g.y * g.y + (double)g.z * g.z + (double)g.w * g.w;
    }
    sum = sum_of_block(sum);
    if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

// One block. scale: what makes the diffs means; limit: of their norm, below 0: none. growth_interval: after so many
// finite gradients the loss scale is doubled, 0: it stays. It is halved, and the update left out, for others.
// non_finite: if not 0, the loss itself is not finite, by which it was not multiplied: the update is left out whatever
// its gradients are, and nothing changes here.
extern "C" __global__ void settle(
    const double *sums, int num_sums, double scale, double limit, int growth_interval, const float *non_finite,
    float *control) {
    double sum = 0;
    for (int i = threadIdx.x; i < num_sums; i += NUM_THREADS) sum += sums[i];
    sum = sum_of_block(sum);
    if (threadIdx.x != 0 || non_finite[0] != 0) return;
    double loss_scale = control[LOSS_SCALE];
    double norm = sqrt(sum) * scale / loss_scale;
    bool is_finite = sum - sum == 0, is_dynamic = growth_interval > 0;
    control[NORM] = (float)norm;
    control[MULTIPLIER] = (float)((limit >= 0 && norm > limit ? limit / norm : 1.0) / loss_scale);
    control[IS_SKIPPED] = is_dynamic && !is_finite;
    if (!is_dynamic) return;
    if (!is_finite) control[NUM_SKIPPED] += 1;
    float num_good = is_finite ? control[NUM_GOOD] + 1 : 0;
    if (!is_finite && loss_scale > 1) control[LOSS_SCALE] = (float)(loss_scale / 2);
    if (num_good >= growth_interval) {
        if (loss_scale < 0x1p24) control[LOSS_SCALE] = (float)(loss_scale * 2);
        num_good = 0;
    }
    control[NUM_GOOD] = num_good;
}
