"""Speed of coreset selection, compared with a plain farthest-point selection.

    python tests/perf/coreset.py [--points 100000] [--channels 384] [--kept 10000] [--device cpu]

The plain selection takes one point after another: the distance of every candidate to the newest centre, in
float32, by subtraction. It is timed over its first rounds and extrapolated, because every round costs the
same. Both must select the same points in these rounds.
"""

from __future__ import annotations

import argparse
import resource
import time

import torch
from torch import Tensor

from iufbench.models.neighbours import greedy_coreset


def plain(points: Tensor, count: int) -> list[int]:
    """k-centre greedy from point 0, one point a round."""
    chosen = [0]
    distance = (points - points[0]).square().sum(dim=1)
    while len(chosen) < count:
        distance[chosen[-1]] = -1
        new = int(distance.argmax())
        chosen.append(new)
        distance = torch.minimum(distance, (points - points[new]).square().sum(dim=1))
    return chosen


def clustered(count: int, channels: int, device: str) -> Tensor:
    """Points like patch features: 200 clusters of unequal width."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(200, channels, generator=generator) * 2
    widths = torch.rand(200, 1, generator=generator) + 0.2
    member = torch.randint(200, (count,), generator=generator)
    noise = torch.randn(count, channels, generator=generator)
    return (centres[member] + widths[member] * noise).to(device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=100_000)
    parser.add_argument("--channels", type=int, default=384)
    parser.add_argument("--kept", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=100, help="rounds of the plain selection")
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    points = clustered(given.points, given.channels, given.device)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start, cpu = time.perf_counter(), time.process_time()
    index = greedy_coreset(points, given.kept)
    index = index.cpu()
    wall, cpu = time.perf_counter() - start, time.process_time() - cpu
    more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    start, plain_cpu = time.perf_counter(), time.process_time()
    expected = plain(points, given.rounds)
    share = given.kept / given.rounds
    plain_wall = (time.perf_counter() - start) * share
    plain_cpu = (time.process_time() - plain_cpu) * share
    same = index[: given.rounds].tolist() == expected
    print(
        f"{given.points} x {given.channels} -> {given.kept}, "
        f"{torch.get_num_threads()} threads, {given.device}"
    )
    print(f"ours   {wall:8.1f} s wall, {cpu:8.1f} s CPU, {more:.0f} MiB more memory")
    print(f"plain  {plain_wall:8.1f} s wall, {plain_cpu:8.1f} s CPU (reckoned from {given.rounds} rounds)")
    print(f"the same first {given.rounds} points: {same}")


if __name__ == "__main__":
    main()
