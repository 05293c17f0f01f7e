"""The benchmarking and ablation toolkit for Squeeze-and-Excitation networks."""

__version__ = "0.1.0"
