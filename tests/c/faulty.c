/* Loaded in front of the C library (LD_PRELOAD), it makes one call of a program on its files go wrong, as disks do.
 *
 *     FAULTY_UNDER=/folder     calls on files in or below this folder count, all others are as always
 *     FAULTY=pwrite@3=5        the third one fails with errno 5; with 0, it moves half of the bytes, as it may at any time
 *     FAULTY_LOG=/file         at the end gets how often each was called, and how often one went wrong, a line each
 *
 * The names are those of the list below. No file is looked at, and nothing is done for a call that fails.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { OPEN, READ, PREAD, WRITE, PWRITE, TRUNCATE, RESERVE, SYNC, SYNCDIR, RENAME, REMOVE, MKDIR, COUNT };
static const char *const names[COUNT] = {"open", "read", "pread", "write", "pwrite", "truncate", "reserve", "sync", "syncdir",
                                         "rename", "remove", "mkdir"};
static unsigned counts[COUNT], fired;

static const char *under(void)
{
    const char *folder = getenv("FAULTY_UNDER");
    return folder != NULL ? folder : "/nowhere";
}

static int is_under(const char *path)
{
    size_t length = strlen(under());
    return strncmp(path, under(), length) == 0 && (path[length] == '/' || path[length] == '\0');
}

static int is_ours(int file)
{
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0)
        return 0;
    path[length] = '\0';
    return is_under(path);
}

/* Counts a call. What it is to do: -1 all as always, 0 half of it, else the errno with which it fails. */
static int fault(int operation)
{
    unsigned now = __atomic_add_fetch(&counts[operation], 1, __ATOMIC_RELAXED);
    const char *plan = getenv("FAULTY");
    char name[16];
    unsigned nth;
    int code;
    if (plan == NULL || sscanf(plan, "%15[a-z]@%u=%d", name, &nth, &code) != 3)
        return -1;
    if (strcmp(name, names[operation]) != 0 || nth != now)
        return -1;
    __atomic_add_fetch(&fired, 1, __ATOMIC_RELAXED);
    return code;
}

__attribute__((destructor)) static void tell(void)
{
    const char *path = getenv("FAULTY_LOG");
    FILE *file = path != NULL ? fopen(path, "w") : NULL;
    if (file == NULL)
        return;
    for (int i = 0; i < COUNT; i++)
        fprintf(file, "%s %u\n", names[i], counts[i]);
    fprintf(file, "fired %u\n", fired);
    fclose(file);
}

/* The function of this name that stands behind this library. */
#define NEXT(function)                                                                                                \
    static __typeof__(function) *next;                                                                                \
    if (next == NULL) {                                                                                               \
        void *found = dlsym(RTLD_NEXT, #function);                                                                    \
        memcpy(&next, &found, sizeof found);                                                                          \
    }

#define FAIL(operation, ours, bytes)                                                                                  \
    if (ours) {                                                                                                       \
        int code = fault(operation);                                                                                  \
        if (code > 0) {                                                                                               \
            errno = code;                                                                                             \
            return -1;                                                                                                \
        }                                                                                                             \
        if (code == 0)                                                                                                \
            bytes -= bytes / 2;                                                                                       \
    }

#define OPENS(name)                                                                                                   \
    int name(const char *path, int flags, ...)                                                                        \
    {                                                                                                                 \
        NEXT(name)                                                                                                    \
        size_t none = 0;                                                                                              \
        va_list arguments;                                                                                            \
        va_start(arguments, flags);                                                                                   \
        mode_t mode = (flags & (O_CREAT | O_TMPFILE)) != 0 ? va_arg(arguments, mode_t) : 0;                           \
        va_end(arguments);                                                                                            \
        FAIL(OPEN, is_under(path), none)                                                                              \
        return next(path, flags, mode);                                                                               \
    }
OPENS(open)
OPENS(open64)

ssize_t read(int file, void *to, size_t bytes)
{
    NEXT(read)
    FAIL(READ, is_ours(file), bytes)
    return next(file, to, bytes);
}

ssize_t write(int file, const void *from, size_t bytes)
{
    NEXT(write)
    FAIL(WRITE, is_ours(file), bytes)
    return next(file, from, bytes);
}

#define MOVES(name, pointer, operation)                                                                               \
    ssize_t name(int file, pointer memory, size_t bytes, off_t offset)                                                \
    {                                                                                                                 \
        NEXT(name)                                                                                                    \
        FAIL(operation, is_ours(file), bytes)                                                                         \
        return next(file, memory, bytes, offset);                                                                     \
    }
MOVES(pread, void *, PREAD)
MOVES(pread64, void *, PREAD)
MOVES(pwrite, const void *, PWRITE)
MOVES(pwrite64, const void *, PWRITE)

#define CUTS(name)                                                                                                    \
    int name(int file, off_t bytes)                                                                                   \
    {                                                                                                                 \
        NEXT(name)                                                                                                    \
        size_t none = 0;                                                                                              \
        FAIL(TRUNCATE, is_ours(file), none)                                                                           \
        return next(file, bytes);                                                                                     \
    }
CUTS(ftruncate)
CUTS(ftruncate64)

#define RESERVES(name)                                                                                                \
    int name(int file, int mode, off_t offset, off_t bytes)                                                           \
    {                                                                                                                 \
        NEXT(name)                                                                                                    \
        size_t none = 0;                                                                                              \
        FAIL(RESERVE, is_ours(file), none)                                                                            \
        return next(file, mode, offset, bytes);                                                                       \
    }
RESERVES(fallocate)
RESERVES(fallocate64)

#define SYNCS(name)                                                                                                   \
    int name(int file)                                                                                                \
    {                                                                                                                 \
        NEXT(name)                                                                                                    \
        size_t none = 0;                                                                                              \
        struct stat meta;                                                                                             \
        int folder = fstat(file, &meta) == 0 && S_ISDIR(meta.st_mode);                                                \
        FAIL(folder ? SYNCDIR : SYNC, is_ours(file), none)                                                            \
        return next(file);                                                                                            \
    }
SYNCS(fsync)
SYNCS(fdatasync)

int rename(const char *from, const char *to)
{
    NEXT(rename)
    size_t none = 0;
    FAIL(RENAME, is_under(to), none)
    return next(from, to);
}

int unlink(const char *path)
{
    NEXT(unlink)
    size_t none = 0;
    FAIL(REMOVE, is_under(path), none)
    return next(path);
}

int mkdir(const char *path, mode_t mode)
{
    NEXT(mkdir)
    size_t none = 0;
    FAIL(MKDIR, is_under(path), none)
    return next(path, mode);
}
