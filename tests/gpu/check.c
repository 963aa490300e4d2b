/*
 * Decodes models on a CUDA device in every way that the library offers and compares every bit with the CPU's decoding:
 * whole groups, ranges, tensors, batches, inside a captured graph, on two streams at once; images by upload and by bind;
 * images that were corrupted on their way.
 *
 *     check [--device N] [--ptx] [--quick] [--large WEIGHTS] MODEL...
 *
 * --ptx takes the library's PTX even where it has machine code for the device. --quick does less of everything, for tools
 * that slow a kernel a hundredfold. --large adds a generated group of that many weights.
 *
 * Runs on a real GPU and, as any program of the driver API does, on a driver that DF11_LIBCUDA names. Prints a line for
 * each model and at last "N passed, 0 failed"; the first difference ends it with status 1.
 */
#define _POSIX_C_SOURCE 200809L
#include "driver.h"
#include "made.h"

enum { GUARD = 4096 };

static df11_device *device;
static CUstream streams[2];
static int quick;
static unsigned long passed;
static uint64_t state = 0x5eed;

/* Ends the program unless `condition` holds. */
#define REQUIRE(condition, ...)                                                                                       \
    do {                                                                                                              \
        if (!(condition)) {                                                                                           \
            fprintf(stderr, "%s:%d: failed: %s: ", __FILE__, __LINE__, #condition);                                   \
            fprintf(stderr, __VA_ARGS__);                                                                             \
            fprintf(stderr, "\n");                                                                                    \
            exit(1);                                                                                                  \
        }                                                                                                             \
    } while (0)

/* The same, and counts. */
#define CHECK(condition, ...)                                                                                         \
    do {                                                                                                              \
        REQUIRE(condition, __VA_ARGS__);                                                                              \
        passed++;                                                                                                     \
    } while (0)

static void *allocate(size_t bytes)
{
    void *memory = calloc(bytes ? bytes : 1, 1);
    if (memory == NULL) {
        fprintf(stderr, "no memory for %zu bytes\n", bytes);
        exit(1);
    }
    return memory;
}

/* Device memory for an answer, with guard bytes before and after it. */
typedef struct {
    CUdeviceptr base;
    uint64_t bytes;
    unsigned shift; /* of the answer, in bytes, for destinations that are not aligned to more than two */
} answer;

static answer answer_new(uint64_t bytes, unsigned shift)
{
    answer a = {0, bytes, shift};
    CUDA(cuMemAlloc(&a.base, bytes + 2 * GUARD + 256));
    return a;
}

static CUdeviceptr answer_at(const answer *a)
{
    return a->base + GUARD + a->shift;
}

/* Fills it with what no answer looks like. */
static void answer_poison(const answer *a, CUstream stream)
{
    CUDA(cuMemsetD8Async(a->base, 0xc5, a->bytes + 2 * GUARD + 256, stream));
}

/* Waits, and compares the answer and what surrounds it. */
static void answer_check(const answer *a, const void *want, CUstream stream, const char *what, const char *name)
{
    size_t all = a->bytes + 2 * GUARD + 256, before = GUARD + a->shift;
    uint8_t *got = allocate(all);
    CUDA(cuStreamSynchronize(stream));
    CUDA(cuMemcpyDtoH(got, a->base, all));
    for (size_t i = 0; i < all; i++) {
        int inside = i >= before && i < before + a->bytes;
        uint8_t expected = inside ? ((const uint8_t *)want)[i - before] : 0xc5;
        if (got[i] != expected) {
            fprintf(stderr, "%s of '%s': byte %lld of the destination is %02x instead of %02x\n", what, name,
                    (long long)i - (long long)before, got[i], expected);
            exit(1);
        }
    }
    passed++;
    free(got);
}

static void answer_free(answer *a)
{
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

static void group_load(group *g, const df11_model *model, uint64_t number)
{
    g->info = (df11_group_info)DF11_GROUP_INFO_INIT;
    OK(df11_model_get_group_info(model, number, &g->info, &e_));
    size_t bytes = (size_t)g->info.image_bytes;
    uint8_t *by_host = allocate(bytes), *by_device = allocate(bytes);
    g->want = allocate(2 * (size_t)g->info.element_count);
    OK(df11_model_decompress(model, number, 0, g->info.element_count, g->want, 2 * (size_t)g->info.element_count, 4, &e_));
    OK(df11_model_write_image(model, number, by_host, bytes, &e_));

    /* The device makes the same image of the file's bytes as the host does. */
    CUDA(cuMemAlloc(&g->image, bytes));
    /* Bytes that an upload forgets show as these. Not for the sanitizers: initcheck is to see whatever is read too early. */
    if (!quick)
        CUDA(cuMemsetD8Async(g->image, 0xc5, bytes, streams[0]));
    OK(df11_device_upload(device, model, number, g->image, bytes, streams[0], &g->resident, &e_));
    CUDA(cuStreamSynchronize(streams[0]));
    CUDA(cuMemcpyDtoH(by_device, g->image, bytes));
    for (size_t i = 0; i < bytes; i++)
        REQUIRE(by_device[i] == by_host[i], "byte %zu of the image of '%s' is %02x on the device, %02x here", i,
                g->info.name, by_device[i], by_host[i]);
    passed++;
    free(by_device);
    free(by_host);
}

static void group_free(group *g)
{
    df11_resident_free(g->resident);
    CUDA(cuMemFree(g->image));
    free(g->want);
}

static void check_whole(const group *g, CUdeviceptr word)
{
    static const unsigned shifts[] = {0, 2, 8, 14, 16};
    uint64_t bytes = 2 * g->info.element_count;
    for (unsigned s = 0; s < (quick ? 2 : 5); s++) {
        answer a = answer_new(bytes, shifts[s]);
        answer_poison(&a, streams[0]);
        OK(df11_resident_decompress(g->resident, answer_at(&a), (size_t)bytes, word, streams[0], &e_));
        answer_check(&a, g->want, streams[0], "the whole", g->info.name);
        answer_free(&a);
    }
}

static void check_range(const group *g, uint64_t first, uint64_t count, CUdeviceptr word)
{
    answer a = answer_new(2 * count, 2 * (unsigned)(made_next(&state) % 8));
    answer_poison(&a, streams[0]);
    OK(df11_resident_decompress_range(g->resident, first, count, answer_at(&a), (size_t)(2 * count), word, streams[0], &e_));
    answer_check(&a, g->want + first, streams[0], "a range", g->info.name);
    answer_free(&a);
}

static void check_ranges(const group *g, CUdeviceptr word)
{
    uint64_t n = g->info.element_count;
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
    OK(df11_resident_decompress_tensors(g->resident, addresses, bytes, count, word, streams[0], &e_));
    for (size_t t = 0; t < count; t++) {
        OK(df11_model_get_tensor_info(model, g->info.first_tensor + t, &info, &e_));
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
    CUDA(cuMemAlloc(&words, 4 * count));
    CUDA(cuMemsetD8Async(words, 0, 4 * count, streams[0]));
    for (size_t i = 0; i < count; i++) {
        bytes[i] = 2 * (size_t)groups[i].info.element_count;
        answers[i] = answer_new(bytes[i], 0);
        answer_poison(&answers[i], streams[0]);
        residents[i] = groups[i].resident;
        addresses[i] = answer_at(&answers[i]);
    }
    OK(df11_resident_decompress_batch(residents, addresses, bytes, count, words, streams[0], &e_));
    for (size_t i = 0; i < count; i++) {
        answer_check(&answers[i], groups[i].want, streams[0], "a batch's group", groups[i].info.name);
        CHECK(word_read(words + 4 * i, streams[0]) == 0, "status of group %zu", i);
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
    for (size_t i = 0; i < count; i++)
        answers[i] = answer_new(2 * groups[i].info.element_count, 0);
    CUDA(cuStreamBeginCapture(streams[0], CU_STREAM_CAPTURE_MODE_GLOBAL));
    for (size_t i = 0; i < count; i++)
        OK(df11_resident_decompress(groups[i].resident, answer_at(&answers[i]), (size_t)answers[i].bytes, word, streams[0], &e_));
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
    for (int s = 0; s < 2; s++)
        answer_poison(&answers[s], streams[s]);
    for (int round = 0; round < 4; round++)
        for (int s = 0; s < 2; s++)
            OK(df11_resident_decompress(g->resident, answer_at(&answers[s]), (size_t)bytes, word, streams[s], &e_));
    for (int s = 0; s < 2; s++) {
        answer_check(&answers[s], g->want, streams[s], "one of two streams' answer", g->info.name);
        answer_free(&answers[s]);
    }
}

/* An engine moves the image by itself and binds it: with the model at hand and without. */
static void check_bind(const group *g, const df11_model *model, uint64_t number, CUdeviceptr word)
{
    size_t image_bytes = (size_t)g->info.image_bytes, bytes = 2 * (size_t)g->info.element_count;
    void *image = allocate(image_bytes);
    CUdeviceptr moved;
    OK(df11_model_write_image(model, number, image, image_bytes, &e_));
    CUDA(cuMemAlloc(&moved, image_bytes));
    CUDA(cuMemcpyHtoDAsync(moved, image, image_bytes, streams[0]));
    for (int without = 0; without < 2; without++) {
        df11_resident *resident;
        answer a = answer_new(bytes, 0);
        if (without)
            OK(df11_device_bind_image(device, image, image_bytes, moved, image_bytes, &resident, &e_));
        else
            OK(df11_device_bind(device, model, number, moved, image_bytes, &resident, &e_));
        answer_poison(&a, streams[0]);
        OK(df11_resident_decompress(resident, answer_at(&a), bytes, word, streams[0], &e_));
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
        OK(df11_resident_decompress(g->resident, answer_at(&a), (size_t)bytes, word, streams[0], &e_));
        uint32_t status = word_read(word, streams[0]);
        CHECK(status == 0 || status == DF11_CORRUPT, "status %u", status);
        reported += status != 0;
        CUDA(cuMemcpyDtoH(got, a.base, (size_t)bytes + 2 * GUARD + 256));
        for (int i = 0; i < GUARD; i++)
            REQUIRE(got[i] == 0xc5 && got[GUARD + bytes + (unsigned)i] == 0xc5, "guard byte %d", i);
        passed++;
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
    size_t count = (size_t)df11_model_group_count(model);
    group *groups = allocate(count * sizeof(*groups));
    CUdeviceptr word = word_new();
    uint64_t weights = 0;
    unsigned long before = passed;
    for (size_t i = 0; i < count; i++) {
        group_load(&groups[i], model, i);
        weights += groups[i].info.element_count;
    }
    for (size_t i = 0; i < count; i++) {
        check_whole(&groups[i], word);
        check_ranges(&groups[i], word);
        check_tensors(&groups[i], model, word);
        check_bind(&groups[i], model, i, word);
    }
    check_batch(groups, count, word);
    check_graph(groups, count, word);
    check_streams(&groups[0], word);
    CHECK(word_read(word, streams[0]) == 0, "a good model's status");
    check_corrupted(&groups[0]);
    check_whole(&groups[0], word); /* the device is as well as before */
    for (size_t i = 0; i < count; i++)
        group_free(&groups[i]);
    CUDA(cuMemFree(word));
    free(groups);
    printf("%s: %zu groups, %" PRIu64 " weights: %lu checks\n", name, count, weights, passed - before);
    fflush(stdout);
}

/* A context that has ended takes its kernels with it: in the next one of the same device they must be loaded anew, though
 * drivers like to give it the same handle. */
static void check_again(const char *path, CUdevice cuda_device, const df11_device_options *options, int ordinal)
{
    CUcontext context;
    df11_model *model;
    group g;
    OK(df11_model_open(path, NULL, &model, &e_));
    CUDA(cuDevicePrimaryCtxRetain(&context, cuda_device));
    CUDA(cuCtxSetCurrent(context));
    CUDA(cuStreamCreate(&streams[0], CU_STREAM_NON_BLOCKING));
    OK(df11_device_open(ordinal, options, &device, &e_));
    CUdeviceptr word = word_new();
    group_load(&g, model, 0);
    check_whole(&g, word);
    CHECK(word_read(word, streams[0]) == 0, "a good model's status in a second context");
    group_free(&g);
    CUDA(cuMemFree(word));
    df11_device_free(device);
    CUDA(cuStreamDestroy(streams[0]));
    CUDA(cuDevicePrimaryCtxRelease(cuda_device));
    df11_model_free(model);
    printf("a second context: the same\n");
}

int main(int argc, char **argv)
{
    int ordinal = 0, ptx = 0, first = 1, version = 0;
    uint64_t large = 0;
    char name[256] = "";
    CUcontext context;
    CUdevice cuda_device;
    for (; first < argc && argv[first][0] == '-'; first++) {
        if (strcmp(argv[first], "--ptx") == 0)
            ptx = 1;
        else if (strcmp(argv[first], "--quick") == 0)
            quick = 1;
        else if (strcmp(argv[first], "--device") == 0 && first + 1 < argc)
            ordinal = atoi(argv[++first]);
        else if (strcmp(argv[first], "--large") == 0 && first + 1 < argc)
            large = strtoull(argv[++first], NULL, 10);
        else {
            fprintf(stderr, "usage: check [--device N] [--ptx] [--quick] [--large WEIGHTS] MODEL...\n");
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

    df11_device_options options = DF11_DEVICE_OPTIONS_INIT;
    if (ptx)
        options.flags |= DF11_DEVICE_FORCE_PTX;
    OK(df11_device_open(ordinal, &options, &device, &e_));
    df11_device_info info = DF11_DEVICE_INFO_INIT;
    OK(df11_device_get_info(device, &info, &e_));
    printf("libdf11 %s, %s, driver %d.%d, kernels: %s\n", df11_version_string(), name, version / 1000, version % 1000 / 10,
           info.kernels);
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
        check_again(again, cuda_device, &options, ordinal);
    printf("%lu passed, 0 failed\n", passed);
    return 0;
}
