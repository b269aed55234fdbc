"""What is counted of a call, against counts by hand."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from freefast import models
from freefast.bench import BenchConfig, images, training
from freefast.bench.variants import Variant
from freefast.bench.work import count, count_step

BATCH, WIDTH = 4, 8
FLOAT = 4  # bytes


def layers(width: int, size: int = 32) -> list[int]:
    """Multiply-adds an image of each layer of PreActResNet18, the stem first, the linear one last, written by hand."""
    found = [size * size * width * 3 * 9]
    inputs = width
    for stage, stride in enumerate((1, 2, 2, 2)):
        outputs = width * 2**stage
        size //= stride
        pixels = size * size
        found += [pixels * outputs * inputs * 9, *[pixels * outputs * outputs * 9] * 3]
        found += [pixels * outputs * inputs] if stage else []
        inputs = outputs
    return [*found, inputs * 10]


def batch(width: int) -> tuple[nn.Module, Tensor, Tensor]:
    model = models.build("preactresnet18", num_classes=10, width=width)
    return model, torch.rand(BATCH, 3, 32, 32), torch.randint(0, 10, (BATCH,))


pytestmark = pytest.mark.usefixtures("one_thread")


def test_forward_of_the_reports_network_is_half_a_giga_multiply_add() -> None:
    model, x, _ = batch(64)
    flops = count(lambda: model(x)).flops
    assert flops == 2 * BATCH * sum(layers(64))
    assert flops / (2 * BATCH) == pytest.approx(0.56e9, rel=0.01)


def test_a_backward_pass_counts_the_gradients_asked_for() -> None:
    """Each costs what the forward pass does; the stem's input has none unless it is asked for."""
    model, x, y = batch(WIDTH)
    forward, stem = 2 * BATCH * sum(layers(WIDTH)), 2 * BATCH * layers(WIDTH)[0]
    assert count(lambda: F.cross_entropy(model(x), y).backward()).flops == 3 * forward - stem
    x.requires_grad_()
    assert count(lambda: torch.autograd.grad(F.cross_entropy(model(x), y), [x])).flops == 2 * forward
    assert count(lambda: F.cross_entropy(model(x), y).backward()).flops == 3 * forward


def test_flops_are_those_of_flop_counter_mode() -> None:
    model, x, y = batch(WIDTH)
    with FlopCounterMode(display=False) as counter:
        F.cross_entropy(model(x), y).backward()
    assert count(lambda: F.cross_entropy(model(x), y).backward()).flops == counter.get_total_flops()


@pytest.mark.parametrize("who", ["ours", "plain"])
def test_steps_compute_what_their_methods_need(who: str) -> None:
    """The plain loop's attack fills the weights' gradients too, as its `backward` does; free wants them."""
    config = BenchConfig(batch_size=BATCH, samples=4 * BATCH, width=WIDTH, device="cpu")
    data, _ = images.load(config)
    forward, stem = 2 * BATCH * sum(layers(WIDTH)), 2 * BATCH * layers(WIDTH)[0]
    attack = 2 * forward if who == "ours" else 3 * forward
    wanted = {
        "standard": 3 * forward - stem,
        "fast": attack + 3 * forward - stem,
        "pgd": 7 * attack + 3 * forward - stem,
        "free": 8 * 3 * forward,
    }
    for method, flops in wanted.items():
        variant = Variant(method=method, who=who)
        made = training.make(variant, config.train_config(variant, epochs=1), data)
        assert count_step(made.steps).flops == flops, method


def test_bytes_of_single_operators() -> None:
    x, y = torch.rand(10, 20), torch.rand(10, 20)
    size = x.nbytes
    assert count(lambda: x + y).moved == 3 * size
    assert count(lambda: x.sum()).moved == size + FLOAT
    assert count(lambda: x.add_(y)).moved == 3 * size
    assert count(lambda: x.copy_(y)).moved == 2 * size
    assert count(lambda: x.zero_()).moved == size
    assert count(lambda: torch.add(x, y, out=torch.empty_like(x))).moved == 4 * size
    assert count(lambda: x.bfloat16()).moved == 3 * size // 2
    assert count(lambda: x[:, :1].expand(10, 50) + 0).moved == 10 * 50 * FLOAT + size  # the buffer behind it is read


def test_views_and_empty_memory_move_nothing() -> None:
    x = torch.rand(10, 20)
    assert count(lambda: x.t().reshape(20, 10).view(20, 10)[3:].detach()).moved == 0
    assert count(lambda: torch.empty_like(x)).moved == 0
