// Values from one type to another, in the same order or with rows and columns of each matrix exchanged: (N, C, S) to
// (N, S, C) and back.
#include "values.cuh"

extern "C" __global__ void cast(const FROM *x, TO *y, long long count) {
    long long step = (long long)gridDim.x * blockDim.x;
    for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += step) store(y[i], load(x[i]));
}

// x: (num_matrices, num_rows, num_columns), y: (num_matrices, num_columns, num_rows). Blocks of 32 x 8 threads have a
// tile of 32 x 32; a row of the tile is one value longer, so that a column of it lies in as many banks.
extern "C" __global__ void transpose(const FROM *x, TO *y, int num_matrices, int num_rows, int num_columns) {
    __shared__ float tile[32][33];
    for (int matrix = blockIdx.z; matrix < num_matrices; matrix += gridDim.z) {
        long long base = (long long)matrix * num_rows * num_columns;
        int row = blockIdx.y * 32 + threadIdx.y, column = blockIdx.x * 32 + threadIdx.x;
        for (int k = 0; k < 32; k += 8)
            if (row + k < num_rows && column < num_columns)
                tile[threadIdx.y + k][threadIdx.x] = load(x[base + (long long)(row + k) * num_columns + column]);
        __syncthreads();
        row = blockIdx.y * 32 + threadIdx.x;
        column = blockIdx.x * 32 + threadIdx.y;
        for (int k = 0; k < 32; k += 8)
            if (row < num_rows && column + k < num_columns)
                store(y[base + (long long)(column + k) * num_rows + row], tile[threadIdx.x][threadIdx.y + k]);
        __syncthreads();
    }
}
