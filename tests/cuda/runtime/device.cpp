// The one device: what it says about itself is what an H100 says, where torch asks for it.
#include <stdio.h>
#include <string.h>

#include "runtime.h"

// STAND_IN_CAPABILITY=80, for instance: another compute capability.
static int capability() { return (int)setting("STAND_IN_CAPABILITY", 90); }

EXPORT cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}

EXPORT cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}

EXPORT cudaError_t cudaSetDevice(int) { return cudaSuccess; }

EXPORT cudaError_t cudaDriverGetVersion(int* version) {
  *version = 13000;
  return cudaSuccess;
}

EXPORT cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = 13000;
  return cudaSuccess;
}

EXPORT cudaError_t cudaDeviceGetPCIBusId(char* text, int length, int) {
  snprintf(text, length, "0000:01:00.0");
  return cudaSuccess;
}

static int attribute(cudaDeviceAttr which) {
  switch (which) {
    case cudaDevAttrComputeCapabilityMajor: return capability() / 10;
    case cudaDevAttrComputeCapabilityMinor: return capability() % 10;
    case cudaDevAttrMultiProcessorCount: return 132;
    case cudaDevAttrWarpSize: return 32;
    case cudaDevAttrMaxThreadsPerBlock: return 1024;
    case cudaDevAttrMaxThreadsPerMultiProcessor: return 2048;
    case cudaDevAttrMaxBlocksPerMultiprocessor: return 32;
    case cudaDevAttrMaxSharedMemoryPerBlock: return 49152;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: return 232448;
    case cudaDevAttrMaxGridDimX: return 2147483647;
    case cudaDevAttrMaxGridDimY:
    case cudaDevAttrMaxGridDimZ: return 65535;
    default: return 0;
  }
}

EXPORT cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr which, int) {
  *value = attribute(which);
  return cudaSuccess;
}

EXPORT cudaError_t cudaGetDeviceProperties(cudaDeviceProp* told, int) {
  memset(told, 0, sizeof *told);
  strcpy(told->name, "stand-in for a GPU");
  told->major = capability() / 10;
  told->minor = capability() % 10;
  told->totalGlobalMem = memory_total;
  told->totalConstMem = 65536;
  told->sharedMemPerBlock = 49152;
  told->sharedMemPerBlockOptin = 232448;
  told->sharedMemPerMultiprocessor = 233472;
  told->regsPerBlock = told->regsPerMultiprocessor = 65536;
  told->warpSize = 32;
  told->multiProcessorCount = 132;
  told->maxThreadsPerBlock = 1024;
  told->maxThreadsPerMultiProcessor = 2048;
  told->maxBlocksPerMultiProcessor = 32;
  told->maxThreadsDim[0] = told->maxThreadsDim[1] = 1024;
  told->maxThreadsDim[2] = 64;
  told->maxGridSize[0] = 2147483647;
  told->maxGridSize[1] = told->maxGridSize[2] = 65535;
  told->l2CacheSize = 50 << 20;
  told->textureAlignment = 512;
  told->unifiedAddressing = told->concurrentKernels = 1;
  told->asyncEngineCount = 3;
  return cudaSuccess;
}

EXPORT cudaError_t cudaDeviceCanAccessPeer(int* can, int, int) {
  *can = 0;
  return cudaSuccess;
}

EXPORT cudaError_t cudaDeviceEnablePeerAccess(int, unsigned) { return cudaErrorInvalidDevice; }
EXPORT cudaError_t cudaProfilerStart() { return cudaSuccess; }
EXPORT cudaError_t cudaProfilerStop() { return cudaSuccess; }

static int not_here() { return cudaErrorNotSupported; }

static int context_is_active(int, unsigned* flags, int* active) {
  if (flags) *flags = 0;
  *active = 1;
  return 0;
}

// What torch asks the driver itself.
EXPORT cudaError_t cudaGetDriverEntryPointByVersion(const char* name, void** found, unsigned, unsigned long long,
                                                    cudaDriverEntryPointQueryResult* result) {
  *found = strcmp(name, "cuDevicePrimaryCtxGetState") == 0 ? (void*)context_is_active : (void*)not_here;
  if (result) *result = cudaDriverEntryPointSuccess;
  return cudaSuccess;
}
