/* Opening and closing a model on a GPU: the driver, a device that can run the code, the kernels, and the weights, which
 * are uploaded once. cuda_run.c runs it.
 */
#define _GNU_SOURCE
#include "cuda_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int pick_device(graphc_model *m) {
    const graphc_info *info = &graphc_module_tables.info;
    int count = 0;
    int status = graphc_cuda_check(graphc_cuda.DeviceGetCount(&count), "counting the GPUs");
    if (status) return status;
    if (!count)
        return graphc_fail(GRAPHC_ERROR_TARGET,
                           "`%s` was compiled for an NVIDIA GPU (%s), and the driver of this machine finds none",
                           info->name, info->target);
    if (m->ordinal < 0 || m->ordinal >= count)
        return graphc_fail(GRAPHC_ERROR_ARGUMENT, "there is no GPU %d: this machine has %d", m->ordinal, count);
    return graphc_cuda_check(graphc_cuda.DeviceGet(&m->device, m->ordinal), "opening the GPU");
}

/* Machine code runs on its own architecture and later ones of the same major number; PTX on anything later. */
static const void *code_for(int major, int minor) {
    const graphc_program *p = &graphc_cuda_program;
    if (p->specific) return major == p->major && minor == p->minor ? p->cubin : NULL;
    if (major == p->major && minor >= p->minor) return p->cubin;
    return major > p->major ? p->ptx : NULL;
}

static int load_code(graphc_model *m) {
    const graphc_info *info = &graphc_module_tables.info;
    const graphc_program *p = &graphc_cuda_program;
    int major = 0, minor = 0;
    char name[256] = "", log[1024] = "";
    graphc_cuda.DeviceGetAttribute(&major, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, m->device);
    graphc_cuda.DeviceGetAttribute(&minor, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, m->device);
    graphc_cuda.DeviceGetName(name, sizeof name, m->device);
    const void *code = code_for(major, minor);
    if (!code)
        return graphc_fail(
            GRAPHC_ERROR_TARGET,
            "`%s` was compiled for %s, but GPU %d (%s) is sm_%d%d: compile it with --target cuda:sm_%d%d", info->name,
            p->arch, m->ordinal, name, major, minor, major, minor);
    int options[] = {CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES};
    void *values[] = {log, (void *)sizeof log};
    CUresult result = graphc_cuda.ModuleLoadDataEx(&m->module, code, 2, options, values);
    if (result == CUDA_ERROR_OUT_OF_MEMORY) return graphc_cuda_check(result, "loading the kernels");
    if (result)
        return graphc_fail(
            GRAPHC_ERROR_TARGET,
            "GPU %d (%s) cannot load the kernels of `%s`: %s%s%s. They were compiled with CUDA 13.0; the "
            "driver is for CUDA %d.%d",
            m->ordinal, name, info->name, graphc_cuda_reason(result), *log ? ": " : "", log, graphc_cuda.version / 1000,
            graphc_cuda.version % 1000 / 10);
    m->kernels = calloc(p->n_kernels + 1, sizeof *m->kernels);
    if (!m->kernels) return graphc_fail(GRAPHC_ERROR_MEMORY, "no memory for the model");
    for (size_t i = 0; i < p->n_kernels; i++) {
        const graphc_kernel_entry *k = &p->kernels[i];
        int status = graphc_cuda_check(graphc_cuda.ModuleGetFunction(&m->kernels[i], m->module, k->name), k->name);
        if (!status && k->shared_bytes > 48 << 10)
            status =
                graphc_cuda_check(graphc_cuda.FuncSetAttribute(
                                      m->kernels[i], CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, k->shared_bytes),
                                  "setting aside shared memory");
        if (status) return status;
    }
    return GRAPHC_OK;
}

