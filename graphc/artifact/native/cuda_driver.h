/* The part of the CUDA driver's interface (cuda.h of CUDA 12 and later) that modules use, found at run time: a module
 * can be linked, and asked what it is, where there is no driver.
 */
#ifndef GRAPHC_CUDA_DRIVER_H
#define GRAPHC_CUDA_DRIVER_H

#include <stddef.h>
#include <stdint.h>

typedef int CUresult, CUdevice;
typedef uint64_t CUdeviceptr;
typedef struct CUctx_st *CUcontext;
typedef struct CUmod_st *CUmodule;
typedef struct CUfunc_st *CUfunction;
typedef struct CUstream_st *CUstream;
typedef struct CUevent_st *CUevent;
typedef struct CUgraph_st *CUgraph;
typedef struct CUgraphExec_st *CUgraphExec;
typedef struct CUtensorMap {
    _Alignas(64) uint64_t opaque[16];
} CUtensorMap;

enum {
    CUDA_SUCCESS = 0,
    CUDA_ERROR_OUT_OF_MEMORY = 2,
    CUDA_ERROR_NO_DEVICE = 100,
    CUDA_ERROR_INVALID_DEVICE = 101,
    CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR = 75,
    CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR = 76,
    CU_EVENT_DEFAULT = 0,
    CU_EVENT_DISABLE_TIMING = 2,
    CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES = 8,
    CU_JIT_ERROR_LOG_BUFFER = 5,
    CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES = 6,
    CU_MEMORYTYPE_DEVICE = 2,
    CU_POINTER_ATTRIBUTE_MEMORY_TYPE = 2,
    CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL = 9,
    CU_STREAM_NON_BLOCKING = 1,
    CU_STREAM_CAPTURE_MODE_THREAD_LOCAL = 1,
};

/* X(the name in the library, the name here, parameters): what every driver of CUDA 12 has. */
#define GRAPHC_DRIVER_FUNCTIONS(X)                                                                                     \
    X(cuInit, Init, (unsigned flags))                                                                                  \
    X(cuDriverGetVersion, DriverGetVersion, (int *version))                                                            \
    X(cuGetErrorName, GetErrorName, (CUresult, const char **))                                                         \
    X(cuGetErrorString, GetErrorString, (CUresult, const char **))                                                     \
    X(cuDeviceGetCount, DeviceGetCount, (int *))                                                                       \
    X(cuDeviceGet, DeviceGet, (CUdevice *, int ordinal))                                                               \
    X(cuDeviceGetName, DeviceGetName, (char *, int size, CUdevice))                                                    \
    X(cuDeviceGetAttribute, DeviceGetAttribute, (int *, int attribute, CUdevice))                                      \
    X(cuDevicePrimaryCtxRetain, PrimaryCtxRetain, (CUcontext *, CUdevice))                                             \
    X(cuDevicePrimaryCtxRelease_v2, PrimaryCtxRelease, (CUdevice))                                                     \
    X(cuCtxPushCurrent_v2, CtxPushCurrent, (CUcontext))                                                                \
    X(cuCtxPopCurrent_v2, CtxPopCurrent, (CUcontext *))                                                                \
    X(cuModuleLoadDataEx, ModuleLoadDataEx, (CUmodule *, const void *, unsigned n, int *options, void **values))       \
    X(cuModuleUnload, ModuleUnload, (CUmodule))                                                                        \
    X(cuModuleGetFunction, ModuleGetFunction, (CUfunction *, CUmodule, const char *))                                  \
    X(cuFuncSetAttribute, FuncSetAttribute, (CUfunction, int attribute, int value))                                    \
    X(cuMemAlloc_v2, MemAlloc, (CUdeviceptr *, size_t))                                                                \
    X(cuMemFree_v2, MemFree, (CUdeviceptr))                                                                            \
    X(cuMemHostAlloc, MemHostAlloc, (void **, size_t, unsigned flags))                                                 \
    X(cuMemFreeHost, MemFreeHost, (void *))                                                                            \
    X(cuMemcpyAsync, MemcpyAsync, (CUdeviceptr to, CUdeviceptr from, size_t, CUstream))                                \
    X(cuMemcpyHtoDAsync_v2, MemcpyHtoDAsync, (CUdeviceptr, const void *, size_t, CUstream))                            \
    X(cuMemcpyDtoHAsync_v2, MemcpyDtoHAsync, (void *, CUdeviceptr, size_t, CUstream))                                  \
    X(cuMemsetD8Async, MemsetD8Async, (CUdeviceptr, unsigned char, size_t, CUstream))                                  \
    X(cuPointerGetAttribute, PointerGetAttribute, (void *, int attribute, CUdeviceptr))                                \
    X(cuStreamCreate, StreamCreate, (CUstream *, unsigned flags))                                                      \
    X(cuStreamDestroy_v2, StreamDestroy, (CUstream))                                                                   \
    X(cuStreamSynchronize, StreamSynchronize, (CUstream))                                                              \
    X(cuStreamWaitEvent, StreamWaitEvent, (CUstream, CUevent, unsigned flags))                                         \
    X(cuEventCreate, EventCreate, (CUevent *, unsigned flags))                                                         \
    X(cuEventDestroy_v2, EventDestroy, (CUevent))                                                                      \
    X(cuEventRecord, EventRecord, (CUevent, CUstream))                                                                 \
    X(cuEventSynchronize, EventSynchronize, (CUevent))                                                                 \
    X(cuEventElapsedTime, EventElapsedTime, (float *milliseconds, CUevent, CUevent))                                   \
    X(cuLaunchKernel, LaunchKernel,                                                                                    \
      (CUfunction, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared,      \
       CUstream, void **arguments, void **extra))                                                                      \
    X(cuStreamBeginCapture_v2, StreamBeginCapture, (CUstream, int mode))                                               \
    X(cuStreamEndCapture, StreamEndCapture, (CUstream, CUgraph *))                                                     \
    X(cuGraphDestroy, GraphDestroy, (CUgraph))                                                                         \
    X(cuGraphInstantiateWithFlags, GraphInstantiate, (CUgraphExec *, CUgraph, unsigned long long flags))               \
    X(cuGraphExecDestroy, GraphExecDestroy, (CUgraphExec))                                                             \
    X(cuGraphLaunch, GraphLaunch, (CUgraphExec, CUstream))                                                             \
    X(cuTensorMapEncodeTiled, TensorMapEncodeTiled,                                                                    \
      (CUtensorMap *, int type, uint32_t rank, void *base, const uint64_t *shape, const uint64_t *strides,             \
       const uint32_t *box, const uint32_t *steps, int interleave, int swizzle, int promotion, int fill))

typedef struct graphc_driver {
#define X(symbol, name, parameters) CUresult(*name) parameters;
    GRAPHC_DRIVER_FUNCTIONS(X)
#undef X
    int version; /* 13000: CUDA 13.0 */
} graphc_driver;

extern graphc_driver graphc_cuda;

/* Finds and starts the driver, once. */
int graphc_load_driver(void);

/* 0, or the error of a call that did not return CUDA_SUCCESS: `doing` says what it was for. */
int graphc_cuda_check(CUresult result, const char *doing);
const char *graphc_cuda_reason(CUresult result);

/* Makes the context current again that was before the model's. */
void graphc_leave_context(void);

#endif
