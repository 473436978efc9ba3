"""A GPU that is not there: tensors that say they lie on ``cuda:0``, and whose data lie on the CPU.

It shows what goes wrong with where things are and when they are asked for: an operation on tensors of two devices, a
host that waits for the device, a recorded step that waits, or that keeps a value of the host which changes. It knows no
kernels, streams, memory or speed, and nothing of the code generator: those want a card (``make test-gpu``).
"""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from itertools import zip_longest
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.optim.optimizer import Optimizer
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map_only

GPU, CPU = torch.device("cuda:0"), torch.device("cpu")
aten = torch.ops.aten
Call = Callable[..., Any]
Named = Mapping[str, Any]

#: What makes the host wait for a value that lies on the device.
READING = {getattr(torch.Tensor, f"__{name}__") for name in ("bool", "int", "float", "index")}
READING |= {torch.Tensor.item, torch.Tensor.tolist}
#: Operations whose result's size is a value that lies on the device, or that give one to the host.
SIZED = {"aten::nonzero", "aten::masked_select", "aten::_unique2", "aten::unique_dim", "aten::bincount", "aten::equal"}
SIZED |= {"aten::_local_scalar_dense"}
#: Operations for which cuBLAS wants its workspace.
PRODUCTS = {"aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm"}
INDEXING = {"aten::index", "aten::index_put_", "aten::index_put", "aten::_index_put_impl_", "aten::_unsafe_index"}


class State:
    """What the device counts and records: how often the host waited, and in which line of the engine or the tests."""

    def __init__(self) -> None:
        self.waits: Counter[str] = Counter()
        self.mode: str | int = "default"
        self.recording: Graph | None = None
        #: All graphs, and cuBLAS's workspace of the stream on which they are recorded.
        self.graphs: list[Graph] = []
        self.workspace: object | None = None

    def wait(self, why: str) -> None:
        """The host waits. Raises RuntimeError while a graph is recorded, or where waiting is an error."""
        if self.recording is not None:
            raise RuntimeError(f"operation not permitted when stream is capturing: {why}")
        if self.mode == "error":
            raise RuntimeError(f"called a synchronizing CUDA operation: {why}")
        frames = [frame for frame in traceback.extract_stack() if "/engine/" in frame.filename]
        self.waits[f"{frames[-1].filename.rpartition('/engine/')[2]} {frames[-1].name}: {why}" if frames else why] += 1


STATE = State()


class OnDevice(torch.Tensor):
    """A tensor on the device; ``held`` is its data."""

    held: torch.Tensor

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> OnDevice:
        made: OnDevice = torch.Tensor._make_wrapper_subclass(
            cls, held.size(), strides=held.stride(), storage_offset=held.storage_offset(), dtype=held.dtype,
            layout=held.layout, device=CPU,
        )  # fmt: skip
        made.held = held
        return made

    @property
    def device(self) -> torch.device:
        return GPU

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["held"], None

    @staticmethod
    def __tensor_unflatten__(inner: Mapping[str, torch.Tensor], *_: object) -> OnDevice:
        return OnDevice(inner["held"])

    @classmethod
    def __torch_function__(cls, func: Call, _types: object, args: Any = (), kwargs: Named | None = None) -> Any:
        return called(func, args, kwargs or {})

    @classmethod
    def __torch_dispatch__(cls, func: Any, _types: object, args: Any = (), kwargs: Named | None = None) -> Any:
        return computed(func, args, kwargs or {})


def data_of(tree: Any) -> Any:
    """The data in place of the tensors of the device."""
    return tree_map_only(OnDevice, lambda one: one.held, tree)


def placed(tree: Any) -> Any:
    """Tensors of the device in place of data."""
    return tree_map_only(torch.Tensor, lambda one: one if isinstance(one, OnDevice) else OnDevice(one), tree)


class Upload(torch.autograd.Function):
    """From the host to the device; gradients the other way."""

    @staticmethod
    def forward(_ctx: Any, host: torch.Tensor) -> torch.Tensor:
        return OnDevice(host.detach().clone())

    @staticmethod
    def backward(_ctx: Any, gradient: OnDevice) -> torch.Tensor:
        return gradient.held.clone()


