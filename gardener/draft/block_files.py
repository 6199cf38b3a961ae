"""One-pass heads from files: `fc` over the taps, `hidden_norm`, a few layers of Qwen3's kind, and
`norm`; DSpark with `markov_head`. Embedding and output matrix are the target's where they are left
out. How sure the head is of itself (`confidence_head`) is not asked: the tree's odds are calibrated
on what comes true."""

from pathlib import Path

import torch

from gardener.draft.block import BlockLayer, BlockNetwork, BlockParts, Markov
from gardener.draft.block_config import StatedBlock, read_block
from gardener.draft.head_reader import HeadReader
from gardener.model.block import Block
from gardener.model.kernels.interface import Make
from gardener.model.kernels.linear import untried_linear
from gardener.model.look_back import LookBack
from gardener.model.tensors import dtype_of

_IDS = "target_layer_ids"


def load_block(
    folder: Path, model: Path, *, dtype: str, device: str, make: Make = untried_linear
) -> BlockNetwork:
    """The head in `folder`, for the target in the folder `model`.

    make: for its linear layers, but for `fc`, which reads things of very different size at once.

    Raises UserError.
    """
    stated = read_block(folder)
    reader = HeadReader(stated, model, dtype_of(dtype), torch.device(device), make)
    _check(stated, reader)
    with torch.inference_mode():
        return BlockNetwork(_parts(stated, reader))


def _check(stated: StatedBlock, reader: HeadReader) -> None:
    """What config and tokenizer say, before any weight is read."""
    fields, target, width = stated.fields, reader.target, reader.shape.width
    reader.check_tokens(fields.vocab_size)
    if width != target.width:
        raise reader.misfit("hidden_size", width, target.width)
    for key, theirs in (("target_hidden_size", target.width), ("num_target_layers", target.layers)):
        ours = getattr(fields, key)
        if ours is not None and ours != theirs:
            raise reader.misfit(key, ours, theirs)
    if stated.mask >= target.vocab:
        raise reader.refusal(
            f"mask_token_id is {stated.mask}, but the model's tokens end at {target.vocab - 1}"
        )
    taps, ids = stated.taps, list(fields.target_layer_ids or ())
    if not ids or list(taps) != sorted(set(taps)) or taps[0] < 0 or taps[-1] >= target.layers:
        raise reader.refusal(
            f"{_IDS} is {ids}, but must ascend from -1 to {target.layers - 2} at most"
        )


def _parts(stated: StatedBlock, reader: HeadReader) -> BlockParts:
    shape, theirs = reader.shape, reader.target.width
    fc = untried_linear(reader.take("fc.weight", (shape.width, len(stated.taps) * theirs)), None)
    tokens = reader.tokens(stated.fields.draft_vocab_size)
    places = reader.target.vocab if tokens is None else len(tokens)
    parts = BlockParts(
        name=stated.name,
        shape=shape,
        layers=[_layer(reader, index) for index in range(shape.layers)],
        fc=fc,
        hidden_norm=reader.norm("hidden_norm.weight"),
        norm=reader.norm("norm.weight"),
        table=reader.table(),
        head=reader.output(tokens, must=False),
        markov=_markov(reader, stated.rank, places) if stated.rank else None,
        tokens=tokens,
        taps=stated.taps,
        size=stated.size,
        mask=stated.mask,
        follows=stated.follows,
        rotary=reader.rotary(),
        dtype=reader.dtype,
        device=reader.device,
    )
    reader.nothing_left("confidence_head.")
    return parts


def _layer(reader: HeadReader, index: int) -> BlockLayer:
    s, name = reader.shape, f"layers.{index}."
    norm = reader.norm(f"{name}input_layernorm.weight")
    weights = reader.weights(name, s.width, norm, head_norms=True)
    k_norm = reader.norm(f"{name}self_attn.k_norm.weight", s.head_dim)
    keys = s.kv_heads * s.head_dim
    kv = reader.fused(f"{name}self_attn", {"k": keys, "v": keys}, s.width)
    return BlockLayer(Block(s, weights, LookBack(s, index)), kv, k_norm)


def _markov(reader: HeadReader, rank: int, places: int) -> Markov:
    before = reader.take("markov_head.markov_w1.weight", (reader.target.vocab, rank))
    after = reader.take("markov_head.markov_w2.weight", (places, rank))
    return Markov(before, reader.linear(after))
