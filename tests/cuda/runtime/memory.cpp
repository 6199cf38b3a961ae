// Memory of the device and pinned memory: pages of this process, of which we know what they are.
//
// Whoever uses them after they were given back dies of it, for then they are unmapped. New memory is
// full of what is no number in any type of floats, and -1 in integers.
#include <string.h>
#include <sys/mman.h>

#include <map>

#include "runtime.h"

struct Block {
  size_t bytes;
  Kind kind;
};

static std::map<const char*, Block> blocks;
static size_t used = 0;
size_t memory_total = (size_t)(setting("STAND_IN_GB", 12) * (1 << 30));
static const size_t poisoned = 64 << 20;  // of larger blocks it would take too long

cudaError_t take(void** address, size_t bytes, Kind kind) {
  Lock lock(state);
  if (kind == Kind::device && used + bytes > memory_total) return answer(cudaErrorMemoryAllocation);
  size_t whole = (bytes + 4095) & ~4095ul;
  if (!whole) whole = 4096;
  void* made = mmap(nullptr, whole, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (made == MAP_FAILED) return answer(cudaErrorMemoryAllocation);
  if (whole <= poisoned) memset(made, 0xff, whole);
  blocks[(char*)made] = {whole, kind};
  if (kind == Kind::device) used += whole;
  *address = made;
  return cudaSuccess;
}

// As in CUDA, that waits for the whole device.
static cudaError_t give_back(void* address, const char* what) {
  if (!address) return cudaSuccess;
  if (auto error = unsafe(what)) return error;
  finish_all();
  Lock lock(state);
  auto found = blocks.find((char*)address);
  if (found == blocks.end()) return refuse(cudaErrorInvalidValue, what);
  if (found->second.kind == Kind::device) used -= found->second.bytes;
  munmap(address, found->second.bytes);
  blocks.erase(found);
  return cudaSuccess;
}

Kind kind_of(const void* address) {
  Lock lock(state);
  auto found = blocks.upper_bound((const char*)address);
  if (found == blocks.begin()) return Kind::pageable;
  --found;
  return (const char*)address < found->first + found->second.bytes ? found->second.kind : Kind::pageable;
}

EXPORT cudaError_t cudaMalloc(void** address, size_t bytes) {
  if (auto error = unsafe("cudaMalloc")) return error;
  return take(address, bytes, Kind::device);
}

EXPORT cudaError_t cudaHostAlloc(void** address, size_t bytes, unsigned) {
  if (auto error = unsafe("cudaHostAlloc")) return error;
  return take(address, bytes, Kind::pinned);
}

EXPORT cudaError_t cudaFree(void* address) { return give_back(address, "cudaFree"); }

EXPORT cudaError_t cudaFreeHost(void* address) { return give_back(address, "cudaFreeHost"); }

EXPORT cudaError_t cudaHostRegister(void* address, size_t bytes, unsigned) {
  Lock lock(state);
  blocks[(char*)address] = {bytes, Kind::pinned};
  return cudaSuccess;
}

EXPORT cudaError_t cudaHostUnregister(void* address) {
  Lock lock(state);
  blocks.erase((char*)address);
  return cudaSuccess;
}

EXPORT cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  Lock lock(state);
  *free = memory_total - used;
  *total = memory_total;
  return cudaSuccess;
}

EXPORT cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* told, const void* address) {
  auto kind = kind_of(address);
  memset(told, 0, sizeof *told);
  told->type = kind == Kind::device   ? cudaMemoryTypeDevice
               : kind == Kind::pinned ? cudaMemoryTypeHost
                                      : cudaMemoryTypeUnregistered;
  told->device = kind == Kind::pageable ? -2 : 0;
  if (kind != Kind::pageable) told->devicePointer = (void*)address;
  if (kind == Kind::pinned) told->hostPointer = (void*)address;
  return cudaSuccess;
}
