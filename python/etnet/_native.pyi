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

def lovasz_softmax_workspace_bytes(sizes: LovaszSoftmaxSizes) -> int: ...
def lovasz_softmax(
    sizes: LovaszSoftmaxSizes,
    *,
    logits: int,
    logits_type: str,
    target: int,
    target_type: str,
    mode: str,
    listed: list[int],
    ignore_index: int | None,
    gradient: int,
    workspace: int,
    workspace_size: int,
) -> float: ...

# Only in a build with CUDA, where BUILD["cuda"] is not empty.
def lovasz_softmax_cuda_workspace_bytes(sizes: LovaszSoftmaxSizes) -> int: ...
def lovasz_softmax_cuda(
    sizes: LovaszSoftmaxSizes,
    *,
    logits: int,
    logits_type: str,
    target: int,
    target_type: str,
    mode: str,
    listed: list[int],
    ignore_index: int | None,
    gradient: int,
    workspace: int,
    workspace_size: int,
    loss: int,
    stream: int,
) -> None: ...
