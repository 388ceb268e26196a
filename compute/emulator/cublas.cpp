// Matrix products in the place of cuBLAS: plain loops over k, rounded at every step, column-major.
//
// Products are handed to the stream of the handle, so that they are captured like kernels. Sums are
// formed in f32, or in f64 for f64, in the order of k; real libraries promise no order.
#include <math.h>

#include "driver.h"

namespace {

enum Status { SUCCESS = 0, NOT_INITIALIZED = 1, INVALID_VALUE = 7, EXECUTION_FAILED = 13, NOT_SUPPORTED = 15 };
enum Type { F32 = 0, F64 = 1, F16 = 2, BF16 = 14 };
constexpr int COMPUTE_F32 = 68, COMPUTE_F32_PEDANTIC = 69, COMPUTE_F64 = 70, COMPUTE_F64_PEDANTIC = 71;

struct Handle {
    void *stream = nullptr;
};

float of_half(uint16_t half) {
    unsigned exponent = half >> 10 & 31, fraction = half & 1023;
    float size = exponent == 0 ? ldexpf(static_cast<float>(fraction), -24)
        : exponent < 31 ? ldexpf(static_cast<float>(fraction + 1024), static_cast<int>(exponent) - 25)
        : fraction == 0 ? INFINITY : NAN;
    return half >> 15 ? -size : size;
}

// To nearest, ties to even: what is less than 2^-14 has the distance of subnormal numbers, 2^-24.
uint16_t to_half(float value) {
    unsigned sign = signbit(value) ? 0x8000 : 0;
    float size = fabsf(value);
    if (isnan(size)) return static_cast<uint16_t>(sign | 0x7e00);
    if (size >= 65520.0f) return static_cast<uint16_t>(sign | 0x7c00);
    int exponent = size < 0x1p-14f ? -14 : ilogbf(size);
    unsigned units = static_cast<unsigned>(rintf(ldexpf(size, 10 - exponent)));
    return static_cast<uint16_t>(sign + (static_cast<unsigned>(exponent + 14) << 10) + units);
}

float of_bfloat(uint16_t value) { return emulator::bits<float>(static_cast<uint32_t>(value) << 16); }

uint16_t to_bfloat(float value) {
    uint32_t raw = emulator::bits<uint32_t>(value);
    if (isnan(value)) return static_cast<uint16_t>(raw >> 16 | 0x40);
    return static_cast<uint16_t>((raw + 0x7fff + (raw >> 16 & 1)) >> 16);
}

size_t bytes_of(int type) { return type == F64 ? 8 : type == F32 ? 4 : 2; }

template <typename Sum>
Sum load(const char *base, int type, long long at) {
    const char *from = base + at * static_cast<long long>(bytes_of(type));
    uint16_t half;
    float single;
    double wide;
    switch (type) {
        case F64: memcpy(&wide, from, 8); return static_cast<Sum>(wide);
        case F32: memcpy(&single, from, 4); return static_cast<Sum>(single);
        default: memcpy(&half, from, 2); return static_cast<Sum>(type == F16 ? of_half(half) : of_bfloat(half));
    }
}

template <typename Sum>
void store(char *base, int type, long long at, Sum value) {
    char *to = base + at * static_cast<long long>(bytes_of(type));
    float single = static_cast<float>(value);
    double wide = static_cast<double>(value);
    uint16_t half = type == F16 ? to_half(single) : to_bfloat(single);
    memcpy(to, type == F64 ? static_cast<void *>(&wide) : type == F32 ? static_cast<void *>(&single) : &half,
           bytes_of(type));
}

struct Matrix {
    char *data;
    int type, rows_apart;  // the distance of two columns, in elements
    long long batch_apart;
    bool transposed;

    long long at(long long batch, long long row, long long column) const {
        return batch * batch_apart + (transposed ? row * rows_apart + column : column * rows_apart + row);
    }
    // Whether columns are at least as far apart as they are long.
    bool fits(int rows, int columns) const { return rows_apart >= (transposed ? columns : rows) && rows_apart > 0; }
};

// C = alpha A B + beta C, where A is m by k once transposed, B k by n and C m by n.
template <typename Sum>
void multiply(int m, int n, int k, Sum alpha, const Matrix &a, const Matrix &b, Sum beta, const Matrix &c,
              int batches) {
    for (int batch = 0; batch < batches; batch++) {
        for (int column = 0; column < n; column++) {
            for (int row = 0; row < m; row++) {
                Sum sum = 0;
                for (int i = 0; i < k; i++) {
                    sum += load<Sum>(a.data, a.type, a.at(batch, row, i))
                        * load<Sum>(b.data, b.type, b.at(batch, i, column));
                }
                Sum before = beta == 0 ? 0 : beta * load<Sum>(c.data, c.type, c.at(batch, row, column));
                store<Sum>(c.data, c.type, c.at(batch, row, column), alpha * sum + before);
            }
        }
    }
}

template <typename Sum>
Status run(Handle *handle, int m, int n, int k, const Sum *alpha, Matrix a, Matrix b, const Sum *beta, Matrix c,
           int batches) {
    if (handle == nullptr) return NOT_INITIALIZED;
    if (m < 0 || n < 0 || k < 0 || batches < 0 || alpha == nullptr || beta == nullptr) return INVALID_VALUE;
    if (!a.fits(m, k) || !b.fits(k, n) || !c.fits(m, n)) return INVALID_VALUE;
    CUresult result = emulator::submit(handle->stream, [=, alpha = *alpha, beta = *beta] {
        return emulator::guarded([&] {
            multiply<Sum>(m, n, k, alpha, a, b, beta, c, batches);
            return CUDA_SUCCESS;
        });
    });
    return result == CUDA_SUCCESS ? SUCCESS : EXECUTION_FAILED;
}

Matrix matrix(const void *data, int type, int apart, long long batch_apart, int operation) {
    return {static_cast<char *>(const_cast<void *>(data)), type, apart, batch_apart, operation != 0};
}

Status run_typed(Handle *handle, int m, int n, int k, const void *alpha, const Matrix &a, const Matrix &b,
                 const void *beta, const Matrix &c, int batches, int compute) {
    if (compute == COMPUTE_F64 || compute == COMPUTE_F64_PEDANTIC) {
        if (a.type != F64 || b.type != F64 || c.type != F64) return NOT_SUPPORTED;
        return run(handle, m, n, k, static_cast<const double *>(alpha), a, b, static_cast<const double *>(beta), c,
                   batches);
    }
    bool floats = a.type == b.type && (a.type == F32 || a.type == F16 || a.type == BF16)
        && (c.type == a.type || c.type == F32);
    if ((compute != COMPUTE_F32 && compute != COMPUTE_F32_PEDANTIC) || !floats) return NOT_SUPPORTED;
    return run(handle, m, n, k, static_cast<const float *>(alpha), a, b, static_cast<const float *>(beta), c, batches);
}

}  // namespace

