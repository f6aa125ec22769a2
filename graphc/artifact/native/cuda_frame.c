/* Frames: what a call has for itself (memory, a fault record, captured graphs), and how its launches get into a stream.
 *
 * A frame goes to the next call as soon as its work is queued; where that is put into another stream, it waits there
 * for the work before. Launches of equal shapes and pointers are captured as a CUDA graph the second time.
 */
#define _GNU_SOURCE
#include "cuda_internal.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_GRID_Y = 65535 };

void graphc_forget_graphs(graphc_frame *f) {
    for (int i = 0; i < GRAPHC_GRAPHS; i++) {
        if (f->graphs[i].exec) graphc_cuda.GraphExecDestroy(f->graphs[i].exec);
        free(f->graphs[i].key);
        f->graphs[i] = (graphc_graph){0};
    }
}

void graphc_free_frame(graphc_frame *f) {
    if (f->busy) graphc_cuda.EventSynchronize(f->done);
    graphc_forget_graphs(f);
    if (f->memory) graphc_cuda.MemFree(f->memory);
    if (f->fault) graphc_cuda.MemFree(f->fault);
    if (f->fault_copy) graphc_cuda.MemFreeHost(f->fault_copy);
    if (f->done) graphc_cuda.EventDestroy(f->done);
    if (f->stream) graphc_cuda.StreamDestroy(f->stream);
    free(f);
}

static int new_frame(graphc_frame **frame) {
    graphc_frame *f = *frame = calloc(1, sizeof *f);
    if (!f) return graphc_fail(GRAPHC_ERROR_MEMORY, "no memory for a call");
    int status = graphc_cuda_check(graphc_cuda.StreamCreate(&f->stream, CU_STREAM_NON_BLOCKING), "making a stream");
    if (!status)
        status = graphc_cuda_check(graphc_cuda.EventCreate(&f->done, CU_EVENT_DISABLE_TIMING), "making an event");
    if (!status && graphc_module_tables.n_faults) {
        status = graphc_cuda_check(graphc_cuda.MemAlloc(&f->fault, 32), "making room for a call");
        if (!status)
            status =
                graphc_cuda_check(graphc_cuda.MemHostAlloc((void **)&f->fault_copy, 32, 0), "making room for a call");
        if (!status) {
            memset(f->fault_copy, 0, 32);
            status = graphc_cuda_check(graphc_cuda.MemsetD8Async(f->fault, 0, 32, f->stream), "preparing a call");
        }
        if (!status) status = graphc_cuda_check(graphc_cuda.StreamSynchronize(f->stream), "preparing a call");
    }
    if (!status) return GRAPHC_OK;
    graphc_free_frame(f);
    *frame = NULL;
    return status;
}

int graphc_take_frame(graphc_model *model, size_t bytes, graphc_frame **frame) {
    pthread_mutex_lock(&model->lock);
    graphc_frame *f = model->frames;
    if (f) model->frames = f->next;
    pthread_mutex_unlock(&model->lock);
    int status = GRAPHC_OK;
    if (!f) status = new_frame(&f);
    if (!status && f->bytes < bytes) {
        if (f->busy) status = graphc_cuda_check(graphc_cuda.EventSynchronize(f->done), "waiting for the call before");
        graphc_forget_graphs(f); /* they hold addresses in the old memory */
        if (f->memory) graphc_cuda.MemFree(f->memory);
        f->memory = 0;
        f->bytes = 0;
        CUresult result = status ? CUDA_SUCCESS : graphc_cuda.MemAlloc(&f->memory, bytes);
        if (result == CUDA_ERROR_OUT_OF_MEMORY)
            status =
                graphc_fail(GRAPHC_ERROR_MEMORY, "`%s` needs %.1f MB for these inputs, which the GPU does not have",
                            graphc_module_tables.info.name, (double)bytes * 1e-6);
        else if (!status) status = graphc_cuda_check(result, "making room for a call");
        if (!status) f->bytes = bytes;
        if (status) graphc_keep_frame(model, f);
    }
    *frame = status ? NULL : f;
    return status;
}

void graphc_keep_frame(graphc_model *model, graphc_frame *f) {
    pthread_mutex_lock(&model->lock);
    f->next = model->frames;
    model->frames = f;
    pthread_mutex_unlock(&model->lock);
}

/* ---- what program.c calls ---- */

int graphc_launch(const graphc_work *work, int kernel, const int64_t grid[3], const unsigned block[3], unsigned shared,
                  void **arguments) {
    if (grid[0] <= 0 || grid[1] <= 0 || grid[2] <= 0) return GRAPHC_OK;
    const char *name = graphc_cuda_program.kernels[kernel].name;
    if (grid[0] > INT32_MAX || grid[1] > MAX_GRID_Y || grid[2] > MAX_GRID_Y)
        return graphc_fail(GRAPHC_ERROR_MEMORY,
                           "kernel %s would need a grid of %lld x %lld x %lld blocks for these inputs", name,
                           (long long)grid[0], (long long)grid[1], (long long)grid[2]);
    return graphc_cuda_check(graphc_cuda.LaunchKernel(work->kernels[kernel], (unsigned)grid[0], (unsigned)grid[1],
                                                      (unsigned)grid[2], block[0], block[1], block[2], shared,
                                                      work->stream, arguments, NULL),
                             name);
}

int graphc_mark(const graphc_work *work, int position) {
    if (!work->marks) return GRAPHC_OK;
    return graphc_cuda_check(graphc_cuda.EventRecord(work->marks[position], work->stream), "measuring a kernel");
}

