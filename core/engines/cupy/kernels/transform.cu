// What data/transformer.py does with images of bytes: y = (x - mean) * scale of a window, perhaps flipped, to the last
// bit. A thread has one place of one image, with all channels.
#include "values.cuh"

// images: N of any layout, given by what is between images, channels, rows and columns. windows: row and column of each
// one's upper left corner in the image as it is stored, and 1 where the window is flipped. means: by channel, row and
// column of the image (0: the same for all). y: (N, C, height, width), or (N, height, width, C) if channels_last.
extern "C" __global__ void transform(
    const unsigned char *images, const int *windows, const float *means, VALUE *y, int num_channels, int height,
    int width, long long image_step, int channel_step, int row_step, int column_step, int mean_channel_step,
    int mean_row_step, int mean_column_step, float scale, int channels_last) {
    int place = blockIdx.x * blockDim.x + threadIdx.x, image = blockIdx.y, size = height * width;
    if (place >= size) return;
    const int *window = windows + 3 * image;
    int i = place / width, j = place % width;
    int row = window[0] + i, column = window[1] + (window[2] ? width - 1 - j : j);
    const unsigned char *from = images + image * image_step + (long long)row * row_step + column * column_step;
    const float *mean = means + row * mean_row_step + column * mean_column_step;
    VALUE *to = y + (long long)image * num_channels * size + (channels_last ? place * num_channels : place);
    for (int channel = 0; channel < num_channels; ++channel) {
        float value = (float)from[(long long)channel * channel_step] - mean[channel * mean_channel_step];
        store(to[channels_last ? channel : channel * size], value * scale);
    }
}
