/* Every function of df11.h as a C program uses it, and every mistake that such a program can make.
 *
 *     api GOLDEN HOSTILE      the folders tests/data/golden and tests/data/hostile
 */
#define _POSIX_C_SOURCE 200809L
#include "check.h"
#include "df11.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>

static const char *golden, *hostile;

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
            CHECK(df11_model_tensor_info(model, t, &ours, NULL) == DF11_OK);
            CHECK(df11_model_find_tensor(original, ours.name, &other, NULL) == DF11_OK);
            CHECK(df11_model_tensor_info(original, other, &theirs, NULL) == DF11_OK);
            CHECK(ours.bytes == theirs.bytes && ours.dtype == theirs.dtype && strcmp(ours.name, theirs.name) == 0);
            CHECK(theirs.group == DF11_NO_GROUP && theirs.data != NULL && theirs.file != NULL && theirs.file_offset > 8);
            for (uint32_t d = 0; d < ours.rank; d++)
                elements *= ours.shape[d];
            CHECK((got = malloc(ours.bytes + 1)) != NULL);
            got[ours.bytes] = 0x55;
            CHECK(df11_tensor_read(model, t, 0, got, ours.bytes, 3, NULL) == DF11_OK);
            CHECK(ours.bytes == 0 || memcmp(got, theirs.data, ours.bytes) == 0);
            CHECK(got[ours.bytes] == 0x55);
            if (ours.group != DF11_NO_GROUP) {
                CHECK(ours.dtype == DF11_DTYPE_BF16 && elements * 2 == ours.bytes && ours.data == NULL && ours.file == NULL);
                memset(got, 0, ours.bytes);
                CHECK(df11_decompress_host(model, ours.group, ours.group_offset, elements, got, ours.bytes, 1, NULL) == DF11_OK);
                CHECK(ours.bytes == 0 || memcmp(got, theirs.data, ours.bytes) == 0);
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
        CHECK(df11_model_group_info(model, g, &info, &error) == DF11_OK);
        CHECK(info.struct_size == sizeof info && info.first_tensor == next && info.tensor_count >= 1);
        next += info.tensor_count;
        for (uint32_t part = DF11_PART_LUTS; part <= DF11_PART_SPLIT_POSITIONS; part++) {
            df11_part_info where = DF11_PART_INFO_INIT;
            CHECK(df11_model_group_part(model, g, part, &where, &error) == DF11_OK);
            CHECK(where.data != NULL && strstr(where.file, ".safetensors") != NULL);
            bytes += where.bytes;
            if (part == DF11_PART_SIGN_MANTISSA) {
                size_t size;
                char *file = read_file(where.file, &size);
                CHECK(where.bytes == info.element_count && where.file_offset + where.bytes <= size);
                CHECK(memcmp(file + where.file_offset, where.data, where.bytes) == 0);
                free(file);
            }
        }
        CHECK(bytes == info.packed_bytes);
    }
    df11_group_info info = DF11_GROUP_INFO_INIT;
    df11_part_info where = DF11_PART_INFO_INIT;
    info.name = "before";
    CHECK(df11_model_group_info(model, 4, &info, &error) == DF11_NOT_FOUND && info.name == NULL);
    CHECK(df11_model_group_part(model, 0, 6, &where, &error) == DF11_NOT_FOUND && where.bytes == 0);
    df11_model_free(model);
}

