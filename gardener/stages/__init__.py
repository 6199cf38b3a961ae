"""Stages 1..N: segments in, segments or verdicts out."""
