/* Every function of df11.h as a C program uses it, and every mistake that such a program can make.
 *
 *     api GOLDEN HOSTILE SCRATCH      the folders tests/data/golden and tests/data/hostile, and one to write to
 */
#define _POSIX_C_SOURCE 200809L
#include "check.h"
#include "df11.h"

#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <string.h>
#include <sys/stat.h>

static const char *golden, *hostile, *scratch;

/* A path below a folder, in memory that lives until the next call. */
static const char *under(const char *folder, const char *name)
{
    static char path[4096];
    CHECK((size_t)snprintf(path, sizeof path, "%s/%s", folder, name) < sizeof path);
    return path;
}

static df11_model *open_model(const char *name, const df11_open_options *options)
{
    df11_error error;
    df11_model *model = NULL;
    if (df11_model_open(under(golden, name), options, &model, &error) != DF11_OK) {
        fprintf(stderr, "%s\n", error.message);
        exit(1);
    }
    CHECK(model != NULL && error.status == DF11_OK && error.message[0] == 0);
    return model;
}

static void *read_file(const char *path, size_t *bytes)
{
    FILE *file = fopen(path, "rb");
    long size;
    void *data;
    CHECK(file != NULL && fseek(file, 0, SEEK_END) == 0 && (size = ftell(file)) > 0);
    rewind(file);
    CHECK((data = malloc((size_t)size)) != NULL && fread(data, 1, (size_t)size, file) == (size_t)size);
    fclose(file);
    *bytes = (size_t)size;
    return data;
}

static void versions(void)
{
    char text[32];
    CHECK(df11_version_number() == DF11_VERSION_NUMBER);
    snprintf(text, sizeof text, "%d.%d.%d", DF11_VERSION_MAJOR, DF11_VERSION_MINOR, DF11_VERSION_PATCH);
    CHECK(strcmp(df11_version_string(), text) == 0);
    CHECK(strcmp(df11_status_name(DF11_OK), "OK") == 0);
    CHECK(strcmp(df11_status_name(DF11_UNSUPPORTED_FORMAT), "UNSUPPORTED_FORMAT") == 0);
    CHECK(strcmp(df11_status_name(-5), "UNKNOWN") == 0);
}

/* Every tensor of every model, whole, against the original's bytes. */
static void every_tensor(const df11_open_options *options)
{
    static const char *const names[] = {"tiny", "block", "sharded", "edge", "edge_patched"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[64];
        df11_model *model, *original;
        snprintf(path, sizeof path, "%s/model", names[i]);
        model = open_model(path, options);
        snprintf(path, sizeof path, "%s/original.safetensors", names[i]);
        original = open_model(path, NULL);
        CHECK(df11_model_group_count(model) > 0 && df11_model_group_count(original) == 0);
        CHECK(df11_model_tensor_count(model) == df11_model_tensor_count(original));
        for (uint64_t t = 0; t < df11_model_tensor_count(model); t++) {
            df11_tensor_info ours = DF11_TENSOR_INFO_INIT, theirs = DF11_TENSOR_INFO_INIT;
            uint64_t other, elements = 1;
            char *got;
            CHECK(df11_model_get_tensor_info(model, t, &ours, NULL) == DF11_OK);
            CHECK(df11_model_find_tensor(original, ours.name, &other, NULL) == DF11_OK);
            CHECK(df11_model_get_tensor_info(original, other, &theirs, NULL) == DF11_OK);
            CHECK(ours.data_bytes == theirs.data_bytes && ours.dtype == theirs.dtype && strcmp(ours.name, theirs.name) == 0);
            CHECK(theirs.group == DF11_NO_GROUP && theirs.data != NULL && theirs.file != NULL && theirs.file_offset > 8);
            for (uint32_t d = 0; d < ours.rank; d++)
                elements *= ours.shape[d];
            CHECK((got = malloc(ours.data_bytes + 1)) != NULL);
            got[ours.data_bytes] = 0x55;
            CHECK(df11_model_read_tensor(model, t, 0, got, ours.data_bytes, 3, NULL) == DF11_OK);
            CHECK(ours.data_bytes == 0 || memcmp(got, theirs.data, ours.data_bytes) == 0);
            CHECK(got[ours.data_bytes] == 0x55);
            if (ours.group != DF11_NO_GROUP) {
                CHECK(ours.dtype == DF11_DTYPE_BF16 && elements * 2 == ours.data_bytes && ours.data == NULL && ours.file == NULL);
                memset(got, 0, ours.data_bytes);
                CHECK(df11_model_decompress(model, ours.group, ours.group_offset, elements, got, ours.data_bytes, 1, NULL) == DF11_OK);
                CHECK(ours.data_bytes == 0 || memcmp(got, theirs.data, ours.data_bytes) == 0);
            } else
                CHECK((ours.data == NULL) == (options != NULL && (options->flags & DF11_OPEN_READ)));
            free(got);
        }
        df11_model_free(original);
        df11_model_free(model);
    }
}

static void groups_and_parts(void)
{
    df11_model *model = open_model("sharded/model", NULL);
    df11_error error;
    uint64_t number = 99, next = 0;
    CHECK(df11_model_find_group(model, "model.layers.1", &number, &error) == DF11_OK && number < 4);
    CHECK(df11_model_find_group(model, "model.layers.7", &number, &error) == DF11_NOT_FOUND && number == 0);
    CHECK(strstr(error.message, "model.layers.7") != NULL);
    for (uint64_t g = 0; g < df11_model_group_count(model); g++) {
        df11_group_info info = DF11_GROUP_INFO_INIT;
        uint64_t bytes = 0;
        CHECK(df11_model_get_group_info(model, g, &info, &error) == DF11_OK);
        CHECK(info.struct_size == sizeof info && info.first_tensor == next && info.tensor_count >= 1);
        next += info.tensor_count;
        for (uint32_t part = DF11_PART_LUTS; part <= DF11_PART_SPLIT_POSITIONS; part++) {
            df11_part_info where = DF11_PART_INFO_INIT;
            CHECK(df11_model_get_group_part(model, g, part, &where, &error) == DF11_OK);
            CHECK(where.data != NULL && strstr(where.file, ".safetensors") != NULL);
            bytes += where.data_bytes;
            if (part == DF11_PART_SIGN_MANTISSA) {
                size_t size;
                char *file = read_file(where.file, &size);
                CHECK(where.data_bytes == info.element_count && where.file_offset + where.data_bytes <= size);
                CHECK(memcmp(file + where.file_offset, where.data, where.data_bytes) == 0);
                free(file);
            }
        }
        CHECK(bytes == info.packed_bytes);
    }
    df11_group_info info = DF11_GROUP_INFO_INIT;
    df11_part_info where = DF11_PART_INFO_INIT;
    info.name = "before";
    CHECK(df11_model_get_group_info(model, 4, &info, &error) == DF11_NOT_FOUND && info.name == NULL);
    CHECK(df11_model_get_group_part(model, 0, 6, &where, &error) == DF11_NOT_FOUND && where.data_bytes == 0);
    df11_model_free(model);
}

/* Groups by the extension of the format: what is said of their runs, and every tensor from them. */
static void runs(const df11_open_options *options)
{
    uint64_t extended = 0, several = 0, scattered = 0;
    df11_run_info run = DF11_RUN_INFO_INIT;
    df11_error error;
    df11_model *original = open_model("../extension/original.safetensors", NULL);
    df11_model *model = open_model("../extension/model", options);
    for (uint64_t g = 0; g < df11_model_group_count(model); g++) {
        df11_group_info group = DF11_GROUP_INFO_INIT;
        uint64_t weights = 0;
        CHECK(df11_model_get_group_info(model, g, &group, NULL) == DF11_OK);
        for (uint64_t r = 0; r < group.tensor_count; r++) {
            CHECK(df11_model_get_group_run(model, g, r, &run, NULL) == DF11_OK);
            CHECK(run.group == g && run.group_offset == weights && run.element_count > 0);
            CHECK(group.first_tensor == DF11_NO_TENSOR || group.first_tensor + r == run.tensor);
            weights += run.element_count;
        }
        CHECK(weights == group.element_count && group.extended <= 1);
        CHECK(df11_model_get_group_run(model, g, group.tensor_count, &run, &error) == DF11_NOT_FOUND);
        extended += group.extended;
        scattered += group.first_tensor == DF11_NO_TENSOR;
    }
    for (uint64_t t = 0; t < df11_model_tensor_count(model); t++) {
        df11_tensor_info ours = DF11_TENSOR_INFO_INIT, theirs = DF11_TENSOR_INFO_INIT;
        uint64_t other, elements = 0;
        CHECK(df11_model_get_tensor_info(model, t, &ours, NULL) == DF11_OK);
        CHECK(df11_model_find_tensor(original, ours.name, &other, NULL) == DF11_OK);
        CHECK(df11_model_get_tensor_info(original, other, &theirs, NULL) == DF11_OK);
        CHECK(ours.data_bytes == theirs.data_bytes && theirs.run_count == 0);
        CHECK((ours.run_count == 0) == (ours.group == DF11_NO_GROUP));
        uint16_t *got = malloc(ours.data_bytes);
        CHECK(got != NULL);
        for (uint64_t r = 0; r < ours.run_count; r++) {
            CHECK(df11_model_get_tensor_run(model, t, r, &run, NULL) == DF11_OK);
            CHECK(run.tensor == t && run.tensor_offset == elements);
            CHECK(r > 0 || (run.group == ours.group && run.group_offset == ours.group_offset));
            CHECK(df11_model_decompress(model, run.group, run.group_offset, run.element_count, got + elements,
                                        2 * run.element_count, 1, NULL) == DF11_OK);
            elements += run.element_count;
        }
        CHECK(ours.run_count == 0 || (2 * elements == ours.data_bytes && memcmp(got, theirs.data, ours.data_bytes) == 0));
        memset(got, 0, ours.data_bytes);
        CHECK(df11_model_read_tensor(model, t, 2, got, ours.data_bytes - 4, 2, NULL) == DF11_OK);
        CHECK(memcmp(got, (const char *)theirs.data + 2, ours.data_bytes - 4) == 0);
        free(got);
        several += ours.run_count > 1;
    }
    CHECK(extended == 5 && several == 2 && scattered == 0);
    df11_model_free(original);
    df11_model_free(model);
    char there[512], plain[512];
    snprintf(there, sizeof there, "%s", under(golden, "../extension/model"));
    snprintf(plain, sizeof plain, "%s", under(golden, "../extension/original.safetensors"));
    CHECK(df11_verify_model(there, plain, NULL, NULL) == DF11_OK);
}

static void ranges(void)
{
    df11_model *model = open_model("block/model", NULL);
    df11_group_info info = DF11_GROUP_INFO_INIT;
    df11_error error;
    uint64_t group;
    uint16_t *whole, *part;
    CHECK(df11_model_find_group(model, "model.layers.0", &group, NULL) == DF11_OK);
    CHECK(df11_model_get_group_info(model, group, &info, NULL) == DF11_OK && info.tensor_count == 7);
    uint64_t n = info.element_count;
    CHECK((whole = malloc(2 * n)) != NULL && (part = malloc(2 * n + 2)) != NULL);
    CHECK(df11_model_decompress(model, group, 0, n, whole, 2 * n, 2, NULL) == DF11_OK);
    for (uint64_t first = 0, count = 1; first + count <= n; first += count / 2 + 1, count = count * 3 + 1) {
        part[count] = 0x1234;
        CHECK(df11_model_decompress(model, group, first, count, part, 2 * count, (uint32_t)(count % 5), NULL) == DF11_OK);
        CHECK(memcmp(part, whole + first, 2 * count) == 0 && part[count] == 0x1234);
    }
    CHECK(df11_model_decompress(model, group, n, 0, NULL, 0, 1, &error) == DF11_OK);
    CHECK(df11_model_decompress(model, group, n, 1, part, 2, 1, &error) == DF11_INVALID_ARGUMENT);
    CHECK(df11_model_decompress(model, group, 1, UINT64_MAX, part, 2 * n, 1, &error) == DF11_INVALID_ARGUMENT);
    CHECK(df11_model_decompress(model, group, 0, n, part, 2 * n - 1, 1, &error) == DF11_BUFFER_TOO_SMALL);
    CHECK(df11_model_decompress(model, group, 0, n, NULL, 2 * n, 1, &error) == DF11_INVALID_ARGUMENT);
    CHECK(df11_model_decompress(model, group, 0, 1, (char *)part + 1, 2, 1, &error) == DF11_MISALIGNED);
    CHECK(df11_model_decompress(model, 1000, 0, 1, part, 2, 1, &error) == DF11_NOT_FOUND);
    CHECK(df11_model_decompress(NULL, group, 0, 1, part, 2, 1, &error) == DF11_INVALID_ARGUMENT);
    CHECK(error.status == DF11_INVALID_ARGUMENT && strstr(error.message, "NULL") != NULL);
    CHECK(df11_model_read_tensor(model, info.first_tensor, 1, part, 2, 1, &error) == DF11_INVALID_ARGUMENT);
    CHECK(df11_model_read_tensor(model, info.first_tensor, 2 * n, part, 2, 1, &error) == DF11_INVALID_ARGUMENT);
    CHECK(df11_model_read_tensor(model, info.first_tensor + 1, 4, part, 6, 1, &error) == DF11_OK);
    df11_tensor_info second = DF11_TENSOR_INFO_INIT;
    CHECK(df11_model_get_tensor_info(model, info.first_tensor + 1, &second, NULL) == DF11_OK);
    CHECK(memcmp(part, whole + second.group_offset + 2, 6) == 0);
    free(whole);
    free(part);
    df11_model_free(model);
}

