"""What llama.cpp does for a benchmark, in the Python that has `llama-cpp-python`.

A script of its own that needs nothing of this project, told over standard input, a JSON object a
line, each answered with one: `{"name of a function": {its arguments}}`.

    python -P benchmarks/llama_child.py                      does as it is told
    python -P benchmarks/llama_child.py serve PORT THREADS   is an RPC server on loopback
"""

import ctypes
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import llama_cpp as llama
import numpy as np

LIBRARIES = Path(llama.__file__).parent / "lib"
CPU = 0  # ggml_backend_dev_type


def _library(name: str) -> Any:
    return ctypes.CDLL(str(LIBRARIES / f"lib{name}.so"))


class Model:
    """The model that was loaded last, and what is done with it."""

    def __init__(self) -> None:
        self._model: Any = None
        self._context: Any = None
        self._sampler = llama.llama_sampler_init_greedy()
        self._kept: list[Any] = []  # what the library points to

    def load(
        self, path: str, threads: int, context: int = 2048, servers: tuple[str, ...] = ()
    ) -> dict[str, Any]:
        """A GGUF file; `servers`: HOST:PORT of RPC servers that have its layers, evenly."""
        self._free()
        asked = llama.llama_model_default_params()
        if servers:
            devices = (ctypes.c_void_p * (len(servers) + 1))(*map(_device, servers), None)
            shares = (ctypes.c_float * llama.llama_max_devices())(*(1.0 for _ in servers))
            self._kept = [devices, shares]
            asked.devices = ctypes.cast(devices, ctypes.c_void_p)
            asked.tensor_split = shares
            asked.n_gpu_layers = 999
        else:
            asked.n_gpu_layers = 0
        begin = time.perf_counter()
        self._model = llama.llama_model_load_from_file(path.encode(), asked)
        if not self._model:
            return {"error": f"llama.cpp cannot load {path}"}
        how = llama.llama_context_default_params()
        how.n_ctx = how.n_batch = context
        how.n_threads = how.n_threads_batch = threads
        self._context = llama.llama_init_from_model(self._model, how)
        vocab = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(self._model))
        return {"seconds": time.perf_counter() - begin, "vocab": vocab}

    def decode(self, prompt: list[int], count: int) -> dict[str, Any]:
        """`count` tokens after a prompt, always the likeliest, past any end. `seconds`: from the
        first one to the last one."""
        self._clear()
        self._read(prompt)
        tokens = [llama.llama_sampler_sample(self._sampler, self._context, -1)]
        begin = time.perf_counter()
        while len(tokens) < count:
            self._read(tokens[-1:])
            tokens.append(llama.llama_sampler_sample(self._sampler, self._context, -1))
        return {"tokens": tokens, "seconds": time.perf_counter() - begin}

    def score(self, windows: list[list[int]]) -> dict[str, Any]:
        """Of each window: how likely each token but the first was (natural logarithm), and the
        likeliest token after each but the last."""
        logs: list[list[float]] = []
        picks: list[list[int]] = []
        vocab = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(self._model))
        for window in windows:
            self._clear()
            self._read(window, all_logits=True)
            found = llama.llama_get_logits(self._context)
            logits = np.ctypeslib.as_array(found, (len(window), vocab))[:-1].astype(np.float64)
            chosen = logits[np.arange(len(window) - 1), window[1:]]
            high = logits.max(-1)
            total = high + np.log(np.exp(logits - high[:, None]).sum(-1))
            logs.append((chosen - total).tolist())
            picks.append(logits.argmax(-1).tolist())
        return {"logs": logs, "picks": picks}

    def quantise(self, path: str, out: str, kind: str, pure: bool) -> dict[str, Any]:
        """A GGUF file in another type, Q4_0 for instance. `pure`: all matrices alike."""
        how = llama.llama_model_quantize_default_params()
        how.ftype = getattr(llama, "LLAMA_FTYPE_" + ("ALL_" if kind == "F32" else "MOSTLY_") + kind)
        how.allow_requantize, how.pure, how.nthread = True, pure, os.cpu_count() or 1
        failed = llama.llama_model_quantize(path.encode(), out.encode(), ctypes.byref(how))
        return {"error": f"llama.cpp cannot write {out}"} if failed else {}

    def _read(self, tokens: list[int], all_logits: bool = False) -> None:
        batch = llama.llama_batch_init(len(tokens), 0, 1)
        try:
            batch.n_tokens = len(tokens)
            for index, token in enumerate(tokens):
                batch.token[index], batch.pos[index] = token, self._at + index
                batch.n_seq_id[index], batch.seq_id[index][0] = 1, 0
                batch.logits[index] = all_logits or index == len(tokens) - 1
            if llama.llama_decode(self._context, batch):
                raise RuntimeError("llama_decode failed")
            self._at += len(tokens)
        finally:
            llama.llama_batch_free(batch)

    def _clear(self) -> None:
        llama.llama_memory_clear(llama.llama_get_memory(self._context), True)
        self._at = 0

    def _free(self) -> None:
        if self._context:
            llama.llama_free(self._context)
        if self._model:
            llama.llama_model_free(self._model)
        self._context = self._model = None


def _device(server: str) -> int:
    """The first device of an RPC server, which is registered."""
    rpc, base, registry = _library("ggml-rpc"), _library("ggml-base"), _library("ggml")
    rpc.ggml_backend_rpc_add_server.restype = ctypes.c_void_p
    base.ggml_backend_reg_dev_get.restype = ctypes.c_void_p
    base.ggml_backend_reg_dev_get.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    registry.ggml_backend_register.argtypes = [ctypes.c_void_p]
    entry = rpc.ggml_backend_rpc_add_server(server.encode())
    if not entry:
        raise RuntimeError(f"there is no RPC server at {server}")
    registry.ggml_backend_register(entry)
    return int(base.ggml_backend_reg_dev_get(entry, 0))


def serve(port: int, threads: int) -> None:
    """Be an RPC server on loopback, with the processor as its device, until this is ended."""
    rpc, registry = _library("ggml-rpc"), _library("ggml")
    registry.ggml_backend_dev_by_type.restype = ctypes.c_void_p
    devices = (ctypes.c_void_p * 1)(registry.ggml_backend_dev_by_type(CPU))
    start = rpc.ggml_backend_rpc_start_server
    start.restype = None
    start.argtypes = [
        *(ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_size_t),
        ctypes.c_void_p,
    ]
    start(f"127.0.0.1:{port}".encode(), None, threads, 1, ctypes.cast(devices, ctypes.c_void_p))


def main() -> None:
    """Do as the arguments, or the lines of standard input, say."""
    if sys.argv[1:2] == ["serve"]:
        serve(int(sys.argv[2]), int(sys.argv[3]))
        return
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever the library prints is no answer
    told = llama.llama_log_callback(_tell_errors)  # kept for as long as the library may call it
    llama.llama_log_set(told, None)
    llama.llama_backend_init()
    model = Model()
    for line in sys.stdin:
        ((what, how),) = json.loads(line).items()
        print(json.dumps(getattr(model, what)(**how)), file=answers, flush=True)


def _tell_errors(level: int, text: bytes, data: object) -> None:
    if level == 4:
        print(text.decode("utf-8", "replace"), end="", file=sys.stderr)


if __name__ == "__main__":
    main()
