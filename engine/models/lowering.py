"""A frozen teacher's graph with costly convolutions exchanged for equal ones that a CPU does faster.

A CPU's convolutions reach their full speed at stride 1 with many channels. What is far from that is done otherwise,
with weights derived once, since they never change:

- stride 2 on few channels (the stem): pixels are folded into channels, then a smaller convolution of stride 1;
- 3×3 on maps of 4×4 pixels, and of 8×8 with many channels: Winograd's convolution;
- BatchNorm and the ReLU behind it: one pass over memory each way;
- maps of a few pixels, where most of a kernel lies outside: one matrix from all inputs to all outputs.

Sums are the same but for their order, and so are gradients. Shapes: N images, F channels, O output channels.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import fx, nn
from torch.fx.passes.shape_prop import ShapeProp
from torch.nn import functional

#: Channels up to which a stride is folded away.
FEW_CHANNELS = 4
#: Pixels of a map up to which a convolution is a matrix.
FEW_PIXELS = 4
#: Height and width of a tile of Winograd's convolution, and the fewest channels, on both sides, with which it pays on
#: maps of so many pixels across.
TILE = 4
WINOGRAD = {4: 1, 8: 256}


class Folded(nn.Module):
    """A convolution of stride 2 on images of even height and width, as one of stride 1 on four times the channels."""

    weight: torch.Tensor

    def __init__(self, layer: nn.Conv2d, height: int, width: int) -> None:
        super().__init__()
        kernel, padding = int(layer.kernel_size[0]), int(layer.padding[0])
        before = (padding + 1) // 2
        lead = 2 * before - padding
        blocks = (kernel + lead + 1) // 2
        weight = functional.pad(layer.weight.detach(), 2 * (lead, 2 * blocks - kernel - lead))
        outputs, inputs = weight.shape[:2]
        folded = weight.reshape(outputs, inputs, blocks, 2, blocks, 2).permute(0, 1, 3, 5, 2, 4)
        folded = folded.reshape(outputs, 4 * inputs, blocks, blocks)
        self.register_buffer("weight", folded.contiguous(memory_format=torch.channels_last))
        self.bias = layer.bias
        after = [(size + 2 * padding - kernel) // 2 + blocks - before - size // 2 for size in (width, height)]
        self.padding = (before, after[0], before, after[1])

    def forward(self, images_NFHW: torch.Tensor) -> torch.Tensor:
        folded = functional.pad(functional.pixel_unshuffle(images_NFHW, 2), self.padding)
        folded = folded.contiguous(memory_format=torch.channels_last)
        return functional.conv2d(folded, self.weight, self.bias)


class Matrix(nn.Module):
    """A convolution on maps of a few pixels, as one matrix."""

    matrix: torch.Tensor

    def __init__(self, layer: nn.Conv2d, height: int, width: int) -> None:
        super().__init__()
        inputs, outputs = layer.in_channels, layer.out_channels
        # Each input alone shows its row: pixel by pixel, channels last on both sides.
        single = torch.eye(height * width, dtype=layer.weight.dtype).reshape(-1, 1, height, width)
        weight = layer.weight.detach().reshape(-1, 1, *layer.kernel_size)
        rows = functional.conv2d(single, weight, None, layer.stride, layer.padding)
        self.shape = (rows.shape[2], rows.shape[3], outputs)
        rows = rows.reshape(height * width, outputs, inputs, -1).permute(0, 2, 3, 1)
        self.register_buffer("matrix", rows.reshape(height * width * inputs, -1).contiguous())
        self.bias = None if layer.bias is None else nn.Parameter(layer.bias.detach().repeat(rows.shape[2]), False)

    def forward(self, images_NFHW: torch.Tensor) -> torch.Tensor:
        flat = images_NFHW.permute(0, 2, 3, 1).flatten(1) @ self.matrix
        if self.bias is not None:
            flat = flat + self.bias
        return flat.reshape(-1, *self.shape).permute(0, 3, 1, 2)


#: Transforms of F(4×4, 3×3): of the input, the kernel and the output. Lavin and Gray, Fast Algorithms for
#: Convolutional Neural Networks (CVPR 2016).
INPUT = ((4, 0, -5, 0, 1, 0), (0, -4, -4, 1, 1, 0), (0, 4, -4, -1, 1, 0), (0, -2, -1, 2, 1, 0), (0, 2, -1, -2, 1, 0),
         (0, 4, 0, -5, 0, 1))  # fmt: skip
KERNEL = ((6, 0, 0), (-4, -4, -4), (-4, 4, -4), (1, 2, 4), (1, -2, 4), (0, 0, 24))  # in 24ths
OUTPUT = ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1))


class Tiles(nn.Module):
    """A 3×3 convolution on small square maps, padded by one: Winograd's, with a quarter of the multiplications.

    Maps are tiles of 4×4 pixels, T of them. Going into tiles and out of them are products with one matrix each, over
    all pixels of a map; these are the rows, so that images and channels together make the columns.
    """

    into: torch.Tensor
    weight: torch.Tensor
    out_of: torch.Tensor

    def __init__(self, layer: nn.Conv2d, size: int) -> None:
        super().__init__()
        weight_OF33 = layer.weight.detach()
        dtype, tiles = weight_OF33.dtype, size // TILE
        # Of one axis: what each of the six positions in each tile takes from the pixels, and the other way round.
        into = torch.zeros(6, tiles, size + 2, dtype=dtype)
        out_of = torch.zeros(tiles, TILE, 6, tiles, dtype=dtype)
        for tile in range(tiles):
            into[:, tile, TILE * tile : TILE * tile + 6] = torch.tensor(INPUT, dtype=dtype)
            out_of[tile, :, :, tile] = torch.tensor(OUTPUT, dtype=dtype)
        into, out_of = into[:, :, 1:-1], out_of.flatten(0, 1)  # the padding is zero
        kernel = torch.tensor(KERNEL, dtype=torch.float64) / 24
        turned = torch.kron(kernel, kernel).to(dtype) @ weight_OF33.permute(2, 3, 0, 1).reshape(9, -1)
        self.register_buffer("into", torch.einsum("isp,jtq->ijstpq", into, into).reshape(-1, size * size))
        self.register_buffer("weight", turned.reshape(36, *weight_OF33.shape[:2]))
        self.register_buffer("out_of", torch.einsum("pis,qjt->pqijst", out_of, out_of).reshape(size * size, -1))
        self.bias = layer.bias
        self.size = size

    def forward(self, images_NFHW: torch.Tensor) -> torch.Tensor:
        count, inputs, size, _ = images_NFHW.shape
        pixels = images_NFHW.permute(2, 3, 0, 1).reshape(size * size, count * inputs)
        spread = (self.into @ pixels).reshape(36, -1, inputs)
        product = torch.bmm(spread, self.weight.transpose(1, 2)).reshape(len(self.into), -1)
        found = (self.out_of @ product).reshape(size, size, count, -1)
        if self.bias is not None:
            found = found + self.bias
        return found.permute(2, 3, 0, 1).contiguous(memory_format=torch.channels_last)


class _AffineRelu(torch.autograd.Function):
    """max(scale · x + offset, 0) of each channel, or without the maximum; passes over memory are what it costs."""

    @staticmethod
    def forward(
        ctx: Any, inputs_NFHW: torch.Tensor, scale_F11: torch.Tensor, offset_F11: torch.Tensor, relu: bool
    ) -> torch.Tensor:
        outputs = torch.addcmul(offset_F11, inputs_NFHW, scale_F11)
        ctx.relu = relu
        if relu:
            outputs.relu_()
        ctx.save_for_backward(scale_F11, *([outputs] if relu else []))
        return outputs

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        scale_F11, *outputs = ctx.saved_tensors
        if not ctx.relu:
            return gradients[0] * scale_F11, None, None, None
        passed = torch.ops.aten.threshold_backward(gradients[0], outputs[0], 0)
        return passed.mul_(scale_F11), None, None, None


class Affine(nn.Module):
    """A BatchNorm in eval mode, and the ReLU behind it where there is one."""

    scale: torch.Tensor
    offset: torch.Tensor

    def __init__(self, layer: nn.BatchNorm2d, relu: bool) -> None:
        super().__init__()
        assert layer.running_mean is not None
        assert layer.running_var is not None
        scale = (layer.running_var.detach() + layer.eps).rsqrt()
        if layer.weight is not None:
            scale = scale * layer.weight.detach()
        offset = -layer.running_mean.detach() * scale
        if layer.bias is not None:
            offset = offset + layer.bias.detach()
        self.register_buffer("scale", scale[:, None, None])
        self.register_buffer("offset", offset[:, None, None])
        self.relu = relu

    def forward(self, images_NFHW: torch.Tensor) -> torch.Tensor:
        if torch.compiler.is_compiling():
            # A compiler joins these by itself; PyTorch 2.11's loses the gradient of a function that works in place.
            plain = torch.addcmul(self.offset, images_NFHW, self.scale)
            return functional.relu(plain) if self.relu else plain
        found: torch.Tensor = _AffineRelu.apply(images_NFHW, self.scale, self.offset, self.relu)
        return found


def _merge_batchnorms(module: fx.GraphModule) -> None:
    """Exchange every BatchNorm that keeps running statistics, with its ReLU where nothing else sees what is between."""
    for node in list(module.graph.nodes):
        if node.op != "call_module":
            continue
        layer = module.get_submodule(str(node.target))
        if not isinstance(layer, nn.BatchNorm2d) or layer.running_mean is None or layer.training:
            continue
        users = list(node.users)
        relu = (
            len(users) == 1
            and users[0].op == "call_module"
            and isinstance(module.get_submodule(str(users[0].target)), nn.ReLU)
        )
        name = "merged_" + str(node.target).replace(".", "_")
        module.add_submodule(name, Affine(layer, relu))
        node.target = name
        if relu:
            users[0].replace_all_uses_with(node)
            module.graph.erase_node(users[0])


def lowered(module: fx.GraphModule, image_1CHW: torch.Tensor) -> fx.GraphModule:
    """A graph in which convolutions are exchanged where that pays; ``image_1CHW`` shows the sizes it meets."""
    with torch.no_grad():
        ShapeProp(module).propagate(image_1CHW)
    for node in module.graph.nodes:
        if node.op != "call_module":
            continue
        layer = module.get_submodule(str(node.target))
        if not isinstance(layer, nn.Conv2d):
            continue
        found = _exchanged(layer, node.args[0].meta["tensor_meta"].shape)
        if found is not None:
            name = "lowered_" + str(node.target).replace(".", "_")
            module.add_submodule(name, found)
            node.target = name
    _merge_batchnorms(module)
    module.recompile()
    return module


def _exchanged(layer: nn.Conv2d, shape: torch.Size) -> nn.Module | None:
    """What does a layer's work on images of a shape faster, if anything does."""
    plain = layer.groups == 1 and layer.dilation == (1, 1) and layer.padding_mode == "zeros"
    (kernel, other), (stride, across) = layer.kernel_size, layer.stride
    if not plain or isinstance(layer.padding, str) or kernel != other or stride != across:
        return None
    height, width = int(shape[2]), int(shape[3])
    if kernel > 1 and height * width <= FEW_PIXELS:
        return Matrix(layer, height, width)
    fewest = WINOGRAD.get(height, math.inf) if height == width else math.inf
    if (kernel, stride, layer.padding) == (3, 1, (1, 1)) and min(layer.in_channels, layer.out_channels) >= fewest:
        return Tiles(layer, height)
    even = height % 2 == width % 2 == 0
    if kernel > 1 and stride == 2 and layer.in_channels <= FEW_CHANNELS and even:
        return Folded(layer, height, width)
    return None
