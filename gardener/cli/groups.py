"""Under which headings `--help` shows options, in this order."""

from cyclopts import Group

SERVER, RING, MODEL, STAGES, POLICY, DRAFTING = map(
    Group.create_ordered, ("Server", "Ring", "Model", "Stages", "Policy", "Drafting")
)
