/* An NVIDIA driver that writes its lists of processes as it likes: NVML's C interface with one GPU, of which a file
 * says how large its records are and how many there are. The tests compile it with AddressSanitizer, which then sees
 * whatever is written beyond the memory that the caller gave.
 *
 * The file DLPM_RECORDS has seven numbers:
 *   the sizes of a record that the functions of the third, second and first generation write (0: there is no such
 *   function), the number of processes, the first pid, the bytes of the last record that are written (0: all), and
 *   whether the driver clears all the room that it is told of (1), or not (0).
 * DLPM_RECORDS_DRIVER is the driver's version.
 *
 * The process number n (from 0) has the pid first + n, and (n + 1) MiB of memory; n = 1 does not tell its memory.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { SUCCESS = 0, NOT_SUPPORTED = 3, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7, FUNCTION_NOT_FOUND = 13 };

struct plan { int size[4]; unsigned count, first, last, clears; };

static struct plan plan(void) {
    struct plan plan = {{0}, 0, 0, 0, 0};
    FILE *file = fopen(getenv("DLPM_RECORDS"), "r");
    if (!file || fscanf(file, "%d %d %d %u %u %u %u", &plan.size[3], &plan.size[2], &plan.size[1], &plan.count,
                        &plan.first, &plan.last, &plan.clears) != 7)
        abort();
    fclose(file);
    return plan;
}

static uint64_t milliseconds(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static int text(char *place, unsigned length, const char *what) {
    snprintf(place, length, "%s", what);
    return SUCCESS;
}

int nvmlInit_v2(void) { return SUCCESS; }
int nvmlShutdown(void) { return SUCCESS; }
const char *nvmlErrorString(int code) { (void)code; return "an error of the test's driver"; }
int nvmlSystemGetDriverVersion(char *place, unsigned length) {
    return text(place, length, getenv("DLPM_RECORDS_DRIVER"));
}
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 1; return SUCCESS; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **gpu) { *gpu = (void *)(uintptr_t)(index + 1); return SUCCESS; }
int nvmlDeviceGetHandleByUUID(const char *uuid, void **gpu) { (void)uuid; *gpu = (void *)1; return SUCCESS; }
int nvmlDeviceGetUUID(void *gpu, char *place, unsigned length) {
    (void)gpu;
    return text(place, length, "GPU-00000000-1111-2222-3333-000000000000");
}
/* A text that fills its place to the last byte and has no end. */
int nvmlDeviceGetName(void *gpu, char *place, unsigned length) { (void)gpu; memset(place, 'n', length); return SUCCESS; }
int nvmlDeviceGetPciInfo_v3(void *gpu, char *info) {
    (void)gpu;
    memset(info, 0, 36);
    memset(info + 36, '0', 32);
    return SUCCESS;
}
int nvmlDeviceGetTotalEnergyConsumption(void *gpu, unsigned long long *mj) {
    (void)gpu;
    *mj = 100 * milliseconds(CLOCK_MONOTONIC);
    return SUCCESS;
}
int nvmlDeviceGetPowerUsage(void *gpu, unsigned *mw) { (void)gpu; *mw = 100000; return SUCCESS; }
int nvmlDeviceGetUtilizationRates(void *gpu, unsigned *rates) { (void)gpu; rates[0] = rates[1] = 50; return SUCCESS; }
int nvmlDeviceGetMemoryInfo(void *gpu, unsigned long long *memory) {
    (void)gpu;
    memory[0] = 80ull << 30;
    memory[1] = 60ull << 30;
    memory[2] = 20ull << 30;
    return SUCCESS;
}
int nvmlDeviceGetMigMode(void *gpu, unsigned *now, unsigned *next) { (void)gpu; *now = *next = 0; return NOT_SUPPORTED; }

static int list(int generation, unsigned *count, char *place) {
    struct plan p = plan();
    unsigned size = (unsigned)p.size[generation], room = *count;
    if (size == 0) return FUNCTION_NOT_FOUND;
    *count = p.count;
    if (p.count == 0) return SUCCESS;
    if (!place || room < p.count) return INSUFFICIENT_SIZE;
    if (p.clears) memset(place, 0, (size_t)room * size);
    for (unsigned n = 0; n < p.count; n++) {
        uint64_t record[8] = {0};
        unsigned bytes = p.last && n + 1 == p.count ? p.last : size;
        record[0] = p.first + n;
        record[1] = n == 1 ? UINT64_MAX : (uint64_t)(n + 1) << 20;
        record[2] = UINT64_MAX; /* instances: none */
        memcpy(place + (size_t)n * size, record, bytes);
    }
    return SUCCESS;
}

int nvmlDeviceGetComputeRunningProcesses_v3(void *g, unsigned *c, char *p) { (void)g; return list(3, c, p); }
int nvmlDeviceGetComputeRunningProcesses_v2(void *g, unsigned *c, char *p) { (void)g; return list(2, c, p); }
int nvmlDeviceGetComputeRunningProcesses(void *g, unsigned *c, char *p) { (void)g; return list(1, c, p); }
int nvmlDeviceGetGraphicsRunningProcesses_v3(void *g, unsigned *c, char *p) { (void)g; return list(3, c, p); }
int nvmlDeviceGetGraphicsRunningProcesses_v2(void *g, unsigned *c, char *p) { (void)g; return list(2, c, p); }
int nvmlDeviceGetGraphicsRunningProcesses(void *g, unsigned *c, char *p) { (void)g; return list(1, c, p); }

/* A sample for each process, at the present moment. It says that there are fewer when it is asked for their number. */
int nvmlDeviceGetProcessUtilization(void *gpu, uint64_t *samples, unsigned *count, unsigned long long after) {
    struct plan p = plan();
    unsigned room = *count;
    (void)gpu;
    (void)after;
    if (p.count == 0) return NOT_FOUND;
    *count = samples ? p.count : (p.count + 1) / 2;
    if (!samples || room < p.count) return INSUFFICIENT_SIZE;
    for (unsigned n = 0; n < p.count; n++) {
        uint64_t sample[4] = {p.first + n, milliseconds(CLOCK_REALTIME) * 1000, 10, 0};
        memcpy(samples + 4 * n, sample, sizeof sample);
    }
    return SUCCESS;
}
