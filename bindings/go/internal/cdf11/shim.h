/*
 * C code for what cgo cannot express well: options structs with pointers, which Go memory must not hold for C, and
 * streams, which are numbers in Go and must not become Go pointers. Nothing here calls Go.
 */
#ifndef DF11_GO_SHIM_H
#define DF11_GO_SHIM_H

#include <df11.h>

#if DF11_VERSION_NUMBER / 100 != 1
#error "this version of the Go package is for libdf11 0.1"
#endif

/* The fields of a df11_open_options that Go sets. */
typedef struct {
    uint32_t flags, threads;
    char *config, *shapes_from, *shapes;
} df11go_opening;

static inline df11_open_options df11go_open_options(const df11go_opening *how, df11_progress *progress)
{
    df11_open_options options = DF11_OPEN_OPTIONS_INIT;
    options.flags = how->flags;
    options.threads = how->threads;
    options.config_json = how->config;
    options.shapes_from = how->shapes_from;
    options.shapes_json = how->shapes;
    options.progress = progress;
    return options;
}

static inline df11_status df11go_open(const char *path, const df11go_opening *how, df11_progress *progress,
                                      df11_model **out, df11_error *error)
{
    df11_open_options options = df11go_open_options(how, progress);
    return df11_model_open(path, &options, out, error);
}

static inline df11_status df11go_open_memory(uintptr_t data, size_t data_bytes, const df11go_opening *how,
                                             df11_progress *progress, df11_model **out, df11_error *error)
{
    df11_open_options options = df11go_open_options(how, progress);
    return df11_model_open_memory((const void *)data, data_bytes, &options, out, error);
}

static inline df11_status df11go_bind_matrix(uintptr_t data, size_t data_bytes, df11_matrix **out, df11_error *error)
{
    return df11_matrix_bind((const void *)data, data_bytes, out, error);
}

/* The arguments of a call's callbacks, in memory of malloc(): for each a df11go_note, followed by its strings. */
typedef struct {
    uint32_t kind, bytes[3];
} df11go_note;
typedef struct {
    char *bytes;
    size_t used, size;
    uint64_t lost; /* notes that were dropped, for lack of memory or because there were too many */
} df11go_notes;
void df11go_note_down(df11go_notes *all, uint32_t kind, const char *first, const char *second, const char *third);

/* The fields of a df11_verify_options, and of a df11_repack_options, that Go sets. */
typedef struct {
    uint32_t threads, flags;
    char *config_json, *shapes_from, *shapes_json;
} df11go_reading;
df11_status df11go_verify(const char *model, const char *original, const df11go_reading *how, df11_progress *progress,
                          df11_verify_report *report, df11go_notes *findings, df11_error *error);

/* The fields of a df11_compress_options that Go sets. */
typedef struct {
    uint32_t threads, flags, part, part_count;
    uint64_t memory_bytes;
    char *preset, *pattern_json;
} df11go_compressing;
df11_status df11go_compress(int merge, const char *src, const char *dst, const df11go_compressing *how,
                            df11_progress *progress, df11_compress_report *report, df11go_notes *lefts,
                            df11_error *error);

/* The fields of a df11_plan_options that Go sets. */
typedef struct {
    uint32_t flags, slots;
    uint64_t cache_number_bytes;
    char *preset, *pattern_json, *config_json, *shapes_from, *shapes_json;
} df11go_planning;
static inline df11_status df11go_plan(const char *path, const df11go_planning *how, df11_progress *progress,
                                      df11_plan **out, df11_error *error)
{
    df11_plan_options options = DF11_PLAN_OPTIONS_INIT;
    options.flags = how->flags;
    options.slots = how->slots;
    options.cache_number_bytes = how->cache_number_bytes;
    options.preset = how->preset;
    options.pattern_json = how->pattern_json;
    options.config_json = how->config_json;
    options.shapes_from = how->shapes_from;
    options.shapes_json = how->shapes_json;
    options.progress = progress;
    return df11_plan_model(path, &options, out, error);
}

