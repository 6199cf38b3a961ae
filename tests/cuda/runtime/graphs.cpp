// Graphs, once they have been captured. A launch does all nodes in the order of their capture.
#include "runtime.h"

using Captured = std::shared_ptr<Graph>;
using Launchable = std::shared_ptr<Nodes>;

EXPORT cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t* made, cudaGraph_t graph, unsigned long long) {
  *made = (cudaGraphExec_t) new Launchable(std::make_shared<Nodes>((*(Captured*)graph)->nodes));
  return cudaSuccess;
}

EXPORT cudaError_t cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t on) {
  Launchable nodes = *(Launchable*)graph;  // may be destroyed before its turn
  {
    Lock lock(state);
    counts.launched++;
  }
  write_counts();
  return add(stream_of(on), [nodes] { for (auto& node : *nodes) node(); }, "cudaGraphLaunch");
}

EXPORT cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete (Captured*)graph;
  return cudaSuccess;
}

EXPORT cudaError_t cudaGraphExecDestroy(cudaGraphExec_t graph) {
  if (auto error = unsafe("cudaGraphExecDestroy")) return error;
  delete (Launchable*)graph;
  return cudaSuccess;
}

// torch asks only whether there are any.
EXPORT cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t*, size_t* count) {
  auto& captured = **(Captured*)graph;
  *count = captured.nodes.size() + captured.kernels;
  return cudaSuccess;
}

EXPORT cudaError_t cudaGraphNodeGetDependencies(cudaGraphNode_t, cudaGraphNode_t*, cudaGraphEdgeData*, size_t* count) {
  *count = 0;
  return cudaSuccess;
}

EXPORT cudaError_t cudaGraphDebugDotPrint(cudaGraph_t, const char*, unsigned) { return cudaSuccess; }