/* Images of ranges: all of a group is its image, halves hold what they say, and what is none is refused. */
static void image_ranges(const df11_model *model, uint64_t g, uint64_t n, const unsigned char *whole, size_t whole_bytes)
{
    df11_error error;
    df11_image_info info = DF11_IMAGE_INFO_INIT, said = DF11_IMAGE_INFO_INIT;
    unsigned char *image = malloc(whole_bytes + 1);
    CHECK(image != NULL && n > 1);
    for (uint32_t threads = 0; threads < 3; threads++) {
        CHECK(df11_model_get_image_range_info(model, g, 0, n, &info, &error) == DF11_OK);
        CHECK(info.image_bytes == whole_bytes && info.first_element == 0 && info.group_element_count == n);
        CHECK(df11_model_write_image_range(model, g, 0, n, image, whole_bytes, threads, &error) == DF11_OK);
        CHECK(memcmp(image, whole, whole_bytes) == 0);
        for (uint64_t first = 0; first < n; first += n / 2) {
            uint64_t count = first + n / 2 > n ? n - first : n / 2;
            CHECK(df11_model_get_image_range_info(model, g, first, count, &info, &error) == DF11_OK);
            size_t bytes = (size_t)info.image_bytes;
            CHECK(bytes <= whole_bytes);
            image[bytes] = 0x55;
            CHECK(df11_model_write_image_range(model, g, first, count, image, bytes, threads, &error) == DF11_OK);
            CHECK(image[bytes] == 0x55 && df11_image_get_info(image, bytes, &said, &error) == DF11_OK);
            CHECK(memcmp(&said, &info, sizeof said) == 0);
            CHECK(said.first_element == first && said.element_count == count && said.slice_count == 0);
            CHECK(said.first_tensor + said.tensor_count <= said.group_tensor_count);
            CHECK(df11_model_write_image_range(model, g, first, count, image, bytes - 1, threads, &error) ==
                  DF11_BUFFER_TOO_SMALL);
        }
    }
    const uint64_t none[][2] = {{0, 0}, {n, 1}, {0, n + 1}, {1, n}, {UINT64_MAX, 1}, {1, UINT64_MAX}};
    for (size_t i = 0; i < sizeof none / sizeof *none; i++) {
        uint64_t first = none[i][0], count = none[i][1];
        CHECK(df11_model_get_image_range_info(model, g, first, count, &info, &error) == DF11_INVALID_ARGUMENT);
        CHECK(info.image_bytes == 0 && info.struct_size == sizeof info);
        CHECK(df11_model_write_image_range(model, g, first, count, image, whole_bytes, 1, &error) ==
              DF11_INVALID_ARGUMENT);
    }
    CHECK(df11_model_get_image_range_info(model, 1000, 0, 1, &info, &error) == DF11_NOT_FOUND);
    CHECK(df11_model_write_image_range(model, 1000, 0, 1, image, whole_bytes, 1, &error) == DF11_NOT_FOUND);
    free(image);
}

/* Shards: a layer on two ranks by rows and columns, what the image says of its slices, and what is refused. */
static void shards(void)
{
    df11_error error;
    df11_model *model = open_model("sharded/model", NULL);
    uint64_t group = 0, first = 77, count = 77;
    CHECK(df11_model_find_group(model, "model.layers.0", &group, &error) == DF11_OK);
    df11_group_info info = DF11_GROUP_INFO_INIT;
    CHECK(df11_model_get_group_info(model, group, &info, &error) == DF11_OK && info.tensor_count == 7);
    uint64_t sum = 0;
    for (uint32_t rank = 0; rank < 2; rank++) {
        df11_slice slices[7];
        for (uint64_t t = 0; t < 7; t++) {
            df11_tensor_info tensor = DF11_TENSOR_INFO_INIT;
            CHECK(df11_model_get_tensor_info(model, info.first_tensor + t, &tensor, &error) == DF11_OK);
            int columns = strstr(tensor.name, "o_proj") != NULL || strstr(tensor.name, "down_proj") != NULL;
            int heads = strstr(tensor.name, "self_attn") != NULL;
            df11_segment segment = {tensor.shape[columns], 32, DF11_SPLIT_EVEN, 0};
            CHECK(df11_model_get_slices(model, group, t, DF11_DIMENSION_BY_NAME, heads ? &segment : NULL, (size_t)heads,
                                        rank, 2, &slices[t], &error) == DF11_OK);
            CHECK(slices[t].tensor == t && (slices[t].run_count > 1) == columns);
            CHECK((uint64_t)slices[t].run_count * slices[t].run_elements == tensor.data_bytes / 4);
        }
        df11_shard *shard = NULL;
        df11_progress *progress = NULL;
        df11_image_info image = DF11_IMAGE_INFO_INIT, said = DF11_IMAGE_INFO_INIT;
        CHECK(df11_progress_new(&progress, &error) == DF11_OK);
        CHECK(df11_model_make_shard(model, group, slices, 7, 2, progress, &shard, &error) == DF11_OK);
        CHECK(df11_shard_get_image_info(shard, &image, &error) == DF11_OK);
        CHECK(image.slice_count == 7 && image.tensor_count == 7 && image.element_count == info.element_count / 2);
        CHECK(image.group_element_count == info.element_count && image.image_bytes < info.image_bytes);
        size_t bytes = (size_t)image.image_bytes;
        unsigned char *one = malloc(bytes + 1), *two = malloc(bytes + 1);
        CHECK(one != NULL && two != NULL);
        one[bytes] = 0x55;
        CHECK(df11_shard_write_image(shard, one, bytes - 1, 1, NULL, &error) == DF11_BUFFER_TOO_SMALL);
        CHECK(df11_shard_write_image(shard, one, bytes, 1, NULL, &error) == DF11_OK && one[bytes] == 0x55);
        CHECK(df11_shard_write_image(shard, two, bytes, 4, progress, &error) == DF11_OK);
        CHECK(memcmp(one, two, bytes) == 0);
        CHECK(df11_image_get_info(one, bytes, &said, &error) == DF11_OK && memcmp(&said, &image, sizeof said) == 0);
        for (uint64_t t = 0; t < 7; t++) {
            df11_slice slice;
            CHECK(df11_image_get_slice(one, bytes, t, &slice, &error) == DF11_OK);
            CHECK(memcmp(&slice, &slices[t], sizeof slice) == 0);
        }
        df11_slice slice = slices[0];
        CHECK(df11_image_get_slice(one, bytes, 7, &slice, &error) == DF11_NOT_FOUND && slice.run_count == 0);
        df11_progress_cancel(progress);
        CHECK(df11_shard_write_image(shard, one, bytes, 2, progress, &error) == DF11_CANCELLED && one[0] == 0);
        df11_shard_free(shard);
        CHECK(df11_model_make_shard(model, group, slices, 7, 2, progress, &shard, &error) == DF11_CANCELLED);
        CHECK(shard == NULL);
        slices[3].first = slices[3].run_stride;
        CHECK(df11_model_make_shard(model, group, slices, 7, 2, NULL, &shard, &error) == DF11_INVALID_ARGUMENT);
        CHECK(strstr(error.message, "slice 3") != NULL);
        CHECK(df11_model_make_shard(model, group, NULL, 0, 2, NULL, &shard, &error) == DF11_INVALID_ARGUMENT);
        CHECK(df11_model_make_shard(model, 1000, slices, 7, 2, NULL, &shard, &error) == DF11_NOT_FOUND);
        df11_progress_free(progress);
        sum += bytes;
        free(one);
        free(two);
    }
    CHECK(sum < info.image_bytes + 3 * 32768);

    df11_slice slice;
    df11_segment segment = {320, 32, DF11_SPLIT_EVEN, 0};
    const uint32_t by_name = DF11_DIMENSION_BY_NAME;
    CHECK(df11_model_get_slices(model, group, 0, by_name, NULL, 0, 0, 2, &slice, &error) == DF11_INVALID_ARGUMENT);
    CHECK(strstr(error.message, "give segments") != NULL && slice.run_count == 0);
    CHECK(df11_model_get_slices(model, group, 4, by_name, &segment, 1, 0, 3, &slice, &error) == DF11_INVALID_ARGUMENT);
    CHECK(df11_model_get_slices(model, group, 4, 2, NULL, 0, 0, 2, &slice, &error) == DF11_INVALID_ARGUMENT);
    CHECK(df11_model_get_slices(model, group, 4, 0, &segment, 1, 2, 2, &slice, &error) == DF11_INVALID_ARGUMENT);
    CHECK(df11_model_get_slices(model, group, 7, 0, NULL, 0, 0, 2, &slice, &error) == DF11_NOT_FOUND);
    CHECK(df11_model_get_slices(model, 1000, 0, 0, NULL, 0, 0, 2, &slice, &error) == DF11_NOT_FOUND);
    CHECK(df11_split_segment(&segment, 1, 2, &first, &count, &error) == DF11_OK && first == 160 && count == 160);
    segment.rule = DF11_SPLIT_SPREAD;
    CHECK(df11_split_segment(&segment, 3, 4, &first, &count, &error) == DF11_OK && first == 256 && count == 64);
    segment.rule = DF11_SPLIT_REPLICATE;
    CHECK(df11_split_segment(&segment, 3, 20, &first, &count, &error) == DF11_OK && first == 32 && count == 32);
    segment.rule = DF11_SPLIT_PAD;
    CHECK(df11_split_segment(&segment, 3, 4, &first, &count, &error) == DF11_OK && first == 288 && count == 32);
    segment.rule = 4;
    CHECK(df11_split_segment(&segment, 0, 2, &first, &count, &error) == DF11_INVALID_ARGUMENT && first + count == 0);
    segment.rule = DF11_SPLIT_EVEN;
    segment.reserved = 1;
    CHECK(df11_split_segment(&segment, 0, 2, &first, &count, &error) == DF11_UNSUPPORTED_OPTION);
    df11_model_free(model);
}

/* Images: the same bytes at once and in parts, with guards around them, and what a program can get wrong. */
static void images(void)
{
    static const char *const names[] = {"tiny", "block", "edge"};
    df11_error error;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[64];
        snprintf(path, sizeof path, "%s/model", names[i]);
        df11_model *model = open_model(path, NULL);
        for (uint64_t g = 0; g < df11_model_group_count(model); g++) {
            df11_group_info info = DF11_GROUP_INFO_INIT;
            unsigned char *image, *again;
            CHECK(df11_model_get_group_info(model, g, &info, &error) == DF11_OK);
            CHECK(info.image_bytes > info.element_count && info.image_bytes % 256 == 0);
            size_t bytes = info.image_bytes;
            CHECK((image = malloc(bytes + 1)) != NULL && (again = malloc(bytes + 1)) != NULL);
            image[bytes] = again[bytes] = 0x55;
            CHECK(df11_model_write_image(model, g, image, bytes, &error) == DF11_OK && image[bytes] == 0x55);
            CHECK(memcmp(image, "DF11IMG", 8) == 0);
            for (uint32_t parts = 1; parts <= 7; parts++) {
                memset(again, 0xaa, bytes);
                for (uint32_t part = parts; part-- > 0;)
                    CHECK(df11_model_write_image_part(model, g, again, bytes, part, parts, &error) == DF11_OK);
                CHECK(memcmp(image, again, bytes) == 0 && again[bytes] == 0x55);
            }
            memset(again, 0xaa, bytes);
            CHECK(df11_model_write_image(model, g, again, bytes - 1, &error) == DF11_BUFFER_TOO_SMALL);
            CHECK(df11_model_write_image(model, g, NULL, bytes, &error) == DF11_INVALID_ARGUMENT);
            CHECK(df11_model_write_image(model, 1000, again, bytes, &error) == DF11_NOT_FOUND);
            CHECK(df11_model_write_image(NULL, g, again, bytes, &error) == DF11_INVALID_ARGUMENT);
            CHECK(df11_model_write_image_part(model, g, again, bytes, 3, 3, &error) == DF11_INVALID_ARGUMENT);
            CHECK(df11_model_write_image_part(model, g, again, bytes, 0, 0, &error) == DF11_INVALID_ARGUMENT);
            image_ranges(model, g, info.element_count, image, bytes);
            size_t same = 0;
            while (same < bytes && again[same] == 0xaa)
                same++;
            CHECK(same == bytes);
            free(again);
            free(image);
        }
        df11_model_free(model);
    }
    /* A program that was compiled when the struct was smaller gets no more than it has room for. */
    df11_model *model = open_model("tiny/model", NULL);
    df11_group_info old = DF11_GROUP_INFO_INIT;
    old.struct_size = offsetof(df11_group_info, image_bytes);
    old.image_bytes = 77;
    CHECK(df11_model_get_group_info(model, 0, &old, &error) == DF11_OK && old.packed_bytes > 0 && old.image_bytes == 77);
    df11_model_free(model);
    /* Positions that lie: no image, and nothing that looks like one. */
    unsigned char image[1 << 16];
    df11_group_info info = DF11_GROUP_INFO_INIT;
    memset(image, 0xaa, sizeof image);
    CHECK(df11_model_open(under(hostile, "bits_that_are_no_code.safetensors"), NULL, &model, &error) == DF11_OK);
    CHECK(df11_model_get_group_info(model, 0, &info, &error) == DF11_OK && info.image_bytes <= sizeof image);
    CHECK(df11_model_write_image(model, 0, image, sizeof image, &error) == DF11_CORRUPT);
    CHECK(strstr(error.message, "encoded_exponent") != NULL && strstr(error.message, "at byte") != NULL);
    for (size_t at = 0; at < 256; at++)
        CHECK(image[at] == 0);
    df11_model_free(model);
}

