"""What a training step takes: ours beside the loop in plain PyTorch, and what the device could do."""

from freefast.bench.config import BenchConfig
from freefast.bench.run import bench

__all__ = ["BenchConfig", "bench"]
