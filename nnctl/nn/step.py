"""One step of minibatch gradient descent."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

from nnctl.nn.adversarial import perturb
from nnctl.nn.backprop import Backpropagation
from nnctl.nn.batches import Batch
from nnctl.nn.losses import Loss
from nnctl.nn.network import Network, Parameters
from nnctl.nn.optimizers import Optimizer, Shard, State


class Step:
    """One step of minibatch gradient descent; `nnctl.nn.parallel` does the same with threads.

    Parameters
    ----------
    network : Network
        Network to train, in place.
    loss : Loss
        Loss to minimize.
    optimizer : Optimizer
        Rules that update the parameters.
    state : mapping of str to array
        State of the optimizer, which is updated.
    rate : callable
        Function that returns the learning rate of a step, counted from 1.
    sizes : sequence of int
        Possible numbers of examples in a batch.
    adversarial : float, optional
        Distance by which examples are moved for adversarial training; see `perturb`.
    """

    def __init__(
        self,
        network: Network,
        loss: Loss,
        optimizer: Optimizer,
        state: State,
        rate: Callable[[int], float],
        sizes: Sequence[int],
        adversarial: float | None = None,
    ) -> None:
        self.network = network
        self.parameters = network.parameters
        self.loss = loss
        self.optimizer = optimizer
        self.state = state
        self.rate = rate
        self.adversarial = adversarial
        self.gradient = Parameters(network.sizes[0], network.layers, network.dtype)
        # The buffers of each batch size: an epoch's last batch may be shorter than the others.
        self.backprops = {
            size: Backpropagation(network, self.gradient, size, dropout=True) for size in sizes
        }
        self._shard = Shard.whole(self.parameters, self.gradient, state)

    def without_inputs(self, count: int) -> Step:
        """Return a step with the same buffers that ignores the first `count` inputs."""
        step = copy.copy(self)
        step.parameters = self.parameters.without_inputs(count)
        step.gradient = self.gradient.without_inputs(count)
        step.backprops = {
            size: backprop.without_inputs(step.parameters, step.gradient)
            for size, backprop in self.backprops.items()
        }
        size = len(step.parameters.vector)
        step.state = {name: values[-size:] for name, values in self.state.items()}
        step._shard = Shard.whole(step.parameters, step.gradient, step.state)
        return step

    def run(self, batches: Sequence[Batch], first_step: int) -> None:
        """Take one step per batch; steps are counted from 1."""
        for step, batch in enumerate(batches, first_step):
            self._take(batch, step)

    def _take(self, batch: Batch, step: int) -> None:
        """Take a step: forward pass, gradient of the loss, backward pass, update."""
        backprop, learning_rate = self.backprops[len(batch.inputs)], self.rate(step)
        if self.adversarial:
            perturb(backprop, self.loss, batch, self.adversarial)
        outputs = backprop.forward(batch.inputs, batch.logits, batch.masks)
        deltas = self.loss.gradient(
            batch.logits, outputs, batch.targets, out=backprop.output_deltas
        )
        if batch.weights is not None:
            deltas *= batch.weights[:, None]
        # The mean over the batch. SGD multiplies the learning rate here, which is 5 % faster than
        # multiplying it into the gradient.
        deltas *= self.optimizer.gradient_scale(learning_rate) / len(outputs)
        for normalization in backprop.normalizations:
            normalization.update_running_statistics()
        backprop.backward(batch.inputs)
        self.optimizer.update(self._shard, learning_rate, step)
