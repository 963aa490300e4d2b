/*
 * Decodes a DF11 model with every thread there is, says how fast, and compares each tensor with the original.
 *
 *     decompress MODEL [ORIGINAL]
 *
 * MODEL is a folder or a .safetensors file; ORIGINAL, where it is given, holds the tensors as they were before
 * compression. The same program stands beside this one in Rust.
 *
 *     cc -O2 -o decompress examples/decompress.c -Iinclude -Ltarget/release -ldf11 -Wl,-rpath,$PWD/target/release
 */
#define _POSIX_C_SOURCE 200809L
#include "df11.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

/* Decodes every group into one buffer, again and again for a quarter of a second, and prints the speed. */
static int measure(const df11_model *model, uint32_t threads)
{
    df11_error error;
    uint64_t groups = df11_model_group_count(model), weights = 0, packed = 0, largest = 0;
    for (uint64_t g = 0; g < groups; g++) {
        df11_group_info info = DF11_GROUP_INFO_INIT;
        if (df11_model_group_info(model, g, &info, &error) != DF11_OK) {
            fprintf(stderr, "decompress: %s\n", error.message);
            return 1;
        }
        weights += info.element_count;
        packed += info.packed_bytes;
        if (info.element_count > largest)
            largest = info.element_count;
    }
    if (weights == 0) {
        printf("no compressed groups\n");
        return 0;
    }
    printf("%" PRIu64 " groups, %" PRIu64 " weights, %" PRIu64 " bytes instead of %" PRIu64 ": %.3f bits per weight\n",
           groups, weights, packed, 2 * weights, 8.0 * (double)packed / (double)weights);

    /* One buffer serves all groups, as an engine's does that decodes each layer just before it is used. */
    size_t bytes = 2 * (size_t)largest;
    void *buffer = malloc(bytes);
    if (buffer == NULL) {
        fprintf(stderr, "decompress: no memory for %zu bytes\n", bytes);
        return 1;
    }
    double start = seconds(), elapsed;
    unsigned rounds = 0;
    do {
        for (uint64_t g = 0; g < groups; g++) {
            df11_group_info info = DF11_GROUP_INFO_INIT;
            if (df11_model_group_info(model, g, &info, &error) != DF11_OK ||
                df11_decompress_host(model, g, 0, info.element_count, buffer, bytes, threads, &error) != DF11_OK) {
                fprintf(stderr, "decompress: %s\n", error.message);
                free(buffer);
                return 1;
            }
        }
        rounds++;
        elapsed = seconds() - start;
    } while (elapsed < 0.25);
    printf("decoded %u times on the CPU with up to %" PRIu32 " thread(s): %.2f GB/s of bf16\n", rounds, threads,
           2.0 * (double)weights * rounds / elapsed * 1e-9);
    free(buffer);
    return 0;
}

/* Reads a whole tensor; NULL after an error, which is printed. */
static void *read_tensor(const df11_model *model, uint64_t tensor, uint32_t threads, df11_tensor_info *info)
{
    df11_error error;
    void *values = NULL;
    if (df11_model_tensor_info(model, tensor, info, &error) == DF11_OK) {
        values = malloc(info->bytes ? (size_t)info->bytes : 1);
        if (values == NULL) {
            fprintf(stderr, "decompress: no memory for %" PRIu64 " bytes\n", info->bytes);
            return NULL;
        }
        if (df11_tensor_read(model, tensor, 0, values, (size_t)info->bytes, threads, &error) == DF11_OK)
            return values;
        free(values);
    }
    fprintf(stderr, "decompress: %s\n", error.message);
    return NULL;
}

/* Compares every tensor of the model with the one of that name in the original. */
static int compare(const df11_model *model, const df11_model *original, uint32_t threads)
{
    uint64_t count = df11_model_tensor_count(model), same = 0;
    for (uint64_t t = 0; t < count; t++) {
        df11_tensor_info ours = DF11_TENSOR_INFO_INIT, theirs = DF11_TENSOR_INFO_INIT;
        df11_error error;
        uint64_t other;
        void *got = read_tensor(model, t, threads, &ours), *want = NULL;
        if (got == NULL)
            return 1;
        if (df11_model_find_tensor(original, ours.name, &other, &error) != DF11_OK)
            fprintf(stderr, "decompress: %s\n", error.message);
        else if ((want = read_tensor(original, other, threads, &theirs)) != NULL) {
            if (ours.bytes == theirs.bytes && memcmp(got, want, (size_t)ours.bytes) == 0)
                same++;
            else
                fprintf(stderr, "decompress: '%s' differs from the original\n", ours.name);
        }
        free(got);
        free(want);
    }
    printf("%" PRIu64 " of %" PRIu64 " tensors equal the original, bit for bit\n", same, count);
    return same == count ? 0 : 1;
}

int main(int argc, char **argv)
{
    df11_error error;
    df11_model *model = NULL, *original = NULL;
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    uint32_t threads = cores > 0 ? (uint32_t)cores : 1;
    int result = 1;

    if (argc < 2 || argc > 3) {
        fprintf(stderr, "usage: decompress MODEL [ORIGINAL]\n");
        return 2;
    }
    if (df11_model_open(argv[1], NULL, &model, &error) != DF11_OK ||
        (argc == 3 && df11_model_open(argv[2], NULL, &original, &error) != DF11_OK)) {
        fprintf(stderr, "decompress: %s\n", error.message);
    } else {
        printf("libdf11 %s, %s\n", df11_version_string(), argv[1]);
        result = measure(model, threads);
        if (result == 0 && original != NULL)
            result = compare(model, original, threads);
    }
    df11_model_free(original);
    df11_model_free(model);
    return result;
}
