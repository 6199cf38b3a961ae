"""What of a piece had been guessed."""

from tokenizers import Tokenizer, decoders, models

from gardener.holder.detokenizer import LETTER_OF
from gardener.holder.piece import Piece
from gardener.holder.splitter import Splitter


def test_only_the_last_token_of_a_piece_may_be_missed() -> None:
    tokenizer = Tokenizer(models.BPE({letter: byte for byte, letter in LETTER_OF.items()}, []))
    tokenizer.decoder = decoders.ByteLevel()
    tokens = tuple("abcé".encode())
    splitter = Splitter(tokenizer)
    assert splitter.parts(Piece(tokens[:2], "ab", missed=True)) == (("a", True), ("b", False))
    assert splitter.parts(Piece(tokens[2:3], "c")) == (("c", True),)
    assert splitter.parts(Piece(tokens[3:4], "", missed=True)) == ()
    assert splitter.parts(Piece(tokens[4:], "é")) == (("é", True),)
    assert splitter.parts(Piece(tokens[:2], "a")) == (), "some was held back"
    assert splitter.parts(Piece(tokens[2:3], "bc")) == (), "and comes now"
    assert splitter.parts(Piece(tokens[:1], "a", missed=True)) == (("a", False),)
    assert splitter.parts(Piece((), "rest")) == ()
