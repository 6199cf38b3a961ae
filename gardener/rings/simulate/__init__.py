"""A whole ring in one process under a virtual clock.

The holder, the stages' nodes, the links and the drafter are the real ones. Time and network are
simulated, and instead of computing the target model, the stages play back answers that it wrote
before.
"""
