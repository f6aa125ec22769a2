/* The worker threads of one model.
 *
 * A parallel loop is cut into as many tasks as there are threads; task i belongs to participant i (the caller is
 * participant 0), so a thread finds in its cache what it wrote in the kernel before. Only when the caller is done and a
 * worker has not begun, because it sleeps or the system runs something else, does the caller take over its share: a
 * loop never waits for a thread that is not running it. Workers start at the first parallel loop, spin for a short
 * while after each one (kernels follow each other within microseconds) and then sleep.
 *
 * A pool runs one loop at a time. A second caller, or a loop inside a loop, does not wait: it runs the whole loop on
 * its own thread. So nothing here can deadlock, and two callers on two cores keep both busy.
 */
#define _GNU_SOURCE
#include "internal.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { SPIN_NANOSECONDS = 200000 }; /* longer than the gaps between kernels and between calls in a loop */

typedef struct participant {
    _Alignas(64) atomic_uint claimed; /* the latest generation whose share somebody took on */
    atomic_uint finished;             /* and whose share is done */
    graphc_pool *pool;
    int index;
    pthread_t thread; /* of a worker; participant 0 is whoever calls */
} participant;

/* What threads hand to each other moves between their caches by lines, about 50 ns each time: what is read together
 * lies together, and apart from what others write. */
struct graphc_pool {
    /* The job. Written before `generation` moves on, read after it was seen to have moved. */
    _Alignas(64) atomic_uint generation;
    int num_task;
    graphc_task task;
    void *data;
    int started; /* workers alive; only touched by the holder of `busy` */
    atomic_int stop;
    participant *participants;
    _Alignas(64) atomic_int sleepers;
    atomic_int caller_sleeps;
    atomic_int status;
    _Alignas(64) atomic_int busy; /* a loop is running */
    int threads;                  /* the caller included */
    pthread_mutex_t lock;
    pthread_cond_t wake, done;
};

