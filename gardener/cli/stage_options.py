"""Options of stages: how those that are started here compute."""

from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias

from cyclopts import Parameter
from cyclopts.validators import Number

from gardener.cli.groups import STAGES
from gardener.protocol.room import MOST_CONTEXT

DTypeName: TypeAlias = Literal["float32", "bfloat16", "float16"]
QuantName: TypeAlias = Literal["none", "auto", "int4", "int8", "nf4", "fp4", "llm-int8"]
HeadQuantName: TypeAlias = Literal["auto", "none", "int4", "int8"]

Device: TypeAlias = Annotated[
    str, Parameter(env_var="GARDENER_DEVICE", help="cpu, cuda, cuda:1 or mps.")
]
Threads: TypeAlias = Annotated[
    int | None,
    Parameter(
        env_var="GARDENER_THREADS",
        validator=Number(gte=1),
        metavar="N",
        help="Threads per stage, and of the drafter of a local ring. Default: all cores; shared by "
        "the stages of a local ring, unless no two of them compute at once.",
    ),
]
KVMemory: TypeAlias = Annotated[
    float | None,
    Parameter(
        env_var="GARDENER_KV_MEMORY",
        validator=Number(gt=0),
        metavar="GIB",
        help="Memory for keys and values, of stages that are started here all together. Default: "
        "half of what is free on their device once they are loaded. On a GPU, requests may ask for "
        "half of it (docs/gpu.md).",
    ),
]
ContextTokens: TypeAlias = Annotated[
    int | None,
    Parameter(
        env_var="GARDENER_CONTEXT",
        validator=Number(gte=2, lte=MOST_CONTEXT),
        metavar="N",
        help="Most tokens of prompt and answer together. Default: what the model was made for; for "
        "a node, whatever its memory takes.",
    ),
]
Graphs: TypeAlias = Annotated[
    bool,
    Parameter(
        env_var="GARDENER_GRAPHS",
        negative="--no-graphs",  # a cluster file may say no, and the command line yes
        help="--no-graphs: on CUDA, start kernels one by one instead of as recorded graphs: "
        "slower, for finding faults.",
    ),
]


@Parameter(name="*", group=STAGES)
@dataclass(frozen=True)
class StageOptions:
    """How the stages that are started here compute."""

    dtype: Annotated[
        DTypeName,
        Parameter(env_var="GARDENER_DTYPE", help="What stages started here compute in."),
    ] = "float32"
    device: Device = "cpu"
    threads: Threads = None
    quant: Annotated[
        QuantName,
        Parameter(
            env_var="GARDENER_QUANT",
            help="Quantise the linear layers. int4, int8: on every CPU, and int4 on CUDA; what a "
            "file holds in such numbers stays as it is. nf4, fp4, llm-int8: with bitsandbytes, on "
            "CPUs and CUDA. auto: the fastest one of 4 bits here; all stages of a ring need the "
            "same.",
        ),
    ] = "none"
    quant_head: Annotated[
        HeadQuantName,
        Parameter(
            env_var="GARDENER_QUANT_HEAD",
            help="Quantise the output matrix, which the last stage has. auto: in int8 if the "
            "layers are in int4 or int8.",
        ),
    ] = "auto"
    kv_memory: KVMemory = None
    context: ContextTokens = None
    graphs: Graphs = True