static void mistakes_and_files(void)
{
    df11_model *model = (df11_model *)&model;
    df11_error error;
    df11_open_options options = DF11_OPEN_OPTIONS_INIT;
    uint64_t number;
    CHECK(df11_model_open(NULL, NULL, &model, &error) == DF11_INVALID_ARGUMENT && model == NULL);
    CHECK(df11_model_open("x", NULL, NULL, &error) == DF11_INVALID_ARGUMENT);
    CHECK(df11_model_open(under(golden, "none"), NULL, &model, NULL) == DF11_IO);
    CHECK(df11_model_open(under(golden, "none"), NULL, &model, &error) == DF11_IO && error.native_code == ENOENT);
    CHECK(strstr(error.message, "golden/none") != NULL);
    options.flags = 1u << 31;
    CHECK(df11_model_open(under(golden, "tiny/model"), &options, &model, &error) == DF11_UNSUPPORTED_OPTION);
    options.flags = 0;
    options.struct_size = 0;
    CHECK(df11_model_open(under(golden, "tiny/model"), &options, &model, &error) == DF11_INVALID_ARGUMENT);
    CHECK(strstr(error.message, "DF11_OPEN_OPTIONS_INIT") != NULL);

    /* A program of the future, whose options are larger: zeros behind what this library knows are fine. */
    struct {
        df11_open_options now;
        uint64_t later;
    } newer = {DF11_OPEN_OPTIONS_INIT, 0};
    newer.now.struct_size = sizeof newer;
    CHECK(df11_model_open(under(golden, "tiny/model"), &newer.now, &model, &error) == DF11_OK);
    df11_model_free(model);
    newer.later = 1;
    CHECK(df11_model_open(under(golden, "tiny/model"), &newer.now, &model, &error) == DF11_UNSUPPORTED_OPTION);
    CHECK(model == NULL);

    /* Hostile files: the status and the words. All of them are tried in tests/format/hostile. */
    CHECK(df11_model_open(under(hostile, "exponent_240.safetensors"), NULL, &model, &error) == DF11_UNSUPPORTED_FORMAT);
    CHECK(model == NULL && strstr(error.message, "240") != NULL && strstr(error.message, ".luts") != NULL);

    CHECK(df11_model_find_tensor(NULL, "x", &number, NULL) == DF11_INVALID_ARGUMENT);
    CHECK(df11_model_group_count(NULL) == 0 && df11_model_tensor_count(NULL) == 0);
    df11_model_free(NULL);

    model = open_model("tiny/model", NULL);
    CHECK(df11_model_find_tensor(model, NULL, &number, NULL) == DF11_INVALID_ARGUMENT && number == 0);
    CHECK(df11_model_find_tensor(model, "norm.bias", NULL, NULL) == DF11_INVALID_ARGUMENT);
    CHECK(df11_model_get_tensor_info(model, 0, NULL, NULL) == DF11_INVALID_ARGUMENT);
    df11_tensor_info info = DF11_TENSOR_INFO_INIT;
    info.struct_size = 8;
    CHECK(df11_model_get_tensor_info(model, 0, &info, &error) == DF11_INVALID_ARGUMENT);
    df11_model_free(model);
}

/* Opening counts what it verifies, for whoever watches, and can be cancelled. */
static void opening_watched(void)
{
    df11_error error;
    df11_model *model;
    df11_progress *progress;
    df11_open_options options = DF11_OPEN_OPTIONS_INIT;
    uint64_t done, total, weights = 0;
    CHECK(df11_progress_new(&progress, &error) == DF11_OK);
    options.progress = progress;
    options.threads = 2;
    CHECK(df11_model_open(under(golden, "block/model"), &options, &model, &error) == DF11_OK);
    df11_progress_get(progress, &done, &total);
    CHECK(done == 0 && total == 0); /* nothing is verified */
    for (uint64_t g = 0; g < df11_model_group_count(model); g++) {
        df11_group_info info = DF11_GROUP_INFO_INIT;
        CHECK(df11_model_get_group_info(model, g, &info, NULL) == DF11_OK);
        weights += info.element_count;
    }
    df11_model_free(model);
    options.flags = DF11_OPEN_VERIFY;
    CHECK(df11_model_open(under(golden, "block/model"), &options, &model, &error) == DF11_OK);
    df11_progress_get(progress, &done, &total);
    CHECK(weights > 0 && total == 2 * weights && done == total);
    df11_model_free(model);

    /* What another call has counted is not this one's. */
    options.flags = 0;
    CHECK(df11_model_open(under(golden, "tiny/model"), &options, &model, &error) == DF11_OK);
    df11_progress_get(progress, &done, &total);
    CHECK(done == 0 && total == 0);
    df11_model_free(model);

    /* Not even if it is refused for its options. */
    for (uint32_t wrong = 0; wrong < 2; wrong++) {
        options.flags = DF11_OPEN_VERIFY;
        CHECK(df11_model_open(under(golden, "tiny/model"), &options, &model, &error) == DF11_OK);
        df11_model_free(model);
        df11_progress_get(progress, &done, &total);
        CHECK(done == total && total > 0);
        options.flags = wrong == 0 ? 1u << 31 : 0;
        CHECK(df11_model_open(wrong == 0 ? "x" : NULL, &options, &model, &error) != DF11_OK && model == NULL);
        df11_progress_get(progress, &done, &total);
        CHECK(done == 0 && total == 0);
    }

    df11_progress_cancel(progress);
    CHECK(df11_model_open(under(golden, "block/model"), &options, &model, &error) == DF11_CANCELLED && model == NULL);
    options.flags = DF11_OPEN_VERIFY;
    CHECK(df11_model_open(under(golden, "block/model"), &options, &model, &error) == DF11_CANCELLED && model == NULL);

    /* A program that was compiled before there was a progress: what lies behind its struct is not read. */
    options.struct_size = offsetof(df11_open_options, progress);
    CHECK(df11_model_open(under(golden, "block/model"), &options, &model, &error) == DF11_OK);
    df11_model_free(model);
    df11_progress_free(progress);
}

static void from_memory(void)
{
    static const char *const config = "{\"dfloat11_config\": {\"version\": \"0.5.0\", \"threads_per_block\": [512],"
                                      "\"bytes_per_thread\": 8, \"pattern_dict\": {\"line.r\": [\"q\"]}}}";
    size_t bytes;
    char *file = read_file(under(golden, "tiny/model/model.safetensors"), &bytes);
    df11_model *model;
    df11_error error;
    df11_open_options options = DF11_OPEN_OPTIONS_INIT;
    df11_part_info where = DF11_PART_INFO_INIT;
    uint64_t number;
    uint16_t weights[3];
    CHECK(df11_model_open_memory(file, bytes, NULL, &model, &error) == DF11_OK);
    CHECK(df11_model_find_tensor(model, "linear.weight", &number, NULL) == DF11_OK);
    CHECK(df11_model_decompress(model, 0, 100, 3, weights, sizeof weights, 1, &error) == DF11_OK);
    CHECK(df11_model_get_group_part(model, 0, DF11_PART_GAPS, &where, NULL) == DF11_OK);
    CHECK(strcmp(where.file, "memory") == 0 && (const char *)where.data == file + where.file_offset);
    df11_model_free(model);
    options.config_json = config;
    options.flags = DF11_OPEN_VERIFY;
    CHECK(df11_model_open_memory(file, bytes, &options, &model, &error) == DF11_OK);
    CHECK(df11_model_find_tensor(model, "linear.q.weight", &number, NULL) == DF11_OK);
    df11_model_free(model);
    options.config_json = "\xff";
    CHECK(df11_model_open_memory(file, bytes, &options, &model, &error) == DF11_INVALID_ARGUMENT);
    CHECK(df11_model_open_memory(NULL, 0, NULL, &model, &error) == DF11_INVALID_ARGUMENT);
    for (size_t n = 0; n < bytes; n += n / 8 + 1)
        CHECK(df11_model_open_memory(file, n, NULL, &model, &error) == DF11_INVALID_FORMAT && model == NULL);
    free(file);
}

static void count_lines(void *user, int32_t level, const char *message, size_t length)
{
    CHECK(level >= DF11_LOG_ERROR && level <= DF11_LOG_TRACE && message[length] == 0 && strlen(message) == length);
    ++*(unsigned *)user;
}

static void logging(void)
{
    unsigned lines = 0, before;
    df11_log_set(count_lines, DF11_LOG_TRACE, &lines);
    df11_model_free(open_model("tiny/model", NULL));
    CHECK((before = lines) > 0);
    df11_log_set(NULL, DF11_LOG_TRACE, NULL);
    df11_model_free(open_model("tiny/model", NULL));
    df11_log_set(count_lines, DF11_LOG_OFF, &lines);
    df11_model_free(open_model("tiny/model", NULL));
    CHECK(lines == before);
}

struct work {
    const df11_model *model;
    const uint16_t *want;
    uint64_t group, n;
    unsigned seed;
    int ok;
};

static void *decode_ranges(void *argument)
{
    struct work *work = argument;
    uint16_t *got = malloc(2 * work->n);
    uint64_t x = work->seed;
    work->ok = got != NULL;
    for (int i = 0; work->ok && i < 40; i++) {
        x = x * 6364136223846793005u + 1442695040888963407u;
        uint64_t first = (x >> 33) % work->n, count = (x >> 13) % (work->n - first) + 1;
        work->ok = df11_model_decompress(work->model, work->group, first, count, got, 2 * count, 1 + i % 3, NULL) == DF11_OK &&
                   memcmp(got, work->want + first, 2 * count) == 0;
    }
    free(got);
    return NULL;
}

/* One model, eight threads, no lock. */
static void threads(void)
{
    df11_model *model = open_model("block/model", NULL);
    df11_group_info info = DF11_GROUP_INFO_INIT;
    pthread_t thread[8];
    struct work work[8];
    uint16_t *want;
    CHECK(df11_model_get_group_info(model, 0, &info, NULL) == DF11_OK);
    CHECK((want = malloc(2 * info.element_count)) != NULL);
    CHECK(df11_model_decompress(model, 0, 0, info.element_count, want, 2 * info.element_count, 2, NULL) == DF11_OK);
    for (unsigned i = 0; i < 8; i++) {
        work[i] = (struct work){model, want, 0, info.element_count, i + 1, 0};
        CHECK(pthread_create(&thread[i], NULL, decode_ranges, &work[i]) == 0);
    }
    for (unsigned i = 0; i < 8; i++)
        CHECK(pthread_join(thread[i], NULL) == 0 && work[i].ok);
    free(want);
    df11_model_free(model);
}

/* How often each kind of finding was told, and the last text of what is wrong. */
struct findings {
    unsigned kinds[DF11_FINDING_MISSING + 1];
    char text[1024];
};

static void count_findings(void *user, uint32_t kind, const char *name, const char *text)
{
    struct findings *findings = user;
    CHECK(kind >= DF11_FINDING_GOOD && kind <= DF11_FINDING_MISSING && name[0] != 0 && strstr(text, name) != NULL);
    findings->kinds[kind]++;
    if (kind == DF11_FINDING_BAD || kind == DF11_FINDING_DIFFERS)
        snprintf(findings->text, sizeof findings->text, "%s", text);
}

/* Goes on so many times, then cancels. */
struct watch {
    int left;
    uint64_t done, total;
};

static int32_t watch(void *user, uint64_t done, uint64_t total)
{
    struct watch *watch = user;
    if (total == 0) /* another call begins */
        watch->done = 0;
    CHECK(done >= watch->done && done <= total);
    watch->done = done;
    watch->total = total;
    return watch->left-- == 0 ? 7 : 0;
}

static void verifying(void)
{
    char model[4096], original[4096];
    df11_error error;
    df11_progress *progress = (df11_progress *)&error;
    struct findings findings = {{0}, ""};
    struct watch told = {-1, 0, 0};
    df11_verify_options options = DF11_VERIFY_OPTIONS_INIT;
    df11_verify_report report = DF11_VERIFY_REPORT_INIT;
    uint64_t done = 1, total = 1;
    df11_model *opened = (df11_model *)&error;

    CHECK(df11_progress_new(NULL, &error) == DF11_INVALID_ARGUMENT);
    CHECK(df11_progress_new(&progress, &error) == DF11_OK && progress != NULL);
    df11_progress_get(progress, &done, &total);
    CHECK(done == 0 && total == 0);
    options.threads = 2;
    options.progress = progress;
    options.callback = watch;
    options.callback_user = &told;
    options.finding = count_findings;
    options.finding_user = &findings;
    options.report = &report;

    /* Good, alone and beside its original; the handle and the callback see the same. */
    snprintf(model, sizeof model, "%s", under(golden, "block/model"));
    snprintf(original, sizeof original, "%s", under(golden, "block/original.safetensors"));
    CHECK(df11_verify_model(model, NULL, NULL, NULL) == DF11_OK);
    CHECK(df11_verify_model(model, NULL, &options, &error) == DF11_OK && error.message[0] == 0);
    CHECK(report.struct_size == sizeof report && report.groups_good > 0 && report.groups_bad == 0);
    CHECK(findings.kinds[DF11_FINDING_GOOD] == report.groups_good && report.tensors_equal == 0);
    df11_progress_get(progress, &done, &total);
    CHECK(done == total && total == 2 * report.code_count && told.done == done && told.total == total);
    told.done = 0;
    CHECK(df11_verify_model(model, original, &options, &error) == DF11_OK);
    CHECK(report.tensors_equal == 21 && report.tensors_different == 0 && report.hashes_right == 0);
    df11_progress_get(progress, NULL, &total);
    df11_progress_get(progress, &done, NULL);
    CHECK(done == total && total > 2 * report.code_count && told.done == done);

    /* Beside another's. */
    memset(&findings, 0, sizeof findings);
    told.done = 0;
    CHECK(df11_verify_model(model, under(golden, "tiny/original.safetensors"), &options, &error) == DF11_CORRUPT);
    CHECK(report.tensors_different > 21 && findings.kinds[DF11_FINDING_DIFFERS] == report.tensors_different);
    CHECK(report.groups_bad == 0 && strstr(error.message, "the original does not") != NULL);

    /* Damaged: what opens, and what does not. */
    memset(&findings, 0, sizeof findings);
    told.done = 0;
    CHECK(df11_verify_model(under(hostile, "gap_of_a_later_chunk.safetensors"), NULL, &options, &error) == DF11_CORRUPT);
    CHECK(report.groups_bad == 1 && report.groups_good == 0 && findings.kinds[DF11_FINDING_BAD] == 1);
    CHECK(strcmp(error.message, findings.text) == 0 && strstr(error.message, ".gaps") != NULL);
    CHECK(df11_verify_model(under(hostile, "gap_of_a_later_chunk.safetensors"), NULL, NULL, NULL) == DF11_CORRUPT);
    CHECK(df11_verify_model(under(hostile, "positions_falling.safetensors"), NULL, &options, &error) == DF11_CORRUPT);
    CHECK(report.groups_bad == 0 && report.code_count == 0 && report.struct_size == sizeof report);
    CHECK(df11_verify_model(under(hostile, "file_empty.safetensors"), NULL, &options, &error) == DF11_INVALID_FORMAT);
    /* What the file is, and what to do. */
    CHECK(df11_model_open(under(hostile, "file_git_lfs_pointer.safetensors"), NULL, &opened, &error) == DF11_INVALID_FORMAT);
    CHECK(opened == NULL && strstr(error.message, "git lfs pull") != NULL);
    CHECK(df11_verify_model(model, under(hostile, "file_empty.safetensors"), &options, &error) == DF11_INVALID_ARGUMENT);
    CHECK(strstr(error.message, "the original cannot be used") != NULL);
    CHECK(df11_verify_model(under(golden, "none"), NULL, &options, &error) == DF11_IO && error.native_code == ENOENT);
    CHECK(df11_verify_model(model, under(golden, "none"), &options, &error) == DF11_IO);

    /* Mistakes. */
    CHECK(df11_verify_model(NULL, NULL, &options, &error) == DF11_INVALID_ARGUMENT);
    options.config_json = "\xff";
    CHECK(df11_verify_model(model, NULL, &options, &error) == DF11_INVALID_ARGUMENT);
    options.config_json = NULL;
    options.flags = DF11_OPEN_VERIFY;
    CHECK(df11_verify_model(model, NULL, &options, &error) == DF11_UNSUPPORTED_OPTION);
    options.flags = DF11_OPEN_ANY_VERSION;
    report.struct_size = 8;
    CHECK(df11_verify_model(model, NULL, &options, &error) == DF11_INVALID_ARGUMENT);
    CHECK(strstr(error.message, "DF11_VERIFY_REPORT_INIT") != NULL);
    report.struct_size = sizeof report;

    /* Cancelled by the callback, when the call begins and when its work does; then by the handle before the call: from then
     * on nobody is told more than once. */
    for (int goes_on = 0; goes_on < 2; goes_on++) {
        memset(&findings, 0, sizeof findings);
        told = (struct watch){goes_on, 0, 0};
        options.progress = NULL;
        CHECK(df11_verify_model(model, original, &options, &error) == DF11_CANCELLED && told.left == -1);
        CHECK((told.total > 0) == goes_on && told.done == 0);
        CHECK(findings.kinds[DF11_FINDING_GOOD] == 0 && report.groups_good == 0 && error.status == DF11_CANCELLED);
    }
    options.callback = NULL;
    options.progress = progress;
    CHECK(df11_verify_model(model, original, &options, &error) == DF11_OK);

    /* A call begins at 0, whatever the handle has counted before: also one that ends before there is anything to count. */
    const char *const ends[] = {NULL, "none", "tiny/model/config.json"};
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        CHECK(df11_verify_model(model, NULL, &options, &error) == DF11_OK);
        df11_progress_get(progress, &done, &total);
        CHECK(done == total && total > 0);
        CHECK(df11_verify_model(ends[i] != NULL ? under(golden, ends[i]) : NULL, NULL, &options, &error) != DF11_OK);
        df11_progress_get(progress, &done, &total);
        CHECK(done == 0 && total == 0);
    }
    df11_progress_cancel(progress);
    CHECK(df11_verify_model(model, original, &options, &error) == DF11_CANCELLED && report.groups_good == 0);

    df11_progress_free(progress);
    df11_progress_free(NULL);
    df11_progress_cancel(NULL);
    df11_progress_get(NULL, &done, &total);
    CHECK(done == 0 && total == 0);
}