static int upload_weights(graphc_model *m) {
    const size_t bytes = m->weights.bytes - (size_t)graphc_module_tables.weights_header;
    if (!bytes) return GRAPHC_OK;
    int status = graphc_cuda_check(graphc_cuda.MemAlloc(&m->weights_device, bytes), "making room for the weights");
    if (!status)
        status = graphc_cuda_check(graphc_cuda.MemcpyHtoDAsync(m->weights_device, m->weights.base, bytes, m->stream),
                                   "uploading the weights");
    if (!status) status = graphc_cuda_check(graphc_cuda.StreamSynchronize(m->stream), "uploading the weights");
    return status;
}

/* With the model's context current. */
static int fill(graphc_model *m) {
    int status = graphc_cuda_check(graphc_cuda.StreamCreate(&m->stream, CU_STREAM_NON_BLOCKING), "making a stream");
    if (!status)
        status = graphc_cuda_check(graphc_cuda.EventCreate(&m->event, CU_EVENT_DISABLE_TIMING), "making an event");
    if (!status) status = load_code(m);
    if (!status) status = upload_weights(m);
    return status;
}

GRAPHC_API int graphc_open(const char *weights_path, const graphc_options *options, graphc_model **model) {
    char path[4096];
    if (!model) return graphc_fail(GRAPHC_ERROR_ARGUMENT, "graphc_open needs a place for the model");
    *model = NULL;
    graphc_options given = {.threads = 0};
    if (options && options->size < sizeof given)
        return graphc_fail(GRAPHC_ERROR_ARGUMENT, "graphc_options.size must be sizeof(graphc_options)");
    if (options) given = *options;
    if (!weights_path && !graphc_beside_library(path, sizeof path))
        return graphc_fail(GRAPHC_ERROR_FILE, "the folder of the library is unknown: name the weights file");
    int status = graphc_load_driver();
    if (status) return status;

    graphc_model *m = calloc(1, sizeof *m);
    if (!m) return graphc_fail(GRAPHC_ERROR_MEMORY, "no memory for the model");
    const char *wish = getenv("GRAPHC_CUDA_GRAPHS");
    m->graphs = !(wish && !strcmp(wish, "0"));
    m->debug = given.debug;
    m->ordinal = given.device;
    pthread_mutex_init(&m->lock, NULL);
    status = graphc_map_weights(weights_path ? weights_path : path, given.verify, &m->weights);
    if (!status) status = pick_device(m);
    if (!status)
        status =
            graphc_cuda_check(graphc_cuda.PrimaryCtxRetain(&m->context, m->device), "opening a context on the GPU");
    if (!status && !(status = graphc_cuda_check(graphc_cuda.CtxPushCurrent(m->context), "entering the context"))) {
        status = fill(m);
        graphc_leave_context();
    }
    if (status) {
        graphc_close(m);
        return status;
    }
    *model = m;
    return GRAPHC_OK;
}

GRAPHC_API void graphc_close(graphc_model *m) {
    if (!m) return;
    if (m->context && !graphc_cuda.CtxPushCurrent(m->context)) {
        for (graphc_frame *f = m->frames, *next; f; f = next) {
            next = f->next;
            graphc_free_frame(f);
        }
        if (m->weights_device) graphc_cuda.MemFree(m->weights_device);
        if (m->module) graphc_cuda.ModuleUnload(m->module);
        if (m->event) graphc_cuda.EventDestroy(m->event);
        if (m->stream) graphc_cuda.StreamDestroy(m->stream);
        graphc_leave_context();
    }
    if (m->context) graphc_cuda.PrimaryCtxRelease(m->device);
    free(m->kernels);
    graphc_unmap_weights(&m->weights);
    pthread_mutex_destroy(&m->lock);
    free(m);
}

GRAPHC_API int graphc_threads(const graphc_model *model) {
    (void)model;
    return 1; /* on the host */
}

GRAPHC_API int graphc_device(const graphc_model *model) { return model->ordinal; }

GRAPHC_API void *graphc_stream(const graphc_model *model) { return model->stream; }
