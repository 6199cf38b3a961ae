// What this runtime does not have: pools of memory of its own, and memory shared by processes.
//
// Without the headers, whose declarations these do not agree with.
#define UNAVAILABLE(name)                                          \
  extern "C" __attribute__((visibility("default"))) int name() { \
    return 801; /* cudaErrorNotSupported */                        \
  }

UNAVAILABLE(cudaDeviceGetDefaultMemPool)
UNAVAILABLE(cudaFreeAsync)
UNAVAILABLE(cudaIpcCloseMemHandle)
UNAVAILABLE(cudaIpcGetEventHandle)
UNAVAILABLE(cudaIpcGetMemHandle)
UNAVAILABLE(cudaIpcOpenEventHandle)
UNAVAILABLE(cudaIpcOpenMemHandle)
UNAVAILABLE(cudaMallocAsync)
UNAVAILABLE(cudaMemPoolGetAttribute)
UNAVAILABLE(cudaMemPoolSetAccess)
UNAVAILABLE(cudaMemPoolSetAttribute)
UNAVAILABLE(cudaMemPoolTrimTo)
