// libcuda.so.1, the driver: torch will not load without it, and asks it for next to nothing.
#define EXPORT extern "C" __attribute__((visibility("default")))
#define UNAVAILABLE(name) \
  EXPORT int name() { return 801; /* CUDA_ERROR_NOT_SUPPORTED */ }

UNAVAILABLE(cuCtxSetCurrent)
UNAVAILABLE(cuDeviceGet)
UNAVAILABLE(cuDeviceGetAttribute)
UNAVAILABLE(cuDevicePrimaryCtxRetain)
UNAVAILABLE(cuFuncGetAttribute)
UNAVAILABLE(cuFuncSetAttribute)
UNAVAILABLE(cuFuncSetCacheConfig)
UNAVAILABLE(cuGetErrorString)
UNAVAILABLE(cuLaunchCooperativeKernel)
UNAVAILABLE(cuLaunchKernel)
UNAVAILABLE(cuLinkAddData_v2)
UNAVAILABLE(cuLinkComplete)
UNAVAILABLE(cuLinkCreate_v2)
UNAVAILABLE(cuModuleGetFunction)
UNAVAILABLE(cuModuleLoad)
UNAVAILABLE(cuModuleLoadData)
UNAVAILABLE(cuModuleLoadDataEx)
UNAVAILABLE(cuModuleUnload)
UNAVAILABLE(cuOccupancyMaxActiveBlocksPerMultiprocessor)
UNAVAILABLE(cuPointerGetAttribute)
UNAVAILABLE(cuTensorMapEncodeTiled)

EXPORT int cuInit(unsigned) { return 0; }

EXPORT int cuCtxGetCurrent(void** context) {
  *context = (void*)8;
  return 0;
}

EXPORT int cuDevicePrimaryCtxGetState(int, unsigned* flags, int* active) {
  if (flags) *flags = 0;
  *active = 1;
  return 0;
}
