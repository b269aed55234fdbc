"""From a split's pixels to a batch for the model: one operation, the same bits on every device."""

from collections.abc import Sequence

from torch import Tensor

import advkernels as ak

PADDING = 4


def prepare(
    images: Tensor, index: Tensor, mean: Sequence[float], std: Sequence[float], rng: ak.PhiloxState | None
) -> Tensor:
    """Gather, crop, flip and normalise a batch; nothing waits for the device.

    images: (N, C, H, W) uint8, pixel values 0 to 255
    index: (n,) int64, places in images, on their device
    mean, std: one a channel, pixel units
    rng: on their device; picks a sample's crop out of a padding of 4 pixels, and its flip; None leaves the images alone

    Returns: (n, C, H, W) float32, model units, channels last
    Raises: `advkernels.BackendUnavailable` where the backend asked for by name cannot run on the device.
    """
    augment = rng is not None
    return ak.augment(images, index, mean, std, rng=rng, padding=PADDING if augment else 0, flip=augment)
