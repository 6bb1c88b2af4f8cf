/* A libnvidia-ml.so.1 for tests: the real binding loads it by name from LD_LIBRARY_PATH.
 *
 * GPU i reads: utilization 40+i %, memory utilization 10+i %, power 100+i W, SM clock 1500+i MHz, memory clock
 * 2600 MHz, 50+i °C, memory used (1+i) GiB of 16 GiB, energy that grows at its power from 5000 J; GPM: SM 12.5 %,
 * occupancy 6.25 %, tensor 2 %, HMMA 1 %, FP32 3 %, DRAM 5 %, engine 90 %, PCIe 8 and 4 MiB/s. Before its power limit is asked
 * for, which telemetry does when it attaches, a GPU is idle and empty.
 *
 * Environment variables change that:
 *   FAKE_NVML_GPUS=2                   how many GPUs there are (1)
 *   FAKE_NVML_FAIL=function:code:n     function returns code from its n-th call on (n from 0); several by ','
 *   FAKE_NVML_HANG=function:n          function never returns from its n-th call on
 *   FAKE_NVML_DELAY=function:s         function takes s seconds at its first call
 *   FAKE_NVML_CRASH=function:n         function kills the process at its n-th call
 *   FAKE_NVML_FIELD_FAIL=field:code    that field value holds an error; several by ','
 *   FAKE_NVML_FIELD_OTHER=field        the answer for that field value names another field
 *   FAKE_NVML_RAMP=origin:rate         utilization is rate * (CLOCK_MONOTONIC - origin), power ten times that; energy
 *                                      grows at this power
 *   FAKE_NVML_FORBIDDEN=i              GPU i is counted but may not be used, as under a cgroup
 *   FAKE_NVML_LOST=i                   GPU i has fallen off the bus
 *   FAKE_NVML_STUCK=i                  the call for GPU i's handle by its index never returns
 *   FAKE_NVML_GONE=from:to             the job's GPU is lost between these seconds after telemetry attached to it
 *   FAKE_NVML_DRIVER=570|575|580|580.82|590   the driver's generation, see below (one after all of these)
 *   FAKE_NVML_MIG=k                    GPU 0 has k MIG devices
 *   FAKE_NVML_GPM=0                    no GPM, as before Hopper
 *   FAKE_NVML_SAMPLES=epoch|boot|odd|empty   the driver's buffer: its clock, or a probe that finds no rows (no buffer)
 *   FAKE_NVML_ENERGY32=mJ              energy is a 32-bit count that starts there
 *   FAKE_NVML_ENERGY=still|back:s|stop:s  energy does not move; falls to 0, or moves no more, s seconds after
 *                                      telemetry attached
 *   FAKE_NVML_DEFAULT_LIMIT=W          the board's default power limit (700)
 *   FAKE_NVML_LIMITS=W,W…              the power limit in force at each question (700); the last is for all later ones
 *   FAKE_NVML_THROTTLE=share           share of time throttled
 *   FAKE_NVML_CAUSE=name               by power_cap, hw_thermal, hw_power_brake, hw_slowdown, sync_boost, board_limit
 *                                      or reliability (sw_thermal); hw_slowdown is not counted, the last two only
 *   FAKE_NVML_COUNTED=0                no counter of throttling moves
 *   FAKE_NVML_ECC=rate                 corrected memory errors a second
 *   FAKE_NVML_XID=number               one XID event, of the GPU or of FAKE_NVML_XID_INSTANCE=k alone
 *   FAKE_NVML_PROCESSES=n              compute processes on every GPU
 *   FAKE_NVML_OWN=pid                  one more as soon as the job uses it: the job's own, by this number. With
 *                                      FAKE_NVML_NAMESPACE=1 the only one: a newer driver in a container
 *   FAKE_NVML_MPS=pid                  the job and FAKE_NVML_MPS_OTHERS=n more are clients of an MPS server of that id:
 *                                      they are in NVML's list of MPS processes, only the server in the other
 *   FAKE_NVML_NAMES=0                  no process has a name, as the host's have none in a container
 *   FAKE_NVML_CAPABILITY=8.0           the compute capability (9.0); power has no average up to 8.0
 *   FAKE_NVML_BUSY=1                   busy and full before the job, too
 * Built with -DOLD_DRIVER it lacks the functions that came after driver 450.
 *
 * Field ids by generation follow nvml.h of NVIDIA's toolkits (packages nvidia-nvml-dev-cu12 and nvidia-nvml-dev) and
 * the constants of nvidia-ml-py:
 *   570     nvml.h 12.8.90:  NVML_FI_PWR_SMOOTHING_ENABLED 251, NVML_FI_MAX 269; no slowdown counters
 *   575     nvml.h 12.9.79:  NVML_FI_DEV_CLOCKS_EVENT_REASON_SW_THERM_SLOWDOWN 251, HW_THERM_SLOWDOWN 252,
 *                            HW_POWER_BRAKE_SLOWDOWN 253; NVML_FI_PWR_SMOOTHING_ENABLED 256, NVML_FI_MAX 274
 *   580     nvml.h 13.0.39, nvidia-ml-py 13.580.65: as 575
 *   580.82  nvml.h 13.0.87, nvidia-ml-py 13.580.82: NVML_FI_PWR_SMOOTHING_ENABLED 251, …SW_THERM_SLOWDOWN 269,
 *                            …HW_THERM_SLOWDOWN 270, …HW_POWER_BRAKE_SLOWDOWN 271, NVML_FI_MAX 274
 *   590     nvml.h 13.1.115: as 580.82, NVML_FI_MAX 289
 * Power smoothing answers 1 in all its 18 fields, as it would on a Blackwell GPU that has it.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

typedef int ret_t;
typedef struct { int index, instance; } gpu_t; /* instance -1: the GPU itself */

