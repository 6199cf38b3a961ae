"""All checks over what was seen, and their findings in the order in which they are to be mended."""

from gardener.cluster.doctor.finding import Finding
from gardener.cluster.doctor.foreign import check_foreign
from gardener.cluster.doctor.machines import check_clocks, check_memory
from gardener.cluster.doctor.reach import check_holder, check_reach
from gardener.cluster.doctor.ring import (
    check_links,
    check_phases,
    check_places,
    check_seams,
    check_versions,
)
from gardener.cluster.doctor.secured import check_keys
from gardener.cluster.doctor.seen import Seen
from gardener.cluster.doctor.standing_in import check_spares

CHECKS = (
    check_keys,
    check_foreign,
    check_reach,
    check_versions,
    check_clocks,
    check_phases,
    check_places,
    check_spares,
    check_seams,
    check_links,
    check_holder,
    check_memory,
)


def examine(seen: Seen) -> list[Finding]:
    """What is wrong comes first, and of that what has to be mended first."""
    found = [finding for check in CHECKS for finding in check(seen)]
    return sorted(found, key=lambda finding: finding.rank)
