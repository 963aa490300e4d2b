/* Loaded in front of the C library (LD_PRELOAD), it makes calls of a program on its files go wrong, as disks do.
 *
 *     FAULTY_UNDER=/folder     calls on files in or below this folder count, all others are as always
 *     FAULTY=pwrite@3=5        the third one fails with errno 5; with 0, it moves half of the bytes, as it may at any time
 *     FAULTY_DISK=thin:4096    the disk has room for so many bytes, then is full and stays so: see struct disk
 *     FAULTY_LOG=/file         at the end gets how often each was called, how many bytes of the disk were taken, and how often
 *                              something went wrong, a line each
 *
 * The names are those of the list below. Nothing is done for a call that fails, but that close() closes.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { OPEN, READ, PREAD, WRITE, PWRITE, TRUNCATE, RESERVE, SYNC, SYNCDIR, CLOSE, RENAME, REMOVE, MKDIR, COUNT };
static const char *const names[COUNT] = {"open", "read", "pread", "write", "pwrite", "truncate", "reserve", "sync", "syncdir",
                                         "close", "rename", "remove", "mkdir"};
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

/* The same for a path that begins at an open folder. */
static int is_under_at(int folder, const char *path)
{
    return path[0] == '/' || folder == AT_FDCWD ? is_under(path) : is_ours(folder);
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

/* A disk with room for so many bytes. What was taken is never given back: others take it.
 *
 *     thin     room is taken by what is written, and none is set aside beforehand (NFS, many a container's file system)
 *     thick    room is taken by what is set aside, and by what is written behind that
 *     late     all is taken, and whoever brings it to the disk or closes the file is told that it was too much (a quota, a
 *              disk that is shared out later than it is written)
 *
 * The write that goes over the end moves what fits; on a disk without a byte of room nothing new is made.
 */
enum { NONE, THIN, THICK, LATE };
enum { FILES = 4096 };
static struct disk {
    pthread_mutex_t lock;
    int kind;
    unsigned long long room, taken;
    /* Of thick ones: up to where each file has its room. */
    struct { dev_t device; ino_t number; off_t end; } files[FILES];
} disk = {.lock = PTHREAD_MUTEX_INITIALIZER};

__attribute__((constructor)) static void format(void)
{
    const char *plan = getenv("FAULTY_DISK");
    char name[8];
    if (plan == NULL || sscanf(plan, "%7[a-z]:%llu", name, &disk.room) != 2)
        return;
    disk.kind = strcmp(name, "thin") == 0 ? THIN : strcmp(name, "thick") == 0 ? THICK : LATE;
}

/* Up to where a file has its room; a file that has no block is a new one, whatever number it has got. */
static off_t *end_of(int file)
{
    struct stat meta;
    if (fstat(file, &meta) != 0)
        abort();
    for (int i = 0; i < FILES; i++) {
        int none = disk.files[i].number == 0;
        if (!none && (disk.files[i].device != meta.st_dev || disk.files[i].number != meta.st_ino))
            continue;
        disk.files[i].device = meta.st_dev;
        disk.files[i].number = meta.st_ino;
        if (none || meta.st_blocks == 0)
            disk.files[i].end = 0;
        return &disk.files[i].end;
    }
    abort();
}

/* Takes room for bytes of a file that end there: how many of them have found some. */
static size_t take(int file, size_t bytes, off_t end)
{
    pthread_mutex_lock(&disk.lock);
    unsigned long long left = disk.room > disk.taken ? disk.room - disk.taken : 0, need = bytes;
    off_t *there = disk.kind == THICK ? end_of(file) : NULL;
    if (there != NULL)
        need = end > *there ? (unsigned long long)(end - *there) : 0;
    unsigned long long lacking = disk.kind != LATE && need > left ? need - left : 0;
    size_t granted = lacking < bytes ? bytes - (size_t)lacking : 0;
    if (lacking > 0)
        __atomic_add_fetch(&fired, 1, __ATOMIC_RELAXED);
    disk.taken += need - lacking;
    if (there != NULL && need > 0)
        *there = end - (off_t)lacking;
    pthread_mutex_unlock(&disk.lock);
    return granted;
}

/* Takes all of it, or nothing and says so. */
static int set_aside(int file, off_t end)
{
    pthread_mutex_lock(&disk.lock);
    unsigned long long left = disk.room > disk.taken ? disk.room - disk.taken : 0;
    off_t *there = end_of(file);
    unsigned long long need = end > *there ? (unsigned long long)(end - *there) : 0;
    int fits = need <= left;
    if (fits && need > 0) {
        disk.taken += need;
        *there = end;
    }
    if (!fits)
        __atomic_add_fetch(&fired, 1, __ATOMIC_RELAXED);
    pthread_mutex_unlock(&disk.lock);
    return fits;
}

/* Whether a disk has given more than it has. */
static int is_overdrawn(void)
{
    int is = disk.kind == LATE && disk.taken > disk.room;
    if (is)
        __atomic_add_fetch(&fired, 1, __ATOMIC_RELAXED);
    return is;
}

/* Whether a disk has no room for one more file or folder. */
static int is_full_for(int folder, const char *path)
{
    int is = (disk.kind == THIN || disk.kind == THICK) && disk.taken >= disk.room &&
             faccessat(folder, path, F_OK, 0) != 0;
    if (is)
        __atomic_add_fetch(&fired, 1, __ATOMIC_RELAXED);
    return is;
}

/* Where a write without a place begins. */
static off_t place(int file)
{
    struct stat meta;
    if ((fcntl(file, F_GETFL) & O_APPEND) != 0 && fstat(file, &meta) == 0)
        return meta.st_size;
    return lseek(file, 0, SEEK_CUR);
}

__attribute__((destructor)) static void tell(void)
{
    const char *path = getenv("FAULTY_LOG");
    FILE *file = path != NULL ? fopen(path, "w") : NULL;
    if (file == NULL)
        return;
    for (int i = 0; i < COUNT; i++)
        fprintf(file, "%s %u\n", names[i], counts[i]);
    fprintf(file, "bytes %llu\nfired %u\n", disk.taken, fired);
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

/* Fails for want of room. */
#define FULL(condition)                                                                                               \
    if (condition) {                                                                                                  \
        errno = ENOSPC;                                                                                               \
        return -1;                                                                                                    \
    }

/* Writes what finds room, and fails if that is nothing. */
#define TAKE(end)                                                                                                     \
    if (disk.kind != NONE && bytes > 0 && is_ours(file)) {                                                            \
        bytes = take(file, bytes, end);                                                                               \
        FULL(bytes == 0)                                                                                              \
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
        FULL((flags & O_CREAT) != 0 && is_under(path) && is_full_for(AT_FDCWD, path))                                           \
        return next(path, flags, mode);                                                                               \
    }
OPENS(open)
OPENS(open64)

#define OPENS_AT(name)                                                                                                \
    int name(int folder, const char *path, int flags, ...)                                                            \
    {                                                                                                                 \
        NEXT(name)                                                                                                    \
        size_t none = 0;                                                                                              \
        va_list arguments;                                                                                            \
        va_start(arguments, flags);                                                                                   \
        mode_t mode = (flags & (O_CREAT | O_TMPFILE)) != 0 ? va_arg(arguments, mode_t) : 0;                           \
        va_end(arguments);                                                                                            \
        FAIL(OPEN, is_under_at(folder, path), none)                                                                   \
        FULL((flags & O_CREAT) != 0 && is_under_at(folder, path) && is_full_for(folder, path))                        \
        return next(folder, path, flags, mode);                                                                       \
    }
OPENS_AT(openat)
OPENS_AT(openat64)

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
    TAKE(place(file) + (off_t)bytes)
    return next(file, from, bytes);
}

#define MOVES(name, pointer, operation, room)                                                                         \
    ssize_t name(int file, pointer memory, size_t bytes, off_t offset)                                                \
    {                                                                                                                 \
        NEXT(name)                                                                                                    \
        FAIL(operation, is_ours(file), bytes)                                                                         \
        room                                                                                                          \
        return next(file, memory, bytes, offset);                                                                     \
    }
MOVES(pread, void *, PREAD, )
MOVES(pread64, void *, PREAD, )
MOVES(pwrite, const void *, PWRITE, TAKE(offset + (off_t)bytes))
MOVES(pwrite64, const void *, PWRITE, TAKE(offset + (off_t)bytes))

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
        if (disk.kind != NONE && disk.kind != THICK && is_ours(file)) {                                               \
            errno = EOPNOTSUPP;                                                                                       \
            return -1;                                                                                                \
        }                                                                                                             \
        FULL(disk.kind == THICK && is_ours(file) && !set_aside(file, offset + bytes))                                 \
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
        FULL(is_ours(file) && is_overdrawn())                                                                         \
        return next(file);                                                                                            \
    }
