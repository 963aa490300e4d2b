#include "shim.h"

static void left(void *user, const char *tensor, const char *group, const char *reason)
{
    df11go_note_down(user, 0, tensor, group, reason);
}

df11_status df11go_compress(int merge, const char *src, const char *dst, const df11go_compressing *how,
                            df11_progress *progress, df11_compress_report *report, df11go_notes *lefts,
                            df11_error *error)
{
    /* Filled here and copied at the end: the caller's are in Go memory, and pointers to C memory cost less. */
    df11go_notes all = {NULL, 0, 0, 0};
    df11_compress_report numbers = DF11_COMPRESS_REPORT_INIT;
    df11_compress_options options = DF11_COMPRESS_OPTIONS_INIT;
    options.threads = how->threads;
    options.flags = how->flags;
    options.memory_bytes = how->memory_bytes;
    options.preset = how->preset;
    options.pattern_json = how->pattern_json;
    options.part = how->part;
    options.part_count = how->part_count;
    options.progress = progress;
    options.left = left;
    options.left_user = &all;
    options.report = &numbers;
    df11_status status = (merge ? df11_merge_model : df11_compress_model)(src, dst, &options, error);
    *report = numbers;
    *lefts = all;
    return status;
}
