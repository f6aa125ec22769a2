/* What modules for NVIDIA GPUs have beside the interface above. They need libc and, when a model is opened, the
 * driver's libcuda.so.1; nothing else of CUDA.
 *
 * graphc_run takes tensors in host memory, which it copies, and in memory of the model's device, which it uses in
 * place; it returns when the results are there. Device memory should be aligned to 16 bytes: what is not is copied.
 * What other streams still have to write into device memory it does not wait for. After a fork the child must open its
 * own model: CUDA does not survive forks.
 */
#ifndef GRAPHC_CUDA_API_H
#define GRAPHC_CUDA_API_H

#ifdef __cplusplus
extern "C" {
#endif

/* As graphc_run, on tensors that all lie in memory of the model's device, and without waiting: the work is put behind
 * what is in `stream` (a CUstream; NULL is the default stream). The second call with the same shapes and pointers, and
 * those that follow, launch one captured CUDA graph. An index out of range is reported by graphc_synchronize, or by a
 * later call. */
GRAPHC_API int graphc_run_on_stream(graphc_model *model, const graphc_tensor *inputs, size_t n_inputs,
                                    graphc_tensor *outputs, size_t n_outputs, void *stream);

/* Waits for all calls of the model, and reports what went wrong in them. */
GRAPHC_API int graphc_synchronize(graphc_model *model);

/* The model's device (its ordinal), and a CUstream of its own. */
GRAPHC_API int graphc_device(const graphc_model *model);
GRAPHC_API void *graphc_stream(const graphc_model *model);

/* Memory of the model's device; *pointer is NULL for 0 bytes. */
GRAPHC_API int graphc_device_allocate(graphc_model *model, size_t bytes, void **pointer);
GRAPHC_API int graphc_device_free(graphc_model *model, void *pointer);

/* Copies between host and device memory, either way, behind what is in `stream`, and waits for it. */
GRAPHC_API int graphc_copy(graphc_model *model, void *to, const void *from, size_t bytes, void *stream);

/* Makes what is put into `waiting` from now on wait for what is in `stream` now. */
GRAPHC_API int graphc_stream_wait(graphc_model *model, void *waiting, void *stream);

#ifdef __cplusplus
}
#endif
#endif /* GRAPHC_CUDA_API_H */
