/* The main path on a CUDA device as a C program walks it, with the driver that the environment variable DF11_LIBCUDA names:
 * an upload, decodes whole, in a range, per tensor and as a batch, an image of its own, and the errors on the way.
 *
 *     cuda MODEL         a folder with a DF11 model
 */
#include "check.h"
#include "df11.h"
#include "cuda_driver.h"

#include <string.h>

/* Clears device memory, and waits: the legacy stream, in which that is done, is not ordered with the stream of the decodes. */
static void zero(df11_devptr at, size_t bytes)
{
    CHECK(cuMemsetD8(at, 0, bytes) == 0 && cuStreamSynchronize(NULL) == 0);
}

/* What lies on the device, against what the CPU decodes. */
static void same(df11_devptr at, const uint8_t *want, size_t bytes)
{
    uint8_t *got = malloc(bytes + 1);
    CHECK(got != NULL && (bytes == 0 || cuMemcpyDtoH(got, at, bytes) == 0));
    CHECK(memcmp(got, want, bytes) == 0);
    free(got);
}

static void without_a_driver(void)
{
    df11_error error;
    df11_device *device = (df11_device *)&error;
    df11_device_options options = DF11_DEVICE_OPTIONS_INIT;
    options.libcuda = "/nowhere/libcuda.so.1";
    CHECK(df11_device_open(0, &options, &device, &error) == DF11_NO_DRIVER && device == NULL);
    CHECK(strstr(error.message, "/nowhere/libcuda.so.1") != NULL && error.native_code == 0);
    options.flags = 64;
    CHECK(df11_device_open(0, &options, &device, &error) == DF11_UNSUPPORTED_OPTION);
    options.flags = 0;
    options.multiprocessors = UINT32_MAX;
    CHECK(df11_device_open(0, &options, &device, &error) == DF11_NO_DRIVER);
    CHECK(df11_device_open(0, NULL, NULL, &error) == DF11_INVALID_ARGUMENT);
    CHECK(df11_device_open(-1, NULL, &device, &error) == DF11_INVALID_ARGUMENT);
}

static void no_handles(void)
{
    df11_resident *resident = NULL;
    df11_devptr list[1] = {0};
    size_t size[1] = {0};
    df11_device_info info = DF11_DEVICE_INFO_INIT;
    df11_resident_info about = DF11_RESIDENT_INFO_INIT;
    df11_image_info image = DF11_IMAGE_INFO_INIT;
    const df11_resident *none[1] = {NULL};
    CHECK(df11_device_get_info(NULL, &info, NULL) == DF11_INVALID_ARGUMENT);
    CHECK(df11_resident_get_info(NULL, &about, NULL) == DF11_INVALID_ARGUMENT);
    CHECK(df11_image_get_info(NULL, 5, &image, NULL) == DF11_INVALID_ARGUMENT);
    CHECK(df11_image_get_info("DF11", 4, &image, NULL) == DF11_INVALID_FORMAT);
    CHECK(df11_device_upload(NULL, NULL, 0, 0, 0, NULL, &resident, NULL) == DF11_INVALID_ARGUMENT && resident == NULL);
    CHECK(df11_device_upload_staged(NULL, NULL, 0, 0, 0, NULL, NULL, 0, &resident, NULL) == DF11_INVALID_ARGUMENT);
    CHECK(df11_device_upload_range(NULL, NULL, 0, 0, 1, 0, 0, NULL, NULL, 0, &resident, NULL) == DF11_INVALID_ARGUMENT);
    CHECK(df11_device_bind(NULL, NULL, 0, 0, 0, &resident, NULL) == DF11_INVALID_ARGUMENT);
    CHECK(df11_device_bind_image(NULL, NULL, 0, 0, 0, &resident, NULL) == DF11_INVALID_ARGUMENT);
    CHECK(df11_resident_decompress(NULL, 0, 0, 0, NULL, NULL) == DF11_INVALID_ARGUMENT);
    CHECK(df11_resident_decompress_range(NULL, 0, 0, 0, 0, 0, NULL, NULL) == DF11_INVALID_ARGUMENT);
    CHECK(df11_resident_decompress_tensors(NULL, list, size, 1, 0, NULL, NULL) == DF11_INVALID_ARGUMENT);
    CHECK(df11_resident_decompress_batch(none, list, size, 1, 0, NULL, NULL) == DF11_INVALID_ARGUMENT);
    CHECK(df11_resident_decompress_batch(NULL, list, size, 1, 0, NULL, NULL) == DF11_INVALID_ARGUMENT);
    CHECK(df11_resident_decompress_batch(NULL, NULL, NULL, 0, 0, NULL, NULL) == DF11_OK);
    df11_resident_free(NULL);
    df11_device_free(NULL);
}

