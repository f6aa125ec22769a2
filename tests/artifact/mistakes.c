/* Calls a Linear module wrongly in every way that C allows short of foreign memory, and prints what it says. */
#include "module.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

static void *library;

static void *find(const char *name) { return dlsym(library, name); }

int main(int argc, char **argv) {
    library = argc > 1 ? dlopen(argv[1], RTLD_NOW | RTLD_LOCAL) : NULL;
    if (!library) return 1;
    int (*open_model)(const char *, const graphc_options *, graphc_model **);
    int (*run)(graphc_model *, const graphc_tensor *, size_t, graphc_tensor *, size_t);
    int (*shapes)(graphc_model *, const graphc_tensor *, size_t, graphc_tensor *, size_t);
    int (*dim_sizes)(graphc_model *, const graphc_tensor *, size_t, int64_t *, size_t);
    int (*profile)(graphc_model *, const graphc_tensor *, size_t, graphc_tensor *, size_t, double *, size_t);
    const char *(*error)(void);
    void (*close_model)(graphc_model *);
    const graphc_info *(*info)(void);
    *(void **)&open_model = find("graphc_open");
    *(void **)&run = find("graphc_run");
    *(void **)&shapes = find("graphc_output_shapes");
    *(void **)&dim_sizes = find("graphc_dim_sizes");
    *(void **)&profile = find("graphc_profile");
    *(void **)&error = find("graphc_error");
    *(void **)&close_model = find("graphc_close");
    *(void **)&info = find("graphc_module_info");

#define SAY(call) printf("%d %s\n", (call), error())
    const graphc_info *about = info();
    printf("%s abi %u: %s[%s, %s] fixed %d, dims %s, kernel %s at %s\n", about->name, about->abi_version,
           about->inputs[0].name, about->inputs[0].axes[0], about->inputs[0].axes[1], (int)about->inputs[0].fixed[1],
           about->dims[0].name, about->kernels[1].label, about->kernels[1].source);
    printf("'%s'\n", error());

    graphc_model *model = NULL;
    graphc_options options = {.size = sizeof options, .threads = 2, .verify = 1};
    SAY(open_model(NULL, NULL, NULL));
    SAY(open_model("/nowhere/weights", NULL, &model));
    SAY(open_model("/dev/null", NULL, &model));
    options.size = 4;
    SAY(open_model(NULL, &options, &model));
    options.size = sizeof options;
    options.threads = 5000;
    SAY(open_model(NULL, &options, &model));
    options.threads = 2;
    if (open_model(NULL, &options, &model)) return 2;

    float x[8] = {1, 2, 3, 4, 5, 6, 7, 8}, y[6];
    graphc_tensor in[2], out[2];
    memset(in, 0, sizeof in);
    memset(out, 0, sizeof out);
    in[0].data = x;
    in[0].dtype = GRAPHC_F32;
    in[0].rank = 2;
    in[0].shape[0] = 2;
    in[0].shape[1] = 4;
    in[1] = in[0];
    out[0].data = y;
    out[0].bytes = sizeof y;
    out[1] = out[0];
    SAY(run(NULL, in, 1, out, 1));
    SAY(run(model, NULL, 1, out, 1));
    SAY(run(model, in, 1, NULL, 1));
    SAY(run(model, in, 0, out, 1));
    SAY(run(model, in, 2, out, 1));
    SAY(run(model, in, 1, out, 0));
    SAY(run(model, in, 1, out, 2));
    in[0].name = in[1].name = "x";
    SAY(run(model, in, 2, out, 1));
    in[0].name = "image";
    SAY(run(model, in, 1, out, 1));
    in[0].name = NULL;
    out[0].name = "logits";
    SAY(run(model, in, 1, out, 1));
    out[0].name = NULL;
    in[0].dtype = 77;
    SAY(run(model, in, 1, out, 1));
    in[0].dtype = GRAPHC_I8;
    SAY(run(model, in, 1, out, 1));
    in[0].dtype = GRAPHC_F32;
    in[0].rank = 1000;
    SAY(run(model, in, 1, out, 1));
    in[0].rank = -1;
    SAY(run(model, in, 1, out, 1));
    in[0].rank = 2;
    in[0].shape[0] = -2;
    SAY(run(model, in, 1, out, 1));
    in[0].shape[0] = INT64_MAX;
    SAY(run(model, in, 1, out, 1));
    in[0].shape[0] = 2;
    in[0].bytes = 31;
    SAY(run(model, in, 1, out, 1));
    in[0].bytes = 0;
    in[0].data = NULL;
    SAY(run(model, in, 1, out, 1));
    in[0].data = x;
    out[0].bytes = 23;
    SAY(run(model, in, 1, out, 1));
    out[0].bytes = sizeof y;
    out[0].data = NULL;
    SAY(run(model, in, 1, out, 1));
    out[0].data = x + 3;
    SAY(run(model, in, 1, out, 1));
    out[0].data = y;
    int64_t sizes[1];
    double seconds[2];
    SAY(dim_sizes(model, in, 1, sizes, 0));
    out[0].bytes = sizeof y;
    SAY(profile(model, in, 1, out, 1, seconds, 1));
    SAY(profile(model, in, 1, out, 1, NULL, 2));

    /* And rightly, which leaves the last message as it is. */
    out[0].name = "y";
    int status = shapes(model, in, 1, out, 1);
    printf("%d %s rank %d shape %d %d bytes %d", status, out[0].name, (int)out[0].rank, (int)out[0].shape[0],
           (int)out[0].shape[1], (int)out[0].bytes);
    status = dim_sizes(model, in, 1, sizes, 1);
    printf(" %d N=%d", status, (int)sizes[0]);
    status = run(model, in, 1, out, 1);
    printf(" %d %g %g\n", status, (double)y[0], (double)y[5]);
    close_model(model);
    close_model(NULL);
    return 0;
}
