/*
 * The library's log without a call from C to Go. Such a call must set up a thread that the library has started, may run Go
 * code in the middle of a decode, and makes nocallback impossible. The library has no thread that outlives a call, so all
 * its lines come during a call. They are kept here, and Go takes them when the call returns.
 */
#include "shim.h"

#include <pthread.h>
#include <string.h>

uint32_t df11go_log_waiting;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char lines[DF11GO_LOG_BYTES];
static size_t used;
static uint64_t lost;

static void keep(void *user, int32_t level, const char *message, size_t length)
{
    (void)user;
    df11go_line head = {level, (uint32_t)(length < sizeof lines / 8 ? length : sizeof lines / 8)};
    pthread_mutex_lock(&lock);
    if (sizeof lines - used < sizeof head + head.bytes) {
        lost++;
    } else {
        memcpy(lines + used, &head, sizeof head);
        memcpy(lines + used + sizeof head, message, head.bytes);
        used += sizeof head + head.bytes;
    }
    __atomic_store_n(&df11go_log_waiting, 1, __ATOMIC_RELEASE);
    pthread_mutex_unlock(&lock);
}

void df11go_log_set(int32_t max_level)
{
    df11_log_set(max_level == DF11_LOG_OFF ? NULL : keep, max_level, NULL);
}

/* Moves all lines to `to`, which holds DF11GO_LOG_BYTES bytes. Returns their size, and the number of lines that were lost. */
size_t df11go_log_take(char *to, uint64_t *without_room)
{
    pthread_mutex_lock(&lock);
    size_t bytes = used;
    memcpy(to, lines, bytes);
    *without_room = lost;
    used = 0;
    lost = 0;
    __atomic_store_n(&df11go_log_waiting, 0, __ATOMIC_RELEASE);
    pthread_mutex_unlock(&lock);
    return bytes;
}
