/* What the files of the runtime for GPUs share, beside internal.h. Hidden: nothing here is visible outside the module.
 */
#ifndef GRAPHC_CUDA_INTERNAL_H
#define GRAPHC_CUDA_INTERNAL_H

#include "cuda_driver.h"
#include "internal.h"
#include "cuda_api.h"

#include <pthread.h>

/* One call on its way into a stream: what the generated program.c needs. */
typedef struct graphc_work {
    const CUfunction *kernels;
    CUstream stream;
    const CUdeviceptr *inputs, *outputs;
    CUdeviceptr weights, arena, fault;
    const int64_t *dims;
    CUevent *marks; /* NULL, or one event before the first call of a kernel and one after each */
} graphc_work;

typedef struct graphc_kernel_entry {
    const char *name;
    int shared_bytes; /* the most dynamic shared memory that a launch asks for */
} graphc_kernel_entry;

/* Everything that program.c says beside the tables. */
typedef struct graphc_program {
    const char *arch;           /* "sm_90a" */
    int major, minor, specific; /* of the compute capability; specific: for this architecture alone */
    const void *cubin, *ptx;    /* ptx: NULL without one */
    const graphc_kernel_entry *kernels;
    size_t n_kernels;
    graphc_expr arena_bytes;
    int (*launch)(const graphc_work *work); /* queues all launches of a call */
} graphc_program;
extern const graphc_program graphc_cuda_program;

/* For program.c. Both return a graphc_status. */
int graphc_launch(const graphc_work *work, int kernel, const int64_t grid[3], const unsigned block[3], unsigned shared,
                  void **arguments);
int graphc_mark(const graphc_work *work, int position);
int graphc_tensor_map(CUtensorMap *map, CUdeviceptr base, int dtype, int rank, const int64_t *shape,
                      const int64_t *strides, const uint32_t *box, int swizzle);

/* A captured call: the graph that repeats it, and what it is good for. */
enum { GRAPHC_GRAPHS = 8 };
typedef struct graphc_graph {
    uint64_t *key; /* dims, then pointers */
    CUgraphExec exec;
    uint64_t used; /* when, in calls of the frame */
} graphc_graph;

/* What one call needs for itself, kept for the next. */
typedef struct graphc_frame {
    struct graphc_frame *next;
    CUstream stream;
    CUevent done;       /* the latest call */
    CUstream last;      /* where it was put */
    int busy;           /* whether there was one */
    CUdeviceptr memory; /* staged tensors, then the arena */
    size_t bytes;
    CUdeviceptr fault;
    int64_t *fault_copy; /* in pinned memory; the record on the device is kept until it has been reported */
    graphc_graph graphs[GRAPHC_GRAPHS];
    uint64_t calls;
} graphc_frame;

struct graphc_model {
    graphc_weights weights;
    int ordinal, debug, graphs;
    CUdevice device;
    CUcontext context;
    CUmodule module;
    CUfunction *kernels;
    CUdeviceptr weights_device;
    CUstream stream;
    CUevent event;
    pthread_mutex_t lock; /* of `frames` and `event` */
    graphc_frame *frames;
};

/* cuda_frame.c */
int graphc_take_frame(graphc_model *model, size_t bytes, graphc_frame **frame);
void graphc_keep_frame(graphc_model *model, graphc_frame *frame);
void graphc_free_frame(graphc_frame *frame);
void graphc_forget_graphs(graphc_frame *frame);
int graphc_begin(graphc_frame *frame, CUstream stream); /* what is put there from now on may use the frame's memory */
int graphc_queue(graphc_model *model, graphc_frame *frame, graphc_work *work); /* the launches */
int graphc_finish(graphc_frame *frame, CUstream stream);                       /* everything of the call is queued */
int graphc_wait_frame(graphc_frame *frame); /* its end, and its fault if it had one */

#endif
