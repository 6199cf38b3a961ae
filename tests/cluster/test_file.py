"""A cluster file: what is read of it, and the sentence for everything that can be wrong."""

from pathlib import Path

import pytest

from gardener.cluster.file import read_cluster
from gardener.cluster.places import DraftPart, HolderPlace, SparePlace, StagePlace
from gardener.errors import UserError

WHOLE = """
name = "home"
model = "smollm2-135m"
revision = "main"
context = 4096
keys = "keys"
dtype = "bfloat16"
threads = 4
graphs = false

[holder]
host = "10.0.0.1"
port = 7000

[draft]
kinds = ["ngram", "eagle"]
head = "heads/mine"
dtype = "float32"
graphs = false

[stage.1]
host = "10.0.0.2"
port = 7001
layers = "0-14"

[stage.2]
host = "box3.local"
port = 7001
listen = "0.0.0.0:7001"
layers = "15-29"
device = "cuda:1"
threads = 2
kv_memory = 1.5
graphs = true
model = "/models/here"

[spare.1]
host = "10.0.0.4"
port = 7001
"""

SMALL = """
model = "smollm2-135m"
[holder]
host = "10.0.0.1"
port = 7000
[stage.1]
host = "10.0.0.2"
port = 7001
[stage.2]
host = "10.0.0.3"
port = 7001
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "cluster.toml"
    path.write_text(text)
    return path


def test_all_that_a_file_can_say(tmp_path: Path) -> None:
    cluster = read_cluster(write(tmp_path, WHOLE))
    assert (cluster.name, cluster.model, cluster.revision) == ("home", "smollm2-135m", "main")
    assert (cluster.context, cluster.keys, cluster.insecure) == (4096, tmp_path / "keys", False)
    assert cluster.holder == HolderPlace("10.0.0.1", 7000)
    assert cluster.draft == DraftPart(
        "ngram,eagle", "heads/mine", None, "float32", None, graphs=False
    )
    assert cluster.stages[0] == StagePlace(
        *("10.0.0.2", 7001, None, 1, "smollm2-135m"),
        threads=4,
        graphs=False,
        layers="0-14",
        dtype="bfloat16",
    )
    second = cluster.stage(2)
    assert (second.model, second.device, second.threads) == ("/models/here", "cuda:1", 2)
    assert (second.kv_memory, second.dtype, second.quant) == (1.5, "bfloat16", "none")
    assert (second.listens_at, str(second.address)) == ("0.0.0.0:7001", "box3.local:7001")
    assert second.graphs is True, "what a stage says itself goes before that"
    assert cluster.spares == (
        SparePlace("10.0.0.4", 7001, None, 1, "smollm2-135m", threads=4, graphs=False),
    )
    assert str(cluster) == f"cluster home ({tmp_path / 'cluster.toml'})"


def test_who_dials_whom(tmp_path: Path) -> None:
    cluster = read_cluster(write(tmp_path, SMALL))
    assert [str(cluster.after(stage).address) for stage in (0, 1, 2)] == [
        "10.0.0.2:7001",
        "10.0.0.3:7001",
        "10.0.0.1:7000",
    ]


def test_what_is_not_said_is_as_without_a_file(tmp_path: Path) -> None:
    cluster = read_cluster(write(tmp_path, SMALL))
    assert (cluster.keys, cluster.spares, cluster.draft) == (None, (), DraftPart())
    stage = cluster.stage(1)
    assert (stage.layers, stage.device, stage.dtype) == (None, "cpu", "float32")
    assert (stage.quant, stage.quant_head, stage.threads) == ("none", "auto", None)
    assert stage.graphs is None


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("models/vicuna", "{folder}/models/vicuna"),
        ("./other", "{folder}/other"),
        ("/somewhere/else", "/somewhere/else"),
        ("lmsys/vicuna-7b", "lmsys/vicuna-7b"),
    ],
)
def test_a_path_is_relative_to_the_file_and_a_name_is_not(
    tmp_path: Path, written: str, meant: str
) -> None:
    (tmp_path / "models" / "vicuna").mkdir(parents=True)
    text = SMALL.replace('model = "smollm2-135m"', f'model = "{written}"')
    assert read_cluster(write(tmp_path, text)).model == meant.format(folder=tmp_path)


def test_ipv6_with_and_without_brackets(tmp_path: Path) -> None:
    text = SMALL.replace("10.0.0.2", "fd00::2").replace("10.0.0.3", "[fd00::3]")
    cluster = read_cluster(write(tmp_path, text))
    assert [each.listens_at for each in cluster.stages] == ["[fd00::2]:7001", "[fd00::3]:7001"]


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("[holder]", "[holder", "cannot be read: .*line"),
        ('model = "smollm2-135m"', "", 'model is missing: write model = "smollm2-135m"'),
        ("model =", "modle =", 'there is no key "modle": did you mean model'),
        ("[stage.2]", "[stage.3]", r"there is a \[stage.3\], but no \[stage.2\]"),
        ("[stage.2]", "[stage.0]", r"\[stage.0\] is no number: write \[stage.1\]"),
        ("[stage.2]", "[stage.two]", r"\[stage.two\] is no number"),
        ("[stage.2]", "[node.2]", 'there is no key "node"'),
        ("port = 7000", "", r"\[holder\]: port is missing: write port = 7001"),
        ("port = 7000", 'port = "7000"', 'not "7000": write port = 7000'),
        ("port = 7000", "port = 0", r"\[holder\]: port is 0, and lies between 1 and 65535"),
        ("port = 7000", "port = true", "port must be a whole number, not true"),
        ("port = 7000", "prot = 7000", r'\[holder\]: there is no key "prot": did you mean port'),
        ('"10.0.0.2"', '"10.0.0.2:7001"', r"\[stage.1\]: host .* write the host alone"),
        ('"10.0.0.2"', '"0.0.0.0"', r"nobody can dial host .*listen = \"0.0.0.0:7001\""),
        ('"10.0.0.2"', "7", r'\[stage.1\]: host must be a text, not 7: write host = "7"'),
        ('"10.0.0.2"', '""', 'host is "", which is no text'),
        ('"10.0.0.2"', '"10.0.0.3"', r"\[stage.2\] is at 10.0.0.3:7001, and so is \[stage.1\]"),
        ('"10.0.0.2"', '"127.0.0.1"', r"\[stage.1\] is at 127.0.0.1, which only .* \[holder\] at"),
        ("[stage.2]", '[stage.2]\ndtype = "float16"', "dtype is float16, and that of .* float32"),
        ("[stage.2]", '[stage.2]\ndtype = "fp16"', 'dtype "fp16" is unknown: take float32'),
        ("[stage.2]", '[stage.2]\nlisten = "7001"', r"\[stage.2\]: listen: '7001' is not an addr"),
        ("[stage.2]", '[stage.2]\nlayers = "0-9"', r"\[stage.1\] names no layers, and others do"),
        ("[stage.2]", "[spare.2]", r"there is a \[spare.2\], but no \[spare.1\]"),
        ("[stage.2]", '[spare.1]\nlayers = "1"', r'\[spare.1\]: there is no key "layers"'),
        ("[stage.2]", "[draft]\nkinds = [1]\n[stage.2]", r'kinds must be a list.*\["ngram", "e'),
        ("[stage.2]", '[draft]\nkinds = "beam"\n[stage.2]', 'kinds knows no "beam": take ngram'),
        ("[stage.2]", "[stage.2]\nthreads = 0", "threads is 0, and starts at 1"),
        ("[stage.2]", "[stage.2]\nkv_memory = -1", "kv_memory is -1, and must be more than 0"),
        ("[stage.2]", '[stage.2]\nkv_memory = "2"', "kv_memory must be a number"),
        ('model = "', 'insecure = "yes"\nmodel = "', "insecure must be true or false"),
        ("[stage.2]", "[stage.2]\ngraphs = 0", r"\[stage.2\]: graphs must be true or false, not 0"),
        ("[stage.2]", '[draft]\ngraphs = "no"\n[stage.2]', r"\[draft\]: graphs must be true or f"),
        ('model = "', 'insecure = true\nkeys = "k"\nmodel = "', "exclude each other"),
        ('model = "', 'draft = "eagle"\nmodel = "', r"draft must be a table: write \[draft\]"),
        ('model = "', 'name = "my home"\nmodel = "', 'name "my home" cannot be one'),
        ('model = "', 'context = 1\nmodel = "', "context is 1, and lies between 2 and"),
    ],
)
def test_what_is_wrong_is_said_with_the_way_out(
    tmp_path: Path, old: str, new: str, complaint: str
) -> None:
    path = write(tmp_path, SMALL.replace(old, new, 1))
    with pytest.raises(UserError, match=complaint) as caught:
        read_cluster(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("second", "complaint"),
    [
        ("16-29", r"\[stage.2\]: layers are 16-29, and should begin with 15: 15 is missing"),
        ("14-29", r"should begin with 15: 14 is in two stages"),
        ("29-15", '"29-15" is no range'),
        ("all", '"all" is no range: write the first and the last one'),
    ],
)
def test_layers_are_without_gap_and_overlap(tmp_path: Path, second: str, complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        read_cluster(write(tmp_path, WHOLE.replace("15-29", second)))


def test_stages_written_as_a_list(tmp_path: Path) -> None:
    text = SMALL.replace("[stage.1]", "[[stage]]").replace("[stage.2]", "[[stage]]")
    with pytest.raises(UserError, match=r"write \[stage.1\], \[stage.2\] and so on"):
        read_cluster(write(tmp_path, text))


def test_no_stage_and_no_holder(tmp_path: Path) -> None:
    head, _, stages = SMALL.partition("[stage.1]")
    with pytest.raises(UserError, match=r"there is no stage: write \[stage.1\]"):
        read_cluster(write(tmp_path, head))
    with pytest.raises(UserError, match=r"there is no \[holder\]: write \[holder\]"):
        read_cluster(write(tmp_path, f'model = "m"\n[stage.1]{stages}'))


def test_numbers_that_nobody_has(tmp_path: Path) -> None:
    cluster = read_cluster(write(tmp_path, SMALL))
    with pytest.raises(UserError, match=r"no stage 3 in .*, which has stages 1 to 2"):
        cluster.stage(3)
    with pytest.raises(UserError, match=r"no spare 1 in .*, which has none"):
        cluster.spare(1)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read: no such file"):
        read_cluster(tmp_path / "cluster.toml")
