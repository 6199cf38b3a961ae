"""What the doctor finds in what it has seen, and what it says against it. No sockets."""

import time
from dataclasses import replace
from typing import Any

import pytest
from examined import GIB, address, card, cluster, ring, sight, stage, view

from gardener.cluster.doctor.commands import start
from gardener.cluster.doctor.examine import examine
from gardener.cluster.doctor.finding import Finding, Severity, Subject, well
from gardener.cluster.doctor.own_keys import OwnKeys
from gardener.cluster.doctor.seen import Examined, Seen
from gardener.net.look import Unseen, View, Why
from gardener.protocol.certificates import Identity


def whole(**more: Any) -> Seen:
    return ring(stage(1), stage(2), stage(3), of=cluster(), **more)


def only(seen: Seen) -> Finding:
    (found,) = examine(seen)
    return found


def told(seen: Seen) -> list[tuple[Subject, Severity, str]]:
    return [(each.subject, each.severity, each.where) for each in examine(seen)]


@pytest.mark.parametrize("of", [None, cluster()])
def test_nothing_is_found_where_all_is_well(of: Any) -> None:
    seen = ring(stage(1), stage(2), stage(3), of=of)
    assert examine(seen) == []
    assert well(examine(seen))


# --- reach ---------------------------------------------------------------------------------------


def without(why: Why, detail: str = "", **more: Any) -> Seen:
    """Nothing is to be seen of stage 3, nor has stage 2 a link to it."""
    two = stage(2, downstream=None, obstacle="waiting for stage 3 at 10.0.0.4:7000: no answer")
    return ring(stage(1), two, stage(3, seen=Unseen(why, detail)), of=cluster(), **more)


@pytest.mark.parametrize(
    ("why", "subject", "words", "command", "on"),
    [
        (Why.NAME, Subject.NAME, "the name 10.0.0.4 cannot be resolved here (not known): correct "
         "host in [stage.3]", "echo 'ADDRESS 10.0.0.4' | sudo tee -a /etc/hosts", ""),
        (Why.REFUSED, Subject.REACH, "nothing listens at that port: start it; if it runs, see that "
         "it listens at 10.0.0.4 and not at 127.0.0.1", "gardener-node --stage 3", "10.0.0.4"),
        (Why.TIMEOUT, Subject.REACH, "a firewall on the way drops what is sent to port 7000",
         "sudo ufw allow 7000/tcp", "10.0.0.4"),
        (Why.NETWORK, Subject.REACH, "cannot send anything there (not known)",
         "ping -c 3 10.0.0.4", ""),
        (Why.SILENT, Subject.REACH, "the node stands still",
         "ps -o pid,stat,etime,args -C gardener-node", "10.0.0.4"),
        (Why.STRANGER, Subject.STRANGER, "not known listens there, no node: stop it, or give stage "
         "3 another port", "sudo ss -ltnp 'sport = :7000'", "10.0.0.4"),
        (Why.KEYS, Subject.KEYS, "It was looked at without keys", "gardener doctor --keys DIR", ""),
        (Why.BYE, Subject.STRANGER, "it does not let us look: not known",
         "gardener-node --stage 3", "10.0.0.4"),
    ],
)  # fmt: skip
def test_each_way_of_not_being_there(
    why: Why, subject: Subject, words: str, command: str, on: str
) -> None:
    """And the seams and links of who is not there are not complained about."""
    found = only(without(why, "not known"))
    assert (found.subject, found.severity) == (subject, Severity.WRONG)
    assert found.where == "stage 3 at 10.0.0.4:7000"
    assert words in found.sentence
    assert (found.command, found.on) == (command, on)


@pytest.mark.parametrize("detail", ["we speak protocol 9 but ...", "no message has the code 15"])
def test_one_that_does_not_understand_us_has_another_version(detail: str) -> None:
    found = only(without(Why.BYE, detail))
    assert found.subject is Subject.VERSION
    assert (found.command, found.on) == ("pip install 'gardener-node==0.1'", "10.0.0.4")


@pytest.mark.parametrize("why", [Why.NAME, Why.REFUSED, Why.TIMEOUT, Why.NETWORK])
def test_one_that_its_neighbour_reaches_is_not_blamed(why: Why) -> None:
    seen = ring(stage(1), stage(2), stage(3, seen=Unseen(why)), of=cluster())
    found = only(seen)
    assert found.severity is Severity.UNSEEN
    assert "but stage 2 at 10.0.0.3:7000 has a link to it" in found.sentence
    assert found.on == "10.0.0.3"
    assert well([found])


