# The compiled module, bound in csrc/bindings. The headers in csrc/include/etnet/ops say what the functions do.
INTERFACE: int
BUILD: dict[str, str]

class LovaszSoftmaxSizes:
    def __init__(
        self,
        *,
        images: int,
        channels: int,
        height: int,
        width: int,
        per_image: bool,
        channels_last: bool,
        with_gradient: bool,
        method: str,
        bins: int,
        threads: int,
    ) -> None: ...

class LovaszSoftmaxBuffers:
    def __init__(
        self,
        *,
        logits: int,
        logits_type: str,
        target: int,
        target_type: str,
        ignore_index: int | None,
        gradient: int = 0,
        weights: int = 0,
        scale: int = 0,
        workspace: int = 0,
        workspace_bytes: int = 0,
    ) -> None: ...

def lovasz_softmax_workspace_bytes(sizes: LovaszSoftmaxSizes) -> int: ...
def lovasz_softmax(
    sizes: LovaszSoftmaxSizes, buffers: LovaszSoftmaxBuffers, *, mode: str, listed: list[int]
) -> float: ...
def lovasz_softmax_look_up(sizes: LovaszSoftmaxSizes, buffers: LovaszSoftmaxBuffers) -> None: ...

class ConfusionMatrixSizes:
    def __init__(self, *, pixels: int, classes: int, threads: int) -> None: ...

def confusion_matrix_workspace_bytes(sizes: ConfusionMatrixSizes) -> int: ...
def confusion_matrix(
    sizes: ConfusionMatrixSizes,
    *,
    labels: int,
    labels_type: str,
    target: int,
    target_type: str,
    where: int,
    ignore_index: int | None,
    counts: int,
    workspace: int,
    workspace_bytes: int,
) -> bool: ...

# Only in a build with CUDA, where BUILD["cuda"] is not empty.
def lovasz_softmax_cuda_workspace_bytes(sizes: LovaszSoftmaxSizes) -> int: ...
def lovasz_softmax_cuda(
    sizes: LovaszSoftmaxSizes,
    buffers: LovaszSoftmaxBuffers,
    *,
    mode: str,
    listed: list[int],
    loss: int,
    stream: int,
) -> None: ...
def lovasz_softmax_look_up_cuda(sizes: LovaszSoftmaxSizes, buffers: LovaszSoftmaxBuffers, *, stream: int) -> None: ...

class WeightedBlockSizes:
    def __init__(
        self,
        *,
        images: int,
        channels: int,
        hidden: int,
        height: int,
        width: int,
        channels_last: bool,
        x_type: str,
        parameter_type: str,
        threads: int,
    ) -> None: ...

def weighted_block_workspace_bytes(sizes: WeightedBlockSizes) -> int: ...
def weighted_block(
    sizes: WeightedBlockSizes,
    *,
    x: int,
    w1: int,
    b1: int,
    w2: int,
    b2: int,
    state: int,
    out: int,
    workspace: int,
    workspace_bytes: int,
) -> None: ...
def weighted_block_backward(
    sizes: WeightedBlockSizes,
    *,
    x: int,
    w1: int,
    w2: int,
    state: int,
    gradient_out: int,
    gradient_x: int,
    gradient_w1: int,
    gradient_b1: int,
    gradient_w2: int,
    gradient_b2: int,
    workspace: int,
    workspace_bytes: int,
) -> None: ...

# Only in a build with CUDA.
def weighted_block_cuda_workspace_bytes(sizes: WeightedBlockSizes) -> int: ...
def weighted_block_cuda(
    sizes: WeightedBlockSizes,
    *,
    x: int,
    w1: int,
    b1: int,
    w2: int,
    b2: int,
    state: int,
    out: int,
    workspace: int,
    workspace_bytes: int,
    stream: int,
) -> None: ...
def weighted_block_backward_cuda(
    sizes: WeightedBlockSizes,
    *,
    x: int,
    w1: int,
    w2: int,
    state: int,
    gradient_out: int,
    gradient_x: int,
    gradient_w1: int,
    gradient_b1: int,
    gradient_w2: int,
    gradient_b2: int,
    workspace: int,
    workspace_bytes: int,
    stream: int,
) -> None: ...
