/*
 * Compresses a model with all processors, shows the progress, and prints the result. Ctrl-C stops it; the same command
 * resumes it.
 *
 *     compress SOURCE DESTINATION [PRESET]
 *
 * SOURCE is a folder in Hugging Face layout or a .safetensors file. DESTINATION is a new folder, or a file if its name
 * ends in .safetensors. Without PRESET the groups are chosen by the model's config.json and the names of its tensors.
 *
 *     cc -O2 -o compress examples/compress.c -Iinclude -Ltarget/release -ldf11 -Wl,-rpath,$PWD/target/release
 */
#define _POSIX_C_SOURCE 200809L
#include "df11.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

static volatile sig_atomic_t interrupted;

static void interrupt(int signal)
{
    (void)signal;
    interrupted = 1;
}

/* Called at most 20 times a second. A result other than 0 ends the work; DF11_COMPRESS_RESUME can continue it later. */
static int32_t show(void *user, uint64_t done, uint64_t total)
{
    (void)user;
    if (total > 0)
        fprintf(stderr, "\r%3.0f %%", 100.0 * (double)done / (double)total);
    return interrupted;
}

/* Names come from the file and may contain control characters, which must not reach a terminal. */
static void print_escaped(const char *text)
{
    for (; *text != 0; text++) {
        if ((unsigned char)*text < 0x20 || (unsigned char)*text >= 0x7f)
            printf("\\x%02x", (unsigned char)*text);
        else
            putchar(*text);
    }
}

static void left_plain(void *user, const char *tensor, const char *group, const char *reason)
{
    (void)user;
    (void)group;
    printf("stays plain: ");
    print_escaped(tensor);
    printf(": ");
    print_escaped(reason);
    printf("\n");
}

int main(int argc, char **argv)
{
    df11_error error;
    df11_compress_options options = DF11_COMPRESS_OPTIONS_INIT;
    df11_compress_report report = DF11_COMPRESS_REPORT_INIT;
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    struct sigaction action = {0};

    if (argc < 3 || argc > 4) {
        fprintf(stderr, "usage: compress SOURCE DESTINATION [PRESET]\n");
        return 2;
    }
    action.sa_handler = interrupt;
    sigaction(SIGINT, &action, NULL);

    options.threads = cores > 0 ? (uint32_t)cores : 1;
    options.preset = argc == 4 ? argv[3] : NULL;
    options.flags = DF11_COMPRESS_RESUME | DF11_COMPRESS_HASHES | DF11_COMPRESS_SHAPES;
    options.callback = show;
    options.left = left_plain;
    options.report = &report;
    df11_status status = df11_compress_model(argv[1], argv[2], &options, &error);
    fprintf(stderr, "\n");
    if (status != DF11_OK) {
        fprintf(stderr, "compress: %s\n", error.message);
        return 1;
    }
    printf("preset %s: %" PRIu64 " groups, %" PRIu64 " of them from an earlier run\n", report.preset, report.groups,
           report.resumed);
    if (report.weights > 0)
        printf("%" PRIu64 " weights, %" PRIu64 " bytes instead of %" PRIu64 ": %.3f bits per weight\n", report.weights,
               report.packed_bytes, report.weight_bytes, 8.0 * (double)report.packed_bytes / (double)report.weights);
    printf("%" PRIu64 " bytes written for %" PRIu64 "\n", report.written_bytes, report.source_bytes);
    return 0;
}
