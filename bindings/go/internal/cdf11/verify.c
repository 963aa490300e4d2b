#include "shim.h"

#include <stdlib.h>
#include <string.h>

/* More than this nobody reads, and a model may be made to have very much to be said about. */
static const size_t most = 16 << 20;

static void found(void *user, uint32_t kind, const char *name, const char *text)
{
    df11go_findings *all = user;
    df11go_finding head = {kind, (uint32_t)strlen(name), (uint32_t)strlen(text)};
    size_t need = all->used + sizeof head + head.name_bytes + head.text_bytes;
    if (need > all->size) {
        size_t size = 2 * need < 4096 ? 4096 : 2 * need;
        char *bytes = need > most ? NULL : realloc(all->bytes, size);
        if (bytes == NULL) {
            all->lost++;
            return;
        }
        all->bytes = bytes;
        all->size = size;
    }
    char *at = all->bytes + all->used;
    memcpy(at, &head, sizeof head);
    memcpy(at + sizeof head, name, head.name_bytes);
    memcpy(at + sizeof head + head.name_bytes, text, head.text_bytes);
    all->used = need;
}

df11_status df11go_verify(const char *model, const char *original, uint32_t threads, uint32_t flags, const char *config,
                          df11_progress *progress, df11_verify_report *report, df11go_findings *findings,
                          df11_error *error)
{
    /* It is filled here, not where the caller keeps it: that is Go's memory, and C's is cheaper to point to. */
    df11go_findings all = {NULL, 0, 0, 0};
    df11_verify_report numbers = DF11_VERIFY_REPORT_INIT;
    df11_verify_options options = DF11_VERIFY_OPTIONS_INIT;
    options.threads = threads;
    options.flags = flags;
    options.config_json = config;
    options.progress = progress;
    options.finding = found;
    options.finding_user = &all;
    options.report = &numbers;
    df11_status status = df11_verify_model(model, original, &options, error);
    *report = numbers;
    *findings = all;
    return status;
}