def test_a_command_names_the_file_that_is_not_found_by_itself() -> None:
    seen = without(Why.REFUSED, file="/srv/my ring.toml")
    assert only(seen).command == "gardener-node --stage 3 --cluster '/srv/my ring.toml'"


def test_without_a_file_a_command_says_all_that_is_known() -> None:
    three = stage(3, seen=Unseen(Why.REFUSED))
    seen = ring(stage(1), stage(2, downstream=None, obstacle="none", dtype="bfloat16"), three)
    assert start(seen, three) == (
        "gardener-node --stage 3 --listen 10.0.0.4:7000 --peer 10.0.0.1:7000 --layers 20-29 "
        "--model m"
    )
    bare = ring(stage(1, seen=Unseen(Why.REFUSED)))
    assert start(replace(bare, named="", holder=None), bare.stages[0]) == (
        "gardener-node --stage 1 --listen 10.0.0.2:7000 --peer HOST:PORT --layers A-B --model MODEL"
    )


# --- versions, phases, places --------------------------------------------------------------------


def test_another_version() -> None:
    seen = ring(stage(1), stage(2, version="0.2"), stage(3), of=cluster())
    found = only(seen)
    assert found.subject is Subject.VERSION
    assert found.command == "pip install 'gardener-node==0.1'"
    assert "it runs gardener 0.2, and this machine 0.1" in found.sentence


def test_one_that_loads_is_waited_for_and_who_waits_for_it_is_not_blamed() -> None:
    loads = view(card(3, 0, 0, layers=0), sight(3, 3, does="is loading its weights, 34 %"))
    two = stage(2, downstream=None, obstacle="waiting for stage 3: it is loading")
    seen = ring(stage(1), two, stage(3, seen=loads), of=cluster())
    assert told(seen) == [(Subject.PHASE, Severity.WAIT, "stage 3 at 10.0.0.4:7000")]
    assert "it is loading its weights, 34 %: wait" in examine(seen)[0].sentence
    assert not well(examine(seen))


def test_another_stage_than_the_file_says() -> None:
    three = stage(3).view
    assert three is not None
    two = stage(2).view
    assert two is not None
    seen = ring(stage(1), stage(2, seen=three), stage(3, seen=two), of=cluster())
    first = examine(seen)[0]
    assert first.subject is Subject.PLACE
    assert first.sentence.startswith("stage 3 answers there, and it should be stage 2: correct ")
    assert "/home/me/cluster.toml" in first.sentence
    assert (first.command, first.on) == ("gardener-node --stage 2", "10.0.0.3")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"end": 11}, "it holds layers 0-10, and the file says 0-9"),
        ({"dtype": "bfloat16"}, "it computes in bfloat16, and the file says float32"),
        ({"quant": "int4"}, "its quant is int4, and the file says none"),
    ],
)
def test_otherwise_than_the_file_says(changes: dict[str, Any], words: str) -> None:
    seen = ring(stage(1, **changes), stage(2), stage(3), of=cluster())
    found = examine(seen)[0]
    assert (found.subject, found.severity) == (Subject.PLACE, Severity.WRONG)
    assert found.sentence.startswith(words)


# --- one model, whole ----------------------------------------------------------------------------


def test_a_gap_names_the_layers_that_close_it() -> None:
    found = only(ring(stage(1), stage(2, first=12), stage(3)))
    assert found.subject is Subject.COVERAGE
    assert "layers 10-11 are missing" in found.sentence
    assert "--layers 10-19" in found.command


def test_layers_that_nobody_holds_at_the_end() -> None:
    found = only(ring(stage(1), stage(2), stage(3, end=25)))
    assert found.subject is Subject.COVERAGE
    assert "ends at layer 24 of 30: layers 25-29 of the model are nowhere" in found.sentence
    assert "--layers 20-29" in found.command


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": "n:c"}, "hold different models (m and n)"),
        ({"model": "m:d"}, "different weights of one kind of model (c and d)"),
        ({"dtype": "float16"}, "computes in float32 but stage 3 in float16"),
        ({"quant": "int4"}, "in none but stage 3 in int4"),
        ({"head_quant": "int8"}, "computes the head in none but stage 3 in int8"),
    ],
)
def test_one_model_and_one_arithmetic(changes: dict[str, Any], words: str) -> None:
    found = only(ring(stage(1), stage(2), stage(3, **changes)))
    assert found.subject is Subject.MODEL
    assert words in found.sentence


