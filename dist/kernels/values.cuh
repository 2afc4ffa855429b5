// The types of values. Those of 16 bits are turned into float and back by integers, so that no header of CUDA's is
// needed, which not every installation of cupy has, and so that every compiler rounds alike: to nearest, ties to even.
// No float below 2^-126 is computed with: cupy has them flushed to 0.

struct Half {
    unsigned short bits;
};

struct Bfloat16 {
    unsigned short bits;
};

inline __device__ float load(float value) { return value; }

inline __device__ double load(double value) { return value; }

inline __device__ float load(Bfloat16 value) { return __uint_as_float((unsigned)value.bits << 16); }

inline __device__ float load(Half value) {
    unsigned sign = (value.bits & 0x8000u) << 16, size = value.bits & 0x7fffu;
    if (size >= 0x7c00u) return __uint_as_float(sign | 0x7f800000u | size << 13);  // infinite or NaN
    if (size >= 0x0400u) return __uint_as_float(sign | (size << 13) + 0x38000000u);  // the biases' difference
    return __uint_as_float(sign | __float_as_uint((float)size * 0x1p-24f));
}

inline __device__ void store(float &target, float value) { target = value; }

inline __device__ void store(double &target, double value) { target = value; }

inline __device__ void store(Bfloat16 &target, float value) {
    unsigned bits = __float_as_uint(value);
    bool is_nan = (bits & 0x7fffffffu) > 0x7f800000u;
    target.bits = (unsigned short)(is_nan ? bits >> 16 | 0x40u : (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

inline __device__ void store(Half &target, float value) {
    unsigned bits = __float_as_uint(value), size = bits & 0x7fffffffu, rounded;
    if (size > 0x7f800000u)  // NaN
        rounded = 0x7e00u | (size >> 13 & 0x3ffu);
    else if (size >= 0x477ff000u)  // 65520 and more: infinite
        rounded = 0x7c00u;
    else if (size < 0x38800000u)  // below 2^-14: multiples of 2^-24, to which a sum of at least 0.5 is rounded
        rounded = __float_as_uint(__uint_as_float(size) + 0.5f) - 0x3f000000u;
    else
        rounded = (size + 0xfffu + (size >> 13 & 1u) - 0x38000000u) >> 13;
    target.bits = (unsigned short)(bits >> 16 & 0x8000u | rounded);
}
