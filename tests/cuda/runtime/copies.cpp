// Copies. Between device and pinned memory they wait in their queue, and read when it is their turn.
#include <stdlib.h>
#include <string.h>

#include "runtime.h"

// What CUDA does with memory that is not pinned: what comes from there is put aside at once, and who
// copies to there waits. Neither can be captured.
static cudaError_t copy_pageable(void* to, const void* from, size_t bytes, Stream* stream, const char* what) {
  if (auto error = no_wait(stream, "a copy of memory that is not pinned, while capturing")) return error;
  if (kind_of(from) == Kind::pageable) {
    auto aside = std::make_shared<std::vector<char>>((const char*)from, (const char*)from + bytes);
    return add(stream, [=] { memcpy(to, aside->data(), bytes); }, what);
  }
  if (auto error = add(stream, [=] { memcpy(to, from, bytes); }, what)) return error;
  Unlocked unlocked;
  finish(stream, stream->pushed);
  return cudaSuccess;
}

static cudaError_t copy(void* to, const void* from, size_t bytes, Stream* stream, const char* what) {
  if (!bytes) return cudaSuccess;
  if (kind_of(to) == Kind::pageable || kind_of(from) == Kind::pageable)
    return copy_pageable(to, from, bytes, stream, what);
  return add(stream, [=] { memmove(to, from, bytes); }, what);
}

EXPORT cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind, cudaStream_t on) {
  return copy(to, from, bytes, stream_of(on), "cudaMemcpyAsync");
}

EXPORT cudaError_t cudaMemcpyPeerAsync(void* to, int, const void* from, int, size_t bytes, cudaStream_t on) {
  return copy(to, from, bytes, stream_of(on), "cudaMemcpyPeerAsync");
}

EXPORT cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind) {
  if (auto error = unsafe("cudaMemcpy")) return error;
  if (auto error = copy(to, from, bytes, &default_stream, "cudaMemcpy")) return error;
  Unlocked unlocked;
  finish(&default_stream, default_stream.pushed);
  return cudaSuccess;
}

EXPORT cudaError_t cudaMemcpy2DAsync(void* to, size_t to_pitch, const void* from, size_t from_pitch, size_t width,
                                     size_t height, cudaMemcpyKind, cudaStream_t on) {
  auto rows = [=] {
    for (size_t i = 0; i < height; i++) memmove((char*)to + i * to_pitch, (const char*)from + i * from_pitch, width);
  };
  return add(stream_of(on), rows, "cudaMemcpy2DAsync");
}

EXPORT cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t on) {
  return add(stream_of(on), [=] { memset(to, value, bytes); }, "cudaMemsetAsync");
}

EXPORT cudaError_t cudaMemset(void* to, int value, size_t bytes) {
  if (auto error = unsafe("cudaMemset")) return error;
  return add(&default_stream, [=] { memset(to, value, bytes); }, "cudaMemset");
}

// Constants that kernels read: there are no kernels.
EXPORT cudaError_t cudaMemcpyToSymbol(const void*, const void*, size_t, size_t, cudaMemcpyKind) { return cudaSuccess; }

EXPORT cudaError_t cudaGetSymbolAddress(void** address, const void*) { return take(address, 4096, Kind::device); }