#define OK(call)                                                                                                      \
    do {                                                                                                              \
        if ((call) != DF11_OK)                                                                                        \
            fprintf(stderr, "%s\n", error.message);                                                                   \
        CHECK(error.status == DF11_OK);                                                                               \
    } while (0)

static void one_group(df11_device *device, const df11_model *model, uint64_t number, df11_stream stream)
{
    df11_error error;
    df11_group_info group = DF11_GROUP_INFO_INIT;
    df11_resident_info about = DF11_RESIDENT_INFO_INIT;
    df11_image_info info = DF11_IMAGE_INFO_INIT;
    df11_resident *resident = NULL, *bound = NULL;
    df11_devptr image, other, dst, status;
    OK(df11_model_get_group_info(model, number, &group, &error));
    size_t image_bytes = (size_t)group.image_bytes, bytes = 2 * (size_t)group.element_count;
    uint8_t *want = malloc(bytes + 1), *host = malloc(image_bytes);
    uint32_t word = 7;
    void *staging;
    CHECK(want != NULL && host != NULL && image_bytes > 0 && image_bytes % 256 == 0);
    OK(df11_model_decompress(model, number, 0, group.element_count, want, bytes, 1, &error));
    CHECK(cuMemAlloc(&image, image_bytes) == 0 && cuMemAlloc(&dst, bytes + 2) == 0 && cuMemAlloc(&status, 4) == 0);
    CHECK(cuMemHostAlloc(&staging, 1 << 16, 0) == 0);
    zero(status, 4);

    OK(df11_device_upload_staged(device, model, number, image, image_bytes, stream, staging, 1 << 16, &resident, &error));
    OK(df11_resident_get_info(resident, &about, &error));
    CHECK(about.image == image && about.image_bytes == image_bytes && about.element_count == group.element_count);
    CHECK(about.tensor_count == group.tensor_count && about.tensor_ends[about.tensor_count - 1] == group.element_count);

    OK(df11_resident_decompress(resident, dst, bytes, status, stream, &error));
    CHECK(cuStreamSynchronize(stream) == 0 && cuMemcpyDtoH(&word, status, 4) == 0 && word == 0);
    same(dst, want, bytes);

    zero(dst, bytes);
    OK(df11_resident_decompress_range(resident, 1, group.element_count - 1, dst, bytes, 0, stream, &error));
    CHECK(cuStreamSynchronize(stream) == 0);
    same(dst, want + 2, bytes - 2);

    /* One destination per tensor: here one behind the other, two bytes off. */
    df11_devptr *dsts = malloc(sizeof *dsts * (size_t)about.tensor_count);
    size_t *sizes = malloc(sizeof *sizes * (size_t)about.tensor_count);
    uint64_t start = 0;
    CHECK(dsts != NULL && sizes != NULL);
    for (uint64_t t = 0; t < about.tensor_count; start = about.tensor_ends[t++]) {
        dsts[t] = dst + 2 + 2 * start;
        sizes[t] = 2 * (size_t)(about.tensor_ends[t] - start);
    }
    zero(dst, bytes + 2);
    OK(df11_resident_decompress_tensors(resident, dsts, sizes, (size_t)about.tensor_count, 0, stream, &error));
    CHECK(cuStreamSynchronize(stream) == 0);
    same(dst + 2, want, bytes);
    free(dsts);
    free(sizes);

    /* The second half of the group, decoded by the numbers of the group's weights. */
    uint64_t half = group.element_count / 2, rest = group.element_count - half;
    OK(df11_model_get_image_range_info(model, number, half, rest, &info, &error));
    CHECK(cuMemAlloc(&other, (size_t)info.image_bytes) == 0);
    OK(df11_device_upload_range(device, model, number, half, rest, other, (size_t)info.image_bytes, stream, NULL, 0,
                                &bound, &error));
    OK(df11_resident_get_info(bound, &about, &error));
    CHECK(about.first_element == half && about.element_count == rest && about.slice_count == 0 && about.slices == NULL);
    CHECK(about.first_tensor == info.first_tensor && about.tensor_ends[about.tensor_count - 1] == half + rest);
    zero(dst, bytes);
    OK(df11_resident_decompress_range(bound, half + 1, rest - 1, dst, bytes, status, stream, &error));
    CHECK(cuStreamSynchronize(stream) == 0 && cuMemcpyDtoH(&word, status, 4) == 0 && word == 0);
    same(dst, want + 2 * (half + 1), 2 * (size_t)(rest - 1));
    CHECK(df11_resident_decompress_range(bound, 0, 1, dst, bytes, status, stream, &error) == DF11_INVALID_ARGUMENT);
    CHECK(strstr(error.message, "it holds weights") != NULL);
    df11_resident_free(bound);
    cuMemFree(other);

    /* An image that the host wrote and the engine copied, without the model. */
    OK(df11_model_write_image(model, number, host, image_bytes, &error));
    OK(df11_image_get_info(host, image_bytes, &info, &error));
    CHECK(info.image_bytes == image_bytes && info.element_count == group.element_count);
    CHECK(info.head_bytes <= DF11_IMAGE_HEAD_BYTES_MAX && info.tensor_count == group.tensor_count);
    same(image, host, image_bytes);
    CHECK(cuMemAlloc(&other, image_bytes) == 0 && cuMemcpyHtoD(other, host, image_bytes) == 0);
    CHECK(cuStreamSynchronize(NULL) == 0);
    OK(df11_device_bind_image(device, host, (size_t)info.head_bytes, other, image_bytes, &bound, &error));
    zero(dst, bytes);
    OK(df11_resident_decompress_batch((const df11_resident *const[]){bound}, &dst, &bytes, 1, status, stream, &error));
    CHECK(cuStreamSynchronize(stream) == 0 && cuMemcpyDtoH(&word, status, 4) == 0 && word == 0);
    same(dst, want, bytes);
    df11_resident_free(bound);
    OK(df11_device_bind(device, model, number, other, image_bytes, &bound, &error));
    df11_resident_free(bound);

    /* The linear image of the same group: by the host, and by the device from the other image. */
    df11_linear_plan *plan = NULL;
    df11_resident *made = NULL;
    df11_devptr linear, another, scratch;
    OK(df11_model_plan_linear_image(model, number, NULL, 0, 2, NULL, &plan, &error));
    OK(df11_linear_plan_get_image_info(plan, &info, &error));
    CHECK(info.element_count == group.element_count && info.group_tensor_count == group.tensor_count);
    size_t linear_bytes = (size_t)info.image_bytes;
    uint8_t *in_host = malloc(linear_bytes + 1);
    CHECK(in_host != NULL && cuMemAlloc(&linear, linear_bytes) == 0 && cuMemAlloc(&another, linear_bytes) == 0);
    CHECK(cuMemAlloc(&scratch, 1 << 20) == 0);
    in_host[linear_bytes] = 0x55;
    CHECK(df11_linear_plan_write_image(plan, in_host, linear_bytes - 1, 1, NULL, &error) == DF11_BUFFER_TOO_SMALL);
    OK(df11_linear_plan_write_image(plan, in_host, linear_bytes, 2, NULL, &error));
    CHECK(in_host[linear_bytes] == 0x55 && cuMemcpyHtoD(linear, in_host, linear_bytes) == 0);
    CHECK(cuStreamSynchronize(NULL) == 0);
    OK(df11_image_get_info(in_host, linear_bytes, &info, &error));
    OK(df11_device_bind_image(device, in_host, (size_t)info.head_bytes, linear, linear_bytes, &bound, &error));
    OK(df11_device_make_linear_image(device, plan, resident, another, linear_bytes, scratch, 1 << 20, stream, &made,
                                     &error));
    df11_linear_plan_free(plan);
    CHECK(cuStreamSynchronize(stream) == 0);
    same(another, in_host, linear_bytes);
    OK(df11_resident_get_info(made, &about, &error));
    CHECK(about.image == another && about.image_bytes == linear_bytes && about.tensor_count == group.tensor_count);
    const df11_resident *const two[] = {bound, made};
    for (int i = 0; i < 2; i++) {
        zero(dst, bytes);
        OK(df11_resident_decompress(two[i], dst, bytes, status, stream, &error));
        CHECK(cuStreamSynchronize(stream) == 0 && cuMemcpyDtoH(&word, status, 4) == 0 && word == 0);
        same(dst, want, bytes);
    }
    df11_resident_free(bound);
    df11_resident_free(made);
    free(in_host);
    CHECK(cuMemFree(linear) == 0 && cuMemFree(another) == 0 && cuMemFree(scratch) == 0);

    /* Mistakes. */
    CHECK(df11_resident_decompress(resident, dst, bytes - 1, 0, stream, &error) == DF11_BUFFER_TOO_SMALL);
    CHECK(df11_resident_decompress(resident, dst + 1, bytes, 0, stream, &error) == DF11_MISALIGNED);
    CHECK(df11_resident_decompress(resident, dst, bytes, 0, NULL, &error) == DF11_DEFAULT_STREAM);
    CHECK(df11_device_bind(device, model, number, other + 8, image_bytes, &bound, &error) == DF11_MISALIGNED && bound == NULL);
    CHECK(df11_device_upload(device, model, 999, image, image_bytes, stream, &bound, &error) == DF11_NOT_FOUND);

    df11_resident_free(resident);
    CHECK(cuMemFree(image) == 0);
    CHECK(cuMemFree(other) == 0 && cuMemFree(dst) == 0 && cuMemFree(status) == 0 && cuMemFreeHost(staging) == 0);
    free(want);
    free(host);
}

