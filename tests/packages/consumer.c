/*
 * A C program that uses an installed libdf11: decodes every tensor of a model, and prints its name, size and FNV-1a hash. run.sh
 * compares this with what expected.py computes from the original. The other languages have the same program.
 *
 *     consumer MODEL
 */
#include <df11.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

static uint64_t fnv1a(const unsigned char *bytes, size_t count)
{
    uint64_t hash = 0xcbf29ce484222325u;
    for (size_t i = 0; i < count; i++)
        hash = (hash ^ bytes[i]) * 0x100000001b3u;
    return hash;
}

static int fail(const df11_error *error)
{
    fprintf(stderr, "consumer: %s\n", error->message);
    return 1;
}

int main(int argc, char **argv)
{
    df11_error error;
    df11_model *model;
    if (argc != 2 || df11_version_number() != DF11_VERSION_NUMBER) {
        fprintf(stderr, "consumer: library %s, header %d\n", df11_version_string(), DF11_VERSION_NUMBER);
        return 2;
    }
    if (df11_model_open(argv[1], NULL, &model, &error) != DF11_OK)
        return fail(&error);
    for (uint64_t i = 0; i < df11_model_tensor_count(model); i++) {
        df11_tensor_info info = DF11_TENSOR_INFO_INIT;
        if (df11_model_get_tensor_info(model, i, &info, &error) != DF11_OK)
            return fail(&error);
        unsigned char *bytes = malloc((size_t)info.data_bytes + 1);
        if (bytes == NULL || df11_model_read_tensor(model, i, 0, bytes, (size_t)info.data_bytes, 2, &error) != DF11_OK)
            return fail(&error);
        printf("%s %" PRIu64 " %016" PRIx64 "\n", info.name, info.data_bytes, fnv1a(bytes, (size_t)info.data_bytes));
        free(bytes);
    }
    df11_model_free(model);
    return 0;
}