/* A path below a folder, in memory of the caller's: several are needed at once. */
/* The same in memory of the caller's: the result of under() stays as it is, in whatever order arguments are made. */
static char *join(char *path, const char *folder, const char *name)
{
    CHECK((size_t)snprintf(path, 4096, "%s/%s", folder, name) < 4096);
    return path;
}

static char *read_text(const char *path)
{
    size_t bytes;
    char *data = read_file(path, &bytes), *text = realloc(data, bytes + 1);
    CHECK(text != NULL);
    text[bytes] = 0;
    return text;
}

static void same_file(const char *a, const char *b)
{
    size_t a_bytes, b_bytes;
    void *a_data = read_file(a, &a_bytes), *b_data = read_file(b, &b_bytes);
    CHECK(a_bytes == b_bytes && memcmp(a_data, b_data, a_bytes) == 0);
    free(a_data);
    free(b_data);
}

/* A call that must succeed: says why, if it does not. */
#define WORKS(call)                                 \
    do {                                            \
        if ((call) != DF11_OK)                      \
            fprintf(stderr, "%s\n", error.message); \
        CHECK(error.status == DF11_OK);             \
    } while (0)

static void presets(void)
{
    df11_preset_info info = DF11_PRESET_INFO_INIT;
    df11_error error;
    CHECK(df11_preset_count() > 0);
    for (uint64_t i = 0; i < df11_preset_count(); i++) {
        WORKS(df11_preset_get_info(i, &info, &error));
        CHECK(info.struct_size == sizeof info && info.name[0] != 0 && info.pattern_json[0] == '{');
    }
    CHECK(df11_preset_get_info(df11_preset_count(), &info, &error) == DF11_NOT_FOUND && info.name == NULL);
    CHECK(df11_preset_get_info(UINT64_MAX, &info, NULL) == DF11_NOT_FOUND && info.pattern_json == NULL);
    CHECK(df11_preset_get_info(0, NULL, &error) == DF11_INVALID_ARGUMENT);
}

static void count_plain(void *user, const char *tensor, const char *group, const char *reason)
{
    CHECK(strcmp(tensor, "w.weight") == 0 && strcmp(group, "w") == 0 && strstr(reason, "F32") != NULL);
    ++*(uint64_t *)user;
}

/* A file of one float32 tensor, w.weight, of four elements. */
static void write_f32(const char *path)
{
    static const char header[] = "{\"w.weight\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16]}}";
    unsigned char file[8 + sizeof header - 1 + 16] = {sizeof header - 1};
    FILE *out = fopen(path, "wb");
    memcpy(file + 8, header, sizeof header - 1);
    CHECK(out != NULL && fwrite(file, sizeof file, 1, out) == 1 && fclose(out) == 0);
}

/* A plan of a model that is there is what the model says; one of its original is near it. */
static void planning(void)
{
    char compressed[4096], original[4096], path[4096];
    df11_plan_options options = DF11_PLAN_OPTIONS_INIT;
    df11_plan_info exact = DF11_PLAN_INFO_INIT, near = DF11_PLAN_INFO_INIT;
    df11_plan_group_info planned = DF11_PLAN_GROUP_INFO_INIT;
    df11_plan_share_info share = DF11_PLAN_SHARE_INFO_INIT;
    df11_group_info group = DF11_GROUP_INFO_INIT;
    uint64_t packed = 0, images = 0, tokens, bf16, left = 0, bytes = 0;
    df11_model *model;
    df11_plan *plan;
    df11_error error;

    WORKS(df11_plan_model(join(compressed, golden, "sharded/model"), NULL, &plan, &error));
    WORKS(df11_plan_get_info(plan, &exact, &error));
    WORKS(df11_model_open(compressed, NULL, &model, &error));
    CHECK(exact.struct_size == sizeof exact && exact.exact == 1 && exact.preset == NULL && exact.file_count == 5);
    CHECK(exact.group_count == df11_model_group_count(model) && exact.left_count == 0);
    for (uint64_t i = 0; i < exact.group_count; i++) {
        WORKS(df11_model_get_group_info(model, i, &group, &error));
        WORKS(df11_plan_get_group_info(plan, i, &planned, &error));
        CHECK(strcmp(planned.name, group.name) == 0 && planned.element_count == group.element_count);
        CHECK(planned.packed_bytes == group.packed_bytes && planned.image_bytes == group.image_bytes);
        CHECK(planned.tensor_count == group.tensor_count && planned.exact == 1 && planned.extended == 0);
        packed += group.packed_bytes;
        images += group.image_bytes;
    }
    CHECK(exact.packed_bytes == packed && exact.image_bytes == images);
    CHECK(exact.scratch_bytes == 4 * exact.largest_group_element_count);
    CHECK(df11_plan_get_group_info(plan, exact.group_count, &planned, &error) == DF11_NOT_FOUND);

    /* Two layers of two heads of 32 numbers, keys and values, in bf16. */
    CHECK(exact.cache_bytes_per_token == 2 * 2 * 32 * 2 * 2 && exact.cached_layer_count == 2 && exact.cache_unknown == NULL);
    WORKS(df11_plan_get_share_info(plan, DF11_SPLIT_LAYERS, 1, 0, &share, &error));
    CHECK(share.image_bytes == images && share.plain_bytes == exact.plain_bytes);
    CHECK(share.scratch_bytes == exact.scratch_bytes && share.bf16_bytes == exact.original_bytes);
    CHECK(share.total_bytes == images + share.plain_bytes + share.scratch_bytes);
    WORKS(df11_plan_count_tokens(plan, DF11_SPLIT_LAYERS, 1, share.total_bytes + 5119, &tokens, &bf16, &error));
    CHECK(tokens == 9);
    WORKS(df11_plan_count_tokens(plan, DF11_SPLIT_ROWS, 1, share.bf16_bytes + 512, NULL, &bf16, &error));
    CHECK(bf16 == 1);
    WORKS(df11_plan_count_tokens(plan, DF11_SPLIT_LAYERS, 1, images, &tokens, NULL, &error));
    CHECK(tokens == DF11_PLAN_NONE);
    for (uint32_t i = 0; i < 3; i++) {
        WORKS(df11_plan_get_share_info(plan, DF11_SPLIT_LAYERS, 3, i, &share, &error));
        bytes += share.image_bytes + share.plain_bytes;
    }
    CHECK(bytes == images + exact.plain_bytes);
    CHECK(df11_plan_get_share_info(plan, DF11_SPLIT_LAYERS, 3, 3, &share, &error) == DF11_NOT_FOUND);
    CHECK(df11_plan_get_share_info(plan, DF11_SPLIT_ROWS, 0, 0, &share, &error) == DF11_INVALID_ARGUMENT);
    CHECK(df11_plan_get_share_info(plan, 2, 1, 0, &share, &error) == DF11_UNSUPPORTED_OPTION);
    CHECK(df11_plan_count_tokens(plan, 7, 1, 1, &tokens, &bf16, &error) == DF11_UNSUPPORTED_OPTION);
    CHECK(df11_plan_count_tokens(plan, DF11_SPLIT_ROWS, 3, 1 << 30, &tokens, &bf16, &error) == DF11_NOT_FOUND);
    CHECK(tokens == DF11_PLAN_NONE && bf16 == DF11_PLAN_NONE && strstr(error.message, "3 devices") != NULL);
    df11_plan_free(plan);
    df11_model_free(model);

    /* Its original, with all weights of these small groups counted. */
    join(original, golden, "sharded/original.safetensors");
    options.flags = DF11_PLAN_SAMPLE;
    options.slots = 1;
    options.preset = "llama";
    options.cache_number_bytes = 1;
    WORKS(df11_plan_model(original, &options, &plan, &error));
    WORKS(df11_plan_get_info(plan, &near, &error));
    CHECK(near.exact == 0 && strcmp(near.preset, "llama") == 0 && near.group_count == exact.group_count);
    CHECK(near.element_count == exact.element_count && near.file_count == exact.file_count);
    CHECK(near.packed_bytes > exact.packed_bytes * 99 / 100 && near.packed_bytes < exact.packed_bytes * 101 / 100);
    CHECK(near.scratch_bytes == 2 * near.largest_group_element_count);
    CHECK(near.cache_bytes_per_token == DF11_PLAN_NONE && strstr(near.cache_unknown, "config.json") != NULL);
    CHECK(df11_plan_count_tokens(plan, DF11_SPLIT_LAYERS, 1, UINT64_MAX, &tokens, &bf16, &error) == DF11_NOT_FOUND);
    CHECK(strcmp(error.message, near.cache_unknown) == 0);
    df11_plan_free(plan);

    /* What cannot be planned. */
    CHECK(df11_plan_model(compressed, &options, &plan, &error) == DF11_INVALID_ARGUMENT && plan == NULL);
    options.preset = "no such preset";
    CHECK(df11_plan_model(original, &options, &plan, &error) == DF11_NOT_FOUND && plan == NULL);
    options.preset = NULL;
    CHECK(df11_plan_model(join(path, golden, "nothing"), &options, &plan, &error) == DF11_IO && plan == NULL);
    options.slots = 65;
    CHECK(df11_plan_model(original, &options, &plan, &error) == DF11_INVALID_ARGUMENT);
    options.slots = 0;
    options.cache_number_bytes = 9;
    CHECK(df11_plan_model(original, &options, &plan, &error) == DF11_INVALID_ARGUMENT);
    options.cache_number_bytes = 0;
    options.flags = 8;
    CHECK(df11_plan_model(original, &options, &plan, &error) == DF11_UNSUPPORTED_OPTION);
    options.flags = 0;
    CHECK(df11_progress_new(&options.progress, NULL) == DF11_OK);
    df11_progress_cancel(options.progress);
    CHECK(df11_plan_model(original, &options, &plan, &error) == DF11_CANCELLED);
    df11_progress_free(options.progress);
    options.progress = NULL;

    /* A tensor of another type stays plain. */
    write_f32(join(path, scratch, "plan-f32.safetensors"));
    options.pattern_json = "{\"w\": []}";
    options.left = count_plain;
    options.left_user = &left;
    WORKS(df11_plan_model(path, &options, &plan, &error));
    WORKS(df11_plan_get_info(plan, &near, &error));
    CHECK(near.left_count == 1 && left == 1 && near.group_count == 0 && near.plain_bytes == 16);
    df11_plan_free(plan);
}

