"""A net in PyTorch (eager), built from the very prototxt that dtrain trains: the benchmarks' peer.

    NetParameter ──> TorchNet ──> sgd

What PyTorch's users would write is what is used: batch norm and the scale behind it in one call, rectified in place.
A layer, or a field of one, that is not known here is an error. tests/test_bench_torch_net.py shows that loss,
gradients and updates are dtrain's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from dtrain.proto import caffe_pb2

Layer = caffe_pb2.LayerParameter
Run = Callable[..., Any]  # tensors of the bottoms → that of the top, or a tuple of several
LEFT_OUT = ("Accuracy", "Silence")


@dataclass(frozen=True)
class Step:
    """What is done with some blobs. loss_weight: of its top's sum in the loss. dead: blobs that none reads later."""

    run: Run
    bottoms: tuple[str, ...]
    tops: tuple[str, ...]
    loss_weight: float
    dead: tuple[str, ...]


class TorchNet(nn.Module):
    """The layers of `net`, a train net as is (include rules are not looked at), with params of its own.

    blobs: tensors for the tops of the layers without bottoms, by name; their shapes give those of the params, which
    are filled as the file's fillers don't say: load_params takes dtrain's. rates: for each param lr_mult and
    decay_mult. of_layer: the params of each layer by its name.

    Raises ValueError for what is not known here.
    """

    def __init__(self, net: caffe_pb2.NetParameter, blobs: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.learned = nn.ParameterList()
        self.rates: list[tuple[float, float]] = []
        self.of_layer: dict[str, list[nn.Parameter]] = {}
        self.steps: list[Step] = []
        self._build(net, dict(blobs))

    def forward(self, blobs: Mapping[str, Tensor]) -> Tensor:
        """Return the loss."""
        values = dict(blobs)
        loss: Any = 0
        for step in self.steps:
            top = step.run(*[values[name] for name in step.bottoms])
            values.update(zip(step.tops, top if isinstance(top, tuple) else (top,), strict=True))
            if step.loss_weight:
                loss = loss + step.loss_weight * top
            for name in step.dead:
                del values[name]
        return loss

    def load_params(self, params: Mapping[str, Sequence[Any]]) -> None:
        """Take the values of each layer's params, numpy arrays; layers that have none here may be among them."""
        with torch.no_grad():
            for name, mine in self.of_layer.items():
                for param, values in zip(mine, params[name], strict=True):
                    param.copy_(torch.from_numpy(values).reshape(param.shape))

    def add_param(self, layer: Layer, shape: Sequence[int], fill: float | None = None) -> nn.Parameter:
        """Append a param of a layer: constant, or normal with variance 2 / fan-in."""
        values = torch.full(tuple(shape), float(fill or 0))
        if fill is None:
            values.normal_(0, math.sqrt(2 / math.prod(shape[1:])))
        param = nn.Parameter(values)
        mine = self.of_layer.setdefault(layer.name, [])
        spec = layer.param[len(mine)] if len(mine) < len(layer.param) else caffe_pb2.ParamSpec()
        _refuse(layer, bool(spec.name), "shared params")
        mine.append(param)
        self.learned.append(param)
        self.rates.append((spec.lr_mult, spec.decay_mult))
        return param

    def _build(self, net: caffe_pb2.NetParameter, values: dict[str, Tensor]) -> None:
        """Make the steps, carrying out each at once, since params need the shapes."""
        layers = [layer for layer in net.layer if layer.type not in LEFT_OUT]
        last_reader = {name: i for i, layer in enumerate(layers) for name in layer.bottom}
        merged = [i for i, layer in enumerate(layers) if i and _scales(layer, layers[i - 1], last_reader, i)]
        for i, layer in enumerate(layers):
            if not layer.bottom:
                _refuse(layer, not set(layer.top) <= set(values), "a top without a tensor")
                continue
            if i in merged:
                continue
            scale = layers[i + 1] if i + 1 in merged else None
            if layer.type not in BUILDERS:
                raise ValueError(f'layer "{layer.name}": type {layer.type} is not known to torch_net')
            bottoms = [values[name] for name in layer.bottom]
            with torch.no_grad():
                run = BUILDERS[layer.type](self, layer, *bottoms, **({"scale": scale} if scale else {}))
                top = run(*bottoms)
            tops = tuple((scale or layer).top)
            values.update(zip(tops, top if isinstance(top, tuple) else (top,), strict=True))
            dead = tuple(
                name for name in {*layer.bottom, *tops} if last_reader.get(name, -1) <= i + bool(scale)
            )
            for name in dead:
                del values[name]
            self.steps.append(Step(run, tuple(layer.bottom), tops, _loss_weight(layer), dead))


def sgd(
    net: TorchNet, base_lr: float, momentum: float, weight_decay: float, fused: bool = False
) -> torch.optim.SGD:
    """Return what updates the params as dtrain's SGD does at a constant rate, each at its own rates."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for param, rates in zip(net.learned, net.rates, strict=True):
        groups.setdefault(rates, []).append(param)
    return torch.optim.SGD(
        [
            {"params": params, "lr": base_lr * lr_mult, "weight_decay": weight_decay * decay_mult}
            for (lr_mult, decay_mult), params in groups.items()
        ],
        lr=base_lr,
        momentum=momentum,
        fused=fused,
    )


def _scales(layer: Layer, before: Layer, last_reader: Mapping[str, int], i: int) -> bool:
    """Return whether layer i is the scale of the batch norm before it, which none else reads."""
    is_pair = (before.type, layer.type) == ("BatchNorm", "Scale") and layer.bottom[:] == before.top[:]
    return is_pair and (layer.top[0] == layer.bottom[0] or last_reader[layer.bottom[0]] == i)


def _loss_weight(layer: Layer) -> float:
    if layer.loss_weight:
        _refuse(layer, layer.type != "SoftmaxWithLoss" or len(layer.loss_weight) > 1, "such a loss_weight")
        return layer.loss_weight[0]
    return float(layer.type == "SoftmaxWithLoss")


def _refuse(layer: Layer, is_there: bool, what: str) -> None:
    """Raise ValueError if the layer has something that torch_net does not know."""
    if is_there:
        raise ValueError(f'layer "{layer.name}" ({layer.type}): {what} is not known to torch_net')


def _pair(param: Any, name: str, half: str, default: int = 0) -> tuple[int, int]:
    """Return height and width of a field that is given once, twice, or as half_h and half_w."""
    if half and (param.HasField(f"{half}_h") or param.HasField(f"{half}_w")):
        return getattr(param, f"{half}_h"), getattr(param, f"{half}_w")
    value = getattr(param, name)
    if isinstance(value, int):
        return (value, value) if param.HasField(name) else (default, default)
    numbers = list(value) or [default]
    return numbers[0], numbers[-1]


# -- the layers: functions of the net, the layer and example bottoms that return what carries the layer out ----------


def _convolution(net: TorchNet, layer: Layer, *bottoms: Tensor) -> Run:
    param, x = layer.convolution_param, bottoms[0]
    _refuse(layer, len(bottoms) > 1 or param.axis != 1 or x.dim() != 4, "more than one bottom (N, C, H, W)")
    kernel, stride = _pair(param, "kernel_size", "kernel"), _pair(param, "stride", "stride", 1)
    pad, dilation, group = _pair(param, "pad", "pad"), _pair(param, "dilation", "", 1), param.group
    weight = net.add_param(layer, (param.num_output, x.shape[1] // group, *kernel))
    bias = net.add_param(layer, (param.num_output,), 0) if param.bias_term else None
    return lambda x: functional.conv2d(x, weight, bias, stride, pad, dilation, group)


def _pooling(net: TorchNet, layer: Layer, x: Tensor) -> Run:
    """Caffe counts windows that go beyond the input too, and takes means over the part inside of H + pad."""
    param = layer.pooling_param
    _refuse(
        layer, param.pool == caffe_pb2.PoolingParameter.STOCHASTIC or len(layer.top) > 1, "such a pooling"
    )
    is_max = param.pool == caffe_pb2.PoolingParameter.MAX
    if param.global_pooling:
        return (
            (lambda x: x.amax((2, 3), keepdim=True)) if is_max else (lambda x: x.mean((2, 3), keepdim=True))
        )
    kernel, stride = _pair(param, "kernel_size", "kernel"), _pair(param, "stride", "stride", 1)
    pad, ceil = _pair(param, "pad", "pad"), param.round_mode == caffe_pb2.PoolingParameter.CEIL
    _refuse(
        layer, any(s > k for s, k in zip(stride, kernel, strict=True)), "a stride above the kernel's size"
    )
    if is_max:
        return lambda x: functional.max_pool2d(x, kernel, stride, pad, ceil_mode=ceil)
    return lambda x: functional.avg_pool2d(x, kernel, stride, pad, ceil_mode=ceil, count_include_pad=True)


def _inner_product(net: TorchNet, layer: Layer, x: Tensor) -> Run:
    param = layer.inner_product_param
    _refuse(layer, param.transpose or param.axis != 1, "transpose or another axis")
    weight = net.add_param(layer, (param.num_output, math.prod(x.shape[1:])))
    bias = net.add_param(layer, (param.num_output,), 0) if param.bias_term else None
    return lambda x: functional.linear(x.flatten(1), weight, bias)


def _relu(net: TorchNet, layer: Layer, x: Tensor) -> Run:
    slope, in_place = layer.relu_param.negative_slope, layer.bottom[0] == layer.top[0]
    if slope:
        return lambda x: functional.leaky_relu(x, slope, inplace=in_place)
    return lambda x: functional.relu(x, inplace=in_place)


def _lrn(net: TorchNet, layer: Layer, x: Tensor) -> Run:
    param = layer.lrn_param
    _refuse(layer, param.norm_region != caffe_pb2.LRNParameter.ACROSS_CHANNELS, "WITHIN_CHANNEL")
    return lambda x: functional.local_response_norm(x, param.local_size, param.alpha, param.beta, param.k)


def _batch_norm(net: TorchNet, layer: Layer, x: Tensor, scale: Layer | None = None) -> Run:
    param, count = layer.batch_norm_param, x.shape[1]
    _refuse(layer, param.use_global_stats, "use_global_stats")
    mean, variance = torch.zeros(count), torch.ones(count)
    weight, bias = _scale_params(net, scale, count) if scale else (None, None)
    new = 1 - param.moving_average_fraction
    return lambda x: functional.batch_norm(x, mean, variance, weight, bias, True, new, param.eps)


def _scale(net: TorchNet, layer: Layer, x: Tensor) -> Run:
    weight, bias = _scale_params(net, layer, x.shape[1])
    shape = (-1,) + (1,) * (x.dim() - 2)
    if bias is None:
        return lambda x: x * weight.view(shape)
    return lambda x: x * weight.view(shape) + bias.view(shape)


def _scale_params(net: TorchNet, layer: Layer, count: int) -> tuple[nn.Parameter, nn.Parameter | None]:
    param = layer.scale_param
    _refuse(layer, len(layer.bottom) > 1 or param.axis != 1 or param.num_axes != 1, "such a scale")
    return net.add_param(layer, (count,), 1), net.add_param(layer, (count,), 0) if param.bias_term else None


def _eltwise(net: TorchNet, layer: Layer, *bottoms: Tensor) -> Run:
    param = layer.eltwise_param
    is_plain = param.operation == caffe_pb2.EltwiseParameter.SUM and not any(c != 1 for c in param.coeff)
    _refuse(layer, not is_plain, "anything but a sum without coefficients")
    return lambda x, *others: sum(others, start=x)


def _concat(net: TorchNet, layer: Layer, *bottoms: Tensor) -> Run:
    _refuse(layer, layer.concat_param.HasField("concat_dim"), "concat_dim")
    axis = layer.concat_param.axis
    return lambda *bottoms: torch.cat(bottoms, axis)


def _dropout(net: TorchNet, layer: Layer, x: Tensor) -> Run:
    _refuse(layer, not layer.dropout_param.scale_train, "scale_train: false")
    ratio = layer.dropout_param.dropout_ratio
    return lambda x: functional.dropout(
        x, ratio
    )  # never in place: it would void what a ReLU before it has kept


def _softmax_with_loss(net: TorchNet, layer: Layer, scores: Tensor, labels: Tensor) -> Run:
    param = layer.loss_param
    is_mean = param.normalization == caffe_pb2.LossParameter.VALID and not param.HasField("normalize")
    _refuse(layer, not is_mean or param.HasField("ignore_label"), "such a loss_param")
    _refuse(layer, layer.softmax_param.axis != 1 or math.prod(scores.shape[2:]) > 1, "scores by place")
    smoothing = layer.dtrain_param.label_smoothing
    return lambda scores, labels: functional.cross_entropy(
        scores.flatten(1), labels.flatten(), label_smoothing=smoothing
    )


def _split(net: TorchNet, layer: Layer, x: Tensor) -> Run:
    num_tops = len(layer.top)
    return lambda x: (x,) * num_tops


BUILDERS: dict[str, Callable[..., Run]] = {
    "BatchNorm": _batch_norm,
    "Concat": _concat,
    "Convolution": _convolution,
    "Dropout": _dropout,
    "Eltwise": _eltwise,
    "InnerProduct": _inner_product,
    "LRN": _lrn,
    "Pooling": _pooling,
    "ReLU": _relu,
    "Scale": _scale,
    "SoftmaxWithLoss": _softmax_with_loss,
    "Split": _split,
}