enum { OK = 0, INVALID = 2, NOT_SUPPORTED = 3, NO_PERMISSION = 4, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7, TIMEOUT = 10,
       GPU_IS_LOST = 15 };

static gpu_t gpus[8] = {{0, -1}, {1, -1}, {2, -1}, {3, -1}, {4, -1}, {5, -1}, {6, -1}, {7, -1}};
static gpu_t mig_devices[7] = {{0, 0}, {0, 1}, {0, 2}, {0, 3}, {0, 4}, {0, 5}, {0, 6}};
static int in_use[8];
static double attached; /* when telemetry attached */

static double number(const char *name, double otherwise) {
    const char *text = getenv(name);
    return text ? atof(text) : otherwise;
}
static int count_gpus(void) { return (int)number("FAKE_NVML_GPUS", 1); }
static int lost_gpu(void) { return (int)number("FAKE_NVML_LOST", -1); }
static int capability(void) { return (int)lround(10 * number("FAKE_NVML_CAPABILITY", 9)); }
static int busy(const gpu_t *gpu) { return in_use[gpu->index] || getenv("FAKE_NVML_BUSY"); }

static double clock_s(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}
static double now(void) { return clock_s(CLOCK_MONOTONIC); }
static double started; /* the first call that counts time */
static double since_start(void) {
    if (started == 0) started = now();
    return now() - started;
}

static double utilization_at(const gpu_t *gpu, double at) {
    double origin, rate;
    const char *ramp = getenv("FAKE_NVML_RAMP");
    if (ramp && sscanf(ramp, "%lf:%lf", &origin, &rate) == 2) return rate * (at - origin);
    return busy(gpu) ? 40 + gpu->index : 0;
}

/* Whether `rules` has function:n with n at or below this call. */
static int named(const char *rules, const char *function, int call) {
    size_t length = strlen(function);
    return rules && strncmp(rules, function, length) == 0 && rules[length] == ':' && call >= atoi(rules + length + 1);
}

