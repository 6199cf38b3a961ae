// cuBLAS: every call succeeds, and nothing is computed (Python queues the values, as for kernels).
//
// The headers of cuBLAS are not needed: callers look only at what is returned.
#include <stdlib.h>
#include <string.h>

#define EXPORT extern "C" __attribute__((visibility("default")))
#define SUCCEEDS(name) \
  EXPORT int name() { return 0; }
#define MAKES(name)             \
  EXPORT int name(void** made) { \
    *made = calloc(1, 256);     \
    return 0;                   \
  }

SUCCEEDS(cublasDestroy_v2)
SUCCEEDS(cublasSetAtomicsMode)
SUCCEEDS(cublasSetMathMode)
SUCCEEDS(cublasSetPointerMode_v2)
SUCCEEDS(cublasSetStream_v2)
SUCCEEDS(cublasSetWorkspace_v2)
SUCCEEDS(cublasDdot_v2)
SUCCEEDS(cublasDgemmStridedBatched)
SUCCEEDS(cublasDgemm_v2)
SUCCEEDS(cublasDgemv_v2)
SUCCEEDS(cublasDotEx)
SUCCEEDS(cublasGemmEx)
SUCCEEDS(cublasGemmStridedBatchedEx)
SUCCEEDS(cublasSdot_v2)
SUCCEEDS(cublasSgemmEx)
SUCCEEDS(cublasSgemmStridedBatched)
SUCCEEDS(cublasSgemm_v2)
SUCCEEDS(cublasSgemv_v2)
SUCCEEDS(cublasLtMatmul)
SUCCEEDS(cublasLtMatmulDescDestroy)
SUCCEEDS(cublasLtMatmulDescSetAttribute)
SUCCEEDS(cublasLtMatmulPreferenceDestroy)
SUCCEEDS(cublasLtMatmulPreferenceSetAttribute)
SUCCEEDS(cublasLtMatrixLayoutDestroy)
SUCCEEDS(cublasLtMatrixLayoutSetAttribute)
MAKES(cublasCreate_v2)
MAKES(cublasLtCreate)
MAKES(cublasLtMatmulDescCreate)
MAKES(cublasLtMatmulPreferenceCreate)
MAKES(cublasLtMatrixLayoutCreate)

EXPORT size_t cublasLtGetVersion() { return 130100; }

EXPORT int cublasGetMathMode(void*, int* mode) {
  *mode = 0;
  return 0;
}

EXPORT int cublasGetPointerMode_v2(void*, int* mode) {
  *mode = 0;
  return 0;
}

// One algorithm, which needs nothing.
EXPORT int cublasLtMatmulAlgoGetHeuristic(void*, void*, void*, void*, void*, void*, void*, int, void* found, int* count) {
  memset(found, 0, 64);
  *count = 1;
  return 0;
}
