"""Measuring a network: complexity, latency, memory, and the machine it ran on. Takes any `nn.Module`."""
