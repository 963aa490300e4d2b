/* Sixteen threads do at once what the threads of an engine do, and free what they shared while others still use the rest:
 * models are opened, ranges decoded, tensors read, groups uploaded and decoded on a device, all at random, with models and a
 * device of all and of each one's own. Every answer is compared. tests/traffic does more of it, under ThreadSanitizer; this
 * is for what watches C programs.
 *
 *     threads STEPS MODEL...      so many steps of each thread, on these DF11 models; DF11_LIBCUDA names the driver
 */
#define _POSIX_C_SOURCE 200809L
#include "check.h"
#include "df11.h"
#include "cuda_driver.h"

#include <pthread.h>
#include <string.h>

enum { THREADS = 16, MODELS = 8 };

/* A model that is open until all threads have done their steps, and what the CPU decodes of it. */
struct known {
    const char *path;
    df11_model *model;
    uint64_t groups, tensors;
    df11_group_info *infos;
    uint8_t **weights;
};

static struct known known[MODELS];
static uint64_t models;
static unsigned long steps;
static df11_device *device;
static void *context;
static pthread_barrier_t together;

/* A call that must succeed; it has the error of this thread to say why not. */
#define OK(call)                                                                                                      \
    do {                                                                                                              \
        df11_error error;                                                                                             \
        if ((call) != DF11_OK)                                                                                        \
            fprintf(stderr, "%s\n", error.message);                                                                   \
        CHECK(error.status == DF11_OK);                                                                               \
    } while (0)

static void *some(size_t bytes)
{
    void *memory = malloc(bytes > 0 ? bytes : 1);
    CHECK(memory != NULL);
    return memory;
}

/* A number below `end`. */
static uint64_t below(uint64_t *random, uint64_t end)
{
    *random = *random * 6364136223846793005u + 1442695040888963407u;
    return (*random >> 33) % end;
}

/* A range of `n` things: short ones as often as long ones. */
static void range(uint64_t *random, uint64_t n, uint64_t *first, uint64_t *count)
{
    *first = below(random, n + 1);
    *count = below(random, ((n - *first) >> below(random, 12)) + 1);
}

static void decodes(const df11_model *model, const struct known *k, uint64_t *random)
{
    uint64_t group = below(random, k->groups), first, count;
    range(random, k->infos[group].element_count, &first, &count);
    size_t bytes = 2 * (size_t)count;
    uint8_t *weights = some(bytes);
    OK(df11_model_decompress(model, group, first, count, weights, bytes, 1 + (uint32_t)below(random, 3), &error));
    CHECK(memcmp(weights, k->weights[group] + 2 * first, bytes) == 0);
    free(weights);
}

/* A tensor, whole and in part: the part is of the whole. */
static void reads(const df11_model *model, const struct known *k, uint64_t *random)
{
    uint64_t tensor = below(random, k->tensors), found, first, count;
    df11_tensor_info info = DF11_TENSOR_INFO_INIT;
    OK(df11_model_get_tensor_info(model, tensor, &info, &error));
    OK(df11_model_find_tensor(model, info.name, &found, &error));
    CHECK(found == tensor);
    range(random, info.data_bytes / 2, &first, &count);
    uint8_t *whole = some((size_t)info.data_bytes), *part = some(2 * (size_t)count);
    OK(df11_model_read_tensor(model, tensor, 0, whole, (size_t)info.data_bytes, 2, &error));
    OK(df11_model_read_tensor(model, tensor, 2 * first, part, 2 * (size_t)count, 1, &error));
    CHECK(memcmp(part, whole + 2 * first, 2 * (size_t)count) == 0);
    free(whole);
    free(part);
}

/* A model of this thread's own, opened in any way. */
static void opens(const struct known *k, uint64_t *random)
{
    df11_open_options options = DF11_OPEN_OPTIONS_INIT;
    df11_model *model = NULL;
    options.flags = (uint32_t)below(random, 4) & (DF11_OPEN_READ | DF11_OPEN_VERIFY);
    options.threads = 1 + (uint32_t)below(random, 3);
    OK(df11_model_open(k->path, &options, &model, &error));
    CHECK(df11_model_group_count(model) == k->groups && df11_model_tensor_count(model) == k->tensors);
    decodes(model, k, random);
    reads(model, k, random);
    df11_model_free(model);
}

/* The text of an error is its own thread's. */
static void refuses(uint64_t thread)
{
    char path[64];
    df11_error error;
    df11_model *model = (df11_model *)path;
    snprintf(path, sizeof path, "/nowhere/of thread %llu", (unsigned long long)thread);
    CHECK(df11_model_open(path, NULL, &model, &error) == DF11_IO && model == NULL);
    CHECK(strstr(error.message, path) != NULL);
}

/* A resident of a group, with its image and its stream. */
struct there {
    const struct known *known;
    uint64_t group;
    df11_devptr image;
    df11_stream stream;
    df11_resident *resident;
};

static struct there uploads(df11_device *to, const df11_model *model, const struct known *k, uint64_t *random)
{
    struct there t = {.known = k, .group = below(random, k->groups)};
    size_t bytes = (size_t)k->infos[t.group].image_bytes;
    CHECK(cuStreamCreate(&t.stream, 1) == 0 && cuMemAlloc(&t.image, bytes) == 0);
    OK(df11_device_upload(to, model, t.group, t.image, bytes, t.stream, &t.resident, &error));
    return t;
}

