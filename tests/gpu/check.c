/*
 * Decodes models on a CUDA device in every way that the library offers and compares every bit with the CPU's decoding:
 * whole groups, ranges, tensors, batches, inside a captured graph, on two streams at once and on the two default streams;
 * images by upload and by bind, in device memory and in pinned memory of the host; images that were corrupted on their way.
 *
 *     check [--device N] [--ptx] [--quick] [--capture] [--parts] [--large WEIGHTS] MODEL...
 *
 * --ptx takes the library's PTX even where it has machine code for the device. --quick does less of everything, for tools
 * that slow a kernel a hundredfold. --capture opens the device, which loads the kernels, and uploads a group while another
 * thread captures a stream in global mode. --parts also decodes in a part of the device: on a stream of a green context, if
 * the driver has them, and with a limit on multiprocessors. --large adds a generated group of that many weights.
 *
 * Runs on a real GPU and, as any program of the driver API does, on a driver that DF11_LIBCUDA names. Prints a line for
 * each model, what of each kind passed and failed, and at last "N passed, N failed". A difference is counted, and the checks
 * go on; the first few of each kind are printed. Whatever ends the program early, these lines are its last, with the kind of
 * check that it was in. Status 0 if nothing failed.
 */
#define _POSIX_C_SOURCE 200809L
#include "driver.h"
#include "made.h"

#include <pthread.h>
#include <signal.h>
#include <unistd.h>

enum { GUARD = 4096, MOST_SHOWN = 3 };

/* The kinds of checks, which are counted separately. */
#define KINDS(KIND)                                                                                                   \
    KIND(CAPTURED_OPEN, "opened and uploaded beside a capture")                                                       \
    KIND(UPLOAD, "uploaded image")                                                                                    \
    KIND(WHOLE, "whole group")                                                                                        \
    KIND(RANGE, "range")                                                                                              \
    KIND(TENSORS, "tensors")                                                                                          \
    KIND(BIND, "bound image")                                                                                         \
    KIND(BATCH, "batch")                                                                                              \
    KIND(GRAPH, "replayed graph")                                                                                     \
    KIND(STREAMS, "two streams")                                                                                      \
    KIND(DEFAULT_STREAMS, "default streams")                                                                          \
    KIND(PINNED, "pinned host memory")                                                                                \
    KIND(GREEN, "green context")                                                                                      \
    KIND(LIMIT, "limit on multiprocessors")                                                                           \
    KIND(STATUS, "status")                                                                                            \
    KIND(CORRUPTED, "corrupted image")                                                                                \
    KIND(AGAIN, "second context")

#define KIND_NUMBER(kind, text) kind,
#define KIND_TEXT(kind, text) text,
enum { KINDS(KIND_NUMBER) KIND_COUNT };
static const char *const kinds[] = {KINDS(KIND_TEXT)};

static df11_device *device;
static CUstream streams[2];
static int quick, parts;
static int ordinal;
static CUdevice cuda_device;
static df11_device_options options = DF11_DEVICE_OPTIONS_INIT;
static volatile sig_atomic_t kind; /* of the check that runs */
static unsigned long passed[KIND_COUNT], failed[KIND_COUNT];
static int complete;
static uint64_t state = 0x5eed;

/* Counts a check; the caller prints what is wrong if it is to be shown. */
static int count_check(int good)
{
    if (good) {
        passed[kind]++;
        return 0;
    }
    return ++failed[kind] <= MOST_SHOWN;
}

