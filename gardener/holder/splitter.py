"""The text of a piece in two: of tokens that had been guessed, and of one that had not."""

from collections.abc import Collection, Sequence

from tokenizers import Tokenizer

from gardener.holder.detokenizer import Detokenizer
from gardener.holder.piece import Piece


class Splitter:
    """Given all pieces of one answer, in order."""

    def __init__(
        self, tokenizer: Tokenizer, prompt: Sequence[int] = (), shown: Collection[str] = ()
    ) -> None:
        """See `Detokenizer`."""
        self._text = Detokenizer(tokenizer, prompt, shown)

    def parts(self, piece: Piece) -> tuple[tuple[str, bool], ...]:
        """Texts, and whether their tokens had been guessed: at most the last token of a piece was
        missed. Nothing where the text is not that of these tokens: some of it was held back, or
        comes after it was."""
        known = len(piece.tokens) - piece.missed
        head, tail = self._text.push(piece.tokens[:known]), self._text.push(piece.tokens[known:])
        if head + tail != piece.text:
            return ()
        return tuple(each for each in ((head, True), (tail, False)) if each[0])