SYNCS(fsync)
SYNCS(fdatasync)

/* Whatever it says, the file is closed. */
int close(int file)
{
    NEXT(close)
    int ours = is_ours(file), result = next(file), code = ours ? fault(CLOSE) : -1;
    if (code < 0 && ours && is_overdrawn())
        code = ENOSPC;
    if (code <= 0)
        return result;
    errno = code;
    return -1;
}

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
    FULL(is_under(path) && is_full_for(AT_FDCWD, path))
    return next(path, mode);
}

int renameat(int from_folder, const char *from, int folder, const char *to)
{
    NEXT(renameat)
    size_t none = 0;
    FAIL(RENAME, is_under_at(folder, to), none)
    return next(from_folder, from, folder, to);
}

int unlinkat(int folder, const char *path, int flags)
{
    NEXT(unlinkat)
    size_t none = 0;
    FAIL(REMOVE, is_under_at(folder, path) && (flags & AT_REMOVEDIR) == 0, none)
    return next(folder, path, flags);
}

int mkdirat(int folder, const char *path, mode_t mode)
{
    NEXT(mkdirat)
    size_t none = 0;
    FAIL(MKDIR, is_under_at(folder, path), none)
    FULL(is_under_at(folder, path) && is_full_for(folder, path))
    return next(folder, path, mode);
}