int main(int argc, char **argv)
{
    df11_error error;
    df11_device *device = NULL;
    df11_device_info info = DF11_DEVICE_INFO_INIT;
    df11_model *model = NULL;
    df11_stream stream;
    void *context, *current;
    CHECK(argc == 2 && getenv("DF11_LIBCUDA") != NULL);
    no_handles();
    without_a_driver();
    OK(df11_model_open(argv[1], NULL, &model, &error));

    load(getenv("DF11_LIBCUDA"));
    CHECK(cuInit(0) == 0 && cuDevicePrimaryCtxRetain(&context, 0) == 0 && cuCtxSetCurrent(context) == 0);
    CHECK(cuStreamCreate(&stream, 1) == 0);
    OK(df11_device_open_current(NULL, &device, &error));
    df11_device_free(device);
    OK(df11_device_open(0, NULL, &device, &error));
    OK(df11_device_get_info(device, &info, &error));
    CHECK(info.capability_major == 9 && info.ordinal == 0 && info.driver_version >= 12000);
    CHECK(strcmp(info.kernels, "PTX") == 0 && strcmp(info.libcuda, getenv("DF11_LIBCUDA")) == 0);
    for (uint64_t g = 0; g < df11_model_group_count(model); g++)
        one_group(device, model, g, stream);
    CHECK(cuCtxGetCurrent(&current) == 0 && current == context);
    df11_device_free(device);
    df11_model_free(model);
    CHECK(cuStreamDestroy(stream) == 0 && cuCtxSetCurrent(NULL) == 0 && cuDevicePrimaryCtxRelease(0) == 0);
    printf("%u checks passed\n", checks_passed);
    return 0;
}
