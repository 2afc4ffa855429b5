// Sums of rows that have the same index, in the order of the rows. VALUE: float or double.

// next: for each row the next one of its index, or -1. is_first: whether there is none before it.
extern "C" __global__ void link_rows(const long long *indices, int count, int *next, unsigned char *is_first) {
    int step = gridDim.x * blockDim.x;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += step) {
        long long index = indices[i];
        int before = 0, behind = i + 1;
        while (before < i && indices[before] != index) ++before;
        while (behind < count && indices[behind] != index) ++behind;
        is_first[i] = before == i;
        next[i] = behind < count ? behind : -1;
    }
}

// rows: (count / width, width); target: (…, width). count: of all values.
extern "C" __global__ void add_rows(
    const long long *indices, const int *next, const unsigned char *is_first, const VALUE *rows, long long count,
    long long width, VALUE *target) {
    long long step = (long long)gridDim.x * blockDim.x;
    for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += step) {
        int first = (int)(i / width);
        if (!is_first[first]) continue;
        VALUE sum = 0;
        for (int row = first; row >= 0; row = next[row]) sum += rows[row * width + i % width];
        target[indices[first] * width + i % width] += sum;
    }
}
