/*
 * A program with two static libraries made by Rust, libdf11.a and other.rs. Each is called from within the other, on many threads,
 * while panics are raised and caught.
 *
 *     two MODEL
 */
#include <df11.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

uint32_t other_catch(uint32_t depth);
uint32_t other_threads(uint32_t count, uint32_t (*call)(uint32_t));

static df11_model *model;
static uint32_t callbacks;

#define CHECK(condition) \
    do { \
        if (!(condition)) { \
            fprintf(stderr, "two.c:%d: %s\n", __LINE__, #condition); \
            exit(1); \
        } \
    } while (0)

/* Called by threads of the other library: decodes the first group on threads of this one. */
static uint32_t decode(uint32_t i)
{
    df11_error error;
    df11_group_info info = DF11_GROUP_INFO_INIT;
    CHECK(df11_model_get_group_info(model, 0, &info, &error) == DF11_OK);
    uint16_t *weights = malloc(2 * (size_t)info.element_count);
    CHECK(df11_model_decompress(model, 0, 0, info.element_count, weights, 2 * (size_t)info.element_count, 1 + i % 3,
                               &error) == DF11_OK);
    uint32_t sum = 0;
    for (uint64_t w = 0; w < info.element_count; w++)
        sum = sum * 31 + weights[w];
    free(weights);
    return sum;
}

/* Called by libdf11 in the midst of its work: the other library panics, and catches it. */
static int32_t panic_inside(void *user, uint64_t done, uint64_t total)
{
    (void)user;
    (void)done;
    (void)total;
    callbacks++;
    return other_catch(20) == 102 ? 0 : 1;
}

int main(int argc, char **argv)
{
    df11_error error;
    df11_model *missing;
    df11_verify_options options = DF11_VERIFY_OPTIONS_INIT;
    CHECK(argc == 2);
    CHECK(df11_model_open(argv[1], NULL, &model, &error) == DF11_OK);
    CHECK(other_catch(50) == 102);
    CHECK(df11_model_open("/nowhere", NULL, &missing, &error) == DF11_IO && strstr(error.message, "/nowhere") != NULL);
    CHECK(other_threads(12, decode) == 12);
    options.callback = panic_inside;
    CHECK(df11_verify_model(argv[1], NULL, &options, &error) == DF11_OK);
    CHECK(callbacks > 0);
    df11_model_free(model);
    printf("both libraries work, %s\n", df11_version_string());
    return 0;
}
