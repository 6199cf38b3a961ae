"""A cache folder for one run of the tests, so that they neither write into the user's nor depend on
what it has gathered. Trials of kernels and recordings are made in it once a run."""

import os
import shutil
from pathlib import Path

from gardener.model.checkpoint.gguf_files import folder_name
from gardener.model.checkpoint.resolve import BUILT_IN, home


def furnish(own: Path) -> None:
    """Make `own` the home of this process and its children. The built-in models are linked into it
    where the user has them; others are fetched into it, once, by the first test that needs one."""
    users = home() / "models"
    os.environ["GARDENER_HOME"] = str(own)
    os.environ["XDG_CONFIG_HOME"] = str(own / "config")  # a cluster.toml may be in the user's
    models = own / "models"
    models.mkdir()
    for name in BUILT_IN:
        gguf, link = users / f"{name}.gguf", models / f"{name}.gguf"
        if not gguf.exists():
            continue
        link.symlink_to(gguf)
        light = users / folder_name(gguf)
        if light.is_dir():  # a copy, since it is called after where the file is
            shutil.copytree(light, models / folder_name(link), symlinks=True)
