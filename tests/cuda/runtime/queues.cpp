// Streams, and what waits in them.
//
// There is no thread that works queues off. By default, work is done as soon as it is queued, as on
// a device that is quicker than the processor in front of it. With STAND_IN_LAZY=1 nothing is done
// before somebody waits for it, as on a device that is slower: then whoever reads too early, or
// writes over what is still to be read, gets wrong values. Real devices are between the two.
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <condition_variable>

#include "runtime.h"

std::recursive_mutex state;
Stream default_stream;
std::set<Stream*> streams{&default_stream};
static std::condition_variable_any progress;
static const bool lazy = setting("STAND_IN_LAZY", 0) != 0;

Stream* stream_of(cudaStream_t handle) {
  if (handle == nullptr || handle == cudaStreamLegacy || handle == cudaStreamPerThread) return &default_stream;
  Lock lock(state);
  auto stream = (Stream*)handle;
  if (!streams.count(stream)) {
    fprintf(stderr, "stand-in: a stream is used that has been destroyed\n");
    abort();
  }
  return stream;
}

static double milliseconds() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1e3 + now.tv_nsec / 1e6;
}

// Do all of a stream up to there, or wait for the thread that is doing it.
void finish(Stream* stream, long upto) {
  std::unique_lock<std::recursive_mutex> lock(state);
  while (stream->done < upto) {
    if (stream->busy) {
      if (stream->worker == std::this_thread::get_id()) return;  // work that waits for itself
      progress.wait(lock);
      continue;
    }
    if (stream->queue.empty()) return;
    Task task = std::move(stream->queue.front());
    stream->queue.pop_front();
    stream->busy = true;
    stream->worker = std::this_thread::get_id();
    lock.unlock();
    if (task.other) finish(task.other, task.upto);
    if (task.work) task.work();
    lock.lock();
    if (task.marks) task.marks->when = milliseconds();
    stream->done++;
    stream->busy = false;
    progress.notify_all();
  }
}

void push(Stream* stream, Task task) {
  long upto;
  {
    Lock lock(state);
    stream->queue.push_back(std::move(task));
    upto = ++stream->pushed;
  }
  if (lazy) return;
  Unlocked unlocked;
  finish(stream, upto);
}

void finish_all() {
  std::vector<std::pair<Stream*, long>> pending;
  {
    Lock lock(state);
    for (auto stream : streams) pending.push_back({stream, stream->pushed});
  }
  Unlocked unlocked;
  for (auto& [stream, upto] : pending) finish(stream, upto);
}
