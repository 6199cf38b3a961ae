// What the parts of the stand-in for CUDA's runtime share.
//
// torch is loaded as it was built for CUDA, and these functions take the place of those of the same
// names in libcudart and libcublas (LD_PRELOAD). Memory, streams, events, capture and graphs do here
// what the documentation of CUDA says, on the processor. Kernels do nothing: what they would compute
// is queued beside them by Python (see tests/cuda/stand_in/).
#pragma once
#include <cuda_runtime_api.h>

#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <thread>
#include <vector>

#define EXPORT extern "C" __attribute__((visibility("default")))

using Work = std::function<void()>;
using Nodes = std::vector<Work>;
using Lock = std::lock_guard<std::recursive_mutex>;

// Guards everything below, and is never held while work is done: work takes Python's lock, and who
// has that one may be waiting for this one.
extern std::recursive_mutex state;

// ---- counts.cpp: what has happened in this process, for whoever checks a run

struct Counts {
  long kernels, launched, captured, illegal, unseen;
};
extern Counts counts;
void write_counts();
// A call that CUDA refuses: counted, said, and remembered as the last error of this thread.
cudaError_t refuse(cudaError_t error, const char* what);
// An error that a sound program may meet, such as that memory has run out.
cudaError_t answer(cudaError_t error);
double setting(const char* name, double otherwise);

// ---- queues.cpp: streams and what waits in them

struct Stream;

struct Graph {  // while it is captured
  Nodes nodes;
  unsigned long long id = 0;
  long kernels = 0;
  bool broken = false;  // by something illegal; the end of the capture says so
};

struct Event {
  Stream* on = nullptr;
  long at = 0;  // done when so much of its stream is done
  double when = 0;
  int asked = 0;
  std::shared_ptr<Graph> graph;  // that was being captured when it was recorded
  bool recorded = false, timed = true;
};

struct Task {
  Work work;
  Event* marks = nullptr;
  Stream* other = nullptr;  // to wait for, up to `upto`
  long upto = 0;
};

struct Stream {
  std::deque<Task> queue;
  long pushed = 0, done = 0;
  bool busy = false;  // a task of it is being done, by `worker`
  std::thread::id worker;
  int priority = 0;

  std::shared_ptr<Graph> graph;  // that is being captured here
  bool origin = false;           // begun here, rather than joined by an event
  cudaStreamCaptureMode mode = cudaStreamCaptureModeGlobal;
  std::thread::id owner;
  long captured = 0, joined = 0;  // of a stream that has joined: others have waited for so much
};

extern Stream default_stream;
extern std::set<Stream*> streams;
Stream* stream_of(cudaStream_t handle);
void push(Stream* stream, Task task);
void finish(Stream* stream, long upto);
void finish_all();

// ---- capture.cpp: what is illegal while something is captured

// For calls that CUDA calls potentially unsafe then: those that may wait for the whole device.
cudaError_t unsafe(const char* what);
// For calls that ask about, or wait for, a stream that is being captured.
cudaError_t no_wait(Stream* stream, const char* what);
// Put work on a stream, or into the graph that is captured there.
cudaError_t add(Stream* stream, Work work, const char* what, bool kernel = false);

// ---- memory.cpp

enum class Kind { pageable, pinned, device };
Kind kind_of(const void* address);
cudaError_t take(void** address, size_t bytes, Kind kind);
extern size_t memory_total;

// ---- python.cpp

// Lets go of Python's lock, if this thread has it, for as long as it lives.
class Unlocked {
 public:
  Unlocked();
  ~Unlocked();
  Unlocked(const Unlocked&) = delete;

 private:
  void* saved = nullptr;
};
// Whether this thread is in an operation that Python has seen, and queues the values of.
extern thread_local bool seen;
