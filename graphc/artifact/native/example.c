/* Runs @MODEL@ and prints its outputs. In this folder:
 *
 *     @COMMAND@
 *     ./example @USAGE@
 *
 * All arguments are optional. DIM=NUMBER sets a named dim, INPUT=FILE reads the raw bytes of an input (row major, the
 * machine's byte order) and OUTPUT=FILE writes those of an output. Inputs without a file hold a fixed pattern; state
 * starts as the module says, or goes on from its file, and is written there again. steps=NUMBER runs it more than once.
 */
#include "module.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const NAMES[] = {"f64", "f32", "f16", "bf16", "i64", "i32", "i16", "i8", "u8", "bool"};
static const size_t BYTES[] = {8, 4, 2, 2, 8, 4, 2, 1, 1, 1};

static void fail(const char *what, const char *why) {
    fprintf(stderr, "%s: %s\n", what, why);
    exit(1);
}

/* The text after "name=" among the arguments, or NULL. */
static const char *argument(int argc, char **argv, const char *name) {
    size_t n = strlen(name);
    for (int i = 1; i < argc; i++)
        if (!strncmp(argv[i], name, n) && argv[i][n] == '=') return argv[i] + n + 1;
    return NULL;
}

static int64_t number(int argc, char **argv, const char *name, int64_t otherwise) {
    const char *text = argument(argc, argv, name);
    return text ? strtoll(text, NULL, 10) : otherwise;
}

static size_t count(const graphc_tensor *t) {
    size_t n = 1;
    for (int i = 0; i < t->rank; i++) n *= (size_t)t->shape[i];
    return n;
}

static void *allocate(size_t bytes) {
    void *memory = calloc(bytes ? bytes : 1, 1);
    if (!memory) fail("example", "out of memory");
    return memory;
}

/* Floating point: -0.75 to 0.75 in steps of 1/8, exact in every format; integers and booleans: 0 and 1 in turn. */
static void fill(graphc_tensor *t) {
    static const uint16_t f16[] = {0xba00, 0xb900, 0xb800, 0xb600, 0xb400, 0xb000, 0,
                                   0x3000, 0x3400, 0x3600, 0x3800, 0x3900, 0x3a00};
    static const uint16_t bf16[] = {0xbf40, 0xbf20, 0xbf00, 0xbec0, 0xbe80, 0xbe00, 0,
                                    0x3e00, 0x3e80, 0x3ec0, 0x3f00, 0x3f20, 0x3f40};
    size_t n = count(t);
    for (size_t i = 0; i < n; i++) {
        int step = (int)(i * 7 % 13), bit = (int)(i % 2);
        switch (t->dtype) {
        case GRAPHC_F64: ((double *)t->data)[i] = (step - 6) * 0.125; break;
        case GRAPHC_F32: ((float *)t->data)[i] = (float)(step - 6) * 0.125f; break;
        case GRAPHC_F16: ((uint16_t *)t->data)[i] = f16[step]; break;
        case GRAPHC_BF16: ((uint16_t *)t->data)[i] = bf16[step]; break;
        case GRAPHC_I64: ((int64_t *)t->data)[i] = bit; break;
        case GRAPHC_I32: ((int32_t *)t->data)[i] = bit; break;
        case GRAPHC_I16: ((int16_t *)t->data)[i] = (int16_t)bit; break;
        default: ((uint8_t *)t->data)[i] = (uint8_t)bit; break;
        }
    }
}

static void load(graphc_tensor *t, const char *path) {
    size_t bytes = count(t) * BYTES[t->dtype];
    FILE *file = fopen(path, "rb");
    if (!file) fail(path, "cannot be opened");
    if (fread(t->data, 1, bytes, file) != bytes || fgetc(file) != EOF) fail(path, "has the wrong size for this input");
    fclose(file);
}

/* Whether input i is state: overwritten by every run. */
static int state(int i) { return graphc_module_info()->inputs[i].state; }

