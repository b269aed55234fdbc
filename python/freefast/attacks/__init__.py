"""Attacks on a classifier: images in [0, 1] and labels in, adversarial images in [0, 1] out."""

from freefast.attacks.apgd import APGD
from freefast.attacks.apgdt import APGDT
from freefast.attacks.auto_attack import AutoAttackWithoutFAB
from freefast.attacks.base import Attack
from freefast.attacks.fgsm import FGSM
from freefast.attacks.mifgsm import MIFGSM
from freefast.attacks.pgd import PGD
from freefast.attacks.square import Square

__all__ = ["APGD", "APGDT", "FGSM", "MIFGSM", "PGD", "Attack", "AutoAttackWithoutFAB", "Square"]
