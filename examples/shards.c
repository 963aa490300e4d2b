/*
 * Divides a model among the ranks of a tensor-parallel group, and prints what each of them holds. Where there is a CUDA
 * device, it is every rank in turn: it decodes each slice, which is compared with that slice of the original weights.
 *
 *     shards MODEL RANKS [HEAD]
 *
 * HEAD is the number of rows of an attention head, 128 if it is not given. Queries and the columns of o_proj are
 * divided by heads, keys and values too, which several ranks share if there are more ranks than heads; embeddings by 64
 * words, as engines pad them; everything else evenly. A tensor whose name does not tell is held whole by every rank.
 *
 *     cc -O2 -o shards examples/shards.c -Iinclude -Ltarget/release -ldf11 -ldl -Wl,-rpath,$PWD/target/release
 */
#define _POSIX_C_SOURCE 200809L
#include "df11.h"
#include "driver.h"

#include <inttypes.h>

/* What an image has at most. */
enum { MOST_SLICES = 1024 };

/* The device that is every rank in turn, if there is one. */
typedef struct {
    df11_device *device;
    CUdevice cuda_device;
    CUstream stream;
} place;

static int failed(const df11_error *error)
{
    fprintf(stderr, "shards: %s\n", error->message);
    return 0;
}

static int ends_with(const char *name, const char *end)
{
    size_t a = strlen(name), b = strlen(end);
    return a >= b && strcmp(name + a - b, end) == 0;
}

/* Makes the slice that a rank holds of a group's tensor. Returns 0 after an error. */
static int slice_of(const df11_model *model, uint64_t group, uint64_t number, const df11_run_info *run, uint64_t head,
                    uint32_t rank, uint32_t ranks, df11_slice *slice)
{
    df11_error error;
    df11_tensor_info tensor = DF11_TENSOR_INFO_INIT;
    df11_segment segment = {0, 1, DF11_SPLIT_EVEN, 0};
    if (df11_model_get_tensor_info(model, run->tensor, &tensor, &error) != DF11_OK)
        return failed(&error);
    if (tensor.rank == 2) {
        segment.extent = tensor.shape[0];
        if (ends_with(tensor.name, ".q_proj.weight"))
            segment.unit = head;
        if (ends_with(tensor.name, ".k_proj.weight") || ends_with(tensor.name, ".v_proj.weight")) {
            segment.unit = head;
            segment.rule = DF11_SPLIT_REPLICATE;
        }
        if (ends_with(tensor.name, "embed_tokens.weight") || ends_with(tensor.name, "lm_head.weight")) {
            segment.unit = 64;
            segment.rule = DF11_SPLIT_PAD;
        }
        if (ends_with(tensor.name, ".o_proj.weight")) {
            segment.unit = head;
            segment.extent = tensor.shape[1];
        }
        if (ends_with(tensor.name, ".down_proj.weight"))
            segment.extent = tensor.shape[1];
    }
    /* By name: the library knows that o_proj and down_proj are divided by columns, the others by rows. */
    df11_status status = df11_model_get_slices(model, group, number, DF11_DIMENSION_BY_NAME, &segment, 1, rank, ranks,
                                               slice, &error);
    if (status == DF11_NOT_FOUND) {
        uint32_t all = (uint32_t)run->element_count;
        *slice = (df11_slice){(uint32_t)number, 0, all, all, 1};
        return 1;
    }
    return status == DF11_OK || failed(&error);
}

/* Writes the image of what a rank holds of a group. Returns its bytes, to be freed, or NULL after an error. */
static unsigned char *image_of(const df11_model *model, uint64_t group, const df11_slice *slices, size_t count,
                               df11_image_info *info)
{
    df11_error error;
    df11_shard *shard = NULL;
    unsigned char *image = NULL;
    int done = 0;
    if (count == 1 && slices[0].run_count == 1) {
        /* Rows of a group's only tensor follow each other in the file, so that their codes need not be made again. */
        uint64_t first = slices[0].first, elements = slices[0].run_elements;
        done = df11_model_get_image_range_info(model, group, first, elements, info, &error) == DF11_OK &&
               (image = malloc((size_t)info->image_bytes)) != NULL &&
               df11_model_write_image_range(model, group, first, elements, image, (size_t)info->image_bytes, 4,
                                            &error) == DF11_OK;
    } else {
        done = df11_model_make_shard(model, group, slices, count, 4, NULL, &shard, &error) == DF11_OK &&
               df11_shard_get_image_info(shard, info, &error) == DF11_OK &&
               (image = malloc((size_t)info->image_bytes)) != NULL &&
               df11_shard_write_image(shard, image, (size_t)info->image_bytes, 4, NULL, &error) == DF11_OK;
        df11_shard_free(shard);
    }
    if (done)
        return image;
    if (error.status != DF11_OK)
        failed(&error);
    else
        fprintf(stderr, "shards: no memory\n");
    free(image);
    return NULL;
}

/* Decodes a rank's image on the device, and compares each slice with the weights of its group. Returns how many slices
 * are equal, or -1 after an error. */
