/*
 * How fast a device decodes, compared with the most it could reach and with the reference's kernel, all in the same run.
 *
 *     bench [--device N] [--ptx] [--millions 8,32,128,512] [--repeats N] [--reference decode.ptx] [--json FILE]
 *
 * Groups of the given millions of weights are made here, with a language model's exponents. Every answer is compared with the
 * weights before anything is timed. Buffers rotate so that none is still in the L2 cache when its turn comes again.
 * Times are medians of CUDA events around one call each.
 *
 *     decode        df11_resident_decompress of the whole group
 *     graph         the same, 16 calls in a replayed graph, per call
 *     odd           into a destination that is aligned to 2 bytes only
 *     tensors       df11_resident_decompress_tensors: three of them, each to a place of its own
 *     range         df11_resident_decompress_range: all but the first and the last weight
 *     batch         df11_resident_decompress_batch of four groups (two where memory holds no more), per group
 *     copy          device to device, as many bytes read and written as decoding reads and writes
 *     reference     the kernel of the Python package dfloat11, from its decode.ptx, on the file's own arrays
 *     pinned        the weights as they were, from pinned host memory: what an engine that offloads would do instead
 *
 * GB/s are bytes of bf16 that come out, but for `copy`: bytes read and written. "of copy" is the share of the copy's
 * bandwidth that decoding reaches, counting the bytes of the image and of the weights. A size that the device's memory cannot
 * hold is left out, and said so.
 */
#define _POSIX_C_SOURCE 200809L
#include "driver.h"
#include "made.h"

#include <time.h>

/* Behind an answer there is room for the distances of three tensors. */
enum { MOST_SETS = 64, IN_GRAPH = 16, IN_BATCH = 4, ROOM = 256 };

static CUstream stream;
static int repeats = 40;
static FILE *json;
static int records;

/* Everything that one case works on. */
typedef struct {
    const made *data;
    uint64_t bytes; /* of bf16 */
    size_t image_bytes;
    int sets;
    CUdeviceptr images[MOST_SETS], outputs[MOST_SETS];
    df11_resident *residents[MOST_SETS];
    /* the file's own arrays, for the reference's kernel, each set a copy */
    CUfunction reference;
    CUdeviceptr luts, positions, encoded[MOST_SETS], signs[MOST_SETS], gaps[MOST_SETS];
    unsigned reference_shared;
    /* host memory */
    void *pinned;
} bench;

typedef void (*operation)(const bench *, int set);

static void run_decode(const bench *b, int set)
{
    OK(df11_resident_decompress(b->residents[set], b->outputs[set], (size_t)b->bytes, 0, stream, &e_));
}

static void run_odd(const bench *b, int set)
{
    OK(df11_resident_decompress(b->residents[set], b->outputs[set] + 2, (size_t)b->bytes, 0, stream, &e_));
}

static void run_range(const bench *b, int set)
{
    OK(df11_resident_decompress_range(b->residents[set], 1, b->data->count - 2, b->outputs[set], (size_t)b->bytes - 4, 0, stream,
                             &e_));
}

/* Where a tensor goes: at a multiple of 16, and never right after the one before, or both would be decoded as one run. */
static uint64_t tensor_at(const made *data, int tensor)
{
    uint64_t at = 0;
    for (int t = 0; t < tensor; t++)
        at = (at + 2 * data->tensors[t]) / 16 * 16 + 32;
    return at;
}

static void run_tensors(const bench *b, int set)
{
    df11_devptr addresses[3];
    size_t bytes[3];
    for (int t = 0; t < 3; t++) {
        addresses[t] = b->outputs[set] + tensor_at(b->data, t);
        bytes[t] = 2 * (size_t)b->data->tensors[t];
    }
    OK(df11_resident_decompress_tensors(b->residents[set], addresses, bytes, 3, 0, stream, &e_));
}

/* As many groups as there are buffers for. */
static int in_batch(const bench *b)
{
    return b->sets < IN_BATCH ? b->sets : IN_BATCH;
}

