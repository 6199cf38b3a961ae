"""What the holder of a ring needs besides its links: the model's folder, a card, and drafters."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import gardener
from gardener.draft.drafter import Drafter
from gardener.draft.factory import drafters
from gardener.draft.resolve import resolve_head
from gardener.holder.prompter import Prompter
from gardener.model.checkpoint.parts import HOLDER, check_stages, is_split, own_part
from gardener.model.checkpoint.resolve import resolve
from gardener.model.checkpoint.slices import EmbeddingAndHead
from gardener.protocol.messages import Card
from gardener.rings.settings import RingSettings
from gardener.runtime.wording import Say


def holder_folder(settings: RingSettings, say: Say) -> Path:
    """The folder of the model without its layers. What a draft head borrows from the model is
    fetched only if a head will be used. Raises UserError."""

    def fetched(held: EmbeddingAndHead | None) -> Path:
        return resolve(
            settings.model, settings.revision, choose=lambda shape: held, part=HOLDER, say=say
        )

    model = fetched(None)  # its config and index tell whether a head is shipped for it
    return fetched(EmbeddingAndHead()) if settings.draft.borrows(model) else model


def local_folders(settings: RingSettings, stages: int, say: Say) -> tuple[Path, Path]:
    """The folder of the holder of a local ring, and the one that its stages are given: the whole
    model, or one that was split for `stages` stages. Raises UserError."""
    given = Path(settings.model).expanduser()
    if not is_split(given):
        whole = resolve(settings.model, settings.revision, say=say)
        return whole, whole
    check_stages(given, stages, "--local")
    return own_part(given, HOLDER), given


def holder_card(model: Path) -> Card:
    """What the holder says about itself."""
    # Late, since these import torch, which takes a second: the stages of a local ring start first.
    from gardener.model.architecture import Architecture
    from gardener.model.checkpoint.tensors import fingerprint

    shape = Architecture.read(model)
    return Card(
        stage=0,
        name="holder",
        version=gardener.__version__,
        first=0,
        end=0,
        layers=shape.layers,
        width=shape.width,
        model=fingerprint(model),
        dtype="",
        quant="",
        memory=0,
    )


def load_drafters(settings: RingSettings, model: Path, say: Say) -> Sequence[Drafter]:
    """The drafters that the settings ask for. Takes a while where a head is loaded, so call it on
    a thread. Raises UserError."""
    if threads := settings.threads_each:
        import torch  # late, as above

        torch.set_num_threads(threads)
    return drafters(
        settings.draft,
        model,
        lambda name: resolve_head(name, say),
        lambda name: resolve(name, None, say=say, option="--draft-model"),
        say,
    )


def prompter_reader(settings: RingSettings, folder: Path, say: Say) -> Callable[[], Prompter]:
    """Reads the model's tokenizer and chat template. That imports for seconds, so where a ring
    stands, or comes to, it is done on a thread: the ring needs the event loop. Raises UserError."""
    return partial(
        Prompter,
        folder,
        template=settings.template,
        system=settings.system,
        name=settings.model,
        say=say,
    )
