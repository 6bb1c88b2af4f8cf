/* A libnvidia-ml.so.1 for tests: the real binding loads it by name from LD_LIBRARY_PATH.
 *
 * What it says is set by environment variables:
 *   FAKE_NVML_GPUS=2                  how many GPUs there are (1)
 *   FAKE_NVML_FAIL=function:code:n    function returns code from its n-th call on (n from 0); several by ','
 *   FAKE_NVML_HANG=function:n         function never returns from its n-th call on
 * A GPU i reads: utilization 40+i %, memory utilization 10+i %, power 100+i W, memory used (1+i) GiB of 16 GiB, and
 * energy that grows at its power from a start of 5000 J.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

typedef int ret_t;
typedef struct { int index; } gpu_t;

enum { OK = 0, INVALID = 2, NOT_FOUND = 6 };

static gpu_t gpus[8] = {{0}, {1}, {2}, {3}, {4}, {5}, {6}, {7}};

static int count_gpus(void) {
    const char *text = getenv("FAKE_NVML_GPUS");
    return text ? atoi(text) : 1;
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

/* The code this call of `function` is to return, and hangs where it is to hang. */
static ret_t scripted(const char *function, int *calls) {
    int call = (*calls)++;
    const char *hang = getenv("FAKE_NVML_HANG");
    size_t length = strlen(function);
    if (hang && strncmp(hang, function, length) == 0 && hang[length] == ':' && call >= atoi(hang + length + 1))
        for (;;) pause();
    for (const char *rule = getenv("FAKE_NVML_FAIL"); rule && *rule;) {
        int code = 0, from = 0;
        if (strncmp(rule, function, length) == 0 && sscanf(rule + length, ":%d:%d", &code, &from) == 2 && call >= from)
            return code;
        rule = strchr(rule, ',');
        if (rule) rule++;
    }
    return OK;
}

#define SCRIPTED                                       \
    static int calls;                                  \
    ret_t code = scripted(__func__, &calls);           \
    if (code != OK) return code;

ret_t nvmlInitWithFlags(unsigned flags) { (void)flags; SCRIPTED return OK; }
ret_t nvmlInit_v2(void) { SCRIPTED return OK; }
ret_t nvmlShutdown(void) { SCRIPTED return OK; }
const char *nvmlErrorString(ret_t code) {
    static char text[32];
    snprintf(text, sizeof text, "fake error %d", code);
    return text;
}
ret_t nvmlSystemGetDriverVersion(char *text, unsigned length) { SCRIPTED snprintf(text, length, "999.12.3"); return OK; }
ret_t nvmlSystemGetCudaDriverVersion_v2(int *version) { SCRIPTED *version = 13020; return OK; }
ret_t nvmlSystemGetCudaDriverVersion(int *version) { SCRIPTED *version = 13020; return OK; }
ret_t nvmlDeviceGetCount_v2(unsigned *count) { SCRIPTED *count = count_gpus(); return OK; }
ret_t nvmlDeviceGetHandleByIndex_v2(unsigned index, gpu_t **gpu) {
    SCRIPTED
    if ((int)index >= count_gpus()) return INVALID;
    *gpu = &gpus[index];
    return OK;
}
ret_t nvmlDeviceGetHandleByUUID(const char *uuid, gpu_t **gpu) {
    SCRIPTED
    int index = -1;
    if (sscanf(uuid, "GPU-fake-%d", &index) != 1 || index >= count_gpus()) return NOT_FOUND;
    *gpu = &gpus[index];
    return OK;
}
ret_t nvmlDeviceGetHandleByPciBusId_v2(const char *id, gpu_t **gpu) {
    SCRIPTED
    int domain, bus;
    if (sscanf(id, "%x:%x:", &domain, &bus) != 2 || bus >= count_gpus()) return NOT_FOUND;
    *gpu = &gpus[bus];
    return OK;
}
ret_t nvmlDeviceGetName(gpu_t *gpu, char *text, unsigned length) {
    SCRIPTED snprintf(text, length, "Fake GPU %d", gpu->index); return OK;
}
ret_t nvmlDeviceGetUUID(gpu_t *gpu, char *text, unsigned length) {
    SCRIPTED snprintf(text, length, "GPU-fake-%d", gpu->index); return OK;
}

typedef struct {
    char legacy[16];
    unsigned domain, bus, device, pci_device, pci_subsystem;
    char id[32];
} pci_t;
ret_t nvmlDeviceGetPciInfo_v3(gpu_t *gpu, pci_t *pci) {
    SCRIPTED
    memset(pci, 0, sizeof *pci);
    pci->bus = gpu->index;
    snprintf(pci->id, sizeof pci->id, "00000000:%02X:00.0", gpu->index);
    return OK;
}
ret_t nvmlDeviceGetCudaComputeCapability(gpu_t *gpu, int *major, int *minor) {
    (void)gpu; SCRIPTED *major = 9; *minor = 0; return OK;
}
ret_t nvmlDeviceGetEnforcedPowerLimit(gpu_t *gpu, unsigned *milliwatts) {
    (void)gpu; SCRIPTED *milliwatts = 700000; return OK;
}

typedef struct { unsigned gpu, memory; } utilization_t;
ret_t nvmlDeviceGetUtilizationRates(gpu_t *gpu, utilization_t *rates) {
    SCRIPTED rates->gpu = 40 + gpu->index; rates->memory = 10 + gpu->index; return OK;
}
ret_t nvmlDeviceGetPowerUsage(gpu_t *gpu, unsigned *milliwatts) { SCRIPTED *milliwatts = 1000 * (100 + gpu->index); return OK; }
ret_t nvmlDeviceGetTotalEnergyConsumption(gpu_t *gpu, unsigned long long *millijoules) {
    SCRIPTED
    static double start;
    if (start == 0) start = now();
    *millijoules = 5000000 + (unsigned long long)((now() - start) * 1000 * (100 + gpu->index));
    return OK;
}

typedef struct { unsigned long long total, free, used; } memory_t;
ret_t nvmlDeviceGetMemoryInfo(gpu_t *gpu, memory_t *memory) {
    SCRIPTED
    memory->total = 16ull << 30;
    memory->used = (1ull + gpu->index) << 30;
    memory->free = memory->total - memory->used;
    return OK;
}
typedef struct { unsigned version; unsigned long long total, reserved, free, used; } memory_v2_t;
ret_t nvmlDeviceGetMemoryInfo_v2(gpu_t *gpu, memory_v2_t *memory) {
    SCRIPTED
    memory->total = 16ull << 30;
    memory->reserved = 1ull << 28;
    memory->used = (1ull + gpu->index) << 30;
    memory->free = memory->total - memory->reserved - memory->used;
    return OK;
}
