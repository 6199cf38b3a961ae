"""A pass on a device with kernels of its own: filled up, at fixed addresses, recorded and replayed.

What costs time there is to start a kernel, not to compute a few rows more. So the rows of a pass
are filled up to one of few sizes (`sizes`), what it reads stands at fixed addresses (`frame`,
`seats`), and all of its kernels are recorded once and started together from then on (`graphs`).
Attention is cut so that a row has the same bits in every size (`look`).
"""
