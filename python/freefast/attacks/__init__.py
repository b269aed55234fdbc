"""Attacks on a classifier: images in [0, 1] and labels in, adversarial images in [0, 1] out."""

from typing import Literal

from freefast.attacks.apgd import APGD
from freefast.attacks.apgdt import APGDT
from freefast.attacks.auto_attack import AutoAttackWithoutFAB
from freefast.attacks.base import Attack
from freefast.attacks.fgsm import FGSM
from freefast.attacks.mifgsm import MIFGSM
from freefast.attacks.pgd import PGD
from freefast.attacks.square import Square

AttackName = Literal["fgsm", "mifgsm", "apgd", "apgdt", "square", "autoattack_without_fab"]
NAMED: dict[AttackName, type[Attack]] = {
    "fgsm": FGSM,
    "mifgsm": MIFGSM,
    "apgd": APGD,
    "apgdt": APGDT,
    "square": Square,
    "autoattack_without_fab": AutoAttackWithoutFAB,
}
"""The attacks that an evaluation may run beside PGD, each with its own settings but for the ball."""

__all__ = [
    "APGD",
    "APGDT",
    "FGSM",
    "MIFGSM",
    "NAMED",
    "PGD",
    "Attack",
    "AttackName",
    "AutoAttackWithoutFAB",
    "Square",
]
