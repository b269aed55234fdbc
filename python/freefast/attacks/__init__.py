"""Attacks on a classifier: images in [0, 1] and labels in, adversarial images in [0, 1] out."""

from freefast.attacks.base import Attack
from freefast.attacks.fgsm import FGSM
from freefast.attacks.pgd import PGD

__all__ = ["FGSM", "PGD", "Attack"]
