#include "shim.h"

static void found(void *user, uint32_t kind, const char *name, const char *text)
{
    df11go_note_down(user, kind, name, text, "");
}

df11_status df11go_verify(const char *model, const char *original, const df11go_reading *how, df11_progress *progress,
                          df11_verify_report *report, df11go_notes *findings, df11_error *error)
{
    /* Filled here and copied at the end: the caller's are in Go memory, and pointers to C memory cost less. */
    df11go_notes all = {NULL, 0, 0, 0};
    df11_verify_report numbers = DF11_VERIFY_REPORT_INIT;
    df11_verify_options options = DF11_VERIFY_OPTIONS_INIT;
    options.threads = how->threads;
    options.flags = how->flags;
    options.config_json = how->config_json;
    options.shapes_from = how->shapes_from;
    options.shapes_json = how->shapes_json;
    options.progress = progress;
    options.finding = found;
    options.finding_user = &all;
    options.report = &numbers;
    df11_status status = df11_verify_model(model, original, &options, error);
    *report = numbers;
    *findings = all;
    return status;
}