def test_the_holders_own_model() -> None:
    assert examine(whole(model="m:c")) == []
    found = only(whole(model="other:c"))
    assert found.subject is Subject.MODEL
    assert found.where == "stage 1 at 10.0.0.2:7000"
    assert "the holder and stage 1 hold different models" in found.sentence


# --- links ---------------------------------------------------------------------------------------


def test_a_stage_that_cannot_reach_one_that_answers_here() -> None:
    two = stage(2, downstream=None, obstacle="waiting for stage 3 at 10.0.0.4:7000: no answer")
    three = stage(3, upstream=None)
    found = only(ring(stage(1), two, three, of=cluster()))
    assert found.subject is Subject.NEIGHBOUR
    assert "It says: waiting for stage 3 at 10.0.0.4:7000: no answer" in found.sentence
    assert found.command == "sudo ufw allow from 10.0.0.3 to any port 7000 proto tcp"
    assert found.on == "10.0.0.4"


def test_a_stage_that_has_only_just_come() -> None:
    found = only(ring(stage(1), stage(2, downstream=None), stage(3), of=cluster()))
    assert (found.subject, found.severity) == (Subject.NEIGHBOUR, Severity.WAIT)


def test_a_stage_that_another_ring_has_taken() -> None:
    two = stage(2, downstream=None, obstacle="stage 3 already serves stage 2 at 10.9.9.9:1")
    three = stage(3, upstream=sight(3, 3).upstream)
    found = only(ring(stage(1), two, three, of=cluster()))
    assert "it is taken by stage 2 at 10.0.0.3:7000" in found.sentence


def test_a_stage_that_was_started_with_another_peer_than_the_file_has() -> None:
    found = only(ring(stage(1), stage(2), stage(3, peer="10.0.0.9:7000"), of=cluster()))
    assert (found.subject, found.severity) == (Subject.NEIGHBOUR, Severity.WRONG)
    assert "it dials the holder at 10.0.0.9:7000, and the file says 10.0.0.1:7000" in found.sentence
    found = only(ring(stage(1), stage(2, peer="cedar:7000"), stage(3), of=cluster()))
    assert found.severity is Severity.WARNING  # it has reached stage 3 all the same


# --- the holder ----------------------------------------------------------------------------------


def test_a_holder_that_could_not_listen() -> None:
    found = only(whole(taken="10.0.0.1:7000 is in use"))
    assert found.subject is Subject.HOLDER
    assert "10.0.0.1:7000 is in use" in found.sentence


def test_a_stage_in_the_holders_place() -> None:
    seen = whole()
    assert seen.holder is not None
    found = only(replace(seen, holder=replace(seen.holder, seen=stage(2).seen)))
    assert "stage 2 listens where the last stage dials the holder" in found.sentence


def test_a_holder_that_cannot_be_reached_matters_where_it_is_dialled() -> None:
    seen = whole(holder="away")
    assert examine(seen) == []  # nobody listens there: nobody asks
    assert seen.holder is not None
    off = replace(seen, holder=replace(seen.holder, seen=Unseen(Why.TIMEOUT)))
    assert only(off).severity is Severity.UNSEEN
    assert only(off).on == "10.0.0.4"
    last = replace(off.stages[2], here=True)
    found = only(replace(off, stages=(*off.stages[:2], last)))
    assert (found.severity, found.on) == (Severity.WRONG, "10.0.0.1")


# --- machines ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offset", "words"),
    [
        (3600.0, "its clock is 60 min ahead of this machine's"),
        (-90000.0, "its clock is 25.0 h behind this machine's"),
        (7.2, "7.2 s ahead of"),
    ],
)
def test_a_clock_that_is_off(offset: float, words: str) -> None:
    two = stage(2)
    assert isinstance(two.seen, View)
    late = replace(two, seen=replace(two.seen, offset=offset))
    seen = ring(stage(1), late, stage(3), of=cluster())
    found = only(seen)
    assert (found.subject, found.severity) == (Subject.CLOCK, Severity.WARNING)
    assert words in found.sentence
    assert found.command == "sudo timedatectl set-ntp true"
    assert only(replace(seen, own=OwnKeys(cluster().path.parent))).severity is Severity.WRONG


