# The compiled module, bound in csrc/bindings. The headers in csrc/include/etnet/ops say what the functions do.
INTERFACE: int

def lovasz_softmax_workspace_bytes(
    *, images: int, channels: int, height: int, width: int, per_image: bool, threads: int
) -> int: ...
def lovasz_softmax(
    *,
    logits: int,
    target: int,
    target_bytes: int,
    images: int,
    channels: int,
    height: int,
    width: int,
    mode: str,
    listed: list[int],
    per_image: bool,
    ignore_index: int | None,
    gradient: int,
    workspace: int,
    workspace_size: int,
    threads: int,
) -> float: ...
