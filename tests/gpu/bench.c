/*
 * How fast a device decodes, compared with the most it could reach and with the reference's kernel, all in the same run.
 *
 *     bench [--device N] [--ptx] [--millions 128,8,512] [--repeats N] [--only NAMES] [--json] [--ceiling ceiling.ptx]
 *           [--reference decode.ptx] [--kernel NAME=FILE]... [--products 4096x4096] [--batches 1,2,4,8]
 *
 * Groups of the given millions of weights are made here, with a language model's exponents. Every answer is compared with the
 * weights before it is timed; a wrong one is named and not timed, the others are, and the status at the end is 1. Buffers
 * rotate so that none is still in the L2 cache when its turn comes again. Times are medians of CUDA events around one call
 * each.
 *
 *     copy          device to device, as many bytes read and written as decoding reads and writes
 *     ceiling       ceiling.ptx: a kernel that only reads and writes, in the proportion of decoding
 *     decode        df11_resident_decompress of the whole group
 *     graph         the same, 16 calls in a replayed graph, per call (compared with copygraph and ceilinggraph)
 *     odd           into a destination that is aligned to 2 bytes only
 *     tensors       df11_resident_decompress_tensors: three of them, each to a place of its own
 *     range         df11_resident_decompress_range: all but the first and the last weight
 *     batch         df11_resident_decompress_batch of four groups (two where memory holds no more), per group
 *     multiply      the weights, as rows of 4,096, times a vector, from bf16 in memory: as without compression
 *     whole         all of them decoded, then multiplied
 *     chunks        chunks of a third of the L2 cache decoded, each to the same scratch memory and multiplied from there
 *                   (these three as graphs, as `graph`; --only chunks names them)
 *     reference     the kernel of the Python package dfloat11, from its decode.ptx, on the file's own arrays
 *     NAME          --kernel: another kernel named `decode` with the reference's parameters, as PTX, cubin or fat binary
 *     pinned        the weights as they were, from pinned host memory: what an engine that offloads would do instead
 *     host          the host's time for a call of each kind
 *
 * With --products it does something else: for matrices of the given rows and columns, and batches of vectors,
 *
 *     fused ROWS x COLUMNS, batch N     df11_linear: products from the linear image, with the weights decoded in registers
 *     decode ROWS x COLUMNS             the same weights decoded to memory from the group's own image, from where an engine's
 *                                       matrix product would read them
 *
 * both as `graph`, on images that rotate. Products are compared with those of 64 bits for 64 rows. The number of rows is a
 * multiple of 4: the matrix is three tensors of the group, which one launch multiplies.
 *
 * GB/s are bytes of bf16 that come out, but for the copies and the ceiling: bytes read and written. "of copy" and "of ceiling"
 * are the share of that bandwidth that decoding reaches, counting the bytes of the image and of the weights. A size that the
 * device's memory cannot hold is left out, and said so. --only takes names of this list, separated by commas.
 *
 * With --json every figure is also a line of JSON with the key "what", printed as soon as it is known; so are the device and,
 * as "log", what the library logs about its kernels: registers, local bytes, blocks.
 */
#define _GNU_SOURCE /* dladdr */
#include "df11_experimental.h"
#include "driver.h"
#include "made.h"
#include "multiply_kernel.h"

#include <time.h>

/* Behind an answer there is room for the distances of three tensors. */
enum { MOST_SETS = 64, IN_GRAPH = 16, IN_BATCH = 4, ROOM = 256 };

/* A tile of ceiling.ptx: 17 units of 512 bytes in, 25 out. */
enum { UNIT = 512, UNITS_IN = 17, UNITS_OUT = 25, CEILING_THREADS = 256, MOST_KERNELS = 8 };

/* Weights of a row that is multiplied. */
enum { COLUMNS = 4096 };

/* Vectors that a matrix is multiplied with at most, and rows whose products are compared. */
enum { MOST_VECTORS = 8, COMPARED = 64 };

static CUstream stream;
static int repeats = 40;
static int json;
static const char *only;
static int wrong;

/* A kernel with the reference's parameters. */
typedef struct {
    char name[64];
    CUfunction function;
} peer;

/* What does not depend on a case. */
static struct {
    df11_device *device;
    size_t cache;
    CUfunction ceiling, multiply;
    unsigned ceiling_blocks;
    peer peers[MOST_KERNELS];
    int peer_count;
} machine;