/* The groups of `set` and of the sets before it. */
static void run_batch(const bench *b, int set)
{
    const df11_resident *residents[IN_BATCH];
    df11_devptr addresses[IN_BATCH];
    size_t bytes[IN_BATCH], count = (size_t)in_batch(b);
    for (size_t i = 0; i < count; i++) {
        size_t at = ((size_t)(set + b->sets) - i) % (size_t)b->sets;
        residents[i] = b->residents[at];
        addresses[i] = b->outputs[at];
        bytes[i] = (size_t)b->bytes;
    }
    OK(df11_resident_decompress_batch(residents, addresses, bytes, count, 0, stream, &e_));
}

/* Half of all the bytes that decoding moves: the copy reads as many, and writes as many. */
static size_t copied_half(const bench *b)
{
    size_t half = (b->image_bytes + (size_t)b->bytes) / 2;
    return half < b->bytes ? half : (size_t)b->bytes;
}

static void run_copy(const bench *b, int set)
{
    CUDA(cuMemcpyDtoDAsync(b->outputs[set], b->outputs[(set + 1) % b->sets], copied_half(b), stream));
}

static void run_reference(const bench *b, int set)
{
    const df11_packed_group *p = &b->data->packed;
    int tables = (int)(p->luts_bytes / 256), code_bytes = (int)p->encoded_exponent_bytes, weights = (int)b->data->count;
    CUdeviceptr luts = b->luts, encoded = b->encoded[set], signs = b->signs[set], positions = b->positions,
                gaps = b->gaps[set], output = b->outputs[set];
    void *arguments[] = {&luts, &encoded, &signs, &positions, &gaps, &output, &tables, &code_bytes, &weights};
    CUDA(cuLaunchKernel(b->reference, (unsigned)((code_bytes + 4095) / 4096), 1, 1, 512, 1, 1, b->reference_shared, stream,
                        arguments, NULL));
}

