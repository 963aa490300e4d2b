/*
 * Decodes a DF11 model on a CUDA device if there is one, else on the CPU with all processors. Prints the speed, and
 * compares each tensor with the original.
 *
 *     decompress [--cpu] MODEL [ORIGINAL]
 *
 * MODEL is a folder or a .safetensors file. ORIGINAL contains the tensors before compression. decompress.cc,
 * decompress.go, decompress.py and decompress.rs are the same program in other languages (the last two for the CPU
 * only). slots.cc shows decoding on a device with the CUDA runtime, two streams and a captured graph.
 *
 *     cc -O2 -o decompress examples/decompress.c -Iinclude -Ltarget/release -ldf11 -ldl -Wl,-rpath,$PWD/target/release
 */
#define _POSIX_C_SOURCE 200809L
#include "df11.h"
#include "driver.h"

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

/* The means of decoding: a CUDA device or, without one, threads. */
typedef struct {
    uint32_t threads;
    df11_device *device; /* NULL without one */
    CUdevice cuda_device;
    CUstream stream;
    uint64_t groups;
    CUdeviceptr *images; /* one for each group: compressed, and kept on the device */
    df11_resident **residents;
    CUdeviceptr output; /* one group, decoded */
    CUdeviceptr status; /* a uint32_t that the kernels set if they find an error */
} decoder;

/* Opens the first CUDA device and uploads every group. Returns 0 after an error, which it prints. */
static int device_begin(decoder *d, const df11_model *model)
{
    df11_error error;
    df11_device_info about = DF11_DEVICE_INFO_INIT;
    CUcontext context;
    uint64_t largest = 0, image_bytes = 0;
    int count = 0;
    if (!cuda_load(NULL) || cuDeviceGetCount(&count) != 0 || count == 0)
        return 1;
    /* An engine has made a context already. libdf11 makes none: it uses the device's primary context. */
    CUDA(cuDeviceGet(&d->cuda_device, 0));
    CUDA(cuDevicePrimaryCtxRetain(&context, d->cuda_device));
    CUDA(cuCtxSetCurrent(context));
    CUDA(cuStreamCreate(&d->stream, CU_STREAM_NON_BLOCKING));
    if (df11_device_open(0, NULL, &d->device, &error) != DF11_OK) {
        fprintf(stderr, "decompress: on the CPU, because: %s\n", error.message);
        return 1;
    }
    if (df11_device_get_info(d->device, &about, &error) != DF11_OK) {
        fprintf(stderr, "decompress: %s\n", error.message);
        return 0;
    }
    d->groups = df11_model_group_count(model);
    d->images = calloc((size_t)d->groups + 1, sizeof(*d->images));
    d->residents = calloc((size_t)d->groups + 1, sizeof(*d->residents));
    if (d->images == NULL || d->residents == NULL) {
        fprintf(stderr, "decompress: no memory\n");
        return 0;
    }
    for (uint64_t g = 0; g < d->groups; g++) {
        df11_group_info info = DF11_GROUP_INFO_INIT;
        if (df11_model_get_group_info(model, g, &info, &error) != DF11_OK) {
            fprintf(stderr, "decompress: %s\n", error.message);
            return 0;
        }
        CUDA(cuMemAlloc(&d->images[g], (size_t)info.image_bytes));
        if (df11_device_upload(d->device, model, g, d->images[g], (size_t)info.image_bytes, d->stream,
                               &d->residents[g], &error) != DF11_OK) {
            fprintf(stderr, "decompress: %s\n", error.message);
            return 0;
        }
        image_bytes += info.image_bytes;
        if (info.element_count > largest)
            largest = info.element_count;
    }
    CUDA(cuMemAlloc(&d->output, 2 * (size_t)largest + 1));
    CUDA(cuMemAlloc(&d->status, sizeof(uint32_t)));
    CUDA(cuMemsetD8Async(d->status, 0, sizeof(uint32_t), d->stream));
    CUDA(cuStreamSynchronize(d->stream));
    printf("%s, driver %d.%d, kernels: %s; %" PRIu64 " bytes of compressed groups on it\n", about.name,
           about.driver_version / 1000, about.driver_version % 1000 / 10, about.kernels, image_bytes);
    return 1;
}

static void device_end(decoder *d)
{
    if (d->stream == NULL)
        return;
    CUDA(cuStreamSynchronize(d->stream));
    for (uint64_t g = 0; g < d->groups && d->images != NULL && d->residents != NULL; g++) {
        df11_resident_free(d->residents[g]);
        if (d->images[g] != 0)
            CUDA(cuMemFree(d->images[g]));
    }
    if (d->output != 0)
        CUDA(cuMemFree(d->output));
    if (d->status != 0)
        CUDA(cuMemFree(d->status));
    free(d->residents);
    free(d->images);
    df11_device_free(d->device);
    CUDA(cuStreamDestroy(d->stream));
    CUDA(cuDevicePrimaryCtxRelease(d->cuda_device));
}

/* Waits for the device. Returns 0 if a kernel has found an error. */
static int device_wait(const decoder *d)
{
    uint32_t status = DF11_OK;
    CUDA(cuStreamSynchronize(d->stream));
    CUDA(cuMemcpyDtoH(&status, d->status, sizeof(status)));
    if (status != DF11_OK)
        fprintf(stderr, "decompress: the device reports %s\n", df11_status_name(status));
    return status == DF11_OK;
}

/* Decodes a group: on the device into `output`, without waiting for it, or on the CPU into `buffer`. */
static df11_status decode(const decoder *d, const df11_model *model, uint64_t group, uint64_t weights, void *buffer,
                          df11_error *error)
{
    size_t bytes = 2 * (size_t)weights;
    if (d->device != NULL)
        return df11_resident_decompress(d->residents[group], d->output, bytes, d->status, d->stream, error);
    return df11_model_decompress(model, group, 0, weights, buffer, bytes, d->threads, error);
}

