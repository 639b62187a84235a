"""Sums and products whose bits do not depend on the number of threads.

What torch itself does not promise, found by doing every operation of a refinement twice, with one thread and with
eight: a sum of more than 32768 values to a single one is cut into one part a thread; MKL cuts the inner dimension of
products with few rows, and of batches of one; and where an array is cut for several threads, the last few values of
each part take another path than the rest, which rounds complex products (and powers, and atan2) otherwise. Sums over
rows, Fourier transforms, and real sums, products, roots, exponentials and sines are the same for any number, but for
MKL's forward transform of a single real volume, which on some processors rounds otherwise on one thread than on more.

So here volumes are transformed plane by plane, and then across the planes (1.2 to 1.7 times as long); sums are taken
row by row first, products of matrices in blocks that their shapes alone decide, each on one thread and the blocks on
all, and complex products row by row.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch

from tiltwise.ops.kernels.phases import multiply_rows

_ROW = 4096  # values that are summed at once
_BLOCK = 128  # rows, or columns, of a product that are one thread's
_SMALL = 2**22  # multiplications below which one thread does the whole, sooner than others would start


@contextmanager
def one_thread() -> Iterator[None]:
    """torch works on one thread: for small systems of equations, which more would hardly speed up."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def steady_sum(values: torch.Tensor) -> torch.Tensor:
    """() float64 sum of all values, row by row."""
    flat = values.double().flatten()
    while len(flat) > _ROW:
        whole = len(flat) // _ROW * _ROW
        flat = torch.cat([flat[:whole].view(-1, _ROW).sum(1), flat[whole:].sum()[None]])
    return flat.sum()


def steady_mean(values: torch.Tensor) -> torch.Tensor:
    """() float64 mean of all values."""
    return steady_sum(values) / values.numel()


def steady_rfftn(values: torch.Tensor, axes: int | None = None) -> torch.Tensor:
    """(..., n // 2 + 1) transform of real values over so many last axes; over all if none are named."""
    axes = values.ndim if axes is None else axes
    if values.device.type != "cpu" or axes != 3:
        return torch.fft.rfftn(values, dim=tuple(range(-axes, 0)))
    return torch.fft.fft(torch.fft.rfft2(values), dim=-3)


def steady_product(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """(m, n) first (m, k) times second (k, n)."""
    if first.device.type != "cpu":
        return first @ second
    result = first.new_empty(len(first), second.shape[1])
    size = len(first) * second.shape[1] * len(second)
    if size <= _SMALL:
        with one_thread():
            return torch.mm(first, second, out=result)
    if len(first) >= second.shape[1]:
        jobs = [(a, second, out) for a, out in zip(first.split(_BLOCK), result.split(_BLOCK), strict=True)]
    else:
        parts = zip(second.split(_BLOCK, dim=1), result.split(_BLOCK, dim=1), strict=True)
        jobs = [(first, b, out) for b, out in parts]
    threads = min(torch.get_num_threads(), len(jobs))
    with one_thread(), ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        list(pool.map(_multiply, jobs))
    return result


def _multiply(job: tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> None:
    first, second, out = job
    torch.mm(first, second, out=out)


def phased(values: torch.Tensor, phase: torch.Tensor) -> torch.Tensor:
    """(a, b, n) complex64 values times phase, of that shape or such as are repeated to it."""
    if values.device.type != "cpu":
        return values * phase
    values, phase = torch.broadcast_tensors(values, phase)
    result = torch.empty(values.shape, dtype=values.dtype)
    multiply_rows(values.numpy(), phase.numpy(), result.numpy())
    return result
