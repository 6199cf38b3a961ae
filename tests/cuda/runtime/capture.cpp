// Capture of a stream, and what is illegal meanwhile.
#include "runtime.h"

static thread_local cudaStreamCaptureMode own_mode = cudaStreamCaptureModeGlobal;
static unsigned long long next_id = 1;

static bool is_capturing(Stream* stream, cudaStreamCaptureMode mode, bool of_this_thread) {
  return stream->graph && stream->origin && stream->mode == mode &&
         (!of_this_thread || stream->owner == std::this_thread::get_id());
}

cudaError_t unsafe(const char* what) {
  Lock lock(state);
  if (own_mode == cudaStreamCaptureModeRelaxed) return cudaSuccess;
  bool bad = false;
  for (auto stream : streams)
    bad = bad || is_capturing(stream, cudaStreamCaptureModeThreadLocal, true) ||
          is_capturing(stream, cudaStreamCaptureModeGlobal, own_mode == cudaStreamCaptureModeThreadLocal);
  if (!bad) return cudaSuccess;
  for (auto stream : streams)
    if (stream->graph && stream->origin && stream->owner == std::this_thread::get_id()) stream->graph->broken = true;
  return refuse(cudaErrorStreamCaptureUnsupported, what);
}

cudaError_t no_wait(Stream* stream, const char* what) {
  Lock lock(state);
  if (!stream->graph) return cudaSuccess;
  stream->graph->broken = true;
  return refuse(cudaErrorStreamCaptureUnsupported, what);
}

// The default stream waits for all others, so it cannot be used while one is captured.
static Stream* in_the_way_of_the_default_stream() {
  for (auto stream : streams) {
    if (!stream->graph || !stream->origin || stream->mode == cudaStreamCaptureModeRelaxed) continue;
    if (stream->mode == cudaStreamCaptureModeGlobal || stream->owner == std::this_thread::get_id()) return stream;
  }
  return nullptr;
}

cudaError_t add(Stream* stream, Work work, const char* what, bool kernel) {
  {
    Lock lock(state);
    if (auto& graph = stream->graph) {
      if (graph->broken) return refuse(cudaErrorStreamCaptureInvalidated, what);
      if (work) graph->nodes.push_back(std::move(work));
      if (kernel) graph->kernels++;
      stream->captured++;
      return cudaSuccess;
    }
    if (stream == &default_stream)
      if (auto other = in_the_way_of_the_default_stream()) {
        other->graph->broken = true;
        return refuse(cudaErrorStreamCaptureImplicit, what);
      }
  }
  if (!work) return cudaSuccess;
  Task task;
  task.work = std::move(work);
  push(stream, std::move(task));
  return cudaSuccess;
}

EXPORT cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode* mode) {
  std::swap(*mode, own_mode);
  return cudaSuccess;
}

EXPORT cudaError_t cudaStreamBeginCapture(cudaStream_t handle, cudaStreamCaptureMode mode) {
  auto stream = stream_of(handle);
  Lock lock(state);
  if (stream == &default_stream) return refuse(cudaErrorStreamCaptureUnsupported, "capture of the default stream");
  if (stream->graph) return refuse(cudaErrorIllegalState, "cudaStreamBeginCapture");
  stream->graph = std::make_shared<Graph>();
  stream->graph->id = next_id++;
  stream->origin = true;
  stream->mode = mode;
  stream->owner = std::this_thread::get_id();
  return cudaSuccess;
}

// Whether work was captured on another stream that nothing has waited for since.
static bool is_unjoined(const std::shared_ptr<Graph>& graph) {
  for (auto stream : streams)
    if (stream->graph == graph && !stream->origin && stream->joined < stream->captured) return true;
  return false;
}

static cudaError_t end_refusal(Stream* stream) {
  if (stream->mode != cudaStreamCaptureModeRelaxed && stream->owner != std::this_thread::get_id())
    return refuse(cudaErrorStreamCaptureWrongThread, "cudaStreamEndCapture");
  if (stream->graph->broken) return refuse(cudaErrorStreamCaptureInvalidated, "cudaStreamEndCapture");
  if (is_unjoined(stream->graph)) return refuse(cudaErrorStreamCaptureUnjoined, "cudaStreamEndCapture");
  return cudaSuccess;
}

EXPORT cudaError_t cudaStreamEndCapture(cudaStream_t handle, cudaGraph_t* made) {
  auto stream = stream_of(handle);
  Lock lock(state);
  *made = nullptr;
  if (!stream->graph || !stream->origin) return refuse(cudaErrorIllegalState, "cudaStreamEndCapture");
  auto error = end_refusal(stream);
  if (error == cudaErrorStreamCaptureWrongThread) return error;
  auto graph = stream->graph;
  for (auto other : streams)
    if (other->graph == graph) {
      other->graph = nullptr;
      other->origin = false;
    }
  if (error) return error;
  counts.captured++;
  write_counts();
  *made = (cudaGraph_t) new std::shared_ptr<Graph>(graph);
  return cudaSuccess;
}

EXPORT cudaError_t cudaStreamIsCapturing(cudaStream_t handle, cudaStreamCaptureStatus* status) {
  auto stream = stream_of(handle);
  Lock lock(state);
  *status = !stream->graph            ? cudaStreamCaptureStatusNone
            : stream->graph->broken ? cudaStreamCaptureStatusInvalidated
                                    : cudaStreamCaptureStatusActive;
  return cudaSuccess;
}

EXPORT cudaError_t cudaStreamGetCaptureInfo(cudaStream_t handle, cudaStreamCaptureStatus* status, unsigned long long* id,
                                            cudaGraph_t* graph, const cudaGraphNode_t** depends,
                                            const cudaGraphEdgeData** edges, size_t* count) {
  cudaStreamIsCapturing(handle, status);
  auto stream = stream_of(handle);
  if (id) *id = stream->graph ? stream->graph->id : 0;
  if (graph) *graph = nullptr;  // nobody adds nodes by hand
  if (depends) *depends = nullptr;
  if (edges) *edges = nullptr;
  if (count) *count = 0;
  return cudaSuccess;
}
