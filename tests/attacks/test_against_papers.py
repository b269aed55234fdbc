"""Attacks and losses against the papers' algorithms, written a second time in plain PyTorch or NumPy."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import advkernels as ak
from freefast.attacks import APGD, APGDT, MIFGSM, PGD, AutoAttackWithoutFAB, Square, square_moves
from freefast.attacks.auto_pgd import checkpoints
from freefast.attacks.ball import Ball
from freefast.attacks.losses import aimed_dlr, dlr, margin, targeted_dlr
from freefast.attacks.problem import Problem
from freefast.threat import ThreatModel

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)
EPSILON = {"linf": 0.06, "l2": 0.5}
norms = pytest.mark.parametrize("norm", ["linf", "l2"])


class Net(nn.Module):
    """A smooth classifier of 3x6x5 images that remembers what it was asked."""

    def __init__(self, classes: int = 6, mean: tuple = (0.0,), std: tuple = (1.0,)) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(3)
            self.layers = nn.Sequential(nn.Flatten(), nn.Linear(90, 20), nn.Tanh(), nn.Linear(20, classes))
            nn.init.normal_(self.layers[3].weight)
        self.mean, self.std = (torch.tensor(values).view(-1, 1, 1) for values in (mean, std))
        self.asked: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        pixels = x * self.std + self.mean
        self.asked.append(pixels.detach().clone())
        return self.layers(pixels)


def batch(model: nn.Module, samples: int = 12) -> tuple[Tensor, Tensor]:
    """Images that the model is right about, some pixels at the border of the box."""
    images = (torch.rand(samples, 3, 6, 5, generator=torch.Generator().manual_seed(4)) * 1.2 - 0.1).clamp(0, 1)
    with torch.no_grad():
        return images, model.layers(images).argmax(1)


def norm_of(v: Tensor) -> Tensor:
    return v.flatten(1).norm(dim=1).view(-1, 1, 1, 1)


def project(z: Tensor, x: Tensor, eps: float, norm: str) -> Tensor:
    if norm == "linf":
        return z.clamp(x - eps, x + eps).clamp(0, 1)
    return (x + (z - x) * (eps / norm_of(z - x).clamp_min(1e-30)).clamp(max=1)).clamp(0, 1)


def direction(gradient: Tensor, norm: str) -> Tensor:
    return gradient.sign() if norm == "linf" else gradient / norm_of(gradient)


def loss_and_gradient(model: nn.Module, x: Tensor, y: Tensor, loss: Callable) -> tuple[Tensor, Tensor]:
    x = x.clone().requires_grad_()
    losses = loss(model.layers(x), y)
    return losses.detach(), torch.autograd.grad(losses.sum(), x)[0]


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(logits, y, reduction="none")


def start(x: Tensor, eps: float, norm: str, seed: int) -> Tensor:
    return x + (ak.uniform_init if norm == "linf" else ak.l2_init)(x, eps, rng=ak.PhiloxState(seed))


@norms
def test_pgd(norm: str) -> None:
    model, eps, alpha = Net(), EPSILON[norm], EPSILON[norm] / 3
    x, y = batch(model)
    z = start(x, eps, norm, 5)
    for _ in range(6):
        _, gradient = loss_and_gradient(model, z, y, cross_entropy)
        z = project(z + alpha * direction(gradient, norm), x, eps, norm)
    adversarial = PGD(model, eps=eps, alpha=alpha, steps=6, norm=norm, rng=5, stop_when_fooled=False)(x, y)
    torch.testing.assert_close(adversarial, z, rtol=0, atol=2e-6)


@norms
@pytest.mark.parametrize("decay", [0.0, 0.5, 1.0])
def test_mifgsm(norm: str, decay: float) -> None:
    """Dong et al. 2018, algorithm 1, on pixels; ours on normalised images."""
    model = Net(mean=MEAN, std=STD)
    x, y = batch(model)
    eps, steps = EPSILON[norm], 6
    momentum, z = torch.zeros_like(x), x.clone()
    for _ in range(steps):
        _, gradient = loss_and_gradient(model, z, y, cross_entropy)
        momentum = decay * momentum + gradient / gradient.abs().sum((1, 2, 3), keepdim=True)
        z = project(z + eps / steps * direction(momentum, norm), x, eps, norm)
    adversarial = MIFGSM(model, eps=eps, steps=steps, decay=decay, norm=norm, mean=MEAN, std=STD)(x, y)
    torch.testing.assert_close(adversarial, z, rtol=0, atol=2e-6)


def paper_apgd(
    model: nn.Module, x: Tensor, y: Tensor, x0: Tensor, eps: float, norm: str, steps: int, loss: Callable
) -> list[Tensor]:
    """Croce and Hein 2020, algorithm 1, for one sample. Returns: every point that it asks the model about."""

    def step(z: Tensor, size: float, gradient: Tensor) -> Tensor:
        return project(z + size * direction(gradient, norm), x, eps, norm)

    shares = [0.0, 0.22]
    while shares[-1] < 1:
        shares.append(shares[-1] + max(shares[-1] - shares[-2] - 0.03, 0.06))
    w = sorted({int(np.ceil(round(share * steps, 6))) for share in shares})
    eta = [2 * eps]
    points = [x0]
    f, gradient = loss_and_gradient(model, x0, y, loss)
    losses, asked, max_losses = [f.item()], [x0], []
    points.append(step(x0, eta[0], gradient))
    best, best_gradient, f_max = x0, gradient, f.item()
    for k in range(steps):
        if k:
            z = step(points[k], eta[k], gradient)
            points.append(
                project(points[k] + 0.75 * (z - points[k]) + 0.25 * (points[k] - points[k - 1]), x, eps, norm)
            )
        asked.append(points[k + 1])
        f, gradient = loss_and_gradient(model, points[k + 1], y, loss)
        losses.append(f.item())
        if f.item() > f_max:
            best, best_gradient, f_max = points[k + 1], gradient, f.item()
        max_losses.append(f_max)
        eta.append(eta[k])
        if k in w and k > 0:
            before = w[w.index(k) - 1]
            gained = sum(losses[i + 1] > losses[i] for i in range(before, k))
            if gained < 0.75 * (k - before) or (eta[before] == eta[k] and max_losses[before] == max_losses[k]):
                eta[k + 1] = eta[k] / 2
                points[k + 1], gradient, losses[k + 1] = best, best_gradient, f_max
    return asked


@norms
@pytest.mark.parametrize("loss", ["ce", "dlr"])
def test_apgd_asks_about_the_papers_points(norm: str, loss: str) -> None:
    # in a smaller ball no sample reaches the plateau, the label third, where DLR is 1 and its gradient but rounding
    model, steps, eps = Net(), 40, EPSILON[norm] * (1 if loss == "ce" else 0.2)
    x, y = batch(model)
    function = cross_entropy if loss == "ce" else plain_dlr
    asked = [
        torch.cat(points) for points in zip(
            *(
                paper_apgd(model, x[i : i + 1], y[i : i + 1], x0, eps, norm, steps, function)
                for i, x0 in enumerate(start(x, eps, norm, 7).split(1))
            ), strict=True,
        )
    ]  # fmt: skip
    model.asked.clear()
    attack = APGD(model, eps=eps, norm=norm, steps=steps, loss=loss, rng=7, stop_when_fooled=False)
    attack(x, y)
    ours = model.asked[1:-1]  # the first is the clean image, the last the result
    assert len(ours) == len(asked) == steps + 1
    with torch.no_grad():
        values = torch.stack([function(model.layers(z), y) for z in ours])
        wanted = torch.stack([function(model.layers(z), y) for z in asked])
    torch.testing.assert_close(values, wanted, rtol=1e-4, atol=1e-4)
    # roundings of a unit direction grow from step to step, those of a sign do not
    torch.testing.assert_close(torch.stack(ours), torch.stack(asked), rtol=0, atol=1e-5 if norm == "linf" else 1e-3)


def test_apgd_returns_the_best_that_fools() -> None:
    model = Net()
    x, y = batch(model)
    model.asked.clear()
    adversarial = APGD(model, eps=0.02, steps=30, loss="ce", stop_when_fooled=False)(x, y)
    with torch.no_grad():
        logits = torch.stack([model.layers(z) for z in model.asked[:-1]])  # (steps + 2, N, classes)
        final = model.layers(adversarial)
    fooled = logits.argmax(2) != y
    losses = torch.stack([cross_entropy(each, y) for each in logits])
    best = torch.where(fooled.any(0), losses.where(fooled, -torch.inf).amax(0), losses.amax(0))
    torch.testing.assert_close(cross_entropy(final, y), best)
    assert torch.equal(final.argmax(1) != y, fooled.any(0))
    assert 0 < fooled.any(0).float().mean() < 1


@norms
def test_apgd_samples_that_leave_change_no_verdict(norm: str) -> None:
    model = Net()
    x, y = batch(model, 64)

    def verdicts(stop: bool) -> Tensor:
        return (
            model.layers(APGD(model, eps=EPSILON[norm], norm=norm, steps=20, stop_when_fooled=stop)(x, y)).argmax(1)
            == y
        )

    assert torch.equal(verdicts(True), verdicts(False))
    assert 0 < verdicts(True).float().mean() < 1


@pytest.mark.parametrize(
    ("steps", "wanted"), [(100, [0, 22, 41, 57, 70, 80, 87, 93, 99]), (10, [0, 3, 5, 6, 7, 8, 9, 10])]
)
def test_checkpoints(steps: int, wanted: list[int]) -> None:
    marks = checkpoints(steps)
    assert list(marks) == wanted
    assert list(marks.values()) == [0, *np.diff(wanted)]


def plain_dlr(logits: Tensor, y: Tensor) -> Tensor:
    """Equation 6, in PyTorch for its gradient."""
    ordered = logits.sort(1, descending=True).values
    other = torch.stack([row[torch.arange(len(row)) != label].max() for row, label in zip(logits, y, strict=True)])
    return -(logits[torch.arange(len(y)), y] - other) / (ordered[:, 0] - ordered[:, 2])


def test_dlr_and_margin_are_the_equations() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(50, 7, generator=generator) * 5
    y = torch.randint(0, 7, (50,), generator=generator)
    aims = (y + torch.randint(1, 7, (50,), generator=generator)) % 7
    for i, row in enumerate(logits.double().numpy()):
        z = np.sort(row)[::-1]
        others = np.delete(row, y[i]).max()
        eq6 = -(row[y[i]] - others) / (z[0] - z[2])
        eq7 = -(row[y[i]] - row[aims[i]]) / (z[0] - (z[2] + z[3]) / 2)
        one = slice(i, i + 1)
        assert dlr(logits[one], y[one]).item() == pytest.approx(eq6, rel=1e-5)
        assert targeted_dlr(logits[one], y[one]).item() == pytest.approx(-eq6, rel=1e-5)
        assert aimed_dlr(logits[one], y[one], aims[one]).item() == pytest.approx(eq7, rel=1e-5)
        assert margin(logits[one], y[one]).item() == pytest.approx(others - row[y[i]], rel=1e-5)


def test_dlr_of_equal_logits_is_zero() -> None:
    zeros, y = torch.zeros(2, 4), torch.tensor([0, 3])
    assert torch.equal(dlr(zeros, y), torch.zeros(2))
    assert torch.equal(aimed_dlr(zeros, y, y), torch.zeros(2))


def test_too_few_classes_for_dlr() -> None:
    for classes, attack in ((2, APGD), (3, APGDT)):
        model = Net(classes)
        with pytest.raises(
            ValueError, match=f"dlr: wanted at least {classes + 1} classes, got {classes}: ce takes any"
        ):
            attack(model, loss="dlr", eps=0.01)(*batch(model))


@pytest.mark.parametrize("classes", [2, 3])
def test_the_ensemble_falls_back_on_cross_entropy(classes: int) -> None:
    model = Net(classes)
    x, y = batch(model)
    adversarial = AutoAttackWithoutFAB(model, eps=0.3, steps=5, queries=5)(x, y)
    assert (model(adversarial).argmax(1) != y).float().mean() > 0.5


def test_the_ensemble_keeps_what_fools_first() -> None:
    model = Net()
    x, y = batch(model, 48)
    y[::4] = (y[::4] + 1) % 6
    eps, steps = 0.04, 20
    first = APGD(model, eps=eps, steps=steps, rng=2)(x, y)
    adversarial = AutoAttackWithoutFAB(model, eps=eps, steps=steps, queries=50, rng=2)(x, y)
    with torch.no_grad():
        by_first, by_all = (model(z).argmax(1) != y for z in (first, adversarial))
        square = model(Square(model, eps=eps, queries=50)(x, y)).argmax(1) != y
        targeted = model(APGDT(model, eps=eps, steps=steps, rng=3)(x, y)).argmax(1) != y
    assert torch.equal(adversarial[by_first], first[by_first])
    assert torch.equal(adversarial[::4], x[::4])
    assert (by_all >= (by_first | square)).all()
    assert by_first.sum() <= targeted.sum() <= by_all.sum() < 48


def test_apgdt_goes_through_the_likely_classes() -> None:
    """One step towards each: the number of questions tells how many runs there were."""
    model = Net()
    x, y = batch(model)
    for classes, runs in ((1, 1), (3, 3), (9, 5)):
        model.asked.clear()
        APGDT(model, eps=0.0, steps=1, target_classes=classes)(x, y)
        assert len(model.asked) == 2 + 3 * runs  # clean images twice; start, step and verdict of each run


@pytest.mark.parametrize("side", range(1, 10))
def test_square_pattern_is_equation_2(side: int) -> None:
    """Andriushchenko et al. 2020, equation 2, rows and columns from 1 as there."""

    def eta(height: int, width: int) -> np.ndarray:
        n = width // 2
        values = np.zeros((height, width))
        for r in range(1, height + 1):
            for s in range(1, width + 1):
                rounds = n - max(abs(r - height // 2 - 1), abs(s - width // 2 - 1))
                values[r - 1, s - 1] = sum(1 / (n + 1 - k) ** 2 for k in range(rounds + 1))
        return values / max(np.linalg.norm(values), 1e-30)

    both = np.concatenate([eta(side // 2, side), -eta(side - side // 2, side)])
    pattern = square_moves._pattern(side, torch.device("cpu"))
    np.testing.assert_allclose(pattern.numpy(), both / np.linalg.norm(both), rtol=1e-5, atol=1e-7)


def square_problem(norm: str, mean: tuple = MEAN, std: tuple = STD) -> Problem:
    threat = ThreatModel(epsilon=EPSILON[norm], mean=mean, std=std, norm=norm)
    images = torch.rand(9, 3, 9, 7, generator=torch.Generator().manual_seed(6))
    labels = torch.zeros(9, dtype=torch.int64)
    return Problem(model=nn.Identity(), x=threat.normalize(images), labels=labels, ball=Ball.of(threat))


def in_pixels(delta: Tensor) -> Tensor:
    return delta * torch.tensor(STD).view(-1, 1, 1)


@norms
def test_square_starts_at_the_surface(norm: str) -> None:
    delta = in_pixels((square_moves.LinfMoves if norm == "linf" else square_moves.L2Moves)().start(
        square_problem(norm), ak.PhiloxState(1)
    ))  # fmt: skip
    if norm == "l2":
        torch.testing.assert_close(norm_of(delta).flatten(), torch.full((9,), EPSILON[norm]))
        return
    torch.testing.assert_close(delta.abs(), torch.full_like(delta, EPSILON[norm]))
    assert torch.equal(delta, delta[:, :, :1].expand_as(delta))  # stripes
    assert 0.3 < (delta > 0).float().mean() < 0.7


@pytest.mark.parametrize("side", [1, 3, 7])
def test_square_proposes_algorithm_2(side: int) -> None:
    problem, moves, rng = square_problem("linf"), square_moves.LinfMoves(), ak.PhiloxState(1)
    delta = torch.zeros_like(problem.x)
    corners = set()
    for _ in range(40):
        for change in in_pixels(moves.propose(problem, delta, side, rng)):
            rows, columns = change.abs().sum((0, 2)).nonzero(), change.abs().sum((0, 1)).nonzero()
            assert len(rows) == len(columns) == side
            square = change[:, rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
            torch.testing.assert_close(square.abs(), torch.full_like(square, EPSILON["linf"]))
            assert torch.equal(square, square[:, :1, :1].expand_as(square))
            corners.add((int(rows.min()), int(columns.min())))
    assert len(corners) == (9 - side + 1) * (7 - side + 1)  # every place


@pytest.mark.parametrize("side", [3, 4, 7])
def test_square_proposes_algorithm_3(side: int) -> None:
    """The paper's lines on one sample at a time, with the random numbers that ours draws."""
    problem, moves, eps = square_problem("l2"), square_moves.L2Moves(), EPSILON["l2"]
    delta = 0.9 * moves.start(problem, ak.PhiloxState(1))
    proposed = in_pixels(moves.propose(problem, delta, side, ak.PhiloxState(2))).double().numpy()
    draws = square_moves._uniform(problem, 8, ak.PhiloxState(2)).double().numpy()
    eta = square_moves._pattern(side, torch.device("cpu")).double().numpy()
    for nu, u, ours in zip(in_pixels(delta).double().numpy(), draws, proposed, strict=True):
        (r1, r2), (s1, s2) = np.int64(u[[0, 2]] * (10 - side)), np.int64(u[[1, 3]] * (8 - side))
        first, second = np.zeros((9, 7), bool), np.zeros((9, 7), bool)
        first[r1 : r1 + side, s1 : s1 + side] = True
        second[r2 : r2 + side, s2 : s2 + side] = True
        unused = eps**2 - (nu**2).sum()
        new = nu.copy()
        for i in range(3):
            rho = 1 if u[5 + i] < 0.5 else -1
            window = nu[i][first].reshape(side, side)
            wanted = rho * (eta if u[4] < 0.5 else eta.T) + window / max(np.linalg.norm(window), 1e-12)
            available = np.sqrt((nu[i][first | second] ** 2).sum() + unused / 3)
            new[i][second] = 0
            new[i][first] = (wanted / np.linalg.norm(wanted) * available).ravel()
        np.testing.assert_allclose(ours, new, rtol=0, atol=1e-6)
        assert np.linalg.norm(ours) == pytest.approx(eps, rel=1e-5)


