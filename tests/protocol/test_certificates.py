"""What a certificate may stand for, and when."""

import pytest

from gardener.protocol.certificates import (
    Identity,
    failure,
    moment,
    name_of,
    named,
    problem,
    refusal,
    stage_problem,
    untrusted,
    uri,
)
from gardener.protocol.names import MAX_NAME

DAY = 86400.0


def identity(name: str = "stage-2") -> Identity:
    return Identity("oak", name, 10 * DAY, 20 * DAY)


@pytest.mark.parametrize("name", ["holder", "stage-1", "stage-17", "spare-3"])
def test_an_address_names_cluster_and_part(name: str) -> None:
    assert named(uri("oak.example-1", name)) == ("oak.example-1", name)


@pytest.mark.parametrize(
    "other",
    [
        "",
        "https://oak/stage-1",
        "gardener://oak/stage-0",
        "gardener://oak/stage-1/",
        "gardener://oak/stage-1\n",
        "gardener:///stage-1",
        "gardener://oak/stages",
    ],
)
def test_other_addresses_name_nobody(other: str) -> None:
    assert named(other) is None


@pytest.mark.parametrize(
    ("name", "stages"),
    [("holder", {0}), ("stage-2", {2}), ("spare-1", {1, 2, 3}), ("stage-3", {3})],
)
def test_what_it_may_stand_for(name: str, stages: set[int]) -> None:
    assert {stage for stage in range(4) if identity(name).stands_for(stage)} == stages
    for stage in range(4):
        said = stage_problem(identity(name), stage)
        assert (said is None) is (stage in stages)
        assert said is None or f"{name_of(stage)}.pem and {name_of(stage)}.key" in said


@pytest.mark.parametrize(
    ("wall", "said"),
    [
        (10 * DAY, None),
        (20 * DAY - 1, None),
        (20 * DAY, "stage-2 of cluster oak expired at 1970-01-21 00:00 UTC (the clock of elm says"),
        (
            10 * DAY - 1,
            "stage-2 of cluster oak is valid only from 1970-01-11 00:00 UTC on (the clo",
        ),
    ],
)
def test_when(wall: float, said: str | None) -> None:
    found = problem(identity(), wall, "elm")
    assert found is None if said is None else found is not None and said in found


def test_who_has_expired_needs_a_new_certificate_and_nobody_else() -> None:
    found = problem(identity(), 20 * DAY, "elm") or ""
    assert "with `gardener keys add DIR stage-2`" in found
    assert "keys init" not in found
    assert len(found) < MAX_NAME - 100  # as the reason in a Bye


def test_nobody() -> None:
    assert "none of `gardener keys`" in (problem(None, 0.0, "elm") or "")


def test_times_that_no_calendar_has() -> None:
    assert moment(1e300) == moment(float("nan")) == "a time that no calendar has"


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        ("TLSV1_ALERT_UNKNOWN_CA", "our certificate, stage-2 of cluster oak, is not of its clust"),
        ("ssl/tls alert certificate expired", "our certificate, stage-2 of cluster oak, has exp"),
        ("TLSV13_ALERT_CERTIFICATE_REQUIRED", "has not come"),
        ("TLSV1_ALERT_INTERNAL_ERROR", "it gave TLS up (internal error)"),
    ],
)
def test_alerts_have_words(reason: str, said: str) -> None:
    assert said in (refusal(reason, identity()) or "")


def test_what_is_no_alert() -> None:
    assert refusal("WRONG_VERSION_NUMBER", identity()) is None
    assert failure("WRONG_VERSION_NUMBER") == "what it says is no proper TLS (wrong version number)"
    assert "no certificate" in failure("PEER_DID_NOT_RETURN_A_CERTIFICATE")
    assert "another cluster" in untrusted(20, "unable to get local issuer certificate")
    assert "cannot be believed (path length" in untrusted(25, "path length constraint exceeded")
