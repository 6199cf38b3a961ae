// Kernels: that they are launched is counted, and within the bounds of a device; they do nothing.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime.h"

struct Configuration {
  dim3 grid, block;
  size_t shared;
  cudaStream_t stream;
};
static thread_local std::vector<Configuration> configurations;

EXPORT unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared, cudaStream_t stream) {
  configurations.push_back({grid, block, shared, stream});
  return 0;
}

EXPORT cudaError_t __cudaPopCallConfiguration(dim3* grid, dim3* block, size_t* shared, void* stream) {
  auto last = configurations.back();
  configurations.pop_back();
  *grid = last.grid;
  *block = last.block;
  *shared = last.shared;
  *(cudaStream_t*)stream = last.stream;
  return cudaSuccess;
}

static bool fits(dim3 grid, dim3 block, size_t shared) {
  bool some = grid.x && grid.y && grid.z && block.x && block.y && block.z;
  return some && block.x * block.y * block.z <= 1024 && grid.y <= 65535 && grid.z <= 65535 && shared <= 232448;
}

static cudaError_t launch(dim3 grid, dim3 block, size_t shared, cudaStream_t on) {
  {
    Lock lock(state);
    counts.kernels++;
    if (!seen) {  // Python has queued no values for it
      counts.unseen++;
      write_counts();
      fprintf(stderr, "stand-in: a kernel is launched whose values nobody computes\n");
      abort();
    }
  }
  if (!fits(grid, block, shared)) return refuse(cudaErrorInvalidConfiguration, "launch of a kernel");
  return add(stream_of(on), nullptr, "launch of a kernel", true);
}

EXPORT cudaError_t __cudaLaunchKernel(cudaKernel_t, dim3 grid, dim3 block, void**, size_t shared, cudaStream_t on) {
  return launch(grid, block, shared, on);
}

EXPORT cudaError_t cudaLaunchKernel(const void*, dim3 grid, dim3 block, void**, size_t shared, cudaStream_t on) {
  return launch(grid, block, shared, on);
}

EXPORT cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t* how, const void*, void**) {
  return launch(how->gridDim, how->blockDim, how->dynamicSmemBytes, how->stream);
}

EXPORT cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* told, const void*) {
  memset(told, 0, sizeof *told);
  told->ptxVersion = told->binaryVersion = (int)setting("STAND_IN_CAPABILITY", 90);
  told->maxThreadsPerBlock = 1024;
  told->numRegs = 32;
  told->maxDynamicSharedSizeBytes = 100000;
  return cudaSuccess;
}

EXPORT cudaError_t cudaFuncSetAttribute(const void*, cudaFuncAttribute, int) { return cudaSuccess; }

EXPORT cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* blocks, const void*, int, size_t,
                                                                          unsigned) {
  *blocks = 2;
  return cudaSuccess;
}

// What the compiler of CUDA puts into a library to make its kernels known when it is loaded.
EXPORT cudaError_t __cudaGetKernel(cudaKernel_t* kernel, const void* function) {
  *kernel = (cudaKernel_t)function;
  return cudaSuccess;
}
EXPORT void** __cudaRegisterFatBinary(void*) {
  static void* handle[4];
  return handle;
}
EXPORT void __cudaRegisterFatBinaryEnd(void**) {}
EXPORT void __cudaUnregisterFatBinary(void**) {}
EXPORT void __cudaRegisterFunction(void**, const char*, char*, const char*, int, void*, void*, void*, void*, int*) {}
EXPORT void __cudaRegisterVar(void**, char*, char*, const char*, int, size_t, int, int) {}
EXPORT char __cudaInitModule(void**) { return 1; }
