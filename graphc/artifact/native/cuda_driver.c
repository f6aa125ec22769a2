/* Finding the NVIDIA driver, and its errors in words. */
#define _GNU_SOURCE
#include "cuda_driver.h"
#include "internal.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>

graphc_driver graphc_cuda;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int loaded;

static int load(void) {
    const graphc_info *info = &graphc_module_tables.info;
    void *library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!library)
        return graphc_fail(GRAPHC_ERROR_TARGET,
                           "`%s` was compiled for an NVIDIA GPU (%s), and this machine has no NVIDIA driver: %s",
                           info->name, info->target, dlerror());
    const char *missing = NULL;
#define X(symbol, name, parameters)                                                                                    \
    if (!(*(void **)&graphc_cuda.name = dlsym(library, #symbol))) missing = #symbol;
    GRAPHC_DRIVER_FUNCTIONS(X)
#undef X
    if (missing) {
        if (graphc_cuda.DriverGetVersion) graphc_cuda.DriverGetVersion(&graphc_cuda.version);
        return graphc_fail(GRAPHC_ERROR_TARGET,
                           "the NVIDIA driver of this machine is too old for `%s`: it has no %s (it is for CUDA %d.%d; "
                           "CUDA 13.0, driver 580 or later, is needed)",
                           info->name, missing, graphc_cuda.version / 1000, graphc_cuda.version % 1000 / 10);
    }
    CUresult result = graphc_cuda.Init(0);
    if (result == CUDA_ERROR_NO_DEVICE)
        return graphc_fail(GRAPHC_ERROR_TARGET,
                           "`%s` was compiled for an NVIDIA GPU (%s), and the driver of this machine finds none",
                           info->name, info->target);
    if (result)
        return graphc_fail(GRAPHC_ERROR_TARGET, "the NVIDIA driver cannot start: %s", graphc_cuda_reason(result));
    graphc_cuda.DriverGetVersion(&graphc_cuda.version);
    loaded = 1;
    return GRAPHC_OK;
}

int graphc_load_driver(void) {
    pthread_mutex_lock(&lock);
    int status = loaded ? GRAPHC_OK : load();
    pthread_mutex_unlock(&lock);
    return status;
}

/* Valid until the thread's next failure: the driver's own texts are constant. */
const char *graphc_cuda_reason(CUresult result) {
    const char *text = NULL;
    if (graphc_cuda.GetErrorString && !graphc_cuda.GetErrorString(result, &text) && text) return text;
    return "unknown error";
}

int graphc_cuda_check(CUresult result, const char *doing) {
    if (result == CUDA_SUCCESS) return GRAPHC_OK;
    const char *name = NULL;
    if (graphc_cuda.GetErrorName(result, &name) || !name) name = "CUDA error";
    return graphc_fail(result == CUDA_ERROR_OUT_OF_MEMORY ? GRAPHC_ERROR_MEMORY : GRAPHC_ERROR_INTERNAL,
                       "%s failed: %s (%s, %d)", doing, graphc_cuda_reason(result), name, result);
}

void graphc_leave_context(void) {
    CUcontext mine;
    graphc_cuda.CtxPopCurrent(&mine);
}
