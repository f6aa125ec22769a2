/* Running a model on a GPU: host tensors are copied to the device and back, device tensors are used where they are, but
 * for those that are not aligned to what kernels load at once.
 */
#define _GNU_SOURCE
#include "cuda_internal.h"

#include <stdlib.h>
#include <string.h>

enum {
    ALIGNMENT = 256,
    VECTOR = 16 /* bytes that kernels load at once */,
    GUARD = 0xff /* all bytes 0xff: NaN, or -1 */
};

/* A tensor of a call: where kernels find it, and where the caller has it. */
typedef struct place {
    const char *name;
    void *caller;
    size_t bytes;
    int staged, on_host, written;
    CUdeviceptr device;
} place;

/* Room for a region; in debug mode with as much again behind it that must stay as it is. */
static size_t padded(const graphc_model *model, size_t bytes) {
    return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT + (model->debug ? ALIGNMENT : 0);
}

/* Whether memory is the host's. Pointers that the driver does not know are ordinary memory. */
static int is_host(const graphc_model *model, const place *p, int *host) {
    int type = 0, ordinal = 0;
    const CUdeviceptr at = (CUdeviceptr)(uintptr_t)p->caller;
    *host = 1;
    if (!p->bytes || graphc_cuda.PointerGetAttribute(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, at)) return GRAPHC_OK;
    if (type != CU_MEMORYTYPE_DEVICE) return GRAPHC_OK;
    *host = 0;
    if (graphc_cuda.PointerGetAttribute(&ordinal, CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL, at) || ordinal == model->ordinal)
        return GRAPHC_OK;
    return graphc_fail(GRAPHC_ERROR_ARGUMENT, "`%s` lies on GPU %d, the model is on GPU %d", p->name, ordinal,
                       model->ordinal);
}

/* What a call was given, checked and in the module's order. */
typedef struct given {
    int64_t arena;
    size_t n_in, n, staged;
    place *places; /* n_in inputs, then the outputs */
    int64_t *dims;
} given;

static int gather(const graphc_model *model, const graphc_tensor *inputs, size_t n_inputs, graphc_tensor *outputs,
                  size_t n_outputs, int on_device, given *g) {
    const graphc_tables *t = &graphc_module_tables;
    const size_t n_in = t->info.n_inputs, n_out = t->info.n_outputs;
    const graphc_tensor *in[n_in + 1];
    graphc_tensor *out[n_out + 1];
    size_t in_bytes[n_in + 1];
    if (!model || (!inputs && n_inputs) || (!outputs && n_outputs))
        return graphc_fail(GRAPHC_ERROR_ARGUMENT, "the model or the list of tensors is NULL");
    int status = graphc_bind_inputs(inputs, n_inputs, in, in_bytes, g->dims);
    if (!status) status = graphc_match_outputs(outputs, n_outputs, out, g->dims, 1);
    if (!status) status = graphc_check_buffers(in, in_bytes, out);
    if (status) return status;
    if (!graphc_evaluate(graphc_cuda_program.arena_bytes, g->dims, &g->arena) || g->arena < 0)
        return graphc_fail(GRAPHC_ERROR_MEMORY, "`%s` would need more memory for these inputs than can be addressed",
                           t->info.name);
    g->n_in = n_in;
    g->n = n_in + n_out;
    g->staged = 0;
    for (size_t i = 0; i < g->n; i++) {
        place *p = &g->places[i];
        if (i < n_in) *p = (place){t->info.inputs[i].name, in[i]->data, in_bytes[i], 0, 0, t->info.inputs[i].state, 0};
        else *p = (place){out[i - n_in]->name, out[i - n_in]->data, out[i - n_in]->bytes, 0, 0, 1, 0};
        p->device = (CUdeviceptr)(uintptr_t)p->caller;
        const int32_t dtype = i < n_in ? in[i]->dtype : out[i - n_in]->dtype;
        if ((status = is_host(model, p, &p->on_host))) return status;
        if (p->on_host && p->bytes && on_device)
            return graphc_fail(GRAPHC_ERROR_ARGUMENT,
                               "`%s` lies in host memory: graphc_run_on_stream takes device memory", p->name);
        if (!p->on_host && p->device % graphc_element_bytes(dtype))
            return graphc_fail(GRAPHC_ERROR_ARGUMENT, "`%s` is not aligned to its elements", p->name);
        p->staged = p->on_host || model->debug || p->device % VECTOR;
        if (p->staged) g->staged += padded(model, p->bytes);
    }
    return GRAPHC_OK;
}

