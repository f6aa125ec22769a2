/* The runtime of a compiled module: opening, running and closing a model. Its neighbours: binding.c and arguments.c check
 * what the caller gives, pool.c runs parallel loops, weights.c maps the file, cpu.c looks at the machine, errors.c keeps
 * messages. The generated module.c supplies the tables (internal.h) and the way into the compiled program, `graphc_main`.
 */
#define _GNU_SOURCE
#include "internal.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

enum { ALIGNMENT = 64, HUGE_PAGE = 2 << 20, GUARD = 0xff /* all bytes 0xff: NaN, or -1 */ };

/* Scratch memory of one call, kept for the next. Its header lies in front of it. */
typedef struct arena {
    struct arena *next;
    size_t bytes;
} arena;

struct graphc_model {
    int threads, debug;
    graphc_weights weights;
    graphc_pool *pool;
    pthread_mutex_t lock; /* of `arenas` */
    arena *arenas;
    graphc_model *next, *previous; /* all open models: the fork handlers walk them */
};

/* ---- forks: a child keeps its models, without their threads ---- */

static pthread_mutex_t models_lock = PTHREAD_MUTEX_INITIALIZER;
static graphc_model *models;

static void before_fork(void) {
    pthread_mutex_lock(&models_lock);
    for (graphc_model *m = models; m; m = m->next) pthread_mutex_lock(&m->lock);
}

static void after_fork(void) {
    for (graphc_model *m = models; m; m = m->next) pthread_mutex_unlock(&m->lock);
    pthread_mutex_unlock(&models_lock);
}

static void after_fork_in_child(void) {
    for (graphc_model *m = models; m; m = m->next) {
        graphc_pool_forget(m->pool);
        m->pool = m->threads > 1 ? graphc_pool_new(m->threads) : NULL; /* NULL: loops run on the caller's thread */
    }
    after_fork();
}

__attribute__((constructor)) static void watch_forks(void) {
    pthread_atfork(before_fork, after_fork, after_fork_in_child);
}

/* ---- what compiled kernels call ---- */

static int parallel_launch(graphc_task task, void *data, int num_task) {
    graphc_model *model = graphc_running();
    return graphc_pool_run(model ? model->pool : NULL, task, data, num_task);
}

/* How many tasks a parallel loop of the program is cut into, unless the threads are busy. */
int64_t graphc_tasks(void) {
    graphc_model *model = graphc_running();
    return model && model->pool ? graphc_pool_threads(model->pool) : 1;
}

/* TVM's object files hold these as weak pointers; kernels reach the runtime through them. */
int (*__TVMBackendParallelLaunch)(graphc_task, void *, int) = parallel_launch;

