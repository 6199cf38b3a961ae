"""Pytest plugin: the project's own tests of recorded work, on the stand-in for a GPU.

What is told to compute "on a device" computes on "cuda", heads and small models do in any case,
and `CudaRecorder` records in place of the other stand-in (tests/recorders.py). A call that CUDA
would have refused fails its test. At the end stands by module what was launched, for a module that
launches nothing shows nothing here.
"""

from collections import Counter
from collections.abc import Iterator

import pytest
from left_out import why_left_out
from moved import change_modules, move_to_device, where
from stand_in import runtime

_did: dict[str, Counter[str]] = {}
"""By module: tests, kernels and graphs."""


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """Once conftest.py has made the helpers of the tests importable, and before tests are."""
    config.addinivalue_line("markers", "illegal: calls on purpose what CUDA refuses")
    move_to_device()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    change_modules()
    for item in items:
        if reason := why_left_out(item.nodeid):
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    where.module = item.path.stem
    before = runtime.kernels(), runtime.launched()
    done = yield
    _did.setdefault(where.module, Counter()).update(
        tests=1,
        kernels=runtime.kernels() - before[0],
        graphs=runtime.launched() - before[1],
    )
    return done


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    before = runtime.illegal()
    done = yield
    illegal = runtime.illegal() - before
    assert not illegal or "illegal" in item.keywords, f"{illegal} calls that CUDA refuses"
    return done


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    terminalreporter.section("on the stand-in for a GPU")
    for module, did in _did.items():
        told = f"{did['tests']} tests, {did['kernels']} kernels, {did['graphs']} graphs launched"
        terminalreporter.line(f"{module}: {told}")
