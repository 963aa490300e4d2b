/* A program of the first header's time: it knows fewer functions, and structs that have grown since. Every struct that the
 * library fills in lies before bytes that must stay as they are.
 *
 *     program MODEL ORIGINAL_BYTES     a model of one group, and how many bytes its tensors have when decoded
 */
#include "df11.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition)                                                     \
    do {                                                                     \
        checks++;                                                            \
        if (!(condition)) {                                                  \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);  \
            exit(1);                                                         \
        }                                                                    \
    } while (0)

enum { BEHIND = 64 };

static unsigned checks, logged;

/* A struct, and what lies behind it in the memory of an old program. */
#define GUARDED(type) struct { type value; unsigned char behind[BEHIND]; }

static void paint(unsigned char *behind)
{
    memset(behind, 0xa5, BEHIND);
}

static int painted(const unsigned char *behind)
{
    for (int i = 0; i < BEHIND; i++)
        if (behind[i] != 0xa5)
            return 0;
    return 1;
}

static void count_lines(void *user, int32_t level, const char *message, size_t length)
{
    CHECK(user == &logged && level >= DF11_LOG_ERROR && level <= DF11_LOG_TRACE && strlen(message) == length);
    logged++;
}

int main(int argc, char **argv)
{
    GUARDED(df11_error) error;
    GUARDED(df11_open_options) options = {DF11_OPEN_OPTIONS_INIT, {0}};
    df11_model *model = NULL;
    uint64_t decoded = 0, number;
    CHECK(argc == 3);
    paint(error.behind);
    paint(options.behind); /* a library that read past the struct would find options that it does not know */
    CHECK(df11_version_number() >= DF11_VERSION_NUMBER && df11_version_string()[0] != 0);
    CHECK(strcmp(df11_status_name(DF11_CORRUPT), "CORRUPT") == 0);
    df11_log_set(count_lines, DF11_LOG_TRACE, &logged);

    options.value.flags = DF11_OPEN_VERIFY | DF11_OPEN_READ;
    options.value.threads = 2;
    CHECK(df11_model_open(argv[1], &options.value, &model, &error.value) == DF11_OK && model != NULL);
    CHECK(error.value.status == DF11_OK && error.value.message[0] == 0 && painted(error.behind));
    CHECK(logged > 0);
    df11_log_set(NULL, DF11_LOG_OFF, NULL);

    CHECK(df11_model_group_count(model) > 0);
    for (uint64_t g = 0; g < df11_model_group_count(model); g++) {
        GUARDED(df11_group_info) group = {DF11_GROUP_INFO_INIT, {0}};
        paint(group.behind);
        CHECK(df11_model_get_group_info(model, g, &group.value, &error.value) == DF11_OK && painted(group.behind));
        CHECK(group.value.struct_size == sizeof group.value && group.value.element_count > 0);
        CHECK(df11_model_find_group(model, group.value.name, &number, &error.value) == DF11_OK && number == g);

        uint16_t *whole = malloc(2 * (size_t)group.value.element_count);
        CHECK(whole != NULL);
        CHECK(df11_model_decompress(model, g, 0, group.value.element_count, whole, 2 * (size_t)group.value.element_count, 2,
                                   &error.value) == DF11_OK);
        decoded += 2 * group.value.element_count;
        for (uint64_t t = group.value.first_tensor; t < group.value.first_tensor + group.value.tensor_count; t++) {
            GUARDED(df11_tensor_info) tensor = {DF11_TENSOR_INFO_INIT, {0}};
            paint(tensor.behind);
            CHECK(df11_model_get_tensor_info(model, t, &tensor.value, &error.value) == DF11_OK && painted(tensor.behind));
            CHECK(tensor.value.group == g && tensor.value.dtype == DF11_DTYPE_BF16 && tensor.value.data == NULL);
            uint16_t *part = malloc((size_t)tensor.value.data_bytes + 1);
            CHECK(part != NULL);
            CHECK(df11_model_read_tensor(model, t, 0, part, (size_t)tensor.value.data_bytes, 1, &error.value) == DF11_OK);
            CHECK(memcmp(part, whole + tensor.value.group_offset, (size_t)tensor.value.data_bytes) == 0);
            free(part);
        }
        free(whole);

        GUARDED(df11_part_info) part = {DF11_PART_INFO_INIT, {0}};
        paint(part.behind);
        CHECK(df11_model_get_group_part(model, g, DF11_PART_ENCODED_EXPONENT, &part.value, &error.value) == DF11_OK);
        CHECK(painted(part.behind) && part.value.data_bytes > 0 && part.value.file != NULL);
    }
    CHECK(decoded == strtoull(argv[2], NULL, 10));
    CHECK(df11_model_find_tensor(model, "no such tensor", &number, &error.value) == DF11_NOT_FOUND);
    CHECK(error.value.status == DF11_NOT_FOUND && error.value.message[0] != 0 && painted(error.behind));
    df11_model_free(model);
    printf("%u checks passed\n", checks);
    return 0;
}