static void *allocate_workspace(int device, int id, uint64_t bytes, int code, int bits) {
    (void)device, (void)id, (void)code, (void)bits;
    return aligned_alloc(ALIGNMENT, (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT);
}

static int free_workspace(int device, int id, void *memory) {
    (void)device, (void)id;
    free(memory);
    return 0;
}
void *(*__TVMBackendAllocWorkspace)(int, int, uint64_t, int, int) = allocate_workspace;
int (*__TVMBackendFreeWorkspace)(int, int, void *) = free_workspace;

/* ---- arenas ---- */

static arena *take_arena(graphc_model *model, size_t bytes) {
    pthread_mutex_lock(&model->lock);
    arena *a = model->arenas;
    if (a) model->arenas = a->next;
    pthread_mutex_unlock(&model->lock);
    if (a && a->bytes >= bytes) return a;
    free(a);
    size_t align = bytes >= 2 * HUGE_PAGE ? HUGE_PAGE : ALIGNMENT;
    if (bytes > SIZE_MAX / 2) return NULL;
    size_t total = (bytes + ALIGNMENT + align - 1) / align * align;
    a = aligned_alloc(align, total);
    if (!a) return NULL;
    if (align == HUGE_PAGE) madvise(a, total, MADV_HUGEPAGE); /* fewer page faults and TLB misses; may be refused */
    a->bytes = bytes;
    return a;
}

static void keep_arena(graphc_model *model, arena *a) {
    pthread_mutex_lock(&model->lock);
    a->next = model->arenas;
    model->arenas = a;
    pthread_mutex_unlock(&model->lock);
}

/* ---- opening and closing ---- */

GRAPHC_API int graphc_threads(const graphc_model *model) { return model->threads; }

GRAPHC_API int graphc_open(const char *weights_path, const graphc_options *options, graphc_model **model) {
    char path[4096];
    if (!model) return graphc_fail(GRAPHC_ERROR_ARGUMENT, "graphc_open needs a place for the model");
    *model = NULL;
    graphc_options given = {.threads = 0};
    if (options && options->size < sizeof given)
        return graphc_fail(GRAPHC_ERROR_ARGUMENT, "graphc_options.size must be sizeof(graphc_options)");
    if (options) given = *options;
    if (given.threads < 0 || given.threads > 1024)
        return graphc_fail(GRAPHC_ERROR_ARGUMENT, "threads must be 1 to 1024, or 0 for the default, not %d",
                           (int)given.threads);
    if (!weights_path && !graphc_beside_library(path, sizeof path))
        return graphc_fail(GRAPHC_ERROR_FILE, "the folder of the library is unknown: name the weights file");
    int status = graphc_check_cpu();
    if (status) return status;

    graphc_model *m = calloc(1, sizeof *m);
    if (!m) return graphc_fail(GRAPHC_ERROR_MEMORY, "no memory for the model");
    m->debug = given.debug;
    m->threads = given.threads ? given.threads : graphc_default_threads();
    pthread_mutex_init(&m->lock, NULL);
    status = graphc_map_weights(weights_path ? weights_path : path, given.verify, &m->weights);
    if (!status && m->threads > 1 && !(m->pool = graphc_pool_new(m->threads)))
        status = graphc_fail(GRAPHC_ERROR_MEMORY, "no memory for %d threads", m->threads);
    if (status) {
        graphc_unmap_weights(&m->weights);
        pthread_mutex_destroy(&m->lock);
        free(m);
        return status;
    }
    pthread_mutex_lock(&models_lock);
    m->next = models;
    if (models) models->previous = m;
    models = m;
    pthread_mutex_unlock(&models_lock);
    *model = m;
    return GRAPHC_OK;
}

GRAPHC_API void graphc_close(graphc_model *m) {
    if (!m) return;
    pthread_mutex_lock(&models_lock);
    if (m->next) m->next->previous = m->previous;
    *(m->previous ? &m->previous->next : &models) = m->next;
    pthread_mutex_unlock(&models_lock);
    graphc_pool_free(m->pool);
    for (arena *a = m->arenas, *next; a; a = next) {
        next = a->next;
        free(a);
    }
    graphc_unmap_weights(&m->weights);
    pthread_mutex_destroy(&m->lock);
    free(m);
}

/* ---- running ---- */

/* Whether a tensor is copied for the call. */
static int copied(const graphc_model *model, const graphc_tensor *x) {
    return model->debug || (uintptr_t)x->data % graphc_element_bytes(x->dtype) != 0;
}

/* The room that `bytes` take in an arena, with the guard in debug mode. */
static size_t padded(const graphc_model *model, size_t bytes) {
    return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT + (model->debug ? ALIGNMENT : 0);
}

/* Debug mode: what lies between the end of a region and the next one must be as it was. */
static int check_guard(const graphc_model *model, const char *what, const void *region, size_t bytes) {
    const uint8_t *at = region;
    for (size_t i = bytes; i < padded(model, bytes); i++)
        if (at[i] != GUARD)
            return graphc_fail(GRAPHC_ERROR_INTERNAL, "a kernel of `%s` wrote %zu bytes behind the end of %s (%zu bytes)",
                               graphc_module_tables.info.name, i - bytes, what, bytes);
    return GRAPHC_OK;
}

static double seconds_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* The program calls it before each kernel and at its end: `clock` is NULL where nothing is timed. It is a function
 * since a test and a store for every kernel were half of the program to compile. */
int32_t graphc_tick(uint64_t *clock, int64_t at) {
    if (clock) {
#if defined(__x86_64__)
        clock[at] = __builtin_ia32_rdtsc();
#else
        struct timespec t;
        clock_gettime(CLOCK_MONOTONIC, &t);
        clock[at] = (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
#endif
    }
    return 0;
}

/* Calls the program. `seconds` is NULL, or takes the time of each kernel: `graphc_tick` counts cycles, whose rate is
 * what the wall clock says it was over the whole call. */
static int call(graphc_model *model, void *const *in, void *memory, void *const *out, const int64_t *dims,
                double *seconds) {
    const graphc_tables *t = &graphc_module_tables;
    int64_t fault[4] = {0};
    uint64_t *clock = NULL;
    if (seconds && !(clock = calloc(t->info.n_kernels + 1, sizeof *clock)))
        return graphc_fail(GRAPHC_ERROR_MEMORY, "no memory for the profile");
    double start = seconds ? seconds_now() : 0;
    if (!graphc_set_running(model)) {
        free(clock);
        return graphc_fail(GRAPHC_ERROR_MEMORY, "no memory for the thread's state");
    }
    int32_t status = t->call(in, model->weights.base, memory, out, dims, fault, clock);
    graphc_set_running(NULL);
    if (seconds) {
        double elapsed = seconds_now() - start;
        uint64_t cycles = clock[t->info.n_kernels] - clock[0];
        for (size_t i = 0; i < t->info.n_kernels; i++)
            seconds[i] = cycles ? elapsed * (double)(clock[i + 1] - clock[i]) / (double)cycles : 0;
        free(clock);
    }
    if (fault[0]) return graphc_report_fault(fault);
    if (status)
        return graphc_fail(GRAPHC_ERROR_INTERNAL, "the program of `%s` failed with status %d", t->info.name,
                           (int)status);
    return GRAPHC_OK;
}

static int run(graphc_model *model, const graphc_tensor *inputs, size_t n_inputs, graphc_tensor *outputs,
               size_t n_outputs, double *seconds) {
    const graphc_tables *t = &graphc_module_tables;
    const size_t n_in = t->info.n_inputs, n_out = t->info.n_outputs;
    const graphc_tensor *in[n_in + 1];
    graphc_tensor *out[n_out + 1];
    size_t in_bytes[n_in + 1];
    int64_t dims[t->info.n_dims + 1], arena_bytes;
    void *in_data[n_in + 1], *out_data[n_out + 1];
    if (!model || (!inputs && n_inputs) || (!outputs && n_outputs))
        return graphc_fail(GRAPHC_ERROR_ARGUMENT, "the model or the list of tensors is NULL");

    int status = graphc_bind_inputs(inputs, n_inputs, in, in_bytes, dims);
    if (!status) status = graphc_match_outputs(outputs, n_outputs, out, dims, 1);
    if (!status) status = graphc_check_buffers(in, in_bytes, out);
    if (status) return status;
    if (!graphc_evaluate(t->arena_bytes, dims, &arena_bytes) || arena_bytes < 0)
        return graphc_fail(GRAPHC_ERROR_MEMORY, "`%s` would need more memory for these inputs than can be addressed",
                           t->info.name);

    /* Tensors that are not aligned to their elements are copied into room behind the scratch memory; in debug mode all
     * are, each followed by a guard. */
    size_t total = padded(model, (size_t)arena_bytes);
    for (size_t i = 0; i < n_in; i++)
        if (copied(model, in[i])) total += padded(model, in_bytes[i]);
    for (size_t i = 0; i < n_out; i++)
        if (copied(model, out[i])) total += padded(model, out[i]->bytes);
    arena *a = take_arena(model, total);
    if (!a)
        return graphc_fail(GRAPHC_ERROR_MEMORY, "`%s` needs %.1f MB for these inputs, which the system does not give",
                           t->info.name, (double)total * 1e-6);
    char *memory = (char *)a + ALIGNMENT, *spare = memory + padded(model, (size_t)arena_bytes);
    if (model->debug) memset(memory, GUARD, total);
    for (size_t i = 0; i < n_in; i++) {
        in_data[i] = in[i]->data;
        if (!copied(model, in[i])) continue;
        in_data[i] = spare;
        if (in_bytes[i]) memcpy(spare, in[i]->data, in_bytes[i]);
        spare += padded(model, in_bytes[i]);
    }
    for (size_t i = 0; i < n_out; i++) {
        out_data[i] = out[i]->data;
        if (!copied(model, out[i])) continue;
        out_data[i] = spare;
        spare += padded(model, out[i]->bytes);
    }
    status = call(model, in_data, memory, out_data, dims, seconds);
    if (model->debug && !status) status = check_guard(model, "the arena", memory, (size_t)arena_bytes);
    for (size_t i = 0; i < n_in && model->debug && !status; i++) {
        status = check_guard(model, t->info.inputs[i].name, in_data[i], in_bytes[i]);
        if (!status && in_bytes[i] && !t->info.inputs[i].state && memcmp(in_data[i], in[i]->data, in_bytes[i]))
            status = graphc_fail(GRAPHC_ERROR_INTERNAL, "a kernel wrote to input `%s`", t->info.inputs[i].name);
    }
    for (size_t i = 0; i < n_in; i++)
        if (t->info.inputs[i].state && in_data[i] != in[i]->data && in_bytes[i])
            memcpy(in[i]->data, in_data[i], in_bytes[i]);
    for (size_t i = 0; i < n_out; i++) {
        if (model->debug && !status)
            status = check_guard(model, t->info.outputs[i].name, out_data[i], out[i]->bytes);
        if (out_data[i] != out[i]->data && out[i]->bytes) memcpy(out[i]->data, out_data[i], out[i]->bytes);
    }
    keep_arena(model, a);
    return status;
}

GRAPHC_API int graphc_initial_state(graphc_model *model, const graphc_tensor *inputs, size_t n_inputs) {
    const graphc_tables *t = &graphc_module_tables;
    const graphc_tensor *in[t->info.n_inputs + 1];
    size_t bytes[t->info.n_inputs + 1];
    int64_t dims[t->info.n_dims + 1];
    if (!model) return graphc_fail(GRAPHC_ERROR_ARGUMENT, "the model is NULL");
    int status = graphc_bind_inputs(inputs, n_inputs, in, bytes, dims);
    if (status) return status;
    for (size_t i = 0; i < t->info.n_inputs; i++) {
        if (!t->info.inputs[i].state || !bytes[i]) continue;
        if (!in[i]->data)
            return graphc_fail(GRAPHC_ERROR_ARGUMENT, "state `%s` has no buffer: it needs %zu bytes",
                               t->info.inputs[i].name, bytes[i]);
        if (t->initial[i] < 0) memset(in[i]->data, 0, bytes[i]);
        else memcpy(in[i]->data, (const char *)model->weights.base + t->initial[i], bytes[i]);
    }
    return GRAPHC_OK;
}

GRAPHC_API int graphc_run(graphc_model *model, const graphc_tensor *inputs, size_t n_inputs, graphc_tensor *outputs,
                          size_t n_outputs) {
    return run(model, inputs, n_inputs, outputs, n_outputs, NULL);
}

GRAPHC_API int graphc_profile(graphc_model *model, const graphc_tensor *inputs, size_t n_inputs,
                              graphc_tensor *outputs, size_t n_outputs, double *seconds, size_t n_seconds) {
    if (!seconds || n_seconds < graphc_module_tables.info.n_kernels)
        return graphc_fail(GRAPHC_ERROR_ARGUMENT, "the profile needs room for %zu kernels",
                           graphc_module_tables.info.n_kernels);
    return run(model, inputs, n_inputs, outputs, n_outputs, seconds);
}