/* Models of the reference compressor, from their originals: the same files. */
static void writing(void)
{
    static const char *const names[] = {"tiny", "block", "edge", "edge_patched"};
    static const char *const shards[] = {"model", "lm_head", "model_embed_tokens", "model_layers_0", "model_layers_1"};
    char source[4096], to[4096], path[4096], name[64];
    df11_compress_options options = DF11_COMPRESS_OPTIONS_INIT;
    df11_compress_report report = DF11_COMPRESS_REPORT_INIT;
    df11_verify_options verify = DF11_VERIFY_OPTIONS_INIT;
    df11_verify_report verified = DF11_VERIFY_REPORT_INIT;
    struct watch told = {-1, 0, 0};
    df11_tensor_info info = DF11_TENSOR_INFO_INIT;
    df11_progress *progress;
    df11_error error;
    df11_model *model;
    uint64_t done, total, number;
    char *config;
    const char *llama;
    CHECK(df11_progress_new(&progress, NULL) == DF11_OK);
    options.report = &report;
    verify.report = &verified;

    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        told = (struct watch){-1, 0, 0};
        options.progress = progress;
        options.callback = watch;
        options.callback_user = &told;
        options.threads = (uint32_t)i;
        options.flags = DF11_COMPRESS_SINGLE_FILE | (i % 2 ? DF11_COMPRESS_NO_VERIFY : 0);
        snprintf(name, sizeof name, "%s/original.safetensors", names[i]);
        join(source, golden, name);
        snprintf(name, sizeof name, "%s/model/config.json", names[i]);
        options.pattern_json = config = read_text(join(path, golden, name));
        WORKS(df11_compress_model(source, join(to, scratch, names[i]), &options, &error));
        CHECK(report.complete == 1 && report.groups > 0 && report.left_count == 0 && report.resumed == 0);
        CHECK(report.struct_size == sizeof report && report.preset == NULL && report.unmatched_count == 0);
        CHECK(report.weight_bytes == 2 * report.weights && report.packed_bytes < report.written_bytes);
        CHECK(report.source_bytes >= report.weight_bytes);
        df11_progress_get(progress, &done, &total);
        CHECK(done == total && total > 0 && told.done == done && told.total == total);
        same_file(join(path, to, "config.json"), under(golden, name));
        snprintf(name, sizeof name, "%s/model/model.safetensors", names[i]);
        same_file(join(path, to, "model.safetensors"), under(golden, name));
        CHECK(df11_verify_model(to, source, &verify, &error) == DF11_OK && verified.tensors_equal > 0);
        CHECK(verified.groups_good == report.groups && verified.code_count == report.weights);
        free(config);
    }
    options.progress = NULL;
    options.callback = NULL;

    /* A folder of files, by a preset that is chosen; then by its name, with what the reference does not write. */
    join(source, golden, "sharded/original.safetensors");
    options.pattern_json = NULL;
    options.flags = 0;
    options.threads = 9;
    options.memory_bytes = 1;
    WORKS(df11_compress_model(source, join(to, scratch, "sharded"), &options, &error));
    CHECK(report.preset != NULL && report.groups == 4 && report.complete == 1);
    for (size_t i = 0; i < sizeof shards / sizeof *shards; i++) {
        snprintf(name, sizeof name, "sharded/%s.safetensors", shards[i]);
        join(path, scratch, name);
        snprintf(name, sizeof name, "sharded/model/%s.safetensors", shards[i]);
        same_file(path, under(golden, name));
    }
    CHECK(df11_compress_model(source, to, &options, &error) == DF11_EXISTS);
    CHECK(strstr(error.message, "not empty") != NULL && report.groups == 0 && report.preset == NULL);
    options.flags = DF11_COMPRESS_SINGLE_FILE | DF11_COMPRESS_KEEP_EXISTING;
    WORKS(df11_compress_model(source, join(to, scratch, "kept.safetensors"), &options, &error));
    CHECK(df11_compress_model(source, to, &options, &error) == DF11_EXISTS && report.groups == 0);
    options.flags = DF11_COMPRESS_SINGLE_FILE;
    WORKS(df11_compress_model(source, to, &options, &error));
    options.flags = 0;
    for (number = 0; number < df11_preset_count(); number++) {
        df11_preset_info preset = DF11_PRESET_INFO_INIT;
        CHECK(df11_preset_get_info(number, &preset, NULL) == DF11_OK);
        if (strcmp(preset.name, "llama") == 0)
            options.preset = preset.name;
    }
    CHECK(options.preset != NULL);
    options.flags = DF11_COMPRESS_FOLDER | DF11_COMPRESS_HASHES | DF11_COMPRESS_SHAPES | DF11_COMPRESS_STRICT;
    WORKS(df11_compress_model(source, join(to, scratch, "a folder.safetensors"), &options, &error));
    CHECK(report.preset == options.preset);
    CHECK(df11_verify_model(to, NULL, &verify, &error) == DF11_OK && verified.hashes_right == 21);
    CHECK(df11_model_open(to, NULL, &model, NULL) == DF11_OK);
    CHECK(df11_model_find_tensor(model, "lm_head.weight", &number, NULL) == DF11_OK);
    CHECK(df11_model_get_tensor_info(model, number, &info, NULL) == DF11_OK && info.group != DF11_NO_GROUP);
    CHECK(info.rank == 2 && info.shape[0] == 256 && info.shape[1] == 128 && info.shape_known == DF11_SHAPE_STORED);
    df11_model_free(model);

    /* By automatic groups, which for these names are those of the preset. */
    llama = options.preset;
    options.preset = "automatic";
    options.flags = DF11_COMPRESS_FOLDER;
    WORKS(df11_compress_model(source, join(to, scratch, "automatic"), &options, &error));
    CHECK(strcmp(report.preset, "automatic") == 0 && report.groups == 4);
    CHECK(df11_verify_model(to, source, &verify, &error) == DF11_OK);
    options.preset = llama;

    /* One file by its name. Going on with what is complete finds it so; a run that is cancelled replaces nothing. */
    join(source, golden, "block/original.safetensors");
    options.flags = 0;
    WORKS(df11_compress_model(source, join(to, scratch, "one/x.safetensors"), &options, &error));
    options.threads = 2;
    options.flags = DF11_COMPRESS_RESUME;
    WORKS(df11_compress_model(source, to, &options, &error));
    CHECK(report.resumed == report.groups && report.complete == 1);
    options.flags = 0;
    WORKS(df11_compress_model(source, to, &options, &error));
    CHECK(report.resumed == 0 && report.complete == 1);
    same_file(to, under(golden, "block/model/model.safetensors"));
    told = (struct watch){0, 0, 0};
    options.callback = watch;
    CHECK(df11_compress_model(source, to, &options, &error) == DF11_CANCELLED && told.left == -1 && report.groups == 0);
    same_file(to, under(golden, "block/model/model.safetensors"));

    /* Cancelled before anything is complete, by the callback and by the handle: no trace is left. */
    for (int goes_on = 0; goes_on < 2; goes_on++) {
        told = (struct watch){goes_on, 0, 0};
        CHECK(df11_compress_model(source, join(to, scratch, "none"), &options, &error) == DF11_CANCELLED);
        CHECK(error.status == DF11_CANCELLED && told.left == -1 && (told.total > 0) == goes_on);
        CHECK(df11_model_open(to, NULL, &model, &error) == DF11_IO && error.native_code == ENOENT);
    }
    options.callback = NULL;

    /* What the handle has counted for other calls is not this one's, even if it is refused. */
    options.progress = progress;
    df11_progress_get(progress, &done, &total);
    CHECK(total > 0);
    CHECK(df11_compress_model(NULL, to, &options, &error) == DF11_INVALID_ARGUMENT);
    df11_progress_get(progress, &done, &total);
    CHECK(done == 0 && total == 0);
    df11_progress_cancel(progress);
    CHECK(df11_compress_model(source, to, &options, &error) == DF11_CANCELLED);
    CHECK(df11_model_open(to, NULL, &model, &error) == DF11_IO && error.native_code == ENOENT);
    options.progress = NULL;
    WORKS(df11_compress_model(source, to, &options, &error));
    df11_progress_free(progress);
}

/* Two processes share a model, and one goes on with what it has done. */
static void writing_in_parts(void)
{
    static const char *const files[] = {"model", "lm_head", "model_embed_tokens", "model_layers_0", "model_layers_1"};
    char source[4096], to[4096], path[4096], name[64];
    df11_compress_options options = DF11_COMPRESS_OPTIONS_INIT;
    df11_compress_report report = DF11_COMPRESS_REPORT_INIT;
    df11_error error;
    df11_model *model;
    join(source, golden, "sharded/original.safetensors");
    join(to, scratch, "parts");
    options.preset = "llama";
    options.report = &report;
    CHECK(df11_merge_model(source, to, &options, &error) == DF11_INVALID_ARGUMENT);
    options.part = 2;
    options.part_count = 2;
    WORKS(df11_compress_model(source, to, &options, &error));
    CHECK(report.groups == 2 && report.complete == 0 && report.written_bytes > 0);
    CHECK(df11_model_open(to, NULL, &model, &error) == DF11_INVALID_FORMAT && model == NULL);
    CHECK(df11_compress_model(source, to, &options, &error) == DF11_UNFINISHED);
    options.flags = DF11_COMPRESS_RESUME;
    WORKS(df11_compress_model(source, to, &options, &error));
    CHECK(report.groups == 2 && report.resumed == 2 && report.complete == 0);
    CHECK(df11_merge_model(source, to, &options, &error) == DF11_INVALID_ARGUMENT && report.groups == 0);
    CHECK(strstr(error.message, "part 1 of 2 is not finished") != NULL);
    options.part = 1;
    options.part_count = 3;
    CHECK(df11_compress_model(source, to, &options, &error) == DF11_INVALID_ARGUMENT);
    options.part_count = 2;
    options.flags = 0;
    WORKS(df11_compress_model(source, to, &options, &error));
    options.part = options.part_count = 0;
    WORKS(df11_merge_model(source, to, &options, &error));
    CHECK(report.groups == 4 && report.complete == 1 && strcmp(report.preset, "llama") == 0);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        snprintf(name, sizeof name, "parts/%s.safetensors", files[i]);
        join(path, scratch, name);
        snprintf(name, sizeof name, "sharded/model/%s.safetensors", files[i]);
        same_file(path, under(golden, name));
    }
}

/* Where shapes come from, names and sizes of types, and the config's text. */
static void shapes_and_types(void)
{
    static const char list[] = "{\"lm_head.weight\": [128, 256], \"another\": [1]}";
    char path[4096], original[4096];
    uint64_t number, bytes = 1;
    df11_open_options options = DF11_OPEN_OPTIONS_INIT;
    df11_tensor_info info = DF11_TENSOR_INFO_INIT;
    df11_model *model;
    df11_error error;
    const char *text;
    unsigned way;

    join(path, golden, "sharded/model");
    join(original, golden, "sharded/original.safetensors");
    for (way = 0; way < 4; way++) {
        static const uint32_t want[] = {DF11_SHAPE_DERIVED, DF11_SHAPE_UNKNOWN, DF11_SHAPE_GIVEN, DF11_SHAPE_GIVEN};
        options.flags = way == 1 ? DF11_OPEN_NO_DERIVED_SHAPES : 0;
        options.shapes_from = way >= 2 ? original : NULL;
        options.shapes_json = way == 3 ? list : NULL; /* it comes first */
        WORKS(df11_model_open(path, &options, &model, &error));
        CHECK(df11_model_find_tensor(model, "lm_head.weight", &number, NULL) == DF11_OK);
        CHECK(df11_model_get_tensor_info(model, number, &info, NULL) == DF11_OK && info.shape_known == want[way]);
        if (way == 1)
            CHECK(info.rank == 1 && info.shape[0] == 256 * 128);
        else
            CHECK(info.rank == 2 && info.shape[way == 3] == 256 && info.shape[way != 3] == 128);
        CHECK(df11_model_find_tensor(model, "model.norm.weight", &number, NULL) == DF11_OK);
        CHECK(df11_model_get_tensor_info(model, number, &info, NULL) == DF11_OK);
        CHECK(info.shape_known == DF11_SHAPE_STORED && info.reserved == 0);
        text = df11_model_config_text(model, &bytes);
        CHECK(text != NULL && strlen(text) == bytes && strstr(text, "\"hidden_size\": 128") != NULL);
        CHECK(df11_model_config_text(model, NULL) == text);
        df11_model_free(model);
    }
    options.shapes_json = "{\"lm_head.weight\": [128, 257]}";
    CHECK(df11_model_open(path, &options, &model, &error) == DF11_INVALID_ARGUMENT && model == NULL);
    CHECK(strstr(error.message, "lm_head.weight") != NULL && strstr(error.message, "32768 weights") != NULL);
    options.shapes_json = NULL;
    options.shapes_from = "there is no such file";
    CHECK(df11_model_open(path, &options, &model, &error) == DF11_IO && model == NULL);

    options.shapes_from = NULL;
    WORKS(df11_model_open(original, &options, &model, &error));
    CHECK(df11_model_config_text(model, &bytes) == NULL && bytes == 0);
    df11_model_free(model);
    bytes = 1;
    CHECK(df11_model_config_text(NULL, &bytes) == NULL && bytes == 0);

    CHECK(strcmp(df11_dtype_name(DF11_DTYPE_BF16), "BF16") == 0 && df11_dtype_bytes(DF11_DTYPE_BF16) == 2);
    CHECK(strcmp(df11_dtype_name(DF11_DTYPE_F8_E4M3FNUZ), "F8_E4M3FNUZ") == 0);
    CHECK(df11_dtype_bytes(DF11_DTYPE_C64) == 8 && df11_dtype_bytes(DF11_DTYPE_F4) == 0);
    CHECK(strcmp(df11_dtype_name(DF11_DTYPE_UNKNOWN), "UNKNOWN") == 0 && df11_dtype_bytes(DF11_DTYPE_UNKNOWN) == 0);
    CHECK(strcmp(df11_dtype_name(12345), "UNKNOWN") == 0 && df11_dtype_bytes(12345) == 0);
}

static void count_left(void *user, const char *tensor, const char *group, const char *reason)
{
    unsigned *left = user;
    CHECK(strlen(tensor) == 8 && strncmp(tensor, group, 1) == 0 && strcmp(tensor + 1, ".weight") == 0);
    CHECK(strlen(group) == 1 && strstr(reason, tensor[0] == 'a' ? "infinit" : "F16") != NULL);
    left[tensor[0] == 'a']++;
}

