/* The C interface of a compiled graphc module. It is the same for every module; `module.h` of a module holds a copy of
 * it, followed by what is particular to that model.
 *
 * A module is one shared library and one weights file. It needs libc and nothing else.
 *
 *     graphc_model *model;
 *     if (graphc_open(NULL, NULL, &model)) { fprintf(stderr, "%s\n", graphc_error()); return 1; }
 *     graphc_run(model, inputs, n_inputs, outputs, n_outputs);
 *     graphc_close(model);
 *
 * Threads: every function may be called from any thread at any time, several models may be open at once, and one model
 * may be run from several threads at once (each call has its own arena; the call that finds the model's worker threads
 * busy computes on its own thread). Only graphc_close must be the last call on its model.
 * Memory: the scratch memory of the largest call so far is kept for the next, once per concurrent call.
 * Forks: a child made by fork() may go on using an open model, provided that no call was running in its forking thread.
 * Several modules in one process: open each with dlopen(RTLD_LOCAL) and take the functions with dlsym; their names are
 * the same in every module. Calls into one module never reach another.
 */
#ifndef GRAPHC_API_H
#define GRAPHC_API_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Raised when a struct or a function below changes incompatibly. */
#define GRAPHC_ABI_VERSION 2
#define GRAPHC_MAX_RANK 8

/* What every function returns. Anything but GRAPHC_OK comes with a sentence in graphc_error(). */
typedef enum graphc_status {
    GRAPHC_OK = 0,
    GRAPHC_ERROR_MEMORY = 1,   /* no memory for the arena or for the model */
    GRAPHC_ERROR_FILE = 2,     /* weights missing, truncated, altered or of another module */
    GRAPHC_ERROR_TARGET = 3,   /* this CPU lacks features that the module was built for */
    GRAPHC_ERROR_ARGUMENT = 4, /* unknown, missing or doubled name, a null pointer, a buffer too small */
    GRAPHC_ERROR_DTYPE = 5,    /* an input has another element type */
    GRAPHC_ERROR_SHAPE = 6,    /* an input's shape does not fit, or two inputs disagree about a dim */
    GRAPHC_ERROR_INDEX = 7,    /* an index is out of range; outputs hold no meaningful values */
    GRAPHC_ERROR_INTERNAL = 8  /* the compiled program reported a failure */
} graphc_status;

typedef enum graphc_dtype {
    GRAPHC_F64 = 0, GRAPHC_F32 = 1, GRAPHC_F16 = 2, GRAPHC_BF16 = 3, /* f16, bf16: two bytes, host byte order */
    GRAPHC_I64 = 4, GRAPHC_I32 = 5, GRAPHC_I16 = 6, GRAPHC_I8 = 7, GRAPHC_U8 = 8,
    GRAPHC_BOOL = 9 /* one byte, 0 or 1 */
} graphc_dtype;

/* A dense, row-major tensor in the caller's memory. `data` needs no particular alignment (a pointer that is not even
 * aligned to its element is copied first). Outputs must overlap neither inputs nor each other.
 * An input that is state (graphc_port.state) is read and then overwritten with its next value: the weights of a training
 * step, say. It must overlap nothing. After an error it may hold anything. */
typedef struct graphc_tensor {
    const char *name; /* of the input or output; NULL: the one at this position */
    void *data;       /* inputs are only read, but for those that are state */
    size_t bytes;     /* size of the buffer; for an input 0 means: what the shape needs */
    int32_t dtype;    /* a graphc_dtype; filled in for outputs */
    int32_t rank;     /* filled in for outputs */
    int64_t shape[GRAPHC_MAX_RANK]; /* filled in for outputs */
} graphc_tensor;

/* What a module says about itself. Everything lives as long as the library is loaded. */
typedef struct graphc_port {
    const char *name;
    int32_t dtype;                      /* a graphc_dtype */
    int32_t rank;
    int64_t fixed[GRAPHC_MAX_RANK];     /* the size of an axis, -1 where it depends on named dims */
    const char *axes[GRAPHC_MAX_RANK];  /* the same as text: "28", "N", "2*T + 1" */
    int32_t state;                      /* 1: an input that the call overwrites with its next value */
} graphc_port;

typedef struct graphc_dim {
    const char *name;
    int64_t low;  /* smallest size allowed */
    int64_t high; /* largest size allowed, -1: no limit */
} graphc_dim;

