/*
 * Multiplies a matrix of a DF11 model with a vector on the CPU, in the form of df11_matrix and as plain bf16. Prints how
 * fast both are, and compares their sums bit for bit.
 *
 *     multiply MODEL [TENSOR]
 *
 * TENSOR is the name of a bf16 tensor; without it the largest one is taken. A token of a language model needs every matrix
 * of the model once, and they do not fit into the caches. Here many copies of the one matrix stand for them.
 *
 *     cc -O2 -o multiply examples/multiply.c -Iinclude -Ltarget/release -ldf11 -Wl,-rpath,$PWD/target/release
 */
#define _POSIX_C_SOURCE 200809L
#include "df11.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#endif

/* Bytes of bf16 that no cache holds, or hardly any. */
#define BEYOND_CACHES ((uint64_t)512 << 20)

static df11_error error;

static void check(df11_status status)
{
    if (status != DF11_OK) {
        fprintf(stderr, "multiply: %s\n", error.message);
        exit(1);
    }
}

static void *memory(uint64_t count)
{
    void *bytes = aligned_alloc(DF11_MATRIX_ALIGNMENT, (count + 63) / 64 * 64);
    if (bytes == NULL) {
        fprintf(stderr, "multiply: no memory for %.0f MB\n", (double)count * 1e-6);
        exit(1);
    }
    return bytes;
}

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

/* A product of plain bf16, and the order of its sums. n is a multiple of 64. */
typedef struct {
    const char *name;
    uint32_t order;
    float (*dot)(const uint16_t *w, const uint16_t *x, size_t n);
} plain_product;

#if defined(__x86_64__) && defined(__GNUC__)
/* Adds up 16 sums as the order says: the second half to the first, until one is left. */
static float halved(float *sums, int count)
{
    for (int half = count / 2; half > 0; half /= 2)
        for (int j = 0; j < half; j++)
            sums[j] += sums[j + half];
    return sums[0];
}

__attribute__((target("avx2,fma"))) static float dot_avx2(const uint16_t *w, const uint16_t *x, size_t n)
{
    float sums[32];
    __m256 s0 = _mm256_setzero_ps(), s1 = s0, s2 = s0, s3 = s0;
#define WIDE(at) \
    _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(at))), 16))
    for (size_t k = 0; k < n; k += 32) {
        s0 = _mm256_fmadd_ps(WIDE(w + k), WIDE(x + k), s0);
        s1 = _mm256_fmadd_ps(WIDE(w + k + 8), WIDE(x + k + 8), s1);
        s2 = _mm256_fmadd_ps(WIDE(w + k + 16), WIDE(x + k + 16), s2);
        s3 = _mm256_fmadd_ps(WIDE(w + k + 24), WIDE(x + k + 24), s3);
    }
#undef WIDE
    _mm256_storeu_ps(sums, s0);
    _mm256_storeu_ps(sums + 8, s1);
    _mm256_storeu_ps(sums + 16, s2);
    _mm256_storeu_ps(sums + 24, s3);
    return halved(sums, 32);
}

__attribute__((target("avx512f,avx512bf16"))) static float dot_avx512_bf16(const uint16_t *w, const uint16_t *x, size_t n)
{
    float sums[32];
    __m512 s0 = _mm512_setzero_ps(), s1 = s0;
#define LOAD(at) (__m512bh)_mm512_loadu_si512(at)
    for (size_t k = 0; k < n; k += 64) {
        s0 = _mm512_dpbf16_ps(s0, LOAD(w + k), LOAD(x + k));
        s1 = _mm512_dpbf16_ps(s1, LOAD(w + k + 32), LOAD(x + k + 32));
    }
#undef LOAD
    _mm512_storeu_ps(sums, s0);
    _mm512_storeu_ps(sums + 16, s1);
    return (float)((double)halved(sums, 16) + (double)halved(sums + 16, 16));
}
#endif

/* The fastest product of plain bf16 that this program has for this processor; without a name if there is none. */
static plain_product fastest(void)
{
    plain_product none = {NULL, DF11_ORDER_LANES, NULL};
#if defined(__x86_64__) && defined(__GNUC__)
    plain_product avx512 = {"AVX-512 BF16", DF11_ORDER_GGML_AVX512_BF16, dot_avx512_bf16};
    plain_product avx2 = {"AVX2", DF11_ORDER_GGML_AVX2, dot_avx2};
    if (__builtin_cpu_supports("avx512bf16"))
        return avx512;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return avx2;
#endif
    return none;
}

