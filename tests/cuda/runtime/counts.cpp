// What has happened, and errors.
//
// Counts are written to a file for each process in the folder STAND_IN_COUNTS, again whenever one
// changes that matters: processes of a ring are ended in ways that leave no time for it.
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "runtime.h"

Counts counts;
static thread_local cudaError_t last = cudaSuccess;

double setting(const char* name, double otherwise) {
  const char* value = getenv(name);
  return value && *value ? atof(value) : otherwise;
}

void write_counts() {
  const char* folder = getenv("STAND_IN_COUNTS");
  if (!folder || !*folder) return;
  Lock lock(state);
  char name[4096], line[256];
  snprintf(name, sizeof name, "%s/%d", folder, getpid());
  int file = open(name, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
  if (file < 0) return;
  // They only grow, so that a line always covers the one before.
  int length = snprintf(line, sizeof line, "kernels=%ld launched=%ld captured=%ld illegal=%ld unseen=%ld\n",
                        counts.kernels, counts.launched, counts.captured, counts.illegal, counts.unseen);
  if (write(file, line, length) != length) perror("stand-in: counts");
  close(file);
}

cudaError_t refuse(cudaError_t error, const char* what) {
  {
    Lock lock(state);
    counts.illegal++;
  }
  fprintf(stderr, "stand-in: %s: %s\n", what, cudaGetErrorString(error));
  write_counts();
  return answer(error);
}

cudaError_t answer(cudaError_t error) { return last = error; }

EXPORT cudaError_t cudaGetLastError() {
  auto error = last;
  last = cudaSuccess;
  return error;
}

EXPORT cudaError_t cudaPeekAtLastError() { return last; }

EXPORT const char* cudaGetErrorName(cudaError_t) { return "cudaErrorOfTheStandIn"; }

EXPORT const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaErrorMemoryAllocation: return "out of memory";
    case cudaErrorNotReady: return "device not ready";
    case cudaErrorInvalidValue: return "invalid argument";
    case cudaErrorInvalidConfiguration: return "invalid configuration argument";
    case cudaErrorInvalidResourceHandle: return "invalid resource handle";
    case cudaErrorIllegalState: return "the operation cannot be performed in the present state";
    case cudaErrorCapturedEvent: return "operation not permitted on an event last recorded in a capturing stream";
    case cudaErrorStreamCaptureUnsupported: return "operation not permitted when stream is capturing";
    case cudaErrorStreamCaptureInvalidated: return "operation failed due to a previous error during capture";
    case cudaErrorStreamCaptureUnjoined: return "capturing stream has unjoined work";
    case cudaErrorStreamCaptureIsolation: return "dependency created on uncaptured work in another stream";
    case cudaErrorStreamCaptureImplicit: return "operation would make the legacy stream depend on a capturing blocking stream";
    case cudaErrorStreamCaptureWrongThread: return "attempt to terminate a thread-local capture sequence from another thread";
    default: break;
  }
  static thread_local char text[48];
  snprintf(text, sizeof text, "error %d", (int)error);
  return text;
}
