"""The commands `gardener` (`main`) and `gardener-node` (`node`)."""