static void decodes_there(const struct there *t, uint64_t *random)
{
    uint64_t first, count;
    uint32_t status = 0;
    df11_devptr dst, word;
    range(random, t->known->infos[t->group].element_count, &first, &count);
    size_t bytes = 2 * (size_t)count;
    uint8_t *weights = some(bytes);
    CHECK(cuMemAlloc(&dst, bytes + 2) == 0 && cuMemAlloc(&word, 4) == 0);
    CHECK(cuMemcpyHtoD(word, &status, 4) == 0 && cuStreamSynchronize(NULL) == 0);
    OK(df11_resident_decompress_range(t->resident, first, count, dst, bytes, word, t->stream, &error));
    CHECK(cuStreamSynchronize(t->stream) == 0 && cuMemcpyDtoH(&status, word, 4) == 0 && status == 0);
    CHECK(bytes == 0 || cuMemcpyDtoH(weights, dst, bytes) == 0);
    CHECK(memcmp(weights, t->known->weights[t->group] + 2 * first, bytes) == 0);
    CHECK(cuMemFree(dst) == 0 && cuMemFree(word) == 0);
    free(weights);
}

static void ends(struct there *t)
{
    df11_resident_free(t->resident);
    CHECK(cuMemFree(t->image) == 0 && cuStreamDestroy(t->stream) == 0);
}

/* A handle of the device that only this step has, and a model that goes before the resident. */
static void own_device(const struct known *k, uint64_t *random)
{
    df11_device *own = NULL;
    df11_model *model = NULL;
    void *current;
    OK(df11_device_open(0, NULL, &own, &error));
    OK(df11_model_open(k->path, NULL, &model, &error));
    struct there t = uploads(own, model, k, random);
    df11_device_free(own);
    decodes_there(&t, random);
    df11_model_free(model);
    decodes_there(&t, random);
    ends(&t);
    CHECK(cuCtxGetCurrent(&current) == 0 && current == context);
}

static void *works(void *number)
{
    uint64_t thread = *(const uint64_t *)number, random = thread;
    CHECK(cuCtxSetCurrent(context) == 0);
    pthread_barrier_wait(&together);
    for (unsigned long i = 0; i < steps; i++) {
        const struct known *k = &known[below(&random, models)];
        switch (below(&random, 6)) {
        case 0: opens(k, &random); break;
        case 1: decodes(k->model, k, &random); break;
        case 2: reads(k->model, k, &random); break;
        case 3: refuses(thread); break;
        case 4: own_device(k, &random); break;
        default: {
            struct there t = uploads(device, k->model, k, &random);
            decodes_there(&t, &random);
            ends(&t);
        }
        }
    }
    /* The end: models and device go while everybody decodes. What is on the device needs neither, once it is there. */
    const struct known *k = &known[below(&random, models)];
    struct there last = uploads(device, k->model, k, &random);
    decodes_there(&last, &random);
    pthread_barrier_wait(&together);
    if (thread < models)
        df11_model_free(known[thread].model);
    if (thread == THREADS - 1)
        df11_device_free(device);
    decodes_there(&last, &random);
    ends(&last);
    CHECK(cuCtxSetCurrent(NULL) == 0);
    return NULL;
}

static void learn(struct known *k, const char *path)
{
    k->path = path;
    OK(df11_model_open(path, NULL, &k->model, &error));
    k->groups = df11_model_group_count(k->model);
    k->tensors = df11_model_tensor_count(k->model);
    k->infos = some(sizeof *k->infos * (size_t)k->groups);
    k->weights = some(sizeof *k->weights * (size_t)k->groups);
    for (uint64_t g = 0; g < k->groups; g++) {
        df11_group_info info = DF11_GROUP_INFO_INIT;
        OK(df11_model_get_group_info(k->model, g, &info, &error));
        size_t bytes = 2 * (size_t)info.element_count;
        k->infos[g] = info;
        k->weights[g] = some(bytes);
        OK(df11_model_decompress(k->model, g, 0, info.element_count, k->weights[g], bytes, 1, &error));
    }
}

int main(int argc, char **argv)
{
    pthread_t threads[THREADS];
    uint64_t numbers[THREADS];
    CHECK(argc >= 3 && argc - 2 <= MODELS && getenv("DF11_LIBCUDA") != NULL);
    steps = strtoul(argv[1], NULL, 10);
    models = (uint64_t)argc - 2;
    for (uint64_t m = 0; m < models; m++)
        learn(&known[m], argv[m + 2]);
    load(getenv("DF11_LIBCUDA"));
    CHECK(cuInit(0) == 0 && cuDevicePrimaryCtxRetain(&context, 0) == 0);
    OK(df11_device_open(0, NULL, &device, &error));
    CHECK(pthread_barrier_init(&together, NULL, THREADS) == 0);
    for (uint64_t i = 0; i < THREADS; i++) {
        numbers[i] = i;
        CHECK(pthread_create(&threads[i], NULL, works, &numbers[i]) == 0);
    }
    for (uint64_t i = 0; i < THREADS; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    CHECK(pthread_barrier_destroy(&together) == 0);
    for (uint64_t m = 0; m < models; m++) {
        for (uint64_t g = 0; g < known[m].groups; g++)
            free(known[m].weights[g]);
        free(known[m].weights);
        free(known[m].infos);
    }
    CHECK(cuDevicePrimaryCtxRelease(0) == 0);
    printf("%u checks passed\n", checks_passed);
    return 0;
}
