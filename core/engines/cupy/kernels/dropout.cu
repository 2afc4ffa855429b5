// Dropout with the mask that numpy's Generator(Philox).random(dtype=float32) >= ratio gives, to the last bit. It is
// drawn again in backward: that costs less than to store it.
#include "values.cuh"

struct Block {
    unsigned long long words[4];
};

// Philox4x64 of ten rounds (Salmon et al., 2011, "Parallel random numbers: as easy as 1, 2, 3").
static __device__ Block draw(Block counter, unsigned long long key0, unsigned long long key1) {
    const unsigned long long MULTIPLIER0 = 0xD2E7470EE14C6C93ull, MULTIPLIER1 = 0xCA5A826395121157ull;
    const unsigned long long WEYL0 = 0x9E3779B97F4A7C15ull, WEYL1 = 0xBB67AE8584CAA73Bull;
    unsigned long long *c = counter.words;
#pragma unroll
    for (int round = 0; round < 10; ++round) {
        unsigned long long high0 = __umul64hi(MULTIPLIER0, c[0]), low0 = MULTIPLIER0 * c[0];
        unsigned long long high1 = __umul64hi(MULTIPLIER1, c[2]), low1 = MULTIPLIER1 * c[2];
        c[0] = high1 ^ c[1] ^ key0;
        c[1] = low1;
        c[2] = high0 ^ c[3] ^ key1;
        c[3] = low0;
        key0 += WEYL0;
        key1 += WEYL1;
    }
    return counter;
}

static __device__ Block advanced(Block counter, unsigned long long blocks) {
    unsigned long long carry = blocks;
    for (int word = 0; word < 4 && carry; ++word) {
        counter.words[word] += carry;
        carry = counter.words[word] < carry;
    }
    return counter;
}

// y = x times scale where numpy's float, (half a word >> 8) * 2^-24, is at least ratio, x times 0 elsewhere. Eight values
// are a block of random bits; numpy counts up before it draws, and takes the low half of a word first. replays: how
// many passes after the one that this was launched for, or captured in; passes count in word 2. y may be x.
extern "C" __global__ void dropout(
    const VALUE *x, VALUE *y, long long count, float ratio, NUMBER scale, unsigned long long key0,
    unsigned long long key1, unsigned long long counter0, unsigned long long counter1, unsigned long long counter2,
    unsigned long long counter3, const unsigned long long *replays) {
    struct alignas(8 * sizeof(VALUE) < 16 ? 8 * sizeof(VALUE) : 16) Values {
        VALUE at[8];
    };
    Block start = {{counter0, counter1, counter2 + replays[0], counter3}};
    bool is_aligned = ((unsigned long long)x | (unsigned long long)y) % alignof(Values) == 0;
    long long step = (long long)gridDim.x * blockDim.x;
    for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; 8 * i < count; i += step) {
        Block random = draw(advanced(start, i + 1), key0, key1);
        const VALUE *from = x + 8 * i;
        VALUE *to = y + 8 * i;
        bool is_whole = is_aligned && 8 * i + 8 <= count;
        int length = 8 * i + 8 <= count ? 8 : (int)(count - 8 * i);
        Values values;
        if (is_whole) values = *(const Values *)from;
#pragma unroll
        for (int j = 0; j < 8; ++j) {
            unsigned half = (unsigned)(random.words[j / 2] >> 32 * (j % 2));
            NUMBER factor = (float)(half >> 8) * 0x1p-24f >= ratio ? scale : (NUMBER)0;
            if (is_whole)
                store(values.at[j], load(values.at[j]) * factor);
            else if (j < length)
                store(to[j], load(from[j]) * factor);
        }
        if (is_whole) *(Values *)to = values;
    }
}