static int check(const place *at, const unsigned char *image, const df11_image_info *info, const df11_slice *slices,
                 size_t count, const uint16_t *weights, const uint64_t *starts)
{
    df11_error error;
    df11_resident *resident = NULL;
    size_t bytes = (size_t)info->image_bytes, decoded = 2 * (size_t)info->element_count;
    CUdeviceptr d_image, d_weights;
    uint16_t *got = malloc(decoded);
    int equal = 0;
    if (got == NULL)
        return -1;
    CUDA(cuMemAlloc(&d_image, bytes));
    CUDA(cuMemAlloc(&d_weights, decoded));
    CUDA(cuMemcpyHtoD(d_image, image, bytes));
    CUDA(cuStreamSynchronize(NULL));
    if (df11_device_bind_image(at->device, image, (size_t)info->head_bytes, d_image, bytes, &resident, &error) !=
            DF11_OK ||
        df11_resident_decompress(resident, d_weights, decoded, 0, at->stream, &error) != DF11_OK) {
        failed(&error);
        equal = -1;
    } else {
        CUDA(cuStreamSynchronize(at->stream));
        CUDA(cuMemcpyDtoH(got, d_weights, decoded));
        const uint16_t *slice = got;
        for (size_t i = 0; i < count; i++) {
            const uint16_t *tensor = weights + starts[slices[i].tensor] + slices[i].first;
            int same = 1;
            for (uint32_t run = 0; run < slices[i].run_count; run++, slice += slices[i].run_elements)
                same &= memcmp(slice, tensor + (size_t)run * slices[i].run_stride,
                               2 * (size_t)slices[i].run_elements) == 0;
            equal += same;
        }
    }
    df11_resident_free(resident);
    CUDA(cuMemFree(d_image));
    CUDA(cuMemFree(d_weights));
    free(got);
    return equal;
}

/* What the ranks hold, counted. */
typedef struct {
    uint64_t bytes, whole, weights, slices, images;
    uint64_t equal;
} sums;

/* Makes what a rank holds of one group, and checks it if there is a device. Returns 0 after an error. */
static int one_group(const df11_model *model, const place *at, uint64_t group, uint64_t head, uint32_t rank,
                     uint32_t ranks, sums *sum)
{
    df11_error error;
    df11_group_info info = DF11_GROUP_INFO_INIT;
    df11_image_info image_info = DF11_IMAGE_INFO_INIT;
    df11_slice slices[MOST_SLICES];
    uint64_t starts[MOST_SLICES], elements = 0;
    size_t count = 0;
    if (df11_model_get_group_info(model, group, &info, &error) != DF11_OK)
        return failed(&error);
    for (uint64_t t = 0; t < info.tensor_count; t++) {
        df11_run_info run = DF11_RUN_INFO_INIT;
        if (df11_model_get_group_run(model, group, t, &run, &error) != DF11_OK)
            return failed(&error);
        starts[t] = run.group_offset;
        if (!slice_of(model, group, t, &run, head, rank, ranks, &slices[count]))
            return 0;
        elements += (uint64_t)slices[count].run_count * slices[count].run_elements;
        count += slices[count].run_count > 0;
    }
    sum->whole += info.image_bytes;
    if (count == 0)
        return 1;
    unsigned char *image = image_of(model, group, slices, count, &image_info);
    if (image == NULL)
        return 0;
    sum->bytes += image_info.image_bytes;
    sum->weights += elements;
    sum->slices += count;
    sum->images++;
    int done = 1;
    if (at->device != NULL) {
        size_t bytes = 2 * (size_t)info.element_count;
        uint16_t *weights = malloc(bytes);
        done = weights != NULL;
        if (done && df11_model_decompress(model, group, 0, info.element_count, weights, bytes, 4, &error) != DF11_OK)
            done = failed(&error);
        int equal = done ? check(at, image, &image_info, slices, count, weights, starts) : -1;
        done = equal >= 0;
        sum->equal += done ? (uint64_t)equal : 0;
        free(weights);
    }
    free(image);
    return done;
}

/* Finds a device. Without one, nothing is decoded. */
static void find_device(place *at)
{
    df11_error error;
    CUcontext context;
    if (!cuda_load(NULL) || df11_device_open(0, NULL, &at->device, &error) != DF11_OK)
        return;
    CUDA(cuDeviceGet(&at->cuda_device, 0));
    CUDA(cuDevicePrimaryCtxRetain(&context, at->cuda_device));
    CUDA(cuCtxSetCurrent(context));
    CUDA(cuStreamCreate(&at->stream, CU_STREAM_NON_BLOCKING));
}

int main(int argc, char **argv)
{
    df11_error error;
    df11_model *model = NULL;
    place at = {0};
    uint32_t ranks = argc > 2 ? (uint32_t)strtoul(argv[2], NULL, 10) : 0;
    uint64_t head = argc > 3 ? strtoull(argv[3], NULL, 10) : 128;
    if (argc < 3 || argc > 4 || ranks == 0 || head == 0) {
        fprintf(stderr, "usage: shards MODEL RANKS [HEAD]\n");
        return 2;
    }
    if (df11_model_open(argv[1], NULL, &model, &error) != DF11_OK) {
        failed(&error);
        return 1;
    }
    find_device(&at);
    int right = 1;
    for (uint32_t rank = 0; rank < ranks && right; rank++) {
        sums sum = {0};
        for (uint64_t group = 0; group < df11_model_group_count(model) && right; group++)
            right = one_group(model, &at, group, head, rank, ranks, &sum);
        if (!right)
            break;
        printf("rank %" PRIu32 " of %" PRIu32 ": %" PRIu64 " bytes in %" PRIu64 " images, %.2f %% of the model's; "
               "%" PRIu64 " weights in %" PRIu64 " slices",
               rank, ranks, sum.bytes, sum.images, sum.whole ? 100.0 * (double)sum.bytes / (double)sum.whole : 0.0,
               sum.weights, sum.slices);
        if (at.device != NULL)
            printf(", %" PRIu64 " of them equal to the original", sum.equal);
        printf("\n");
        right = at.device == NULL || sum.equal == sum.slices;
    }
    df11_device_free(at.device);
    if (at.stream != NULL) {
        CUDA(cuStreamDestroy(at.stream));
        CUDA(cuDevicePrimaryCtxRelease(at.cuda_device));
    }
    df11_model_free(model);
    return right ? 0 : 1;
}