/* The code that this call of `function` returns; hangs or crashes if so scripted. */
static ret_t scripted(const char *function, int *calls) {
    int call = (*calls)++;
    size_t length = strlen(function);
    if (named(getenv("FAKE_NVML_CRASH"), function, call)) abort();
    if (named(getenv("FAKE_NVML_HANG"), function, call))
        for (;;) pause();
    const char *delay = getenv("FAKE_NVML_DELAY");
    if (delay && call == 0 && strncmp(delay, function, length) == 0 && delay[length] == ':')
        usleep((useconds_t)(1e6 * atof(delay + length + 1)));
    for (const char *rule = getenv("FAKE_NVML_FAIL"); rule && *rule;) {
        int code = 0, from = 0;
        if (strncmp(rule, function, length) == 0 && sscanf(rule + length, ":%d:%d", &code, &from) == 2 && call >= from)
            return code;
        rule = strchr(rule, ',');
        if (rule) rule++;
    }
    double from, to;
    const char *gone = getenv("FAKE_NVML_GONE");
    if (gone && attached > 0 && sscanf(gone, "%lf:%lf", &from, &to) == 2 && now() > attached + from && now() < attached + to
        && (strncmp(function, "nvmlDeviceGet", 13) == 0 || strncmp(function, "nvmlGpm", 7) == 0))
        return GPU_IS_LOST;
    return OK;
}

#define SCRIPTED                                       \
    static int calls;                                  \
    ret_t code = scripted(__func__, &calls);           \
    if (code != OK) return code;

/* What a MIG device has no reading of. */
#define WHOLE_GPU_ONLY(gpu) \
    if ((gpu)->instance >= 0) return NOT_SUPPORTED;

ret_t nvmlInitWithFlags(unsigned flags) { (void)flags; SCRIPTED since_start(); return OK; }
ret_t nvmlInit_v2(void) { SCRIPTED return OK; }
ret_t nvmlShutdown(void) { SCRIPTED return OK; }
const char *nvmlErrorString(ret_t code) {
    static char text[32];
    snprintf(text, sizeof text, "fake error %d", code);
    return text;
}

/* Driver generations */
typedef struct {
    const char *key, *driver, *nvml;
    unsigned slowdowns, smoothing; /* the first field id of each; 0: none */
} generation_t;
static const generation_t generations[] = {
    {"", "999.12.3", "13.999.12.3", 269, 251},
    {"570", "570.124.06", "12.570.124.06", 0, 251},
    {"575", "575.57.08", "12.575.57.08", 251, 256},
    {"580", "580.65.06", "13.580.65.06", 251, 256},
    {"580.82", "580.82.07", "13.580.82.07", 269, 251},
    {"590", "590.48.01", "13.590.48.01", 269, 251},
};
static const generation_t *generation(void) {
    const char *key = getenv("FAKE_NVML_DRIVER");
    for (unsigned i = 0; key && i < sizeof generations / sizeof *generations; i++)
        if (strcmp(generations[i].key, key) == 0) return &generations[i];
    return &generations[0];
}
ret_t nvmlSystemGetDriverVersion(char *text, unsigned length) {
    SCRIPTED snprintf(text, length, "%s", generation()->driver); return OK;
}
ret_t nvmlSystemGetNVMLVersion(char *text, unsigned length) {
    SCRIPTED snprintf(text, length, "%s", generation()->nvml); return OK;
}
ret_t nvmlSystemGetCudaDriverVersion_v2(int *version) { SCRIPTED *version = 13020; return OK; }
ret_t nvmlSystemGetCudaDriverVersion(int *version) { SCRIPTED *version = 13020; return OK; }