static void ranges(void)
{
    df11_model *model = open_model("block/model", NULL);
    df11_group_info info = DF11_GROUP_INFO_INIT;
    df11_error error;
    uint64_t group;
    uint16_t *whole, *part;
    CHECK(df11_model_find_group(model, "model.layers.0", &group, NULL) == DF11_OK);
    CHECK(df11_model_group_info(model, group, &info, NULL) == DF11_OK && info.tensor_count == 7);
    uint64_t n = info.element_count;
    CHECK((whole = malloc(2 * n)) != NULL && (part = malloc(2 * n + 2)) != NULL);
    CHECK(df11_decompress_host(model, group, 0, n, whole, 2 * n, 2, NULL) == DF11_OK);
    for (uint64_t first = 0, count = 1; first + count <= n; first += count / 2 + 1, count = count * 3 + 1) {
        part[count] = 0x1234;
        CHECK(df11_decompress_host(model, group, first, count, part, 2 * count, (uint32_t)(count % 5), NULL) == DF11_OK);
        CHECK(memcmp(part, whole + first, 2 * count) == 0 && part[count] == 0x1234);
    }
    CHECK(df11_decompress_host(model, group, n, 0, NULL, 0, 1, &error) == DF11_OK);
    CHECK(df11_decompress_host(model, group, n, 1, part, 2, 1, &error) == DF11_INVALID_ARGUMENT);
    CHECK(df11_decompress_host(model, group, 1, UINT64_MAX, part, 2 * n, 1, &error) == DF11_INVALID_ARGUMENT);
    CHECK(df11_decompress_host(model, group, 0, n, part, 2 * n - 1, 1, &error) == DF11_BUFFER_TOO_SMALL);
    CHECK(df11_decompress_host(model, group, 0, n, NULL, 2 * n, 1, &error) == DF11_INVALID_ARGUMENT);
    CHECK(df11_decompress_host(model, group, 0, 1, (char *)part + 1, 2, 1, &error) == DF11_MISALIGNED);
    CHECK(df11_decompress_host(model, 1000, 0, 1, part, 2, 1, &error) == DF11_NOT_FOUND);
    CHECK(df11_decompress_host(NULL, group, 0, 1, part, 2, 1, &error) == DF11_INVALID_ARGUMENT);
    CHECK(error.status == DF11_INVALID_ARGUMENT && strstr(error.message, "NULL") != NULL);
    CHECK(df11_tensor_read(model, info.first_tensor, 1, part, 2, 1, &error) == DF11_INVALID_ARGUMENT);
    CHECK(df11_tensor_read(model, info.first_tensor, 2 * n, part, 2, 1, &error) == DF11_INVALID_ARGUMENT);
    CHECK(df11_tensor_read(model, info.first_tensor + 1, 4, part, 6, 1, &error) == DF11_OK);
    df11_tensor_info second = DF11_TENSOR_INFO_INIT;
    CHECK(df11_model_tensor_info(model, info.first_tensor + 1, &second, NULL) == DF11_OK);
    CHECK(memcmp(part, whole + second.group_offset + 2, 6) == 0);
    free(whole);
    free(part);
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

    /* Hostile files: the status and the words. All of them are tried in tests/hostile.rs. */
    CHECK(df11_model_open(under(hostile, "exponent_240.safetensors"), NULL, &model, &error) == DF11_UNSUPPORTED_FORMAT);
    CHECK(model == NULL && strstr(error.message, "240") != NULL && strstr(error.message, ".luts") != NULL);

    CHECK(df11_model_find_tensor(NULL, "x", &number, NULL) == DF11_INVALID_ARGUMENT);
    CHECK(df11_model_group_count(NULL) == 0 && df11_model_tensor_count(NULL) == 0);
    df11_model_free(NULL);

    model = open_model("tiny/model", NULL);
    CHECK(df11_model_find_tensor(model, NULL, &number, NULL) == DF11_INVALID_ARGUMENT && number == 0);
    CHECK(df11_model_find_tensor(model, "norm.bias", NULL, NULL) == DF11_INVALID_ARGUMENT);
    CHECK(df11_model_tensor_info(model, 0, NULL, NULL) == DF11_INVALID_ARGUMENT);
    df11_tensor_info info = DF11_TENSOR_INFO_INIT;
    info.struct_size = 8;
    CHECK(df11_model_tensor_info(model, 0, &info, &error) == DF11_INVALID_ARGUMENT);
    df11_model_free(model);
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
    CHECK(df11_decompress_host(model, 0, 100, 3, weights, sizeof weights, 1, &error) == DF11_OK);
    CHECK(df11_model_group_part(model, 0, DF11_PART_GAPS, &where, NULL) == DF11_OK);
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
        work->ok = df11_decompress_host(work->model, work->group, first, count, got, 2 * count, 1 + i % 3, NULL) == DF11_OK &&
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
    CHECK(df11_model_group_info(model, 0, &info, NULL) == DF11_OK);
    CHECK((want = malloc(2 * info.element_count)) != NULL);
    CHECK(df11_decompress_host(model, 0, 0, info.element_count, want, 2 * info.element_count, 2, NULL) == DF11_OK);
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
    unsigned kinds[DF11_FINDING_NOTE + 1];
    char text[1024];
};

static void count_findings(void *user, uint32_t kind, const char *name, const char *text)
{
    struct findings *findings = user;
    CHECK(kind >= DF11_FINDING_GOOD && kind <= DF11_FINDING_NOTE && name[0] != 0 && strstr(text, name) != NULL);
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

    /* Cancelled by the callback, then by the handle before the call: from then on nobody is told more than once. */
    memset(&findings, 0, sizeof findings);
    told = (struct watch){0, 0, 0};
    options.progress = NULL;
    CHECK(df11_verify_model(model, original, &options, &error) == DF11_CANCELLED && told.left == -1);
    CHECK(findings.kinds[DF11_FINDING_GOOD] == 0 && report.groups_good == 0 && error.status == DF11_CANCELLED);
    options.callback = NULL;
    options.progress = progress;
    CHECK(df11_verify_model(model, original, &options, &error) == DF11_OK);
    df11_progress_cancel(progress);
    CHECK(df11_verify_model(model, original, &options, &error) == DF11_CANCELLED && report.groups_good == 0);

    df11_progress_free(progress);
    df11_progress_free(NULL);
    df11_progress_cancel(NULL);
    df11_progress_get(NULL, &done, &total);
    CHECK(done == 0 && total == 0);
}

int main(int argc, char **argv)
{
    df11_open_options read = DF11_OPEN_OPTIONS_INIT, verify = DF11_OPEN_OPTIONS_INIT;
    CHECK(argc == 3);
    golden = argv[1];
    hostile = argv[2];
    read.flags = DF11_OPEN_READ;
    verify.flags = DF11_OPEN_VERIFY;
    verify.threads = 2;

    versions();
    every_tensor(NULL);
    every_tensor(&read);
    every_tensor(&verify);
    groups_and_parts();
    ranges();
    mistakes_and_files();
    from_memory();
    logging();
    threads();
    verifying();
    printf("%u checks passed\n", checks_passed);
    return 0;
}