#define CUBLAS extern "C" EMULATOR_API int

CUBLAS cublasCreate_v2(Handle **handle) {
    *handle = new Handle;
    return SUCCESS;
}
CUBLAS cublasDestroy_v2(Handle *handle) {
    delete handle;
    return SUCCESS;
}
CUBLAS cublasSetStream_v2(Handle *handle, void *stream) {
    handle->stream = stream;
    return SUCCESS;
}
CUBLAS cublasGetVersion_v2(Handle *, int *version) {
    *version = 120103;
    return SUCCESS;
}
CUBLAS cublasSetMathMode(Handle *, int) { return SUCCESS; }
CUBLAS cublasSetWorkspace_v2(Handle *, void *, size_t) { return SUCCESS; }
// Only numbers of the host are taken.
CUBLAS cublasSetPointerMode_v2(Handle *, int mode) { return mode == 0 ? SUCCESS : NOT_SUPPORTED; }
CUBLAS cublasGetPointerMode_v2(Handle *, int *mode) {
    *mode = 0;
    return SUCCESS;
}

CUBLAS cublasSgemm_v2(Handle *handle, int ta, int tb, int m, int n, int k, const float *alpha, const float *a,
                      int lda, const float *b, int ldb, const float *beta, float *c, int ldc) {
    return run(handle, m, n, k, alpha, matrix(a, F32, lda, 0, ta), matrix(b, F32, ldb, 0, tb), beta,
               matrix(c, F32, ldc, 0, 0), 1);
}
CUBLAS cublasDgemm_v2(Handle *handle, int ta, int tb, int m, int n, int k, const double *alpha, const double *a,
                      int lda, const double *b, int ldb, const double *beta, double *c, int ldc) {
    return run(handle, m, n, k, alpha, matrix(a, F64, lda, 0, ta), matrix(b, F64, ldb, 0, tb), beta,
               matrix(c, F64, ldc, 0, 0), 1);
}
CUBLAS cublasSgemmStridedBatched(Handle *handle, int ta, int tb, int m, int n, int k, const float *alpha,
                                 const float *a, int lda, long long sa, const float *b, int ldb, long long sb,
                                 const float *beta, float *c, int ldc, long long sc, int batches) {
    return run(handle, m, n, k, alpha, matrix(a, F32, lda, sa, ta), matrix(b, F32, ldb, sb, tb), beta,
               matrix(c, F32, ldc, sc, 0), batches);
}
CUBLAS cublasDgemmStridedBatched(Handle *handle, int ta, int tb, int m, int n, int k, const double *alpha,
                                 const double *a, int lda, long long sa, const double *b, int ldb, long long sb,
                                 const double *beta, double *c, int ldc, long long sc, int batches) {
    return run(handle, m, n, k, alpha, matrix(a, F64, lda, sa, ta), matrix(b, F64, ldb, sb, tb), beta,
               matrix(c, F64, ldc, sc, 0), batches);
}
CUBLAS cublasGemmEx(Handle *handle, int ta, int tb, int m, int n, int k, const void *alpha, const void *a, int at,
                    int lda, const void *b, int bt, int ldb, const void *beta, void *c, int ct, int ldc, int compute,
                    int) {
    return run_typed(handle, m, n, k, alpha, matrix(a, at, lda, 0, ta), matrix(b, bt, ldb, 0, tb), beta,
                     matrix(c, ct, ldc, 0, 0), 1, compute);
}
CUBLAS cublasGemmStridedBatchedEx(Handle *handle, int ta, int tb, int m, int n, int k, const void *alpha,
                                  const void *a, int at, int lda, long long sa, const void *b, int bt, int ldb,
                                  long long sb, const void *beta, void *c, int ct, int ldc, long long sc, int batches,
                                  int compute, int) {
    return run_typed(handle, m, n, k, alpha, matrix(a, at, lda, sa, ta), matrix(b, bt, ldb, sb, tb), beta,
                     matrix(c, ct, ldc, sc, 0), batches, compute);
}
