/* Measures what this machine can do: ./peaks THREADS prints GFLOP/s (f32 multiply-adds from registers) and GB/s (memory
 * read by all threads at once). The best of a few short rounds, so that a busy machine disturbs little. Not part of a
 * module: `graphc profile` compares kernels with it.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#if defined __AVX512F__
enum { LANES = 16 };
#elif defined __AVX__
enum { LANES = 8 };
#else
enum { LANES = 4 };
#endif
enum { CHAINS = 12, ROUNDS = 5, STEPS = 4000000, BYTES = 96 << 20 };
typedef float vec __attribute__((vector_size(LANES * sizeof(float))));

static int threads;
static double *began, *ended; /* of each thread, in the round that runs */
static pthread_barrier_t gate;
static const float *volatile data; /* volatile: read anew in every round, so that no round is left out */
static volatile float scale = 0.999f, shift = 1e-3f, sink;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* Twelve independent chains of multiply-adds: enough to hide the latency of one. */
static vec multiply(void) {
    vec a[CHAINS], x, y;
    const float s = scale, t = shift;
    for (int l = 0; l < LANES; l++) x[l] = s, y[l] = t;
    for (int i = 0; i < CHAINS; i++) a[i] = x * (float)i;
    for (long step = 0; step < STEPS / 4; step++)
#pragma GCC unroll 12
        for (int i = 0; i < CHAINS; i++) a[i] = a[i] * x + y;
    vec sum = a[0];
    for (int i = 1; i < CHAINS; i++) sum += a[i];
    return sum;
}

static vec add_up(const vec *from, size_t n) {
    vec a[8];
    memset(a, 0, sizeof a);
    for (size_t i = 0; i + 8 <= n; i += 8)
#pragma GCC unroll 8
        for (int j = 0; j < 8; j++) a[j] += from[i + (size_t)j];
    vec sum = a[0];
    for (int j = 1; j < 8; j++) sum += a[j];
    return sum;
}

static void *work(void *which) {
    size_t share = BYTES / sizeof(vec) / (size_t)threads, mine = (size_t)which;
    for (int round = 0; round < 2 * ROUNDS; round++) {
        pthread_barrier_wait(&gate);
        began[mine] = now();
        vec found = round % 2 ? add_up((const vec *)data + mine * share, share) : multiply();
        for (int l = 0; l < LANES; l++) sink = found[l];
        ended[mine] = now();
        pthread_barrier_wait(&gate);
    }
    return NULL;
}

int main(int argc, char **argv) {
    threads = argc > 1 ? atoi(argv[1]) : 1;
    if (threads < 1 || threads > 1024) return 2;
    void *memory = aligned_alloc(64, BYTES);
    pthread_t *team = calloc((size_t)threads, sizeof *team);
    began = calloc((size_t)threads, sizeof *began);
    ended = calloc((size_t)threads, sizeof *ended);
    if (!memory || !team || !began || !ended || pthread_barrier_init(&gate, NULL, (unsigned)threads + 1)) return 1;
    memset(memory, 0, BYTES);
    data = memory;
    for (int i = 0; i < threads; i++)
        if (pthread_create(&team[i], NULL, work, (void *)(size_t)i)) return 1;
    double best[2] = {1e9, 1e9};
    for (int round = 0; round < 2 * ROUNDS; round++) {
        pthread_barrier_wait(&gate);
        pthread_barrier_wait(&gate);
        double first = began[0], last = ended[0];
        for (int i = 1; i < threads; i++) {
            if (began[i] < first) first = began[i];
            if (ended[i] > last) last = ended[i];
        }
        double took = last - first;
        if (took < best[round % 2]) best[round % 2] = took;
    }
    for (int i = 0; i < threads; i++) pthread_join(team[i], NULL);
    double flops = 2.0 * LANES * CHAINS * (double)(STEPS / 4) * threads;
    printf("%.1f %.2f\n", flops / best[0] * 1e-9, (double)BYTES / best[1] * 1e-9);
    return 0;
}