static void run_pinned(const bench *b, int set)
{
    CUDA(cuMemcpyHtoDAsync(b->outputs[set], b->pinned, (size_t)b->bytes, stream));
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The median time of a call, in seconds; `spread` is the distance of the quartiles over the median. */
static double time_of(const bench *b, operation run, int calls, double *spread)
{
    double *seconds = malloc((size_t)calls * sizeof(*seconds));
    CUevent before, after;
    CUDA(cuEventCreate(&before, 0));
    CUDA(cuEventCreate(&after, 0));
    for (int i = 0; i < 3; i++)
        run(b, i % b->sets);
    CUDA(cuStreamSynchronize(stream));
    for (int i = 0; i < calls; i++) {
        float milliseconds;
        CUDA(cuEventRecord(before, stream));
        run(b, i % b->sets);
        CUDA(cuEventRecord(after, stream));
        CUDA(cuEventSynchronize(after));
        CUDA(cuEventElapsedTime(&milliseconds, before, after));
        seconds[i] = milliseconds * 1e-3;
    }
    qsort(seconds, (size_t)calls, sizeof(*seconds), by_value);
    double median = seconds[calls / 2];
    *spread = (seconds[calls * 3 / 4] - seconds[calls / 4]) / median;
    free(seconds);
    CUDA(cuEventDestroy(before));
    CUDA(cuEventDestroy(after));
    return median;
}

/* The same for calls that stand in one graph, without the gaps between launches from the host. */
static double time_of_graph(const bench *b, operation run, double *spread)
{
    CUgraph graph;
    CUgraphExec executable;
    CUevent before, after;
    int replays = repeats / 4 + 2;
    double *seconds = malloc((size_t)replays * sizeof(*seconds));
    CUDA(cuEventCreate(&before, 0));
    CUDA(cuEventCreate(&after, 0));
    CUDA(cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
    for (int i = 0; i < IN_GRAPH; i++)
        run(b, i % b->sets);
    CUDA(cuStreamEndCapture(stream, &graph));
    CUDA(cuGraphInstantiateWithFlags(&executable, graph, 0));
    CUDA(cuGraphLaunch(executable, stream));
    CUDA(cuStreamSynchronize(stream));
    for (int i = 0; i < replays; i++) {
        float milliseconds;
        CUDA(cuEventRecord(before, stream));
        CUDA(cuGraphLaunch(executable, stream));
        CUDA(cuEventRecord(after, stream));
        CUDA(cuEventSynchronize(after));
        CUDA(cuEventElapsedTime(&milliseconds, before, after));
        seconds[i] = milliseconds * 1e-3 / IN_GRAPH;
    }
    qsort(seconds, (size_t)replays, sizeof(*seconds), by_value);
    double median = seconds[replays / 2];
    *spread = (seconds[replays * 3 / 4] - seconds[replays / 4]) / median;
    free(seconds);
    CUDA(cuEventDestroy(before));
    CUDA(cuEventDestroy(after));
    CUDA(cuGraphExecDestroy(executable));
    CUDA(cuGraphDestroy(graph));
    return median;
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* The host's time for one call, in seconds: the median over rounds of 32 calls that find the device idle. */
static double host_time(const bench *b, operation run)
{
    double seconds[15];
    int rounds = repeats < 15 ? repeats : 15;
    for (int round = 0; round < rounds; round++) {
        CUDA(cuStreamSynchronize(stream));
        double start = now();
        for (int i = 0; i < 32; i++)
            run(b, i % b->sets);
        seconds[round] = (now() - start) / 32;
    }
    CUDA(cuStreamSynchronize(stream));
    qsort(seconds, (size_t)rounds, sizeof(*seconds), by_value);
    return seconds[rounds / 2];
}

static void record(const bench *b, const char *what, double seconds, double spread, double moved, double copy)
{
    double rate = moved / seconds * 1e-9;
    if (seconds <= 0)
        return; /* a driver without a clock */
    printf("  %-10s %10.1f us  %8.1f GB/s", what, seconds * 1e6, rate);
    if (copy > 0)
        printf("  %5.1f %% of copy", 100 * copy);
    printf("\n");
    fflush(stdout);
    if (json != NULL) {
        fprintf(json, "%s\n  {\"weights\": %" PRIu64 ", \"what\": \"%s\", \"seconds\": %.9f, \"spread\": %.4f, \"gb_per_s\": %.3f",
                records++ ? "," : "", b->data->count, what, seconds, spread, rate);
        if (copy > 0)
            fprintf(json, ", \"of_copy\": %.4f", copy);
        fprintf(json, "}");
    }
}

/* Compares `count` weights from weight `first` with the bytes at offset `at` of the last set's output. */
static void compare(const bench *b, const char *what, uint64_t at, uint64_t first, uint64_t count)
{
    uint16_t *got = malloc(2 * (size_t)count);
    if (got == NULL) {
        fprintf(stderr, "no memory for %" PRIu64 " weights\n", count);
        exit(1);
    }
    CUDA(cuMemcpyDtoH(got, b->outputs[b->sets - 1] + at, 2 * (size_t)count));
    if (memcmp(got, b->data->weights + first, 2 * (size_t)count) != 0) {
        fprintf(stderr, "%s: the answer is wrong\n", what);
        exit(1);
    }
    free(got);
}

/* Runs it on the last set, whose output holds what no answer looks like. */
static void run_last(const bench *b, operation run)
{
    CUDA(cuMemsetD8Async(b->outputs[b->sets - 1], 0xc5, (size_t)b->bytes + ROOM, stream));
    run(b, b->sets - 1);
    CUDA(cuStreamSynchronize(stream));
}

static void verify(const bench *b, operation run, const char *what, unsigned shift, uint64_t first, uint64_t count)
{
    run_last(b, run);
    compare(b, what, shift, first, count);
}

static void verify_tensors(const bench *b)
{
    uint64_t first = 0;
    run_last(b, run_tensors);
    for (int t = 0; t < 3; first += b->data->tensors[t++])
        compare(b, "tensors", tensor_at(b->data, t), first, b->data->tensors[t]);
}

static CUdeviceptr device_copy(const void *bytes, size_t count)
{
    CUdeviceptr address;
    CUDA(cuMemAlloc(&address, count + 256)); /* the reference's kernel reads a byte past `gaps` */
    CUDA(cuMemcpyHtoD(address, bytes, count));
    return address;
}

/* 0 if the device has not enough memory, which is said. */
static int prepare(bench *b, df11_device *device, const made *data, size_t cache, int with_reference)
{
    df11_group_info info = DF11_GROUP_INFO_INIT;
    const df11_packed_group *p = &data->packed;
    size_t free_bytes, all;
    OK(df11_model_get_group_info(data->model, 0, &info, &e_));
    b->data = data;
    b->bytes = 2 * data->count;
    b->image_bytes = (size_t)info.image_bytes;
    CUDA(cuMemGetInfo(&free_bytes, &all));
    /* A set's turn comes again when twice the cache's size has gone through it. */
    size_t one = b->image_bytes + (size_t)b->bytes, each = one + (with_reference ? (size_t)info.packed_bytes : 0);
    size_t sets = 2 * cache / one + 2;
    while (sets > 2 && sets * each > free_bytes / 10 * 8)
        sets--;
    if (sets * each > free_bytes / 10 * 9) {
        printf("%" PRIu64 " weights: left out, missing: %zu bytes of device memory (%zu are free)\n", data->count, sets * each,
               free_bytes);
        return 0;
    }
    b->sets = sets > MOST_SETS ? MOST_SETS : (int)sets;
    for (int s = 0; s < b->sets; s++) {
        CUDA(cuMemAlloc(&b->images[s], b->image_bytes));
        CUDA(cuMemAlloc(&b->outputs[s], (size_t)b->bytes + ROOM));
        OK(df11_device_upload(device, data->model, 0, b->images[s], b->image_bytes, stream, &b->residents[s], &e_));
        if (with_reference) {
            b->encoded[s] = device_copy(p->encoded_exponent, p->encoded_exponent_bytes);
            b->signs[s] = device_copy(p->sign_mantissa, p->sign_mantissa_bytes);
            b->gaps[s] = device_copy(p->gaps, p->gaps_bytes);
        }
    }
    CUDA(cuStreamSynchronize(stream));
    if (with_reference) {
        /* As the package does: 4 bytes a thread and the weights of the fullest block. */
        uint32_t most = 0, last = 0, next;
        b->luts = device_copy(p->luts, p->luts_bytes);
        b->positions = device_copy(p->output_positions, p->output_positions_bytes);
        for (size_t i = 0; i < p->output_positions_bytes / 4; i++, last = next) {
            memcpy(&next, (const char *)p->output_positions + 4 * i, 4);
            most = i > 0 && next - last > most ? next - last : most;
        }
        b->reference_shared = 512 * 4 + 4 + 2 * most;
        CUDA(cuFuncSetAttribute(b->reference, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, (int)b->reference_shared));
    }
    CUDA(cuMemHostAlloc(&b->pinned, (size_t)b->bytes, 0));
    memcpy(b->pinned, data->weights, (size_t)b->bytes);
    return 1;
}

static void release(bench *b, int with_reference)
{
    for (int s = 0; s < b->sets; s++) {
        df11_resident_free(b->residents[s]);
        CUDA(cuMemFree(b->images[s]));
        CUDA(cuMemFree(b->outputs[s]));
        if (with_reference) {
            CUDA(cuMemFree(b->encoded[s]));
            CUDA(cuMemFree(b->signs[s]));
            CUDA(cuMemFree(b->gaps[s]));
        }
    }
    if (with_reference) {
        CUDA(cuMemFree(b->luts));
        CUDA(cuMemFree(b->positions));
    }
    CUDA(cuMemFreeHost(b->pinned));
}

static void measure(df11_device *device, uint64_t count, size_t cache, CUfunction reference)
{
    made data;
    bench b = {0};
    double spread, copy, seconds;
    if (!made_new(&data, count, 11, 8))
        exit(1);
    b.reference = reference;
    if (!prepare(&b, device, &data, cache, reference != NULL)) {
        made_free(&data);
        return;
    }
    double moved = (double)b.image_bytes + (double)b.bytes, copied = 2.0 * (double)copied_half(&b);
    printf("%" PRIu64 " weights, %.3f bits each on the device, %d sets of buffers\n", count,
           8.0 * (double)b.image_bytes / (double)count, b.sets);
    verify(&b, run_decode, "decode", 0, 0, count);
    verify(&b, run_odd, "odd", 2, 0, count);
    verify_tensors(&b);
    verify(&b, run_range, "range", 0, 1, count - 2);
    verify(&b, run_batch, "batch", 0, 0, count);
    if (reference != NULL)
        verify(&b, run_reference, "reference", 0, 0, count);

    seconds = time_of(&b, run_copy, repeats, &spread);
    copy = copied / seconds;
    record(&b, "copy", seconds, spread, copied, 0);
    const struct {
        const char *name;
        operation run;
        int groups;
    } ours[] = {{"decode", run_decode, 1}, {"odd", run_odd, 1}, {"tensors", run_tensors, 1}, {"range", run_range, 1},
                {"batch", run_batch, in_batch(&b)}};
    for (size_t i = 0; i < sizeof(ours) / sizeof(*ours); i++) {
        seconds = time_of(&b, ours[i].run, repeats, &spread) / ours[i].groups;
        record(&b, ours[i].name, seconds, spread, (double)b.bytes, moved / seconds / copy);
    }
    seconds = time_of_graph(&b, run_copy, &spread);
    record(&b, "copygraph", seconds, spread, copied, 0);
    copy = copied / seconds;
    seconds = time_of_graph(&b, run_decode, &spread);
    record(&b, "graph", seconds, spread, (double)b.bytes, moved / seconds / copy);
    if (reference != NULL) {
        seconds = time_of(&b, run_reference, repeats, &spread);
        record(&b, "reference", seconds, spread, (double)b.bytes, 0);
    }
    seconds = time_of(&b, run_pinned, repeats / 4 + 3, &spread);
    record(&b, "pinned", seconds, spread, (double)b.bytes, 0);

    static const struct {
        const char *name;
        operation run;
    } calls[] = {{"decode", run_decode}, {"range", run_range}, {"tensors", run_tensors}, {"batch", run_batch}};
    for (size_t i = 0; i < sizeof(calls) / sizeof(*calls); i++) {
        seconds = host_time(&b, calls[i].run);
        printf("  host time of a call, %-8s %6.2f us\n", calls[i].name, seconds * 1e6);
        if (json != NULL)
            fprintf(json, "%s\n  {\"weights\": %" PRIu64 ", \"what\": \"host time, %s\", \"seconds\": %.9f}",
                    records++ ? "," : "", count, calls[i].name, seconds);
    }
    release(&b, reference != NULL);
    made_free(&data);
}

/* The reference's kernel from the text of its PTX. */
static CUfunction load_reference(const char *path)
{
    CUmodule module;
    CUfunction function;
    FILE *file = fopen(path, "rb");
    char *text;
    long bytes;
    if (file == NULL || fseek(file, 0, SEEK_END) != 0 || (bytes = ftell(file)) < 0 || fseek(file, 0, SEEK_SET) != 0 ||
        (text = calloc(1, (size_t)bytes + 1)) == NULL || fread(text, 1, (size_t)bytes, file) != (size_t)bytes) {
        fprintf(stderr, "cannot read %s\n", path);
        exit(1);
    }
    fclose(file);
    CUDA(cuModuleLoadData(&module, text));
    CUDA(cuModuleGetFunction(&function, module, "decode"));
    free(text);
    return function;
}

int main(int argc, char **argv)
{
    const char *millions = "8,32,128,512", *reference_path = NULL, *json_path = NULL;
    int ordinal = 0, ptx = 0, version = 0, cache = 0, major = 0, minor = 0;
    char name[256] = "";
    CUcontext context;
    CUdevice cuda_device;
    df11_device *device;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--ptx") == 0)
            ptx = 1;
        else if (i + 1 == argc) {
            fprintf(stderr, "usage: bench [--device N] [--ptx] [--millions 8,32] [--repeats N] [--reference PTX] [--json FILE]\n");
            return 2;
        } else if (strcmp(argv[i], "--device") == 0)
            ordinal = atoi(argv[++i]);
        else if (strcmp(argv[i], "--millions") == 0)
            millions = argv[++i];
        else if (strcmp(argv[i], "--repeats") == 0)
            repeats = atoi(argv[++i]);
        else if (strcmp(argv[i], "--reference") == 0)
            reference_path = argv[++i];
        else if (strcmp(argv[i], "--json") == 0)
            json_path = argv[++i];
        else {
            fprintf(stderr, "bench: unknown option %s\n", argv[i]);
            return 2;
        }
    }
    if (!cuda_load(NULL)) {
        fprintf(stderr, "missing: a CUDA driver (libcuda.so.1)\n");
        return 77;
    }
    CUDA(cuDeviceGet(&cuda_device, ordinal));
    CUDA(cuDeviceGetName(name, sizeof(name), cuda_device));
    CUDA(cuDriverGetVersion(&version));
    CUDA(cuDeviceGetAttribute(&cache, CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE, cuda_device));
    CUDA(cuDeviceGetAttribute(&major, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, cuda_device));
    CUDA(cuDeviceGetAttribute(&minor, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, cuda_device));
    CUDA(cuDevicePrimaryCtxRetain(&context, cuda_device));
    CUDA(cuCtxSetCurrent(context));
    CUDA(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
    df11_device_options options = DF11_DEVICE_OPTIONS_INIT;
    if (ptx)
        options.flags |= DF11_DEVICE_FORCE_PTX;
    OK(df11_device_open(ordinal, &options, &device, &e_));
    df11_device_info info = DF11_DEVICE_INFO_INIT;
    OK(df11_device_get_info(device, &info, &e_));
    printf("libdf11 %s, %s, compute capability %d.%d, driver %d.%d, kernels: %s\n", df11_version_string(), name, major,
           minor, version / 1000, version % 1000 / 10, info.kernels);
    if (json_path != NULL) {
        json = fopen(json_path, "w");
        if (json == NULL) {
            fprintf(stderr, "cannot write %s\n", json_path);
            return 1;
        }
        fprintf(json, "{\"device\": \"%s\", \"driver\": %d, \"libdf11\": \"%s\", \"kernels\": \"%s\", \"repeats\": %d, \"results\": [",
                name, version, df11_version_string(), info.kernels, repeats);
    }
    CUfunction reference = reference_path != NULL ? load_reference(reference_path) : NULL;
    if (repeats < 1)
        repeats = 1;
    for (const char *at = millions; *at != 0; at += *at == ',') {
        char *end;
        double count = strtod(at, &end);
        if (end == at || count <= 0) {
            fprintf(stderr, "bench: --millions %s\n", millions);
            return 2;
        }
        measure(device, (uint64_t)(count * 1e6), (size_t)cache, reference);
        at = end;
    }
    if (json != NULL && (fprintf(json, "\n]}\n") < 0 || fclose(json) != 0)) {
        fprintf(stderr, "cannot write %s\n", json_path);
        return 1;
    }
    df11_device_free(device);
    CUDA(cuStreamDestroy(stream));
    CUDA(cuDevicePrimaryCtxRelease(cuda_device));
    return 0;
}
