// A batch's statistics entered into running sums, all in the arithmetic of VALUE: float or double.

extern "C" __global__ void running_sums(
    const VALUE *mean, const VALUE *variance, int count, VALUE unbiased, VALUE fraction, VALUE *mean_sum,
    VALUE *variance_sum, VALUE *factor) {
    int step = gridDim.x * blockDim.x, first = blockIdx.x * blockDim.x + threadIdx.x;
    for (int i = first; i < count; i += step) {
        mean_sum[i] = mean_sum[i] * fraction + mean[i];
        variance_sum[i] = variance_sum[i] * fraction + variance[i] * unbiased;
    }
    if (first == 0) factor[0] = factor[0] * fraction + 1;
}
