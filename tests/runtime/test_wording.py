from gardener.runtime.wording import bare_span, harmless, printable, span


def test_layers_are_counted_the_way_people_do() -> None:
    ranges = ((3, 3), (3, 4), (3, 6))
    assert [span(*each) for each in ranges] == ["no layers", "layer 3", "layers 3-5"]
    assert [bare_span(*each) for each in ranges[1:]] == ["3", "3-5"]


def test_text_of_a_peer_cannot_steer_a_terminal() -> None:
    assert printable("stage 2\x1b[2J left:\r\n bye\x07\u202e\ud800 \u00e9") == (
        "stage 2?[2J left: bye??? \u00e9"
    )
    assert printable("漢字 é") == "漢字 é"


def test_what_replaces_it_and_what_stays_can_be_chosen() -> None:
    assert harmless("a\nb\tc\x1b") == "a?b?c?"
    assert harmless("a\nb\tc\x1b", keep="\n", instead="�") == "a\nb�c�"
