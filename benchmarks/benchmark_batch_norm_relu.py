"""BatchNorm and ReLU behind a sum, forwards and backwards, against PyTorch's own lines and torch.compile of them."""

import torch
from comparison import Comparison
from norms import Norm


def benchmark_batch_norm_relu(compare: Comparison) -> None:
    norm = Norm((128, 16, 32, 32), torch.float32, "cpu")
    norm.check(norm.ours)
    contenders = {"advkernels": norm.ours, "torch.compile": norm.compile, "eager": norm.eager}
    compare(contenders, {"eager": 1.5}, rounds=60, calls=2)