#define CHECK(condition, ...)                                                                                         \
    do {                                                                                                              \
        if (count_check(condition)) {                                                                                 \
            printf("FAILED %s, line %d: %s: ", kinds[kind], __LINE__, #condition);                                    \
            printf(__VA_ARGS__);                                                                                      \
            printf("\n");                                                                                             \
            fflush(stdout);                                                                                           \
        }                                                                                                             \
    } while (0)

/* Makes a call of the library, whose last argument is `&e_`, as part of a check. An error fails the check, and the value is 0. */
#define TRY(call) tried((call), #call, __LINE__)

static df11_error e_;

static int tried(df11_status status, const char *call, int line)
{
    if (status == DF11_OK)
        return 1;
    if (count_check(0)) {
        printf("FAILED %s, line %d: %s: %s: %s\n", kinds[kind], line, call, df11_status_name(status), e_.message);
        fflush(stdout);
    }
    return 0;
}

static unsigned long sum(const unsigned long *counts)
{
    unsigned long all = 0;
    for (int k = 0; k < KIND_COUNT; k++)
        all += counts[k];
    return all;
}

/* The last lines, also of a check that a call of exit() ends. */
static void summarise(void)
{
    if (!complete) {
        printf("ended early, in: %s\n", kinds[kind]);
        failed[kind]++;
    }
    for (int k = 0; k < KIND_COUNT; k++)
        if (passed[k] + failed[k] > 0)
            printf("  %-38s %6lu passed, %lu failed\n", kinds[k], passed[k], failed[k]);
    printf("%lu passed, %lu failed\n", sum(passed), sum(failed));
    fflush(stdout);
}

/* Whoever ends a check that hangs learns where it hangs. */
static void on_term(int signal)
{
    (void)signal;
    static const char said[] = "ended from outside, in: ";
    const char *text = kinds[kind];
    if (write(STDOUT_FILENO, said, sizeof(said) - 1) < 0 || write(STDOUT_FILENO, text, strlen(text)) < 0 ||
        write(STDOUT_FILENO, "\n", 1) < 0)
        _exit(2);
    _exit(1);
}

static void *allocate(size_t bytes)
{
    void *memory = calloc(bytes ? bytes : 1, 1);
    if (memory == NULL) {
        fprintf(stderr, "no memory for %zu bytes\n", bytes);
        exit(1);
    }
    return memory;
}

/* Memory for an answer, of the device or pinned, with guard bytes before and after it. */
typedef struct {
    CUdeviceptr base;
    void *pinned; /* NULL for memory of the device */
    uint64_t bytes;
    unsigned shift; /* of the answer, in bytes, for destinations that are not aligned to more than two */
} answer;

static answer answer_new(uint64_t bytes, unsigned shift)
{
    answer a = {0, NULL, bytes, shift};
    CUDA(cuMemAlloc(&a.base, bytes + 2 * GUARD + 256));
    return a;
}

/* The same in pinned memory, which has one address for host and device. */
static answer answer_pinned(uint64_t bytes)
{
    answer a = {0, NULL, bytes, 0};
    CUDA(cuMemHostAlloc(&a.pinned, bytes + 2 * GUARD + 256, 0));
    a.base = (CUdeviceptr)(uintptr_t)a.pinned;
    return a;
}

static CUdeviceptr answer_at(const answer *a)
{
    return a->base + GUARD + a->shift;
}

/* Fills it with what no answer looks like. Memory of the host must not be in use. */
static void answer_poison(const answer *a, CUstream stream)
{
    size_t all = a->bytes + 2 * GUARD + 256;
    if (a->pinned != NULL)
        memset(a->pinned, 0xc5, all);
    else
        CUDA(cuMemsetD8Async(a->base, 0xc5, all, stream));
}

/* Waits, and compares the answer and what surrounds it. */
static void answer_check(const answer *a, const void *want, CUstream stream, const char *what, const char *name)
{
    size_t all = a->bytes + 2 * GUARD + 256, before = GUARD + a->shift, end = before + (size_t)a->bytes;
    size_t differ = 0, first = 0;
    uint8_t *got = allocate(all);
    CUDA(cuStreamSynchronize(stream));
    if (a->pinned != NULL)
        memcpy(got, a->pinned, all);
    else
        CUDA(cuMemcpyDtoH(got, a->base, all));
    /* An answer that is right, and may be large, is passed over at once. */
    int right = memcmp(got + before, want, (size_t)a->bytes) == 0;
    for (size_t i = 0; i < all; i = right && i + 1 == before ? end : i + 1) {
        uint8_t expected = i >= before && i < end ? ((const uint8_t *)want)[i - before] : 0xc5;
        if (got[i] != expected && differ++ == 0)
            first = i;
    }
    CHECK(differ == 0, "%s of '%s': %zu of %" PRIu64 " bytes differ, the first is byte %lld of the destination: %02x", what,
          name, differ, a->bytes, (long long)first - (long long)before, got[first]);
    free(got);
}

static void answer_free(answer *a)
{
    if (a->pinned != NULL)
        CUDA(cuMemFreeHost(a->pinned));
    else
        CUDA(cuMemFree(a->base));
    a->base = 0;
}

static CUdeviceptr word_new(void)
{
    CUdeviceptr word;
    CUDA(cuMemAlloc(&word, 256));
    CUDA(cuMemsetD8Async(word, 0, 256, streams[0]));
    CUDA(cuStreamSynchronize(streams[0]));
    return word;
}

static uint32_t word_read(CUdeviceptr word, CUstream stream)
{
    uint32_t value;
    CUDA(cuStreamSynchronize(stream));
    CUDA(cuMemcpyDtoH(&value, word, sizeof(value)));
    return value;
}

/* One group on the device. */
typedef struct {
    df11_group_info info;
    CUdeviceptr image;
    df11_resident *resident;
    uint16_t *want;
} group;

/* 0 if the group could not be uploaded. */
static int group_load(group *g, const df11_model *model, uint64_t number)
{
    kind = UPLOAD;
    g->info = (df11_group_info)DF11_GROUP_INFO_INIT;
    OK(df11_model_get_group_info(model, number, &g->info, &e_));
    size_t bytes = (size_t)g->info.image_bytes, differ = 0, first = 0;
    uint8_t *by_host = allocate(bytes), *by_device = allocate(bytes);
    g->want = allocate(2 * (size_t)g->info.element_count);
    OK(df11_model_decompress(model, number, 0, g->info.element_count, g->want, 2 * (size_t)g->info.element_count, 4, &e_));
    OK(df11_model_write_image(model, number, by_host, bytes, &e_));

    /* The device makes the same image of the file's bytes as the host does. */
    CUDA(cuMemAlloc(&g->image, bytes));
    /* Bytes that an upload forgets show as these. Not for the sanitizers: initcheck is to see whatever is read too early. */
    if (!quick)
        CUDA(cuMemsetD8Async(g->image, 0xc5, bytes, streams[0]));
    if (TRY(df11_device_upload(device, model, number, g->image, bytes, streams[0], &g->resident, &e_))) {
        CUDA(cuStreamSynchronize(streams[0]));
        CUDA(cuMemcpyDtoH(by_device, g->image, bytes));
        if (memcmp(by_device, by_host, bytes) != 0)
            for (size_t i = 0; i < bytes; i++)
                if (by_device[i] != by_host[i] && differ++ == 0)
                    first = i;
        CHECK(differ == 0, "%zu of %zu bytes of the image of '%s' differ, the first is byte %zu: %02x on the device, %02x here",
              differ, bytes, g->info.name, first, by_device[first], by_host[first]);
        /* What follows is about decoding: an image that the device got wrong is replaced. */
        if (differ != 0)
            CUDA(cuMemcpyHtoD(g->image, by_host, bytes));
    }
    free(by_device);
    free(by_host);
    return g->resident != NULL;
}

static void group_free(group *g)
{
    df11_resident_free(g->resident);
    CUDA(cuMemFree(g->image));
    free(g->want);
}

static void check_whole(const group *g, CUdeviceptr word)
{
    kind = WHOLE;
    static const unsigned shifts[] = {0, 2, 8, 14, 16};
    uint64_t bytes = 2 * g->info.element_count;
    for (unsigned s = 0; s < (quick ? 2 : 5); s++) {
        answer a = answer_new(bytes, shifts[s]);
        answer_poison(&a, streams[0]);
        if (TRY(df11_resident_decompress(g->resident, answer_at(&a), (size_t)bytes, word, streams[0], &e_)))
            answer_check(&a, g->want, streams[0], "the whole", g->info.name);
        answer_free(&a);
    }
}

static void check_range(const group *g, uint64_t first, uint64_t count, CUdeviceptr word)
{
    answer a = answer_new(2 * count, 2 * (unsigned)(made_next(&state) % 8));
    answer_poison(&a, streams[0]);
    if (TRY(df11_resident_decompress_range(g->resident, first, count, answer_at(&a), (size_t)(2 * count), word, streams[0],
                                           &e_)))
        answer_check(&a, g->want + first, streams[0], "a range", g->info.name);
    answer_free(&a);
}

static void check_ranges(const group *g, CUdeviceptr word)
{
    uint64_t n = g->info.element_count;
    kind = RANGE;
    check_range(g, 0, 1, word);
    check_range(g, n - 1, 1, word);
    for (int i = 0; i < (quick ? 3 : 24); i++) {
        uint64_t first = made_next(&state) % n, most = i % 2 ? n - first : 5000;
        uint64_t count = 1 + made_next(&state) % (most < n - first ? most : n - first);
        check_range(g, first, count, word);
    }
}

static void check_tensors(const group *g, const df11_model *model, CUdeviceptr word)
{
    size_t count = (size_t)g->info.tensor_count;
    kind = TENSORS;
    answer *answers = allocate(count * sizeof(*answers));
    df11_devptr *addresses = allocate(count * sizeof(*addresses));
    size_t *bytes = allocate(count * sizeof(*bytes));
    df11_tensor_info info = DF11_TENSOR_INFO_INIT;
    for (size_t t = 0; t < count; t++) {
        OK(df11_model_get_tensor_info(model, g->info.first_tensor + t, &info, &e_));
        answers[t] = answer_new(info.data_bytes, t % 3 == 2 ? 6 : 0);
        answer_poison(&answers[t], streams[0]);
        addresses[t] = answer_at(&answers[t]);
        bytes[t] = (size_t)info.data_bytes;
    }
    int done = TRY(df11_resident_decompress_tensors(g->resident, addresses, bytes, count, word, streams[0], &e_));
    for (size_t t = 0; t < count; t++) {
        OK(df11_model_get_tensor_info(model, g->info.first_tensor + t, &info, &e_));
        if (done)
            answer_check(&answers[t], g->want + info.group_offset, streams[0], "a tensor", info.name);
        answer_free(&answers[t]);
    }
    free(bytes);
    free(addresses);
    free(answers);
}

static void check_batch(const group *groups, size_t count, CUdeviceptr word)
{
    const df11_resident **residents = allocate(count * sizeof(*residents));
    answer *answers = allocate(count * sizeof(*answers));
    df11_devptr *addresses = allocate(count * sizeof(*addresses));
    size_t *bytes = allocate(count * sizeof(*bytes));
    CUdeviceptr words;
    kind = BATCH;
    CUDA(cuMemAlloc(&words, 4 * count));
    CUDA(cuMemsetD8Async(words, 0, 4 * count, streams[0]));
    for (size_t i = 0; i < count; i++) {
        bytes[i] = 2 * (size_t)groups[i].info.element_count;
        answers[i] = answer_new(bytes[i], 0);
        answer_poison(&answers[i], streams[0]);
        residents[i] = groups[i].resident;
        addresses[i] = answer_at(&answers[i]);
    }
    int done = TRY(df11_resident_decompress_batch(residents, addresses, bytes, count, words, streams[0], &e_));
    for (size_t i = 0; i < count; i++) {
        if (done) {
            answer_check(&answers[i], groups[i].want, streams[0], "a batch's group", groups[i].info.name);
            CHECK(word_read(words + 4 * i, streams[0]) == 0, "status of group %zu", i);
        }
        answer_free(&answers[i]);
    }
    CUDA(cuMemFree(words));
    CHECK(word_read(word, streams[0]) == 0, "status");
    free(bytes);
    free(addresses);
    free(answers);
    free(residents);
}

/* Every group into one buffer, captured once and replayed: as an engine does that has its forward pass in a graph. */
static void check_graph(const group *groups, size_t count, CUdeviceptr word)
{
    CUgraph graph;
    CUgraphExec executable;
    answer *answers = allocate(count * sizeof(*answers));
    kind = GRAPH;
    for (size_t i = 0; i < count; i++)
        answers[i] = answer_new(2 * groups[i].info.element_count, 0);
    CUDA(cuStreamBeginCapture(streams[0], CU_STREAM_CAPTURE_MODE_GLOBAL));
    for (size_t i = 0; i < count; i++)
        TRY(df11_resident_decompress(groups[i].resident, answer_at(&answers[i]), (size_t)answers[i].bytes, word, streams[0],
                                     &e_));
    CUDA(cuStreamEndCapture(streams[0], &graph));
    CUDA(cuGraphInstantiateWithFlags(&executable, graph, 0));
    for (int replay = 0; replay < 2; replay++) {
        for (size_t i = 0; i < count; i++)
            answer_poison(&answers[i], streams[1]);
        CUDA(cuStreamSynchronize(streams[1]));
        CUDA(cuGraphLaunch(executable, streams[1]));
        for (size_t i = 0; i < count; i++)
            answer_check(&answers[i], groups[i].want, streams[1], "a replayed graph's group", groups[i].info.name);
    }
    CUDA(cuGraphExecDestroy(executable));
    CUDA(cuGraphDestroy(graph));
    for (size_t i = 0; i < count; i++)
        answer_free(&answers[i]);
    free(answers);
}

/* The same image decoded on two streams that do not wait for each other. */
static void check_streams(const group *g, CUdeviceptr word)
{
    uint64_t bytes = 2 * g->info.element_count;
    answer answers[2] = {answer_new(bytes, 0), answer_new(bytes, 2)};
    kind = STREAMS;
    for (int s = 0; s < 2; s++)
        answer_poison(&answers[s], streams[s]);
    for (int round = 0; round < 4; round++)
        for (int s = 0; s < 2; s++)
            TRY(df11_resident_decompress(g->resident, answer_at(&answers[s]), (size_t)bytes, word, streams[s], &e_));
    for (int s = 0; s < 2; s++) {
        answer_check(&answers[s], g->want, streams[s], "one of two streams' answer", g->info.name);
        answer_free(&answers[s]);
    }
}

/* CU_STREAM_LEGACY and CU_STREAM_PER_THREAD, which are numbers and no handles. */
static void check_default_streams(const group *g, CUdeviceptr word)
{
    uint64_t bytes = 2 * g->info.element_count;
    kind = DEFAULT_STREAMS;
    for (uintptr_t number = 1; number <= 2; number++) {
        CUstream stream = (CUstream)number;
        answer a = answer_new(bytes, 0);
        answer_poison(&a, stream);
        if (TRY(df11_resident_decompress(g->resident, answer_at(&a), (size_t)bytes, word, stream, &e_)))
            answer_check(&a, g->want, stream, number == 1 ? "on stream 0x1, the whole" : "on stream 0x2, the whole", g->info.name);
        answer_free(&a);
    }
}

/* Image and destination in pinned memory of the host, which the kernel reads and writes over the bus. */
static void check_pinned(const group *g, const df11_model *model, uint64_t number, CUdeviceptr word)
{
    size_t image_bytes = (size_t)g->info.image_bytes, bytes = 2 * (size_t)g->info.element_count;
    void *image;
    df11_resident *resident = NULL;
    kind = PINNED;
    CUDA(cuMemHostAlloc(&image, image_bytes, 0));
    OK(df11_model_write_image(model, number, image, image_bytes, &e_));
    if (TRY(df11_device_bind(device, model, number, (df11_devptr)(uintptr_t)image, image_bytes, &resident, &e_))) {
        answer a = answer_pinned(bytes);
        answer_poison(&a, streams[0]);
        if (TRY(df11_resident_decompress(resident, answer_at(&a), bytes, word, streams[0], &e_)))
            answer_check(&a, g->want, streams[0], "in pinned memory, the whole", g->info.name);
        answer_free(&a);
    }
    df11_resident_free(resident);
    CUDA(cuMemFreeHost(image));
}

/* CUdevResource, of which the size and these fields are fixed. */
typedef struct {
    unsigned type;
    unsigned char reserved[92];
    unsigned multiprocessors;
    unsigned rest[11];
} resource;

/* On a stream of a green context, which is a part of the device's multiprocessors. */
static void check_green(const group *g, CUdeviceptr word)
{
    CUresult (*get)(CUdevice, resource *, unsigned type);
    CUresult (*split)(resource *parts, unsigned *count, const resource *all, resource *rest, unsigned flags, unsigned least);
    CUresult (*describe)(void **description, resource *, unsigned count);
    CUresult (*create)(void **green, void *description, CUdevice, unsigned flags);
    CUresult (*create_stream)(CUstream *, void *green, unsigned flags, int priority);
    CUresult (*destroy)(void *green);
    const struct {
        void *pointer;
        const char *name;
    } calls[] = {{&get, "cuDeviceGetDevResource"},       {&split, "cuDevSmResourceSplitByCount"},
                 {&describe, "cuDevResourceGenerateDesc"}, {&create, "cuGreenCtxCreate"},
                 {&create_stream, "cuGreenCtxStreamCreate"}, {&destroy, "cuGreenCtxDestroy"}};
    resource all = {0}, part = {0}, rest = {0};
    unsigned count = 1;
    void *description, *green = NULL;
    CUstream stream = NULL;
    kind = GREEN;
    for (size_t i = 0; i < sizeof(calls) / sizeof(*calls); i++) {
        void *found = dlsym(cuda_library, calls[i].name);
        if (found == NULL) {
            printf("green contexts: left out, the driver has no %s\n", calls[i].name);
            return;
        }
        memcpy(calls[i].pointer, &found, sizeof(found));
    }
    /* 1: multiprocessors, of which 8 is the least that devices of capability 9.0 give; 1: with a default stream */
    CUresult result = get(cuda_device, &all, 1);
    if (result == 0)
        result = split(&part, &count, &all, &rest, 0, 8);
    if (result == 0)
        result = describe(&description, &part, 1);
    if (result == 0)
        result = create(&green, description, cuda_device, 1);
    if (result == 0)
        result = create_stream(&stream, green, CU_STREAM_NON_BLOCKING, 0);
    if (result == 0) {
        uint64_t bytes = 2 * g->info.element_count;
        answer a = answer_new(bytes, 0);
        printf("a green context of %u of %u multiprocessors\n", part.multiprocessors, all.multiprocessors);
        answer_poison(&a, streams[0]);
        CUDA(cuStreamSynchronize(streams[0]));
        if (TRY(df11_resident_decompress(g->resident, answer_at(&a), (size_t)bytes, word, stream, &e_)))
            answer_check(&a, g->want, stream, "in a green context, the whole", g->info.name);
        answer_free(&a);
        CUDA(cuStreamDestroy(stream));
    } else
        printf("green contexts: left out, the driver makes none of this device: error %d\n", result);
    if (green != NULL)
        CUDA(destroy(green));
}

/* By a device that may take the room of one multiprocessor only. */
static void check_limit(const group *g, const df11_model *model, uint64_t number, CUdeviceptr word)
{
    size_t bytes = 2 * (size_t)g->info.element_count;
    df11_device_options limited = options;
    df11_device *small = NULL;
    df11_resident *resident = NULL;
    kind = LIMIT;
    limited.multiprocessors = 1;
    if (TRY(df11_device_open(ordinal, &limited, &small, &e_)) &&
        TRY(df11_device_bind(small, model, number, g->image, (size_t)g->info.image_bytes, &resident, &e_))) {
        answer a = answer_new(bytes, 0);
        answer_poison(&a, streams[0]);
        if (TRY(df11_resident_decompress(resident, answer_at(&a), bytes, word, streams[0], &e_)))
            answer_check(&a, g->want, streams[0], "with a limit, the whole", g->info.name);
        answer_free(&a);
    }
    df11_resident_free(resident);
    df11_device_free(small);
}

/* An engine moves the image by itself and binds it: with the model at hand and without. */
static void check_bind(const group *g, const df11_model *model, uint64_t number, CUdeviceptr word)
{
    size_t image_bytes = (size_t)g->info.image_bytes, bytes = 2 * (size_t)g->info.element_count;
    void *image = allocate(image_bytes);
    CUdeviceptr moved;
    kind = BIND;
    OK(df11_model_write_image(model, number, image, image_bytes, &e_));
    CUDA(cuMemAlloc(&moved, image_bytes));
    CUDA(cuMemcpyHtoDAsync(moved, image, image_bytes, streams[0]));
    for (int without = 0; without < 2; without++) {
        df11_resident *resident = NULL;
        answer a = answer_new(bytes, 0);
        int bound = without ? TRY(df11_device_bind_image(device, image, image_bytes, moved, image_bytes, &resident, &e_))
                            : TRY(df11_device_bind(device, model, number, moved, image_bytes, &resident, &e_));
        answer_poison(&a, streams[0]);
        if (bound && TRY(df11_resident_decompress(resident, answer_at(&a), bytes, word, streams[0], &e_)))
            answer_check(&a, g->want, streams[0], "a bound image", g->info.name);
        df11_resident_free(resident);
        answer_free(&a);
    }
    CUDA(cuMemFree(moved));
    free(image);
}

/*
 * An image that something overwrote on its way to the device: whatever comes out, the device continues, and nothing but the
 * destination is written. (That the answer is wrong cannot be promised: a sign's bit may flip unnoticed.)
 */
static void check_corrupted(const group *g)
{
    size_t image_bytes = (size_t)g->info.image_bytes;
    uint64_t bytes = 2 * g->info.element_count;
    uint8_t *image = allocate(image_bytes), *got = allocate((size_t)bytes + 2 * GUARD + 256);
    CUdeviceptr word = word_new();
    unsigned reported = 0;
    int rounds = quick ? 2 : 8;
    kind = CORRUPTED;
    CUDA(cuMemcpyDtoH(image, g->image, image_bytes));
    for (int round = 0; round < rounds; round++) {
        uint8_t *bad = allocate(image_bytes);
        answer a = answer_new(bytes, 0);
        memcpy(bad, image, image_bytes);
        /* a stretch of noise anywhere after the header, then all of it */
        size_t first = 256 + (size_t)(made_next(&state) % (image_bytes - 256)), length = image_bytes / 16 + 1;
        if (round == rounds - 1)
            first = 256, length = image_bytes;
        for (size_t i = first; i < image_bytes && i < first + length; i++)
            bad[i] = (uint8_t)made_next(&state);
        CUDA(cuMemcpyHtoD(g->image, bad, image_bytes));
        answer_poison(&a, streams[0]);
        CUDA(cuMemsetD8Async(word, 0, 4, streams[0]));
        TRY(df11_resident_decompress(g->resident, answer_at(&a), (size_t)bytes, word, streams[0], &e_));
        uint32_t status = word_read(word, streams[0]);
        CHECK(status == 0 || status == DF11_CORRUPT, "status %u", status);
        reported += status != 0;
        CUDA(cuMemcpyDtoH(got, a.base, (size_t)bytes + 2 * GUARD + 256));
        int touched = 0;
        for (int i = 0; i < GUARD; i++)
            touched += got[i] != 0xc5 || got[GUARD + bytes + (unsigned)i] != 0xc5;
        CHECK(touched == 0, "%d guard bytes were written", touched);
        answer_free(&a);
        free(bad);
    }
    CHECK(reported > 0, "noise in the whole image went unnoticed");
    CUDA(cuMemcpyHtoD(g->image, image, image_bytes));
    CUDA(cuMemFree(word));
    free(got);
    free(image);
}

static void check_model(const df11_model *model, const char *name)
{
    size_t all = (size_t)df11_model_group_count(model), count = 0;
    group *groups = allocate(all * sizeof(*groups));
    size_t *numbers = allocate(all * sizeof(*numbers));
    CUdeviceptr word = word_new();
    uint64_t weights = 0;
    unsigned long before = sum(passed), bad = sum(failed);
    for (size_t i = 0; i < all; i++) {
        numbers[count] = i;
        count += group_load(&groups[count], model, i) ? 1 : 0;
    }
    for (size_t i = 0; i < count; i++) {
        weights += groups[i].info.element_count;
        check_whole(&groups[i], word);
        check_ranges(&groups[i], word);
        check_tensors(&groups[i], model, word);
        check_bind(&groups[i], model, numbers[i], word);
    }
    if (count > 0) {
        check_batch(groups, count, word);
        check_graph(groups, count, word);
        check_streams(&groups[0], word);
        check_default_streams(&groups[0], word);
        check_pinned(&groups[0], model, numbers[0], word);
        if (parts) {
            check_green(&groups[0], word);
            check_limit(&groups[0], model, numbers[0], word);
        }
        kind = STATUS;
        CHECK(word_read(word, streams[0]) == 0, "a good model's status");
        check_corrupted(&groups[0]);
        check_whole(&groups[0], word); /* the device is as well as before */
    }
    for (size_t i = 0; i < count; i++)
        group_free(&groups[i]);
    CUDA(cuMemFree(word));
    free(numbers);
    free(groups);
    printf("%s: %zu groups, %" PRIu64 " weights: %lu passed, %lu failed\n", name, count, weights, sum(passed) - before,
           sum(failed) - bad);
    fflush(stdout);
}

/* A capture in global mode, in a thread of its own. It lasts from `begun` until `end`. */
typedef struct {
    CUcontext context;
    CUdeviceptr memory;
    pthread_barrier_t begun, end;
    CUresult result; /* of the capture's end */
} capture;

static void *capture_meanwhile(void *given)
{
    capture *c = given;
    CUstream stream;
    CUgraph graph = NULL;
    CUDA(cuCtxSetCurrent(c->context));
    CUDA(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
    CUDA(cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_GLOBAL));
    pthread_barrier_wait(&c->begun);
    pthread_barrier_wait(&c->end);
    CUresult work = cuMemsetD8Async(c->memory, 0, 16, stream);
    c->result = cuStreamEndCapture(stream, &graph);
    if (c->result == 0)
        c->result = work;
    if (graph != NULL)
        CUDA(cuGraphDestroy(graph));
    CUDA(cuStreamDestroy(stream));
    return NULL;
}

/*
 * Opens the device and uploads a group while another thread captures a stream in global mode, as an engine does that loads a
 * model beside one that serves: neither may break the capture, and both must work.
 */
static void open_beside_capture(const char *path, CUcontext context)
{
    df11_model *model = NULL;
    df11_group_info info = DF11_GROUP_INFO_INIT;
    df11_resident *resident = NULL;
    CUdeviceptr image = 0;
    capture c = {.context = context};
    pthread_t thread;
    kind = CAPTURED_OPEN;
    CUDA(cuMemAlloc(&c.memory, 16));
    if (path != NULL) {
        OK(df11_model_open(path, NULL, &model, &e_));
        OK(df11_model_get_group_info(model, 0, &info, &e_));
        CUDA(cuMemAlloc(&image, (size_t)info.image_bytes));
    }
    if (pthread_barrier_init(&c.begun, NULL, 2) != 0 || pthread_barrier_init(&c.end, NULL, 2) != 0 ||
        pthread_create(&thread, NULL, capture_meanwhile, &c) != 0) {
        fprintf(stderr, "no thread for a capture\n");
        exit(1);
    }
    pthread_barrier_wait(&c.begun);
    int opened = TRY(df11_device_open(ordinal, &options, &device, &e_));
    if (opened)
        CHECK(device != NULL, "the device");
    if (opened && path != NULL && TRY(df11_device_upload(device, model, 0, image, (size_t)info.image_bytes, streams[0],
                                                         &resident, &e_)))
        CHECK(resident != NULL, "the group");
    pthread_barrier_wait(&c.end);
    pthread_join(thread, NULL);
    CHECK(c.result == 0, "the capture ended with %d", c.result);
    pthread_barrier_destroy(&c.begun);
    pthread_barrier_destroy(&c.end);
    CUDA(cuStreamSynchronize(streams[0]));
    df11_resident_free(resident);
    if (path != NULL)
        CUDA(cuMemFree(image));
    CUDA(cuMemFree(c.memory));
    df11_model_free(model);
    if (!opened)
        OK(df11_device_open(ordinal, &options, &device, &e_));
}

/* A context that has ended takes its kernels with it: in the next one of the same device they must be loaded anew, though
 * drivers like to give it the same handle. */
static void check_again(const char *path)
{
    CUcontext context;
    df11_model *model;
    group g = {0};
    unsigned long before = sum(failed);
    OK(df11_model_open(path, NULL, &model, &e_));
    CUDA(cuDevicePrimaryCtxRetain(&context, cuda_device));
    CUDA(cuCtxSetCurrent(context));
    CUDA(cuStreamCreate(&streams[0], CU_STREAM_NON_BLOCKING));
    kind = AGAIN;
    OK(df11_device_open(ordinal, &options, &device, &e_));
    CUdeviceptr word = word_new();
    if (group_load(&g, model, 0)) {
        check_whole(&g, word);
        kind = AGAIN;
        CHECK(word_read(word, streams[0]) == 0, "a good model's status in a second context");
        group_free(&g);
    }
    CUDA(cuMemFree(word));
    df11_device_free(device);
    CUDA(cuStreamDestroy(streams[0]));
    CUDA(cuDevicePrimaryCtxRelease(cuda_device));
    df11_model_free(model);
    printf("a second context: %s\n", sum(failed) > before ? "not the same" : "the same");
}

int main(int argc, char **argv)
{
    int ptx = 0, beside_capture = 0, first = 1, version = 0;
    uint64_t large = 0;
    char name[256] = "";
    CUcontext context;
    for (; first < argc && argv[first][0] == '-'; first++) {
        if (strcmp(argv[first], "--ptx") == 0)
            ptx = 1;
        else if (strcmp(argv[first], "--quick") == 0)
            quick = 1;
        else if (strcmp(argv[first], "--capture") == 0)
            beside_capture = 1;
        else if (strcmp(argv[first], "--parts") == 0)
            parts = 1;
        else if (strcmp(argv[first], "--device") == 0 && first + 1 < argc)
            ordinal = atoi(argv[++first]);
        else if (strcmp(argv[first], "--large") == 0 && first + 1 < argc)
            large = strtoull(argv[++first], NULL, 10);
        else {
            fprintf(stderr, "usage: check [--device N] [--ptx] [--quick] [--capture] [--parts] [--large WEIGHTS] MODEL...\n");
            return 2;
        }
    }
    if (!cuda_load(NULL)) {
        fprintf(stderr, "missing: a CUDA driver (libcuda.so.1)\n");
        return 77; /* skipped, as automake has it */
    }
    CUDA(cuDeviceGet(&cuda_device, ordinal));
    CUDA(cuDeviceGetName(name, sizeof(name), cuda_device));
    CUDA(cuDriverGetVersion(&version));
    CUDA(cuDevicePrimaryCtxRetain(&context, cuda_device));
    CUDA(cuCtxSetCurrent(context));
    for (int s = 0; s < 2; s++)
        CUDA(cuStreamCreate(&streams[s], CU_STREAM_NON_BLOCKING));

    if (ptx)
        options.flags |= DF11_DEVICE_FORCE_PTX;
    signal(SIGTERM, on_term);
    atexit(summarise);
    kind = UPLOAD;
    if (beside_capture)
        open_beside_capture(first < argc ? argv[first] : NULL, context);
    else
        OK(df11_device_open(ordinal, &options, &device, &e_));
    df11_device_info info = DF11_DEVICE_INFO_INIT;
    OK(df11_device_get_info(device, &info, &e_));
    printf("libdf11 %s, %s, driver %d.%d, kernels: %s\n", df11_version_string(), name, version / 1000, version % 1000 / 10,
           info.kernels);
    fflush(stdout);
    const char *again = first < argc ? argv[first] : NULL;
    for (; first < argc; first++) {
        df11_model *model;
        OK(df11_model_open(argv[first], NULL, &model, &e_));
        check_model(model, argv[first]);
        df11_model_free(model);
    }
    if (large != 0) {
        made m;
        if (!made_new(&m, large, 7, 8))
            return 1;
        check_model(m.model, "made");
        made_free(&m);
    }
    df11_device_free(device);
    for (int s = 0; s < 2; s++)
        CUDA(cuStreamDestroy(streams[s]));
    CUDA(cuDevicePrimaryCtxRelease(cuda_device));
    if (again != NULL)
        check_again(again);
    complete = 1;
    return sum(failed) > 0;
}