/* Which device */
ret_t nvmlDeviceGetCount_v2(unsigned *count) { SCRIPTED *count = count_gpus(); return OK; }
ret_t nvmlDeviceGetHandleByIndex_v2(unsigned index, gpu_t **gpu) {
    SCRIPTED
    if ((int)index >= count_gpus()) return INVALID;
    if ((int)index == (int)number("FAKE_NVML_FORBIDDEN", -1)) return NO_PERMISSION;
    if ((int)index == lost_gpu()) return GPU_IS_LOST;
    if ((int)index == (int)number("FAKE_NVML_STUCK", -1))
        for (;;) pause();
    *gpu = &gpus[index];
    return OK;
}
ret_t nvmlDeviceGetHandleByUUID(const char *uuid, gpu_t **gpu) {
    SCRIPTED
    int index = -1, instance = -1;
    /* "if any GPU has fallen off the bus or is otherwise inaccessible" (nvml.h) */
    if (lost_gpu() >= 0) return GPU_IS_LOST;
    if (sscanf(uuid, "MIG-fake-%d-%d", &index, &instance) == 2) {
        if (index != 0 || instance >= (int)number("FAKE_NVML_MIG", 0)) return NOT_FOUND;
        *gpu = &mig_devices[instance];
        return OK;
    }
    if (sscanf(uuid, "GPU-fake-%d", &index) != 1 || index >= count_gpus() || strlen(uuid) != 10) return NOT_FOUND;
    *gpu = &gpus[index];
    return OK;
}
ret_t nvmlDeviceGetHandleByPciBusId_v2(const char *id, gpu_t **gpu) {
    SCRIPTED
    int domain, bus;
    if (sscanf(id, "%x:%x:", &domain, &bus) != 2 || bus >= count_gpus()) return NOT_FOUND;
    if (bus == lost_gpu()) return GPU_IS_LOST;
    *gpu = &gpus[bus];
    return OK;
}
ret_t nvmlDeviceGetName(gpu_t *gpu, char *text, unsigned length) {
    SCRIPTED
    snprintf(text, length, gpu->instance < 0 ? "Fake GPU %d" : "Fake GPU %d MIG 1g.10gb", gpu->index);
    return OK;
}
ret_t nvmlDeviceGetUUID(gpu_t *gpu, char *text, unsigned length) {
    SCRIPTED
    if (gpu->instance < 0) snprintf(text, length, "GPU-fake-%d", gpu->index);
    else snprintf(text, length, "MIG-fake-%d-%d", gpu->index, gpu->instance);
    return OK;
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
    (void)gpu; SCRIPTED
    int tenths = capability();
    *major = tenths / 10;
    *minor = tenths % 10;
    return OK;
}
ret_t nvmlDeviceGetEnforcedPowerLimit(gpu_t *gpu, unsigned *milliwatts) {
    SCRIPTED
    in_use[gpu->index] = 1;
    attached = now();
    *milliwatts = 700000;
    const char *limits = getenv("FAKE_NVML_LIMITS");
    for (int question = calls; limits && *limits && question-- > 0;) {
        *milliwatts = (unsigned)(1000 * atof(limits));
        limits = strchr(limits, ',');
        if (limits) limits++;
    }
    return OK;
}
ret_t nvmlDeviceGetPowerManagementDefaultLimit(gpu_t *gpu, unsigned *milliwatts) {
    (void)gpu; SCRIPTED *milliwatts = (unsigned)(1000 * number("FAKE_NVML_DEFAULT_LIMIT", 700)); return OK;
}

