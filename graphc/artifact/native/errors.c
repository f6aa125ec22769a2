/* Per-thread state: the message of the last failure, and the model whose kernels the thread runs.
 *
 * A POSIX key and not _Thread_local: libraries opened at run time share a small reserve of static thread storage, and
 * dynamic storage would make the module need the loader beside libc.
 */
#define _GNU_SOURCE
#include "internal.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct thread_state {
    graphc_model *running;
    char message[4096];
} thread_state;

static pthread_key_t key;
static int key_status = -1;

__attribute__((constructor)) static void make_key(void) { key_status = pthread_key_create(&key, free); }

/* The library is unloaded: other threads must not call `free` through a key of ours, but this one frees its own. */
__attribute__((destructor)) static void drop_key(void) {
    if (key_status) return;
    free(pthread_getspecific(key));
    pthread_key_delete(key);
}

static thread_state *state(void) {
    if (key_status) return NULL;
    thread_state *s = pthread_getspecific(key);
    if (s) return s;
    s = malloc(sizeof *s);
    if (!s) return NULL;
    s->running = NULL;
    s->message[0] = 0;
    if (pthread_setspecific(key, s)) {
        free(s);
        return NULL;
    }
    return s;
}

int graphc_set_running(graphc_model *model) {
    thread_state *s = state();
    if (s) s->running = model;
    return s != NULL;
}

/* Also asked by worker threads, which have no state and run nothing of their own. */
graphc_model *graphc_running(void) {
    thread_state *s = key_status ? NULL : pthread_getspecific(key);
    return s ? s->running : NULL;
}

int graphc_fail(int status, const char *format, ...) {
    thread_state *s = state();
    if (s) {
        va_list arguments;
        va_start(arguments, format);
        vsnprintf(s->message, sizeof s->message, format, arguments);
        va_end(arguments);
    }
    return status;
}

GRAPHC_API const char *graphc_error(void) {
    thread_state *s = state();
    return s ? s->message : "out of memory (not even the message could be stored)";
}

/* Compiled kernels call this for a failed assertion. */
void TVMFFIErrorSetRaisedFromCStrParts(const char *kind, const char **parts, int32_t n) {
    char text[2048];
    size_t used = 0;
    for (int32_t i = 0; i < n && used < sizeof text; i++) {
        int wrote = snprintf(text + used, sizeof text - used, "%s", parts[i]);
        used += wrote > 0 ? (size_t)wrote : 0;
    }
    graphc_fail(GRAPHC_ERROR_INTERNAL, "%s: %s", kind, used ? text : "no reason given");
}
