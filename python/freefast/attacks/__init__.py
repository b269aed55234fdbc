"""Attacks on a classifier: images in [0, 1] and labels in, adversarial images in [0, 1] out."""

from typing import Literal, get_args

from freefast.attacks.base import Attack
from freefast.attacks.fgsm import FGSM
from freefast.attacks.pgd import PGD

AttackName = Literal["fgsm"]
NAMED: dict[str, type[Attack]] = {"fgsm": FGSM}
"""The attacks that an evaluation may run beside PGD, each with its own settings but for the ball."""

assert get_args(AttackName) == tuple(NAMED)

__all__ = ["FGSM", "NAMED", "PGD", "Attack", "AttackName"]
