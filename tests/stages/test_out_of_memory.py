"""A stage without memory ends the request that asked for it, and stands."""

import pytest
from loopback import holding, ring, run, truth, write

from gardener.errors import StageFailed

TORCH = (
    "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you "
    "tried to allocate 4398046511104 bytes. Error code 12 (Cannot allocate memory)"
)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError(), "MemoryError: "),
        (RuntimeError(TORCH), "RuntimeError: [enforce fail"),
        (RuntimeError("CUDA out of memory. Tried\nmuch"), "RuntimeError: CUDA out of memory."),
    ],
)
@pytest.mark.parametrize("stage", [1, 2])
def test_out_of_memory_ends_one_request(error: Exception, said: str, stage: int) -> None:
    async def scenario() -> None:
        async with ring(2) as made, holding(made) as holder:
            faults = [error]

            def fail_once() -> None:
                if faults:
                    raise faults.pop()

            made.seats[stage].stage.trouble = fail_once
            with pytest.raises(StageFailed) as caught:
                await write(holder)
            sentence = str(caught.value)
            assert sentence.startswith(f"stage {stage} could not compute segment 0")
            assert said in sentence
            assert (
                "fewer requests at a time (--max-requests) or a shorter --context help" in sentence
            )
            assert await write(holder) == truth()

    run(scenario)