/* A model of an infinity, a half, and what can be compressed. */
static void writing_what_does_not_fit(void)
{
    static const char header[] = "{\"a.weight\":{\"dtype\":\"BF16\",\"shape\":[2],\"data_offsets\":[0,4]},"
                                 "\"b.weight\":{\"dtype\":\"F16\",\"shape\":[2],\"data_offsets\":[4,8]},"
                                 "\"c.weight\":{\"dtype\":\"BF16\",\"shape\":[3],\"data_offsets\":[8,14]}}";
    static const uint16_t weights[] = {0x3f80, 0x7f80, 0x3c00, 0x4000, 0x3f80, 0xbf80, 0x0001};
    char source[4096], to[4096];
    uint64_t size = sizeof header - 1;
    unsigned left[2] = {0, 0};
    df11_compress_options options = DF11_COMPRESS_OPTIONS_INIT;
    df11_compress_report report = DF11_COMPRESS_REPORT_INIT;
    df11_error error;
    FILE *file = fopen(join(source, scratch, "unfit.safetensors"), "wb");
    CHECK(file != NULL && fwrite(&size, 8, 1, file) == 1 && fwrite(header, size, 1, file) == 1);
    CHECK(fwrite(weights, sizeof weights, 1, file) == 1 && fclose(file) == 0);
    options.pattern_json = "{\"[a-c]\": [], \"d\": []}";
    options.report = &report;
    options.left = count_left;
    options.left_user = left;
    WORKS(df11_compress_model(source, join(to, scratch, "unfit"), &options, &error));
    CHECK(left[0] == 1 && left[1] == 1 && report.left_count == 2 && report.groups == 1 && report.weights == 3);
    CHECK(report.unmatched_count == 1 && report.dropped_count == 0 && report.complete == 1);
    CHECK(report.bf16_bytes == 10 && report.unfit_bf16_bytes == 4 && report.mixed_bf16_bytes == 0);
    CHECK(df11_verify_model(to, source, NULL, &error) == DF11_OK);
    options.flags = DF11_COMPRESS_STRICT;
    CHECK(df11_compress_model(source, join(to, scratch, "strict"), &options, &error) == DF11_UNSUPPORTED_FORMAT);
    CHECK(left[0] == 1 && left[1] == 1 && report.left_count == 0 && strstr(error.message, "b.weight") != NULL);
}

/* Writes a file, of a text or other bytes. */
static void write_file(const char *path, const void *data, size_t bytes)
{
    FILE *file = fopen(path, "wb");
    CHECK(file != NULL && fwrite(data, 1, bytes, file) == bytes && fclose(file) == 0);
}

/* Writes a folder as an interrupted download leaves it: the first of two files, in which a layer is, experts in one tensor that
 * DF11 cannot name, a vector and an F32. Beside them a tokenizer, and weights in two other formats. */
static void write_source(char *folder)
{
    static const char header[] =
        "{\"norm.weight\":{\"dtype\":\"BF16\",\"shape\":[64],\"data_offsets\":[0,128]},"
        "\"layers.0.scale.weight\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[128,144]},"
        "\"layers.0.attn.weight\":{\"dtype\":\"BF16\",\"shape\":[128,128],\"data_offsets\":[144,32912]},"
        "\"layers.0.experts.gate_up_proj\":{\"dtype\":\"BF16\",\"shape\":[2,64,128],\"data_offsets\":[32912,65680]}}";
    uint64_t size = sizeof header - 1;
    unsigned char *file = malloc(8 + size + 65680);
    char path[4096];
    CHECK(file != NULL && mkdir(join(folder, scratch, "source"), 0700) == 0);
    memcpy(file, &size, 8);
    memcpy(file + 8, header, size);
    memset(file + 8 + size, 0, 144);
    for (size_t i = 0; i < (65680 - 144) / 2; i++) {
        uint16_t weight = (uint16_t)((i & 1) << 15 | (0x78 + i % 7) << 7 | i * 37 % 128);
        memcpy(file + 8 + size + 144 + 2 * i, &weight, 2);
    }
    write_file(join(path, scratch, "source/model-00001-of-00002.safetensors"), file, 8 + size + 65680);
    free(file);
    write_file(join(path, scratch, "source/config.json"), "{\"num_hidden_layers\": 1}", 24);
    write_file(join(path, scratch, "source/tokenizer.json"), "{}", 2);
    write_file(join(path, scratch, "source/optimizer.bin"), "weights", 7);
    write_file(join(path, scratch, "source/model.onnx"), "more of them", 12);
}

/* What is absent, what belongs to a model and what does not, and what the reference's format cannot hold. */
static void writing_what_is_there(void)
{
    char source[4096], to[4096], path[4096];
    df11_compress_options options = DF11_COMPRESS_OPTIONS_INIT;
    df11_compress_report report = DF11_COMPRESS_REPORT_INIT;
    df11_verify_options verify = DF11_VERIFY_OPTIONS_INIT;
    df11_verify_report verified = DF11_VERIFY_REPORT_INIT;
    df11_plan_options planning = DF11_PLAN_OPTIONS_INIT;
    df11_plan_info planned = DF11_PLAN_INFO_INIT;
    df11_plan_group_info group = DF11_PLAN_GROUP_INFO_INIT;
    struct findings findings = {{0}, ""};
    uint64_t extended = 0;
    df11_plan *plan;
    df11_error error;
    write_source(source);
    options.report = &report;
    verify.report = &verified;
    verify.finding = count_findings;
    verify.finding_user = &findings;

    /* The second file is absent. */
    join(to, scratch, "there");
    CHECK(df11_compress_model(source, to, &options, &error) == DF11_INVALID_FORMAT);
    CHECK(strstr(error.message, "model-00002-of-00002.safetensors") != NULL && report.missing_count == 0);
    CHECK(df11_plan_model(source, &planning, &plan, &error) == DF11_INVALID_FORMAT && plan == NULL);
    options.flags = DF11_COMPRESS_INCOMPLETE;
    WORKS(df11_compress_model(source, to, &options, &error));
    CHECK(report.missing_count == 1 && report.complete == 1 && strcmp(report.preset, "automatic") == 0);
    CHECK(report.bf16_bytes == 128 + 2 * 32768 && report.grouped_bf16_bytes == 2 * 32768);
    CHECK(report.small_bf16_bytes == 128 && report.unasked_bf16_bytes == 0 && report.unnamed_bf16_bytes == 0);
    CHECK(report.mixed_bf16_bytes == 0 && report.unfit_bf16_bytes == 0 && report.left_count == 0);
    CHECK(report.carried_count == 1 && report.carried_bytes == 2);
    CHECK(report.left_behind_count == 2 && report.left_behind_bytes == 7 + 12);
    CHECK(report.extended_groups > 0 && report.extended_groups < report.groups);

    /* The config says so, so that it is no finding; that a file is absent which was there is one. */
    WORKS(df11_verify_model(to, NULL, &verify, &error));
    CHECK(verified.missing_count == 0 && findings.kinds[DF11_FINDING_MISSING] == 0);
    CHECK(remove(join(path, scratch, "there/layers_0.safetensors")) == 0);
    CHECK(df11_verify_model(to, NULL, &verify, &error) == DF11_CORRUPT);
    CHECK(verified.missing_count > 0 && findings.kinds[DF11_FINDING_MISSING] == verified.missing_count);
    CHECK(strstr(error.message, "layers.0") != NULL || strstr(error.message, "tensors") != NULL);
    verify.flags = DF11_VERIFY_INCOMPLETE;
    WORKS(df11_verify_model(to, NULL, &verify, &error));
    CHECK(verified.missing_count == 0 && verified.groups_good > 0);

    /* A plan of it says the same of its groups. */
    planning.flags = DF11_PLAN_INCOMPLETE;
    WORKS(df11_plan_model(source, &planning, &plan, &error));
    WORKS(df11_plan_get_info(plan, &planned, &error));
    CHECK(planned.group_count == report.groups && planned.exact == 0);
    for (uint64_t i = 0; i < planned.group_count; i++) {
        WORKS(df11_plan_get_group_info(plan, i, &group, &error));
        CHECK(group.struct_size == sizeof group && group.extended <= 1 && group.exact == 0);
        extended += group.extended;
    }
    CHECK(extended == report.extended_groups);
    df11_plan_free(plan);

    /* Without the extension the experts stay plain. */
    options.flags = DF11_COMPRESS_INCOMPLETE | DF11_COMPRESS_REFERENCE_ONLY;
    WORKS(df11_compress_model(source, join(to, scratch, "there_plainly"), &options, &error));
    CHECK(report.extended_groups == 0 && report.groups == 1 && report.grouped_bf16_bytes == 32768);
    CHECK(report.unnamed_bf16_bytes == 32768 && report.small_bf16_bytes == 128);

    /* A pattern that asks for less, and a group of two types. */
    options.pattern_json = "{\"norm\": [], \"layers.0\": [\"attn\", \"scale\"]}";
    WORKS(df11_compress_model(source, join(to, scratch, "there_little"), &options, &error));
    CHECK(report.grouped_bf16_bytes == 128 && report.mixed_bf16_bytes == 32768 && report.unnamed_bf16_bytes == 32768);
    CHECK(report.left_count == 2 && report.preset == NULL);
    options.pattern_json = "{\"norm\": []}";
    WORKS(df11_compress_model(source, join(to, scratch, "there_less"), &options, &error));
    CHECK(report.grouped_bf16_bytes == 128 && report.unasked_bf16_bytes == 32768 && report.mixed_bf16_bytes == 0);

    /* Nothing that can be compressed. */
    write_f32(join(source, scratch, "only-f32.safetensors"));
    options.pattern_json = NULL;
    options.flags = 0;
    join(to, scratch, "there_nothing");
    CHECK(df11_compress_model(source, to, &options, &error) == DF11_UNSUPPORTED_FORMAT);
    CHECK(strstr(error.message, "F32") != NULL && report.groups == 0);
    options.flags = DF11_COMPRESS_ALLOW_PLAIN;
    WORKS(df11_compress_model(source, to, &options, &error));
    CHECK(report.groups == 0 && report.complete == 1 && report.bf16_bytes == 0 && report.written_bytes > 16);
    verify.flags = 0;
    CHECK(df11_verify_model(to, NULL, &verify, &error) == DF11_INVALID_FORMAT);
    WORKS(df11_verify_model(to, source, &verify, &error));
    CHECK(verified.tensors_equal == 1);
    verify.flags = DF11_VERIFY_ALLOW_PLAIN;
    WORKS(df11_verify_model(to, NULL, &verify, &error));
}

/* The config and the shapes that every call on a compressed model takes, and a version that is not known. */
static void reading_as_told(void)
{
    static const char wrong[] = "{\"lm_head.weight\": [128, 256]}";
    char model[4096], original[4096], to[4096], path[4096];
    df11_plan_options plan = DF11_PLAN_OPTIONS_INIT;
    df11_plan_info planned = DF11_PLAN_INFO_INIT;
    df11_verify_options verify = DF11_VERIFY_OPTIONS_INIT;
    df11_repack_options repack = DF11_REPACK_OPTIONS_INIT;
    df11_decompress_options decompress = DF11_DECOMPRESS_OPTIONS_INIT;
    df11_open_options open = DF11_OPEN_OPTIONS_INIT;
    df11_tensor_info info = DF11_TENSOR_INFO_INIT;
    df11_model *opened;
    df11_plan *handle;
    uint64_t number;
    df11_error error;
    char *config, *version;
    join(model, golden, "sharded/model");
    join(original, golden, "sharded/original.safetensors");
    config = read_text(join(path, golden, "sharded/model/config.json"));
    version = strstr(config, "\"0.5.0\"");
    CHECK(version != NULL);
    memcpy(version, "\"9.5.0\"", 7);

    plan.config_json = verify.config_json = repack.config_json = decompress.config_json = config;
    CHECK(df11_plan_model(model, &plan, &handle, &error) == DF11_UNSUPPORTED_FORMAT && handle == NULL);
    CHECK(strstr(error.message, "9.5.0") != NULL);
    CHECK(df11_verify_model(model, NULL, &verify, &error) == DF11_UNSUPPORTED_FORMAT);
    CHECK(df11_repack_model(model, join(to, scratch, "told"), &repack, &error) == DF11_UNSUPPORTED_FORMAT);
    CHECK(df11_decompress_model(model, to, &decompress, &error) == DF11_UNSUPPORTED_FORMAT);
    plan.flags = DF11_PLAN_ANY_VERSION;
    verify.flags = DF11_OPEN_ANY_VERSION;
    repack.flags = DF11_REPACK_ANY_VERSION;
    decompress.flags = DF11_DECOMPRESS_ANY_VERSION;
    WORKS(df11_plan_model(model, &plan, &handle, &error));
    WORKS(df11_plan_get_info(handle, &planned, &error));
    CHECK(planned.exact == 1 && planned.cached_layer_count == 2);
    df11_plan_free(handle);
    WORKS(df11_verify_model(model, original, &verify, &error));
    WORKS(df11_decompress_model(model, join(to, scratch, "told_plain"), &decompress, &error));
    WORKS(df11_repack_model(model, join(to, scratch, "told"), &repack, &error));
    CHECK(df11_model_open(to, NULL, &opened, &error) == DF11_UNSUPPORTED_FORMAT); /* the config is written */
    /* Another config that the numbers of the cache follow: it has one layer more. */
    CHECK((version = strstr(config, "\"num_hidden_layers\": 2")) != NULL);
    version[strlen("\"num_hidden_layers\": ")] = '3';
    WORKS(df11_plan_model(model, &plan, &handle, &error));
    WORKS(df11_plan_get_info(handle, &planned, &error));
    CHECK(planned.cache_unknown != NULL);
    df11_plan_free(handle);
    CHECK(df11_plan_model(original, &plan, &handle, &error) == DF11_INVALID_ARGUMENT && handle == NULL);
    CHECK(strstr(error.message, "not compressed") != NULL);
    plan.config_json = verify.config_json = repack.config_json = NULL;
    free(config);

    /* Shapes are compared with the original's, and written to repacked files. */
    verify.shapes_from = original;
    WORKS(df11_verify_model(model, original, &verify, &error));
    verify.shapes_json = wrong;
    CHECK(df11_verify_model(model, original, &verify, &error) == DF11_CORRUPT);
    CHECK(strstr(error.message, "lm_head.weight") != NULL);
    repack.shapes_from = original;
    repack.shapes_json = wrong;
    WORKS(df11_repack_model(model, join(to, scratch, "told_shapes"), &repack, &error));
    open.flags = DF11_OPEN_NO_DERIVED_SHAPES;
    WORKS(df11_model_open(to, &open, &opened, &error));
    CHECK(df11_model_find_tensor(opened, "lm_head.weight", &number, NULL) == DF11_OK);
    CHECK(df11_model_get_tensor_info(opened, number, &info, NULL) == DF11_OK);
    CHECK(info.shape_known == DF11_SHAPE_STORED && info.rank == 2 && info.shape[0] == 128);
    CHECK(df11_model_find_tensor(opened, "model.layers.1.mlp.up_proj.weight", &number, NULL) == DF11_OK);
    CHECK(df11_model_get_tensor_info(opened, number, &info, NULL) == DF11_OK);
    CHECK(info.shape_known == DF11_SHAPE_STORED && info.rank == 2 && info.shape[1] == 128);
    df11_model_free(opened);
    plan.shapes_from = original;
    WORKS(df11_plan_model(model, &plan, &handle, &error));
    df11_plan_free(handle);
    CHECK(df11_plan_model(original, &plan, &handle, &error) == DF11_INVALID_ARGUMENT && handle == NULL);
    plan.shapes_from = NULL;
    plan.shapes_json = verify.shapes_json = repack.shapes_json = "{\"lm_head.weight\": [128, 257]}";
    CHECK(df11_plan_model(model, &plan, &handle, &error) == DF11_INVALID_ARGUMENT && handle == NULL);
    CHECK(df11_verify_model(model, NULL, &verify, &error) == DF11_INVALID_ARGUMENT);
    CHECK(df11_repack_model(model, join(to, scratch, "told_none"), &repack, &error) == DF11_INVALID_ARGUMENT);
    CHECK(strstr(error.message, "lm_head.weight") != NULL);
    repack.shapes_json = NULL;
    repack.shapes_from = "there is no such file";
    CHECK(df11_repack_model(model, to, &repack, &error) == DF11_IO && error.native_code == ENOENT);
}

