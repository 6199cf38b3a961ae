"""Under which headings `--help` shows options, in this order."""

from cyclopts import Group

RING, MODEL, STAGES, POLICY, DRAFTING = map(
    Group.create_ordered, ("Ring", "Model", "Stages", "Policy", "Drafting")
)