int graphc_tensor_map(CUtensorMap *map, CUdeviceptr base, int dtype, int rank, const int64_t *shape,
                      const int64_t *strides, const uint32_t *box, int swizzle) {
    static const int types[] = {8, 7, 6, 9, 5, 3, 1, 0, 0, 0}; /* CUtensorMapDataType of each graphc_dtype */
    uint64_t sizes[5] = {0}, steps[5] = {0};
    uint32_t ones[5] = {1, 1, 1, 1, 1};
    int swizzles = swizzle == 128 ? 3 : swizzle == 64 ? 2 : swizzle == 32 ? 1 : 0;
    for (int i = 0; i < rank; i++) {
        sizes[i] = (uint64_t)shape[i];
        if (sizes[i]) continue;
        *map = (CUtensorMap){{0}}; /* there is nothing to copy, and the driver wants no empty tensor */
        return GRAPHC_OK;
    }
    for (int i = 0; i + 1 < rank; i++) steps[i] = (uint64_t)strides[i];
    return graphc_cuda_check(graphc_cuda.TensorMapEncodeTiled(map, types[dtype], (uint32_t)rank, (void *)base, sizes,
                                                              steps, box, ones, 0, swizzles, 2, 0),
                             "describing a tensor to the GPU");
}

/* ---- graphs ---- */

static size_t key_words(void) {
    const graphc_info *info = &graphc_module_tables.info;
    return info->n_dims + info->n_inputs + info->n_outputs;
}

static void write_key(const graphc_work *work, uint64_t *key) {
    const graphc_info *info = &graphc_module_tables.info;
    for (size_t i = 0; i < info->n_dims; i++) *key++ = (uint64_t)work->dims[i];
    for (size_t i = 0; i < info->n_inputs; i++) *key++ = work->inputs[i];
    for (size_t i = 0; i < info->n_outputs; i++) *key++ = work->outputs[i];
}

/* The entry for these dims and pointers, with or without a graph; the one used longest ago makes room. NULL without
 * memory. `seen` says whether it was there. */
static graphc_graph *find_graph(graphc_frame *f, const graphc_work *work, int *seen) {
    const size_t bytes = key_words() * sizeof(uint64_t);
    uint64_t *key = malloc(bytes + 1);
    if (!key) return NULL;
    write_key(work, key);
    graphc_graph *oldest = &f->graphs[0];
    for (int i = 0; i < GRAPHC_GRAPHS; i++) {
        graphc_graph *g = &f->graphs[i];
        if (g->key && !memcmp(g->key, key, bytes)) {
            free(key);
            g->used = ++f->calls;
            *seen = 1;
            return g;
        }
        if (g->used < oldest->used) oldest = g;
    }
    if (oldest->exec) graphc_cuda.GraphExecDestroy(oldest->exec);
    free(oldest->key);
    *oldest = (graphc_graph){key, NULL, ++f->calls};
    *seen = 0;
    return oldest;
}

/* Captures the launches. Where the driver refuses, the call goes on without a graph, and so do all that follow. */
static void capture(graphc_model *model, graphc_frame *f, const graphc_work *work, graphc_graph *g) {
    graphc_work captured = *work;
    captured.stream = f->stream;
    CUgraph graph = NULL;
    CUresult result = graphc_cuda.StreamBeginCapture(f->stream, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL);
    if (!result) {
        int status = graphc_cuda_program.launch(&captured);
        result = graphc_cuda.StreamEndCapture(f->stream, &graph);
        if (status && !result) result = CUDA_ERROR_INVALID_DEVICE; /* any: the launch itself reports it again */
    }
    if (!result) result = graphc_cuda.GraphInstantiate(&g->exec, graph, 0);
    if (graph) graphc_cuda.GraphDestroy(graph);
    if (!result) return;
    g->exec = NULL;
    model->graphs = 0;
}

int graphc_begin(graphc_frame *f, CUstream stream) {
    if (!f->busy || f->last == stream) return GRAPHC_OK;
    return graphc_cuda_check(graphc_cuda.StreamWaitEvent(stream, f->done, 0), "waiting for the call before");
}

int graphc_queue(graphc_model *model, graphc_frame *f, graphc_work *work) {
    int status = GRAPHC_OK, seen = 0;
    graphc_graph *g = model->graphs && !work->marks ? find_graph(f, work, &seen) : NULL;
    if (g && seen && !g->exec) capture(model, f, work, g);
    if (g && g->exec) status = graphc_cuda_check(graphc_cuda.GraphLaunch(g->exec, work->stream), "launching the graph");
    else status = graphc_cuda_program.launch(work);
    if (!status && f->fault)
        status = graphc_cuda_check(graphc_cuda.MemcpyDtoHAsync(f->fault_copy, f->fault, 32, work->stream),
                                   "reading the fault record");
    return status;
}

int graphc_finish(graphc_frame *f, CUstream stream) {
    f->busy = 1;
    f->last = stream;
    return graphc_cuda_check(graphc_cuda.EventRecord(f->done, stream), "queueing a call");
}

int graphc_wait_frame(graphc_frame *f) {
    if (!f->busy) return GRAPHC_OK;
    int status = graphc_cuda_check(graphc_cuda.EventSynchronize(f->done), "a kernel");
    if (status || !f->fault || !f->fault_copy[0]) return status;
    int64_t fault[4];
    memcpy(fault, f->fault_copy, sizeof fault);
    memset(f->fault_copy, 0, sizeof fault);
    status = graphc_cuda_check(graphc_cuda.MemsetD8Async(f->fault, 0, 32, f->stream), "preparing a call");
    if (!status) status = graphc_cuda_check(graphc_cuda.StreamSynchronize(f->stream), "preparing a call");
    return status ? status : graphc_report_fault(fault);
}
