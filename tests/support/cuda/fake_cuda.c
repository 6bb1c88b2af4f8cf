/* A stand-in for libcuda.so.1 with four calls of the CUDA Driver API (cuda.h): their types, and 0 for success.
 * FAKE_CUDA_INIT is what cuInit returns: 100 is CUDA_ERROR_NO_DEVICE.
 * FAKE_CUDA_VERSION is what cuDriverGetVersion gives; without it the call fails. Device 0 is not the first on the PCI
 * bus. */
#include <stdio.h>
#include <stdlib.h>

static int initialised = 0;

int cuInit(unsigned int flags)
{
    const char *answer = getenv("FAKE_CUDA_INIT");
    int code = answer != NULL ? atoi(answer) : 0;
    initialised = code == 0 && flags == 0;
    return code;
}

int cuDeviceGet(int *device, int ordinal)
{
    if (!initialised)
        return 3; /* CUDA_ERROR_NOT_INITIALIZED */
    if (ordinal < 0 || ordinal > 1)
        return 101; /* CUDA_ERROR_INVALID_DEVICE */
    *device = ordinal + 7;
    return 0;
}

int cuDeviceGetPCIBusId(char *address, int length, int device)
{
    return snprintf(address, length, "0000:%02x:00.0", device == 7 ? 0x65 : 0x17) < length ? 0 : 1;
}

int cuDriverGetVersion(int *version)
{
    const char *answer = getenv("FAKE_CUDA_VERSION");
    if (answer == NULL)
        return 1; /* CUDA_ERROR_INVALID_VALUE */
    *version = atoi(answer);
    return 0;
}
