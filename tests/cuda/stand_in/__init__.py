"""Values for the stand-in for a GPU: what the kernels of the real torch would compute.

The runtime (`../runtime/`, C++) is what torch's CUDA build calls instead of CUDA: it has memory,
streams, events, captures and graphs, and its kernels do nothing. Here, each operation on "cuda"
runs for real first (so that torch checks what it always checks, takes memory, and launches), and
then the same operation is queued on the processor, over the same memory. A graph that is captured
holds those too, so what it replays has values.

What that shows: that what is recorded can be recorded; that nothing is read before it is there, or
written over before it is read; that memory is where it should be; that copies and events are
used as CUDA wants it. What it does not: bits and speed of real kernels, how much memory CUDA takes
for itself, and several devices. bitsandbytes, and kernels that are compiled when they are needed
(Triton, NVRTC), do not run at all.
"""
