"""Whether a place of a cluster is on this machine, and who this machine is."""

import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gardener.cluster.here import check_here
from gardener.cluster.places import Cluster, DraftPart, HolderPlace, StagePlace
from gardener.errors import UserError

ELSEWHERE = "192.0.2.7"  # an address of documentation


def cluster(host: str, holder: str = ELSEWHERE) -> Cluster:
    return Cluster(
        path=Path("/c/cluster.toml"),
        name="",
        model="m",
        revision=None,
        draft=DraftPart(),
        keys=None,
        insecure=True,
        holder=HolderPlace(holder, 7000),
        stages=(StagePlace(host, 7001, number=1),),
    )


def named(address: str) -> Any:
    """A resolver by which every name means this."""

    def found(host: str, *rest: Any, **more: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0))]

    return found


def test_an_address_of_this_machine_is_here() -> None:
    there = cluster("127.0.0.1")
    check_here(there, "stage.1", there.stage(1))


def test_an_address_of_another_one_is_not_and_it_is_said_who_this_is() -> None:
    there = cluster(ELSEWHERE, holder="127.0.0.1")
    with pytest.raises(UserError, match=r"no address of this machine \(it is that of the holder\)"):
        check_here(there, "stage.1", there.stage(1))


def test_who_says_where_to_listen_is_believed() -> None:
    there = cluster(ELSEWHERE)
    check_here(there, "stage.1", replace(there.stage(1), listen="0.0.0.0:7001"))


def test_a_name_that_means_loopback_to_its_own_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Debian writes it into /etc/hosts: a node would listen where nobody else reaches it."""
    monkeypatch.setattr(socket, "getaddrinfo", named("127.0.1.1"))
    there = cluster("box.local")
    with pytest.raises(UserError, match=r'box.local means 127.0.1.1 .*listen = "0.0.0.0:7001"'):
        check_here(there, "stage.1", there.stage(1))


def test_a_name_that_nobody_knows_is_left_to_who_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(*rest: Any, **more: Any) -> list[Any]:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", nobody)
    there = cluster("box.local")
    check_here(there, "stage.1", there.stage(1))