/* Gauges */
typedef struct { unsigned gpu, memory; } utilization_t;
ret_t nvmlDeviceGetUtilizationRates(gpu_t *gpu, utilization_t *rates) {
    SCRIPTED
    WHOLE_GPU_ONLY(gpu)
    rates->gpu = (unsigned)lround(utilization_at(gpu, now()));
    rates->memory = busy(gpu) ? 10 + gpu->index : 0;
    return OK;
}
static double watts(const gpu_t *gpu) {
    return getenv("FAKE_NVML_RAMP") ? 10 * utilization_at(gpu, now()) : 100 + gpu->index;
}
ret_t nvmlDeviceGetPowerUsage(gpu_t *gpu, unsigned *milliwatts) {
    SCRIPTED
    WHOLE_GPU_ONLY(gpu)
    *milliwatts = (unsigned)lround(1000 * watts(gpu));
    return OK;
}
static unsigned long long millijoules(const gpu_t *gpu) {
    double start = number("FAKE_NVML_ENERGY32", 5000000), back_s;
    const char *fault = getenv("FAKE_NVML_ENERGY");
    if (fault && strcmp(fault, "still") == 0) return (unsigned long long)start;
    double moving_s = since_start(), origin, rate;
    const char *ramp = getenv("FAKE_NVML_RAMP");
    if (ramp && sscanf(ramp, "%lf:%lf", &origin, &rate) == 2)
        return (unsigned long long)(start + 1000 * 10 * rate * (now() - origin) * (now() - origin) / 2);
    if (fault && sscanf(fault, "stop:%lf", &back_s) == 1 && attached > 0 && now() > attached + back_s)
        moving_s = attached + back_s - started;
    if (fault && sscanf(fault, "back:%lf", &back_s) == 1 && attached > 0 && now() > attached + back_s)
        return (unsigned long long)((now() - attached - back_s) * 1000 * (100 + gpu->index));
    return (unsigned long long)(start + moving_s * 1000 * (100 + gpu->index));
}
ret_t nvmlDeviceGetTotalEnergyConsumption(gpu_t *gpu, unsigned long long *energy) {
    SCRIPTED
    WHOLE_GPU_ONLY(gpu)
    *energy = millijoules(gpu);
    return OK;
}
ret_t nvmlDeviceGetClockInfo(gpu_t *gpu, int type, unsigned *mhz) {
    SCRIPTED *mhz = type == 2 ? 2600 : 1500 + gpu->index; return OK;
}
ret_t nvmlDeviceGetTemperature(gpu_t *gpu, int sensor, unsigned *celsius) {
    (void)sensor; SCRIPTED *celsius = 50 + gpu->index; return OK;
}
typedef struct { unsigned long long total, free, used; } memory_t;
static unsigned long long used_bytes(const gpu_t *gpu) { return busy(gpu) ? (1ull + gpu->index) << 30 : 0; }
ret_t nvmlDeviceGetMemoryInfo(gpu_t *gpu, memory_t *memory) {
    SCRIPTED
    memory->total = 16ull << 30;
    memory->used = used_bytes(gpu);
    memory->free = memory->total - memory->used;
    return OK;
}

/* Throttling, in turns of 70 ms */
static int throttled_by(const char *cause) {
    const char *name = getenv("FAKE_NVML_CAUSE");
    return strcmp(cause, name ? name : "sw_thermal") == 0;
}
static ret_t reasons_now(const gpu_t *gpu, unsigned long long *reasons) {
    WHOLE_GPU_ONLY(gpu)
    *reasons = busy(gpu) ? 0 : 1; /* idle */
    if (fmod(since_start(), 0.07) >= 0.07 * number("FAKE_NVML_THROTTLE", 0)) return OK;
    if (throttled_by("power_cap")) *reasons |= 0x4;
    if (throttled_by("sync_boost")) *reasons |= 0x10;
    if (throttled_by("sw_thermal")) *reasons |= 0x20;
    if (throttled_by("hw_thermal")) *reasons |= 0x40 | 0x8;
    if (throttled_by("hw_power_brake")) *reasons |= 0x80 | 0x8;
    if (throttled_by("hw_slowdown")) *reasons |= 0x8;
    return OK;
}
ret_t nvmlDeviceGetCurrentClocksThrottleReasons(gpu_t *gpu, unsigned long long *reasons) {
    SCRIPTED return reasons_now(gpu, reasons);
}

#ifndef OLD_DRIVER
static unsigned long long throttled_ns(const char *cause) {
    return throttled_by(cause) && number("FAKE_NVML_COUNTED", 1) != 0 ? (unsigned long long)(since_start() * 1e9 * number("FAKE_NVML_THROTTLE", 0)) : 1000;
}
ret_t nvmlDeviceGetCurrentClocksEventReasons(gpu_t *gpu, unsigned long long *reasons) {
    SCRIPTED return reasons_now(gpu, reasons);
}
typedef struct { unsigned version; unsigned long long total, reserved, free, used; } memory_v2_t;
ret_t nvmlDeviceGetMemoryInfo_v2(gpu_t *gpu, memory_v2_t *memory) {
    SCRIPTED
    memory->total = 16ull << 30;
    memory->reserved = 1ull << 28;
    memory->used = used_bytes(gpu);
    memory->free = memory->total - memory->reserved - memory->used;
    return OK;
}
typedef struct { unsigned version, sensor; int celsius; } temperature_t;
ret_t nvmlDeviceGetTemperatureV(gpu_t *gpu, temperature_t *temperature) {
    SCRIPTED temperature->celsius = 50 + gpu->index; return OK;
}

