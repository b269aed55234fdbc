"""MasterSGD on PreActResNet18's tensors in bfloat16 against the eager foreach equivalent with a float32 copy."""

import copy

import torch
from comparison import Comparison

import advkernels as ak
from freefast import models

LR, MOMENTUM, WEIGHT_DECAY = 0.1, 0.9, 5e-4


class ForeachMaster:
    """What one writes without a fused update: masters, torch._foreach operations, copies back."""

    def __init__(self, params: list[torch.Tensor]) -> None:
        self.params = params
        self.masters = [p.detach().float() for p in params]
        self.buffers = [torch.zeros_like(m) for m in self.masters]

    @torch.no_grad()
    def step(self) -> None:
        grads = [p.grad.float() for p in self.params]
        torch._foreach_add_(grads, torch._foreach_mul(self.masters, WEIGHT_DECAY))
        torch._foreach_mul_(self.buffers, MOMENTUM)
        torch._foreach_add_(self.buffers, grads)
        torch._foreach_sub_(self.masters, torch._foreach_mul(self.buffers, LR))
        torch._foreach_copy_(self.params, self.masters)


def benchmark_sgd_step(compare: Comparison) -> None:
    model = models.build("preactresnet18", num_classes=10, channels=3).to(torch.bfloat16)
    params = list(model.parameters())
    for param in params:
        param.grad = torch.randn_like(param)
    theirs = copy.deepcopy(params)
    for one, other in zip(params, theirs, strict=True):
        other.grad = one.grad.clone()
    ours = ak.MasterSGD(params, lr=LR, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)
    foreach = ForeachMaster(theirs)
    for _ in range(3):
        ours.step()
        foreach.step()
    assert all(torch.equal(one, other) for one, other in zip(params, theirs, strict=True))
    compare({"advkernels": ours.step, "eager foreach": foreach.step}, {"eager foreach": 2.0}, rounds=30)
