"""From an ONNX file to a network definition and a builder configuration of whichever TensorRT is there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from etnet.errors import EnvironmentFault, ModelFileError
from etnet.sidecar import InputSpec, NetworkPrecision, Sidecar
from etnet.trt.library import Library
from etnet.trt.progress import BuildState, make_logger, make_monitor
from etnet.trt.settings import BuildSettings

INPUT = "image"


@dataclass(frozen=True)
class Definition:
    """A parsed network with what must live as long as it does.

    Attributes:
        library: The library that it belongs to.
        builder: Its builder.
        network: The network definition.
        strongly_typed: Whether every layer has the precision that the ONNX file gives it.
        parser: The parser, which owns the weights.
        logger: The logger, which the builder calls.
    """

    library: Library
    builder: Any
    network: Any
    strongly_typed: bool
    parser: Any
    logger: Any


def parse_network(library: Library, onnx: Path, sidecar: Sidecar, state: BuildState) -> Definition:
    """Parse an ONNX file.

    Raises:
        EnvironmentFault: The builder cannot be created.
        ModelFileError: The library does not understand the file, or its inputs and outputs are not etnet's.
    """
    logger = make_logger(library, state)
    try:
        builder = library.module.Builder(logger)
    except (TypeError, RuntimeError) as error:
        raise EnvironmentFault(
            f"{library.title} cannot create a builder ({'; '.join(state.errors) or error}); check that nvidia-smi works"
        ) from error
    typed = library.member("NetworkDefinitionCreationFlag", "STRONGLY_TYPED")
    # TensorRT 8 needs the other flag; later versions know nothing else than explicit batches.
    flag = typed if typed is not None else library.member("NetworkDefinitionCreationFlag", "EXPLICIT_BATCH")
    network = builder.create_network(0 if flag is None else 1 << int(flag))
    # One parser per network: a second one ends the process at exit.
    parser = library.module.OnnxParser(network, logger)
    if not parser.parse(onnx.read_bytes()):
        first = parser.get_error(0).desc() if parser.num_errors else "no reason was given"
        raise ModelFileError(
            f"{onnx}: {library.title} cannot build an engine from it ({first}); export it again with: etnet export RUN"
        )
    _check_interface(network, sidecar, onnx)
    return Definition(library, builder, network, typed is not None, parser, logger)


def _check_interface(network: Any, sidecar: Sidecar, onnx: Path) -> None:
    inputs = [network.get_input(index).name for index in range(network.num_inputs)]
    outputs = [network.get_output(index).name for index in range(network.num_outputs)]
    if inputs != [INPUT] or set(outputs) != set(sidecar.outputs):
        raise ModelFileError(
            f"{onnx}: has inputs {inputs} and outputs {outputs} where its description says {[INPUT]} and "
            f"{list(sidecar.outputs)}; export it again with: etnet export RUN"
        )
    image = network.get_input(0)
    size = (sidecar.input.height or -1, sidecar.input.width or -1)
    if image.dtype.name != "UINT8" or tuple(image.shape)[1:] != (*size, 3):
        raise ModelFileError(
            f"{onnx}: its input is {image.dtype.name} {tuple(image.shape)} where its description says uint8 "
            f"(-1, {size[0]}, {size[1]}, 3); export it again with: etnet export RUN"
        )


def configure(
    definition: Definition, settings: BuildSettings, spec: InputSpec, precision: NetworkPrecision, state: BuildState
) -> Any:
    """The builder configuration.

    Raises:
        EnvironmentFault: The library refuses a range of shapes.
    """
    library = definition.library
    config = definition.builder.create_builder_config()
    monitor = make_monitor(library, state)
    if monitor is not None:
        config.progress_monitor = monitor
    _set_flags(config, definition, settings, precision)
    detailed = library.member("ProfilingVerbosity", "DETAILED")
    if detailed is not None:
        # Only then does the engine tell in which precision its layers run.
        config.profiling_verbosity = detailed
    if settings.workspace_gb is not None:
        config.set_memory_pool_limit(
            library.member("MemoryPoolType", "WORKSPACE"), int(settings.workspace_gb * (1 << 30))
        )
    if settings.optimization_level is not None:
        config.builder_optimization_level = settings.optimization_level
    if settings.hardware_compatible is not None:
        level = library.member("HardwareCompatibilityLevel", settings.hardware_compatible.upper())
        config.hardware_compatibility_level = level
    if settings.targets:
        config.num_compute_capabilities = len(settings.targets)
        for index, target in enumerate(settings.targets):
            config.set_compute_capability(library.member("ComputeCapability", target.upper()), index)
    _add_profile(config, definition, spec, state)
    return config


def _set_flags(config: Any, definition: Definition, settings: BuildSettings, precision: NetworkPrecision) -> None:
    library = definition.library
    wanted = []
    if not definition.strongly_typed and precision in ("fp16", "int8"):
        wanted += ["FP16", "INT8"] if precision == "int8" else ["FP16"]
    if settings.version_compatible:
        # In this order. A plan with a lean runtime inside would be more code to load; that runtime can be installed.
        wanted += ["VERSION_COMPATIBLE", "EXCLUDE_LEAN_RUNTIME"]
    # A runtime of TensorRT-RTX lets its work be captured into a CUDA graph only where the caller owns the memory.
    wanted.append("REQUIRE_USER_ALLOCATION")
    for name in wanted:
        flag = library.member("BuilderFlag", name)
        if flag is not None:
            config.set_flag(flag)
    tf32 = library.member("BuilderFlag", "TF32")
    if precision == "fp32" and tf32 is not None:
        # TF32 keeps 10 bits of the mantissa, so that fp32 would not be comparable with PyTorch.
        config.clear_flag(tf32)
    sharing = library.member("PreviewFeature", "PROFILE_SHARING_0806")
    if sharing is not None:
        # Several execution contexts, one per thread, use the one profile.
        config.set_preview_feature(sharing, True)


def _add_profile(config: Any, definition: Definition, spec: InputSpec, state: BuildState) -> None:
    if spec.height is not None and spec.width is not None:
        sizes = ((spec.height, spec.width),) * 3
    elif spec.size_profile is not None:
        sizes = spec.size_profile
    else:
        raise ValueError("an input of free size needs a size profile")
    shapes = [(count, height, width, 3) for count, (height, width) in zip(spec.batch, sizes, strict=True)]
    profile = definition.builder.create_optimization_profile()
    profile.set_shape(INPUT, *shapes)
    if config.add_optimization_profile(profile) < 0:
        raise EnvironmentFault(
            f"{definition.library.title} refuses the input shapes {shapes} ({'; '.join(state.errors)}); "
            "choose a smaller --batch or --size-profile"
        )
