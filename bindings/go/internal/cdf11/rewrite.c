#include "shim.h"

df11_status df11go_decompress_model(const char *src, const char *dst, const df11go_decompressing *how,
                                    df11_progress *progress, df11_decompress_report *report, df11_error *error)
{
    /* Filled here and copied at the end: the caller's is in Go memory. */
    df11_decompress_report numbers = DF11_DECOMPRESS_REPORT_INIT;
    df11_decompress_options options = DF11_DECOMPRESS_OPTIONS_INIT;
    options.threads = how->threads;
    options.flags = how->flags;
    options.shard_bytes = how->shard_bytes;
    options.config_json = how->config_json;
    options.shapes_from = how->shapes_from;
    options.shapes_json = how->shapes_json;
    options.tensors = (const char *const *)how->tensors;
    options.tensor_count = how->tensor_count;
    options.groups = (const char *const *)how->groups;
    options.group_count = how->group_count;
    options.progress = progress;
    options.report = &numbers;
    df11_status status = df11_decompress_model(src, dst, &options, error);
    *report = numbers;
    return status;
}

df11_status df11go_repack_model(const char *src, const char *dst, const df11go_reading *how, df11_progress *progress,
                                df11_repack_report *report, df11_error *error)
{
    df11_repack_report numbers = DF11_REPACK_REPORT_INIT;
    df11_repack_options options = DF11_REPACK_OPTIONS_INIT;
    options.threads = how->threads;
    options.flags = how->flags;
    options.config_json = how->config_json;
    options.shapes_from = how->shapes_from;
    options.shapes_json = how->shapes_json;
    options.progress = progress;
    options.report = &numbers;
    df11_status status = df11_repack_model(src, dst, &options, error);
    *report = numbers;
    return status;
}
