"""INP-Former (Luo et al., CVPR 2025) as a continual learner: prototypes come from the test image itself.

What is normal is read from each image, so less of it has to be remembered: whether the network forgets less
than Dinomaly for this reason has not been published and can be measured here.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor, nn

from iufbench.models import inp_former
from iufbench.strategies.dinomaly import Dinomaly, Mining
from iufbench.support.fields import number


@dataclass(frozen=True)
class Intrinsic:
    """``prototypes``: learnable tokens that become an image's prototypes; ``coherence``: weight of the mean
    distance of patches to their nearest prototype."""

    prototypes: int = number(6, at_least=1)
    coherence: float = number(0.2, at_least=0)


class INPFormer(Dinomaly):
    @dataclass(frozen=True)
    class Options:
        dinomaly: Mining = field(default_factory=Mining)
        inp: Intrinsic = field(default_factory=Intrinsic)

    def build_network(self) -> nn.Module:
        settings = self.decoder_arguments()
        return inp_former.InpFormer(self.context.groups, self.options.inp.prototypes, **settings)

    def losses(self) -> dict[str, Tensor]:
        coherence = self.options.inp.coherence * self.mb_output.incoherence.mean()
        return {**super().losses(), "coherence": coherence}