/* The largest bf16 tensor with two dimensions, the last one a multiple of 64. */
static uint64_t largest(const df11_model *model)
{
    uint64_t best = DF11_NO_TENSOR, most = 0;
    for (uint64_t t = 0; t < df11_model_tensor_count(model); t++) {
        df11_tensor_info info = DF11_TENSOR_INFO_INIT;
        check(df11_model_get_tensor_info(model, t, &info, &error));
        if (info.dtype == DF11_DTYPE_BF16 && info.rank == 2 && info.shape[1] % 64 == 0 && info.data_bytes > most) {
            best = t;
            most = info.data_bytes;
        }
    }
    if (best == DF11_NO_TENSOR) {
        fprintf(stderr, "multiply: the model has no bf16 matrix whose columns are known and a multiple of 64\n");
        exit(1);
    }
    return best;
}

int main(int argc, char **argv)
{
    df11_model *model;
    df11_tensor_info info = DF11_TENSOR_INFO_INIT;
    uint64_t tensor;
    if (argc != 2 && argc != 3) {
        fprintf(stderr, "usage: multiply MODEL [TENSOR]\n");
        return 2;
    }
    check(df11_model_open(argv[1], NULL, &model, &error));
    if (argc == 3)
        check(df11_model_find_tensor(model, argv[2], &tensor, &error));
    else
        tensor = largest(model);
    check(df11_model_get_tensor_info(model, tensor, &info, &error));
    if (info.rank < 2 || info.shape[info.rank - 1] % 64 != 0) {
        fprintf(stderr, "multiply: the columns of %s are not known, or no multiple of 64\n", info.name);
        return 1;
    }
    uint64_t columns = info.shape[info.rank - 1], count = info.data_bytes / 2, rows = count / columns;
    uint64_t copies = BEYOND_CACHES / info.data_bytes + 1, room, matrix_bytes;

    /* The matrix goes from the compressed tensor to its own form: its bf16 weights are never all in memory. */
    check(df11_matrix_bound(rows, columns, &room, &error));
    char *made = memory(room);
    check(df11_model_write_matrix(model, tensor, columns, 0, rows, made, room, 1, NULL, &matrix_bytes, &error));
    /* It may be copied, kept and mapped: it holds no address. */
    char *matrices = memory(copies * matrix_bytes);
    df11_matrix **bound = memory(copies * sizeof *bound);
    for (uint64_t i = 0; i < copies; i++) {
        memcpy(matrices + i * matrix_bytes, made, matrix_bytes);
        check(df11_matrix_bind(matrices + i * matrix_bytes, matrix_bytes, &bound[i], &error));
    }
    free(made);

    /* The same as plain bf16. */
    uint16_t *weights = memory(copies * info.data_bytes), *x = memory(2 * columns);
    check(df11_model_read_tensor(model, tensor, 0, weights, info.data_bytes, 1, &error));
    for (uint64_t i = 1; i < copies; i++)
        memcpy(weights + i * count, weights, info.data_bytes);
    for (uint64_t k = 0; k < columns; k++)
        x[k] = (uint16_t)(0x3f00 + k * 37 % 256 + (k % 3 == 0 ? 0x8000 : 0));
    float *y = memory(rows * sizeof *y), *plain_y = memory(rows * sizeof *y);

    plain_product plain = fastest();
    double matrix_time = 1e30, plain_time = 1e30;
    for (int round = 0; round < 5; round++) {
        double start = seconds();
        for (uint64_t i = 0; i < copies; i++)
            check(df11_matrix_multiply(bound[i], 0, rows, x, DF11_DTYPE_BF16, 0, 1, plain.order, y, 0, &error));
        double time = (seconds() - start) / (double)copies;
        if (time < matrix_time)
            matrix_time = time;
        if (plain.name == NULL)
            continue;
        start = seconds();
        for (uint64_t i = 0; i < copies; i++)
            for (uint64_t r = 0; r < rows; r++)
                plain_y[r] = plain.dot(weights + i * count + r * columns, x, columns);
        time = (seconds() - start) / (double)copies;
        if (time < plain_time)
            plain_time = time;
    }
    double gigabytes = (double)info.data_bytes * 1e-9, bits = 8.0 * (double)matrix_bytes / (double)count;
    printf("matrix x vector, one thread: %.1f GB/s of bf16 from %.2f bits a weight", gigabytes / matrix_time, bits);
    int equal = 1;
    if (plain.name != NULL) {
        equal = memcmp(y, plain_y, rows * sizeof *y) == 0;
        printf("; plain bf16 (%s) %.1f GB/s, so %.2f times as fast; %s", plain.name, gigabytes / plain_time,
               plain_time / matrix_time, equal ? "the same sums, bit for bit" : "OTHER SUMS");
    }
    printf("\n");
    for (uint64_t i = 0; i < copies; i++)
        df11_matrix_free(bound[i]);
    free(bound);
    free(matrices);
    free(weights);
    free(x);
    free(y);
    free(plain_y);
    df11_model_free(model);
    return equal ? 0 : 1;
}
