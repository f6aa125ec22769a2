/* What the machine is: whether it can run this module, and how many threads are worth having.
 * This file and all of the runtime are compiled for plain x86-64, so an old CPU gets a message and never SIGILL.
 */
#define _GNU_SOURCE
#include "internal.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#if defined(__x86_64__)
#include <cpuid.h>

static int has(const graphc_cpu_feature *f) {
    uint32_t regs[4] = {0};
    if (!__get_cpuid_count(f->leaf, f->subleaf, &regs[0], &regs[1], &regs[2], &regs[3])) return 0;
    if (!(regs[f->reg] >> f->bit & 1)) return 0;
    if (!f->xcr0) return 1;
    uint32_t low, high;
    __get_cpuid(1, &regs[0], &regs[1], &regs[2], &regs[3]);
    if (!(regs[2] >> 27 & 1)) return 0; /* OSXSAVE: the operating system saves extended state at all */
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (low & f->xcr0) == f->xcr0;
}

/* Linux hands out AMX tile registers on request only, once for the process. */
static int ask_for_amx(void) {
    enum { REQUEST_PERMISSION = 0x1023, TILE_DATA = 18 };
    return syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
}
#else
static int has(const graphc_cpu_feature *f) {
    (void)f;
    return 0;
}
static int ask_for_amx(void) { return 0; }
#endif

int graphc_check_cpu(void) {
    const graphc_tables *t = &graphc_module_tables;
    char missing[512] = "";
    size_t used = 0;
    for (size_t i = 0; i < t->n_features && used < sizeof missing; i++)
        if (!has(&t->features[i]))
            used += (size_t)snprintf(missing + used, sizeof missing - used, "%s%s", used ? ", " : "",
                                     t->features[i].name);
    if (used)
        return graphc_fail(GRAPHC_ERROR_TARGET,
                           "`%s` was compiled for %s, but this CPU lacks: %s; compile it again with a --target that "
                           "this machine supports",
                           t->info.name, t->info.target, missing);
    if (t->uses_amx && !ask_for_amx())
        return graphc_fail(GRAPHC_ERROR_TARGET,
                           "`%s` uses AMX, but the operating system does not allow it in this process (%s)",
                           t->info.name, strerror(errno));
    return GRAPHC_OK;
}

static long read_number(const char *path, const char *format, long *second) {
    long first = -1;
    FILE *file = fopen(path, "re");
    if (!file) return -1;
    if (fscanf(file, format, &first, second) < 1) first = -1;
    fclose(file);
    return first;
}

/* One thread per physical core that the process may use, within the container's CPU quota: a second thread on a core
 * adds nothing to kernels that keep its vector units busy, and threads beyond the quota only get each other stopped. */
int graphc_default_threads(void) {
    const char *wish = getenv("GRAPHC_NUM_THREADS");
    if (wish && *wish) {
        char *end;
        long n = strtol(wish, &end, 10);
        if (!*end && n >= 1 && n <= 1024) return (int)n;
    }
    cpu_set_t allowed;
    if (sched_getaffinity(0, sizeof allowed, &allowed)) return 1;
    long cores = 0;
    for (long cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (!CPU_ISSET((size_t)cpu, &allowed)) continue;
        char path[96];
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%ld/topology/thread_siblings_list", cpu);
        long unused, first = read_number(path, "%ld%ld", &unused);
        if (first < 0 || first >= cpu || first >= CPU_SETSIZE || !CPU_ISSET((size_t)first, &allowed)) cores++;
    }
    long period = 0, quota = read_number("/sys/fs/cgroup/cpu.max", "%ld %ld", &period);
    if (quota < 0) {
        quota = read_number("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "%ld%ld", &period);
        period = read_number("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "%ld%ld", &(long){0});
    }
    if (quota > 0 && period > 0 && (quota + period - 1) / period < cores) cores = (quota + period - 1) / period;
    return cores < 1 ? 1 : cores > 1024 ? 1024 : (int)cores;
}
