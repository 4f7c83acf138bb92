"""A stand-in for the Python module of TensorRT, so that what is asked of it can be seen where none can run."""

from __future__ import annotations

from enum import Enum, IntEnum
from types import SimpleNamespace
from typing import Any

from etnet.trt.library import Library, LibraryName

DETAILED_LAYERS = '{"Layers": [{"Name": "conv", "Outputs": [{"Format/Datatype": "Row major linear FP16"}]}]}'

CONFIG_ATTRIBUTES = ("profiling_verbosity", "builder_optimization_level", "hardware_compatibility_level")
"""Attributes of a builder configuration in every version; the progress monitor came with TensorRT 10."""


class FakeTensorRT:
    """The builder half of a TensorRT module, with the flags of the version that is played.

    Attributes:
        flags: Flags that were set in the builder configuration, by name, in their order.
        cleared: Flags that were cleared.
        network_flags: The bits that networks were created with.
        attributes: What was assigned to the configuration, by attribute.
        shapes: Shapes of the optimisation profile.
    """

    def __init__(
        self,
        *,
        name: LibraryName = "tensorrt",
        version: str = "10.13.2",
        network_flags: tuple[str, ...] = ("EXPLICIT_BATCH", "STRONGLY_TYPED"),
        builder_flags: tuple[str, ...] = ("TF32", "VERSION_COMPATIBLE", "EXCLUDE_LEAN_RUNTIME"),
        plan: bytes | None = b"a plan",
        layers: str = DETAILED_LAYERS,
        monitors: bool = True,
    ) -> None:
        self.flags: list[str] = []
        self.cleared: list[str] = []
        self.network_flags: list[int] = []
        self.attributes: dict[str, Any] = {}
        self.shapes: tuple[Any, ...] = ()
        self.plan = plan
        self.layers = layers
        self.timing_caches: list[bytes] = []
        module = SimpleNamespace(
            ILogger=object,
            BuilderFlag=Enum("BuilderFlag", list(builder_flags)),
            NetworkDefinitionCreationFlag=IntEnum("NetworkDefinitionCreationFlag", list(network_flags), start=0),
            ProfilingVerbosity=Enum("ProfilingVerbosity", ["LAYER_NAMES_ONLY", "DETAILED"]),
            MemoryPoolType=Enum("MemoryPoolType", ["WORKSPACE"]),
            HardwareCompatibilityLevel=Enum("HardwareCompatibilityLevel", ["NONE", "AMPERE_PLUS"]),
            LayerInformationFormat=Enum("LayerInformationFormat", ["JSON"]),
            Builder=lambda logger: FakeBuilder(self, logger),
            OnnxParser=FakeParser,
            Runtime=lambda logger: SimpleNamespace(deserialize_cuda_engine=lambda plan: FakeInspectedEngine(self)),
        )
        self.config_attributes = set(CONFIG_ATTRIBUTES)
        if monitors:
            module.IProgressMonitor = object
            self.config_attributes.add("progress_monitor")
        self.library = Library(name, module, version)


class FakeBuilder:
    def __init__(self, fake: FakeTensorRT, logger: Any) -> None:
        self.fake = fake
        self.logger = logger

    def create_network(self, flags: int) -> SimpleNamespace:
        self.fake.network_flags.append(flags)
        return SimpleNamespace()

    def create_builder_config(self) -> FakeConfig:
        return FakeConfig(self.fake)

    def create_optimization_profile(self) -> SimpleNamespace:
        def set_shape(name: str, *shapes: Any) -> None:
            self.fake.shapes = (name, *shapes)

        return SimpleNamespace(set_shape=set_shape)

    def build_serialized_network(self, network: Any, config: Any) -> bytes | None:
        if self.fake.plan is None:
            self.logger.log(SimpleNamespace(name="ERROR"), "out of memory on the GPU")
        return self.fake.plan


class FakeConfig:
    def __init__(self, fake: FakeTensorRT) -> None:
        vars(self)["fake"] = fake

    def __setattr__(self, name: str, value: Any) -> None:
        # Classes of the bindings take no attributes that they do not have.
        if name not in self.fake.config_attributes:
            raise AttributeError(name)
        self.fake.attributes[name] = value

    def set_flag(self, flag: Enum) -> None:
        self.fake.flags.append(flag.name)

    def clear_flag(self, flag: Enum) -> None:
        self.fake.cleared.append(flag.name)

    def set_memory_pool_limit(self, pool: Enum, size: int) -> None:
        self.fake.attributes[pool.name] = size

    def add_optimization_profile(self, profile: Any) -> int:
        return 0

    def create_timing_cache(self, content: bytes) -> bytes | None:
        return None if content == b"damaged" else content

    def set_timing_cache(self, cache: bytes, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        self.fake.timing_caches.append(cache)
        return True

    def get_timing_cache(self) -> SimpleNamespace:
        return SimpleNamespace(serialize=lambda: memoryview(self.fake.timing_caches[-1] + b" measured"))


class FakeParser:
    """Reads the interface of the real ONNX file into the network."""

    num_errors = 0

    def __init__(self, network: SimpleNamespace, logger: Any) -> None:
        self.network = network

    def parse(self, content: bytes) -> bool:
        import onnx

        graph = onnx.load_from_string(content).graph
        tensors = [[_tensor(value) for value in values] for values in (graph.input, graph.output)]
        self.network.num_inputs, self.network.num_outputs = map(len, tensors)
        self.network.get_input, self.network.get_output = tensors[0].__getitem__, tensors[1].__getitem__
        self.network.num_layers = 0
        return True


def _tensor(value: Any) -> SimpleNamespace:
    import onnx

    kind = value.type.tensor_type
    shape = tuple(dimension.dim_value or -1 for dimension in kind.shape.dim)
    dtype = onnx.TensorProto.DataType.Name(kind.elem_type)
    return SimpleNamespace(name=value.name, shape=shape, dtype=SimpleNamespace(name=dtype))


class FakeInspectedEngine:
    def __init__(self, fake: FakeTensorRT) -> None:
        self.fake = fake

    def create_engine_inspector(self) -> SimpleNamespace:
        return SimpleNamespace(get_engine_information=lambda form: self.fake.layers)
