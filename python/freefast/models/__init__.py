"""The classifiers, by name."""

import inspect
from collections.abc import Callable

from torch import nn

from freefast.errors import UserError
from freefast.models.preactresnet import preactresnet18
from freefast.models.resnet import resnet50, resnet50_cifar
from freefast.models.small_cnn import small_cnn
from freefast.models.wideresnet import wideresnet

MODELS: dict[str, Callable[..., nn.Module]] = {
    builder.__name__: builder for builder in (preactresnet18, resnet50, resnet50_cifar, wideresnet, small_cnn)
}


def build(name: str, num_classes: int, channels: int = 3, **options: int) -> nn.Module:
    """A freshly initialised model.

    name: one of `MODELS`
    num_classes: outputs (`resnet50` keeps its 1000, as the report ran it)
    channels: of the images
    options: the model's own: `width` (all but wideresnet), `depth` and `widen_factor` (wideresnet)

    Raises: UserError where the name or an option is unknown, or an option's value is impossible.
    """
    if name not in MODELS:
        raise UserError(f"model: wanted one of {', '.join(MODELS)}, got {name!r}")
    known = set(inspect.signature(MODELS[name]).parameters) - {"num_classes", "channels"}
    for option in options:
        if option not in known:
            wanted = ", ".join(sorted(known))
            raise UserError(f"model {name}: {option}: wanted one of {wanted}, got an unknown option")
    return MODELS[name](num_classes=num_classes, channels=channels, **options)


__all__ = ["MODELS", "build", "preactresnet18", "resnet50", "resnet50_cifar", "small_cnn", "wideresnet"]