/* Everything that one case works on. */
typedef struct {
    const made *data;
    uint64_t bytes; /* of bf16 */
    size_t image_bytes;
    int sets;
    CUdeviceptr images[MOST_SETS], outputs[MOST_SETS];
    df11_resident *residents[MOST_SETS];
    /* the file's own arrays, for the reference's kernel, each set a copy */
    const peer *peer;
    CUdeviceptr luts, positions, encoded[MOST_SETS], signs[MOST_SETS], gaps[MOST_SETS];
    unsigned peer_shared;
    /* the weights as rows, which are multiplied; chunk_rows of them go to the scratch memory at a time */
    uint64_t rows, chunk_rows;
    CUdeviceptr scratch, x, y;
    /* with --products: linear images, and the number of vectors */
    uint64_t columns;
    size_t linear_bytes;
    CUdeviceptr linear[MOST_SETS], workspace;
    size_t workspace_bytes;
    df11_resident *multiplied[MOST_SETS];
    uint32_t vectors;
    /* host memory */
    void *pinned;
    /* bytes a second that the copy and the ceiling move, 0 if unknown */
    double copy, ceiling;
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

/* How many whole tiles of the ceiling's kernel the image and the weights have room for. */
static unsigned ceiling_tiles(const bench *b)
{
    size_t in = b->image_bytes / (UNITS_IN * UNIT), out = (size_t)b->bytes / (UNITS_OUT * UNIT);
    return (unsigned)(in < out ? in : out);
}

static void run_ceiling(const bench *b, int set)
{
    CUdeviceptr source = b->images[set], target = b->outputs[set];
    unsigned tiles = ceiling_tiles(b);
    void *arguments[] = {&source, &target, &tiles};
    CUDA(cuLaunchKernel(machine.ceiling, machine.ceiling_blocks, 1, 1, CEILING_THREADS, 1, 1, 0, stream, arguments, NULL));
}

/* Multiplies rows of COLUMNS weights, from row `first` on, which are at `weights`. */
static void multiply(const bench *b, CUdeviceptr weights, uint64_t first, uint64_t count)
{
    CUdeviceptr x = b->x, y = b->y + 4 * first;
    unsigned columns = COLUMNS, rows = (unsigned)count;
    void *arguments[] = {&weights, &x, &y, &columns, &rows};
    CUDA(cuLaunchKernel(machine.multiply, (rows + MULTIPLY_ROWS - 1) / MULTIPLY_ROWS, 1, 1, 32 * MULTIPLY_ROWS, 1, 1, 0, stream,
                        arguments, NULL));
}

static void run_multiply(const bench *b, int set)
{
    multiply(b, b->outputs[set], 0, b->rows);
}

static void run_whole(const bench *b, int set)
{
    run_decode(b, set);
    multiply(b, b->outputs[set], 0, b->rows);
}

static void run_chunks(const bench *b, int set)
{
    for (uint64_t row = 0; row < b->rows; row += b->chunk_rows) {
        uint64_t count = b->rows - row < b->chunk_rows ? b->rows - row : b->chunk_rows, weights = count * COLUMNS;
        OK(df11_resident_decompress_range(b->residents[set], row * COLUMNS, weights, b->scratch, 2 * (size_t)weights, 0, stream,
                                          &e_));
        multiply(b, b->scratch, row, count);
    }
}

static void run_peer(const bench *b, int set)
{
    const df11_packed_group *p = &b->data->packed;
    int tables = (int)(p->luts_bytes / 256), code_bytes = (int)p->encoded_exponent_bytes, weights = (int)b->data->count;
    CUdeviceptr luts = b->luts, encoded = b->encoded[set], signs = b->signs[set], positions = b->positions,
                gaps = b->gaps[set], output = b->outputs[set];
    void *arguments[] = {&luts, &encoded, &signs, &positions, &gaps, &output, &tables, &code_bytes, &weights};
    CUDA(cuLaunchKernel(b->peer->function, (unsigned)((code_bytes + 4095) / 4096), 1, 1, 512, 1, 1, b->peer_shared, stream,
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

/* Prints a text as JSON has it. */
static void print_text(const char *text)
{
    putchar('"');
    for (; *text != 0; text++)
        if (*text == '"' || *text == '\\')
            printf("\\%c", *text);
        else if ((unsigned char)*text < 0x20)
            printf("\\u%04x", (unsigned)*text);
        else
            putchar(*text);
    putchar('"');
}

static void print_named(const bench *b, const char *what)
{
    printf("{\"weights\": %" PRIu64 ", \"what\": ", b->data->count);
    print_text(what);
}

/* Prints a figure. `ours` is 1 for decoding, which is compared with copy and ceiling if they are known. */
static void record(const bench *b, const char *what, double seconds, double spread, double bytes, int ours, double copy,
                   double ceiling)
{
    double rate = bytes / seconds * 1e-9, moved = ((double)b->image_bytes + (double)b->bytes) / seconds;
    if (seconds <= 0)
        return; /* a driver without a clock */
    printf("  %-12s %10.1f us  %8.1f GB/s", what, seconds * 1e6, rate);
    if (ours && copy > 0)
        printf("  %5.1f %% of copy", 100 * moved / copy);
    if (ours && ceiling > 0)
        printf("  %5.1f %% of ceiling", 100 * moved / ceiling);
    printf("\n");
    if (json) {
        print_named(b, what);
        printf(", \"seconds\": %.9f, \"spread\": %.4f, \"gb_per_s\": %.3f", seconds, spread, rate);
        if (ours && copy > 0)
            printf(", \"of_copy\": %.4f", moved / copy);
        if (ours && ceiling > 0)
            printf(", \"of_ceiling\": %.4f", moved / ceiling);
        printf("}\n");
    }
    fflush(stdout);
}

/* Compares `count` weights from weight `first` with the bytes at offset `at` of the last set's output. 0 if they differ. */
static int compare(const bench *b, const char *what, uint64_t at, uint64_t first, uint64_t count)
{
    uint16_t *got = malloc(2 * (size_t)count);
    const uint16_t *want = b->data->weights + first;
    uint64_t differ = 0, at_first = 0;
    if (got == NULL) {
        fprintf(stderr, "no memory for %" PRIu64 " weights\n", count);
        exit(1);
    }
    CUDA(cuMemcpyDtoH(got, b->outputs[b->sets - 1] + at, 2 * (size_t)count));
    if (memcmp(got, want, 2 * (size_t)count) != 0)
        for (uint64_t i = 0; i < count; i++)
            if (got[i] != want[i] && differ++ == 0)
                at_first = i;
    free(got);
    if (differ == 0)
        return 1;
    printf("  %-12s the answer is wrong: %" PRIu64 " of %" PRIu64 " weights differ, the first is %" PRIu64 "\n", what, differ,
           count, first + at_first);
    if (json) {
        print_named(b, what);
        printf(", \"wrong\": %" PRIu64 "}\n", differ);
    }
    fflush(stdout);
    wrong++;
    return 0;
}

/* Runs it on the last set, whose output holds what no answer looks like. */
static void run_last(const bench *b, operation run)
{
    CUDA(cuMemsetD8Async(b->outputs[b->sets - 1], 0xc5, (size_t)b->bytes + ROOM, stream));
    run(b, b->sets - 1);
    CUDA(cuStreamSynchronize(stream));
}

static int verify(const bench *b, operation run, const char *what, unsigned shift, uint64_t first, uint64_t count)
{
    run_last(b, run);
    return compare(b, what, shift, first, count);
}

static int verify_tensors(const bench *b)
{
    uint64_t first = 0;
    int right = 1;
    run_last(b, run_tensors);
    for (int t = 0; t < 3; first += b->data->tensors[t++])
        right &= compare(b, "tensors", tensor_at(b->data, t), first, b->data->tensors[t]);
    return right;
}

/* Every unit of the ceiling's output is a unit of the image, in turn. 0 if not, or if there is nothing to measure. */
static int verify_ceiling(const bench *b)
{
    size_t tiles = ceiling_tiles(b), in = tiles * UNITS_IN * UNIT, out = tiles * UNITS_OUT * UNIT;
    int right = tiles > 0;
    if (tiles == 0) {
        printf("  ceiling      left out: the group is smaller than a tile\n");
        return 0;
    }
    uint8_t *image = malloc(in), *got = malloc(out);
    if (image == NULL || got == NULL) {
        fprintf(stderr, "no memory for %zu bytes\n", in + out);
        exit(1);
    }
    run_last(b, run_ceiling);
    CUDA(cuMemcpyDtoH(image, b->images[b->sets - 1], in));
    CUDA(cuMemcpyDtoH(got, b->outputs[b->sets - 1], out));
    for (size_t t = 0; t < tiles; t++)
        for (size_t u = 0; u < UNITS_OUT; u++)
            right &= memcmp(got + (t * UNITS_OUT + u) * UNIT, image + (t * UNITS_IN + u % UNITS_IN) * UNIT, UNIT) == 0;
    free(image);
    free(got);
    if (!right) {
        printf("  ceiling      its answer is wrong\n");
        wrong++;
    }
    return right;
}

/* 1 if the name is among those that --only names, or all are. */
static int wanted(const char *name)
{
    size_t length = strlen(name);
    for (const char *at = only; at != NULL; at = strchr(at, ',') != NULL ? strchr(at, ',') + 1 : NULL)
        if (strncmp(at, name, length) == 0 && (at[length] == 0 || at[length] == ','))
            return 1;
    return only == NULL;
}

static CUdeviceptr device_copy(const void *bytes, size_t count)
{
    CUdeviceptr address;
    CUDA(cuMemAlloc(&address, count + 256)); /* the reference's kernel reads a byte past `gaps` */
    CUDA(cuMemcpyHtoD(address, bytes, count));
    return address;
}

/* 0 if the device has not enough memory, which is said. */
static int prepare(bench *b, const made *data)
{
    df11_group_info info = DF11_GROUP_INFO_INIT;
    const df11_packed_group *p = &data->packed;
    int with_peers = machine.peer_count > 0;
    size_t free_bytes, all;
    OK(df11_model_get_group_info(data->model, 0, &info, &e_));
    b->data = data;
    b->bytes = 2 * data->count;
    b->image_bytes = (size_t)info.image_bytes;
    CUDA(cuMemGetInfo(&free_bytes, &all));
    /* A set's turn comes again when twice the cache's size has gone through it. */
    size_t one = b->image_bytes + (size_t)b->bytes, each = one + (with_peers ? (size_t)info.packed_bytes : 0);
    size_t sets = 2 * machine.cache / one + 2;
    while (sets > 2 && sets * each > free_bytes / 10 * 8)
        sets--;
    if (sets * each > free_bytes / 10 * 9) {
        printf("%" PRIu64 " weights: left out, missing: %zu bytes of device memory (%zu are free)\n", data->count, sets * each,
               free_bytes);
        if (json) {
            print_named(b, "left out");
            printf(", \"missing_bytes\": %zu, \"free_bytes\": %zu}\n", sets * each, free_bytes);
        }
        return 0;
    }
    b->sets = sets > MOST_SETS ? MOST_SETS : (int)sets;
    for (int s = 0; s < b->sets; s++) {
        CUDA(cuMemAlloc(&b->images[s], b->image_bytes));
        CUDA(cuMemAlloc(&b->outputs[s], (size_t)b->bytes + ROOM));
        OK(df11_device_upload(machine.device, data->model, 0, b->images[s], b->image_bytes, stream, &b->residents[s], &e_));
        if (with_peers) {
            b->encoded[s] = device_copy(p->encoded_exponent, p->encoded_exponent_bytes);
            b->signs[s] = device_copy(p->sign_mantissa, p->sign_mantissa_bytes);
            b->gaps[s] = device_copy(p->gaps, p->gaps_bytes);
        }
    }
    CUDA(cuStreamSynchronize(stream));
    if (with_peers) {
        /* As the package does: 4 bytes a thread and the weights of the fullest block. */
        uint32_t most = 0, last = 0, next;
        b->luts = device_copy(p->luts, p->luts_bytes);
        b->positions = device_copy(p->output_positions, p->output_positions_bytes);
        for (size_t i = 0; i < p->output_positions_bytes / 4; i++, last = next) {
            memcpy(&next, (const char *)p->output_positions + 4 * i, 4);
            most = i > 0 && next - last > most ? next - last : most;
        }
        b->peer_shared = 512 * 4 + 4 + 2 * most;
        for (int i = 0; i < machine.peer_count; i++)
            CUDA(cuFuncSetAttribute(machine.peers[i].function, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
                                    (int)b->peer_shared));
    }
    if (wanted("pinned")) {
        CUDA(cuMemHostAlloc(&b->pinned, (size_t)b->bytes, 0));
        memcpy(b->pinned, data->weights, (size_t)b->bytes);
    }
    return 1;
}

static void release(bench *b)
{
    for (int s = 0; s < b->sets; s++) {
        df11_resident_free(b->residents[s]);
        CUDA(cuMemFree(b->images[s]));
        CUDA(cuMemFree(b->outputs[s]));
        if (machine.peer_count > 0) {
            CUDA(cuMemFree(b->encoded[s]));
            CUDA(cuMemFree(b->signs[s]));
            CUDA(cuMemFree(b->gaps[s]));
        }
    }
    if (machine.peer_count > 0) {
        CUDA(cuMemFree(b->luts));
        CUDA(cuMemFree(b->positions));
    }
    if (b->pinned != NULL)
        CUDA(cuMemFreeHost(b->pinned));
}

/* Times one of the decodings, which was found right. */
static void measure_ours(bench *b, const char *name, operation run, int groups)
{
    double spread, seconds = time_of(b, run, repeats, &spread) / groups;
    record(b, name, seconds, spread, (double)b->bytes, 1, b->copy, b->ceiling);
}

static void measure_graph(bench *b)
{
    double spread, copied = 2.0 * (double)copied_half(b), ceiling = 0;
    double seconds = time_of_graph(b, run_copy, &spread), copy = seconds > 0 ? copied / seconds : 0;
    record(b, "copygraph", seconds, spread, copied, 0, 0, 0);
    if (b->ceiling > 0) {
        double moved = (double)ceiling_tiles(b) * (UNITS_IN + UNITS_OUT) * UNIT;
        seconds = time_of_graph(b, run_ceiling, &spread);
        ceiling = seconds > 0 ? moved / seconds : 0;
        record(b, "ceilinggraph", seconds, spread, moved, 0, 0, 0);
    }
    seconds = time_of_graph(b, run_decode, &spread);
    record(b, "graph", seconds, spread, (double)b->bytes, 1, copy, ceiling);
}

/* All products of the last set, 0xff in each byte where none came out. */
static uint32_t *products(const bench *b, operation run)
{
    uint32_t *y = malloc(4 * (size_t)b->rows);
    if (y == NULL) {
        fprintf(stderr, "no memory for %" PRIu64 " products\n", b->rows);
        exit(1);
    }
    CUDA(cuMemsetD8Async(b->y, 0xff, 4 * (size_t)b->rows, stream));
    run(b, b->sets - 1);
    CUDA(cuMemcpyDtoHAsync(y, b->y, 4 * (size_t)b->rows, stream));
    CUDA(cuStreamSynchronize(stream));
    return y;
}

/* Products in three ways, which must have the same bits. The decoded weights of all sets are there. */
static void measure_chunks(bench *b)
{
    static const struct {
        const char *name;
        operation run;
    } ways[] = {{"multiply", run_multiply}, {"whole", run_whole}, {"chunks", run_chunks}};
    float x[COLUMNS];
    double spread;
    size_t most = machine.cache / 3 / (2 * COLUMNS);
    b->rows = b->data->count / COLUMNS;
    b->chunk_rows = most > 0 ? most : 1;
    if (b->rows == 0)
        return;
    for (int i = 0; i < COLUMNS; i++)
        x[i] = (float)(i % 19) / 16 - 0.5f;
    CUDA(cuMemAlloc(&b->scratch, 2 * COLUMNS * (size_t)(b->rows < b->chunk_rows ? b->rows : b->chunk_rows)));
    CUDA(cuMemAlloc(&b->x, sizeof(x)));
    CUDA(cuMemAlloc(&b->y, 4 * (size_t)b->rows));
    CUDA(cuMemcpyHtoD(b->x, x, sizeof(x)));
    for (int s = 0; s < b->sets; s++)
        run_decode(b, s);
    uint32_t *want = products(b, run_multiply);
    for (size_t i = 0; i < sizeof(ways) / sizeof(*ways); i++) {
        uint32_t *y = products(b, ways[i].run);
        int right = memcmp(y, want, 4 * (size_t)b->rows) == 0;
        free(y);
        if (right) {
            double seconds = time_of_graph(b, ways[i].run, &spread);
            record(b, ways[i].name, seconds, spread, 2.0 * COLUMNS * (double)b->rows, 0, 0, 0);
        } else {
            printf("  %-12s the products are wrong\n", ways[i].name);
            wrong++;
        }
    }
    free(want);
    CUDA(cuMemFree(b->scratch));
    CUDA(cuMemFree(b->x));
    CUDA(cuMemFree(b->y));
}

/* One launch for the three tensors, whose results follow each other as those of one matrix. */
static void fill_product(const bench *b, int set, df11_linear_matrix matrices[3], df11_linear_options *options)
{
    uint64_t row = 0;
    memset(matrices, 0, 3 * sizeof(*matrices));
    for (uint32_t t = 0; t < 3; t++) {
        matrices[t].resident = b->multiplied[set];
        matrices[t].tensor = t;
        matrices[t].row_count = b->data->tensors[t] / b->columns;
        matrices[t].column_count = b->columns;
        matrices[t].d_y = b->y + 4 * row;
        matrices[t].y_stride = b->rows;
        row += matrices[t].row_count;
    }
    *options = (df11_linear_options)DF11_LINEAR_OPTIONS_INIT;
    options->d_x = b->x;
    options->x_stride = b->columns;
    options->vector_count = b->vectors;
    options->y_dtype = DF11_DTYPE_F32;
    options->d_workspace = b->workspace;
    options->workspace_bytes = b->workspace_bytes;
}

static void run_fused(const bench *b, int set)
{
    df11_linear_matrix matrices[3];
    df11_linear_options options;
    fill_product(b, set, matrices, &options);
    OK(df11_linear(matrices, 3, &options, stream, &e_));
}

static float of_bf16(uint16_t bits)
{
    uint32_t wide = (uint32_t)bits << 16;
    float value;
    memcpy(&value, &wide, 4);
    return value;
}

/* Compares products of some rows with those of 64 bits. 0 if they are not within what 32 bits can be off, which is said. */
static int verify_products(const bench *b, const uint16_t *x, const char *what)
{
    size_t bytes = 4 * (size_t)b->rows * MOST_VECTORS;
    float *y = malloc(bytes);
    uint64_t step = b->rows / COMPARED + 1, differ = 0;
    if (y == NULL) {
        fprintf(stderr, "no memory for %zu bytes\n", bytes);
        exit(1);
    }
    CUDA(cuMemsetD8Async(b->y, 0xff, bytes, stream));
    run_fused(b, b->sets - 1);
    CUDA(cuStreamSynchronize(stream));
    CUDA(cuMemcpyDtoH(y, b->y, bytes));
    for (uint32_t v = 0; v < b->vectors; v++)
        for (uint64_t row = 0; row < b->rows; row += step) {
            double exact = 0, size = 0;
            for (uint64_t c = 0; c < b->columns; c++) {
                double term = (double)of_bf16(b->data->weights[row * b->columns + c]) * of_bf16(x[v * b->columns + c]);
                exact += term;
                size += fabs(term);
            }
            /* Not less or equal, so that what is no number differs, too. */
            differ += !(fabs(y[v * b->rows + row] - exact) <= 1e-5 * size);
        }
    free(y);
    if (differ == 0)
        return 1;
    printf("  %s: %" PRIu64 " of the products that were compared are wrong\n", what, differ);
    if (json) {
        print_named(b, what);
        printf(", \"wrong\": %" PRIu64 "}\n", differ);
    }
    fflush(stdout);
    wrong++;
    return 0;
}

/* Makes the linear images of all sets. 0 if the device has not enough memory, which is said. */
static int prepare_products(bench *b)
{
    df11_linear_shape shapes[3];
    df11_linear_plan *plan;
    df11_image_info info = DF11_IMAGE_INFO_INIT;
    size_t free_bytes, all, shared = (size_t)MOST_VECTORS * (2 * (size_t)b->columns + 4 * (size_t)b->rows);
    for (int t = 0; t < 3; t++)
        shapes[t] = (df11_linear_shape){b->data->tensors[t] / b->columns, b->columns};
    OK(df11_model_plan_linear_image(b->data->model, 0, shapes, 3, 8, NULL, &plan, &e_));
    OK(df11_linear_plan_get_image_info(plan, &info, &e_));
    b->linear_bytes = (size_t)info.image_bytes;
    CUDA(cuMemGetInfo(&free_bytes, &all));
    void *image = malloc(b->linear_bytes);
    if (image == NULL || (size_t)b->sets * b->linear_bytes + 2 * shared > free_bytes / 10 * 9) {
        printf("%" PRIu64 " x %" PRIu64 ": left out, missing: memory for %d linear images of %zu bytes\n", b->rows, b->columns,
               b->sets, b->linear_bytes);
        free(image);
        df11_linear_plan_free(plan);
        return 0;
    }
    OK(df11_linear_plan_write_image(plan, image, b->linear_bytes, 8, NULL, &e_));
    df11_linear_plan_free(plan);
    for (int s = 0; s < b->sets; s++) {
        CUDA(cuMemAlloc(&b->linear[s], b->linear_bytes));
        CUDA(cuMemcpyHtoD(b->linear[s], image, b->linear_bytes));
        OK(df11_device_bind_image(machine.device, image, b->linear_bytes, b->linear[s], b->linear_bytes, &b->multiplied[s], &e_));
    }
    free(image);
    return 1;
}

/* Products of one matrix with each number of vectors, and what decoding it takes. */
static void measure_products(uint64_t rows, uint64_t columns, const char *batches)
{
    made data;
    bench b = {0};
    double spread, seconds;
    char what[96];
    if (!made_new(&data, rows * columns, 11, 8))
        exit(1);
    b.rows = rows;
    b.columns = columns;
    if (!prepare(&b, &data)) {
        made_free(&data);
        return;
    }
    if (prepare_products(&b)) {
        uint16_t *x = malloc(2 * MOST_VECTORS * (size_t)columns);
        if (x == NULL)
            exit(1);
        for (uint64_t i = 0; i < MOST_VECTORS * columns; i++) {
            float value = (float)((i + i / columns) % 19) / 16 - 0.5f;
            uint32_t bits;
            memcpy(&bits, &value, 4);
            x[i] = (uint16_t)(bits >> 16); /* exact */
        }
        b.x = device_copy(x, 2 * MOST_VECTORS * (size_t)columns);
        CUDA(cuMemAlloc(&b.y, 4 * (size_t)rows * MOST_VECTORS));
        printf("%" PRIu64 " x %" PRIu64 ", %.3f bits a weight, %d sets of images\n", rows, columns,
               8.0 * (double)b.linear_bytes / (double)data.count, b.sets);
        for (const char *at = batches; *at != 0; at += *at == ',') {
            char *end;
            df11_linear_matrix matrices[3];
            df11_linear_options options;
            b.vectors = (uint32_t)strtoul(at, &end, 10);
            if (end == at || b.vectors == 0 || b.vectors > MOST_VECTORS) {
                fprintf(stderr, "bench: --batches %s\n", batches);
                exit(2);
            }
            at = end;
            snprintf(what, sizeof(what), "fused %" PRIu64 " x %" PRIu64 ", batch %u", rows, columns, b.vectors);
            df11_error error = {0};
            if (df11_device_check_linear(machine.device, rows / 4, columns, b.vectors, &error) == DF11_UNSUPPORTED_OPTION) {
                printf("  %s: left out, %s\n", what, error.message);
                continue;
            }
            b.workspace = 0;
            b.workspace_bytes = 0;
            fill_product(&b, 0, matrices, &options);
            uint64_t workspace_bytes = 0;
            OK(df11_linear_get_workspace(matrices, 3, &options, &workspace_bytes, &e_));
            b.workspace_bytes = (size_t)workspace_bytes;
            if (b.workspace_bytes > 0)
                CUDA(cuMemAlloc(&b.workspace, b.workspace_bytes));
            if (verify_products(&b, x, what)) {
                seconds = time_of_graph(&b, run_fused, &spread);
                record(&b, what, seconds, spread, (double)b.bytes, 0, 0, 0);
            }
            if (b.workspace != 0)
                CUDA(cuMemFree(b.workspace));
        }
        snprintf(what, sizeof(what), "decode %" PRIu64 " x %" PRIu64, rows, columns);
        if (verify(&b, run_decode, what, 0, 0, data.count)) {
            seconds = time_of_graph(&b, run_decode, &spread);
            record(&b, what, seconds, spread, (double)b.bytes, 0, 0, 0);
        }
        for (int s = 0; s < b.sets; s++) {
            df11_resident_free(b.multiplied[s]);
            CUDA(cuMemFree(b.linear[s]));
        }
        CUDA(cuMemFree(b.x));
        CUDA(cuMemFree(b.y));
        free(x);
    }
    release(&b);
    made_free(&data);
}

/* All figures of one size, those that say the most first. */
static void measure(uint64_t count)
{
    made data;
    bench b = {0};
    double spread, seconds;
    if (!made_new(&data, count, 11, 8))
        exit(1);
    if (!prepare(&b, &data)) {
        made_free(&data);
        return;
    }
    printf("%" PRIu64 " weights, %.3f bits each on the device, %d sets of buffers\n", count,
           8.0 * (double)b.image_bytes / (double)count, b.sets);
    fflush(stdout);
    if (wanted("copy")) {
        double copied = 2.0 * (double)copied_half(&b);
        seconds = time_of(&b, run_copy, repeats, &spread);
        b.copy = seconds > 0 ? copied / seconds : 0;
        record(&b, "copy", seconds, spread, copied, 0, 0, 0);
    }
    if (wanted("ceiling") && machine.ceiling != NULL && verify_ceiling(&b)) {
        double moved = (double)ceiling_tiles(&b) * (UNITS_IN + UNITS_OUT) * UNIT;
        seconds = time_of(&b, run_ceiling, repeats, &spread);
        b.ceiling = seconds > 0 ? moved / seconds : 0;
        record(&b, "ceiling", seconds, spread, moved, 0, 0, 0);
    }
    int right = verify(&b, run_decode, "decode", 0, 0, count);
    if (wanted("decode") && right)
        measure_ours(&b, "decode", run_decode, 1);
    if (wanted("graph") && right)
        measure_graph(&b);
    if (wanted("tensors") && verify_tensors(&b))
        measure_ours(&b, "tensors", run_tensors, 1);
    if (wanted("batch") && verify(&b, run_batch, "batch", 0, 0, count))
        measure_ours(&b, "batch", run_batch, in_batch(&b));
    if (wanted("chunks") && right && machine.multiply != NULL)
        measure_chunks(&b);
    if (wanted("range") && verify(&b, run_range, "range", 0, 1, count - 2))
        measure_ours(&b, "range", run_range, 1);
    if (wanted("odd") && verify(&b, run_odd, "odd", 2, 0, count))
        measure_ours(&b, "odd", run_odd, 1);
    for (int i = 0; i < machine.peer_count; i++) {
        b.peer = &machine.peers[i];
        if (wanted(b.peer->name) && verify(&b, run_peer, b.peer->name, 0, 0, count)) {
            seconds = time_of(&b, run_peer, repeats, &spread);
            record(&b, b.peer->name, seconds, spread, (double)b.bytes, 0, 0, 0);
        }
    }
    if (wanted("pinned")) {
        seconds = time_of(&b, run_pinned, repeats / 4 + 3, &spread);
        record(&b, "pinned", seconds, spread, (double)b.bytes, 0, 0, 0);
    }
    static const struct {
        const char *name, *what;
        operation run;
    } calls[] = {{"decode", "host time, decode", run_decode},
                 {"range", "host time, range", run_range},
                 {"tensors", "host time, tensors", run_tensors},
                 {"batch", "host time, batch", run_batch}};
    for (size_t i = 0; wanted("host") && i < sizeof(calls) / sizeof(*calls); i++) {
        seconds = host_time(&b, calls[i].run);
        printf("  host time of a call, %-8s %6.2f us\n", calls[i].name, seconds * 1e6);
        if (json) {
            print_named(&b, calls[i].what);
            printf(", \"seconds\": %.9f}\n", seconds);
        }
        fflush(stdout);
    }
    release(&b);
    made_free(&data);
}

/* A kernel from a file: the text of PTX, a cubin, or a fat binary. One that the driver does not take is named and NULL. */
static CUfunction load_kernel(const char *path, const char *name)
{
    CUmodule module;
    CUfunction function = NULL;
    FILE *file = fopen(path, "rb");
    char *image;
    long bytes;
    if (file == NULL || fseek(file, 0, SEEK_END) != 0 || (bytes = ftell(file)) < 0 || fseek(file, 0, SEEK_SET) != 0 ||
        (image = calloc(1, (size_t)bytes + 1)) == NULL || fread(image, 1, (size_t)bytes, file) != (size_t)bytes) {
        fprintf(stderr, "cannot read %s\n", path);
        exit(1);
    }
    fclose(file);
    CUresult result = cuModuleLoadData(&module, image);
    if (result == 0)
        result = cuModuleGetFunction(&function, module, name);
    if (result != 0) {
        printf("the driver does not take %s: error %d\n", path, result);
        fflush(stdout);
        wrong++;
    }
    free(image);
    return function;
}

/* Loads the kernel that multiplies. A driver that does not take it is named. */
static void load_multiply(void)
{
    CUmodule module;
    CUresult result = cuModuleLoadData(&module, MULTIPLY_PTX);
    if (result == 0)
        result = cuModuleGetFunction(&machine.multiply, module, "multiply");
    /* A graph may have a function that is loaded, and this loads it. */
    if (result == 0)
        result = cuFuncSetAttribute(machine.multiply, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, 0);
    if (result != 0) {
        printf("the driver does not take the kernel that multiplies: error %d\n", result);
        fflush(stdout);
        machine.multiply = NULL;
        wrong++;
    }
}

/* Adds a kernel with the reference's parameters, if it can be loaded. The name ends at its first '='. */
static void add_peer(const char *name, const char *path)
{
    peer *p = &machine.peers[machine.peer_count];
    snprintf(p->name, sizeof(p->name), "%.*s", (int)strcspn(name, "="), name);
    p->function = load_kernel(path, "decode");
    machine.peer_count += p->function != NULL;
}

/* The library's log: what it says about kernels and blocks is part of the result. */
static void on_log(void *user, int32_t level, const char *message, size_t length)
{
    (void)user, (void)level, (void)length;
    printf("  log: %s\n", message);
    if (json) {
        printf("{\"what\": \"log\", \"text\": ");
        print_text(message);
        printf("}\n");
    }
    fflush(stdout);
}

/* Reads ROWSxCOLUMNS, and moves `at` behind it. 0 if that is not there, or not what can be measured. */
static int next_shape(const char **at, unsigned long long *rows, unsigned long long *columns)
{
    char *end;
    *rows = strtoull(*at, &end, 10);
    *columns = *end == 'x' ? strtoull(end + 1, &end, 10) : 0;
    *at = end;
    return *rows > 0 && *rows % 4 == 0 && *columns > 0;
}

int main(int argc, char **argv)
{
    const char *millions = "128,8,512", *shapes = NULL, *batches = "1,2,4,8", *ceiling_path = NULL, *names[MOST_KERNELS], *paths[MOST_KERNELS];
    int ordinal = 0, ptx = 0, version = 0, cache = 0, major = 0, minor = 0, multiprocessors = 0, kernel_count = 0;
    char name[256] = "";
    CUcontext context;
    CUdevice cuda_device;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--ptx") == 0)
            ptx = 1;
        else if (strcmp(argv[i], "--json") == 0)
            json = 1;
        else if (i + 1 == argc) {
            fprintf(stderr, "usage: bench [--device N] [--ptx] [--millions 128,8] [--repeats N] [--only NAMES] [--json]\n"
                            "             [--ceiling PTX] [--reference PTX] [--kernel NAME=FILE]...\n"
                            "             [--products 4096x4096,...] [--batches 1,2,4,8]\n");
            return 2;
        } else if (strcmp(argv[i], "--device") == 0)
            ordinal = atoi(argv[++i]);
        else if (strcmp(argv[i], "--millions") == 0)
            millions = argv[++i];
        else if (strcmp(argv[i], "--products") == 0)
            shapes = argv[++i];
        else if (strcmp(argv[i], "--batches") == 0)
            batches = argv[++i];
        else if (strcmp(argv[i], "--repeats") == 0)
            repeats = atoi(argv[++i]);
        else if (strcmp(argv[i], "--only") == 0)
            only = argv[++i];
        else if (strcmp(argv[i], "--ceiling") == 0)
            ceiling_path = argv[++i];
        else if (strcmp(argv[i], "--reference") == 0 || strcmp(argv[i], "--kernel") == 0) {
            /* The reference's own has no name before its path. */
            int named = strcmp(argv[i++], "--kernel") == 0;
            const char *equals = named ? strchr(argv[i], '=') : NULL;
            if (kernel_count == MOST_KERNELS || (named && equals == NULL)) {
                fprintf(stderr, "bench: --kernel takes NAME=FILE, %d times at most\n", MOST_KERNELS);
                return 2;
            }
            names[kernel_count] = named ? argv[i] : "reference";
            paths[kernel_count++] = named ? equals + 1 : argv[i];
        } else {
            fprintf(stderr, "bench: unknown option %s\n", argv[i]);
            return 2;
        }
    }
    unsigned long long rows = 0, columns = 0;
    for (const char *at = shapes; at != NULL && *at != 0; at += *at == ',')
        if (!next_shape(&at, &rows, &columns)) {
            fprintf(stderr, "bench: --products %s: ROWSxCOLUMNS, the rows a multiple of 4\n", shapes);
            return 2;
        }
    if (shapes != NULL)
        only = "products"; /* and nothing of the list above */
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
    CUDA(cuDeviceGetAttribute(&multiprocessors, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, cuda_device));
    CUDA(cuDevicePrimaryCtxRetain(&context, cuda_device));
    CUDA(cuCtxSetCurrent(context));
    CUDA(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
    df11_device_options options = DF11_DEVICE_OPTIONS_INIT;
    if (ptx)
        options.flags |= DF11_DEVICE_FORCE_PTX;
    df11_log_set(on_log, DF11_LOG_DEBUG, NULL);
    OK(df11_device_open(ordinal, &options, &machine.device, &e_));
    df11_log_set(NULL, DF11_LOG_OFF, NULL);
    df11_device_info info = DF11_DEVICE_INFO_INIT;
    OK(df11_device_get_info(machine.device, &info, &e_));
    machine.cache = (size_t)cache;
    printf("libdf11 %s, %s, compute capability %d.%d, driver %d.%d, kernels: %s\n", df11_version_string(), name, major,
           minor, version / 1000, version % 1000 / 10, info.kernels);
    if (repeats < 1)
        repeats = 1;
    if (json) {
        printf("{\"what\": \"device\", \"device\": ");
        print_text(name);
        printf(", \"capability\": \"%d.%d\", \"multiprocessors\": %d, \"l2_bytes\": %d, \"driver\": %d, \"libdf11\": \"%s\", "
               "\"kernels\": \"%s\", \"repeats\": %d, \"library\": ",
               major, minor, multiprocessors, cache, version, df11_version_string(), info.kernels, repeats);
        /* Of several builds beside each other, this is the one that was measured. */
        Dl_info library;
        print_text(dladdr(df11_version_string(), &library) != 0 ? library.dli_fname : "");
        printf("}\n");
    }
    fflush(stdout);
    if (ceiling_path != NULL) {
        int blocks = 0;
        machine.ceiling = load_kernel(ceiling_path, "df11_ceiling");
        if (machine.ceiling != NULL)
            CUDA(cuOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, machine.ceiling, CEILING_THREADS, 0));
        machine.ceiling_blocks = (unsigned)(blocks * multiprocessors);
    }
    if (wanted("chunks"))
        load_multiply();
    for (int i = 0; i < kernel_count; i++)
        add_peer(names[i], paths[i]);
    for (const char *at = shapes; at != NULL && *at != 0; at += *at == ',')
        if (next_shape(&at, &rows, &columns))
            measure_products(rows, columns, batches);
    for (const char *at = shapes == NULL ? millions : ""; *at != 0; at += *at == ',') {
        char *end;
        double count = strtod(at, &end);
        if (end == at || count <= 0) {
            fprintf(stderr, "bench: --millions %s\n", millions);
            return 2;
        }
        measure((uint64_t)(count * 1e6));
        at = end;
    }
    df11_device_free(machine.device);
    CUDA(cuStreamDestroy(stream));
    CUDA(cuDevicePrimaryCtxRelease(cuda_device));
    if (wrong > 0)
        printf("%d answers or kernels are wrong\n", wrong);
    return wrong > 0;
}
