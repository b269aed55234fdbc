"""The average of a model's weights over its training."""

import copy

import torch
from torch import Tensor, nn


class WeightAverage:
    """Exponential moving average of weights and BatchNorm statistics, in float32.

    average += (1 - decay) (value - average), once an update. It begins with the values that the model has now, whose
    share is decay ** updates. Of half-precision weights with masters it averages the masters. Statistics are averaged
    as weights are: a pass over the data for those of the averaged weights (Izmailov et al. 2018, section 3.2) would
    cost an epoch's forward passes, and the newest ones belong to the newest weights.

    model: the classifier, its weights in the dtypes that they are trained in
    optimizer: keeps the masters
    decay: in (0, 1)

    Source: Izmailov et al. 2018, "Averaging weights leads to wider optima and better generalization"; for robust
        accuracy, and as a moving average, Rebuffi et al. 2021, "Data augmentation can improve robustness".
    """

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, decay: float) -> None:
        self._model, self._optimizer, self._decay = model, optimizer, decay
        state = model.state_dict(keep_vars=True)
        self._values = {name: value for name, value in state.items() if value.is_floating_point()}
        self._average = {name: value.detach().float().clone() for name, value in self._values.items()}

    @property
    def tensors(self) -> list[Tensor]:
        """What `update` writes."""
        return list(self._average.values())

    @torch.no_grad()
    def update(self) -> None:
        """Take in the values that the model has now; nothing waits for the device."""
        values = [self._in_float32(value) for value in self._values.values()]
        torch._foreach_lerp_(self.tensors, values, 1 - self._decay)

    def averaged_model(self) -> nn.Module:
        """A copy of the model with the averages in the dtypes of its own values."""
        model = copy.deepcopy(self._model)
        model.zero_grad()
        model.load_state_dict({**model.state_dict(), **self._average})
        return model

    def state_dict(self) -> dict[str, Tensor]:
        """The averages by the names of the model's state, for a checkpoint."""
        return dict(self._average)

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take over averages in place."""
        for name, average in self._average.items():
            average.copy_(state[name])

    def _in_float32(self, value: Tensor) -> Tensor:
        master = self._optimizer.state.get(value, {}).get("master")
        return value.float() if master is None or master.numel() == 0 else master
