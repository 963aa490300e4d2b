/* What the C tests share: a check that says where it failed, on any thread, and a count. */
#ifndef CHECK_H
#define CHECK_H

#include <stdio.h>
#include <stdlib.h>

static unsigned checks_passed;

#define CHECK(condition)                                                                 \
    do {                                                                                 \
        if (!(condition)) {                                                              \
            fprintf(stderr, "%s:%d: failed: %s\n", __FILE__, __LINE__, #condition);      \
            exit(1);                                                                     \
        }                                                                                \
        __atomic_fetch_add(&checks_passed, 1, __ATOMIC_RELAXED);                         \
    } while (0)

#endif