/* Copies staged tensors in, or those that were written out again. */
static int stage(const given *g, CUstream stream, int in) {
    for (size_t i = 0; i < g->n; i++) {
        const place *p = &g->places[i];
        if (!p->staged || !p->bytes || (in ? i >= g->n_in : !p->written)) continue;
        const CUdeviceptr caller = (CUdeviceptr)(uintptr_t)p->caller;
        CUresult result;
        if (in && p->on_host) result = graphc_cuda.MemcpyHtoDAsync(p->device, p->caller, p->bytes, stream);
        else if (p->on_host) result = graphc_cuda.MemcpyDtoHAsync(p->caller, p->device, p->bytes, stream);
        else if (in) result = graphc_cuda.MemcpyAsync(p->device, caller, p->bytes, stream);
        else result = graphc_cuda.MemcpyAsync(caller, p->device, p->bytes, stream);
        if (result)
            return graphc_cuda_check(result, in ? "copying an input to the GPU" : "copying an output from the GPU");
    }
    return GRAPHC_OK;
}

/* Debug mode: what lies between the end of a region and the next one must be as it was. */
static int check_guard(graphc_frame *f, const char *what, CUdeviceptr region, size_t bytes) {
    uint8_t guard[ALIGNMENT];
    const size_t from = bytes, to = (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT + ALIGNMENT;
    size_t first = to - from > ALIGNMENT ? to - ALIGNMENT : from; /* the last 256 bytes, and what comes before them */
    for (size_t at = first;; at = from) {
        const size_t n = at == first ? to - first : first - from;
        int status =
            graphc_cuda_check(graphc_cuda.MemcpyDtoHAsync(guard, region + at, n, f->stream), "reading a guard");
        if (!status) status = graphc_cuda_check(graphc_cuda.StreamSynchronize(f->stream), "reading a guard");
        if (status) return status;
        for (size_t i = 0; i < n; i++)
            if (guard[i] != GUARD)
                return graphc_fail(GRAPHC_ERROR_INTERNAL,
                                   "a kernel of `%s` wrote %zu bytes behind the end of %s (%zu bytes)",
                                   graphc_module_tables.info.name, at + i - bytes, what, bytes);
        if (at == from || first == from) return GRAPHC_OK;
    }
}

static int check_guards(const given *g, graphc_frame *f, CUdeviceptr arena) {
    int status = check_guard(f, "the arena", arena, (size_t)g->arena);
    for (size_t i = 0; i < g->n && !status; i++)
        status = check_guard(f, g->places[i].name, g->places[i].device, g->places[i].bytes);
    return status;
}

/* Queues a call whose tensors are gathered. */
static int queue(graphc_model *model, graphc_frame *f, const given *g, CUstream stream, CUevent *marks) {
    CUdeviceptr pointers[g->n + 1], at = f->memory;
    for (size_t i = 0; i < g->n; i++) {
        place *p = &g->places[i];
        if (p->staged) {
            p->device = at;
            at += padded(model, p->bytes);
        }
        pointers[i] = p->device;
    }
    graphc_work work = {.kernels = model->kernels,
                        .stream = stream,
                        .inputs = pointers,
                        .outputs = pointers + g->n_in,
                        .weights = model->weights_device,
                        .arena = at,
                        .fault = f->fault,
                        .dims = g->dims,
                        .marks = marks};
    int status = graphc_begin(f, stream);
    if (!status && model->debug && f->bytes)
        status = graphc_cuda_check(graphc_cuda.MemsetD8Async(f->memory, GUARD, f->bytes, stream), "preparing a call");
    if (!status) status = stage(g, stream, 1);
    if (!status) status = graphc_queue(model, f, &work);
    if (!status && model->debug) status = graphc_cuda_check(graphc_cuda.StreamSynchronize(stream), "a kernel");
    if (!status && model->debug) status = check_guards(g, f, at);
    if (!status) status = stage(g, stream, 0);
    const int finished = graphc_finish(f, stream);
    return status ? status : finished;
}

static int make_marks(CUevent *marks, size_t n) {
    for (size_t i = 0; i < n; i++) {
        int status = graphc_cuda_check(graphc_cuda.EventCreate(&marks[i], CU_EVENT_DEFAULT), "making an event");
        if (status) return status;
    }
    return GRAPHC_OK;
}

static int read_marks(const CUevent *marks, size_t n, double *seconds) {
    for (size_t i = 0; i + 1 < n; i++) {
        float milliseconds = 0;
        int status = graphc_cuda_check(graphc_cuda.EventElapsedTime(&milliseconds, marks[i], marks[i + 1]),
                                       "measuring a kernel");
        if (status) return status;
        seconds[i] = milliseconds * 1e-3;
    }
    return GRAPHC_OK;
}

/* One call, with the context current. `stream` NULL: the frame's own, and the call waits for its results. */
static int call(graphc_model *model, const given *g, CUstream *stream, CUevent *marks) {
    graphc_frame *f = NULL;
    int status = graphc_take_frame(model, g->staged + padded(model, (size_t)g->arena), &f);
    if (status) return status;
    if (f->fault && f->busy && f->fault_copy[0]) status = graphc_wait_frame(f); /* of an earlier call */
    if (!status) status = queue(model, f, g, stream ? *stream : f->stream, marks);
    if (!status && !stream) status = graphc_wait_frame(f);
    graphc_keep_frame(model, f);
    return status;
}

static int enter(graphc_model *model) {
    return graphc_cuda_check(graphc_cuda.CtxPushCurrent(model->context), "entering the context");
}

static int leave(int status) {
    graphc_leave_context();
    return status;
}

static int run(graphc_model *model, const graphc_tensor *inputs, size_t n_inputs, graphc_tensor *outputs,
               size_t n_outputs, CUstream *stream, double *seconds) {
    const graphc_info *info = &graphc_module_tables.info;
    place places[info->n_inputs + info->n_outputs + 1];
    int64_t dims[info->n_dims + 1];
    given g = {.places = places, .dims = dims};
    if (!model) return graphc_fail(GRAPHC_ERROR_ARGUMENT, "the model is NULL");
    int status = enter(model);
    if (status) return status;
    status = gather(model, inputs, n_inputs, outputs, n_outputs, stream != NULL, &g);
    if (status || !seconds) return leave(status ? status : call(model, &g, stream, NULL));
    const size_t n = info->n_kernels + 1;
    CUevent *marks = calloc(n, sizeof *marks);
    if (!marks) return leave(graphc_fail(GRAPHC_ERROR_MEMORY, "no memory for the profile"));
    status = make_marks(marks, n);
    if (!status) status = call(model, &g, NULL, marks);
    if (!status) status = read_marks(marks, n, seconds);
    for (size_t i = 0; i < n; i++)
        if (marks[i]) graphc_cuda.EventDestroy(marks[i]);
    free(marks);
    return leave(status);
}

GRAPHC_API int graphc_run(graphc_model *model, const graphc_tensor *inputs, size_t n_inputs, graphc_tensor *outputs,
                          size_t n_outputs) {
    return run(model, inputs, n_inputs, outputs, n_outputs, NULL, NULL);
}

GRAPHC_API int graphc_run_on_stream(graphc_model *model, const graphc_tensor *inputs, size_t n_inputs,
                                    graphc_tensor *outputs, size_t n_outputs, void *stream) {
    CUstream chosen = stream;
    return run(model, inputs, n_inputs, outputs, n_outputs, &chosen, NULL);
}

GRAPHC_API int graphc_profile(graphc_model *model, const graphc_tensor *inputs, size_t n_inputs, graphc_tensor *outputs,
                              size_t n_outputs, double *seconds, size_t n_seconds) {
    if (!seconds || n_seconds < graphc_module_tables.info.n_kernels)
        return graphc_fail(GRAPHC_ERROR_ARGUMENT, "the profile needs room for %zu kernels",
                           graphc_module_tables.info.n_kernels);
    return run(model, inputs, n_inputs, outputs, n_outputs, NULL, seconds);
}

GRAPHC_API int graphc_synchronize(graphc_model *model) {
    if (!model) return graphc_fail(GRAPHC_ERROR_ARGUMENT, "the model is NULL");
    int status = enter(model);
    if (status) return status;
    pthread_mutex_lock(&model->lock);
    for (graphc_frame *f = model->frames; f; f = f->next) {
        int one = graphc_wait_frame(f);
        if (!status) status = one;
    }
    pthread_mutex_unlock(&model->lock);
    if (!status) status = graphc_cuda_check(graphc_cuda.StreamSynchronize(model->stream), "a kernel");
    return leave(status);
}

GRAPHC_API int graphc_initial_state(graphc_model *model, const graphc_tensor *inputs, size_t n_inputs) {
    const graphc_tables *t = &graphc_module_tables;
    const graphc_tensor *in[t->info.n_inputs + 1];
    size_t bytes[t->info.n_inputs + 1];
    int64_t dims[t->info.n_dims + 1];
    if (!model) return graphc_fail(GRAPHC_ERROR_ARGUMENT, "the model is NULL");
    int status = graphc_bind_inputs(inputs, n_inputs, in, bytes, dims);
    if (!status) status = enter(model);
    if (status) return status;
    for (size_t i = 0; i < t->info.n_inputs && !status; i++) {
        const place p = {t->info.inputs[i].name, in[i]->data, bytes[i], 0, 0, 0, 0};
        const char *first = t->initial[i] < 0 ? NULL : (const char *)model->weights.base + t->initial[i];
        int host = 1;
        if (!t->info.inputs[i].state || !bytes[i]) continue;
        if (!in[i]->data)
            status =
                graphc_fail(GRAPHC_ERROR_ARGUMENT, "state `%s` has no buffer: it needs %zu bytes", p.name, bytes[i]);
        else status = is_host(model, &p, &host);
        if (status) break;
        const CUdeviceptr at = (CUdeviceptr)(uintptr_t)in[i]->data;
        if (host && first) memcpy(in[i]->data, first, bytes[i]);
        else if (host) memset(in[i]->data, 0, bytes[i]);
        else if (first)
            status =
                graphc_cuda_check(graphc_cuda.MemcpyHtoDAsync(at, first, bytes[i], model->stream), "filling a state");
        else status = graphc_cuda_check(graphc_cuda.MemsetD8Async(at, 0, bytes[i], model->stream), "filling a state");
    }
    if (!status) status = graphc_cuda_check(graphc_cuda.StreamSynchronize(model->stream), "filling a state");
    return leave(status);
}

/* ---- memory and streams, for callers without a CUDA library of their own ---- */

GRAPHC_API int graphc_device_allocate(graphc_model *model, size_t bytes, void **pointer) {
    CUdeviceptr at = 0;
    *pointer = NULL;
    if (!bytes) return GRAPHC_OK;
    int status = enter(model);
    if (status) return status;
    status = graphc_cuda_check(graphc_cuda.MemAlloc(&at, bytes), "making room on the GPU");
    *pointer = (void *)(uintptr_t)at;
    return leave(status);
}

GRAPHC_API int graphc_device_free(graphc_model *model, void *pointer) {
    if (!pointer) return GRAPHC_OK;
    int status = enter(model);
    return status
               ? status
               : leave(graphc_cuda_check(graphc_cuda.MemFree((CUdeviceptr)(uintptr_t)pointer), "giving memory back"));
}

GRAPHC_API int graphc_copy(graphc_model *model, void *to, const void *from, size_t bytes, void *stream) {
    if (!bytes) return GRAPHC_OK;
    int status = enter(model);
    if (status) return status;
    status = graphc_cuda_check(
        graphc_cuda.MemcpyAsync((CUdeviceptr)(uintptr_t)to, (CUdeviceptr)(uintptr_t)from, bytes, stream), "copying");
    if (!status) status = graphc_cuda_check(graphc_cuda.StreamSynchronize(stream), "copying");
    return leave(status);
}

GRAPHC_API int graphc_stream_wait(graphc_model *model, void *waiting, void *stream) {
    int status = enter(model);
    if (status) return status;
    pthread_mutex_lock(&model->lock);
    status = graphc_cuda_check(graphc_cuda.EventRecord(model->event, stream), "waiting for a stream");
    if (!status)
        status = graphc_cuda_check(graphc_cuda.StreamWaitEvent(waiting, model->event, 0), "waiting for a stream");
    pthread_mutex_unlock(&model->lock);
    return leave(status);
}