static void relax(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static int64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* Waits without sleeping. 0: time is up. */
static int spin(graphc_pool *pool, int (*ready)(graphc_pool *, unsigned), unsigned seen) {
    int64_t end = 0;
    for (;;) {
        for (int i = 0; i < 64; i++) {
            if (ready(pool, seen)) return 1;
            relax();
        }
        int64_t t = now();
        if (!end) end = t + SPIN_NANOSECONDS;
        if (t > end) return 0;
    }
}

static int job_ready(graphc_pool *pool, unsigned seen) { return atomic_load(&pool->generation) != seen; }

static int all_done(graphc_pool *pool, unsigned generation) {
    for (int i = 0; i <= pool->started; i++)
        if (atomic_load(&pool->participants[i].finished) != generation) return 0;
    return 1;
}

/* Runs one participant's share of a job, unless somebody did. A share is claimed by moving its mark from the job before
 * to this one, so a thread that comes late, even in the middle of a later job, claims nothing. While a share is
 * unclaimed its job is not over, and its description stays as it is. */
static void run_share(graphc_pool *pool, int index, unsigned generation) {
    unsigned before = generation - 1;
    participant *p = &pool->participants[index];
    if (atomic_load(&p->claimed) != before || !atomic_compare_exchange_strong(&p->claimed, &before, generation)) return;
    graphc_env env = {NULL, pool->num_task};
    for (int i = index; i < pool->num_task; i += pool->started + 1) {
        int status = pool->task(i, &env, pool->data);
        if (status) atomic_store(&pool->status, status);
    }
    atomic_store(&p->finished, generation);
    if (atomic_load(&pool->caller_sleeps)) {
        pthread_mutex_lock(&pool->lock);
        pthread_cond_signal(&pool->done);
        pthread_mutex_unlock(&pool->lock);
    }
}

static void *work(void *argument) {
    participant *self = argument;
    graphc_pool *pool = self->pool;
    pthread_setname_np(pthread_self(), "graphc");
    for (unsigned seen = 0;;) {
        if (!spin(pool, job_ready, seen)) {
            pthread_mutex_lock(&pool->lock);
            atomic_fetch_add(&pool->sleepers, 1); /* before the last look at generation: see wake_workers */
            while (!job_ready(pool, seen)) pthread_cond_wait(&pool->wake, &pool->lock);
            atomic_fetch_sub(&pool->sleepers, 1);
            pthread_mutex_unlock(&pool->lock);
        }
        if (atomic_load(&pool->stop)) return NULL;
        seen = atomic_load(&pool->generation); /* perhaps several jobs later */
        run_share(pool, self->index, seen);
    }
}

/* A new generation. Either a worker sees it before it sleeps, or we see that it sleeps: both sides write, then read. */
static void wake_workers(graphc_pool *pool) {
    atomic_fetch_add(&pool->generation, 1);
    if (atomic_load(&pool->sleepers) > 0) {
        pthread_mutex_lock(&pool->lock);
        pthread_cond_broadcast(&pool->wake);
        pthread_mutex_unlock(&pool->lock);
    }
}

/* Where no more threads can be had, the loop goes on with those there are. Signals stay with the program's threads. */
static void start_workers(graphc_pool *pool) {
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int started = 0;
    while (started < pool->threads - 1) {
        participant *p = &pool->participants[started + 1];
        p->pool = pool;
        p->index = started + 1;
        atomic_store(&p->claimed, atomic_load(&pool->generation));
        atomic_store(&p->finished, atomic_load(&pool->generation));
        if (pthread_create(&p->thread, NULL, work, p)) break;
        started++;
    }
    pool->started = started;
    pthread_sigmask(SIG_SETMASK, &old, NULL);
}

int graphc_pool_run(graphc_pool *pool, graphc_task task, void *data, int num_task) {
    int free = 0;
    if (!pool || pool->threads == 1 || num_task == 1 || !atomic_compare_exchange_strong(&pool->busy, &free, 1)) {
        graphc_env env = {NULL, num_task > 0 ? num_task : 1};
        int status = 0;
        for (int i = 0; i < env.num_task && !status; i++) status = task(i, &env, data);
        return status;
    }
    if (!pool->started) start_workers(pool);
    pool->task = task;
    pool->data = data;
    pool->num_task = num_task > 0 ? num_task : pool->started + 1;
    if (atomic_load(&pool->status)) atomic_store(&pool->status, 0);
    wake_workers(pool);
    unsigned generation = atomic_load(&pool->generation);
    for (int i = 0; i <= pool->started; i++) run_share(pool, i, generation);
    if (!spin(pool, all_done, generation)) {
        pthread_mutex_lock(&pool->lock);
        atomic_store(&pool->caller_sleeps, 1); /* before the last look at what is finished, as above */
        while (!all_done(pool, generation)) pthread_cond_wait(&pool->done, &pool->lock);
        atomic_store(&pool->caller_sleeps, 0);
        pthread_mutex_unlock(&pool->lock);
    }
    int status = atomic_load(&pool->status);
    atomic_store(&pool->busy, 0);
    return status;
}

graphc_pool *graphc_pool_new(int threads) {
    graphc_pool *pool = aligned_alloc(64, (sizeof(graphc_pool) + 63) / 64 * 64);
    if (!pool) return NULL;
    *pool = (graphc_pool){.threads = threads};
    pool->participants = aligned_alloc(64, (size_t)threads * sizeof(participant));
    if (!pool->participants) {
        free(pool);
        return NULL;
    }
    memset(pool->participants, 0, (size_t)threads * sizeof(participant));
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->wake, NULL);
    pthread_cond_init(&pool->done, NULL);
    return pool;
}

int graphc_pool_threads(const graphc_pool *pool) { return pool->threads; }

void graphc_pool_free(graphc_pool *pool) {
    if (!pool) return;
    atomic_store(&pool->stop, 1);
    wake_workers(pool);
    for (int i = 0; i < pool->started; i++) pthread_join(pool->participants[i + 1].thread, NULL);
    pthread_cond_destroy(&pool->done);
    pthread_cond_destroy(&pool->wake);
    pthread_mutex_destroy(&pool->lock);
    graphc_pool_forget(pool);
}

void graphc_pool_forget(graphc_pool *pool) {
    if (!pool) return;
    free(pool->participants);
    free(pool);
}