def test_a_context_for_which_a_stage_has_no_memory() -> None:
    file = cluster(context=100_000)
    seen = ring(stage(1), stage(2, kv_room=50_000_000), stage(3), of=file)
    found = only(seen)
    assert (found.subject, found.severity) == (Subject.MEMORY, Severity.WRONG)
    assert found.sentence.startswith("context is 100000, and stage 2 has memory for")
    assert found.command == "gardener-node --stage 2 --kv-memory 0.1"
    assert examine(ring(stage(1), stage(2, kv_room=101_000_000), stage(3), of=file)) == []


def test_a_stage_that_was_started_for_shorter_texts() -> None:
    found = only(ring(stage(1), stage(2), stage(3, longest=512), of=cluster(context=4096)))
    assert "it takes texts of up to 512 tokens" in found.sentence
    assert found.command == "gardener-node --stage 3 --context 4096"


def test_stages_of_one_machine_share_what_is_free_there() -> None:
    """A text of a million tokens takes 1 GB at each."""
    together = [stage(n, name="oak", free=2 * GIB) for n in (1, 2, 3)]
    (found,) = examine(ring(*together, of=cluster(context=1_000_000)))
    assert (found.subject, found.severity) == (Subject.MEMORY, Severity.WARNING)
    assert "takes 2.8 GiB at stage 1 and stage 2 and stage 3, and only 2 GiB" in found.sentence
    apart = [stage(n, free=2 * GIB) for n in (1, 2, 3)]
    assert examine(ring(*apart, of=cluster(context=1_000_000))) == []


def test_memory_that_somebody_else_has_taken_since() -> None:
    found = only(ring(stage(1), stage(2, free=GIB // 4), stage(3)))
    assert found.severity is Severity.WARNING
    assert "keys and values may still take 1 GiB at this stage, and only 0.25 GiB" in found.sentence


# --- keys ----------------------------------------------------------------------------------------


def test_a_file_without_keys_for_machines_that_need_them() -> None:
    found = only(ring(stage(1), stage(2), stage(3), of=cluster(insecure=False)))
    assert found.subject is Subject.KEYS
    assert found.command == "gardener keys init /home/me/keys --stages 3 --name home"


def shows(node: Examined, name: str, days: float) -> Examined:
    assert isinstance(node.seen, View)
    identity = Identity("home", name, 0.0, time.time() + days * 86400)
    return replace(node, seen=replace(node.seen, identity=identity))


def test_certificates_of_others() -> None:
    own = OwnKeys(cluster().path.parent / "keys")
    stages = (shows(stage(1), "stage-1", 400), shows(stage(2), "stage-2", 9.5), stage(3))
    soon = only(ring(*stages, of=cluster(), own=own))
    assert soon.severity is Severity.WARNING
    assert "its certificate, stage-2 of cluster home, expires in" in soon.sentence
    assert soon.command.endswith(" && gardener keys add KEYS stage-2")
    assert soon.on == "the machine that has ca.key"
    other = shows(stage(1), "stage-3", 400)
    wrong = only(ring(other, stage(2), stage(3), of=cluster(), own=own))
    assert "the certificate is that of stage-3 of cluster home" in wrong.sentence


def test_keys_of_our_own_that_cannot_be_used() -> None:
    folder = cluster().path.parent / "keys"
    own = OwnKeys(folder, problems=(("holder", f"can be read by others: chmod 600 {folder}/x"),))
    unseen = [stage(n, seen=Unseen(Why.KEYS, "this port speaks TLS")) for n in (1, 2, 3)]
    found = examine(ring(*unseen, of=cluster(), own=own))
    assert found[0].command == f"chmod 600 {folder}/holder.key"
    assert [each.severity for each in found] == [Severity.WRONG, *[Severity.UNSEEN] * 3]


def test_what_comes_first_is_to_be_mended_first() -> None:
    seen = ring(
        stage(1, seen=Unseen(Why.REFUSED)),
        stage(2, version="0.2", downstream=None, obstacle="no such name"),
        stage(3, seen=Unseen(Why.NAME, "no")),
        of=cluster(insecure=False),
        taken="in use",
    )
    subjects = [each.subject for each in examine(seen)]
    order = list(Subject)
    assert [order.index(each) for each in subjects] == sorted(order.index(s) for s in subjects)
    assert subjects[0] is Subject.KEYS


def test_what_a_peer_says_cannot_steer_the_terminal() -> None:
    found = only(without(Why.STRANGER, "something that says '\x1b[2J'"))
    assert "\x1b" not in found.sentence
    assert str(address(3)) in found.where
