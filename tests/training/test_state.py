"""The loss that trains, and the images that it is taken of."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from steps import SIZE, make_loader, make_state, make_step


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_smoothed_labels(smoothing: float, device: str) -> None:
    """Szegedy et al. 2016: (1 - s) of the target is the label's, s is spread over all classes."""
    state = make_state(device, label_smoothing=smoothing)
    batch = next(make_loader().epoch(0))
    labels = batch.labels.to(device)
    loss, logits = state.loss(batch.images.to(device), labels)
    likelihoods = logits.double().softmax(1).log()
    target = (1 - smoothing) * F.one_hot(labels, 10) + smoothing / 10
    wanted = -(target * likelihoods).sum(1).mean()
    torch.testing.assert_close(loss.double(), wanted, rtol=1e-6, atol=0)
    assert torch.equal(loss, F.cross_entropy(logits, labels, label_smoothing=smoothing))


@pytest.mark.parametrize(("method", "same"), [("fast previous", True), ("free", False)])
def test_an_attack_of_its_own_keeps_to_plain_labels(method: str, same: bool, device: str) -> None:
    deltas = []
    for smoothing in (0.0, 0.9):
        state = make_state(device, label_smoothing=smoothing)
        batch = next(make_loader().epoch(0))
        make_step(method)(state, batch.images.to(device), batch.labels.to(device))
        deltas.append(state.delta)
    assert torch.equal(*deltas) == same


def test_images_are_shrunk_as_pillow_does(device: str) -> None:
    """Its BILINEAR is the antialiased one; both compute in float, this one in float32."""
    state = make_state(device)
    images = next(make_loader().epoch(0)).images.to(device)
    assert state.fit(images) is images
    state.resize((SIZE - 3, SIZE - 5))
    shrunk = state.fit(images)
    assert shrunk.is_contiguous(memory_format=torch.channels_last)
    wanted = [
        [np.array(Image.fromarray(plane).resize((SIZE - 5, SIZE - 3), Image.Resampling.BILINEAR)) for plane in image]
        for image in images.cpu().numpy()
    ]
    np.testing.assert_allclose(shrunk.cpu().numpy(), np.array(wanted), rtol=0, atol=1e-5)


def test_another_size_begins_with_no_perturbation_and_the_same_size_keeps_it(device: str) -> None:
    state = make_state(device)
    delta = state.delta
    delta.fill_(1)
    state.resize((SIZE, SIZE))
    assert state.delta is delta
    state.resize((8, 9))
    assert state.delta.shape == (*delta.shape[:2], 8, 9)
    assert not state.delta.any()
    assert state.delta.is_contiguous(memory_format=torch.channels_last)
