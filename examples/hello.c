/*
 * The smallest program: opens a model, finds a tensor by its name, decodes it on the CPU, and prints its first values.
 *
 *     hello MODEL TENSOR          for example: hello Qwen3-8B-DF11 model.embed_tokens.weight
 *
 *     cc -o hello examples/hello.c -Iinclude -Ltarget/release -ldf11 -Wl,-rpath,$PWD/target/release
 */
#include <df11.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(int argc, char **argv)
{
    df11_error error;
    df11_model *model;
    df11_tensor_info info = DF11_TENSOR_INFO_INIT;
    uint64_t tensor;
    uint16_t *values = NULL; /* of a bf16 tensor; other types are in info.dtype */

    if (argc != 3) {
        fprintf(stderr, "usage: hello MODEL TENSOR\n");
        return 2;
    }
    df11_status status = df11_model_open(argv[1], NULL, &model, &error);
    if (status == DF11_OK)
        status = df11_model_find_tensor(model, argv[2], &tensor, &error);
    if (status == DF11_OK)
        status = df11_model_get_tensor_info(model, tensor, &info, &error);
    if (status == DF11_OK) {
        values = malloc(info.data_bytes);
        status = df11_model_read_tensor(model, tensor, 0, values, info.data_bytes, 4, &error);
    }
    if (status != DF11_OK)
        fprintf(stderr, "hello: %s\n", error.message);
    for (uint64_t i = 0; status == DF11_OK && i < 4 && i < info.data_bytes / 2; i++) {
        uint32_t bits = (uint32_t)values[i] << 16; /* bf16 is the upper half of a float */
        float value;
        memcpy(&value, &bits, sizeof(value));
        printf("%g\n", value);
    }
    free(values);
    df11_model_free(model); /* NULL after an error, which is allowed */
    return status != DF11_OK;
}
