// What cuDNN keeps of a batch's statistics, each channel's mean and 1 / sqrt(variance + eps), as mean and variance.

extern "C" __global__ void statistics(const float *means, const float *inverses, float *mean, float *variance, int count,
                                      double eps) {
    int step = gridDim.x * blockDim.x;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += step) {
        double found = 1.0 / ((double)inverses[i] * inverses[i]) - eps;
        mean[i] = means[i];
        variance[i] = (float)(found < 0 ? 0 : found);
    }
}