/* Decodes all groups repeatedly for a quarter of a second, and prints the speed. */
static int measure(const decoder *d, const df11_model *model)
{
    df11_error error;
    uint64_t groups = df11_model_group_count(model), weights = 0, packed = 0, largest = 0;
    for (uint64_t g = 0; g < groups; g++) {
        df11_group_info info = DF11_GROUP_INFO_INIT;
        if (df11_model_get_group_info(model, g, &info, &error) != DF11_OK) {
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

    /* One buffer serves all groups, as in an engine that decodes each layer just before it uses it. */
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
            if (df11_model_get_group_info(model, g, &info, &error) != DF11_OK ||
                decode(d, model, g, info.element_count, buffer, &error) != DF11_OK) {
                fprintf(stderr, "decompress: %s\n", error.message);
                free(buffer);
                return 1;
            }
        }
        if (d->device != NULL && !device_wait(d)) {
            free(buffer);
            return 1;
        }
        rounds++;
        elapsed = seconds() - start;
    } while (elapsed < 0.25);
    double speed = 2.0 * (double)weights * rounds / elapsed * 1e-9;
    if (d->device != NULL)
        printf("decoded %u times on the device: %.2f GB/s of bf16\n", rounds, speed);
    else
        printf("decoded %u times on the CPU with up to %" PRIu32 " thread(s): %.2f GB/s of bf16\n", rounds, d->threads,
               speed);
    free(buffer);
    return 0;
}

/* Decodes a run of a tensor on the device, and copies it to its place in the tensor's values. */
static int read_run(const decoder *d, const df11_model *model, uint64_t tensor, uint64_t number, char *values)
{
    df11_error error;
    df11_run_info run = DF11_RUN_INFO_INIT;
    if (df11_model_get_tensor_run(model, tensor, number, &run, &error) == DF11_OK) {
        size_t bytes = 2 * (size_t)run.element_count;
        if (df11_resident_decompress_range(d->residents[run.group], run.group_offset, run.element_count, d->output,
                                           bytes, d->status, d->stream, &error) == DF11_OK) {
            if (!device_wait(d))
                return 0;
            CUDA(cuMemcpyDtoH(values + 2 * run.tensor_offset, d->output, bytes));
            return 1;
        }
    }
    fprintf(stderr, "decompress: %s\n", error.message);
    return 0;
}

/*
 * Reads a whole tensor. If `d` has a device, a compressed tensor is decoded there: most are a range of one group, and
 * larger ones a run in each of several. Returns NULL after an error, which it prints.
 */
static void *read_tensor(const decoder *d, const df11_model *model, uint64_t tensor, df11_tensor_info *info)
{
    df11_error error;
    void *values = NULL;
    if (df11_model_get_tensor_info(model, tensor, info, &error) == DF11_OK) {
        size_t bytes = (size_t)info->data_bytes;
        values = malloc(bytes ? bytes : 1);
        if (values == NULL) {
            fprintf(stderr, "decompress: no memory for %zu bytes\n", bytes);
            return NULL;
        }
        if (d->device == NULL || info->group == DF11_NO_GROUP) {
            if (df11_model_read_tensor(model, tensor, 0, values, bytes, d->threads, &error) == DF11_OK)
                return values;
        } else {
            uint64_t run = 0;
            while (run < info->run_count && read_run(d, model, tensor, run, values))
                run++;
            if (run == info->run_count)
                return values;
            free(values);
            return NULL;
        }
        free(values);
    }
    fprintf(stderr, "decompress: %s\n", error.message);
    return NULL;
}

/* Compares every tensor of the model with the original's tensor of the same name. */
static int compare(const decoder *d, const df11_model *model, const df11_model *original)
{
    const decoder host = {.threads = d->threads};
    uint64_t count = df11_model_tensor_count(model), same = 0;
    for (uint64_t t = 0; t < count; t++) {
        df11_tensor_info ours = DF11_TENSOR_INFO_INIT, theirs = DF11_TENSOR_INFO_INIT;
        df11_error error;
        uint64_t other;
        void *got = read_tensor(d, model, t, &ours), *want = NULL;
        if (got == NULL)
            return 1;
        if (df11_model_find_tensor(original, ours.name, &other, &error) != DF11_OK)
            fprintf(stderr, "decompress: %s\n", error.message);
        else if ((want = read_tensor(&host, original, other, &theirs)) != NULL) {
            if (ours.data_bytes == theirs.data_bytes && memcmp(got, want, (size_t)ours.data_bytes) == 0)
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
    decoder d = {.threads = cores > 0 ? (uint32_t)cores : 1};
    int result = 1, cpu = argc > 1 && strcmp(argv[1], "--cpu") == 0;

    if (argc - cpu < 2 || argc - cpu > 3) {
        fprintf(stderr, "usage: decompress [--cpu] MODEL [ORIGINAL]\n");
        return 2;
    }
    argv += cpu;
    if (df11_model_open(argv[1], NULL, &model, &error) != DF11_OK ||
        (argc - cpu == 3 && df11_model_open(argv[2], NULL, &original, &error) != DF11_OK)) {
        fprintf(stderr, "decompress: %s\n", error.message);
    } else {
        printf("libdf11 %s, %s\n", df11_version_string(), argv[1]);
        if (cpu || device_begin(&d, model))
            result = measure(&d, model);
        if (result == 0 && original != NULL)
            result = compare(&d, model, original);
        device_end(&d);
    }
    df11_model_free(original);
    df11_model_free(model);
    return result;
}
