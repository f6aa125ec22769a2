/* What a call is given, whatever it runs on: outputs in the module's order, buffers that may not overlap, and the words
 * for an index out of range. binding.c checks the inputs.
 */
#define _GNU_SOURCE
#include "internal.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

GRAPHC_API const graphc_info *graphc_module_info(void) { return &graphc_module_tables.info; }

/* "weights.safetensors" in the folder of this library. */
int graphc_beside_library(char *path, size_t size) {
    static const char name[] = "weights.safetensors";
    Dl_info library;
    if (!dladdr((const void *)graphc_beside_library, &library) || !library.dli_fname) return 0;
    const char *slash = strrchr(library.dli_fname, '/');
    size_t folder = slash ? (size_t)(slash - library.dli_fname) + 1 : 0;
    if (folder + sizeof name > size) return 0;
    memcpy(path, library.dli_fname, folder);
    memcpy(path + folder, name, sizeof name);
    return 1;
}

size_t graphc_element_bytes(int32_t dtype) {
    static const uint8_t bytes[] = {8, 4, 2, 2, 8, 4, 2, 1, 1, 1};
    return bytes[dtype];
}

static int overlap(const void *a, size_t a_bytes, const void *b, size_t b_bytes) {
    return (const char *)a < (const char *)b + b_bytes && (const char *)b < (const char *)a + a_bytes;
}

/* Puts the caller's output tensors in the module's order, fills in what they will be, and checks their buffers. */
int graphc_match_outputs(graphc_tensor *outputs, size_t n, graphc_tensor **found, const int64_t *dims, int buffers) {
    const graphc_info *info = &graphc_module_tables.info;
    for (size_t i = 0; i < info->n_outputs; i++) found[i] = NULL;
    for (size_t i = 0; i < n; i++) {
        int at = graphc_find_port(info->outputs, info->n_outputs, outputs[i].name, i);
        if (at < 0 && outputs[i].name)
            return graphc_fail(GRAPHC_ERROR_ARGUMENT, "`%s` has no output `%s`", info->name, outputs[i].name);
        if (at < 0)
            return graphc_fail(GRAPHC_ERROR_ARGUMENT, "`%s` has %zu outputs, %zu were given", info->name,
                               info->n_outputs, n);
        if (found[at])
            return graphc_fail(GRAPHC_ERROR_ARGUMENT, "output `%s` was given twice", info->outputs[at].name);
        found[at] = &outputs[i];
    }
    for (size_t i = 0; i < info->n_outputs; i++) {
        const char *name = info->outputs[i].name;
        if (!found[i]) return graphc_fail(GRAPHC_ERROR_ARGUMENT, "output `%s` is missing", name);
        size_t room = found[i]->bytes;
        int status = graphc_describe_output(i, dims, found[i]);
        if (status) return status;
        if (!buffers) continue;
        if (!found[i]->data && found[i]->bytes)
            return graphc_fail(GRAPHC_ERROR_ARGUMENT, "output `%s` has no buffer: it needs %zu bytes", name,
                               found[i]->bytes);
        if (room < found[i]->bytes)
            return graphc_fail(GRAPHC_ERROR_ARGUMENT, "output `%s` needs %zu bytes, but its buffer has %zu", name,
                               found[i]->bytes, room);
    }
    return GRAPHC_OK;
}

int graphc_check_buffers(const graphc_tensor **in, const size_t *in_bytes, graphc_tensor **out) {
    const graphc_info *info = &graphc_module_tables.info;
    for (size_t i = 0; i < info->n_inputs; i++) {
        if (!in[i]->data && in_bytes[i])
            return graphc_fail(GRAPHC_ERROR_ARGUMENT, "input `%s` has no data: it needs %zu bytes",
                               info->inputs[i].name, in_bytes[i]);
        for (size_t j = 0; j < info->n_inputs && info->inputs[i].state; j++)
            if (i != j && overlap(in[i]->data, in_bytes[i], in[j]->data, in_bytes[j]))
                return graphc_fail(GRAPHC_ERROR_ARGUMENT, "the buffer of state `%s` overlaps input `%s`",
                                   info->inputs[i].name, info->inputs[j].name);
    }
    for (size_t i = 0; i < info->n_outputs; i++) {
        for (size_t j = 0; j < info->n_inputs; j++)
            if (overlap(out[i]->data, out[i]->bytes, in[j]->data, in_bytes[j]))
                return graphc_fail(GRAPHC_ERROR_ARGUMENT, "the buffer of output `%s` overlaps input `%s`",
                                   info->outputs[i].name, info->inputs[j].name);
        for (size_t j = 0; j < i; j++)
            if (overlap(out[i]->data, out[i]->bytes, out[j]->data, out[j]->bytes))
                return graphc_fail(GRAPHC_ERROR_ARGUMENT, "the buffer of output `%s` overlaps output `%s`",
                                   info->outputs[i].name, info->outputs[j].name);
    }
    return GRAPHC_OK;
}

/* Kernels record the first kind of fault they meet: {id + 1, offending value, position, limit}. */
int graphc_report_fault(const int64_t fault[4]) {
    const graphc_tables *t = &graphc_module_tables;
    if (fault[0] < 1 || (uint64_t)fault[0] > t->n_faults)
        return graphc_fail(GRAPHC_ERROR_INTERNAL, "`%s` reported fault %lld, which it does not know", t->info.name,
                           (long long)fault[0]);
    static const char *const fields[] = {"{value}", "{position}", "{limit}"};
    char message[2048];
    size_t used = 0;
    for (const char *p = t->faults[fault[0] - 1]; *p && used < sizeof message - 24;) {
        int field = 0;
        while (field < 3 && strncmp(p, fields[field], strlen(fields[field]))) field++;
        if (field == 3) {
            message[used++] = *p++;
            continue;
        }
        used += (size_t)snprintf(message + used, sizeof message - used, "%lld", (long long)fault[1 + field]);
        p += strlen(fields[field]);
    }
    message[used] = 0;
    return graphc_fail(GRAPHC_ERROR_INDEX, "%s", message);
}

GRAPHC_API int graphc_output_shapes(graphc_model *model, const graphc_tensor *inputs, size_t n_inputs,
                                    graphc_tensor *outputs, size_t n_outputs) {
    const graphc_info *info = &graphc_module_tables.info;
    const graphc_tensor *in[info->n_inputs + 1];
    graphc_tensor *out[info->n_outputs + 1];
    size_t bytes[info->n_inputs + 1];
    int64_t dims[info->n_dims + 1];
    (void)model;
    int status = graphc_bind_inputs(inputs, n_inputs, in, bytes, dims);
    return status ? status : graphc_match_outputs(outputs, n_outputs, out, dims, 0);
}

GRAPHC_API int graphc_dim_sizes(graphc_model *model, const graphc_tensor *inputs, size_t n_inputs, int64_t *sizes,
                                size_t n_sizes) {
    const graphc_info *info = &graphc_module_tables.info;
    const graphc_tensor *in[info->n_inputs + 1];
    size_t bytes[info->n_inputs + 1];
    (void)model;
    if (n_sizes < info->n_dims)
        return graphc_fail(GRAPHC_ERROR_ARGUMENT, "there are %zu named dims, but room for %zu", info->n_dims, n_sizes);
    return graphc_bind_inputs(inputs, n_inputs, in, bytes, sizes);
}