/* A model decompressed to a folder and to a file, and repacked to both. */
static void rewriting(void)
{
    static const char *const names[] = {"model.norm.weight", "lm_head.weight"}, *const groups[] = {"model.layers.1"};
    char source[4096], packed[4096], to[4096], path[4096];
    df11_compress_options compress = DF11_COMPRESS_OPTIONS_INIT;
    df11_decompress_options options = DF11_DECOMPRESS_OPTIONS_INIT;
    df11_decompress_report report = DF11_DECOMPRESS_REPORT_INIT;
    df11_repack_options repack = DF11_REPACK_OPTIONS_INIT;
    df11_repack_report repacked = DF11_REPACK_REPORT_INIT;
    df11_verify_options verify = DF11_VERIFY_OPTIONS_INIT;
    df11_verify_report verified = DF11_VERIFY_REPORT_INIT;
    df11_plan_options plan = DF11_PLAN_OPTIONS_INIT;
    df11_plan *planned = NULL;
    struct watch told = {-1, 0, 0};
    df11_error error;
    join(source, golden, "sharded/original.safetensors");
    join(packed, scratch, "way_packed");
    compress.flags = DF11_COMPRESS_SHAPES | DF11_COMPRESS_HASHES;
    WORKS(df11_compress_model(source, packed, &compress, &error));
    verify.report = &verified;
    options.report = &report;
    repack.report = &repacked;

    options.callback = watch;
    options.callback_user = &told;
    options.threads = 2;
    options.shard_bytes = 200000;
    WORKS(df11_decompress_model(packed, join(to, scratch, "way_back"), &options, &error));
    CHECK(report.struct_size == sizeof report && report.tensor_count == 21 && report.flat_count == 0);
    CHECK(report.file_count > 1 && report.dropped_count == 0 && told.done == told.total && told.total > 0);
    join(path, to, "model.safetensors.index.json");
    free(read_text(path));
    CHECK(df11_verify_model(packed, to, &verify, &error) == DF11_OK && verified.tensors_equal == 21);
    CHECK(df11_decompress_model(packed, to, &options, &error) == DF11_EXISTS && report.tensor_count == 0);
    WORKS(df11_decompress_model(packed, join(to, scratch, "way_back.safetensors"), NULL, &error));
    options.flags = DF11_DECOMPRESS_KEEP_EXISTING;
    CHECK(df11_decompress_model(packed, to, &options, &error) == DF11_EXISTS);

    options.flags = 0;
    options.tensors = names;
    options.tensor_count = 2;
    options.groups = groups;
    options.group_count = 1;
    WORKS(df11_decompress_model(packed, join(to, scratch, "way_some"), &options, &error));
    CHECK(report.tensor_count == 9);
    options.groups = names;
    CHECK(df11_decompress_model(packed, join(to, scratch, "way_none"), &options, &error) == DF11_NOT_FOUND);
    CHECK(strstr(error.message, "'model.norm.weight' is a tensor") != NULL && report.tensor_count == 0);
    options.groups = NULL;
    CHECK(df11_decompress_model(packed, to, &options, &error) == DF11_INVALID_ARGUMENT);
    CHECK(strstr(error.message, "df11_decompress_options.groups is NULL") != NULL);
    options.group_count = 0;
    options.tensors = (const char *const[]){NULL};
    options.tensor_count = 1;
    CHECK(df11_decompress_model(packed, to, &options, &error) == DF11_INVALID_ARGUMENT);
    options.tensor_count = 0;
    options.flags = 1u << 31;
    CHECK(df11_decompress_model(packed, to, &options, &error) == DF11_UNSUPPORTED_OPTION);
    options.flags = 0;
    told = (struct watch){1, 0, 0};
    CHECK(df11_decompress_model(packed, to, &options, &error) == DF11_CANCELLED);
    /* Shapes that the model does not say, from the original or as a text. */
    told = (struct watch){-1, 0, 0};
    CHECK(df11_decompress_model(under(golden, "edge/model"), to, &options, &error) == DF11_INVALID_ARGUMENT);
    CHECK(strstr(error.message, "the shapes of ") != NULL);
    join(path, golden, "edge/original.safetensors");
    options.shapes_from = path;
    WORKS(df11_decompress_model(under(golden, "edge/model"), join(to, scratch, "way_given"), &options, &error));
    CHECK(report.flat_count == 0 && report.tensor_count > 0);
    options.shapes_from = NULL;
    options.shapes_json = "{\"linear.weight\": [1, 1]}";
    CHECK(df11_decompress_model(under(golden, "tiny/model"), join(to, scratch, "way_none"), &options, &error) != DF11_OK);
    options.shapes_json = NULL;
    CHECK(df11_decompress_model(under(hostile, "file_empty.safetensors"), to, NULL, &error) == DF11_INVALID_FORMAT);
    CHECK(df11_decompress_model(packed, packed, NULL, &error) == DF11_INVALID_ARGUMENT);

    repack.threads = 3;
    WORKS(df11_repack_model(packed, join(to, scratch, "way_one.safetensors"), &repack, &error));
    CHECK(repacked.struct_size == sizeof repacked && repacked.group_count == 4 && repacked.plain_count == 5);
    CHECK(repacked.file_count == 1 && repacked.written_bytes > 0);
    repack.flags = DF11_REPACK_KEEP_EXISTING;
    CHECK(df11_repack_model(packed, to, &repack, &error) == DF11_EXISTS && repacked.group_count == 0);
    repack.flags = DF11_REPACK_FOLDER;
    WORKS(df11_repack_model(to, join(path, scratch, "way_repacked"), &repack, &error));
    CHECK(repacked.file_count == 5);
    same_file(join(to, scratch, "way_repacked/model_layers_1.safetensors"), join(path, packed, "model_layers_1.safetensors"));
    repack.flags |= DF11_REPACK_SINGLE_FILE;
    CHECK(df11_repack_model(packed, join(to, scratch, "way_none"), &repack, &error) == DF11_INVALID_ARGUMENT);
    repack.flags = 1u << 31;
    CHECK(df11_repack_model(packed, to, &repack, &error) == DF11_UNSUPPORTED_OPTION);
    CHECK(df11_repack_model(source, to, NULL, &error) == DF11_INVALID_ARGUMENT);
    CHECK(strstr(error.message, "is not compressed") != NULL);

    /* What lacks a file is refused by both, and by a plan. */
    CHECK(remove(join(path, packed, "model_embed_tokens.safetensors")) == 0);
    options = (df11_decompress_options)DF11_DECOMPRESS_OPTIONS_INIT;
    repack.flags = 0;
    CHECK(df11_decompress_model(packed, join(to, scratch, "way_less"), NULL, &error) == DF11_INVALID_FORMAT);
    CHECK(strstr(error.message, "'model.embed_tokens' is absent") != NULL);
    CHECK(strstr(error.message, "the option incomplete") != NULL);
    CHECK(df11_repack_model(packed, to, &repack, &error) == DF11_INVALID_FORMAT);
    CHECK(df11_plan_model(packed, &plan, &planned, &error) == DF11_INVALID_FORMAT && planned == NULL);
    plan.flags = DF11_PLAN_INCOMPLETE;
    WORKS(df11_plan_model(packed, &plan, &planned, &error));
    df11_plan_free(planned);
    repack.flags = DF11_REPACK_INCOMPLETE;
    WORKS(df11_repack_model(packed, to, &repack, &error));
    options.flags = DF11_DECOMPRESS_INCOMPLETE;
    WORKS(df11_decompress_model(packed, join(to, scratch, "way_less_plain"), &options, &error));
    options.flags = 0;
    options.groups = groups;
    options.group_count = 1;
    WORKS(df11_decompress_model(packed, join(to, scratch, "way_less_some"), &options, &error));
}

static void mistakes_of_writers(void)
{
    char source[4096], to[4096];
    df11_compress_options options = DF11_COMPRESS_OPTIONS_INIT;
    df11_compress_report report = DF11_COMPRESS_REPORT_INIT;
    df11_error error;
    df11_model *model;
    join(source, golden, "tiny/original.safetensors");
    join(to, scratch, "mistakes");
#define REFUSED(status, words)                                                  \
    do {                                                                        \
        CHECK(df11_compress_model(source, to, &options, &error) == DF11_##status); \
        if (strstr(error.message, words) == NULL)                               \
            fprintf(stderr, "%s\n", error.message);                             \
        CHECK(strstr(error.message, words) != NULL);                            \
    } while (0)

    options.pattern_json = "{\"linear\": []}";
    CHECK(df11_compress_model(NULL, to, &options, &error) == DF11_INVALID_ARGUMENT && strstr(error.message, "NULL"));
    CHECK(df11_compress_model(source, NULL, &options, &error) == DF11_INVALID_ARGUMENT);
    CHECK(strstr(error.message, "NULL") != NULL);
    CHECK(df11_merge_model(NULL, to, &options, NULL) == DF11_INVALID_ARGUMENT);
    CHECK(df11_compress_model(under(golden, "none"), to, &options, &error) == DF11_IO && error.native_code == ENOENT);
    CHECK(df11_compress_model(under(golden, "tiny/model"), to, &options, &error) == DF11_INVALID_ARGUMENT);
    CHECK(strstr(error.message, "compressed already") != NULL);
    CHECK(df11_compress_model(under(hostile, "file_empty.safetensors"), to, &options, &error) == DF11_INVALID_FORMAT);
    options.flags = 1u << 31;
    REFUSED(UNSUPPORTED_OPTION, "0x80000000");
    options.flags = DF11_COMPRESS_SINGLE_FILE | DF11_COMPRESS_FOLDER;
    REFUSED(INVALID_ARGUMENT, "DF11_COMPRESS_FOLDER");
    options.flags = 0;
    options.preset = "llama";
    REFUSED(INVALID_ARGUMENT, "one of them decides");
    options.pattern_json = NULL;
    options.preset = "no such preset";
    REFUSED(NOT_FOUND, "no such preset");
    options.preset = "\xff";
    REFUSED(INVALID_ARGUMENT, "UTF-8");
    options.preset = NULL;
    options.pattern_json = "{\"linear\": [";
    REFUSED(INVALID_ARGUMENT, "JSON");
    options.pattern_json = "{\"linear\": 7}";
    REFUSED(INVALID_ARGUMENT, "pattern_dict");
    options.pattern_json = "{\"circle\": []}";
    REFUSED(INVALID_ARGUMENT, "make no group");
    options.pattern_json = "{\"linear\": []}";
    options.part = 1;
    REFUSED(INVALID_ARGUMENT, "part 1 of 0");
    options.part = 3;
    options.part_count = 2;
    REFUSED(INVALID_ARGUMENT, "part 3 of 2");
    options.part = 0;
    REFUSED(INVALID_ARGUMENT, "part 0 of 2");
    options.part = 1;
    options.flags = DF11_COMPRESS_SINGLE_FILE;
    REFUSED(INVALID_ARGUMENT, "single file");
    CHECK(df11_merge_model(source, to, &options, &error) == DF11_INVALID_ARGUMENT);
    options.flags = 0;
    options.part = options.part_count = 0;
    options.report = &report;
    report.struct_size = 8;
    REFUSED(INVALID_ARGUMENT, "DF11_COMPRESS_REPORT_INIT");
    options.report = NULL;
    options.struct_size = 88;
    REFUSED(INVALID_ARGUMENT, "DF11_COMPRESS_OPTIONS_INIT");
#undef REFUSED

    /* None of them has left a trace. */
    CHECK(df11_model_open(to, NULL, &model, &error) == DF11_IO && error.native_code == ENOENT);
    CHECK(df11_compress_model(under(golden, "tiny/model"), to, NULL, &error) == DF11_INVALID_ARGUMENT);
    CHECK(df11_model_open(to, NULL, &model, &error) == DF11_IO && error.native_code == ENOENT);
}

/* The members of a packed group by DF11_PART_*. */
static void **member(df11_packed_group *group, uint32_t part, size_t **bytes)
{
    void **const at[] = {&group->luts, &group->encoded_exponent, &group->sign_mantissa,
                         &group->output_positions, &group->gaps, &group->split_positions};
    size_t *const sizes[] = {&group->luts_bytes, &group->encoded_exponent_bytes, &group->sign_mantissa_bytes,
                             &group->output_positions_bytes, &group->gaps_bytes, &group->split_positions_bytes};
    *bytes = sizes[part];
    return at[part];
}

/* Every group of the reference compressor, from memory to memory: the same bytes, and not one behind them. */
static void packing(void)
{
    static const char *const names[] = {"tiny", "block", "sharded", "edge", "edge_patched"};
    df11_error error;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[64];
        df11_model *model, *original;
        snprintf(path, sizeof path, "%s/model", names[i]);
        model = open_model(path, NULL);
        snprintf(path, sizeof path, "%s/original.safetensors", names[i]);
        original = open_model(path, NULL);
        for (uint64_t g = 0; g < df11_model_group_count(model); g++) {
            df11_group_info info = DF11_GROUP_INFO_INIT;
            df11_packed_group packed = DF11_PACKED_GROUP_INIT, bound = DF11_PACKED_GROUP_INIT;
            const void *tensors[16];
            uint64_t counts[16];
            CHECK(df11_model_get_group_info(model, g, &info, NULL) == DF11_OK && info.tensor_count <= 16);
            for (uint64_t t = 0; t < info.tensor_count; t++) {
                df11_tensor_info ours = DF11_TENSOR_INFO_INIT, theirs = DF11_TENSOR_INFO_INIT;
                uint64_t other;
                void *weights;
                CHECK(df11_model_get_tensor_info(model, info.first_tensor + t, &ours, NULL) == DF11_OK);
                CHECK(df11_model_find_tensor(original, ours.name, &other, NULL) == DF11_OK);
                CHECK(df11_model_get_tensor_info(original, other, &theirs, NULL) == DF11_OK);
                /* In a file they have no alignment. */
                CHECK((weights = malloc(theirs.data_bytes)) != NULL);
                tensors[t] = memcpy(weights, theirs.data, theirs.data_bytes);
                counts[t] = theirs.data_bytes / 2;
            }
            CHECK(df11_compress_group(tensors, counts, info.tensor_count, 2, &packed, &error) == DF11_OK);
            CHECK(df11_compress_bound(counts, info.tensor_count, &bound, &error) == DF11_OK);
            for (uint32_t part = 0; part <= DF11_PART_SPLIT_POSITIONS; part++) {
                df11_part_info where = DF11_PART_INFO_INIT;
                size_t *bytes, *most;
                void **at = member(&packed, part, &bytes);
                CHECK(df11_model_get_group_part(model, g, part, &where, NULL) == DF11_OK && where.data_bytes == *bytes);
                CHECK(*at == NULL && *member(&bound, part, &most) == NULL && *bytes <= *most);
                CHECK((*at = malloc(*bytes + 1)) != NULL);
                ((unsigned char *)*at)[*bytes] = 0x55;
            }
            for (uint32_t threads = 0; threads < 4; threads += 3) {
                CHECK(df11_compress_group(tensors, counts, info.tensor_count, threads, &packed, &error) == DF11_OK);
                for (uint32_t part = 0; part <= DF11_PART_SPLIT_POSITIONS; part++) {
                    df11_part_info where = DF11_PART_INFO_INIT;
                    size_t *bytes;
                    unsigned char *at = *member(&packed, part, &bytes);
                    CHECK(df11_model_get_group_part(model, g, part, &where, NULL) == DF11_OK && where.data_bytes == *bytes);
                    CHECK(memcmp(at, where.data, *bytes) == 0 && at[*bytes] == 0x55);
                    memset(at, 0, *bytes);
                }
            }
            for (uint32_t part = 0; part <= DF11_PART_SPLIT_POSITIONS; part++) {
                size_t *bytes;
                free(*member(&packed, part, &bytes));
            }
            for (uint64_t t = 0; t < info.tensor_count; t++)
                free((void *)(uintptr_t)tensors[t]);
        }
        df11_model_free(original);
        df11_model_free(model);
    }
}

