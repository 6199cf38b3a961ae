"""The holder's side of the ring, with the test as its only stage."""

import asyncio

import minted
import pytest
from loopback import Ear, card, ring, run, until

from gardener.errors import Distrusted, PeerLost
from gardener.holder import ring as ring_module
from gardener.net.dial import dial
from gardener.net.keys import Keys
from gardener.net.listen import listen, refuse_all
from gardener.protocol import messages as m
from gardener.stages.sight import UNKNOWN


def surveys(ear: Ear) -> list[m.Survey]:
    return [message for message in ear.messages if isinstance(message, m.Survey)]


def test_a_survey_is_sent_again_until_the_ring_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ring_module, "ASK", 0.02)

    async def scenario() -> None:
        async with ring(1, start=False) as made:
            ear = Ear()
            listener = await listen(
                made.address(1), card(1, 1), ear, admit=lambda _: None, met=ear.links.append
            )
            holder = made.holder()
            connecting = asyncio.create_task(holder.connect())
            await until(lambda: len(surveys(ear)) >= 3)  # the first two were lost on the way
            last = surveys(ear)[-1]
            assert {survey.nonce for survey in surveys(ear)} == {last.nonce}
            home = await dial(
                made.address(0),
                card(1, 1),
                ear,
                admit=lambda _: None,
                patience=5.0,
                waiting=lambda _: None,
            )
            home.send(m.Survey(last.nonce, (*last.cards, card(1, 1))))
            assert [each.name for each in await connecting] == ["oak1"]
            count = len(surveys(ear))
            await asyncio.sleep(0.1)
            assert len(surveys(ear)) == count  # nobody asks a ring that stands
            await holder.close()
            await home.close("the test is over")
            await ear.links[0].close("the test is over")
            await listener.close()

    run(scenario)


@pytest.mark.parametrize(
    ("theirs", "ours", "words"),
    [
        (minted.keys("stage-1"), None, "this port speaks TLS: start with --keys DIR"),
        (None, minted.keys("holder"), "was started without --keys"),
        (minted.keys("stage-1"), minted.keys("holder", "elm"), "is of another cluster"),
    ],
)
def test_keys_that_do_not_fit_are_not_waited_for(
    theirs: Keys | None, ours: Keys | None, words: str
) -> None:
    """Nor is a stage that loads given up, whose refusal comes through TLS as well."""

    async def scenario() -> None:
        async with ring(1, start=False) as made:
            listener = await refuse_all(
                made.address(1), card(1, 1), lambda _: "it loads", UNKNOWN.sight, theirs
            )
            holder = made.holder(patience=3600.0, keys=ours)
            with pytest.raises(Distrusted, match=words):
                await holder.connect()
            await holder.close()
            fits = None if theirs is None else minted.keys("holder")
            holder = made.holder(patience=0.5, keys=fits)
            with pytest.raises(PeerLost, match=r"did not close within 0\.5 s: .* it loads"):
                await holder.connect()
            await holder.close()
            await listener.close()

    run(scenario)


def test_surveys_that_never_come_back_are_given_up_with_a_sentence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ring_module, "ASK", 0.02)

    async def scenario() -> None:
        async with ring(1, start=False) as made:
            ear = Ear()
            listener = await listen(
                made.address(1), card(1, 1), ear, admit=lambda _: None, met=ear.links.append
            )
            holder = made.holder(patience=0.3)
            with pytest.raises(PeerLost) as caught:
                await holder.connect()
            assert str(caught.value) == (
                "the ring did not close within 0.3 s: nothing was heard of the last stage"
            )
            assert len(surveys(ear)) > 2
            await holder.close()
            await ear.links[0].close("the test is over")
            await listener.close()

    run(scenario)
