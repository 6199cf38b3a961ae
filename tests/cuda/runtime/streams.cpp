// CUDA's functions for streams. The queues themselves are in queues.cpp.
#include "runtime.h"

EXPORT cudaError_t cudaStreamCreateWithPriority(cudaStream_t* made, unsigned, int priority) {
  Lock lock(state);
  auto stream = new Stream;
  stream->priority = priority;
  streams.insert(stream);
  *made = (cudaStream_t)stream;
  return cudaSuccess;
}

EXPORT cudaError_t cudaStreamCreate(cudaStream_t* made) { return cudaStreamCreateWithPriority(made, 0, 0); }

// Its memory stays, for tasks and events may still name it.
EXPORT cudaError_t cudaStreamDestroy(cudaStream_t handle) {
  auto stream = stream_of(handle);
  Lock lock(state);
  streams.erase(stream);
  return cudaSuccess;
}

EXPORT cudaError_t cudaStreamGetPriority(cudaStream_t handle, int* priority) {
  *priority = stream_of(handle)->priority;
  return cudaSuccess;
}

EXPORT cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
  *least = 0;
  *greatest = -5;
  return cudaSuccess;
}

EXPORT cudaError_t cudaStreamSynchronize(cudaStream_t handle) {
  auto stream = stream_of(handle);
  if (auto error = no_wait(stream, "cudaStreamSynchronize")) return error;
  if (auto error = unsafe("cudaStreamSynchronize")) return error;
  Unlocked unlocked;
  finish(stream, stream->pushed);
  return cudaSuccess;
}

EXPORT cudaError_t cudaDeviceSynchronize() {
  if (auto error = unsafe("cudaDeviceSynchronize")) return error;
  finish_all();
  return cudaSuccess;
}

// Who asks often enough is told that it is done at last, for no other thread does it meanwhile.
EXPORT cudaError_t cudaStreamQuery(cudaStream_t handle) {
  auto stream = stream_of(handle);
  if (auto error = no_wait(stream, "cudaStreamQuery")) return error;
  if (auto error = unsafe("cudaStreamQuery")) return error;
  long upto;
  {
    static int asked = 0;
    Lock lock(state);
    if (stream->done >= stream->pushed) return cudaSuccess;
    if (++asked % 3) return cudaErrorNotReady;
    upto = stream->pushed;
  }
  Unlocked unlocked;
  finish(stream, upto);
  return cudaSuccess;
}

EXPORT cudaError_t cudaStreamAddCallback(cudaStream_t handle, cudaStreamCallback_t called, void* with, unsigned) {
  return add(stream_of(handle), [=] { called(handle, cudaSuccess, with); }, "cudaStreamAddCallback");
}

EXPORT cudaError_t cudaLaunchHostFunc(cudaStream_t handle, cudaHostFn_t called, void* with) {
  return add(stream_of(handle), [=] { called(with); }, "cudaLaunchHostFunc");
}