typedef struct graphc_kernel {
    const char *name;   /* of the compiled kernel */
    const char *label;  /* what it computes: "conv1 + tanh" */
    const char *source; /* where that was written: "lenet.nn:5:17" */
} graphc_kernel;

typedef struct graphc_info {
    uint32_t abi_version; /* GRAPHC_ABI_VERSION of the module */
    uint32_t struct_size; /* sizeof(graphc_info) of the module */
    const char *name;     /* of the model */
    const char *graphc_version;
    const char *target;    /* what it was compiled for: "x86-64-v4" */
    const char *interface; /* a digest of names, types and shapes; manifest.json has the same */
    size_t n_inputs, n_outputs, n_dims, n_kernels;
    const graphc_port *inputs, *outputs;
    const graphc_dim *dims;
    const graphc_kernel *kernels; /* in the order in which they run */
} graphc_info;

typedef struct graphc_options {
    size_t size;     /* sizeof(graphc_options), so that fields can be added */
    int32_t threads; /* threads that compute, the caller included; 0: $GRAPHC_NUM_THREADS, else one per physical core
                        that the process may use */
    int32_t verify;  /* 1: check the SHA-256 of the whole weights file; 0: only its size and header */
    int32_t debug;   /* 1: run on copies surrounded by guard bytes, in memory filled with NaN, and report kernels that
                        write where they must not (GRAPHC_ERROR_INTERNAL); for tests of the compiler */
    int32_t device;  /* modules for GPUs: which one to run on, 0 for the first */
} graphc_options;

typedef struct graphc_model graphc_model;

#ifndef GRAPHC_API
#define GRAPHC_API
#endif

/* Names, types and shapes of this module. Never fails and needs no model. */
GRAPHC_API const graphc_info *graphc_module_info(void);

/* Opens the model: checks the CPU, maps the weights file (it is not copied and must stay as it is while open).
 * weights_path NULL: "weights.safetensors" beside the library. options NULL: defaults. */
GRAPHC_API int graphc_open(const char *weights_path, const graphc_options *options, graphc_model **model);

/* Fills in name, dtype, rank, shape and bytes of all outputs for inputs of the given types and shapes; computes
 * nothing and reads no data pointer. */
GRAPHC_API int graphc_output_shapes(graphc_model *model, const graphc_tensor *inputs, size_t n_inputs,
                                    graphc_tensor *outputs, size_t n_outputs);

/* Writes the sizes of the named dims (n_dims values, see graphc_module_info) for inputs of the given shapes. */
GRAPHC_API int graphc_dim_sizes(graphc_model *model, const graphc_tensor *inputs, size_t n_inputs, int64_t *sizes,
                                size_t n_sizes);

/* Fills the buffers of those tensors that are state with what they start as: fresh or given weights, empty moments. The
 * caller sets dtype, rank, shape and data as for graphc_run; other tensors in the list are left alone. */
GRAPHC_API int graphc_initial_state(graphc_model *model, const graphc_tensor *inputs, size_t n_inputs);

/* Computes the outputs. All inputs and all outputs must be given, by name or by position. The caller sets data and
 * bytes of each output; name, dtype, rank and shape are filled in. */
GRAPHC_API int graphc_run(graphc_model *model, const graphc_tensor *inputs, size_t n_inputs, graphc_tensor *outputs,
                          size_t n_outputs);

/* As graphc_run, and writes how many seconds each kernel took (n_kernels values, see graphc_module_info). */
GRAPHC_API int graphc_profile(graphc_model *model, const graphc_tensor *inputs, size_t n_inputs,
                              graphc_tensor *outputs, size_t n_outputs, double *seconds, size_t n_seconds);

/* The threads this model computes with. */
GRAPHC_API int graphc_threads(const graphc_model *model);

/* What went wrong in the calling thread's last call that failed; "" when none did. Valid until its next one. */
GRAPHC_API const char *graphc_error(void);

/* For graphc's own Python package: its way into this module (python.c). Nothing for others to call. */
GRAPHC_API const void *graphc_python(void);

/* Ends the worker threads and unmaps the weights. NULL is allowed. */
GRAPHC_API void graphc_close(graphc_model *model);

#ifdef __cplusplus
}
#endif
#endif /* GRAPHC_API_H */
