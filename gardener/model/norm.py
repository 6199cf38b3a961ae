"""Root-mean-square norm (Zhang and Sennrich 2019)."""

from torch import Tensor


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Scale the last dimension to a root mean square of one, then by `weight`.

    Computed in float32, and rounded to the type of the weight before it is multiplied with it: a
    weight in 16 bits rounds as Llama does, one in float32 as Gemma and OLMo 2 do.
    """
    wide = x.float()
    scale = wide.square().mean(-1, keepdim=True).add_(eps).rsqrt_()
    return (weight * (wide * scale).to(weight.dtype)).to(x.dtype)
