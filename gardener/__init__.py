"""Gardener: one large language model across several machines, one request made fast."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("gardener-node")
except PackageNotFoundError:  # a checkout that was never installed
    __version__ = "0+unknown"