/* The fields of a df11_decompress_options that Go sets. */
typedef struct {
    uint32_t threads, flags;
    uint64_t shard_bytes;
    char *config_json, *shapes_from, *shapes_json;
    char **tensors;
    size_t tensor_count;
    char **groups;
    size_t group_count;
} df11go_decompressing;
df11_status df11go_decompress_model(const char *src, const char *dst, const df11go_decompressing *how,
                                    df11_progress *progress, df11_decompress_report *report, df11_error *error);
df11_status df11go_repack_model(const char *src, const char *dst, const df11go_reading *how, df11_progress *progress,
                                df11_repack_report *report, df11_error *error);

/* The library's log, which is kept until Go takes it: see log.c. */
typedef struct {
    int32_t level;
    uint32_t bytes;
} df11go_line;
enum { DF11GO_LOG_BYTES = 1 << 16 };
extern uint32_t df11go_log_waiting; /* 1 while there are lines; read atomically */
void df11go_log_set(int32_t max_level);
size_t df11go_log_take(char *to, uint64_t *lost);

static inline df11_status df11go_device_open(int32_t ordinal, int current, uint32_t flags,
                                             uint32_t multiprocessors, const char *libcuda, df11_device **out,
                                             df11_error *error)
{
    df11_device_options options = DF11_DEVICE_OPTIONS_INIT;
    options.flags = flags;
    options.multiprocessors = multiprocessors;
    options.libcuda = libcuda;
    return current ? df11_device_open_current(&options, out, error) : df11_device_open(ordinal, &options, out, error);
}

static inline df11_status df11go_upload(df11_device *device, const df11_model *model, uint64_t group, uint64_t image,
                                        size_t image_bytes, uintptr_t stream, df11_resident **out, df11_error *error)
{
    return df11_device_upload(device, model, group, image, image_bytes, (df11_stream)stream, out, error);
}

static inline df11_status df11go_upload_staged(df11_device *device, const df11_model *model, uint64_t group,
                                               uint64_t image, size_t image_bytes, uintptr_t stream,
                                               uintptr_t staging, size_t staging_bytes, df11_resident **out,
                                               df11_error *error)
{
    return df11_device_upload_staged(device, model, group, image, image_bytes, (df11_stream)stream, (void *)staging,
                                     staging_bytes, out, error);
}

static inline df11_status df11go_upload_range(df11_device *device, const df11_model *model, uint64_t group,
                                              uint64_t first, uint64_t count, uint64_t image, size_t image_bytes,
                                              uintptr_t stream, uintptr_t staging, size_t staging_bytes,
                                              df11_resident **out, df11_error *error)
{
    return df11_device_upload_range(device, model, group, first, count, image, image_bytes, (df11_stream)stream,
                                    (void *)staging, staging_bytes, out, error);
}

static inline df11_status df11go_decompress(const df11_resident *resident, uint64_t dst, size_t dst_bytes, uint64_t status,
                                            uintptr_t stream, df11_error *error)
{
    return df11_resident_decompress(resident, dst, dst_bytes, status, (df11_stream)stream, error);
}

static inline df11_status df11go_decompress_range(const df11_resident *resident, uint64_t first, uint64_t count,
                                                  uint64_t dst, size_t dst_bytes, uint64_t status, uintptr_t stream,
                                                  df11_error *error)
{
    return df11_resident_decompress_range(resident, first, count, dst, dst_bytes, status, (df11_stream)stream, error);
}

static inline df11_status df11go_decompress_tensors(const df11_resident *resident, const df11_devptr *dsts,
                                                    const size_t *dst_bytes, size_t count, uint64_t status,
                                                    uintptr_t stream, df11_error *error)
{
    return df11_resident_decompress_tensors(resident, dsts, dst_bytes, count, status, (df11_stream)stream, error);
}

static inline df11_status df11go_decompress_batch(const df11_resident *const *residents, const df11_devptr *dsts,
                                                  const size_t *dst_bytes, size_t count, uint64_t statuses,
                                                  uintptr_t stream, df11_error *error)
{
    return df11_resident_decompress_batch(residents, dsts, dst_bytes, count, statuses, (df11_stream)stream, error);
}

#endif
