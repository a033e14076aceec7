/* A stand-in for NVIDIA's libnvidia-ml.so.1: two GPUs. $FAKE_GPUS/GPU-0 and GPU-1 hold the megabytes in use, if they are there. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct { unsigned pid; unsigned long long used; unsigned gi, ci; } process_t;
typedef struct { unsigned long long total, free, used; } memory_t;

static int devices[2] = {0, 1};

static unsigned long long used(int index) {
    char path[4096];
    unsigned long long megabytes = 0;
    FILE *file;
    snprintf(path, sizeof path, "%s/GPU-%d", getenv("FAKE_GPUS"), index);
    file = fopen(path, "r");
    if (file == NULL) return 0;
    if (fscanf(file, "%llu", &megabytes) != 1) megabytes = 0;
    fclose(file);
    return megabytes << 20;
}

int nvmlInit_v2(void) { return 0; }
int nvmlShutdown(void) { return 0; }
const char *nvmlErrorString(int code) { (void)code; return "Unknown Error"; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 2; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) {
    if (index > 1) return 6;
    *device = &devices[index];
    return 0;
}
int nvmlDeviceGetName(void *device, char *text, unsigned size) { (void)device; snprintf(text, size, "Fake 9000"); return 0; }
int nvmlDeviceGetUUID(void *device, char *text, unsigned size) { snprintf(text, size, "GPU-%d", *(int *)device); return 0; }
int nvmlDeviceGetMemoryInfo(void *device, memory_t *memory) {
    memory->total = 80ull << 30;
    memory->used = used(*(int *)device);
    memory->free = memory->total - memory->used;
    return 0;
}
int nvmlDeviceGetComputeRunningProcesses_v3(void *device, unsigned *count, process_t *table) {
    if (used(*(int *)device) == 0) { *count = 0; return 0; }
    if (*count < 1) { *count = 1; return 7; }
    memset(table, 0, sizeof *table);
    table[0].pid = 1;
    *count = 1;
    return 0;
}