static int missing(const char *path) {
    FILE *file = fopen(path, "rb");
    if (file) fclose(file);
    return !file;
}

static void save(const graphc_tensor *t, const char *path) {
    FILE *file = fopen(path, "wb");
    if (!file || fwrite(t->data, 1, t->bytes, file) != t->bytes || fclose(file)) fail(path, "cannot be written");
}

/* Name, type, a checksum of the bytes (FNV-1a) and the first values; f16 and bf16 in hexadecimal. */
static void print(const graphc_tensor *t) {
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < t->bytes; i++) hash = (hash ^ ((const uint8_t *)t->data)[i]) * UINT64_C(0x100000001b3);
    printf("%s %s[", t->name, NAMES[t->dtype]);
    for (int i = 0; i < t->rank; i++) printf("%s%" PRId64, i ? ", " : "", t->shape[i]);
    printf("] fnv1a %016" PRIx64 "\n ", hash);
    size_t n = count(t);
    for (size_t i = 0; i < n && i < 10; i++) {
        switch (t->dtype) {
        case GRAPHC_F64: printf(" %.17g", ((const double *)t->data)[i]); break;
        case GRAPHC_F32: printf(" %.9g", (double)((const float *)t->data)[i]); break;
        case GRAPHC_F16:
        case GRAPHC_BF16: printf(" 0x%04x", ((const uint16_t *)t->data)[i]); break;
        case GRAPHC_I64: printf(" %" PRId64, ((const int64_t *)t->data)[i]); break;
        case GRAPHC_I32: printf(" %" PRId32, ((const int32_t *)t->data)[i]); break;
        case GRAPHC_I16: printf(" %d", ((const int16_t *)t->data)[i]); break;
        case GRAPHC_I8: printf(" %d", ((const int8_t *)t->data)[i]); break;
        default: printf(" %d", ((const uint8_t *)t->data)[i]); break;
        }
    }
    printf("%s\n", n > 10 ? " ..." : "");
}

int main(int argc, char **argv) {
    enum { N_INPUTS = @N_INPUTS@, N_OUTPUTS = @N_OUTPUTS@ };
    /* @DIMS@ */
    graphc_tensor inputs[N_INPUTS + 1] = {
        /* @INPUTS@ */
    };
    graphc_tensor outputs[N_OUTPUTS + 1];
    memset(outputs, 0, sizeof outputs);

    graphc_model *model;
    if (graphc_open(NULL, NULL, &model)) fail("cannot open the module", graphc_error());
    if (graphc_output_shapes(model, inputs, N_INPUTS, outputs, N_OUTPUTS)) fail("wrong inputs", graphc_error());
    for (int i = 0; i < N_INPUTS; i++) {
        inputs[i].bytes = count(&inputs[i]) * BYTES[inputs[i].dtype];
        inputs[i].data = allocate(inputs[i].bytes);
        fill(&inputs[i]);
    }
    if (graphc_initial_state(model, inputs, N_INPUTS)) fail("no state to begin with", graphc_error());
    for (int i = 0; i < N_INPUTS; i++) {
        const char *path = argument(argc, argv, inputs[i].name);
        if (path && !(state(i) && missing(path))) load(&inputs[i], path);
    }
    for (int i = 0; i < N_OUTPUTS; i++) outputs[i].data = allocate(outputs[i].bytes);

    for (int64_t left = number(argc, argv, "steps", 1); left > 0; left--)
        if (graphc_run(model, inputs, N_INPUTS, outputs, N_OUTPUTS)) fail("the run failed", graphc_error());

    for (int i = 0; i < N_OUTPUTS; i++) {
        const char *path = argument(argc, argv, outputs[i].name);
        print(&outputs[i]);
        if (path) save(&outputs[i], path);
        free(outputs[i].data);
    }
    for (int i = 0; i < N_INPUTS; i++) {
        const char *path = argument(argc, argv, inputs[i].name);
        if (path && state(i)) save(&inputs[i], path);
        free(inputs[i].data);
    }
    graphc_close(model);
    return 0;
}