/* The driver's buffer: a sample every sixth of a second, the last 20 s of them. */
typedef union { double d; unsigned u; unsigned long ul; unsigned long long ull; } value_t;
typedef struct { unsigned long long stamp; value_t value; } sample_t;
ret_t nvmlDeviceGetSamples(gpu_t *gpu, int kind, unsigned long long last, int *type, unsigned *count, sample_t *samples) {
    SCRIPTED
    WHOLE_GPU_ONLY(gpu)
    const char *mode = getenv("FAKE_NVML_SAMPLES");
    if (!mode || kind < 1 || kind > 2) return NOT_SUPPORTED;
    *type = 1;
    if (!samples) {
        *count = strcmp(mode, "empty") == 0 ? 0 : 120;
        return OK;
    }
    if (*count == 0) return INVALID;
    double shift = strcmp(mode, "epoch") == 0 ? clock_s(CLOCK_REALTIME) - now()
                 : strcmp(mode, "boot") == 0 ? clock_s(CLOCK_BOOTTIME) - now() : 4e6;
    long long newest = (long long)floor(now() * 6);
    unsigned found = 0;
    for (long long k = newest - 119; k <= newest && found < *count; k++) {
        unsigned long long stamp = (unsigned long long)((k / 6.0 + shift) * 1e6);
        if (stamp <= last + 1000) continue;
        samples[found].stamp = stamp;
        double value = kind == 1 ? utilization_at(gpu, k / 6.0) : 10 + gpu->index;
        samples[found++].value.u = (unsigned)lround(value < 0 ? 0 : value);
    }
    *count = found;
    return found ? OK : NOT_FOUND;
}

/* Field values */
typedef struct { unsigned field, scope; long long stamp, latency; int type, code; value_t value; } field_t;
enum { TYPE_UINT = 1, TYPE_ULL = 3 };
static int field_code(unsigned field) {
    for (const char *rule = getenv("FAKE_NVML_FIELD_FAIL"); rule && *rule;) {
        unsigned named_field;
        int code;
        if (sscanf(rule, "%u:%d", &named_field, &code) == 2 && named_field == field) return code;
        rule = strchr(rule, ',');
        if (rule) rule++;
    }
    return OK;
}
ret_t nvmlDeviceGetFieldValues(gpu_t *gpu, int count, field_t *fields) {
    SCRIPTED
    WHOLE_GPU_ONLY(gpu)
    static const char *slowdown_causes[] = {"sw_thermal", "hw_thermal", "hw_power_brake"};
    unsigned slowdowns = generation()->slowdowns;
    unsigned long long ns = (unsigned long long)(since_start() * 1e9);
    for (int i = 0; i < count; i++) {
        field_t *f = &fields[i];
        f->type = TYPE_ULL;
        f->code = field_code(f->field);
        switch (f->field) {
        case 3: f->value.ull = (unsigned long long)(since_start() * number("FAKE_NVML_ECC", 0)); break;
        case 4: case 142: case 143: f->value.ull = 0; break;
        case 74: f->value.ull = throttled_ns("power_cap"); break;
        case 75: f->value.ull = throttled_ns("sw_thermal"); break;
        case 76: f->value.ull = throttled_ns("sync_boost"); break;
        case 77: f->value.ull = throttled_ns("board_limit"); break;
        case 79: f->value.ull = throttled_ns("reliability"); break;
        case 83:
            f->value.ull = millijoules(gpu);
            if (getenv("FAKE_NVML_ENERGY32")) {
                f->type = TYPE_UINT;
                f->value.u = (unsigned)millijoules(gpu);
            }
            break;
        case 185:
            f->type = TYPE_UINT;
            f->value.u = (unsigned)lround(1000 * watts(gpu));
            if (capability() <= 80) f->code = NOT_SUPPORTED;
            break;
        case 186: f->type = TYPE_UINT; f->value.u = (unsigned)lround(1000 * watts(gpu)); break;
        case 197: f->value.ull = ns / 1000; break;     /* 1 MB/s */
        case 198: f->value.ull = ns / 500; break;      /* 2 MB/s */
        default:
            if (slowdowns && f->field - slowdowns < 3) f->value.ull = throttled_ns(slowdown_causes[f->field - slowdowns]);
            else if (f->field - generation()->smoothing < 18) f->value.ull = 1;
            else f->code = NOT_SUPPORTED;
        }
        if (f->field == (unsigned)number("FAKE_NVML_FIELD_OTHER", -1)) f->field = 9999;
    }
    return OK;
}

