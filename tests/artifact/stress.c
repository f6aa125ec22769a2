/* Several threads use shared and own models at once. Compiled with the runtime's sources and a sanitizer. */
#include "api.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { THREADS = 4, ROUNDS = 60, ROWS = 33 };
static graphc_model *shared;

static void check(int good, const char *what) {
    if (good) return;
    printf("wrong: %s (%s)\n", what, graphc_error());
    exit(1);
}

static void *work(void *argument) {
    int self = *(int *)argument;
    char *raw = malloc(ROWS * 4 * sizeof(float) + 1);
    float y[ROWS * 3];
    for (int round = 0; round < ROUNDS; round++) {
        graphc_model *own = NULL, *model = shared;
        if (round % 8 == self) {
            graphc_options options = {sizeof options, 1 + round % 3, round % 2, round % 3 == 0};
            check(!graphc_open(WEIGHTS, &options, &own), "open");
            model = own;
        }
        int rows = 1 + (round * 7 + self) % ROWS, crooked = round % 2;
        float *x = (float *)(void *)(raw + crooked);
        for (int i = 0; i < rows * 4; i++) {
            float value = (float)(i % 5) + (float)self;
            memcpy(raw + crooked + (size_t)i * sizeof value, &value, sizeof value);
        }
        graphc_tensor in = {.data = x, .dtype = GRAPHC_F32, .rank = 2, .shape = {rows, 4}};
        graphc_tensor out = {.data = y, .bytes = sizeof y};
        double seconds[2];
        if (round % 5) check(!graphc_run(model, &in, 1, &out, 1), "run");
        else check(!graphc_profile(model, &in, 1, &out, 1, seconds, 2), "profile");
        check(out.shape[0] == rows && out.shape[1] == 3, "shape");
        /* First output of the first row: weights -5/8 to -2/8, bias 1/2; inputs self + 0, 1, 2, 3. */
        float sum = 0.5f;
        for (int k = 0; k < 4; k++) sum += (float)(k + self) * ((float)k - 5) / 8;
        check(y[0] == (sum > 0 ? sum : 0), "value");
        in.shape[1] = 5;
        out.bytes = sizeof y;
        check(graphc_run(model, &in, 1, &out, 1) == GRAPHC_ERROR_SHAPE, "error");
        check(strstr(graphc_error(), "axis 1 must be 4") != NULL, "message");
        graphc_close(own);
    }
    free(raw);
    return NULL;
}

int main(void) {
    graphc_options options = {sizeof options, 3, 1, 0};
    check(!graphc_open(WEIGHTS, &options, &shared), "open");
    pthread_t threads[THREADS];
    int numbers[THREADS];
    for (int i = 0; i < THREADS; i++) {
        numbers[i] = i;
        pthread_create(&threads[i], NULL, work, &numbers[i]);
    }
    for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
    graphc_close(shared);
    puts("done");
    return 0;
}
