#include "shim.h"

#include <stdlib.h>
#include <string.h>

/* A hostile model may cause any number of notes; nobody reads more than this. */
static const size_t most = 16 << 20;

void df11go_note_down(df11go_notes *all, uint32_t kind, const char *first, const char *second, const char *third)
{
    const char *const texts[3] = {first, second, third};
    df11go_note head = {kind, {0}};
    size_t need = all->used + sizeof head;
    for (int i = 0; i < 3; i++)
        need += head.bytes[i] = (uint32_t)strlen(texts[i]);
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
    at += sizeof head;
    for (int i = 0; i < 3; at += head.bytes[i++])
        memcpy(at, texts[i], head.bytes[i]);
    all->used = need;
}