/* GPM */
typedef struct { unsigned version, supported; } gpm_support_t;
typedef struct { char *names[3]; } metric_info_t;
typedef struct { unsigned id; int code; double value; metric_info_t info; } gpm_metric_t;
typedef struct { unsigned version, count; void *first, *second; gpm_metric_t metrics[]; } gpm_request_t;
typedef struct { double at; int instance; } gpm_sample_t;
ret_t nvmlGpmQueryDeviceSupport(gpu_t *gpu, gpm_support_t *support) {
    (void)gpu; SCRIPTED support->supported = (unsigned)number("FAKE_NVML_GPM", 1); return OK;
}
ret_t nvmlGpmSampleAlloc(gpm_sample_t **sample) { SCRIPTED *sample = calloc(1, sizeof **sample); return OK; }
ret_t nvmlGpmSampleFree(gpm_sample_t *sample) { SCRIPTED free(sample); return OK; }
ret_t nvmlGpmSampleGet(gpu_t *gpu, gpm_sample_t *sample) {
    SCRIPTED
    if (gpu->instance >= 0) return INVALID;
    sample->at = now();
    sample->instance = -1;
    return OK;
}
ret_t nvmlGpmMigSampleGet(gpu_t *gpu, unsigned instance, gpm_sample_t *sample) {
    SCRIPTED
    if (gpu->instance >= 0) return INVALID;
    sample->at = now();
    sample->instance = (int)instance;
    return OK;
}
ret_t nvmlGpmMetricsGet(gpm_request_t *request) {
    SCRIPTED
    gpm_sample_t *first = request->first, *second = request->second;
    if (second->at <= first->at) return INVALID;
    for (unsigned i = 0; i < request->count; i++) {
        gpm_metric_t *m = &request->metrics[i];
        m->code = OK;
        switch (m->id) {
        case 1: m->value = 90; break;
        case 2: m->value = second->instance < 0 ? 12.5 : 50 + second->instance; break;
        case 3: m->value = 6.25; break;
        case 5: m->value = 2; break;
        case 7: m->value = 1; break;
        case 10: m->value = 5; break;
        case 12: m->value = 3; break;
        case 20: m->value = 8; break;
        case 21: m->value = getenv("FAKE_NVML_NAN") ? NAN : 4; break;
        default: m->code = NOT_SUPPORTED;
        }
    }
    return OK;
}

