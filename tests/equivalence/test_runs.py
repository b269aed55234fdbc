"""A whole training run against the report's algorithm on the same batches: the same bits in its checkpoint."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from report_loops import Sgd, Threat, train_fast, train_free, train_pgd, train_standard
from torch import Tensor, nn

from freefast import TrainConfig, models, train
from freefast.data import Loader, load

BATCH, SAMPLES, EPOCHS, REPLAYS, SEED = 16, 58, 5, 2, 7  # three batches of 16 and one of 10, 20 updates
EPSILON, ALPHA = 0.1, 0.125
OWN: dict[str, dict[str, Any]] = {
    "standard": {},
    "free": {"replays": REPLAYS},
    "fast": {"alpha": ALPHA, "delta_init": "previous"},
    "pgd": {"alpha": 0.05, "pgd_steps": 2},
}


@pytest.mark.parametrize("method", OWN)
def test_run_has_the_reports_bits(method: str, device: str, backend: str, tmp_path: Path) -> None:
    config = TrainConfig(
        method=method, dataset="digits", limit_train=SAMPLES, limit_test=10, model="small_cnn", width=4,
        epsilon=EPSILON, lr_max=0.1, epochs=EPOCHS, batch_size=BATCH, seed=SEED, device=device, backend=backend,
        eval_every=2, curve_steps=(1,), eval_steps=(1,), out=tmp_path, **OWN[method],
    )  # fmt: skip
    train(config)
    content = torch.load(tmp_path / "checkpoint.pt", map_location=device, weights_only=True)

    model, update, delta = run_report(method, device)

    assert content["epoch"] == EPOCHS
    for name, tensor in model.state_dict().items():
        assert torch.equal(content["model"][name], tensor), name
    for index, momentum in enumerate(update.buffers):
        assert torch.equal(content["optimizer"]["state"][index]["momentum_buffer"], momentum)
    if method in ("free", "fast"):
        assert torch.equal(content["delta"], delta)


def run_report(method: str, device: str) -> tuple[nn.Module, Sgd, Tensor | None]:
    data = load("digits", limit_train=SAMPLES, seed=SEED)
    loader = Loader(data.train, mean=data.mean, std=data.std, batch_size=BATCH, shuffle=True, augment=False, seed=SEED)
    batches = [
        (images.to(device, memory_format=torch.channels_last), labels.to(device))
        for epoch in range(EPOCHS)
        for images, labels, _ in loader.epoch(epoch)
    ]
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        model = models.build("small_cnn", 10, 1, width=4).to(device, memory_format=torch.channels_last).train()
    update = Sgd(model.parameters())
    threat = Threat(EPSILON, data.mean, data.std, device)
    updates = len(batches) * (REPLAYS if method == "free" else 1)
    lrs = [0.1 * float(np.interp(index, [0, updates / 2, updates], [0, 1, 0])) for index in range(updates)]
    if method == "standard":
        return model, update, train_standard(model, batches, lrs, update)
    if method == "free":
        return model, update, train_free(model, batches, lrs, update, threat, replays=REPLAYS, batch_size=BATCH)
    own = OWN[method]
    if method == "pgd":
        own = {"alpha": own["alpha"], "steps": own["pgd_steps"], "seed": SEED}
        return model, update, train_pgd(model, batches, lrs, update, threat, **own)
    return model, update, train_fast(model, batches, lrs, update, threat, batch_size=BATCH, seed=SEED, **own)
