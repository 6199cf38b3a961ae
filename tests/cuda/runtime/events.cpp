// CUDA's functions for events.
#include "runtime.h"

EXPORT cudaError_t cudaEventCreateWithFlags(cudaEvent_t* made, unsigned flags) {
  auto event = new Event;
  event->timed = !(flags & cudaEventDisableTiming);
  *made = (cudaEvent_t)event;
  return cudaSuccess;
}

EXPORT cudaError_t cudaEventCreate(cudaEvent_t* made) { return cudaEventCreateWithFlags(made, 0); }

// Its memory stays, for tasks may still mark it.
EXPORT cudaError_t cudaEventDestroy(cudaEvent_t) { return cudaSuccess; }

EXPORT cudaError_t cudaEventRecordWithFlags(cudaEvent_t handle, cudaStream_t on, unsigned) {
  auto event = (Event*)handle;
  auto stream = stream_of(on);
  {
    Lock lock(state);
    event->recorded = true;
    event->asked = 0;
    event->graph = stream->graph;
    event->on = stream;
    if (stream->graph) {
      event->at = stream->captured;
      return stream->graph->broken ? refuse(cudaErrorStreamCaptureInvalidated, "cudaEventRecord") : cudaSuccess;
    }
    event->at = stream->pushed + 1;
  }
  Task task;
  task.marks = event;
  push(stream, task);
  return cudaSuccess;
}

EXPORT cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t on) { return cudaEventRecordWithFlags(event, on, 0); }

static cudaError_t may_ask(Event* event, const char* what) {
  if (event->graph) return refuse(cudaErrorCapturedEvent, what);
  return unsafe(what);
}

EXPORT cudaError_t cudaEventSynchronize(cudaEvent_t handle) {
  auto event = (Event*)handle;
  if (auto error = may_ask(event, "cudaEventSynchronize")) return error;
  if (!event->on) return cudaSuccess;
  Unlocked unlocked;
  finish(event->on, event->at);
  return cudaSuccess;
}

// As with cudaStreamQuery, who asks often enough is told that it has happened.
EXPORT cudaError_t cudaEventQuery(cudaEvent_t handle) {
  auto event = (Event*)handle;
  if (auto error = may_ask(event, "cudaEventQuery")) return error;
  {
    Lock lock(state);
    if (!event->on || event->on->done >= event->at) return cudaSuccess;
    if (++event->asked < 4) return cudaErrorNotReady;
  }
  Unlocked unlocked;
  finish(event->on, event->at);
  return cudaSuccess;
}

static bool has_a_time(Event* event) { return event->timed && event->recorded && !event->graph; }

EXPORT cudaError_t cudaEventElapsedTime(float* ms, cudaEvent_t from, cudaEvent_t to) {
  auto first = (Event*)from, second = (Event*)to;
  Lock lock(state);
  if (!has_a_time(first) || !has_a_time(second)) return refuse(cudaErrorInvalidResourceHandle, "cudaEventElapsedTime");
  for (auto event : {first, second})
    if (event->on->done < event->at) return refuse(cudaErrorNotReady, "cudaEventElapsedTime");
  *ms = (float)(second->when - first->when);
  return cudaSuccess;
}

// While something is captured, this is how another stream joins the capture, and is joined again.
static cudaError_t wait_captured(Stream* stream, Event* event) {
  if (stream->graph && stream->graph != event->graph) {
    stream->graph->broken = true;
    return refuse(cudaErrorStreamCaptureIsolation, "a captured stream waits for one of another capture");
  }
  if (!stream->graph) {
    stream->graph = event->graph;
    stream->origin = false;
    stream->captured = stream->joined = 0;
  }
  if (event->on->joined < event->at) event->on->joined = event->at;
  return cudaSuccess;
}

EXPORT cudaError_t cudaStreamWaitEvent(cudaStream_t waits, cudaEvent_t handle, unsigned) {
  auto event = (Event*)handle;
  auto stream = stream_of(waits);
  {
    Lock lock(state);
    if (event->graph) return wait_captured(stream, event);
    if (stream->graph) {
      stream->graph->broken = true;
      return refuse(cudaErrorStreamCaptureIsolation, "a captured stream waits for one that is not");
    }
  }
  if (!event->on || event->on == stream) return cudaSuccess;
  Task task;
  task.other = event->on;
  task.upto = event->at;
  push(stream, task);
  return cudaSuccess;
}