/* MIG */
ret_t nvmlDeviceGetMigMode(gpu_t *gpu, unsigned *current, unsigned *pending) {
    SCRIPTED
    *current = *pending = gpu->index == 0 && number("FAKE_NVML_MIG", 0) > 0;
    return OK;
}
ret_t nvmlDeviceIsMigDeviceHandle(gpu_t *gpu, unsigned *is) { SCRIPTED *is = gpu->instance >= 0; return OK; }
ret_t nvmlDeviceGetMaxMigDeviceCount(gpu_t *gpu, unsigned *count) { (void)gpu; SCRIPTED *count = 7; return OK; }
ret_t nvmlDeviceGetMigDeviceHandleByIndex(gpu_t *gpu, unsigned index, gpu_t **device) {
    SCRIPTED
    if (gpu->index != 0 || (int)index >= (int)number("FAKE_NVML_MIG", 0)) return NOT_FOUND;
    *device = &mig_devices[index];
    return OK;
}
ret_t nvmlDeviceGetDeviceHandleFromMigDeviceHandle(gpu_t *device, gpu_t **gpu) {
    SCRIPTED *gpu = &gpus[device->index]; return OK;
}
ret_t nvmlDeviceGetGpuInstanceId(gpu_t *device, unsigned *id) { SCRIPTED *id = (unsigned)device->instance; return OK; }

/* Processes and events */
typedef struct { unsigned pid; unsigned long long memory; unsigned instance, compute; } process_t;
/* `others` processes from the id `first` on, and the one with the id `own` unless that is 0. */
static ret_t list(unsigned others, unsigned first, unsigned own, unsigned *count, process_t *processes) {
    unsigned there = others + (own != 0);
    if (there == 0) { *count = 0; return OK; }
    if (!processes || *count < there) { *count = there; return INSUFFICIENT_SIZE; }
    for (unsigned i = 0; i < there; i++) processes[i] = (process_t){i < others ? first + i : own, 1 << 20, 0, 0};
    *count = there;
    return OK;
}
static unsigned own_process(const gpu_t *gpu) { return in_use[gpu->index] ? (unsigned)number("FAKE_NVML_OWN", 0) : 0; }
ret_t nvmlDeviceGetComputeRunningProcesses_v3(gpu_t *gpu, unsigned *count, process_t *processes) {
    SCRIPTED
    unsigned server = (unsigned)number("FAKE_NVML_MPS", 0), others = (unsigned)number("FAKE_NVML_PROCESSES", 0);
    if (getenv("FAKE_NVML_NAMESPACE")) others = 0;
    return list(others, 1000, server ? server : own_process(gpu), count, processes);
}
ret_t nvmlDeviceGetMPSComputeRunningProcesses_v3(gpu_t *gpu, unsigned *count, process_t *processes) {
    SCRIPTED
    int is_shared = getenv("FAKE_NVML_MPS") != NULL;
    return list((unsigned)number("FAKE_NVML_MPS_OTHERS", 0), 2000, is_shared ? own_process(gpu) : 0, count, processes);
}
ret_t nvmlSystemGetProcessName(unsigned pid, char *name, unsigned length) {
    SCRIPTED
    if (number("FAKE_NVML_NAMES", 1) == 0) return NOT_FOUND;
    snprintf(name, length, pid == (unsigned)number("FAKE_NVML_MPS", 0) ? "nvidia-cuda-mps-server" : "python");
    return OK;
}
typedef struct { gpu_t *gpu; unsigned long long type, data; unsigned instance, compute; } event_t;
ret_t nvmlEventSetCreate(void **set) { static int it; SCRIPTED *set = &it; return OK; }
ret_t nvmlDeviceRegisterEvents(gpu_t *gpu, unsigned long long types, void *set) {
    (void)types; (void)set; SCRIPTED return gpu->instance >= 0 ? INVALID : OK;
}
ret_t nvmlEventSetFree(void *set) { (void)set; SCRIPTED return OK; }
ret_t nvmlEventSetWait_v2(void *set, event_t *event, unsigned timeout) {
    (void)set; (void)timeout;
    SCRIPTED
    static int told;
    /* Not at once, so that it falls into training. */
    if (!getenv("FAKE_NVML_XID") || told || since_start() < 1.0) return TIMEOUT;
    told = 1;
    *event = (event_t){NULL, 8, (unsigned long long)number("FAKE_NVML_XID", 0), (unsigned)number("FAKE_NVML_XID_INSTANCE", -1), 0};
    return OK;
}
#endif
