"""BatchNorm with the ReLU behind it, as one operation."""

from torch import Tensor, nn

import advkernels as ak
from freefast.errors import UserError


class BatchNormReLU(nn.BatchNorm2d):
    """relu(batch_norm(x)), under the names of BatchNorm2d's weights and statistics.

    A BatchNorm by type, so that what looks for those finds it; what puts another kind in its place, as
    nn.SyncBatchNorm.convert_sync_batchnorm does, loses the ReLU: `require_relu` tells of it.

    channels: of the images
    """

    momentum: float

    def __init__(self, channels: int) -> None:
        super().__init__(channels)

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, C, H, W). Returns: like x."""
        count = self.num_batches_tracked
        return ak.batch_norm_relu(x, *self._columns, self.training, self.momentum, self.eps, batches=count)

    def add(self, x: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
        """x, residual: (N, C, H, W). Returns: relu(batch_norm(x + residual)), and x + residual."""
        columns, count = self._columns, self.num_batches_tracked
        return ak.add_batch_norm_relu(x, residual, *columns, self.training, self.momentum, self.eps, batches=count)

    @property
    def _columns(self) -> tuple[Tensor | None, Tensor | None, Tensor, Tensor]:
        return self.running_mean, self.running_var, self.weight, self.bias


def require_relu(*norms: nn.Module) -> None:
    """Raises: UserError where one was converted to another kind of BatchNorm."""
    for norm in norms:
        if not isinstance(norm, BatchNormReLU):
            raise UserError(
                f"model: BatchNorm: wanted BatchNormReLU, which has the ReLU in it, got {type(norm).__name__}; "
                "build the model again and do not convert its BatchNorms"
            )