class Download(torch.autograd.Function):
    """From the device to the host; gradients the other way."""

    @staticmethod
    def forward(_ctx: Any, here: OnDevice) -> torch.Tensor:
        return here.held.clone()

    @staticmethod
    def backward(_ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        return OnDevice(gradient.clone())


def called(func: Call, args: Any, kwargs: Named) -> Any:
    """A function or method of torch as the device takes it: moving, reading and creating; all else is computing."""
    with torch._C.DisableTorchFunction():
        if func in (torch.Tensor.to, torch.Tensor.cpu, torch.Tensor.cuda):
            return _moved(func, args, kwargs)
        first = args[0] if args else None
        if isinstance(first, OnDevice):
            if func in READING:
                STATE.wait(f"{func.__name__}()")
                return func(first.held, *args[1:], **kwargs)
            if func in (torch.Tensor.numpy, torch.Tensor.__array__):
                raise TypeError("can't convert cuda:0 device type tensor to numpy")
            if func is torch.nn.functional.one_hot:  # creates within, where nobody looks
                return OnDevice(func(first.held, *args[1:], **kwargs))
        given = {name: value for name, value in kwargs.items() if name != "pin_memory"}
        device = given.get("device")
        if device is None or torch.device(device).type != "cuda":
            return func(*args, **given)
        if isinstance(first, torch.Tensor) and func is torch.as_tensor:
            return _moved(torch.Tensor.to, args, given)
        if func in (torch.tensor, torch.as_tensor):
            STATE.wait("a constant of the host")
        made = func(*data_of(args), **{**given, "device": CPU})
        return OnDevice(made.detach()).requires_grad_(made.requires_grad)


def _moved(func: Call, args: Any, kwargs: Named) -> torch.Tensor:
    """A tensor in another place or of another type."""
    tensor, given, ahead = args[0], args[1:], False
    options = {name: value for name, value in kwargs.items() if name != "copy"}
    if func is torch.Tensor.to:
        wanted, dtype, ahead, layout = torch._C._nn._parse_to(*given, **options)
    else:
        wanted, dtype, layout = CPU if func is torch.Tensor.cpu else GPU, None, None
    here = isinstance(tensor, OnDevice)
    if wanted is not None and (wanted.type == "cuda") != here:
        if here or not ahead:
            STATE.wait("download" if here else "upload")
        tensor = Download.apply(tensor) if here else Upload.apply(tensor)
    elif kwargs.get("copy"):
        tensor = tensor.clone()
    if dtype is not None:
        tensor = torch.Tensor.to(tensor, dtype)
    return torch.Tensor.to(tensor, memory_format=layout) if layout is not None else tensor


def computed(func: Any, args: Any, kwargs: Named) -> Any:
    """An operation on the device. Raises RuntimeError where it is given tensors of the host as well."""
    name = func.name().partition(".")[0]
    if func is aten.copy_.default:
        return _copied(*args)
    if name in SIZED:
        STATE.wait(name)
    tensors = [one for one in tree_leaves((args, kwargs)) if isinstance(one, torch.Tensor)]
    hosts = [one for one in tensors if not isinstance(one, OnDevice)]
    if name in INDEXING and isinstance(args[0], OnDevice):
        indices = [one for one in args[1] if isinstance(one, torch.Tensor)]
        if any(not isinstance(one, OnDevice) or one.dtype == torch.bool for one in indices):
            STATE.wait("indexed by the host or by a mask")
        hosts = [one for one in hosts if all(one is not index for index in indices)]
    if any(one.dim() for one in hosts):
        shapes = ", ".join(str(tuple(one.shape)) for one in hosts)
        raise RuntimeError(f"Expected all tensors to be on the same device, but {name} got {shapes} on the cpu")
    plain_args, plain_kwargs = data_of(args), data_of(kwargs)
    if STATE.recording is not None:
        result = STATE.recording.take(func, plain_args, plain_kwargs)
    else:
        result = func(*plain_args, **plain_kwargs)
    made = placed(result)
    return made if name in SIZED else return_and_correct_aliasing(func, args, dict(kwargs), made)


def _copied(target: torch.Tensor, source: torch.Tensor, ahead: bool = False) -> torch.Tensor:
    """Copied into a tensor; from or to the host, unless it need not be waited for."""
    if source.dim() and isinstance(target, OnDevice) != isinstance(source, OnDevice) and not ahead:
        STATE.wait("copied from or to the host")
    if STATE.recording is not None:
        STATE.recording.take(aten.copy_.default, data_of((target, source)), {})
    else:
        data_of(target).copy_(data_of(source))
    return target


class Graph:
    """A recorded step: operations and the memory they read and write. Recording leaves no trace, as on a card."""

    def __init__(self) -> None:
        self.workspace: object | None = None
        STATE.graphs.append(self)
        self._steps: list[tuple[Any, Any, Named, Any]] = []
        self._before: dict[int, tuple[torch.UntypedStorage, torch.UntypedStorage]] = {}

    def take(self, func: Any, args: Any, kwargs: Named) -> Any:
        """Do an operation and record it."""
        if func.name().partition(".")[0] in PRODUCTS:
            self.workspace = STATE.workspace = STATE.workspace or object()
        for argument, value in zip_longest(func._schema.arguments, args):
            if argument.alias_info is not None and argument.alias_info.is_write:
                for one in tree_leaves(kwargs.get(argument.name, value)):
                    storage = one.untyped_storage()
                    self._before.setdefault(storage.data_ptr(), (storage, storage.clone()))
        result = func(*args, **kwargs)
        self._steps.append((func, args, kwargs, result))
        return result

    def end(self) -> None:
        """Undo what was done while recording."""
        for storage, before in self._before.values():
            storage.copy_(before)
        self._before.clear()

    def replay(self) -> None:
        """Do the operations again, on the same memory."""
        with torch.no_grad(), torch._C.DisableTorchFunction():
            for func, args, kwargs, recorded in self._steps:
                for new, old in zip(tree_leaves(func(*args, **kwargs)), tree_leaves(recorded), strict=True):
                    if isinstance(new, torch.Tensor) and new.data_ptr() != old.data_ptr():
                        old.copy_(new)


@contextmanager
def recording(graph: Graph, **_options: object) -> Iterator[None]:
    """In place of ``torch.cuda.graph``."""
    STATE.recording = graph
    try:
        yield
    finally:
        STATE.recording = None
        graph.end()


class Stream:
    """In place of ``torch.cuda.Stream``: there is one, and it is always done."""

    device = GPU

    def __init__(self, _device: object = None) -> None: ...

    def wait_stream(self, _other: object) -> None: ...

    def is_capturing(self) -> bool:
        return STATE.recording is not None


class Event:
    """In place of ``torch.cuda.Event``."""

    def __init__(self, **_options: object) -> None: ...

    def record(self, _stream: object = None) -> None: ...

    def synchronize(self) -> None: ...

    def elapsed_time(self, _end: object) -> float:
        return 1.0


class Machine(TorchFunctionMode):
    """What is created or moved while it is on may go to the device."""

    def __torch_function__(self, func: Any, _types: object, args: Any = (), kwargs: Named | None = None) -> Any:
        return called(func, args, kwargs or {})


FREE, TOTAL = 60 << 30, 80 << 30
CARD = SimpleNamespace(uuid="0", name="simulated", total_memory=TOTAL, multi_processor_count=132, major=9, minor=0)


def _clear_workspaces() -> None:
    STATE.workspace = None


def _set_mode(mode: str | int) -> None:
    STATE.mode = mode


@contextmanager
def simulated_gpu(patch: pytest.MonkeyPatch) -> Iterator[State]:
    """A machine with one GPU; yields what it counts."""
    answers: dict[str, object] = {
        "is_available": True, "is_initialized": True, "device_count": 1, "current_device": 0, "synchronize": None,
        "memory_reserved": 1 << 28, "memory_allocated": 1 << 28, "max_memory_allocated": 1 << 28, "memory_stats": {},
        "mem_get_info": (FREE, TOTAL), "get_device_name": "simulated", "get_device_capability": (9, 0),
        "get_device_properties": CARD, "empty_cache": None, "set_device": None, "manual_seed": None,
        "manual_seed_all": None, "reset_peak_memory_stats": None, "current_stream": Stream(), "stream": nullcontext(),
        "is_current_stream_capturing": False,
    }  # fmt: skip
    for name, value in answers.items():
        patch.setattr(torch.cuda, name, lambda *_, _value=value, **__: _value)
    for name, stand_in in {"Stream": Stream, "Event": Event, "CUDAGraph": Graph, "graph": recording}.items():
        patch.setattr(torch.cuda, name, stand_in)
    patch.setattr(torch.cuda, "set_sync_debug_mode", _set_mode)
    patch.setattr(torch._C, "_cuda_clearCublasWorkspaces", _clear_workspaces, raising=False)
    patch.setattr(torch.accelerator, "current_stream", lambda *_: Stream())
    autocast, grouped = torch.autocast, Optimizer._group_tensors_by_device_and_dtype
    patch.setattr(torch, "autocast", lambda _kind, *args, **kwargs: autocast(CPU.type, *args, **kwargs))

    def regrouped(lists: Any, with_indices: bool = False) -> Any:
        """Torch's own looks for the device where the simulation has none."""
        return {
            (GPU if isinstance(tree_leaves(group[0])[0], OnDevice) else device, dtype): group
            for (device, dtype), group in grouped(lists, with_indices).items()
        }

    patch.setattr(Optimizer, "_group_tensors_by_device_and_dtype", staticmethod(regrouped))
    STATE.waits.clear()
    with Machine():
        yield STATE
