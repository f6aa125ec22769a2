/* Two modules in one process: each library's functions act on its own model. */
#include "module.h"

#include <dlfcn.h>
#include <stdio.h>

int main(int argc, char **argv) {
    for (int i = 1; i < argc; i++) {
        void *library = dlopen(argv[i], RTLD_NOW | RTLD_LOCAL);
        if (!library) return 1;
        const graphc_info *(*info)(void);
        int (*open_model)(const char *, const graphc_options *, graphc_model **);
        void (*close_model)(graphc_model *);
        *(void **)&info = dlsym(library, "graphc_module_info");
        *(void **)&open_model = dlsym(library, "graphc_open");
        *(void **)&close_model = dlsym(library, "graphc_close");
        graphc_model *model;
        int opened = !open_model(NULL, NULL, &model);
        printf("%s%s %d", i > 1 ? " " : "", info()->name, opened);
        close_model(model);
        if (dlclose(library)) return 2;
    }
    printf("\n");
    return 0;
}