def test_square_sides_follow_the_schedule() -> None:
    """p_init of 10000 queries halves after 10, 50, 200, 500, 1000, 2000, 4000, 6000 and 8000, and in proportion."""
    x = torch.zeros(1, 3, 32, 32)
    wanted = {10: 29, 11: 20, 51: 14, 201: 10, 501: 7, 1001: 5, 2001: 4, 4001: 3, 6001: 2, 8001: 1}
    for query, side in wanted.items():
        assert square_moves.square_side(query, 10000, 0.8, x, 1) == side
    assert square_moves.square_side(501, 1000, 0.8, x, 1) == square_moves.square_side(5001, 10000, 0.8, x, 1)
    assert square_moves.square_side(9999, 10000, 0.8, x, 3) == 3
    assert square_moves.square_side(1, 10000, 0.8, torch.zeros(1, 1, 2, 50), 3) == 2


def test_square_keeps_to_its_budget() -> None:
    model = Net()
    images, labels = batch(model)
    model.asked.clear()
    Square(model, eps=0.0, queries=17, restarts=2)(images, labels)
    assert len(model.asked) == 1 + 2 * (17 + 1)  # the clean images; tries and the verdict of each restart


@norms
def test_square_never_loses_margin(norm: str) -> None:
    model = Net()
    images, labels = batch(model)
    few, many = (
        Square(model, eps=EPSILON[norm] / 4, norm=norm, queries=queries)(images, labels) for queries in (5, 200)
    )
    with torch.no_grad():
        assert (margin(model(few), labels) >= margin(model(images), labels)).all()
        assert margin(model(many), labels).mean() > margin(model(few), labels).mean()


PEERS = {
    "MIFGSM": ({"steps": 5, "alpha": 0.01, "decay": 1.0}, {}),
    "PGDL2": ({"steps": 5, "alpha": 0.1, "random_start": False}, {"norm": "l2", "stop_when_fooled": False}),
}


@pytest.mark.parametrize("name", PEERS)
def test_torchattacks_gives_the_same_images(name: str) -> None:
    torchattacks = pytest.importorskip("torchattacks", reason="torchattacks is not installed")
    model = Net()
    x, y = batch(model)
    shared, own = PEERS[name]
    eps = EPSILON["linf" if name == "MIFGSM" else "l2"]
    theirs = getattr(torchattacks, name)(model, eps=eps, **shared)(x, y)
    ours = {"MIFGSM": MIFGSM, "PGDL2": PGD}[name](model, eps=eps, **shared, **own)(x, y)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
