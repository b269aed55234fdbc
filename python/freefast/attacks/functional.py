"""The attack on which every trainer and PGD stand."""

import torch
from torch import Tensor

import advkernels as ak
from freefast.attacks.ball import Bound
from freefast.attacks.problem import Problem


def pgd(
    problem: Problem,
    *,
    alpha: Bound,
    steps: int,
    rng: ak.PhiloxState | None,
    restarts: int = 1,
    stop_when_fooled: bool = True,
) -> Tensor:
    """Projected gradient ascent on the problem's loss.

    alpha: step size, model units
    rng: of the random starts; None starts at the images themselves
    restarts: of several runs, each sample keeps the perturbation with the largest loss
    stop_when_fooled: a sample stops moving once it is misclassified

    Returns: adversarial images like `problem.x`
    Source: Madry et al. 2017, section 2.1; restarts and stop as in the code of Wong et al. 2020.
    """
    best = _climb(problem, alpha, steps, rng, stop_when_fooled)
    if restarts == 1:
        return best
    best_loss = problem.losses(problem.logits(best))
    for _ in range(restarts - 1):
        adversarial = _climb(problem, alpha, steps, rng, stop_when_fooled)
        loss = problem.losses(problem.logits(adversarial))
        best = torch.where((loss >= best_loss).view(-1, 1, 1, 1), adversarial, best)
        best_loss = torch.maximum(best_loss, loss)
    return best


def _climb(problem: Problem, alpha: Bound, steps: int, rng: ak.PhiloxState | None, stop_when_fooled: bool) -> Tensor:
    x = problem.x
    adversarial = x.clone()
    delta = torch.zeros_like(x) if rng is None else problem.start(rng, out=adversarial)
    moving = None
    for _ in range(steps):
        gradient, logits = problem.gradient(adversarial)
        if stop_when_fooled:
            moving = ~problem.reached(logits)
            if x.device.type == "cpu" and not moving.any():
                break
        problem.ball.step_(delta, gradient, x, alpha, moving, adversarial)
    return adversarial
