"""What `gardener plan` does: it looks at a ring, then simulates what could become of it."""

from functools import partial

from gardener.cli.plan_look import Seen, Wish, look
from gardener.cli.plan_trials import asked_of, beside_of, both, rates_of, reckoned
from gardener.cli.program import run
from gardener.cluster.plan.machines import Machines
from gardener.cluster.plan.plan import Plan, Rates, Trials


def planned(wish: Wish) -> Plan:
    """Look at the ring, let it go, and simulate. Raises UserError or PeerLost."""
    import torch  # late: it takes a second

    from gardener.rings.simulate.loop import Loop  # late: its package may be missing

    seen = run(look(wish), wish.settings.loop())
    beside = beside_of(wish.settings)
    context = seen.about(wish.new_tokens)
    now = Machines.of(seen.cards, context, beside.overhead, seen.draft, beside.holder)
    trials = Trials.of(now, seen.drift)
    asked, text = asked_of(wish, seen)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # for the drafter: its passes are small, and nothing else computes
    try:
        rates = run(rates_of(trials, wish, asked), partial(Loop, 0))
    finally:
        torch.set_num_threads(threads)
    assumed = (text, *beside.told, *reckoned(now, wish, seen))
    return Plan(trials, rates, wish.policy, assumed, _measured(seen, wish), seen.drift)


def _measured(seen: Seen, wish: Wish) -> Rates | None:
    if not seen.answers:
        return None
    figures = {name: [each.figures for each in given] for name, given in seen.answers.items()}
    return both(figures, wish.policy)