static void mistakes_of_packers(void)
{
    uint16_t weights[] = {0x3f80, 0xbf81, 0x4000, 0x0000};
    unsigned char memory[6][6000];
    const void *tensors[] = {weights, NULL, weights + 1};
    uint64_t counts[] = {1, 0, 3};
    df11_packed_group exact = DF11_PACKED_GROUP_INIT, packed = DF11_PACKED_GROUP_INIT, bound = DF11_PACKED_GROUP_INIT;
    df11_error error;
    size_t *bytes;
    WORKS(df11_compress_bound(counts, 3, &bound, &error));
    WORKS(df11_compress_group(tensors, counts, 3, 1, &exact, &error));
    CHECK(exact.sign_mantissa_bytes == 4 && exact.split_positions_bytes == 16 && exact.luts_bytes % 256 == 0);

    /* Memory of the bound's sizes is enough; each member with a byte less than it needs is not. */
    for (uint32_t part = 0; part <= DF11_PART_SPLIT_POSITIONS; part++) {
        *member(&bound, part, &bytes) = memory[part];
        CHECK(*bytes <= sizeof memory[part]);
    }
    packed = bound;
    WORKS(df11_compress_group(tensors, counts, 3, 1, &packed, &error));
    CHECK(packed.luts == memory[0] && memcmp(&packed.luts_bytes, &exact.luts_bytes, sizeof packed.luts_bytes) == 0);
    CHECK(memory[5][0] == 1 && memory[5][8] == 1 && memory[2][0] == 0x00 && memory[2][1] == 0x81);
    for (uint32_t part = 0; part <= DF11_PART_SPLIT_POSITIONS; part++) {
        df11_packed_group less = packed;
        memset(memory, 0x55, sizeof memory);
        member(&less, part, &bytes);
        --*bytes;
        CHECK(df11_compress_group(tensors, counts, 3, 1, &less, &error) == DF11_BUFFER_TOO_SMALL);
        CHECK(memcmp(&less, &packed, sizeof less) == 0 && memory[0][0] == 0x55 && memory[part][0] == 0x55);
        *member(&less, part, &bytes) = NULL;
        CHECK(df11_compress_group(tensors, counts, 3, 1, &less, &error) == DF11_INVALID_ARGUMENT && *bytes == 0);
    }

    /* A tensor of its own has no split positions, and needs no memory for them. */
    packed.split_positions = NULL;
    packed.split_positions_bytes = 0;
    WORKS(df11_compress_group(tensors + 2, counts + 2, 1, 1, &packed, &error));
    CHECK(packed.split_positions_bytes == 0 && packed.sign_mantissa_bytes == 3);

#define REFUSED(status, list, numbers, n)                                                              \
    do {                                                                                               \
        df11_packed_group none = bound;                                                                \
        CHECK(df11_compress_group(list, numbers, n, 1, &none, &error) == DF11_##status);               \
        CHECK(none.luts == bound.luts && none.luts_bytes == 0 && none.split_positions_bytes == 0);     \
    } while (0)
    REFUSED(INVALID_ARGUMENT, NULL, counts, 3);
    REFUSED(INVALID_ARGUMENT, tensors, NULL, 3);
    REFUSED(INVALID_ARGUMENT, tensors, counts, 0);
    REFUSED(INVALID_ARGUMENT, tensors, counts, 1025);
    REFUSED(INVALID_ARGUMENT, tensors + 1, counts + 1, 1);
    counts[1] = 1;
    REFUSED(INVALID_ARGUMENT, tensors, counts, 3);
    CHECK(strstr(error.message, "tensor 1 of the group is NULL") != NULL);
    tensors[1] = (const char *)weights + 1;
    REFUSED(MISALIGNED, tensors, counts, 3);
    tensors[1] = weights;
    counts[1] = UINT32_MAX;
    REFUSED(INVALID_ARGUMENT, tensors, counts, 3);
    CHECK(df11_compress_bound(counts, 3, &packed, &error) == DF11_INVALID_ARGUMENT && packed.gaps_bytes == 0);
    counts[1] = UINT64_MAX;
    REFUSED(INVALID_ARGUMENT, tensors, counts, 3);
    CHECK(df11_compress_bound(counts, 3, &packed, &error) == DF11_INVALID_ARGUMENT);
    counts[1] = 0;
    weights[3] = 0x7800;
    REFUSED(INVALID_ARGUMENT, tensors, counts, 3);
    CHECK(strstr(error.message, "240") != NULL);
#undef REFUSED
    CHECK(df11_compress_bound(NULL, 3, &packed, &error) == DF11_INVALID_ARGUMENT);
    CHECK(df11_compress_bound(counts, 0, &packed, &error) == DF11_INVALID_ARGUMENT);
    CHECK(df11_compress_bound(counts, 3, NULL, &error) == DF11_INVALID_ARGUMENT);
    CHECK(df11_compress_group(tensors, counts, 3, 1, NULL, &error) == DF11_INVALID_ARGUMENT);
    packed.struct_size = 96;
    CHECK(df11_compress_group(tensors, counts, 3, 1, &packed, &error) == DF11_INVALID_ARGUMENT);
    CHECK(strstr(error.message, "DF11_PACKED_GROUP_INIT") != NULL);
}

/* The sum of a row in the order DF11_ORDER_LANES, as the header has it. */
static float sum_in_lanes(const uint16_t *row, const float *x, size_t columns)
{
    float sums[32] = {0};
    for (size_t k = 0; k < columns; k++) {
        uint32_t bits = (uint32_t)row[k] << 16;
        float weight;
        memcpy(&weight, &bits, sizeof weight);
        sums[k % 32] = fmaf(weight, x[k], sums[k % 32]);
    }
    for (size_t half = 16; half > 0; half /= 2) {
        for (size_t j = 0; j < half; j++) sums[j] += sums[j + half];
    }
    return sums[0];
}

/* A tensor as a matrix: made, moved, decoded, multiplied. */
static void matrices(void)
{
    df11_model *model = open_model("block/model", NULL);
    df11_tensor_info info = DF11_TENSOR_INFO_INIT;
    df11_matrix_info about = DF11_MATRIX_INFO_INIT;
    df11_matrix *matrix = NULL;
    df11_error error;
    uint64_t tensor, most, used, again;
    CHECK(df11_model_find_tensor(model, "model.layers.0.mlp.down_proj.weight", &tensor, NULL) == DF11_OK);
    CHECK(df11_model_get_tensor_info(model, tensor, &info, NULL) == DF11_OK && info.rank == 2);
    uint64_t rows = info.shape[0], columns = info.shape[1], n = rows * columns;
    uint16_t *weights = malloc(2 * n), *part = malloc(2 * n);
    float *x = malloc(2 * columns * sizeof *x), *y = malloc(2 * rows * sizeof *y);
    CHECK(weights != NULL && part != NULL && x != NULL && y != NULL);
    CHECK(df11_model_read_tensor(model, tensor, 0, weights, 2 * n, 1, NULL) == DF11_OK);
    CHECK(df11_matrix_bound(rows, columns, &most, &error) == DF11_OK && most > 2 * n);
    char *memory = aligned_alloc(DF11_MATRIX_ALIGNMENT, most), *other = aligned_alloc(DF11_MATRIX_ALIGNMENT, most);
    CHECK(memory != NULL && other != NULL);
    CHECK(df11_model_write_matrix(model, tensor, columns, 0, rows, memory, most, 2, NULL, &used, &error) == DF11_OK);
    CHECK(used % DF11_MATRIX_ALIGNMENT == 0 && used < 13 * n / 8);
    CHECK(df11_matrix_write(weights, rows, columns, other, used, 1, NULL, &again, &error) == DF11_OK);
    CHECK(again == used && memcmp(memory, other, used) == 0);
    CHECK(df11_matrix_write(weights, rows, columns, other, used - 64, 1, NULL, &again, &error) == DF11_BUFFER_TOO_SMALL);
    CHECK(again == used);
    memcpy(other, memory, used);
    memset(memory, 0, used);
    CHECK(df11_matrix_bind(other, used, &matrix, &error) == DF11_OK && matrix != NULL);
    CHECK(df11_matrix_get_info(matrix, &about, &error) == DF11_OK);
    CHECK(about.row_count == rows && about.column_count == columns && about.matrix_bytes == used);
    CHECK(df11_matrix_decompress(matrix, 0, n, part, 2 * n, &error) == DF11_OK && memcmp(part, weights, 2 * n) == 0);
    CHECK(df11_matrix_decompress(matrix, 77, 1000, part, 2000, &error) == DF11_OK);
    CHECK(memcmp(part, weights + 77, 2000) == 0);
    for (uint64_t k = 0; k < 2 * columns; k++) x[k] = (float)(k % 17) - 8;
    CHECK(df11_matrix_multiply(matrix, 0, rows, x, DF11_DTYPE_F32, columns, 2, DF11_ORDER_LANES, y, rows, &error) == DF11_OK);
    for (uint64_t r = 0; r < rows; r++) {
        CHECK(y[r] == sum_in_lanes(weights + r * columns, x, columns));
        CHECK(y[rows + r] == sum_in_lanes(weights + r * columns, x + columns, columns));
    }
    /* Rows of one's own, as a thread of an engine has them. */
    CHECK(df11_matrix_multiply(matrix, rows / 2, 3, x, DF11_DTYPE_F32, 0, 1, DF11_ORDER_LANES, y + rows, 0, &error) == DF11_OK);
    CHECK(memcmp(y + rows, y + rows / 2, 3 * sizeof *y) == 0);
    /* What is given counts, and cancels. */
    df11_progress *progress;
    uint64_t done, total;
    CHECK(df11_progress_new(&progress, NULL) == DF11_OK);
    CHECK(df11_matrix_write(weights, rows, columns, memory, used, 1, progress, &again, &error) == DF11_OK);
    df11_progress_get(progress, &done, &total);
    CHECK(done == 2 * n && total == 2 * n);
    df11_progress_cancel(progress);
    CHECK(df11_matrix_write(weights, rows, columns, memory, used, 1, progress, &again, &error) == DF11_CANCELLED);
    CHECK(again == 0);
    df11_progress_free(progress);
    df11_matrix_free(matrix);
    free(weights);
    free(part);
    free(x);
    free(y);
    free(memory);
    free(other);
    df11_model_free(model);
}

int main(int argc, char **argv)
{
    df11_open_options read = DF11_OPEN_OPTIONS_INIT, verify = DF11_OPEN_OPTIONS_INIT;
    CHECK(argc == 4);
    golden = argv[1];
    hostile = argv[2];
    scratch = argv[3];
    read.flags = DF11_OPEN_READ;
    verify.flags = DF11_OPEN_VERIFY;
    verify.threads = 2;

    versions();
    every_tensor(NULL);
    every_tensor(&read);
    every_tensor(&verify);
    groups_and_parts();
    images();
    shards();
    runs(NULL);
    runs(&read);
    ranges();
    matrices();
    mistakes_and_files();
    opening_watched();
    from_memory();
    logging();
    threads();
    verifying();
    presets();
    planning();
    writing();
    writing_in_parts();
    shapes_and_types();
    rewriting();
    writing_what_does_not_fit();
    writing_what_is_there();
    reading_as_told();
    mistakes_of_writers();
    packing();
    mistakes_of_packers();
    printf("%u checks passed\n", checks_passed);
    return 0;
}
