/* The stack that calls need: each is made on a thread of its own, whose stack was painted before, and then the deepest byte
 * that is no paint any more is looked for. The header says that STACK bytes are enough, with what the C library puts there.
 * That holds for a library that is optimised, so tests/packages/run.sh runs this with the one that it installs.
 *
 *     stack GOLDEN SCRATCH DEEP...      DEEP: models whose config is as deeply nested as it may be
 */
#define _GNU_SOURCE /* MAP_ANONYMOUS */
#include "check.h"
#include "df11.h"
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>

/* What the header promises, and what of it is kept for other compilers and other settings of them. */
#define STACK (64 << 10)
#define SPARE (12 << 10)
/* What a thread gets here, so that a call that needs more is measured and does not end the program. */
#define ROOM (1 << 20)
#define PAINT 0xa5

static const char *golden, *scratch;
static char path[4096], other[4096];
static unsigned too_much;
/* The bytes of a model of one file. */
static unsigned char whole[4 << 20];
static size_t whole_bytes;

static const char *under(char *to, const char *folder, const char *name)
{
    CHECK(snprintf(to, sizeof path, "%s/%s", folder, name) < (int)sizeof path);
    return to;
}

/* Runs a call on a painted stack, and says how much of it was used. */
static size_t used_by(void *(*call)(void *), void *argument)
{
    pthread_attr_t attributes;
    pthread_t thread;
    unsigned char *stack = mmap(NULL, ROOM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    size_t untouched = 0;
    CHECK(stack != MAP_FAILED);
    memset(stack, PAINT, ROOM);
    CHECK(pthread_attr_init(&attributes) == 0 && pthread_attr_setstack(&attributes, stack, ROOM) == 0);
    CHECK(pthread_create(&thread, &attributes, call, argument) == 0 && pthread_join(thread, NULL) == 0);
    CHECK(pthread_attr_destroy(&attributes) == 0);
    while (untouched < ROOM && stack[untouched] == PAINT)
        untouched++;
    CHECK(untouched > 0 && munmap(stack, ROOM) == 0);
    return ROOM - untouched;
}

static void measure(const char *what, void *(*call)(void *), void *argument)
{
    size_t used = used_by(call, argument);
    printf("%7zu bytes of stack: %s\n", used, what);
    CHECK(used > 1000);
    if (used > STACK - SPARE) {
        fprintf(stderr, "%s needs %zu bytes of stack, of %d\n", what, used, STACK - SPARE);
        too_much++;
    }
}

static void *nothing(void *argument)
{
    return argument;
}

static void *opens(void *model)
{
    df11_error error;
    df11_model *opened;
    df11_model_free(NULL);
    if (df11_model_open(model, NULL, &opened, &error) == DF11_OK)
        df11_model_free(opened);
    return NULL;
}

static void *opens_and_verifies(void *flags)
{
    df11_open_options options = DF11_OPEN_OPTIONS_INIT;
    df11_error error;
    df11_model *opened;
    options.flags = *(uint32_t *)flags;
    options.threads = 2;
    CHECK(df11_model_open(path, &options, &opened, &error) == DF11_OK);
    df11_model_free(opened);
    return NULL;
}

struct decoding {
    df11_model *model;
    void *dst;
    size_t dst_bytes;
    uint32_t threads;
};

static void *decodes(void *argument)
{
    struct decoding *d = argument;
    df11_error error;
    CHECK(df11_model_decompress(d->model, 0, 0, d->dst_bytes / 2, d->dst, d->dst_bytes, d->threads, &error) == DF11_OK);
    return NULL;
}

/* A matrix of a plain or compressed tensor, and all that it can do. */
static void *multiplies(void *argument)
{
    struct decoding *d = argument;
    enum { ROWS = 32, COLUMNS = 200, VECTORS = 70 };
    static float x[VECTORS * COLUMNS], y[VECTORS * ROWS];
    static uint16_t back[ROWS * COLUMNS];
    df11_matrix_info info = DF11_MATRIX_INFO_INIT;
    df11_matrix *matrix;
    df11_error error;
    uint64_t most, used;
    CHECK(df11_matrix_bound(ROWS, COLUMNS, &most, &error) == DF11_OK);
    void *memory = aligned_alloc(DF11_MATRIX_ALIGNMENT, most);
    CHECK(memory != NULL);
    CHECK(df11_model_write_matrix(d->model, 0, 64, 0, 4, memory, most, d->threads, NULL, &used, &error) == DF11_OK);
    CHECK(df11_matrix_write(back, ROWS, COLUMNS, memory, most, d->threads, NULL, &used, &error) == DF11_OK);
    CHECK(df11_matrix_bind(memory, used, &matrix, &error) == DF11_OK);
    CHECK(df11_matrix_get_info(matrix, &info, &error) == DF11_OK);
    CHECK(df11_matrix_decompress(matrix, 3, ROWS * COLUMNS - 3, back, sizeof back, &error) == DF11_OK);
    for (uint64_t vectors = 1; vectors <= VECTORS; vectors += VECTORS - 1)
        CHECK(df11_matrix_multiply(matrix, 0, ROWS, x, DF11_DTYPE_F32, COLUMNS, vectors, DF11_ORDER_LANES, y, ROWS,
                                   &error) == DF11_OK);
    df11_matrix_free(matrix);
    free(memory);
    return NULL;
}

static void *reads(void *argument)
{
    struct decoding *d = argument;
    df11_error error;
    uint64_t tensors = df11_model_tensor_count(d->model), found;
    for (uint64_t t = 0; t < tensors; t++) {
        df11_tensor_info info = DF11_TENSOR_INFO_INIT;
        CHECK(df11_model_get_tensor_info(d->model, t, &info, &error) == DF11_OK);
        CHECK(df11_model_find_tensor(d->model, info.name, &found, &error) == DF11_OK && found == t);
        if (info.data_bytes <= d->dst_bytes)
            CHECK(df11_model_read_tensor(d->model, t, 0, d->dst, (size_t)info.data_bytes, d->threads, &error) == DF11_OK);
    }
    return NULL;
}

static void *fails(void *argument)
{
    struct decoding *d = argument;
    df11_error error;
    uint64_t number;
    CHECK(df11_model_find_group(d->model, "no such group", &number, &error) == DF11_NOT_FOUND);
    CHECK(df11_model_open("/nowhere", NULL, &(df11_model *){NULL}, &error) == DF11_IO);
    return NULL;
}

static void ignore_lines(void *user, int32_t level, const char *message, size_t length)
{
    (void)user, (void)level, (void)message, (void)length;
}

/* Everything else that needs no driver. What a driver takes of the stack is its own; the calls on devices are made to fail
 * at their last check before it. */
static void *looks(void *argument)
{
    struct decoding *d = argument;
    df11_error error;
    df11_part_info part = DF11_PART_INFO_INIT;
    df11_progress *progress;
    df11_device_options options = DF11_DEVICE_OPTIONS_INIT;
    df11_device *device;
    df11_resident *resident;
    df11_model *opened;
    uint64_t done, total;
    df11_log_set(ignore_lines, DF11_LOG_TRACE, NULL);
    for (uint32_t number = DF11_PART_LUTS; number <= DF11_PART_GAPS; number++)
        CHECK(df11_model_get_group_part(d->model, 0, number, &part, &error) == DF11_OK);
    CHECK(df11_model_group_count(d->model) > 0 && df11_version_number() > 0 && df11_version_string() && df11_status_name(0));
    CHECK(df11_model_open_memory(whole, whole_bytes, NULL, &opened, &error) == DF11_OK);
    df11_model_free(opened);
    CHECK(df11_progress_new(&progress, &error) == DF11_OK);
    df11_progress_cancel(progress);
    df11_progress_get(progress, &done, &total);
    df11_progress_free(progress);
    options.libcuda = "/nowhere/libcuda.so.1";
    CHECK(df11_device_open(0, &options, &device, &error) == DF11_NO_DRIVER);
    CHECK(df11_device_open_current(&options, &device, &error) == DF11_NO_DRIVER);
    CHECK(df11_device_bind_image(NULL, whole, whole_bytes, 256, whole_bytes, &resident, &error) == DF11_INVALID_ARGUMENT);
    CHECK(df11_resident_decompress(NULL, 0, 0, 0, NULL, &error) == DF11_INVALID_ARGUMENT);
    df11_resident_free(NULL);
    df11_device_free(NULL);
    df11_log_set(NULL, DF11_LOG_OFF, NULL);
    return NULL;
}

static void *writes_image(void *argument)
{
    struct decoding *d = argument;
    df11_error error;
    df11_group_info group = DF11_GROUP_INFO_INIT;
    df11_image_info image = DF11_IMAGE_INFO_INIT;
    CHECK(df11_model_get_group_info(d->model, 0, &group, &error) == DF11_OK);
    size_t image_bytes = (size_t)group.image_bytes;
    void *dst = malloc(image_bytes);
    CHECK(dst != NULL && df11_model_write_image(d->model, 0, dst, image_bytes, &error) == DF11_OK);
    for (uint32_t part = 0; part < 2; part++)
        CHECK(df11_model_write_image_part(d->model, 0, dst, image_bytes, part, 2, &error) == DF11_OK);
    CHECK(df11_image_get_info(dst, image_bytes, &image, &error) == DF11_OK && image.image_bytes == image_bytes);
    uint64_t count = group.element_count / 2;
    CHECK(df11_model_get_image_range_info(d->model, 0, 100, count, &image, &error) == DF11_OK);
    CHECK(df11_model_write_image_range(d->model, 0, 100, count, dst, image_bytes, 2, &error) == DF11_OK);
    df11_segment segment = {group.element_count, 1, DF11_SPLIT_SPREAD, 0};
    df11_slice slice = {0, 1, 5, 9, 3};
    df11_shard *shard;
    (void)df11_model_get_slices(d->model, 0, 0, 0, &segment, 1, 0, 2, &slice, &error);
    slice = (df11_slice){0, 1, 5, 9, 3};
    CHECK(df11_model_make_shard(d->model, 0, &slice, 1, 2, NULL, &shard, &error) == DF11_OK);
    CHECK(df11_shard_write_image(shard, dst, image_bytes, 2, NULL, &error) == DF11_OK);
    CHECK(df11_image_get_slice(dst, image_bytes, 0, &slice, &error) == DF11_OK && slice.run_count == 3);
    df11_shard_free(shard);
    df11_linear_plan *plan;
    CHECK(df11_model_plan_linear_image(d->model, 0, NULL, 0, 2, NULL, &plan, &error) == DF11_OK);
    CHECK(df11_linear_plan_get_image_info(plan, &image, &error) == DF11_OK);
    void *linear = malloc((size_t)image.image_bytes);
    CHECK(linear != NULL);
    CHECK(df11_linear_plan_write_image(plan, linear, (size_t)image.image_bytes, 2, NULL, &error) == DF11_OK);
    df11_linear_plan_free(plan);
    free(linear);
    free(dst);
    return NULL;
}

static void *compresses_group(void *argument)
{
    struct decoding *d = argument;
    df11_error error;
    df11_packed_group group = DF11_PACKED_GROUP_INIT;
    const void *tensor = d->dst;
    uint64_t count = d->dst_bytes / 2;
    CHECK(df11_compress_bound(&count, 1, &group, &error) == DF11_OK);
    CHECK((group.luts = malloc(group.luts_bytes)) != NULL);
    CHECK((group.encoded_exponent = malloc(group.encoded_exponent_bytes)) != NULL);
    CHECK((group.sign_mantissa = malloc(group.sign_mantissa_bytes)) != NULL);
    CHECK((group.output_positions = malloc(group.output_positions_bytes)) != NULL);
    CHECK((group.gaps = malloc(group.gaps_bytes)) != NULL);
    CHECK(df11_compress_group(&tensor, &count, 1, d->threads, &group, &error) == DF11_OK);
    free(group.luts);
    free(group.encoded_exponent);
    free(group.sign_mantissa);
    free(group.output_positions);
    free(group.gaps);
    return NULL;
}

static void *verifies(void *original)
{
    df11_verify_options options = DF11_VERIFY_OPTIONS_INIT;
    df11_error error;
    options.threads = 2;
    CHECK(df11_verify_model(path, original, &options, &error) == DF11_OK);
    return NULL;
}

static void *compresses(void *argument)
{
    df11_compress_options options = *(df11_compress_options *)argument;
    df11_error error;
    char dst[4096];
    static unsigned runs;
    CHECK(snprintf(dst, sizeof dst, "%s/%u%s", scratch, runs++, options.flags & DF11_COMPRESS_SINGLE_FILE ? ".safetensors" : "") > 0);
    if (df11_compress_model(other, dst, &options, &error) != DF11_OK) {
        fprintf(stderr, "%s\n", error.message);
        CHECK(0);
    }
    if (options.part_count > 1) {
        options.part = 2;
        CHECK(df11_compress_model(other, dst, &options, &error) == DF11_OK);
        CHECK(df11_merge_model(other, dst, &options, &error) == DF11_OK);
    }
    return NULL;
}

static void *presets(void *argument)
{
    df11_error error;
    for (uint64_t p = 0; p < df11_preset_count(); p++) {
        df11_preset_info info = DF11_PRESET_INFO_INIT;
        CHECK(df11_preset_get_info(p, &info, &error) == DF11_OK);
    }
    return argument;
}

static void *plans(void *path)
{
    df11_plan_options options = DF11_PLAN_OPTIONS_INIT;
    df11_plan_info info = DF11_PLAN_INFO_INIT;
    df11_plan_group_info group = DF11_PLAN_GROUP_INFO_INIT;
    df11_plan_share_info share = DF11_PLAN_SHARE_INFO_INIT;
    uint64_t tokens;
    df11_plan *plan;
    df11_error error;
    for (options.flags = 0; options.flags <= DF11_PLAN_SAMPLE; options.flags++) {
        CHECK(df11_plan_model(path, &options, &plan, &error) == DF11_OK);
        CHECK(df11_plan_get_info(plan, &info, &error) == DF11_OK);
        CHECK(df11_plan_get_group_info(plan, 0, &group, &error) == DF11_OK);
        CHECK(df11_plan_get_share_info(plan, DF11_SPLIT_LAYERS, 8, 0, &share, &error) == DF11_OK);
        (void)df11_plan_count_tokens(plan, DF11_SPLIT_ROWS, 2, 1 << 30, &tokens, NULL, &error);
        df11_plan_free(plan);
    }
    return NULL;
}

/* Writes what the calls before have compressed in other forms: run 0 is a folder. */
static void *rewrites(void *argument)
{
    df11_decompress_options decompress = DF11_DECOMPRESS_OPTIONS_INIT;
    df11_repack_options repack = DF11_REPACK_OPTIONS_INIT;
    df11_error error;
    char src[4096], dst[4096];
    static unsigned runs;
    decompress.threads = repack.threads = *(uint32_t *)argument;
    CHECK(snprintf(src, sizeof src, "%s/0", scratch) > 0);
    for (int single = 0; single < 2; single++) {
        CHECK(snprintf(dst, sizeof dst, "%s/again%u%s", scratch, runs++, single ? ".safetensors" : "") > 0);
        if (df11_repack_model(src, dst, &repack, &error) != DF11_OK)
            fprintf(stderr, "%s\n", error.message);
        CHECK(error.status == DF11_OK);
        CHECK(snprintf(dst, sizeof dst, "%s/plain%u%s", scratch, runs++, single ? ".safetensors" : "") > 0);
        decompress.flags = DF11_DECOMPRESS_FLAT;
        CHECK(df11_decompress_model(src, dst, &decompress, &error) == DF11_OK);
    }
    return NULL;
}

int main(int argc, char **argv)
{
    df11_error error;
    df11_group_info group = DF11_GROUP_INFO_INIT;
    struct decoding d = {NULL, NULL, 0, 1};
    uint32_t flags[] = {DF11_OPEN_VERIFY, DF11_OPEN_VERIFY | DF11_OPEN_READ};
    CHECK(argc >= 3);
    golden = argv[1];
    scratch = argv[2];
    measure("nothing", nothing, NULL);

    measure("df11_model_open", opens, (void *)(uintptr_t)under(path, golden, "sharded/model"));
    for (int i = 3; i < argc; i++)
        measure("df11_model_open, a deeply nested config", opens, argv[i]);
    measure("df11_model_open, DF11_OPEN_VERIFY", opens_and_verifies, &flags[0]);
    measure("df11_model_open, DF11_OPEN_READ", opens_and_verifies, &flags[1]);

    CHECK(df11_model_open(path, NULL, &d.model, &error) == DF11_OK);
    CHECK(df11_model_get_group_info(d.model, 0, &group, &error) == DF11_OK);
    d.dst_bytes = 2 * (size_t)group.element_count;
    CHECK((d.dst = malloc(d.dst_bytes)) != NULL);
    for (d.threads = 1; d.threads <= 4; d.threads += 3) {
        measure("df11_model_decompress", decodes, &d);
        measure("df11_model_read_tensor", reads, &d);
        measure("df11_compress_group", compresses_group, &d);
        measure("df11_matrix_... and df11_model_write_matrix", multiplies, &d);
    }
    FILE *file = fopen(under(other, golden, "block/model/model.safetensors"), "rb");
    CHECK(file != NULL && (whole_bytes = fread(whole, 1, sizeof whole, file)) > 0 && feof(file) && fclose(file) == 0);
    measure("calls that look, and those of devices up to the driver", looks, &d);
    measure("calls that fail", fails, &d);
    measure("df11_model_write_image", writes_image, &d);

    under(other, golden, "sharded/original.safetensors");
    measure("df11_verify_model", verifies, NULL);
    measure("df11_verify_model, with an original", verifies, other);
    measure("df11_preset_get_info", presets, NULL);
    measure("df11_plan_model", plans, other);
    measure("df11_plan_model, compressed", plans, path);
    df11_compress_options options = DF11_COMPRESS_OPTIONS_INIT;
    options.threads = 1;
    measure("df11_compress_model", compresses, &options);
    options.threads = 3;
    options.flags = DF11_COMPRESS_SINGLE_FILE | DF11_COMPRESS_HASHES | DF11_COMPRESS_SHAPES;
    measure("df11_compress_model, one file", compresses, &options);
    options.flags = 0;
    options.part = 1;
    options.part_count = 2;
    measure("df11_merge_model", compresses, &options);
    for (uint32_t threads = 1; threads <= 3; threads += 2)
        measure("df11_repack_model and df11_decompress_model", rewrites, &threads);
    CHECK(too_much == 0);
    printf("%u checks passed\n", checks_passed);
    return 0;
}
