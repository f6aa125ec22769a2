/* What the files of the runtime share. Hidden: nothing here is visible outside the module. */
#ifndef GRAPHC_INTERNAL_H
#define GRAPHC_INTERNAL_H

#include <stdint.h>

#define GRAPHC_API __attribute__((visibility("default")))
#include "api.h"

/* A size that may depend on named dims, as a postfix program: GRAPHC_END-terminated pairs (operation, argument). */
enum { GRAPHC_END, GRAPHC_CONST, GRAPHC_DIM, GRAPHC_ADD, GRAPHC_MUL, GRAPHC_FLOORDIV };
#define GRAPHC_EXPR_DEPTH 64 /* operands on the stack; the writer holds it */
typedef const int64_t *graphc_expr;

/* One step of finding the named dims and checking the inputs against them. With dim >= 0 the axis is
 * `coefficient * dim + rest` with both known by then, and binds the dim; else it must equal `rest`. */
typedef struct graphc_step {
    int32_t input, axis, dim;
    graphc_expr coefficient, rest;
} graphc_step;

typedef struct graphc_cpu_feature {
    const char *name; /* as in /proc/cpuinfo */
    uint32_t leaf, subleaf;
    uint32_t reg, bit; /* reg: 0 eax, 1 ebx, 2 ecx, 3 edx */
    uint32_t xcr0;     /* state that the operating system must save */
} graphc_cpu_feature;

/* Everything the generated module.c says about a model. */
typedef struct graphc_tables {
    graphc_info info;
    const graphc_expr *const *output_axes;
    const int64_t *initial; /* of each input that is state: where in the weights its first value lies, -1 for zeros */
    const graphc_step *steps;
    size_t n_steps;
    graphc_expr arena_bytes;
    const graphc_cpu_feature *features;
    size_t n_features;
    int uses_amx;
    const char *const *faults; /* messages with {value}, {position} and {limit} */
    size_t n_faults;
    uint64_t weights_bytes, weights_header;
    uint8_t weights_sha256[32], header_sha256[32];
    int32_t (*call)(void *const *inputs, const void *weights, void *arena, void *const *outputs, const int64_t *dims,
                    int64_t *fault, uint64_t *clock);
} graphc_tables;
extern const graphc_tables graphc_module_tables;

/* runtime.c: notes the cycle counter for the program's kernel `at`, if `clock` is not NULL. */
int32_t graphc_tick(uint64_t *clock, int64_t at);

/* runtime.c: how many tasks a parallel loop of the program is cut into. */
int64_t graphc_tasks(void);

/* errors.c: the calling thread's message, and the model it runs. */
int graphc_fail(int status, const char *format, ...) __attribute__((format(printf, 2, 3)));
int graphc_thread_state_ready(void);
int graphc_set_running(graphc_model *model); /* 0 when there is no memory for the thread's state */
graphc_model *graphc_running(void);

/* binding.c: arguments. `dims` has n_dims places; `found[i]` is the caller's tensor for input i. */
int graphc_bind_inputs(const graphc_tensor *inputs, size_t n, const graphc_tensor **found, size_t *bytes,
                       int64_t *dims);
int graphc_describe_output(size_t index, const int64_t *dims, graphc_tensor *out);
int graphc_find_port(const graphc_port *ports, size_t n, const char *name, size_t position);
int graphc_evaluate(graphc_expr code, const int64_t *dims, int64_t *value); /* 0 when it overflows */

/* arguments.c: outputs in the module's order, described and, with `buffers`, checked; buffers that overlap nothing; the
 * error of a fault record {id + 1, offending value, position, limit}; the weights beside this library. */
int graphc_match_outputs(graphc_tensor *outputs, size_t n, graphc_tensor **found, const int64_t *dims, int buffers);
int graphc_check_buffers(const graphc_tensor **in, const size_t *in_bytes, graphc_tensor **out);
int graphc_report_fault(const int64_t fault[4]);
int graphc_beside_library(char *path, size_t size);
size_t graphc_element_bytes(int32_t dtype);

/* weights.c */
typedef struct graphc_weights {
    void *map;
    size_t bytes;
    const void *base; /* of the tensors: 64-byte aligned */
} graphc_weights;
int graphc_map_weights(const char *path, int verify, graphc_weights *weights);
void graphc_unmap_weights(graphc_weights *weights);
void graphc_sha256(const void *data, size_t bytes, uint8_t digest[32]);

/* cpu.c */
int graphc_check_cpu(void);
int graphc_default_threads(void);

/* pool.c */
typedef struct graphc_env { /* what TVM hands to each task of a parallel loop */
    void *sync;
    int32_t num_task;
} graphc_env;
typedef int (*graphc_task)(int task_id, graphc_env *env, void *data);
typedef struct graphc_pool graphc_pool;
graphc_pool *graphc_pool_new(int threads);
int graphc_pool_threads(const graphc_pool *pool);
int graphc_pool_run(graphc_pool *pool, graphc_task task, void *data, int num_task);
void graphc_pool_free(graphc_pool *pool);
void graphc_pool_forget(graphc_pool *pool); /* in a forked child: its threads do not exist there */

#endif
